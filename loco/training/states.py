"""Saved states of training runs: their paths, the settings that they depend on, and their progress.

The folder of a state contains ``last.ckpt``, the state of a training that has not finished, or ``final.ckpt``, the
state of a finished training that can be continued with more steps; the log so far (:mod:`loco.training.log`); and
``job.json``, the arguments of the training. This module imports no PyTorch, so that the command line lists states
quickly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from loco.training.lock import is_locked
from loco.training.phases import merged_phases, phases_of

LAST, FINAL, LOG, JOB = "last.ckpt", "final.ckpt", "log.csv", "job.json"
# Settings of `train` that change neither a batch nor a step, so a training can be continued with other values. The
# number of processes changes the order in which floating-point numbers are added, so results agree to rounding.
PLACEMENT = ("processes", "nodes", "workers", "prefetch", "profile", "wandb", "save_every", "keep_state")
_NAME = re.compile(r"state-[0-9a-f]{1,16}")
_RECENT = 100  # steps used to estimate the remaining time


def state_folder(out_dir: Path, fingerprint: str) -> Path:
    """Return the folder of the state of a training.

    Args:
        out_dir: the folder of the training.
        fingerprint: fingerprint of everything that determines the state after a number of steps
            (:func:`state_settings`), hexadecimal.
    """
    return out_dir / f"state-{fingerprint[:16]}"


def states_of(out_dir: Path) -> list[Path]:
    """Return the folders of all states in the folder of a training."""
    return sorted(path for path in out_dir.glob("state-*") if _NAME.fullmatch(path.name) and path.is_dir())


def saved_states(folder: Path) -> list[Path]:
    """Return the folders of the states below ``folder`` that can be removed, because no training uses them."""
    return [path for path in all_states(folder) if not is_locked(path.parent)]


def all_states(folder: Path) -> list[Path]:
    """Return the folders of all states below ``folder``."""
    return sorted(path for path in folder.rglob("state-*") if _NAME.fullmatch(path.name) and path.is_dir())


def size_of(state: Path) -> int:
    """Return the size of a saved state on the disk, bytes."""
    return sum(file.stat().st_size for file in state.rglob("*") if file.is_file())


def checkpoint_of(state: Path) -> Path:
    """Return the path of the file from which a training continues; the file may be missing."""
    return state / (FINAL if is_final(state) else LAST)


def is_final(state: Path) -> bool:
    """Return whether a state is that of a training that has finished."""
    return (state / FINAL).is_file() and not (state / LAST).is_file()


def state_settings(train: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a training that determine its state after k steps.

    The settings in :data:`PLACEMENT` are left out, as is the number of steps (of the last phase) if no step depends on
    it (:func:`is_extensible`), so that a training with more steps can continue from the state of one with fewer.

    Args:
        train: block ``train`` of an experiment.
    """
    relevant = {key: value for key, value in train.items() if key not in PLACEMENT}
    if not is_extensible(train):
        return relevant
    relevant.pop("steps", None)
    if phases := relevant.get("phases"):
        relevant["phases"] = [*phases[:-1], {key: value for key, value in phases[-1].items() if key != "steps"}]
    return relevant


def total_steps(train: Mapping[str, Any]) -> int:
    """Return the number of steps of a training."""
    return sum(phase["steps"] for phase in merged_phases(train))


def is_extensible(train: Mapping[str, Any]) -> bool:
    """Return whether the first k steps of a training do not depend on the number of steps of its last phase.

    This holds for a constant learning rate and a constant temperature. A longer cosine schedule has another learning
    rate at every step, so it is another training.
    """
    last = phases_of(train)[-1]
    return last.optimiser.get("schedule", "cosine") == "constant" and not isinstance(last.loss.get("tau"), Mapping)


def keeps_final_state(train: Mapping[str, Any]) -> bool:
    """Return whether the state of a finished training is kept: if it can be continued, unless `keep_state` is false."""
    return is_extensible(train) and train.get("keep_state", True)


def setting_changes(state: Path, experiment: Mapping[str, Any], seed: int) -> list[str]:
    """Return the settings in which a training differs from a saved state, each as ``<key> <saved> (now <current>)``.

    The list is empty if the settings of the state are not known.

    Args:
        state: folder of the state.
        experiment: the current ``model`` and ``train`` blocks.
        seed: the current seed.
    """
    try:
        job = json.loads((state / JOB).read_text(encoding="utf-8"))
        found = dict(_flat({"seed": job["seed"], **job["experiment"]}))
    except (OSError, ValueError, KeyError, TypeError):  # the file is missing, or is of an earlier version
        return []
    present = dict(_flat({"seed": seed, **json.loads(json.dumps(experiment, default=str))}))
    keys = sorted(key for key in found.keys() | present.keys() if key.removeprefix("train.") not in PLACEMENT)
    return [
        f"{key} {json.dumps(found.get(key))} (now {json.dumps(present.get(key))})"
        for key in keys
        if found.get(key) != present.get(key)
    ]


class Progress(NamedTuple):
    """Progress of a training, from its log."""

    step: int  # number of steps taken
    steps: int  # total number of steps; 0 if unknown
    loss: float  # loss of the last step; NaN if unknown, like the following numbers
    val_map: float  # mAP of the last validation
    images_per_second: float
    seconds_left: float


def progress(state: Path) -> Progress:
    """Return the progress of the training of a state, running or stopped.

    Rates are medians over the last steps.

    Raises:
        DataError: the log cannot be read.
    """
    from loco.training.log import read_log  # not required to list states

    rows, nan = read_log(state / LOG), float("nan")
    try:
        steps = total_steps(json.loads((state / JOB).read_text(encoding="utf-8"))["experiment"]["train"])
    except (OSError, ValueError, KeyError, TypeError):
        steps = 0
    if not rows:
        return Progress(0, steps, nan, nan, nan, nan)
    step, recent = int(rows[-1]["step"]), rows[-_RECENT:]
    rate, seconds = (
        median([row[column] for row in recent if column in row] or [nan]) for column in ("images_per_second", "seconds")
    )
    loss = rows[-1].get("loss", nan)
    score = next(islice((row["val_map"] for row in reversed(rows) if "val_map" in row), 1), nan)
    return Progress(step, steps, loss, score, rate, seconds * (steps - step) if steps else nan)


def _flat(settings: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys and the values of nested mappings."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from _flat(value, f"{where}.{key}" if where else str(key))
    else:
        yield where, settings
