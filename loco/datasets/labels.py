"""Categories of labels, and tables that map raw labels to them.

Categories are Matterport3D's 40 (Chang et al., 3DV 2017, ``metadata/mpcat40.tsv`` of github.com/niessner/Matterport),
which ScanNet's label table also uses. *Stuff* are uncountable categories such as walls and floors; each object of
another category is a *thing* with its own identity.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loco.datasets.files import read_bytes
from loco.errors import DataError
from loco.files import decode_text

LARGEST_TABLE = 1 << 26  # bytes; the published tables have up to 500 kB

# In the order of their numbers: the values of a semantic map are indices into this tuple.
MPCAT40 = (
    "void", "wall", "floor", "chair", "door", "table", "picture", "cabinet", "cushion", "window", "sofa", "bed",
    "curtain", "chest_of_drawers", "plant", "sink", "stairs", "ceiling", "toilet", "stool", "towel", "mirror",
    "tv_monitor", "shower", "column", "bathtub", "counter", "fireplace", "lighting", "beam", "railing", "shelving",
    "blinds", "gym_equipment", "seating", "board_panel", "furniture", "appliances", "clothes", "objects", "misc",
    "unlabeled",
)  # fmt: skip
# Categories that are not things, in the order of their numbers in panoptic maps (LoCo's segmentation benchmark).
STUFF = (
    "void", "wall", "floor", "curtain", "stairs", "ceiling", "mirror", "shower", "column", "beam", "railing",
    "shelving", "blinds", "board_panel", "misc", "unlabeled",
)  # fmt: skip
RAW, CATEGORY = "raw_category", "mpcat40"  # columns of Matterport3D's category_mapping.tsv and of ScanNet's table
Objects = Sequence[Mapping[str, Any]]  # the facts `objects` of a file of loco.storage.Labels


def read_mapping(path: Path) -> dict[str, str]:
    """Read a table that maps raw labels to names in :data:`MPCAT40`.

    Args:
        path: a tab-separated table with the columns ``raw_category`` and ``mpcat40``; other columns are ignored, and
            so are rows in which one of the two is empty.

    Raises:
        DataError: it cannot be read, lacks a column, contains an unknown category, or maps a label to two categories.
    """
    try:
        text = decode_text(read_bytes(path, limit=LARGEST_TABLE, missing="correct `labels.mapping`"), errors="strict")
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
        columns, rows = table.fieldnames or [], [(table.line_num, row) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        remedy = "save it as tab-separated text in UTF-8"
        raise DataError(f"the table of labels cannot be read: {error}", file=path, remedy=remedy) from error
    if not {RAW, CATEGORY} <= set(columns):
        raise DataError(
            "the file is not a table of labels",
            file=path,
            expected=f"tab-separated lines, the first with the column names `{RAW}` and `{CATEGORY}`",
            found=", ".join(columns[:20]) or "nothing",
            remedy=(
                "use Matterport3D's category_mapping.tsv, ScanNet's scannetv2-labels.combined.tsv, or a table of "
                "your own"
            ),
        )
    mapping: dict[str, str] = {}
    for line, row in rows:
        raw, category = ((row[column] or "").strip() for column in (RAW, CATEGORY))
        if not raw or not category:
            continue
        if category not in MPCAT40:
            raise DataError(
                f"line {line}: {category!r} is not a category",
                file=path,
                expected=", ".join(MPCAT40),
                remedy=f"correct the column `{CATEGORY}` of this line",
            )
        if mapping.setdefault(raw, category) != category:
            raise DataError(
                f"line {line} assigns {raw!r} another category than a previous line",
                file=path,
                expected=f"{mapping[raw]}, as in the previous line",
                found=category,
                remedy="delete one of the two lines",
            )
    return mapping


def categories_of(labels: Sequence[str], mapping: Mapping[str, str], *, file: Path, scene: str) -> NDArray[np.uint8]:
    """Return the category of each raw label, as an index into :data:`MPCAT40`.

    Args:
        labels: n raw labels; surrounding spaces are ignored, and an empty label has the category ``unlabeled``.
        mapping: raw label -> category (:func:`read_mapping`).
        file: the table that ``mapping`` was read from, for errors.
        scene: name of the scene, for errors.

    Returns:
        (n,) uint8.

    Raises:
        DataError: the mapping lacks labels; the message lists all of them.
    """
    known = {"": "unlabeled", **mapping}
    unknown = sorted({label.strip() for label in labels} - known.keys())
    if unknown:
        raise DataError(
            f"the table lacks raw labels of the scene ({len(unknown)}): {', '.join(map(repr, unknown))}",
            file=file,
            scene=scene,
            remedy=f"add a line for each to a copy of this table (`{RAW}` and one of the {len(MPCAT40)} names of "
            f"`{CATEGORY}`; `unlabeled` means no category), and set `labels.mapping` to the copy",
        )
    return np.array([MPCAT40.index(known[label.strip()]) for label in labels], np.uint8)


def panoptic(instance: NDArray[np.integer], objects: Objects) -> NDArray[np.int32]:
    """Return a panoptic map: one number per class of stuff, and one number per thing.

    Args:
        instance: any shape, map of :class:`loco.storage.Labels`.
        objects: the facts ``objects`` of the same file.

    Returns:
        Map of the same shape: indices into :data:`STUFF` (``void`` where there is no object), then, from ``len(STUFF)``
        on, the things that have triangles, in their order, without gaps.
    """
    next_thing = count(len(STUFF))
    void = STUFF.index("void")
    numbers = [
        STUFF.index(o["category"]) if o["stuff"] else next(next_thing) if o["triangles"] else void for o in objects
    ]
    return np.array([*numbers, void], np.int32)[instance]  # -1, no object, indexes the last entry


def object_counts(objects: Objects) -> tuple[int, list[int]]:
    """Return the number of things of a scene, and the number of objects of each class of :data:`STUFF`, in its order.

    Objects without triangles are not visible and not counted: the things are those that :func:`panoptic` numbers.
    """
    there = [o for o in objects if o["triangles"]]
    stuff = [o["category"] for o in there if o["stuff"]]
    return len(there) - len(stuff), [stuff.count(category) for category in STUFF]
