"""Tables of results: one tidy and complete (CSV), two for papers (Markdown, LaTeX). Pure functions of metric files.

Their numbers are those of :mod:`loco.results.scores`. A share (unit ``%``) is a fraction in CSV and in percent
elsewhere, and more of it is better; of an error in any other unit less is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from loco.evaluation.catalogue import BENCHMARKS
from loco.evaluation.intervals import FEWEST_SCENES
from loco.results.metrics import Metrics
from loco.results.published import Published, footnote, with_published
from loco.results.scores import SIGNIFICANT, differences, summarise
from loco.storage import write_text

DASH = "\N{EN DASH}"
DECIMALS = {"%": 1, "px": 2, "deg": 2, "m": 3}


@dataclass(frozen=True)
class Kind:
    """A kind of table.

    Attributes:
        suffix: end of its label.
        reading: what its caption says of its numbers, with ``{scale}``, ``{spread}``, ``{interval}`` and
            ``{comparisons}``.
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
    reading = (
        "In {scale}; {spread}; in brackets the {interval}. In bold the best of each column, with all that are not "
        "certainly worse (by Holm's correction for {comparisons} of two rows in a column, item by item)."
    )
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
        "{interval}. In bold where it certainly is not zero (by Holm's correction for {comparisons} in this table)."
    )
    scales = "points of percent", "the unit given, of which less is better"
    table = differences(metrics, titles, comparisons)
    _write(table, Kind("_differences", reading, scales, "+", _certain), stem)


def _write(table: pd.DataFrame, kind: Kind, stem: str | Path) -> None:
    caption = _caption(table, kind)
    write_text(f"{stem}.csv", table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    write_text(f"{stem}.md", _markdown(table, kind, caption))
    write_text(f"{stem}.tex", _latex(table, kind, caption))


def _caption(table: pd.DataFrame, kind: Kind) -> str:
    words = BENCHMARKS[table["benchmark"].iloc[0]]
    shares = table["unit"] == "%"
    scale = ", or in ".join(words for words, used in zip(kind.scales, (shares, ~shares)) if used.any())
    made = int(table["comparisons"].max())
    comparisons = f"{made} comparison{'s' * (made != 1)}"
    reading = kind.reading.format(
        scale=scale, spread=_spread(table), interval=_interval(table), comparisons=comparisons
    )
    return f"{words.title}. {words.measures}. {reading}"


def _interval(table: pd.DataFrame) -> str:
    """What the confidence intervals of a table concern, and why not new scenes."""
    measured = table.dropna(subset="population")
    names = list(measured["population"].value_counts().index)
    if not names:
        return "95 % confidence interval"
    parts = [names[0], *(f"{name} ({_where(measured, name)})" for name in names[1:])]
    few = measured.loc[(measured["population"] != "new scenes") & (measured["scenes"] < FEWEST_SCENES), "scenes"]
    reason = f"; {_range(few)} are too few scenes for new scenes, which takes {FEWEST_SCENES}" if len(few) else ""
    return f"95 % confidence interval for {', or '.join(parts)}{reason}"


def _where(table: pd.DataFrame, population: str) -> str:
    """The splits, metrics or conditions whose intervals concern a population, whichever tell it apart."""
    inside = table["population"] == population
    for column in ("split", "metric", "condition"):
        names = table.loc[inside, column].unique()
        if not table.loc[~inside, column].isin(names).any():
            return ", ".join(names)
    return "see the column population of the CSV file"


def _spread(table: pd.DataFrame) -> str:
    """What a caption states about seeds. Lines of published numbers have none."""
    measured = table.dropna(subset="seeds")
    deterministic = measured["deterministic"].astype(bool)
    if deterministic.all():
        return "all extractors are deterministic"
    seeds = _range(measured.loc[~deterministic, "seeds"])
    if seeds == "1":
        return "one seed, whose choice the intervals do not cover"
    spread = f"value ± standard deviation over {seeds} seeds, whose choice the intervals cover"
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
        lines += [*(_bars(["", *row]) for row in counts), "", *(f"{note}\n" for note in _notes(block, MARKDOWN))]
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
        lines += ["    \\midrule", *map(_ampersands, counts), "    \\bottomrule", "  \\end{tabular}"]
        lines += [f"\n  {{\\footnotesize {note}\\par}}\n" for note in _notes(block, LATEX)]
    return "\n".join([*lines, "\\end{table}", ""])


def _ampersands(cells: Iterable[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _block(
    block: pd.DataFrame, kind: Kind, markup: Markup
) -> tuple[list[str], list[tuple[str, list[list[str]]]], list[list[str]]]:
    """The cells of one split: heads of the columns, (metric, rows) groups, and the closing rows of counts."""
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
    counts = [
        [name, *(_count(measured, condition, column) if what == "value" else DASH for what, condition in columns)]
        for name, column in {
            f"number of {BENCHMARKS[block['benchmark'].iloc[0]].items}": "n",
            "number of scenes": "scenes",
            "number of seeds": "seeds",
        }.items()
    ]
    return [_head(*column, markup) for column in columns], groups, [[*map(markup.text, row)] for row in counts]


def _count(lines: pd.DataFrame, condition: str, column: str) -> str:
    """Range of a count over the lines of a condition; deterministic extractors have no seeds."""
    own = lines[lines["condition"] == condition]
    own = own[~own["deterministic"].astype(bool)] if column == "seeds" else own
    return _range(own[column]) if len(own) else DASH


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
    """Index of the best line of each condition and of those that are not certainly worse; none without a rival.

    Lines that print the same as the best are best, too.
    """
    unit = lines["unit"].iloc[0]
    values = lines["value"].map(lambda value: float(printed(value, unit)))
    rivals = values.groupby(lines["condition"])
    best = rivals.transform("max" if unit == "%" else "min")
    chosen = (values == best) | (values.notna() & (lines["p_best"] >= SIGNIFICANT))
    return set(lines.index[chosen & (rivals.transform("count") > 1)])


def _certain(lines: pd.DataFrame) -> set[int]:
    """Index of the differences that are certainly not zero, whatever the other comparisons of the table."""
    return set(lines.index[lines["p_holm"] < SIGNIFICANT])


def printed(value: float, unit: str, sign: str = "") -> str:
    """A number without its unit: a share in percent, an error as it is."""
    return f"{100 * value if unit == '%' else value:{sign}.{DECIMALS.get(unit, 3)}f}"


def _range(numbers: Iterable[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}{DASH}{high}"
