"""Changes of the colours of training images: drawn where batches are loaded, applied on the device.

Batches carry 8-bit images and five factors per image, a quarter of the bytes of float32 colours.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from loco.models.extractor import to_colours

FACTORS = 5  # number of factors per image: contrast, brightness, and one for each of red, green and blue


def draw_factors(amount: Mapping[str, float], rng: np.random.Generator) -> Tensor:
    """Draw the factors of one image: (5,) float32, of contrast, brightness, red, green and blue.

    Args:
        amount: largest absolute value of the natural logarithm of the factors of ``contrast``, ``brightness`` and
            ``colour``.
        rng: source of the draws.
    """
    drawn = [rng.uniform(-amount[name], amount[name], size=n) for name, n in _COUNTS.items()]
    return torch.from_numpy(np.exp(np.concatenate(drawn))).float()


def colours(images: Tensor, factors: Tensor | None) -> Tensor:
    """Convert 8-bit images to the input of an extractor, and change exposure, contrast and colour balance.

    Computed in float32 on the device of the images. On the CPU, the result does not depend on how images are batched.

    Args:
        images: (b, H, W, 3) uint8.
        factors: (b, 5), of :func:`draw_factors`; None for no change.

    Returns:
        (b, 3, H, W) float32 in [0, 1].
    """
    x = to_colours(images, images.device)
    if factors is not None:
        contrast, brightness, balance = factors.to(x).split(list(_COUNTS.values()), dim=1)
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x = (x - mean) * contrast[:, :, None, None] + mean
        x = (x * brightness[:, :, None, None] * balance[:, :, None, None]).clamp_(0, 1)
    return x.contiguous()


_COUNTS = {"contrast": 1, "brightness": 1, "colour": 3}
