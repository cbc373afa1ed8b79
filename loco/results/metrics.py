"""Metric files: what one run scored on one benchmark, with the passport that says how the numbers came about."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from loco.errors import DataError
from loco.evaluation.result import Evaluation, Row
from loco.storage import write_json

FORMAT, VERSION = "loco-metrics", 1
Key = tuple[str, str, str, int]


@dataclass(frozen=True)
class Metrics:
    """One metric file.

    ``passport`` is ``{"code": hex, "settings": hex, "inputs": {name: hex}, "seed": int, "versions": {package:
    version}, "device": str}``; ``rows`` hold the scores, ``items`` the table that they summarise (a query image or an
    image pair a line, columns of equal length).
    """

    path: Path
    benchmark: str
    split: str
    experiment: str
    seed: int
    settings: Mapping[str, Any]
    passport: Mapping[str, Any]
    rows: list[Row]
    items: dict[str, list]

    @property
    def key(self) -> Key:
        return self.benchmark, self.split, self.experiment, self.seed


def write_metrics(
    path: str | Path,
    *,
    benchmark: str,
    split: str,
    experiment: str,
    seed: int,
    settings: Mapping[str, Any],
    passport: Mapping[str, Any],
    evaluation: Evaluation,
) -> None:
    """Write a metric file, atomically; :func:`read_metrics` reads it back."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "benchmark": benchmark,
        "split": split,
        "experiment": experiment,
        "seed": seed,
        "settings": settings,
        "passport": passport,
        "rows": [asdict(row) for row in evaluation.rows],
        "items": evaluation.items,
    }
    write_json(path, content)


def read_metrics(path: str | Path) -> Metrics:
    """Read a metric file.

    Raises:
        DataError: it is missing, not JSON, of another format or version, or not complete.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(path, f"cannot be read as JSON: {error}") from error
    found = (content.pop("format", None), content.pop("version", None)) if isinstance(content, dict) else (None, None)
    if found != (FORMAT, VERSION):
        raise _unusable(
            path, "is of another format or version", f"{FORMAT} version {VERSION}", "{} version {}".format(*found)
        )
    expected = {field.name for field in fields(Metrics)} - {"path"}
    if content.keys() != expected:
        raise _unusable(path, "does not have the keys of a metric file", sorted(expected), sorted(content))
    try:
        rows = [Row(**row) for row in content.pop("rows")]
    except TypeError as error:
        raise _unusable(path, f"has a broken row: {error}") from error
    lengths = {name: len(column) for name, column in content["items"].items()}
    if len(set(lengths.values())) > 1:
        raise _unusable(path, "has columns of unequal length in `items`", found=lengths)
    return Metrics(path=path, rows=rows, **content)


def require_current(metrics: Iterable[Metrics], expected: Mapping[Key, Mapping[str, Any]]) -> None:
    """Check that metric files were made by the present code and configuration: one table compares like with like.

    Args:
        metrics: the files of a table.
        expected: (benchmark, split, experiment, seed) -> what the passport says: ``{"code": hex, "settings": hex}``.

    Raises:
        DataError: some disagree, or are of a run that the configuration does not have.
    """
    faults = {m.path: fault for m in metrics if (fault := _disagreement(m, expected.get(m.key)))}
    if faults:
        raise DataError(
            "\n".join(
                ["these metric files were not made by the present code and configuration:"]
                + [f"    {path}: {fault}" for path, fault in faults.items()]
            ),
            remedy="make them anew with `snakemake --cores N --forcerun evaluate` (N: how many cores), "
            "or delete them and run the workflow again",
        )


def as_rows(metrics: Iterable[Metrics], rows: Mapping[tuple[str, str], tuple[str, str]]) -> list[Metrics]:
    """Metric files renamed for a table: (split, experiment) -> the split and the row that they are shown in."""
    return [replace(m, split=split, experiment=row) for m in metrics for split, row in [rows[m.split, m.experiment]]]


def _disagreement(metrics: Metrics, expected: Mapping[str, Any] | None) -> str | None:
    if expected is None:
        return f"the configuration has no run {' / '.join(map(str, metrics.key))}"
    found = metrics.passport
    return ", ".join(
        f"other {part} (made with {str(found.get(part))[:12]}, now {str(wanted)[:12]})"
        for part, wanted in expected.items()
        if found.get(part) != wanted
    )


def _unusable(path: Path, problem: str, expected: object = None, found: object = None) -> DataError:
    remedy = "delete it and run the workflow again"
    return DataError(f"the metric file {problem}", file=path, expected=expected, found=found, remedy=remedy)
