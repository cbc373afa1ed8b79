"""Tables of results: one tidy and complete (CSV), two for papers (Markdown, LaTeX). Pure functions of metric files.

A deterministic extractor is scored once, without a seed (``Metrics.seed`` is None). Its scores have no standard
deviation over seeds, and in comparisons its single run is paired with every seed of the other extractor.

A share (unit ``%``) is a fraction in CSV and in percent elsewhere, and more of it is better; of an error in any other
unit less is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from loco.errors import DataError
from loco.evaluation.catalogue import BENCHMARKS
from loco.evaluation.result import Sample
from loco.results.metrics import Key, Metrics, named, samples_of
from loco.results.published import KEYS, Published, footnote, with_published
from loco.storage import write_text

DASH = "\N{EN DASH}"
ROW = ["metric", "condition", "unit", "value", "low", "high", "n"]
DECIMALS = {"%": 1, "px": 2, "deg": 2, "m": 3}


@dataclass(frozen=True)
class Kind:
    """A kind of table.

    Attributes:
        suffix: end of its label.
        reading: what its caption says of its numbers, with ``{scale}``, ``{spread}`` and ``{interval}``.
        scales: what it says of shares, and of errors.
        sign: ``+`` to print that of positive numbers, too.
        bold: index of the lines of a metric that are in bold.
    """

    suffix: str
    reading: str
    scales: tuple[str, str]
    sign: str
    bold: Callable[[pd.DataFrame], set[int]]


def write_tables(
    metrics: Iterable[Metrics], titles: Mapping[str, str], stem: str | Path, published: Published | None = None
) -> None:
    """Write ``stem``.csv, ``stem``.md and ``stem``.tex, each atomically.

    Args:
        metrics: the metric files of one benchmark.
        titles: experiment -> what the tables call it, in the order of the rows.
        stem: path without suffix.
        published: numbers to show in columns of their own; none if not given.
    """
    reading = "In {scale}; {spread}; in brackets the {interval}. Best of each column in bold."
    scales = "percent, higher is better", "the unit given, lower is better"
    metrics = list(metrics)
    table = with_published(summarise(metrics, titles), published or Published(), metrics[0].settings)
    _write(table, Kind("", reading, scales, "", _best), stem)


def write_differences(
    metrics: Iterable[Metrics], titles: Mapping[str, str], comparisons: Iterable[Sequence[str]], stem: str | Path
) -> None:
    """Write by how much scores differ between experiments, in the files that :func:`write_tables` writes.

    Args:
        metrics: the metric files of one benchmark.
        titles: experiment -> what the tables call it.
        comparisons: (experiment, other experiment) pairs, a row of the table each.
        stem: path without suffix.

    Raises:
        DataError: experiments were asked different questions.
    """
    reading = (
        "How much more the first scores than the second, item by item, in {scale}; {spread}; in brackets the "
        "{interval}. In bold where it leaves out zero."
    )
    scales = "points of percent", "the unit given, of which less is better"
    table = differences(metrics, titles, comparisons)
    _write(table, Kind("_differences", reading, scales, "+", _certain), stem)


def _write(table: pd.DataFrame, kind: Kind, stem: str | Path) -> None:
    caption = _caption(table, kind)
    write_text(f"{stem}.csv", table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    write_text(f"{stem}.md", _markdown(table, kind, caption))
    write_text(f"{stem}.tex", _latex(table, kind, caption))


def summarise(metrics: Iterable[Metrics], titles: Mapping[str, str]) -> pd.DataFrame:
    """One line per benchmark, split, experiment, metric and condition, over the seeds.

    ``value`` is the mean over the seeds and ``std`` their sample standard deviation (none with one seed). ``low`` and
    ``high`` bound the 95 % bootstrap interval over the ``n`` queries or image pairs; with several seeds they are the
    means of the seeds' bounds. Every seed answers the same queries, and the standard error of an average is at most
    the average of the standard errors (triangle inequality), so this interval errs on the wide side. It speaks of the
    choice of queries only; ``std`` speaks of the choice of seed. A condition that a seed has no value for (an empty
    bin, a median that is infinite) has none here; a bound that is missing beside a value is infinite.

    ``seeds`` counts the runs. A deterministic extractor has one, no ``std``, and True as ``deterministic``.

    Raises:
        DataError: a run is there twice, or an experiment has runs both with and without a seed.
    """
    order = {experiment: place for place, experiment in enumerate(titles)}
    ordered = sorted(_distinct(metrics).values(), key=lambda m: (m.split, order[m.experiment], m.order))
    lines = [
        (m.benchmark, m.split, m.experiment, titles[m.experiment], *(getattr(r, name) for name in ROW), m.seed is None)
        for m in ordered
        for r in m.rows
    ]
    numbers = {"value": float, "low": float, "high": float, "deterministic": bool}
    runs = pd.DataFrame(lines, columns=[*KEYS[:4], *ROW, "deterministic"]).astype(numbers)
    return (
        runs.groupby(KEYS, sort=False)
        .agg(
            value=("value", _mean),
            low=("low", _mean),
            high=("high", _mean),
            std=("value", "std"),
            n=("n", "min"),
            seeds=("value", "size"),
            deterministic=("deterministic", "first"),
        )
        .reset_index()
    )


def _distinct(metrics: Iterable[Metrics]) -> dict[Key, Metrics]:
    """Metric files by their keys. No run may be there twice: its scores would count as those of two seeds."""
    runs: dict[Key, Metrics] = {}
    for one in metrics:
        twin = runs.setdefault(one.key, one)
        if twin is not one:
            raise DataError(f"two metric files are of {named(one.key)}", file=one.path, found=f"also {twin.path}")
    for key, one in runs.items():
        if one.seed is not None and (*key[:3], None) in runs:
            other = runs[*key[:3], None]
            raise DataError(
                f"{named(key[:3])} has runs both with a seed and, as of a deterministic extractor, without one",
                file=one.path,
                found=f"also {other.path}",
                remedy="delete the one that the workflow does not make any more",
            )
    return runs


def _mean(values: pd.Series) -> float:
    return float(np.mean(values.to_numpy()))  # unlike pandas', missing if one is missing


def differences(
    metrics: Iterable[Metrics], titles: Mapping[str, str], comparisons: Iterable[Sequence[str]]
) -> pd.DataFrame:
    """The table of :func:`summarise` of the differences between experiments, item by item (query image, image pair).

    ``value`` is the mean over seeds, each run against the other's of the same seed (or against the single run of a
    deterministic extractor), and ``std`` their deviation; ``deterministic`` is True where neither has seeds;
    ``low`` and ``high`` bound the 95 % bootstrap interval over the items of the differences, which are averaged over
    the seeds first. Items are hard or easy for all extractors alike: differences vary less than scores do.

    Where a number is a median of errors, all this is the median of the differences of the errors (of their averages
    over the seeds). An item that failed has an infinite error: where both failed they differ by 0, where one did by
    infinity; if each did with one seed, these cancel.

    Raises:
        DataError: a run has no partner to be compared with, or was asked other questions; as :func:`summarise`.
    """
    runs = _distinct(metrics)
    places = sorted({(benchmark, split) for benchmark, split, _, _ in runs})
    lines = []
    for (benchmark, split), (one, other) in product(places, comparisons):
        pairs = _pairs_of_runs(runs, (benchmark, split), (one, other))
        keys = (benchmark, split, f"{one} - {other}", f"{titles[one]} \N{MINUS SIGN} {titles[other]}")
        deterministic = all(run.seed is None for run in pairs[0])
        paired = [_paired(*pair) for pair in pairs]
        for samples in zip(*paired):
            _require_same_items([own for own, _ in pairs], samples)
            mean = replace(samples[0], values=_mean_of_seeds([sample.values for sample in samples]))
            row = mean.row(pairs[0][0].settings["bootstrap"], 0)
            each = [estimate(sample) for sample in samples] if row.n else []
            std = np.std(each, ddof=1) if len(each) > 1 and np.isfinite(each).all() else None
            numbers = (row.value, row.low, row.high, std, row.n, len(pairs), deterministic)
            lines.append((*keys, row.metric, row.condition, row.unit, *numbers))
    numbers = {"value": float, "low": float, "high": float, "std": float}
    return pd.DataFrame(lines, columns=[*KEYS, *numbers, "n", "seeds", "deterministic"]).astype(numbers)


def _pairs_of_runs(
    runs: Mapping[Key, Metrics], place: tuple[str, str], experiments: Sequence[str]
) -> list[list[Metrics]]:
    """The runs of two experiments on a (benchmark, split) seed by seed; one without a seed pairs with every seed."""
    wanted = [(*place, experiment) for experiment in experiments]
    seeds = sorted({key[3] for key in runs if key[:3] in wanted} - {None}) or [None]
    return [[_run(runs, (*key, seed)) for key in wanted] for seed in seeds]


def _mean_of_seeds(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Item by item; infinities of both signs cancel."""
    with np.errstate(invalid="ignore"):
        mean = np.mean(values, axis=0)
    return np.where(np.isnan(mean) & ~np.isnan(values).any(axis=0), 0, mean)


