"""The check_all step: fail if any scene of the run did not pass its check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from loco.records import Recipe
from loco.results.tables.checks import require_passed
from loco.steps.check_table import read_manifests
from loco.storage import write_text


def run(manifest_paths: Sequence[Path], recipes: Mapping[str, Recipe], out: Path) -> None:
    """Write ``out`` if all scenes passed.

    Raises:
        DataError: some scenes did not pass; the message lists all their problems.
    """
    manifests = read_manifests(manifest_paths, recipes)
    require_passed({manifest.key: manifest.content for manifest in manifests})
    write_text(out, f"{len(manifests)} scenes passed their check\n")
