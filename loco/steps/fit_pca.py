"""The fit_pca step: fit the principal components of a backbone's features, a baseline for trained heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loco.devices import claimed_gpus
from loco.errors import ConfigError
from loco.models.build import build_extractor
from loco.models.extractor import Extractor
from loco.models.heads import Linear
from loco.models.stored import save_extractor
from loco.records import Recipe, Record, new_record
from loco.steps.encode import encoded_batches
from loco.steps.scene_inputs import check_scenes, weights_ids
from loco.storage import Encoded, Frames
from loco.training.pca import components


def run(
    recipe: Recipe,
    scenes: Sequence[Sequence[Path]],
    out: Path,
    subject: Mapping[str, str],
    weights: Sequence[Path] = (),
) -> None:
    """Fit the principal components of an experiment.

    Args:
        recipe: recipe of the model; its settings are ``model``, ``whiten``, ``seed`` and ``data``, the scenes of each
            part of the split.
        scenes: (frames,) or (frames, encoded) files of the training scenes.
        out: ``model.safetensors`` to write.
        subject: subject of the record.
        weights: local weight files of the backbone, for the record.

    Raises:
        ConfigError, DataError: as :func:`fit_pca`; or an input was not made as planned.
    """
    settings = recipe.settings
    inputs = check_scenes(scenes, (Frames, Encoded), recipe) | weights_ids(weights)
    with claimed_gpus(1):
        record, facts = new_record(recipe, subject, inputs), {**subject, "data": settings["data"]}
        fit_pca(settings["model"], scenes, out, settings["seed"] or 0, settings["whiten"], facts, record)


@torch.inference_mode()
def fit_pca(
    model: Mapping[str, Any],
    scenes: Sequence[Sequence[Path]],
    out: Path,
    seed: int = 0,
    whiten: bool = False,
    facts: Mapping[str, Any] | None = None,
    record: Record | None = None,
) -> None:
    """Set a model's linear head to the principal components of its backbone's features, and write the model.

    Args:
        model: a ``backbone`` that is not trained, with a head ``linear`` that has at most as many channels.
        scenes: (frames,) or (frames, encoded) files of the scenes whose features are analysed.
        out: ``model.safetensors`` to write.
        seed: seed of the backbone's weights, if they are random.
        whiten: divide each component by its standard deviation.
        facts: metadata for the model file.
        record: provenance record.

    Raises:
        ConfigError: the model has no linear head, or more components than channels or than the rank of the features.
        DataError: the files do not belong together.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    extractor = build_extractor(model, seed).to(device).eval()
    if not (extractor.frozen_encoder and isinstance(extractor.head, Linear)):
        raise ConfigError("`pca` requires the model `backbone` without training and with the head `linear`")
    layer = extractor.head.layer
    if layer.out_features > layer.in_features:
        raise ConfigError(
            f"`model.head.dim`: expected at most {layer.in_features}, the number of channels of the backbone, found "
            f"{layer.out_features}; reduce it"
        )
    weight, bias, explained = components(_maps(extractor, scenes, device), layer.out_features, whiten)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    own = {"seed": seed, "whiten": whiten, "explained_variance": round(explained, 6)}
    save_extractor(extractor, model, out, {**(facts or {}), **own}, record)


def _maps(extractor: Extractor, scenes: Sequence[Sequence[Path]], device: str) -> Iterator[Tensor]:
    for frames_path, *stored in scenes:
        with ExitStack() as files:
            frames = files.enter_context(Frames(frames_path))
            encoded = files.enter_context(Encoded(stored[0])) if stored else None
            if encoded:
                encoded.require_frames(frames)
            yield from encoded_batches(extractor, frames, device, encoded)
