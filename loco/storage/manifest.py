"""Manifests: results of the checks of raw scenes (``results/manifests``), including scenes that failed the check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loco.errors import DataError
from loco.records import Recipe, Record
from loco.storage.json_file import read_json, write_json

_FORMAT, _VERSION = "loco-manifest", 1
_COUNT, _TEXTS = {"type": "integer", "minimum": 0}, {"type": "array", "items": {"type": "string"}}
# Keys that the manifests of all formats have; formats add their own counts.
_SCHEMA = {
    "type": "object",
    "properties": {
        "dataset": {"type": "string"},
        "scene": {"type": "string"},
        "ok": {"type": "boolean"},
        "problems": _TEXTS,
        "notes": _TEXTS,
        "files": {"type": "array", "items": {"type": "object", "properties": {"bytes": _COUNT}, "required": ["bytes"]}},
        "digest": {"type": "string"},
        "images": _COUNT,
    },
    "required": ["dataset", "scene", "ok", "problems", "files", "digest"],
}


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read.

    Attributes:
        path: the file.
        content: result of :func:`loco.datasets.check_scene`, and ``dataset``, the name of the dataset.
        content_id: digest of the manifest, which includes the identities of the raw files.
        record: provenance record.
    """

    path: Path
    content: Mapping[str, Any]
    content_id: str
    record: Record | None

    @property
    def key(self) -> tuple[str, str]:
        """The names (dataset, scene)."""
        return self.content["dataset"], self.content["scene"]

    def require_passed(self) -> None:
        """Raise an error if the check of the scene found problems.

        Raises:
            DataError: the manifest lists problems.
        """
        if not self.content["ok"]:
            raise DataError(
                "the scene failed its check:\n- " + "\n- ".join(map(str, self.content["problems"])),
                scene=self.content["scene"],
                file=self.path,
                remedy="repair or replace the files above; the check then runs again automatically",
            )


def write_manifest(path: str | Path, content: Mapping[str, Any], record: Record | None = None) -> None:
    """Write the results of a check to ``path``, atomically."""
    write_json(path, content, _FORMAT, _VERSION, record)


def read_manifest(path: str | Path, expected: Recipe | None = None) -> Manifest:
    """Read a manifest.

    Raises:
        DataError: it is missing or damaged, does not have the structure of a manifest, or was not made as expected.
    """
    document = read_json(path, _FORMAT, _VERSION, expected, _SCHEMA)
    return Manifest(document.path, document.content, document.content_id, document.record)
