"""Tables of results: one tidy and complete (CSV), two for papers (Markdown, LaTeX). Pure functions of metric files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from loco.errors import DataError
from loco.evaluation.result import Sample
from loco.results.metrics import Key, Metrics
from loco.storage import write_text

DASH = "\N{EN DASH}"
KEYS = ["benchmark", "split", "experiment", "title", "metric", "condition"]


@dataclass(frozen=True)
class Kind:
    """A kind of table: end of its label, what its caption says of its numbers, their form, and which are in bold."""

    suffix: str
    reading: str
    form: str
    bold: Callable[[pd.DataFrame], set[int]]


def write_tables(metrics: Iterable[Metrics], titles: Mapping[str, str], stem: str | Path) -> None:
    """Write ``stem``.csv, ``stem``.md and ``stem``.tex, each atomically.

    Args:
        metrics: the metric files of one benchmark.
        titles: experiment -> what the tables call it, in the order of the rows.
        stem: path without suffix.
    """
    reading = "In percent, higher is better; {spread}; in brackets the {interval}. Best of each column in bold."
    _write(summarise(metrics, titles), Kind("", reading, "{:.1f}", _best), stem)


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
        "How much more the first scores than the second, item by item, in points of percent; {spread}; in brackets the "
        "{interval}. In bold where it leaves out zero."
    )
    _write(differences(metrics, titles, comparisons), Kind("_differences", reading, "{:+.1f}", _certain), stem)


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
    bin) has none here.
    """
    order = {experiment: place for place, experiment in enumerate(titles)}
    ordered = sorted(metrics, key=lambda m: (m.split, order[m.experiment], m.seed))
    lines = [
        (m.benchmark, m.split, m.experiment, titles[m.experiment], r.metric, r.condition, r.value, r.low, r.high, r.n)
        for m in ordered
        for r in m.rows
    ]
    numbers = {"value": float, "low": float, "high": float}
    runs = pd.DataFrame(lines, columns=[*KEYS, *numbers, "n"]).astype(numbers)
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
            values = np.mean([sample.values for sample in samples], axis=0)
            row = replace(samples[0], values=values).row(runs[keys[0][0]].settings["bootstrap"], 0)
            each = [np.average(s.values, weights=s.weights) for s in samples] if row.n else []
            std = np.std(each, ddof=1) if len(each) > 1 else None
            lines.append((*named, row.metric, row.condition, row.value, row.low, row.high, std, row.n, len(seeds)))
    numbers = {"value": float, "low": float, "high": float, "std": float}
    return pd.DataFrame(lines, columns=[*KEYS, *numbers, "n", "seeds"]).astype(numbers)


def _paired(own: Metrics, rival: Metrics) -> list[Sample]:
    """The differences between two runs that each number of a table is the mean of."""
    evaluation = import_module(f"loco.evaluation.{own.benchmark}")
    paired = []
    for samples in zip(*(evaluation.samples(m.items, m.settings) for m in (own, rival)), strict=True):
        _require_same_items([own, rival], samples)
        mine, other = samples
        paired.append(replace(mine, values=np.subtract(mine.values, other.values)))
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
        "Recall of nearest-neighbour matches between two images of a scene (those that pass the ratio test best), by "
        "the rotation between the cameras: a match is right within so many pixels of the true place",
        "image pairs",
    ),
}


def subject(benchmark: str) -> Subject:
    return SUBJECTS.get(benchmark, Subject(benchmark.replace("_", " ").capitalize(), "Scores", "items"))


def _caption(table: pd.DataFrame, kind: Kind) -> str:
    words = subject(table["benchmark"].iloc[0])
    seeds = _range(table["seeds"])
    spread = "one seed" if seeds == "1" else f"mean ± standard deviation over {seeds} seeds"
    interval = f"95 % bootstrap interval over {words.items}, whose number is in the last row"
    return f"{words.title}. {words.measure}. {kind.reading.format(spread=spread, interval=interval)}"


@dataclass(frozen=True)
class Markup:
    """How a format writes what a cell holds."""

    bold: str
    interval: str
    special: Mapping[int, str]

    def text(self, text: str) -> str:
        return text.translate(self.special)

    def score(self, line: pd.Series, form: str, bold: bool) -> str:
        """A value with its spread and interval, in percent."""
        if pd.isna(line["value"]):
            return self.text(DASH)
        value, low, high = (form.format(100 * line[name]) for name in ("value", "low", "high"))
        value += "" if pd.isna(line["std"]) else self.text(f" ± {_percent(line['std'])}")
        return (self.bold.format(value) if bold else value) + (
            "" if pd.isna(line["low"]) else self.interval.format(low, high)
        )


MARKDOWN = Markup("**{}**", " [{}, {}]", str.maketrans({c: f"\\{c}" for c in "\\`*_<>|[]"}))
LATEX = Markup(
    r"\textbf{{{}}}",
    r" {{\scriptsize [{}, {}]}}",
    str.maketrans(
        {c: f"\\{c}" for c in "&%$#_{}"}
        | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
        | {DASH: "--", "\N{MINUS SIGN}": "$-$", "±": r"$\pm$", "°": r"$^\circ$", "²": r"$^2$"}
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
        lines += [_bars(["", *counts]), ""]
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
    return "\n".join([*lines, "\\end{table}", ""])


def _ampersands(cells: Iterable[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _block(
    block: pd.DataFrame, kind: Kind, markup: Markup
) -> tuple[list[str], list[tuple[str, list[list[str]]]], list[str]]:
    """The cells of one split: conditions, (metric, rows) groups, and the closing row of counts."""
    conditions = list(block["condition"].unique())
    groups = []
    for metric, lines in block.groupby("metric", sort=False):
        bold = kind.bold(lines)
        rows = []
        for _, own in lines.groupby("experiment", sort=False):
            cells = {line["condition"]: markup.score(line, kind.form, index in bold) for index, line in own.iterrows()}
            rows.append([markup.text(own["title"].iloc[0]), *(cells.get(c, markup.text(DASH)) for c in conditions)])
        groups.append((markup.text(str(metric)), rows))
    numbers = [_range(block.loc[block["condition"] == condition, "n"]) for condition in conditions]
    counts = [f"number of {subject(block['benchmark'].iloc[0]).items}", *numbers]
    return (
        [markup.text(_printed(condition)) for condition in conditions],
        groups,
        [markup.text(count) for count in counts],
    )


def _printed(condition: str) -> str:
    """A range of degrees as papers print it."""
    return re.sub(r"^(\d+)-(\d+) deg$", rf"\1{DASH}\2°", condition)


def _best(lines: pd.DataFrame) -> set[int]:
    """Index of the best line of each condition: all that print the same as the best, none where there is no rival."""
    printed = lines["value"].map(lambda value: float(_percent(value)))
    rivals = printed.groupby(lines["condition"])
    return set(lines.index[(printed == rivals.transform("max")) & (rivals.transform("count") > 1)])


def _certain(lines: pd.DataFrame) -> set[int]:
    """Index of the differences whose interval leaves out zero."""
    return set(lines.index[(lines["low"] > 0) | (lines["high"] < 0)])


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _range(numbers: Iterable[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}{DASH}{high}"
