"""Outputs of a frozen encoder for frames, stored in half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from loco.errors import ConfigError, DataError
from loco.models.extractor import Extractor
from loco.models.parts import Encoder, Encoding
from loco.steps.encode import encode_scene
from loco.storage import Encoded, Frames


class _Scaled(Encoder):
    """Return the mean colour of every patch, times a factor."""

    dim, stride = 3, 4

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images):
        return Encoding(self.factor * F.avg_pool2d(images, 4))


def encode(monkeypatch, walls, out, encoder):
    monkeypatch.setattr("loco.steps.encode.build_extractor", lambda _: Extractor(encoder))
    encode_scene({"name": "scaled"}, walls[0][0], out)


def test_every_frame_is_encoded(monkeypatch, walls, tmp_path):
    encode(monkeypatch, walls, tmp_path / "encoded.h5", _Scaled(100))
    with Encoded(tmp_path / "encoded.h5") as encoded, Frames(walls[0][0]) as frames:
        encoded.require_frames(frames)
        expected = 100 / 255 * frames["rgb"][:].reshape(len(frames), 8, 4, 12, 4, 3).mean(axis=(2, 4))
        np.testing.assert_allclose(encoded["encoded"][:], expected.transpose(0, 3, 1, 2), rtol=1e-3)


@pytest.mark.parametrize("factor", [1e6, np.nan])
def test_what_half_precision_cannot_hold_is_refused(monkeypatch, walls, tmp_path, factor):
    with pytest.raises(DataError, match=r"exceed the range of float16[\s\S]*`cache` to false"):
        encode(monkeypatch, walls, tmp_path / "encoded.h5", _Scaled(factor))
    assert not list(tmp_path.iterdir())


def test_without_a_frozen_encoder_there_is_nothing_to_store(monkeypatch, walls, tmp_path):
    changing = _Scaled(1)
    changing.weight = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(ConfigError, match="no frozen part"):
        encode(monkeypatch, walls, tmp_path / "encoded.h5", changing)
