"""ONNX files give the same features as PyTorch for any number of images, or are not written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from loco.errors import ConfigError
from loco.models import build_extractor
from loco.models.export import TOLERANCE, export_onnx
from loco.models.extractor import Extractor
from loco.models.parts import Encoder, Encoding

COMPACT = {"name": "compact_cnn", "dim": 8, "widths": (8, 8, 8), "blocks": 1}


def _run(path: Path, images: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(path).run(None, {"images": images})[0]


def test_an_exported_model_gives_the_same_features(tmp_path: Path) -> None:
    extractor = build_extractor(COMPACT)
    path, size = tmp_path / "model.onnx", (21, 35)  # not a multiple of the patch size
    difference = export_onnx(extractor, path, size)
    assert extractor.training  # the mode is unchanged
    images = np.random.default_rng([7]).random((4, 3, *size), np.float32)
    with torch.inference_mode():
        expected = extractor.eval()(torch.from_numpy(images)).numpy()
    found = _run(path, images)
    assert found.shape == (4, 8, 6, 9)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0 <= difference < 1e-5
    assert {p.key: p.value for p in onnx.load(path).metadata_props}.items() >= {"stride": "4", "dim": "8"}.items()
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


class _Drifting(Encoder):
    """Return other features than those that were exported."""

    dim, stride = 4, 2

    def forward(self, images: Tensor) -> Encoding:
        cells = torch.nn.functional.avg_pool2d(images, 2)
        drift = 0 if torch.compiler.is_exporting() else 10 * TOLERANCE
        return Encoding(torch.cat([cells, torch.full_like(cells[:, :1], 1 + drift)], dim=1))


@pytest.mark.parametrize(
    ("extractor", "says"),
    [
        (Extractor(_Drifting()), "differ by .* from those of PyTorch"),
        (build_extractor({"name": "dense_sift", "stride": 4, "keypoint_size": 3}), "DenseSIFT cannot be exported"),
    ],
)
def test_no_file_is_written_unless_it_agrees(tmp_path: Path, extractor: Extractor, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        export_onnx(extractor, tmp_path / "model.onnx", (8, 8))
    assert not list(tmp_path.iterdir())
