"""What the checks of the raw scenes found, for all scenes at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from loco.errors import DataError
from loco.storage import write_text

Manifests = Mapping[tuple[str, str], Mapping[str, Any]]  # (dataset, scene) -> manifest
COLUMNS = ("dataset", "scene", "ok", "problems", "notes", "images", "raw_bytes", "prepared_bytes")


def read_manifests(paths: Iterable[str | Path]) -> dict[tuple[str, str], dict[str, Any]]:
    """(dataset, scene) -> manifest, of files named ``<dataset>/<scene>.json``."""
    files = [Path(path) for path in paths]
    return {(file.parent.name, file.stem): json.loads(file.read_text(encoding="utf-8")) for file in files}


def write_checks(manifests: Manifests, stem: str | Path) -> None:
    """Write ``stem``.csv and ``stem``.md: a line a scene.

    ``raw_bytes`` is what its raw files take, ``prepared_bytes`` about what its frames and correspondences will.
    """
    lines = [[str(cell) for cell in _line(*place, manifest)] for place, manifest in manifests.items()]
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
            remedy="mend these files, or leave the scenes out of the split; "
            "`--keep-going` runs what does not need them",
        )


def _line(dataset: str, scene: str, manifest: Mapping[str, Any]) -> tuple:
    # The images of a folder are counted as a whole, not file by file.
    size = sum(file["bytes"] for file in manifest["files"]) + manifest.get("image_bytes", 0)
    problems, notes = (len(manifest.get(kind, ())) for kind in ("problems", "notes"))
    verdict = "yes" if manifest["ok"] else "no"
    return dataset, scene, verdict, problems, notes, manifest["images"], size, manifest["prepared_bytes"]
