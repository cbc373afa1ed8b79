"""Raw scenes made by the workflow (``results/raw``): folders of files with a provenance record.

The record is a JSON document that lists the SHA-256 of every file, so its content id identifies the whole folder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from loco.errors import DataError
from loco.files import is_data, open_regular
from loco.records import Recipe, Record
from loco.storage.json_file import Document, read_json, write_json
from loco.storage.reading import REGENERATE, reading

RECORD = ".record.json"
_FORMAT, _VERSION = "loco-raw-scene", 1


def write_folder_record(folder: Path, record: Record | None = None) -> None:
    """Write the record of a finished folder into it."""
    write_json(folder / RECORD, {"files": _digests(folder)}, _FORMAT, _VERSION, record)


def read_folder_record(folder: Path, expected: Recipe | None = None) -> Document:
    """Read the record of a folder, without reading the files.

    Raises:
        DataError: the folder has no record, the record is damaged, or the folder was not made as expected.
    """
    return read_json(folder / RECORD, _FORMAT, _VERSION, expected)


def verify_folder(folder: Path) -> None:
    """Read all files of a folder and check them against its record.

    Raises:
        DataError: a file was changed, removed or added.
    """
    stated, found = read_folder_record(folder).content["files"], _digests(folder)
    if wrong := sorted(name for name in stated.keys() | found.keys() if stated.get(name) != found.get(name)):
        raise DataError(
            f"{len(wrong)} file(s) of the folder were changed, removed or added after it was written",
            file=folder,
            expected=f"the {len(stated)} files listed in {RECORD}",
            found=f"differences in {', '.join(wrong[:3])}{', ...' if wrong[3:] else ''}",
            remedy=REGENERATE,
        )


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and is_data(path.relative_to(folder)):  # excludes the record and Snakemake's marker
            with reading(path), open_regular(path) as file:
                digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
