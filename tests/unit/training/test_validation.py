"""The mAP of a network in training, on images or on stored encoder outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from loco.errors import DataError
from loco.models.extractor import Extractor
from loco.models.parts import Encoder, Encoding
from loco.storage import Encoded, Frames
from loco.training.scene_files import open_scenes
from loco.training.validation import ValidationScene


class _Colours(Encoder):
    """Return the mean colour of every patch, times a factor."""

    dim, stride = 3, 4

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, images):
        return Encoding(self.factor * F.avg_pool2d(images, 4))


def test_stored_frames_are_validated_as_computed_ones(walls, tmp_path):
    frames_path, correspondences_path = walls[0]
    with Frames(frames_path) as frames:
        maps = F.avg_pool2d(torch.from_numpy(frames["rgb"][:]).permute(0, 3, 1, 2) / 255, 4)
        sizes = dict(zip("nchw", maps.shape))
        for name, content in (("same", maps), ("flat", torch.ones_like(maps))):
            with Encoded.create(tmp_path / f"{name}.h5", frames.dataset, frames.scene, sizes) as file:
                file.frames_id = frames.frames_id
                file["encoded"][:] = content
    paths = [
        (frames_path, correspondences_path, *rest) for rest in ((), (tmp_path / "same.h5",), (tmp_path / "flat.h5",))
    ]
    computed, stored, flat = (ValidationScene(scene).mean_ap(Extractor(_Colours())) for scene in open_scenes(paths))
    assert stored == pytest.approx(computed, abs=2e-3)  # half precision
    assert flat < computed - 0.05  # the stored frames are evaluated
    assert np.isfinite(flat)


def test_features_that_are_not_finite_have_no_score(walls):
    broken = Extractor(_Colours(torch.nan))
    (scene,) = open_scenes(walls[:1])
    with pytest.raises(DataError, match=r"not finite[\s\S]*wall0"):
        ValidationScene(scene).mean_ap(broken)


def test_a_scene_without_neighbours_has_no_score(walls):
    (scene,) = open_scenes(walls[:1])
    validation = ValidationScene(scene)
    validation.points = np.arange(validation.points.size).reshape(-1, 3) * 10.0
    with pytest.raises(DataError, match=r"no two patches[\s\S]*wall0"):
        validation.mean_ap(Extractor(_Colours()))
