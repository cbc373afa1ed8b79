"""The train step: train the network of an experiment on the scenes of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from loco.devices import claimed_gpus
from loco.fingerprints import settings_fingerprint
from loco.models.stored import require_model
from loco.records import Recipe, new_record
from loco.steps.scene_inputs import check_scenes, weights_ids
from loco.storage import Correspondences, Encoded, Frames, PairIndex
from loco.training.run import train
from loco.training.states import state_settings
from loco.weights import model_file

KINDS = (Frames, Correspondences, Encoded, PairIndex)


def run(
    recipe: Recipe,
    train_scenes: Sequence[Sequence[Path | None]],
    val_scenes: Sequence[Sequence[Path | None]],
    out: Path,
    subject: Mapping[str, str],
    threads: int,
    weights: Sequence[Path] = (),
) -> None:
    """Train an experiment, or resume an interrupted training run.

    Args:
        recipe: recipe of the model; its settings are ``model`` and ``train`` of the experiment, ``seed``, and ``data``,
            the scenes of each part of the split.
        train_scenes: files of each training scene, in the order of ``KINDS``; a file that a scene lacks is None, or
            left out at the end.
        val_scenes: files of each validation scene, likewise.
        out: ``model.safetensors`` to write; log and TensorBoard files are written beside it.
        subject: subject of the record.
        threads: total number of CPU threads of all processes.
        weights: local weight files of the network.

    Raises:
        DataError: as :func:`loco.training.train`; or an input was not made as planned.
    """
    settings = recipe.settings
    inputs = check_scenes([*train_scenes, *val_scenes], KINDS, recipe) | weights_ids(weights)
    if "init" in settings["train"]:
        start = model_file(settings["train"]["init"])
        inputs[start] = require_model(start, recipe.inputs.get("init")).content_id
    of_state = replace(recipe, settings={**settings, "train": state_settings(settings["train"])})
    # On several nodes, the scheduler assigns the GPUs.
    several_nodes = settings["train"].get("nodes", 1) > 1
    with claimed_gpus(0 if several_nodes else settings["train"].get("processes", 1)):
        train(
            {"model": settings["model"], "train": settings["train"]},
            train_scenes,
            val_scenes,
            out_dir=out.parent,
            seed=settings["seed"],
            state_fingerprint=settings_fingerprint([of_state.id, {str(path): id for path, id in inputs.items()}]),
            threads=threads,
            facts={**subject, "data": settings["data"]},
            record=new_record(recipe, subject, inputs),
        )
