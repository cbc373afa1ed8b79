"""The data of a page: what was packed can be read."""

from __future__ import annotations

import base64
import io
import json
import zlib

import numpy as np
from PIL import Image

from loco.results.explorer.content import Content, PageView
from loco.results.explorer.payload import LARGEST_SIDE, pack
from loco.results.explorer.scene import page_extractor


def unpacked(text: str, part: dict) -> np.ndarray:
    block = zlib.decompress(base64.b64decode(text))
    count = int(np.prod(part["shape"]))
    return np.frombuffer(block, part["type"], count, part["offset"]).reshape(part["shape"])


def test_arrays_are_as_they_were(content) -> None:
    header, text = pack(content)
    header = json.loads(json.dumps(header, allow_nan=False))
    geometry = content.geometry
    np.testing.assert_array_equal(unpacked(text, header["geometry"]["points"]), geometry.points)
    bits = np.unpackbits(unpacked(text, header["geometry"]["visible"]), axis=1, bitorder="little")
    np.testing.assert_array_equal(bits[:, : len(content.views)], geometry.visible)
    for extractor, part in zip(content.extractors, header["extractors"]):
        np.testing.assert_array_equal(unpacked(text, part["codes"]).T, extractor.codes.codes)
        np.testing.assert_array_equal(unpacked(text, part["offset"]), extractor.codes.offset)
        assert part["step"] == extractor.codes.step
    assert header["bytes"]["deflated"] == len(base64.b64decode(text))
    assert header["bytes"]["inflated"] == len(zlib.decompress(base64.b64decode(text)))


def test_images_are_jpegs_of_a_limited_size(content) -> None:
    header, text = pack(content)
    for view, part in zip(content.views, header["views"]):
        image = Image.open(io.BytesIO(unpacked(text, part["jpeg"]).tobytes()))
        assert max(image.size) <= LARGEST_SIDE
        assert np.abs(np.asarray(image).astype(int) - view.rgb).mean() < 6


def test_size_is_within_the_budget() -> None:
    """12 MB for 20 views of 1,280 patches and three extractors of 128 channels: here, four views, scaled."""
    rng = np.random.default_rng(0)
    view = np.repeat(np.arange(4), 1280)
    views = [PageView(k, str(k), np.zeros((128, 160, 3), np.uint8), (32, 40), (0, 0, 160, 128)) for k in range(4)]
    extractors = []
    for k in range(3):
        features = rng.normal(size=(len(view), 256)) * 0.98 ** np.arange(256)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        extractors.append(page_extractor(str(k), str(k), features.astype(np.float32), view))
    _, text = pack(Content("room", views, extractors, None, None, 4))
    assert extractors[0].codes.codes.shape == (5120, 128)
    assert 0.8 < extractors[0].fidelity.variance < 1
    images, places = 20 * 30_000, 20 * 1280 * (3 * 4 + 1 + 3)
    assert 5 * len(text) + 4 / 3 * (images + places) < 12e6
