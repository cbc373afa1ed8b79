"""What the checks of the raw scenes found, for all scenes at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loco.errors import DataError
from loco.storage import write_text

Manifests = Mapping[tuple[str, str], Mapping[str, Any]]  # (dataset, scene) -> manifest
COLUMNS = ("dataset", "scene", "ok", "problems", "notes", "images", "raw_bytes", "prepared_bytes")


def write_checks(manifests: Manifests, prepared_bytes: Mapping[tuple[str, str], int], stem: str | Path) -> None:
    """Write ``stem``.csv and ``stem``.md: one line per scene.

    Args:
        manifests: what the checks found (:func:`loco.datasets.check_scene`).
        prepared_bytes: about how much disk the frames and correspondences of each scene take; ``raw_bytes``, beside it,
            is what its raw files take.
        stem: path without suffix.
    """
    rows = [(*_line(*place, manifest), prepared_bytes[place]) for place, manifest in manifests.items()]
    lines = [[str(cell) for cell in row] for row in rows]
    write_text(f"{stem}.csv", "".join(",".join(line) + "\n" for line in [COLUMNS, *lines]))
    rule = ["---"] * len(COLUMNS)
    write_text(f"{stem}.md", "".join("| " + " | ".join(line) + " |\n" for line in [COLUMNS, rule, *lines]))


def require_whole(manifests: Manifests) -> None:
    """Check that no scene is broken.

    Raises:
        DataError: some are; the message lists all of their problems.
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
