"""The extract step: compute the features of a scene's frames once, for all benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from loco.devices import claimed_gpus
from loco.errors import DataError
from loco.fingerprints import settings_fingerprint
from loco.geometry.patches import extent_of, grid_size
from loco.models.build import build_extractor
from loco.models.catalogue import COMPUTED
from loco.models.extractor import Extractor, to_colours
from loco.models.stored import load
from loco.records import Recipe, record_of_scene
from loco.steps.scene_inputs import stat_identity, weights_ids
from loco.storage import Encoded, Features, Frames
from loco.storage.computed_features import ComputedFeatures
from loco.storage.content_id import read_content_id
from loco.weights import computed_files

BATCH = 8  # images per batch


def run(
    recipe: Recipe,
    frames_path: Path,
    out: Path,
    checkpoint: Path | None = None,
    encoded_path: Path | None = None,
    weights: Sequence[Path] = (),
) -> None:
    """Write the features of a scene's frames.

    ``recipe.settings`` are ``model``, the configuration of the extractor, and ``seed`` of its initial weights, which is
    None if they do not affect the features. See :func:`extract_scene` for the other arguments.

    Raises:
        DataError: as :func:`extract_scene`; or an input was not made as planned.
    """
    model, seed = recipe.settings["model"], recipe.settings["seed"] or 0
    if model["name"] == COMPUTED:
        copy_features(model, frames_path, out, recipe)
        return
    with claimed_gpus(1):
        extract_scene(model, checkpoint, frames_path, out, seed, encoded_path, recipe, weights)


@torch.inference_mode()
def extract_scene(
    model: Mapping[str, Any],
    checkpoint: Path | None,
    frames_path: Path,
    out: Path,
    seed: int,
    encoded_path: Path | None = None,
    recipe: Recipe | None = None,
    weights: Sequence[Path] = (),
) -> None:
    """Write the features of a scene's frames.

    Args:
        model: an experiment's ``model``.
        checkpoint: trained weights; None uses the extractor as initialised from ``seed``.
        frames_path: file of :class:`loco.storage.Frames`.
        out: file of :class:`loco.storage.Features` to write.
        seed: seed of the initial weights.
        encoded_path: file of :class:`loco.storage.Encoded` with the outputs of the frozen encoder; None computes them.
        recipe: recipe of the file; None writes no record and accepts any inputs.
        weights: local weight files of the extractor, for the record.

    Raises:
        DataError: the checkpoint cannot be used, the encoded frames belong to other frames, or features are not finite.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recipes = recipe.inputs if recipe else {}
    if checkpoint:
        extractor = load(checkpoint, device, expected=recipes.get("model"))
    else:
        extractor = build_extractor(model, seed).to(device).eval()
    with ExitStack() as files:
        frames = files.enter_context(Frames(frames_path, recipes.get("frames")))
        encoded = files.enter_context(Encoded(encoded_path, recipes.get("encode"))) if encoded_path else None
        if encoded:
            encoded.require_frames(frames)
        rows, columns = grid_size(frames.size, extractor.stride)
        sizes = {
            "n": len(frames),
            "h": rows,
            "w": columns,
            "c": extractor.dim,
            "t": 0 if encoded else extractor.token_dim,
        }
        facts = {"model": dict(model), "extent": extent_of((rows, columns), extractor.stride)}
        others = {encoded.path: encoded.content_id} if encoded else {}
        others |= {checkpoint: read_content_id(checkpoint)} if checkpoint else {}
        record = record_of_scene(recipe, frames, others | weights_ids(weights)) if recipe else None
        with Features.create(
            out, frames.dataset, frames.scene, sizes, facts, frames_id=frames.content_id, record=record
        ) as file:
            for start in tqdm(range(0, len(frames), BATCH), desc=frames.scene, unit="batch"):
                part = slice(start, start + BATCH)
                maps, token = _features(extractor, frames, encoded, part, device)
                _require_finite(maps, token, frames, start)
                file["features"][part] = F.normalize(maps, dim=1).permute(0, 2, 3, 1).cpu().numpy()
                file["norm"][part] = maps.norm(dim=1).cpu().numpy()
                file["token"][part] = token.cpu().numpy()


def copy_features(model: Mapping[str, Any], frames_path: Path, out: Path, recipe: Recipe | None = None) -> None:
    """Write the features of a scene's frames that another program computed.

    Args:
        model: ``path``, the folder of the features (:func:`loco.weights.computed_files`), and ``stride``.
        frames_path: file of :class:`loco.storage.Frames`.
        out: file of :class:`loco.storage.Features` to write.
        recipe: recipe of the file; None writes no record and accepts any frames.

    Raises:
        DataError: an image has no features, or their size does not match the frames or the other images.
    """
    with ExitStack() as opened:
        frames = opened.enter_context(Frames(frames_path, recipe and recipe.inputs["frames"]))
        files = computed_files(model["path"], frames.dataset, frames.scene)
        source = files[0] if files[0].suffix == ".h5" else Path(model["path"], frames.dataset, frames.scene)
        computed = opened.enter_context(ComputedFeatures(source, frames.scene))
        grid = grid_size(frames.size, model["stride"])
        channels = computed.read(frames.names[0], grid).shape[2]
        sizes = {"n": len(frames), "h": grid[0], "w": grid[1], "c": channels, "t": 0}
        facts = {"model": dict(model), "extent": extent_of(grid, model["stride"])}
        identity = settings_fingerprint({str(path): stat_identity(path) for path in files})
        record = record_of_scene(recipe, frames, {source: identity}) if recipe else None
        file = opened.enter_context(
            Features.create(out, frames.dataset, frames.scene, sizes, facts, frames_id=frames.content_id, record=record)
        )
        for number, name in enumerate(tqdm(frames.names, desc=frames.scene, unit="image")):
            values = torch.from_numpy(computed.read(name, grid))
            if values.shape[2] != channels:
                raise DataError(
                    f"the features of image {name!r} and of the first image have different numbers of channels",
                    file=source,
                    scene=frames.scene,
                    expected=str(channels),
                    found=str(values.shape[2]),
                    remedy="compute the features of all images with the same extractor",
                )
            file["features"][number] = F.normalize(values, dim=2).numpy()
            file["norm"][number] = values.norm(dim=2).numpy()


def _features(
    extractor: Extractor, frames: Frames, encoded: Encoded | None, part: slice, device: str
) -> tuple[Tensor, Tensor]:
    """Return unnormalised feature maps (b, c, h, w) and class tokens (b, t); encoded frames have no tokens (t = 0)."""
    images = to_colours(frames["rgb"][part], device) if extractor.needs_images or not encoded else None
    if encoded:
        maps = extractor.raw(images, torch.from_numpy(encoded["encoded"][part]).to(device))
        return maps, maps.new_empty(len(maps), 0)
    return extractor.with_class_token(images)


def _require_finite(maps: Tensor, token: Tensor, frames: Frames, start: int) -> None:
    if not (maps.isfinite().all() and token.isfinite().all()):
        raise DataError(
            "the extractor returned features that are not finite",
            file=frames.path,
            scene=frames.scene,
            found=f"in frames {start} to {start + len(maps) - 1}",
            remedy="check the weights of the model: a diverged training run produces such features",
        )
