"""Read the text format of a COLMAP model, with any names of images.

COLMAP writes names with spaces to ``images.txt`` but, when it reads them, ends a name at the first space. The name is
the last field of its line, so it can be read completely: this module lets pycolmap read a copy with other names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pycolmap

from loco.datasets.files import read_bytes
from loco.files import decode_text

LARGEST_TEXT = 1 << 30  # largest file, bytes
IMAGES = "images.txt"
FIELDS = 9  # number of fields before the name of an image: id, quaternion, translation, camera


def read_text_model(files: Sequence[Path], scene: str) -> pycolmap.Reconstruction:
    """Read a model from text files, which may begin with a byte order mark.

    Raises:
        DataError: a file cannot be read.
        ValueError: a line of ``images.txt`` is not an image; pycolmap raises this and other errors for broken files.
    """
    model, names = pycolmap.Reconstruction(), {}
    with TemporaryDirectory() as folder:
        for file in files:
            text = decode_text(read_bytes(file, scene, limit=LARGEST_TEXT))
            if file.name == IMAGES:
                text, names = _without_names(text)
            Path(folder, file.name).write_text(text, encoding="utf-8")
        model.read_text(folder)
    for number, image in model.images.items():
        image.name = names[number]
    return model


def _without_names(text: str) -> tuple[str, dict[int, str]]:
    """Return a copy of ``images.txt`` with ids in place of image names, and the names by id."""
    lines, names = [], {}
    found = iter(text.split("\n"))
    for line in found:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = line.split(maxsplit=FIELDS)
        if len(fields) <= FIELDS or not fields[0].isdecimal():
            raise ValueError(f"a line of {IMAGES} does not describe an image: {line[:80]!r}")
        names[int(fields[0])] = fields[FIELDS].strip()
        lines += [
            " ".join([*fields[:FIELDS], fields[0]]),
            next(found, ""),
        ]  # the points of the image are on the next line
    return "\n".join([*lines, ""]), names
