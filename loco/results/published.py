"""Published numbers: what papers print, in columns of their own beside what was measured here, and never mixed with it.

A file of them is ``config/published_results/<benchmark>.csv``. They are shown where a split tests on the dataset that
they are of, and on no other, where the table has the metric and the condition that they are under, and where the
benchmark's settings are those that make the two comparable.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd

from loco.errors import DataError
from loco.files import decode_text, open_regular

KEYS = ["benchmark", "split", "experiment", "title", "metric", "condition", "unit"]  # tell the lines of a table apart
_NULLABLE = {
    "n": "Int64",
    "scenes": "Int64",
    "seeds": "Int64",
    "comparisons": "Int64",
    "deterministic": "boolean",
}  # blank in lines of published numbers alone
COLUMNS = ["published", "published_method", "published_source", "published_protocol"]
# Of pixel correspondence.
DEFAULTS = {"step": 1, "interpolate": "unit", "candidates": "all", "filters": ["ratio"], "occlusions": [False]}
DEFAULTS |= {"refine": "none"}
SETTING = re.compile(r"\s*([a-z]\w*)=(-?\d+(?:\.\d+)?|[a-z]\w*)\s*", re.ASCII)  # a number, true, false or a name


@dataclass(frozen=True)
class Number:
    """A line of a file.

    Attributes:
        method: what it was measured of; names the layer where the source has several.
        dataset: what it was measured on, by one of the names that :class:`Published` lists for a split.
        metric: as the benchmark's rows call it.
        condition: likewise; blank where it was measured under none of the benchmark's.
        value: as printed: a share in percent, an error in its unit.
        source: where it is printed, and by whom copied if it was not read there.
        protocol: how it was measured.
        settings: settings of the benchmark that a measurement must share to stand beside it (:func:`comparable`). In
            the file ``step=4; matches=1000; candidates=observed``; blank for none.
    """

    method: str
    dataset: str
    metric: str
    condition: str
    value: float
    source: str
    protocol: str
    settings: Mapping[str, float | bool | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """What a table can show beside its own numbers.

    Attributes:
        numbers: of its benchmark.
        datasets: split -> the names of the dataset that it tests on: its format (``baidu``) or the name that the
            configuration gives it, and the two with a scene that it tests on alone (``geotagged/pitts30k``). None where
            a split tests on several, or on a simulated one.
        methods: experiment -> the method that it measures anew.
    """

    numbers: Sequence[Number] = ()
    datasets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)


def read_published(path: str | Path) -> list[Number]:
    """Read a file of published numbers.

    Raises:
        DataError: it cannot be read, a line is not complete, its value is no number or its settings are none, or two
            lines say one thing.
    """
    expected = [column.name for column in fields(Number)]
    try:
        with open_regular(path) as file:
            reader = csv.DictReader(io.StringIO(decode_text(file.read(), errors="strict"), newline=""), strict=True)
        found, lines = reader.fieldnames, [(reader.line_num, line) for line in reader]
    except (OSError, DataError, ValueError, csv.Error) as error:
        raise DataError(f"the published numbers cannot be read: {error}", file=path) from error
    if found != expected:
        raise DataError("the published numbers have other columns", file=path, expected=expected, found=found)
    numbers = [_number(line, f"line {place}", path) for place, line in lines]
    seen: set[tuple[str, ...]] = set()
    for number in numbers:
        key = (number.method, number.dataset, number.metric, number.condition)
        if key in seen:
            raise DataError(f"gives {', '.join(key)} twice", file=path, remedy="keep one of the lines")
        seen.add(key)
    return numbers


def _number(line: Mapping[str, str], place: str, path: str | Path) -> Number:
    whole = all(isinstance(text, str) for text in line.values())  # not None (a field lacks) nor a list (too many)
    if not whole or not all(text.strip() for name, text in line.items() if name not in ("condition", "settings")):
        raise DataError(f"{place} is not complete, or has too many fields", file=path, found=dict(line))
    try:
        value = float(line["value"])
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise DataError(f"the value in {place} is no number", file=path, found=line["value"])
    fields: dict[str, Any] = {**line, "value": value, "settings": _settings(line["settings"], place, path)}
    return Number(**fields)


def _settings(text: str, place: str, path: str | Path) -> dict[str, float | bool | str]:
    parts = [SETTING.fullmatch(part) for part in text.split(";")] if text.strip() else []
    settings = {part[1]: _plain(part[2]) for part in parts if part}
    if len(settings) < len(parts):
        expected = "key=value; key=value, each key once; a value is a number, true, false or a name"
        raise DataError(f"the settings in {place} cannot be understood", file=path, expected=expected, found=text)
    return settings


def _plain(word: str) -> float | bool | str:
    return {"true": True, "false": False}.get(word, word) if word[0].isalpha() else float(word)


def comparable(number: Number, settings: Mapping[str, Any]) -> bool:
    """Whether a number may stand beside those that were measured with these settings of its benchmark.

    A setting that is not given has the benchmark's own value (:data:`DEFAULTS`). Of a list (``filters``) the first
    counts: of that is the metric without further words.
    """
    own = DEFAULTS | dict(settings)
    return all(key in own and _first(own[key]) == wanted for key, wanted in number.settings.items())


def _first(value: Any) -> Any:
    return next(iter(value), None) if isinstance(value, list | tuple) else value


def with_published(table: pd.DataFrame, published: Published, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The table of :func:`loco.results.tables.summarise` with the columns :data:`COLUMNS`.

    Numbers are shown that are :func:`comparable` with the benchmark's ``settings``.

    A published number stands in the line of the experiment that measures its method anew (``value`` and ``published``
    side by side), or else in a line of its own below, with a blank ``experiment``, the method as ``title``, and nothing
    measured. It has the scale of ``value``: shares are fractions.
    """
    published = replace(published, numbers=[n for n in published.numbers if comparable(n, settings)])
    blocks = []
    for split, block in table.groupby("split", sort=False):
        lines = pd.DataFrame(list(_lines(str(split), block, published)), columns=[*KEYS, *COLUMNS])
        joined = block.merge(lines.astype({"published": float}), how="left", on=KEYS)
        shown = pd.MultiIndex.from_frame(lines[KEYS]).isin(pd.MultiIndex.from_frame(block[KEYS]))
        blocks += [joined] if shown.all() else [joined, lines[~shown]]
    return pd.concat(blocks, ignore_index=True).astype(_NULLABLE)


