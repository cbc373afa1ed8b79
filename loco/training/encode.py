"""The encode step: what the frozen part of a model makes of a scene's frames, computed once for all trainings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from loco.errors import ConfigError
from loco.models import build_extractor
from loco.storage import Encoded, Frames

BATCH = 8  # images at a time


@torch.inference_mode()
def encode_scene(model: Mapping[str, Any], frames_path: Path, out: Path) -> None:
    """Write the encoded frames of a scene, in half precision.

    Args:
        model: configuration of the extractor, of which only the encoder is used.
        frames_path: file of :class:`loco.storage.Frames`.
        out: file of :class:`loco.storage.Encoded` to write.

    Raises:
        ConfigError: the model has no frozen encoder.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    extractor = build_extractor(model).to(device).eval()
    if not extractor.frozen_encoder:
        raise ConfigError(f"model {model['name']!r} has no frozen part to store; set `train.cache` to false")

    def encode(rgb: NDArray[np.uint8]) -> torch.Tensor:
        images = torch.from_numpy(rgb).to(device).permute(0, 3, 1, 2).float() / 255
        return extractor.encode(extractor.continued(images)).half().cpu()

    with Frames(frames_path) as frames:
        sizes = dict(zip("chw", encode(frames["rgb"][:1]).shape[1:])) | {"n": len(frames)}
        with Encoded.create(out, frames.dataset, frames.scene, sizes, {"encoder": dict(model)}) as file:
            file.attrs["frames_id"] = frames.frames_id
            for start in tqdm(range(0, len(frames), BATCH), desc=frames.scene, unit="batch"):
                file["encoded"][start : start + BATCH] = encode(frames["rgb"][start : start + BATCH]).numpy()
