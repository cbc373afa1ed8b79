"""Tables of results: one tidy and complete (CSV), two for papers (Markdown, LaTeX). Pure functions of metric files.

A share (unit ``%``) is a fraction in CSV and in percent elsewhere, and more of it is better; of an error in any other
unit less is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from loco.errors import DataError
from loco.evaluation.result import Sample
from loco.results.metrics import Key, Metrics
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
    """
    order = {experiment: place for place, experiment in enumerate(titles)}
    ordered = sorted(metrics, key=lambda m: (m.split, order[m.experiment], m.seed))
    lines = [
        (m.benchmark, m.split, m.experiment, titles[m.experiment], *(getattr(r, name) for name in ROW))
        for m in ordered
        for r in m.rows
    ]
    numbers = {"value": float, "low": float, "high": float}
    runs = pd.DataFrame(lines, columns=[*KEYS[:4], *ROW]).astype(numbers)
    return (
        runs.groupby(KEYS, sort=False)
        .agg(
            value=("value", _mean),
            low=("low", _mean),
            high=("high", _mean),
            std=("value", "std"),
            n=("n", "min"),
            seeds=("value", "size"),
        )
        .reset_index()
    )


def _mean(values: pd.Series) -> float:
    return float(np.mean(values.to_numpy()))  # unlike pandas', missing if one is missing


def differences(
    metrics: Iterable[Metrics], titles: Mapping[str, str], comparisons: Iterable[Sequence[str]]
) -> pd.DataFrame:
    """The table of :func:`summarise` of the differences between experiments, item by item (query image, image pair).

    ``value`` is the mean over seeds, each run against the other's of the same seed, and ``std`` their deviation;
    ``low`` and ``high`` bound the 95 % bootstrap interval over the items of the differences, which are averaged over
    the seeds first. Items are hard or easy for all extractors alike: differences vary less than scores do.

    Where a number is a median of errors, all this is the median of the differences of the errors (of their averages
    over the seeds). An item that failed has an infinite error: where both failed they differ by 0, where one did by
    infinity; if each did with one seed, these cancel.

    Raises:
        DataError: a run has no partner to be compared with, or was asked other questions.
    """
    runs = {m.key: m for m in metrics}
    places = sorted({(benchmark, split) for benchmark, split, _, _ in runs})
    lines = []
    for (benchmark, split), (one, other) in product(places, comparisons):
        seeds = sorted({key[3] for key in runs if key[:2] == (benchmark, split) and key[2] in (one, other)})
        keys = [[(benchmark, split, experiment, seed) for experiment in (one, other)] for seed in seeds]
        named = (benchmark, split, f"{one} - {other}", f"{titles[one]} \N{MINUS SIGN} {titles[other]}")
        paired = [_paired(*(_run(runs, key) for key in pair)) for pair in keys]
        for samples in zip(*paired):
            _require_same_items([runs[pair[0]] for pair in keys], samples)
            row = replace(samples[0], values=_mean_of_seeds([sample.values for sample in samples])).row(
                runs[keys[0][0]].settings["bootstrap"], 0
            )
            each = [estimate(sample) for sample in samples] if row.n else []
            std = np.std(each, ddof=1) if len(each) > 1 and np.isfinite(each).all() else None
            numbers = (row.value, row.low, row.high, std, row.n, len(seeds))
            lines.append((*named, row.metric, row.condition, row.unit, *numbers))
    numbers = {"value": float, "low": float, "high": float, "std": float}
    return pd.DataFrame(lines, columns=[*KEYS, *numbers, "n", "seeds"]).astype(numbers)


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
    evaluation = import_module(f"loco.evaluation.{own.benchmark}")
    paired = []
    for samples in zip(*(evaluation.samples(m.items, m.settings) for m in (own, rival)), strict=True):
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
    if key not in runs:
        raise DataError(f"there is no metric file of {' / '.join(map(str, key))} to compare with")
    return runs[key]


@dataclass(frozen=True)
class Subject:
    """The words for a benchmark: its title, what is measured, and what the intervals are over."""

    title: str
    measure: str
    items: str


SUBJECTS = {
    "location_consistency": Subject(
        "Location consistency",
        "Mean average precision at ranking the patches of a scene by feature similarity to a query patch, where those "
        "nearer to the query's 3D point should come first",
        "query images",
    ),
    "pixel_correspondence": Subject(
        "Pixel correspondence",
        "Recall of nearest-neighbour matches between two images of a scene (those that pass the ratio test best, where "
        "no other filter is named), by the rotation between the cameras: a match is right within so many pixels of the "
        "true place, or centimetres of the true point; pixels are those of the frames made smaller by `step`, where "
        "that is set (Probe3D: 120 x 160 of 480 x 640)",
        "image pairs",
    ),
    "panoptic_segmentation": Subject(
        "Panoptic segmentation",
        "A linear probe for each scene says which object a patch shows, things by instance and stuff by category; "
        "scored on images that it was not trained on, and as published on those that it was; means over scenes",
        "classes of all scenes (Jaccard, accuracy: scenes)",
    ),
    "semantic_segmentation": Subject(
        "Semantic segmentation",
        "A linear probe for each scene says which category a patch shows; scored on images that it was not trained on, "
        "and as published on those that it was; means over scenes",
        "classes of all scenes (Jaccard, accuracy: scenes)",
    ),
    "place_recognition": Subject(
        "Place recognition",
        "Share of queries that have an image of the same place among the first so many that are found by one vector an "
        "image, in the order of the search or, where it is named, of how the patches match",
        "queries with an image of their place in the database",
    ),
    "homography": Subject(
        "Matching on planes",
        "Mutual nearest neighbours among the cells of two images: the share that lies within so many pixels of where "
        "the true homography takes them (MMA), and the area under the curve of the corners' error of the homography "
        "that is found from them (AUC), in pixels of the raw images",
        "image pairs",
    ),
    "landmark_retrieval": Subject(
        "Landmark retrieval",
        "Average precision at finding, by feature similarity to a landmark (a patch of one image), the patches of "
        "other images that show its place (views), and the images that do; of all landmarks, of those that both halves "
        "of the images show, and of the best of these, chosen on one half and scored on the other",
        "landmarks",
    ),
    "relative_pose": Subject(
        "Relative pose",
        "Median errors of the pose between two images found from their matches, lifted to 3D (rigid) or by an "
        "essential matrix (essential); and the area under the curve of the larger of the errors of rotation and "
        "direction (AUC)",
        "image pairs",
    ),
}


def subject(benchmark: str) -> Subject:
    return SUBJECTS.get(benchmark, Subject(benchmark.replace("_", " ").capitalize(), "Scores", "items"))


def _caption(table: pd.DataFrame, kind: Kind) -> str:
    words = subject(table["benchmark"].iloc[0])
    seeds = _range(table["seeds"].dropna())
    shares = table["unit"] == "%"
    scale = ", or in ".join(words for words, used in zip(kind.scales, (shares, ~shares)) if used.any())
    spread = "one seed" if seeds == "1" else f"mean ± standard deviation over {seeds} seeds"
    interval = f"95 % bootstrap interval over {words.items}, whose number is in the last row"
    return f"{words.title}. {words.measure}. {kind.reading.format(scale=scale, spread=spread, interval=interval)}"


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
    counts = [f"number of {subject(block['benchmark'].iloc[0]).items}", *numbers]
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