def _lines(split: str, block: pd.DataFrame, published: Published) -> Iterator[tuple]:
    """Keys and published columns of what a split's block of a table can show."""
    benchmark = block["benchmark"].iloc[0]
    units = dict(zip(block["metric"], block["unit"]))
    measured = set(zip(block["metric"], block["condition"]))
    titles = dict(zip(block["experiment"], block["title"]))
    for number in published.numbers:
        if number.dataset not in published.datasets.get(split, ()) or number.metric not in units:
            continue
        if number.condition and (number.metric, number.condition) not in measured:
            continue
        unit = units[number.metric]
        value = number.value / 100 if unit == "%" else number.value
        anew = {name: title for name, title in titles.items() if published.methods.get(name) == number.method}
        for experiment, title in (anew or {"": number.method}).items():
            keys = (benchmark, split, experiment, title, number.metric, number.condition, unit)
            yield (*keys, value, number.method, number.source, number.protocol)


def footnote(shown: pd.DataFrame) -> str:
    """Where the published numbers of these lines come from, and which methods stand beside experiments."""
    beside = shown[shown["experiment"] != ""].drop_duplicates(["title", "published_method"])
    words = ["printed elsewhere, not measured here"]
    words += [f"{line.published_method} stands beside {line.title}" for line in beside.itertuples()]
    sources = list(shown.groupby(["published_source", "published_protocol"], sort=False))
    for (source, protocol), lines in sources:
        of = f"{', '.join(lines['published_method'].unique())}: " if len(sources) > 1 else ""
        words.append(f"{of}{source}; {protocol}")
    return ". ".join(words) + "."


def methods_of(paths: Iterable[str | Path]) -> set[str]:
    """All methods of these files: those that an experiment can name as ``published``."""
    return {number.method for path in paths for number in read_published(path)}
