"""The encode step: compute the outputs of a frozen encoder for a scene's frames once, for all steps that need them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from loco.devices import claimed_gpus
from loco.errors import ConfigError, DataError
from loco.models.build import build_extractor
from loco.models.extractor import Extractor, to_colours
from loco.records import Recipe, record_of_scene
from loco.steps.scene_inputs import weights_ids
from loco.storage import Encoded, Frames

BATCH = 8  # images per batch


def run(recipe: Recipe, frames_path: Path, out: Path, weights: Sequence[Path] = ()) -> None:
    """Write the encoded frames of a scene; ``recipe.settings["model"]`` is the configuration of the encoder.

    ``weights`` are the local weight files of the encoder, for the record.

    Raises:
        ConfigError, DataError: as :func:`encode_scene`; or the frames were not made as planned.
    """
    with claimed_gpus(1):
        encode_scene(recipe.settings["model"], frames_path, out, recipe, weights)


@torch.inference_mode()
def encode_scene(
    model: Mapping[str, Any],
    frames_path: Path,
    out: Path,
    recipe: Recipe | None = None,
    weights: Sequence[Path] = (),
) -> None:
    """Write the encoded frames of a scene in half precision.

    Args:
        model: configuration of the extractor; only its encoder is used.
        frames_path: file of :class:`loco.storage.Frames`.
        out: file of :class:`loco.storage.Encoded` to write.
        recipe: recipe of the file; None writes no record and accepts any frames.
        weights: local weight files of the encoder, for the record.

    Raises:
        ConfigError: the model has no frozen encoder.
        DataError: an output of the encoder is not finite in half precision, or the frames are damaged.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    extractor = build_extractor(model).to(device).eval()
    if not extractor.frozen_encoder:
        raise ConfigError(
            f"model {model['name']!r} has no frozen part whose output can be stored; set `cache` to false"
        )
    with Frames(frames_path, recipe and recipe.inputs["frames"]) as frames:
        maps = encoded_batches(extractor, frames, device)
        first = next(maps)
        sizes = dict(zip("chw", first.shape[1:])) | {"n": len(frames)}
        facts = {"encoder": dict(model)}
        record = record_of_scene(recipe, frames, others=weights_ids(weights)) if recipe else None
        with Encoded.create(
            out, frames.dataset, frames.scene, sizes, facts, frames_id=frames.content_id, record=record
        ) as file:
            for number, part in enumerate(chain([first], maps)):
                file["encoded"][number * BATCH : (number + 1) * BATCH] = _halved(part, frames_path).cpu().numpy()


def _halved(maps: Tensor, frames_path: Path) -> Tensor:
    halved = maps.half()
    if not torch.isfinite(halved).all():
        raise DataError(
            "the features of the backbone exceed the range of float16 or are not finite",
            file=frames_path,
            expected=f"finite values, at most {torch.finfo(torch.half).max:g} in magnitude",
            found=f"a largest magnitude of {maps.abs().max():g}",
            remedy="set `cache` to false, or use another layer or `norm: true`",
        )
    return halved


def encoded_batches(
    extractor: Extractor, frames: Frames, device: torch.device | str, encoded: Encoded | None = None
) -> Iterator[Tensor]:
    """Yield the encoder's maps of a scene's frames in batches (b, c, h, w), read from ``encoded`` or computed."""
    for start in tqdm(range(0, len(frames), BATCH), desc=frames.scene, unit="batch"):
        part = slice(start, start + BATCH)
        if encoded is None:
            yield extractor.encode(to_colours(frames["rgb"][part], device)).maps
        else:
            yield torch.from_numpy(encoded["encoded"][part]).to(device)
