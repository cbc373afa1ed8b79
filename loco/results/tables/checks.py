"""Table of the checks of all raw scenes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loco.errors import DataError
from loco.results.tables.html import plain_page
from loco.storage import write_text

Manifests = Mapping[tuple[str, str], Mapping[str, Any]]  # (dataset, scene) -> manifest
COLUMNS = ("dataset", "scene", "ok", "problems", "notes", "images", "raw_bytes", "prepared_bytes")
# Columns of the geometric self-check; in the table if any scene of the run has one.
GEOMETRY = {"pairs": "frame_pairs", "overlap": "overlap", "error_cm": "disagreement_cm", "consistency": "consistency"}


def write_checks(manifests: Manifests, prepared_bytes: Mapping[tuple[str, str], int], stem: str | Path) -> None:
    """Write ``stem``.csv, ``stem``.md and ``stem``.html, with one line per scene; the Markdown ends with the notes.

    Args:
        manifests: results of the checks (:func:`loco.datasets.check_scene`).
        prepared_bytes: approximate disk space of the frames and correspondences of each scene; the column ``raw_bytes``
            is that of its raw files.
        stem: path without suffix.
    """
    has_geometry = any("geometry" in manifest for manifest in manifests.values())
    columns = [*COLUMNS, *(GEOMETRY.values() if has_geometry else ())]
    rows = [
        [*_line(*key, manifest), prepared_bytes[key], *(_geometry(manifest) if has_geometry else ())]
        for key, manifest in manifests.items()
    ]
    lines = [["" if cell is None else str(cell) for cell in row] for row in rows]
    write_text(f"{stem}.csv", "".join(",".join(line) + "\n" for line in [columns, *lines]))
    rule = ["---"] * len(columns)
    table = "".join("| " + " | ".join(line) + " |\n" for line in [columns, rule, *lines])
    notes = [
        f"- {'/'.join(key)}: {note}\n" for key, manifest in manifests.items() for note in manifest.get("notes", ())
    ]
    write_text(f"{stem}.md", table + "".join(["\n", *notes] if notes else []))
    write_text(f"{stem}.html", plain_page("Raw scenes of the run", columns, lines))


def require_passed(manifests: Manifests) -> None:
    """Check that all scenes have passed their check.

    Raises:
        DataError: a scene has not; the message lists the problems of all such scenes.
    """
    failed = {key: manifest["problems"] for key, manifest in manifests.items() if not manifest["ok"]}
    if failed:
        lines = [f"{len(failed)} of {len(manifests)} scenes failed their check:"]
        for (dataset, scene), problems in failed.items():
            lines.append(f"\n{dataset}/{scene}")
            lines += [f"  - {problem}".replace("\n", "\n  ") for problem in problems]
        raise DataError(
            "\n".join(lines) + "\n",
            remedy="repair these files or remove the scenes from the split; "
            "`--keep-going` runs the jobs that do not depend on these scenes",
        )


def _line(dataset: str, scene: str, manifest: Mapping[str, Any]) -> tuple:
    size = sum(file["bytes"] for file in manifest["files"])
    problems, notes = (len(manifest.get(kind, ())) for kind in ("problems", "notes"))
    verdict = "yes" if manifest["ok"] else "no"
    return dataset, scene, verdict, problems, notes, manifest["images"], size


def _geometry(manifest: Mapping[str, Any]) -> list:
    found = manifest.get("geometry", {})
    return [found.get(key) for key in GEOMETRY]
