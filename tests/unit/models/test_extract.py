"""Features of photographs, for every form in which photographs are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from loco.models.extractor import Extractor
from loco.models.parts import Encoder, Encoding


class _MeanColours(Encoder):
    """Return the mean colour of every patch."""

    dim, stride = 3, 4

    def forward(self, images: Tensor) -> Encoding:
        return Encoding(F.avg_pool2d(images, 4))


def _colours() -> Extractor:
    return Extractor(_MeanColours())


def _images(n: int = 2) -> np.ndarray:
    return np.random.default_rng([3]).integers(1, 255, (n, 12, 20, 3), np.uint8)


def test_features_are_those_of_the_colours() -> None:
    means = _images().astype(float).reshape(2, 3, 4, 5, 4, 3).mean(axis=(2, 4))
    means /= np.linalg.norm(means, axis=-1, keepdims=True)
    found = _colours().train().extract(_images())
    np.testing.assert_allclose(found.permute(0, 2, 3, 1), means, atol=1e-5)


def test_all_forms_of_images_give_the_same_features() -> None:
    images, extractor = _images(), _colours()
    expected = extractor.extract(images)
    tensors = torch.from_numpy(images)
    for form in (
        list(images),
        (image for image in images),
        tensors,
        list(tensors),
        [_read_only(i) for i in images],
    ):
        assert torch.equal(extractor.extract(form), expected)
    assert torch.equal(extractor.extract(images[0]), expected[:1])
    assert torch.equal(extractor.extract(torch.from_numpy(images[0])), expected[:1])
    pictures = [Image.fromarray(image) for image in images]
    assert torch.equal(extractor.extract(pictures), expected)
    assert torch.equal(extractor.extract(pictures[0]), expected[:1])
    assert torch.equal(extractor.extract(images, batch=1), expected)
    assert torch.equal(extractor.extract(images[..., ::-1]), extractor.extract(images[..., ::-1].copy()))


def _read_only(image: np.ndarray) -> np.ndarray:
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape)


@pytest.mark.parametrize("size", [(12, 20), (13, 17), (1, 1), (15, 4)])
def test_the_grid_is_that_of_the_features(size: tuple[int, int]) -> None:
    extractor = _colours()
    image = np.zeros((*size, 3), np.uint8)
    assert extractor.extract(image).shape[2:] == extractor.grid(size) == tuple(int(np.ceil(s / 4)) for s in size)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (_images() / 255, r"float64.*uint8"),
        (_images()[..., :1], r"\(2, 12, 20, 1\)"),
        (_images()[0, 0], r"\(20, 3\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"\(1, 3, 8, 8\)"),
        ([_images()[0], _images()[0, :8]], r"different sizes \(\(12, 20, 3\), \(8, 20, 3\)\)"),
        ([], r"\(0,\)"),
    ],
)
def test_what_is_no_photograph_is_refused(images: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        _colours().extract(images)


@pytest.mark.parametrize("images", ["a.jpg", Path("a.jpg"), ["a.jpg", "b.jpg"]])
def test_paths_are_no_photographs(images: object) -> None:
    with pytest.raises(TypeError, match=r"'a\.jpg' is a path, not an image"):
        _colours().extract(images)


def test_a_network_can_learn_from_the_features() -> None:
    head = torch.nn.Conv2d(3, 1, 1)
    head(_colours().extract(_images())).sum().backward()
    assert head.weight.grad.abs().sum() > 0


class _Refusing(_MeanColours):
    """Fail for a black image."""

    def forward(self, images: Tensor) -> Encoding:
        if not images.any():
            raise RuntimeError("a black image")
        return super().forward(images)


@pytest.mark.parametrize("mode", [True, False])
def test_features_leave_the_modes_of_all_modules_as_they_were(mode: bool) -> None:
    encoder = _Refusing()
    encoder.tail = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5))
    extractor = Extractor(encoder).train(mode)
    encoder.tail[1].train(not mode)  # another mode than the rest
    modes = {name: module.training for name, module in extractor.named_modules()}
    assert set(modes.values()) == {True, False}
    extractor.extract(_images())
    assert {name: module.training for name, module in extractor.named_modules()} == modes
    with pytest.raises(RuntimeError, match="black"):
        extractor.extract(np.zeros((8, 8, 3), np.uint8))
    assert {name: module.training for name, module in extractor.named_modules()} == modes


def test_stored_maps_of_another_grid_are_refused() -> None:
    images = torch.rand(2, 3, 12, 20)
    extractor = _colours()
    maps = extractor.encode(images).maps
    assert torch.equal(extractor(images, maps), extractor(images))
    assert torch.equal(extractor(None, maps), extractor(images))
    with pytest.raises(ValueError, match=r"\(2, 5\) cells do not fit images of \(12, 20\)"):
        extractor(images, maps[:, :, 1:])


def test_an_encoder_of_another_stride_is_noticed() -> None:
    encoder = _MeanColours()
    encoder.stride = 2
    with pytest.raises(ValueError, match=r"\(3, 5\) cells do not fit images of \(12, 20\) pixels at a stride of 2"):
        Extractor(encoder)(torch.rand(1, 3, 12, 20))