def estimate(sample: Sample) -> float:
    """The mean, or the median, of a sample that has items."""
    if sample.statistic == "median":
        return float(np.median(sample.values))
    return float(np.average(sample.values, weights=sample.weights))


def _paired(own: Metrics, rival: Metrics) -> list[Sample]:
    """The differences between two runs that each number of a table is the mean, or the median, of."""
    paired = []
    for samples in zip(samples_of(own), samples_of(rival), strict=True):
        _require_same_items([own, rival], samples)
        mine, other = (np.asarray(sample.values, dtype=np.float64) for sample in samples)
        values = np.subtract(mine, other, out=np.zeros_like(mine), where=mine != other)  # inf - inf: 0
        paired.append(replace(samples[0], values=values))
    return paired


def _require_same_items(runs: Sequence[Metrics], samples: Sequence[Sample]) -> None:
    first = runs[0], samples[0]
    for run, sample in zip(runs, samples):
        asked, wanted = ((m.settings, s.keys, s.weights) for m, s in ((run, sample), first))
        if asked != wanted:
            raise DataError(
                "was measured on other items, or with other settings, than the run that it is compared with",
                file=run.path,
                expected=f"those of {runs[0].path}",
                remedy="run the benchmark anew for both",
            )


def _run(runs: Mapping[Key, Metrics], key: Key) -> Metrics:
    found = runs.get(key) or runs.get((*key[:3], None))
    if found is None:
        raise DataError(f"there is no metric file of {named(key)} to compare with")
    return found


