"""Tables of the labels: one line per scene, and totals of the categories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from loco.datasets.labels import MPCAT40, STUFF, object_counts
from loco.results.tables.html import plain_page
from loco.storage import Labels, write_text

SCENE_COLUMNS = ("dataset", "scene", "objects", "things", "stuff_classes", "void_percent")
CATEGORY_COLUMNS = ("category", "kind", "scenes", "objects", "pixels", "pixels_percent")


def write_label_tables(paths: Sequence[Path], scenes: Path, categories: Path) -> None:
    """Write ``scenes``.csv, .md and .html, and ``categories``.csv, .md and .html.

    Objects without triangles are not counted. ``stuff_classes`` is the number of stuff classes in the scene (without
    void and unlabeled). ``void_percent`` is relative to the pixels of the scene, ``pixels_percent`` to those of all
    scenes.

    Args:
        paths: files of :class:`loco.storage.Labels`.
        scenes: path of the first table without suffix.
        categories: path of the second table without suffix.
    """
    lines, objects = [], []
    area = 0
    for path in paths:
        with Labels(path) as labels:
            key, listed, counts = (labels.dataset, labels.scene), labels.facts["objects"], labels.facts["counts"]
            area += labels["instance"].size
        _, stuff = object_counts(listed)
        classes = sum(n > 0 for name, n in zip(STUFF, stuff) if name not in ("void", "unlabeled"))
        lines.append((*key, counts["objects"], counts["things"], classes, round(100 * counts["void"], 3)))
        objects += [(key, o["category"], o["pixels"]) for o in listed if o["triangles"]]
    _write(pd.DataFrame(lines, columns=SCENE_COLUMNS), "Labels of each scene", scenes)

    table = pd.DataFrame(objects, columns=["scene", "category", "pixels"])
    totals = table.groupby("category").agg(
        scenes=("scene", "nunique"), objects=("scene", "size"), pixels=("pixels", "sum")
    )
    totals = totals.reindex([name for name in MPCAT40 if name in totals.index]).reset_index()
    totals["kind"] = ["stuff" if name in STUFF else "thing" for name in totals["category"]]
    totals["pixels_percent"] = (100 * totals["pixels"] / area).round(3)
    _write(totals[list(CATEGORY_COLUMNS)], "Categories of all scenes", categories)


def _write(table: pd.DataFrame, title: str, stem: Path) -> None:
    write_text(f"{stem}.csv", table.to_csv(index=False, lineterminator="\n"))
    columns, lines = list(table.columns), table.astype(str).to_numpy().tolist()
    rows = [columns, ["---"] * len(columns), *lines]
    write_text(f"{stem}.md", "".join(f"| {' | '.join(line)} |\n" for line in rows))
    write_text(f"{stem}.html", plain_page(title, columns, lines))
