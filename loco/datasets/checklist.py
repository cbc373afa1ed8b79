"""What the checks of all raw layouts share: go on after a fault, and describe what was found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from loco.datasets.raw import DECODE_SAMPLE, Decode
from loco.errors import DataError

T = TypeVar("T")


class Checklist:
    """Collects the problems of a scene, and notes on what is odd but harmless."""

    def __init__(self, format: str, scene: str, decode: Decode) -> None:
        self.format, self.scene, self.decode = format, scene, decode
        self.problems: list[str] = []
        self.notes: list[str] = []

    def attempt(self, action: Callable[[], T]) -> T | None:
        """The result of ``action``; where it raises a DataError, None, and the error is a problem."""
        try:
            return action()
        except DataError as error:
            self.problems.append(str(error))
            return None

    def add(self, problem: str, **details: Any) -> None:
        """Add a problem with the details of a :class:`loco.errors.DataError`."""
        self.problems.append(str(DataError(problem, **{"scene": self.scene, **details})))

    def note(self, text: str) -> None:
        """Remember a peculiarity that does no harm, such as files that are left out."""
        self.notes.append(text)

    def chosen(self, items: Sequence[T]) -> list[T]:
        """The images to decode: all, or a sample spread evenly, first and last included."""
        if self.decode == "all" or not items:
            return list(items)
        return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, DECODE_SAMPLE).round().astype(int))]

    def manifest(self, files: Iterable[Path], images: int, **counts: Any) -> dict[str, Any]:
        """What was found.

        Args:
            files: to describe by size and hash; those that are missing are left out.
            images: number of usable images.
            counts: what else there is to count.
        """
        return {
            "format": self.format,
            "scene": self.scene,
            "ok": not self.problems,
            "problems": self.problems,
            **({"notes": self.notes} if self.notes else {}),
            "files": [describe(file) for file in files if file.is_file()],
            "images": images,
            "decoded": self.decode,
            **counts,
        }


def require_passed(manifest: Mapping[str, Any]) -> None:
    """Refuse a scene whose check found problems.

    Raises:
        DataError: the manifest lists some.
    """
    if not manifest["ok"]:
        raise DataError(
            f"scene {manifest['scene']!r} did not pass its check:\n- " + "\n- ".join(manifest["problems"]),
            scene=manifest["scene"],
            remedy="mend or download the files above; the check then runs again by itself",
        )


def few(names: Sequence[str]) -> str:
    """The first three names, and dots for the rest."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def describe(path: Path) -> dict[str, Any]:
    """Name, size in bytes and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}
