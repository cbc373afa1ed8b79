"""Published numbers, shown in separate columns beside the measured numbers.

They are in the files ``config/published_results/<benchmark>.csv``. A number is shown if the split tests on its dataset
only, if the table has its metric and condition, and if the settings of the benchmark make the two comparable.
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
from loco.results.scores import KEYS

_NULLABLE = {
    "n": "Int64",
    "scenes": "Int64",
    "seeds": "Int64",
    "comparisons": "Int64",
    "deterministic": "boolean",
}  # blank in lines that contain only published numbers
COLUMNS = ["published", "published_method", "published_source", "published_protocol", "published_caveat"]
# Defaults of pixel correspondence.
DEFAULTS = {"step": 1, "interpolate": "normalised", "candidates": "all", "filters": ["ratio"], "occlusions": [False]}
DEFAULTS |= {"refine": "none"}
_OPTIONAL = ("condition", "settings", "caveat")  # columns that may be blank
SETTING = re.compile(r"\s*([a-z]\w*)=(-?\d+(?:\.\d+)?|[a-z]\w*)\s*", re.ASCII)  # a number, true, false or a name


@dataclass(frozen=True)
class Number:
    """A line of a file.

    Attributes:
        method: evaluated method, with the layer if the source has several.
        dataset: name of the dataset, one of those that :class:`Published` lists for a split.
        metric: metric, as named in the rows of the benchmark.
        condition: condition, as named in the rows of the benchmark; blank if the benchmark has no such condition.
        value: value as printed: a fraction in percent, an error in its unit.
        source: the publication; if it was not read in the original, also the publication that quotes the number.
        protocol: how the number was measured.
        settings: settings of the benchmark that a comparable measurement must have (:func:`comparable`), written as
            ``step=4; matches=1000; candidates=observed`` in the file; blank for none.
        caveat: why the number is only roughly comparable with a measurement here; blank for none.
    """

    method: str
    dataset: str
    metric: str
    condition: str
    value: float
    source: str
    protocol: str
    settings: Mapping[str, float | bool | str] = field(default_factory=dict)
    caveat: str = ""


@dataclass(frozen=True)
class Published:
    """Published numbers that a table can show.

    Attributes:
        numbers: numbers of its benchmark.
        datasets: split -> the names of its test dataset: its format (``baidu``), its name in the configuration, and
            both with the scene if it tests on a single scene (``geotagged/pitts30k``). None if a split tests on several
            datasets, or on a simulated one.
        methods: experiment -> the method that it reproduces.
    """

    numbers: Sequence[Number] = ()
    datasets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)


def read_published(path: str | Path) -> list[Number]:
    """Read a file of published numbers.

    Raises:
        DataError: the file cannot be read, a line is incomplete, a value is not a number, settings are invalid, or two
            lines state the same number.
    """
    expected = [column.name for column in fields(Number)]
    try:
        with open_regular(path) as file:
            reader = csv.DictReader(io.StringIO(decode_text(file.read(), errors="strict"), newline=""), strict=True)
        found, lines = reader.fieldnames, [(reader.line_num, line) for line in reader]
    except (OSError, DataError, ValueError, csv.Error) as error:
        raise DataError(f"the file of published numbers cannot be read: {error}", file=path) from error
    if found != expected:
        raise DataError(
            "the file of published numbers has unexpected columns", file=path, expected=expected, found=found
        )
    numbers = [_number(line, f"line {where}", path) for where, line in lines]
    seen: set[tuple[str, ...]] = set()
    for number in numbers:
        key = (number.method, number.dataset, number.metric, number.condition)
        if key in seen:
            raise DataError(
                f"the file of published numbers contains {', '.join(key)} twice",
                file=path,
                remedy="delete one of the lines",
            )
        seen.add(key)
    return numbers


def _number(line: Mapping[str, str], where: str, path: str | Path) -> Number:
    complete = all(isinstance(text, str) for text in line.values())  # not None (missing) or a list (too many)
    if not complete or not all(text.strip() for name, text in line.items() if name not in _OPTIONAL):
        raise DataError(
            f"{where} is incomplete or has too many fields",
            file=path,
            expected=f"a value in each column; only {', '.join(_OPTIONAL)} may be blank",
            found=dict(line),
        )
    try:
        value = float(line["value"])
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise DataError(
            f"the value in {where} is not a finite number",
            file=path,
            expected="a number without unit, in percent for fractions",
            found=line["value"],
        )
    fields: dict[str, Any] = {**line, "value": value, "settings": _settings(line["settings"], where, path)}
    return Number(**fields)


def _settings(text: str, where: str, path: str | Path) -> dict[str, float | bool | str]:
    parts = [SETTING.fullmatch(part) for part in text.split(";")] if text.strip() else []
    settings = {part[1]: _parse_value(part[2]) for part in parts if part}
    if len(settings) < len(parts):
        expected = "key=value; key=value, with each key once and values that are numbers, true, false or names"
        raise DataError(f"the settings in {where} cannot be parsed", file=path, expected=expected, found=text)
    return settings


def _parse_value(word: str) -> float | bool | str:
    return {"true": True, "false": False}.get(word, word) if word[0].isalpha() else float(word)


def comparable(number: Number, settings: Mapping[str, Any]) -> bool:
    """Return whether a number is comparable with measurements that have these settings of its benchmark.

    Missing settings have the default of the benchmark (:data:`DEFAULTS`). Of a list (``filters``), the first entry
    counts, because the metric without a suffix refers to it.
    """
    complete_settings = DEFAULTS | dict(settings)
    return all(
        key in complete_settings and _first(complete_settings[key]) == wanted for key, wanted in number.settings.items()
    )


def _first(value: Any) -> Any:
    return next(iter(value), None) if isinstance(value, list | tuple) else value


def add_published(table: pd.DataFrame, published: Published, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Add the columns :data:`COLUMNS` to the table of :func:`loco.results.tables.summary.summarise`.

    Only numbers that are :func:`comparable` with the benchmark's ``settings`` are shown. A published number is in the
    line of the experiment that reproduces its method (``value`` and ``published`` side by side), or else in a separate
    line below, with a blank ``experiment``, the method as ``title``, and no measured value. It has the scale of
    ``value``, so percentages become fractions.
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
    """Yield the keys and published columns of the numbers that a split's block of a table can show."""
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
            yield (*keys, value, number.method, number.source, number.protocol, number.caveat)


def footnote(shown: pd.DataFrame) -> str:
    """Return the sources, protocols and caveats of the published numbers in these lines.

    It also names the methods that experiments reproduce.
    """
    beside = shown[shown["experiment"] != ""].drop_duplicates(["title", "published_method"])
    words = ["quoted from publications, not measured here"]
    words += [f"{line.title} reproduces {line.published_method}" for line in beside.itertuples()]
    sources = list(shown.groupby(["published_source", "published_protocol", "published_caveat"], sort=False))
    for (source, protocol, caveat), lines in sources:
        of = f"{', '.join(lines['published_method'].unique())}: " if len(sources) > 1 else ""
        words.append(f"{of}{source}; {protocol}" + (f"; caveat: {caveat}" if caveat else ""))
    return ". ".join(words) + "."


def methods_of(paths: Iterable[str | Path]) -> set[str]:
    """Return the names of all methods in these files, to which ``published`` of an experiment can refer."""
    return {number.method for path in paths for number in read_published(path)}
