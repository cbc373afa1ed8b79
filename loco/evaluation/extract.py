"""The extract step: features of a scene's frames, computed once and read by every benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from loco.geometry.patches import extent_of, grid_size
from loco.models import build_extractor, load
from loco.storage import Features, Frames

BATCH = 8  # images at a time


def extract_scene(model: Mapping[str, Any], checkpoint: Path | None, frames_path: Path, out: Path, seed: int) -> None:
    """Write the features of a scene's frames.

    Args:
        model: an experiment's ``model``.
        checkpoint: its trained weights; None takes the extractor as it is made from ``seed``.
        frames_path: file of :class:`loco.storage.Frames`.
        out: file of :class:`loco.storage.Features` to write.
        seed: of the initial weights.

    Raises:
        DataError: the checkpoint cannot be used.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    extractor = load(checkpoint, device) if checkpoint else build_extractor(model, seed).to(device)
    with Frames(frames_path) as frames:
        rows, columns = grid_size(frames.size, extractor.stride)
        sizes = {"n": len(frames), "h": rows, "w": columns, "c": extractor.dim}
        facts = {"model": dict(model), "extent": extent_of((rows, columns), extractor.stride)}
        with Features.create(out, frames.dataset, frames.scene, sizes, facts) as file:
            file.attrs["frames_id"] = frames.frames_id
            for start in tqdm(range(0, len(frames), BATCH), desc=frames.scene, unit="batch"):
                maps = extractor.extract(frames["rgb"][start : start + BATCH])
                file["features"][start : start + BATCH] = maps.permute(0, 2, 3, 1).cpu().numpy()