def _caption(table: pd.DataFrame, kind: Kind) -> str:
    words = BENCHMARKS[table["benchmark"].iloc[0]]
    shares = table["unit"] == "%"
    scale = ", or in ".join(words for words, used in zip(kind.scales, (shares, ~shares)) if used.any())
    interval = f"95 % bootstrap interval over {words.items}, whose number is in the last row"
    reading = kind.reading.format(scale=scale, spread=_spread(table), interval=interval)
    return f"{words.title}. {words.measures}. {reading}"


def _spread(table: pd.DataFrame) -> str:
    """What a caption states about seeds. Lines of published numbers have none."""
    measured = table.dropna(subset="seeds")
    deterministic = measured["deterministic"].astype(bool)
    if deterministic.all():
        return "all extractors are deterministic"
    seeds = _range(measured.loc[~deterministic, "seeds"])
    if seeds == "1":
        return "one seed"
    spread = f"mean ± standard deviation over {seeds} seeds"
    return f"{spread}; deterministic extractors have none" if deterministic.any() else spread


@dataclass(frozen=True)
class Markup:
    """How a format writes what a cell holds."""

    bold: str
    italic: str
    interval: str
    special: Mapping[int, str]

    def text(self, text: str) -> str:
        return text.translate(self.special)

    def score(self, line: pd.Series, sign: str, bold: bool) -> str:
        """A value with its spread and interval; a bound that is missing where the other is not is infinite."""
        if pd.isna(line["value"]):
            return self.text(DASH)
        value, low, high = (printed(line[name], line["unit"], sign) for name in ("value", "low", "high"))
        value += "" if pd.isna(line["std"]) else self.text(f" ± {printed(line['std'], line['unit'])}")
        value = self.bold.format(value) if bold else value
        missing = line[["low", "high"]].isna()
        if missing.all():
            return value
        low = self.text("\N{MINUS SIGN}\N{INFINITY}") if missing["low"] else low
        high = self.text(f"{sign}\N{INFINITY}") if missing["high"] else high
        return value + self.interval.format(low, high)


MARKDOWN = Markup("**{}**", "*{}*", " [{}, {}]", str.maketrans({c: f"\\{c}" for c in "\\`*_<>|[]"}))
LATEX = Markup(
    r"\textbf{{{}}}",
    r"\emph{{{}}}",
    r" {{\scriptsize [{}, {}]}}",
    str.maketrans(
        {c: f"\\{c}" for c in "&%$#_{}"}
        | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
        | {DASH: "--", "\N{MINUS SIGN}": "$-$", "±": r"$\pm$", "\N{INFINITY}": r"$\infty$"}
        | {"°": r"$^\circ$", "²": r"$^2$"}
    ),
)


def _markdown(table: pd.DataFrame, kind: Kind, caption: str) -> str:
    lines = [MARKDOWN.text(caption), ""]
    for split, block in table.groupby("split", sort=False):
        conditions, groups, counts = _block(block, kind, MARKDOWN)
        lines += [f"**Split `{split}`**", ""]
        lines += [_bars(["", "", *conditions]), _bars([":--", ":--", *["--:"] * len(conditions)])]
        for metric, rows in groups:
            lines += [_bars([metric if first else "", *row]) for first, row in zip([True] + [False] * len(rows), rows)]
        lines += [_bars(["", *counts]), "", *(f"{note}\n" for note in _notes(block, MARKDOWN))]
    return "\n".join(lines)


