"""Metric files: the scores of one run on one benchmark, with their provenance record.

Benchmarks that are evaluated per scene (:attr:`loco.evaluation.catalogue.Benchmark.per_scene`) first write a file of
items per scene, from which the metric file is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from loco.errors import DataError
from loco.evaluation.intervals import LEVELS
from loco.evaluation.result import Evaluation, Row, Sample
from loco.records import Recipe, Record
from loco.storage import read_json, write_json
from loco.storage.json_file import Document
from loco.storage.reading import REGENERATE

FORMAT, VERSION = "loco-metrics", 3
ITEMS_FORMAT, ITEMS_VERSION = "loco-items", 1
Key = tuple[str, str, str, int | None]

_TEXT, _MAP = {"type": "string"}, {"type": "object"}
_LEVEL = {"enum": [*LEVELS, None]}
_NUMBER, _COUNT = {"type": ["number", "null"]}, {"type": "integer", "minimum": 0}


def _map_of(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a map that has exactly these keys."""
    return {**_MAP, "properties": properties, "required": list(properties), "additionalProperties": False}


_ROW = {"metric": _TEXT, "condition": _TEXT, "value": _NUMBER, "low": _NUMBER, "high": _NUMBER, "n": _COUNT}
_ITEMS = {**_MAP, "additionalProperties": {"type": "array"}}
_CONTENT = {
    "benchmark": _TEXT,
    "split": _TEXT,
    "experiment": _TEXT,
    "seed": {"type": ["integer", "null"], "minimum": 0},
    "settings": _MAP,
    "rows": {"type": "array", "items": _map_of(_ROW | {"unit": _TEXT, "population": _LEVEL, "scenes": _COUNT})},
    "items": _ITEMS,
}
SCHEMA = _map_of(_CONTENT)


@dataclass(frozen=True)
class Metrics:
    """Content of a metric file.

    ``seed`` is None for a deterministic extractor, which is evaluated once for all seeds of the run. ``record`` is the
    provenance record. ``rows`` are the scores, and ``items`` is the table that they summarise: column -> values of
    equal number, one per item (such as a query image or an image pair).
    """

    path: Path
    benchmark: str
    split: str
    experiment: str
    seed: int | None
    settings: Mapping[str, Any]
    record: Record | None
    rows: list[Row]
    items: dict[str, list]

    @property
    def key(self) -> Key:
        return self.benchmark, self.split, self.experiment, self.seed

    @property
    def order(self) -> tuple:
        """Return a sortable form of the key: no seed comes before any seed."""
        return *self.key[:3], -1 if self.seed is None else self.seed


def write_metrics(
    path: str | Path,
    *,
    benchmark: str,
    split: str,
    experiment: str,
    seed: int | None,
    settings: Mapping[str, Any],
    evaluation: Evaluation,
    record: Record | None = None,
) -> None:
    """Write a metric file, atomically; :func:`read_metrics` reads it.

    See :class:`Metrics` for the arguments; ``evaluation`` contains rows and items.
    """
    content = {
        "benchmark": benchmark,
        "split": split,
        "experiment": experiment,
        "seed": seed,
        "settings": settings,
        "rows": [asdict(row) for row in evaluation.rows],
        "items": evaluation.items,
    }
    write_json(path, content, FORMAT, VERSION, record)


def read_metrics(path: str | Path, expected: Recipe | None = None) -> Metrics:
    """Read a metric file.

    Args:
        path: the file.
        expected: the recipe by which it must have been made; None to accept any.

    Raises:
        DataError: the file is missing, damaged, of another format or version, has a wrong structure, or was not made as
            expected.
    """
    document = read_json(path, FORMAT, VERSION, expected, SCHEMA)
    content = document.content
    _require_columns(content["items"], document.path)
    rows = [Row(**row) for row in content["rows"]]
    return Metrics(**content | {"path": document.path, "record": document.record, "rows": rows})


def write_items(path: str | Path, items: Mapping[str, list[Any]], record: Record | None = None) -> None:
    """Write the items of one scene, as in :class:`Metrics`, atomically; :func:`read_items` reads them."""
    write_json(path, items, ITEMS_FORMAT, ITEMS_VERSION, record)


def read_items(path: str | Path) -> Document:
    """Read the items of one scene; the content of the document is the table (column -> values).

    Raises:
        DataError: the file is missing, damaged, of another format or version, or has a wrong structure.
    """
    document = read_json(path, ITEMS_FORMAT, ITEMS_VERSION, schema=_ITEMS)
    _require_columns(document.content, document.path)
    return document


def _require_columns(items: Mapping[str, list], path: Path) -> None:
    """Check that ``items`` is a table: columns of equal length with numbers, strings, booleans or None."""
    lengths = {name: len(column) for name, column in items.items()}
    if len(set(lengths.values())) > 1:
        raise _unusable(path, "has columns of unequal length in its items", found=lengths)
    for name, column in items.items():
        types = {type(entry) for entry in column} - {type(None)}
        if not (types <= {int, float} or types in ({str}, {bool})):
            found = ", ".join(sorted(kind.__name__ for kind in types))
            raise _unusable(path, f"has mixed or nested entries in the column `{name}` of its items", found=found)


def samples_of(metrics: Metrics) -> list[Sample]:
    """Return the items from which each score of a metric file is computed.

    Raises:
        DataError: the file lacks a column or a setting that its benchmark requires.
    """
    evaluation = import_module(f"loco.evaluation.{metrics.benchmark}")
    try:
        return list(evaluation.samples(metrics.items, metrics.settings))
    except KeyError as error:
        raise _unusable(metrics.path, f"has no {error} in its items or settings") from error


def as_rows(metrics: Iterable[Metrics], rows: Mapping[str, Sequence[tuple[str, str]]]) -> list[Metrics]:
    """Assign metric files to the rows of a table.

    Args:
        metrics: the files.
        rows: path of each file -> all (split, row) under which the table shows it; the name of the row replaces that of
            the experiment. A file may be shown under several splits, or under none.

    Returns:
        One entry per (file, split, row).
    """
    shown = {Path(path): shown_as for path, shown_as in rows.items()}
    return [replace(m, split=split, experiment=row) for m in metrics for split, row in shown[m.path]]


def key_text(key: Iterable[object]) -> str:
    """Return a key as text for messages, such as ``homography / houses / exact / 0``."""
    return " / ".join(str(part) for part in key if part is not None)


def _unusable(path: Path, problem: str, found: object = None) -> DataError:
    return DataError(f"the file {problem}", file=path, found=found, remedy=REGENERATE)
