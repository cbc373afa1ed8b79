"""Code shared by the checks of all raw layouts: continue after an error, and write the manifest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from loco.datasets.files import system_error
from loco.datasets.identity import Source, describe, digest_of
from loco.errors import DataError, printable

T = TypeVar("T")
Decode = Literal["sample", "all"]
DECODE_SAMPLE = 8  # images of each kind that a sampled check decodes, spread evenly over the scene
log = logging.getLogger(__name__)


class Checklist:
    """Collects the problems of a scene, and notes on harmless peculiarities."""

    def __init__(self, format: str, scene: str, decode: Decode) -> None:
        self.format, self.scene, self.decode = format, scene, decode
        self.problems: list[str] = []
        self.notes: list[str] = []

    def attempt(self, action: Callable[[], T]) -> T | None:
        """Return the result of ``action``; if it raises, add the error to the problems and return None.

        Files are untrusted, and the check continues after any error: an unexpected error is listed, too, and logged
        with its traceback.
        """
        try:
            return action()
        except DataError as error:
            self.add_error(error)
        except OSError as error:
            self.add_error(system_error(error, scene=self.scene))
        except MemoryError:
            remedy = "request more memory for the job; if the files are small, replace them with intact copies"
            self.add_error(DataError("the scene does not fit into memory", scene=self.scene, remedy=remedy))
        except Exception as error:
            log.exception("the check of %s raised an unexpected error", self.scene)
            self.add_error(
                DataError(
                    f"the scene cannot be read: {type(error).__name__}: {error}",
                    scene=self.scene,
                    remedy="compare its files with docs/datasets.md; if they are intact, report the traceback in the "
                    "log of this check",
                )
            )
        return None

    def add(self, problem: str, **details: Any) -> None:
        """Add a problem with the details of a :class:`loco.errors.DataError`."""
        self.add_error(DataError(problem, **{"scene": self.scene, **details}))

    def note(self, text: str) -> None:
        """Add a note on a harmless peculiarity, such as ignored files."""
        self.notes.append(printable(text))

    def chosen(self, items: Sequence[T]) -> list[T]:
        """Return the images to decode: all, or an evenly spaced sample that includes the first and the last."""
        if self.decode == "all" or not items:
            return list(items)
        return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, DECODE_SAMPLE).round().astype(int))]

    def manifest(self, root: Path, sources: Iterable[Source], counts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the manifest.

        Args:
            root: folder of the scene.
            sources: files to describe and identify; missing files are left out.
            counts: number of images, and further counts.
        """
        content = self.decode == "all"
        described = [
            self.attempt(partial(describe, source, root, content=content, scene=self.scene)) for source in sources
        ]
        files = [entry for entry in described if entry is not None]
        return {
            "format": self.format,
            "scene": self.scene,
            "ok": not self.problems,
            "problems": self.problems,
            **({"notes": self.notes} if self.notes else {}),
            "files": files,
            "digest": digest_of(files),
            "decoded": self.decode,
            **counts,
        }

    def add_error(self, error: DataError) -> None:
        """Add an error as a problem, only once, because two steps of a check may read the same file."""
        if str(error) not in self.problems:
            self.problems.append(str(error))


def require_passed(manifest: Mapping[str, Any]) -> None:
    """Raise an error if the check of a scene found problems.

    Raises:
        DataError: the manifest lists problems.
    """
    if not manifest["ok"]:
        raise DataError(
            f"scene {manifest['scene']!r} failed its check:\n- " + "\n- ".join(manifest["problems"]),
            scene=manifest["scene"],
            remedy="repair or replace the files above; the check then runs again automatically",
        )


def few(names: Sequence[str]) -> str:
    """Return the first three names, and dots for the rest. Names with control characters are quoted and escaped."""
    shown = (name if name.isprintable() else repr(name) for name in names[:3])
    return ", ".join(shown) + (", ..." if len(names) > 3 else "")