def _bars(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latex(table: pd.DataFrame, kind: Kind, caption: str) -> str:
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering\\small",
        f"  \\caption{{{LATEX.text(caption)}}}",
        f"  \\label{{tab:{table['benchmark'].iloc[0]}{kind.suffix}}}",
    ]
    for split, block in table.groupby("split", sort=False):
        conditions, groups, counts = _block(block, kind, LATEX)
        columns = len(conditions) + 1
        lines += [f"  \\begin{{tabular}}{{l{'r' * len(conditions)}}}", "    \\toprule"]
        lines += [_ampersands([f"split: {LATEX.text(str(split))}", *conditions])]
        for metric, rows in groups:
            lines += ["    \\midrule", f"    \\multicolumn{{{columns}}}{{l}}{{\\emph{{{metric}}}}} \\\\"]
            lines += [_ampersands(row) for row in rows]
        lines += ["    \\midrule", _ampersands(counts), "    \\bottomrule", "  \\end{tabular}"]
        lines += [f"\n  {{\\footnotesize {note}\\par}}\n" for note in _notes(block, LATEX)]
    return "\n".join([*lines, "\\end{table}", ""])


def _ampersands(cells: Iterable[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _block(
    block: pd.DataFrame, kind: Kind, markup: Markup
) -> tuple[list[str], list[tuple[str, list[list[str]]]], list[str]]:
    """The cells of one split: heads of the columns, (metric, rows) groups, and the closing row of counts."""
    measured, shown = block.dropna(subset="seeds"), _published(block)
    columns = [("value", c) for c in measured["condition"].unique()]
    columns += [("published", c) for c in shown["condition"].unique()]
    missing = markup.text(DASH)
    groups = []
    for metric, lines in block.groupby("metric", sort=False):
        bold, unit = kind.bold(lines), lines["unit"].iloc[0]
        rows = []
        for (_, title), own in lines.groupby(["experiment", "title"], sort=False):
            cells = {
                ("value", line["condition"]): markup.score(line, kind.sign, i in bold) for i, line in own.iterrows()
            }
            for line in _published(own).itertuples():
                cells["published", line.condition] = printed(line.published, unit)
            rows.append([markup.text(title), *(cells.get(column, missing) for column in columns)])
        groups.append((markup.text(metric if unit == "%" else f"{metric} ({unit})"), rows))
    numbers = [
        _range(measured.loc[measured["condition"] == condition, "n"]) if what == "value" else DASH
        for what, condition in columns
    ]
    counts = [f"number of {BENCHMARKS[block['benchmark'].iloc[0]].items}", *numbers]
    return [_head(*column, markup) for column in columns], groups, [markup.text(count) for count in counts]


def _published(lines: pd.DataFrame) -> pd.DataFrame:
    return lines.dropna(subset="published") if "published" in lines else lines[:0]


def _notes(block: pd.DataFrame, markup: Markup) -> list[str]:
    """What stands below a split's block: of published numbers, if it shows any."""
    shown = _published(block)
    return [f"{markup.italic.format('published')}: {markup.text(footnote(shown))}"] if len(shown) else []


def _head(what: str, condition: str, markup: Markup) -> str:
    named = [markup.text(_printed(condition))] if condition or what == "value" else []
    return ", ".join([*named, markup.italic.format(what)] if what == "published" else named)


def _printed(condition: str) -> str:
    """A range of degrees as papers print it."""
    return re.sub(r"^(\d+)-(\d+) deg$", rf"\1{DASH}\2°", condition)


def _best(lines: pd.DataFrame) -> set[int]:
    """Index of the best line of each condition: all that print the same as the best, none where there is no rival."""
    unit = lines["unit"].iloc[0]
    values = lines["value"].map(lambda value: float(printed(value, unit)))
    rivals = values.groupby(lines["condition"])
    best = rivals.transform("max" if unit == "%" else "min")
    return set(lines.index[(values == best) & (rivals.transform("count") > 1)])


def _certain(lines: pd.DataFrame) -> set[int]:
    """Index of the differences whose interval leaves out zero."""
    return set(lines.index[(lines["low"] > 0) | (lines["high"] < 0)])


def printed(value: float, unit: str, sign: str = "") -> str:
    """A number without its unit: a share in percent, an error as it is."""
    return f"{100 * value if unit == '%' else value:{sign}.{DECIMALS.get(unit, 3)}f}"


def _range(numbers: Iterable[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}{DASH}{high}"
