"""Saved states of trainings that did not end. Imports no PyTorch, so that the command line lists them quickly."""

from __future__ import annotations

import re
from pathlib import Path

from loco.training.lock import is_locked

_NAME = re.compile(r"state-[0-9a-f]{1,16}")


def state_folder(out_dir: Path, fingerprint: str) -> Path:
    """Return the folder of the state of a training.

    Args:
        out_dir: the folder of the training.
        fingerprint: of everything that determines the result of the training, hexadecimal.
    """
    return out_dir / f"state-{fingerprint[:16]}"


def states_of(out_dir: Path) -> list[Path]:
    """Return the folders of all states in the folder of a training."""
    return sorted(path for path in out_dir.glob("state-*") if _NAME.fullmatch(path.name) and path.is_dir())


def saved_states(folder: Path) -> list[Path]:
    """Return the folders of the states below ``folder`` whose trainings do not run: those that can be removed."""
    found = (path for path in folder.rglob("state-*") if _NAME.fullmatch(path.name) and path.is_dir())
    return sorted(path for path in found if not is_locked(path.parent))


def size_of(state: Path) -> int:
    """Return the size of a saved state on the disk, bytes."""
    return sum(file.stat().st_size for file in state.rglob("*") if file.is_file())
