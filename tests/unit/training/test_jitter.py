from __future__ import annotations

import numpy as np
import torch

from loco.training.jitter import colours, draw_factors

AMOUNT = {"brightness": 0.2, "contrast": 0.3, "colour": 0.1}


def photographs(count, seed=0, size=(24, 40)):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8))


def one_by_one(image, amount, rng):
    """The definition: the image, scaled about its mean by the contrast, times brightness and factor of each channel."""
    x = image.permute(2, 0, 1) / 255
    contrast, brightness, balance = (
        torch.from_numpy(np.exp(rng.uniform(-amount[name], amount[name], (n, 1, 1)))).float()
        for name, n in (("contrast", 1), ("brightness", 1), ("colour", 3))
    )
    mean = x.mean()
    return (((x - mean) * contrast + mean) * brightness * balance).clamp(0, 1)


def test_a_batch_equals_its_images_to_the_last_bit():
    images = photographs(5)
    factors = torch.stack([draw_factors(AMOUNT, np.random.default_rng(k)) for k in range(5)])
    changed = colours(images, factors)
    assert changed.is_contiguous()
    for k, image in enumerate(images):
        assert torch.equal(changed[k], one_by_one(image, AMOUNT, np.random.default_rng(k)))
        assert torch.equal(changed[k], colours(images[k : k + 1], factors[k : k + 1])[0])
    assert torch.equal(colours(images, None), (images.permute(0, 3, 1, 2) / 255).contiguous())


def test_factors_are_within_bounds_and_differ():
    drawn = torch.stack([draw_factors(AMOUNT, np.random.default_rng(k)) for k in range(200)]).log()
    most = torch.tensor([0.3, 0.2, 0.1, 0.1, 0.1])
    assert (drawn.abs() <= most + 1e-6).all()
    assert (drawn.abs().amax(dim=0) > 0.9 * most).all()
    assert len(drawn.unique(dim=0)) == 200
    assert (draw_factors(dict.fromkeys(AMOUNT, 0.0), np.random.default_rng(0)) == 1).all()
