"""Summary of the checks of all raw scenes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loco.errors import DataError
from loco.geometry.suspects import LEAST_CONSISTENCY
from loco.results.figures import COLOURS, WIDTH, new_figure
from loco.results.html_tables import plain_page
from loco.storage import write_text

Manifests = Mapping[tuple[str, str], Mapping[str, Any]]  # (dataset, scene) -> manifest
COLUMNS = ("dataset", "scene", "ok", "problems", "notes", "images", "raw_bytes", "prepared_bytes")
# Columns of the geometric self-check; in the table if any scene of the run has one.
GEOMETRY = {"pairs": "frame_pairs", "overlap": "overlap", "error_cm": "disagreement_cm", "consistency": "consistency"}
AXES = {
    "consistency": "consistency of depth and poses",
    "overlap": "overlap of a frame with its best neighbour",
    "error_cm": "median disagreement (cm)",
}


def write_checks(manifests: Manifests, prepared_bytes: Mapping[tuple[str, str], int], stem: str | Path) -> None:
    """Write ``stem``.csv, ``stem``.md and ``stem``.html, with one line per scene.

    Args:
        manifests: results of the checks (:func:`loco.datasets.check_scene`).
        prepared_bytes: approximate disk space of the frames and correspondences of each scene; the column ``raw_bytes``
            is that of its raw files.
        stem: path without suffix.
    """
    compared = any("geometry" in manifest for manifest in manifests.values())
    columns = [*COLUMNS, *(GEOMETRY.values() if compared else ())]
    rows = [
        [*_line(*place, manifest), prepared_bytes[place], *(_geometry(manifest) if compared else ())]
        for place, manifest in manifests.items()
    ]
    lines = [["" if cell is None else str(cell) for cell in row] for row in rows]
    write_text(f"{stem}.csv", "".join(",".join(line) + "\n" for line in [columns, *lines]))
    rule = ["---"] * len(columns)
    write_text(f"{stem}.md", "".join("| " + " | ".join(line) + " |\n" for line in [columns, rule, *lines]))
    write_text(f"{stem}.html", plain_page("Raw scenes of the run", columns, lines))


def plot_geometry(manifests: Manifests, stem: str | Path) -> None:
    """Draw ``stem``.svg and ``stem``.png: the geometric self-check of all scenes, with one panel per quantity.

    A scene that was not compared has no point. Crosses mark scenes with a detected error.
    """
    found = [manifest.get("geometry", {}) for manifest in manifests.values()]
    datasets = list(dict.fromkeys(dataset for dataset, _ in manifests))
    with new_figure(stem, WIDTH, 2.6) as figure:
        for axes, (key, label) in zip(figure.subplots(1, len(AXES)), AXES.items()):
            for k, ((dataset, _), numbers) in enumerate(zip(manifests, found), start=1):
                if numbers.get(key) is not None:
                    colour = COLOURS[datasets.index(dataset) % len(COLOURS)]
                    axes.plot(k, numbers[key], color=colour, marker="x" if "fault" in numbers else "o", linestyle="")
            axes.set(xlabel="scene", title=label, xlim=(0, len(found) + 1))
            axes.set_ylim(bottom=0, top=None if key == "error_cm" else 1.05)
            if key == "consistency":
                axes.axhline(LEAST_CONSISTENCY, color="#666666", linewidth=0.8, linestyle="--")


def require_whole(manifests: Manifests) -> None:
    """Check that all scenes have passed their check.

    Raises:
        DataError: a scene has not; the message lists the problems of all such scenes.
    """
    broken = {place: manifest["problems"] for place, manifest in manifests.items() if not manifest["ok"]}
    if broken:
        lines = [f"{len(broken)} of {len(manifests)} scenes did not pass their check:"]
        for (dataset, scene), problems in broken.items():
            lines.append(f"\n{dataset}/{scene}")
            lines += [f"  - {problem}".replace("\n", "\n  ") for problem in problems]
        raise DataError(
            "\n".join(lines) + "\n",
            remedy="repair these files, or leave the scenes out of the split; "
            "`--keep-going` runs what does not need them",
        )


def _line(dataset: str, scene: str, manifest: Mapping[str, Any]) -> tuple:
    size = sum(file["bytes"] for file in manifest["files"])
    problems, notes = (len(manifest.get(kind, ())) for kind in ("problems", "notes"))
    verdict = "yes" if manifest["ok"] else "no"
    return dataset, scene, verdict, problems, notes, manifest["images"], size


def _geometry(manifest: Mapping[str, Any]) -> list:
    found = manifest.get("geometry", {})
    return [found.get(key) for key in GEOMETRY]
