"""Features of the frames of a scene, as they are written for the benchmarks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from loco.errors import DataError
from loco.models.extractor import Extractor
from loco.models.parts import Encoder, Encoding
from loco.steps import extract
from loco.steps.extract import extract_scene
from loco.storage import Encoded, Features, Frames

N, SIZE = 11, (8, 12)  # more frames than are extracted at a time, and not a multiple


class _Colours(Encoder):
    """Return the mean colour of every patch, and of the whole image as the class token."""

    dim, stride, token_dim = 3, 4, 3

    def forward(self, images):
        return Encoding(F.avg_pool2d(images, 4), images.mean(dim=(2, 3)))


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """Return the images, and paths of the frames, of the stored encoder outputs, and of the features to be written."""
    monkeypatch.setattr(extract, "build_extractor", lambda model, seed: Extractor(_Colours()))
    rgb = np.random.default_rng(0).integers(1, 255, (N, *SIZE, 3), np.uint8)
    names, cameras = [f"{i}" for i in range(N)], (np.tile(np.eye(3), (N, 1, 1)), np.tile(np.eye(4), (N, 1, 1)))
    with Frames.create(tmp_path / "frames.h5", "test", "room", {"n": N, "h": SIZE[0], "w": SIZE[1]}) as file:
        file.facts["names"] = names
        for name, values in (("rgb", rgb), ("intrinsics", cameras[0]), ("pose", cameras[1])):
            file[name][:] = values
    sizes = {"n": N, "c": 3, "h": 2, "w": 3}
    with (
        Frames(tmp_path / "frames.h5") as frames,
        Encoded.create(tmp_path / "encoded.h5", "test", "room", sizes, frames_id=frames.content_id) as file,
    ):
        file["encoded"][:] = 1 + np.arange(N * 18).reshape(N, 3, 2, 3)
    return tmp_path / "frames.h5", tmp_path / "encoded.h5", tmp_path / "features.h5", rgb


def test_features_and_class_tokens_are_those_of_the_frames(scene):
    frames, _, out, rgb = scene
    extract_scene({"name": "colours"}, None, frames, out, seed=0)
    expected = rgb.astype(float).reshape(N, 2, 4, 3, 4, 3).mean(axis=(2, 4))
    with Features(out) as features:
        found = features["features"][:].astype(float)
        np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=3, keepdims=True), atol=1e-3)
        np.testing.assert_allclose(features["norm"][:], np.linalg.norm(expected, axis=3) / 255, rtol=1e-5)
        np.testing.assert_allclose(features["token"][:], rgb.mean(axis=(1, 2)) / 255, atol=1e-3)
        assert (features.extent, features.facts["model"]) == (SIZE, {"name": "colours"})


def test_stored_frames_have_no_class_token(scene):
    frames, encoded, out, _ = scene
    extract_scene({"name": "colours"}, None, frames, out, seed=0, encoded_path=encoded)
    stored = torch.arange(1.0, N * 18 + 1).view(N, 3, 2, 3)
    with Features(out) as features:
        expected = F.normalize(stored, dim=1).permute(0, 2, 3, 1)
        np.testing.assert_allclose(features["features"][:], expected, atol=1e-3)
        np.testing.assert_allclose(features["norm"][:], stored.norm(dim=1), rtol=1e-3)
        assert features["token"].shape == (N, 0)


def test_features_that_are_not_finite_are_not_written(scene, monkeypatch):
    frames, _, out, _ = scene
    monkeypatch.setattr(_Colours, "forward", lambda self, images: Encoding(F.avg_pool2d(images, 4) / 0.0 * 0.0))
    with pytest.raises(DataError, match=r"(?s)not finite.*frames 0 to 7"):
        extract_scene({"name": "colours"}, None, frames, out, seed=0)
    assert not out.exists()
