"""Features of photographs, in every form in which photographs come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from loco.models.extractor import FeatureExtractor


class _Colours(FeatureExtractor):
    """The mean colour of every patch."""

    dim, stride = 3, 4

    def maps(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 4)


def _images(n: int = 2) -> np.ndarray:
    return np.random.default_rng([3]).integers(1, 255, (n, 12, 20, 3), np.uint8)


def test_features_are_those_of_the_colours() -> None:
    means = _images().astype(float).reshape(2, 3, 4, 5, 4, 3).mean(axis=(2, 4))
    means /= np.linalg.norm(means, axis=-1, keepdims=True)
    found = _Colours().train().extract(_images())
    np.testing.assert_allclose(found.permute(0, 2, 3, 1), means, atol=1e-5)


def test_all_forms_of_images_give_the_same_features() -> None:
    images, extractor = _images(), _Colours()
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
    extractor = _Colours()
    image = np.zeros((*size, 3), np.uint8)
    assert extractor.extract(image).shape[2:] == extractor.grid(size) == tuple(int(np.ceil(s / 4)) for s in size)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (_images() / 255, r"float64.*8-bit"),
        (_images()[..., :1], r"\(2, 12, 20, 1\)"),
        (_images()[0, 0], r"\(20, 3\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"\(1, 3, 8, 8\)"),
        ([_images()[0], _images()[0, :8]], r"unequal size \(\(12, 20, 3\), \(8, 20, 3\)\)"),
        ([], r"\(0,\)"),
    ],
)
def test_what_is_no_photograph_is_refused(images: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        _Colours().extract(images)


@pytest.mark.parametrize("images", ["a.jpg", Path("a.jpg"), ["a.jpg", "b.jpg"]])
def test_paths_are_no_photographs(images: object) -> None:
    with pytest.raises(TypeError, match=r"'a\.jpg' is a path, not an image"):
        _Colours().extract(images)


def test_a_network_can_learn_from_the_features() -> None:
    head = torch.nn.Conv2d(3, 1, 1)
    head(_Colours().extract(_images())).sum().backward()
    assert head.weight.grad.abs().sum() > 0
