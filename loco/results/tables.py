"""Tables of results: one tidy and complete (CSV), two for papers (Markdown, LaTeX). Pure functions of metric files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from loco.results.metrics import Metrics
from loco.storage import write_text

DASH = "\N{EN DASH}"


def write_tables(metrics: Iterable[Metrics], titles: Mapping[str, str], stem: str | Path) -> None:
    """Write ``stem``.csv, ``stem``.md and ``stem``.tex, each atomically.

    Args:
        metrics: the metric files of one benchmark.
        titles: experiment -> what the tables call it, in the order of the rows.
        stem: path without suffix.
    """
    metrics = list(metrics)
    table = summarise(metrics, titles)
    caption = _caption(metrics[0].benchmark, table)
    write_text(f"{stem}.csv", table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    write_text(f"{stem}.md", _markdown(table, caption))
    write_text(f"{stem}.tex", _latex(table, caption, metrics[0].benchmark))


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
    keys = ["benchmark", "split", "experiment", "title", "metric", "condition"]
    numbers = {"value": float, "low": float, "high": float}
    runs = pd.DataFrame(lines, columns=[*keys, *numbers, "n"]).astype(numbers)
    return (
        runs.groupby(keys, sort=False)
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


def _caption(benchmark: str, table: pd.DataFrame) -> str:
    words = subject(benchmark)
    seeds = _range(table["seeds"])
    spread = "one seed" if seeds == "1" else f"mean ± standard deviation over {seeds} seeds"
    return (
        f"{words.title}. {words.measure}. In percent, higher is better; {spread}; in brackets the 95 % bootstrap "
        f"interval over {words.items}, whose number is in the last row. Best of each column in bold."
    )


@dataclass(frozen=True)
class Markup:
    """How a format writes what a cell holds."""

    bold: str
    interval: str
    special: Mapping[int, str]

    def text(self, text: str) -> str:
        return text.translate(self.special)

    def score(self, line: pd.Series, best: bool) -> str:
        """A value with its spread and interval, in percent with one decimal."""
        if pd.isna(line["value"]):
            return self.text(DASH)
        value = _percent(line["value"]) + ("" if pd.isna(line["std"]) else self.text(f" ± {_percent(line['std'])}"))
        value = self.bold.format(value) if best else value
        bounded = not pd.isna(line["low"])
        return value + (self.interval.format(_percent(line["low"]), _percent(line["high"])) if bounded else "")


MARKDOWN = Markup("**{}**", " [{}, {}]", str.maketrans({c: f"\\{c}" for c in "\\`*_<>|[]"}))
LATEX = Markup(
    r"\textbf{{{}}}",
    r" {{\scriptsize [{}, {}]}}",
    str.maketrans(
        {c: f"\\{c}" for c in "&%$#_{}"}
        | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
        | {DASH: "--", "±": r"$\pm$", "°": r"$^\circ$", "²": r"$^2$"}
    ),
)


def _markdown(table: pd.DataFrame, caption: str) -> str:
    lines = [MARKDOWN.text(caption), ""]
    for split, block in table.groupby("split", sort=False):
        conditions, groups, counts = _block(block, MARKDOWN)
        lines += [f"**Split `{split}`**", ""]
        lines += [_bars(["", "", *conditions]), _bars([":--", ":--", *["--:"] * len(conditions)])]
        for metric, rows in groups:
            lines += [_bars([metric if first else "", *row]) for first, row in zip([True] + [False] * len(rows), rows)]
        lines += [_bars(["", *counts]), ""]
    return "\n".join(lines)


def _bars(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latex(table: pd.DataFrame, caption: str, benchmark: str) -> str:
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering\\small",
        f"  \\caption{{{LATEX.text(caption)}}}",
        f"  \\label{{tab:{benchmark}}}",
    ]
    for split, block in table.groupby("split", sort=False):
        conditions, groups, counts = _block(block, LATEX)
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


def _block(block: pd.DataFrame, markup: Markup) -> tuple[list[str], list[tuple[str, list[list[str]]]], list[str]]:
    """The cells of one split: conditions, (metric, rows) groups, and the closing row of counts."""
    conditions = list(block["condition"].unique())
    groups = []
    for metric, lines in block.groupby("metric", sort=False):
        best = _best(lines)
        rows = []
        for _, own in lines.groupby("experiment", sort=False):
            cells = {line["condition"]: markup.score(line, index in best) for index, line in own.iterrows()}
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


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _range(numbers: Iterable[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}{DASH}{high}"
