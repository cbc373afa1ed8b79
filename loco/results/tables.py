"""Tables of results: tidy and complete (CSV), for papers (Markdown, LaTeX) and for the report (HTML).

They are pure functions of metric files, with the numbers of :mod:`loco.results.scores`. A fraction (unit ``%``) is
between 0 and 1 in CSV and in percent elsewhere, and higher is better; for errors in any other unit, lower is better.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from loco.evaluation.catalogue import BENCHMARKS
from loco.evaluation.intervals import FEWEST_SCENES
from loco.results import html_tables
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
        suffix: suffix of its label.
        reading: part of the caption that explains the numbers, with ``{scale}``, ``{spread}``, ``{interval}`` and
            ``{comparisons}``.
        scales: captions for fractions and for errors.
        sign: ``+`` to print the sign of positive numbers.
        bold: returns the index of the lines of a metric that are in bold.
    """

    suffix: str
    reading: str
    scales: tuple[str, str]
    sign: str
    bold: Callable[[pd.DataFrame], set[int]]


def write_tables(
    metrics: Iterable[Metrics], titles: Mapping[str, str], stem: str | Path, published: Published | None = None
) -> None:
    """Write ``stem``.csv, ``stem``.md, ``stem``.tex and ``stem``.html, each atomically.

    Args:
        metrics: the metric files of one benchmark.
        titles: experiment -> title in the tables, in the order of the rows.
        stem: path without suffix.
        published: published numbers to show in separate columns; None for none.
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
    """Write tables of the differences between experiments, to the same files as :func:`write_tables`.

    Args:
        metrics: the metric files of one benchmark.
        titles: experiment -> title in the tables.
        comparisons: (experiment, other experiment) pairs, one per row.
        stem: path without suffix.

    Raises:
        DataError: experiments were evaluated on different items.
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
    write_text(f"{stem}.html", _html(table, kind, caption))


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
    """Return the population of the confidence intervals of a table, and the reason if it is not new scenes."""
    measured = table.dropna(subset="population")
    names = list(measured["population"].value_counts().index)
    if not names:
        return "95 % confidence interval"
    parts = [names[0], *(f"{name} ({_where(measured, name)})" for name in names[1:])]
    few = measured.loc[(measured["population"] != "new scenes") & (measured["scenes"] < FEWEST_SCENES), "scenes"]
    reason = f"; {_range(few)} are too few scenes for new scenes, which takes {FEWEST_SCENES}" if len(few) else ""
    return f"95 % confidence interval for {', or '.join(parts)}{reason}"


def _where(table: pd.DataFrame, population: str) -> str:
    """Return the splits, metrics or conditions that identify the intervals for a population."""
    inside = table["population"] == population
    for column in ("split", "metric", "condition"):
        names = table.loc[inside, column].unique()
        if not table.loc[~inside, column].isin(names).any():
            return ", ".join(names)
    return "see the column population of the CSV file"


def _spread(table: pd.DataFrame) -> str:
    """Return the statement of a caption about seeds. Lines of published numbers have none."""
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
    """The notation of a format for the content of a cell."""

    bold: str
    italic: str
    interval: str
    special: Mapping[int, str]

    def text(self, text: str) -> str:
        return text.translate(self.special)

    def score(self, line: pd.Series, sign: str, bold: bool) -> str:
        """Return a value with its spread and interval; if only one bound is missing, it is infinite."""
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
HTML = Markup(
    "<strong>{}</strong>",
    "<em>{}</em>",
    " <small>[{}, {}]</small>",
    str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"}),
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


def _html(table: pd.DataFrame, kind: Kind, caption: str) -> str:
    blocks = [f"<p>{HTML.text(caption)}</p>"]
    for split, block in table.groupby("split", sort=False):
        conditions, groups, counts = _block(block, kind, HTML)
        rows: list[str] = []
        for metric, lines in groups:
            rows += [html_tables.group(metric, len(conditions) + 1), *map(html_tables.row, lines)]
        rows += [html_tables.row(count, "count") for count in counts]
        blocks += [html_tables.table([f"split: {HTML.text(str(split))}", *conditions], rows)]
        blocks += [f"<p>{note}</p>" for note in _notes(block, HTML)]
    return html_tables.page(BENCHMARKS[table["benchmark"].iloc[0]].title, blocks)


def _block(
    block: pd.DataFrame, kind: Kind, markup: Markup
) -> tuple[list[str], list[tuple[str, list[list[str]]]], list[list[str]]]:
    """Return the cells of one split: column headers, (metric, rows) groups, and the final rows of counts."""
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
    """Return the range of a count over the lines of a condition; deterministic extractors have no seeds."""
    own = lines[lines["condition"] == condition]
    own = own[~own["deterministic"].astype(bool)] if column == "seeds" else own
    return _range(own[column]) if len(own) else DASH


def _published(lines: pd.DataFrame) -> pd.DataFrame:
    return lines.dropna(subset="published") if "published" in lines else lines[:0]


def _notes(block: pd.DataFrame, markup: Markup) -> list[str]:
    """Return the notes below a split's block, about published numbers if it shows any."""
    shown = _published(block)
    return [f"{markup.italic.format('published')}: {markup.text(footnote(shown))}"] if len(shown) else []


def _head(what: str, condition: str, markup: Markup) -> str:
    named = [markup.text(_printed(condition))] if condition or what == "value" else []
    return ", ".join([*named, markup.italic.format(what)] if what == "published" else named)


def _printed(condition: str) -> str:
    """Return a condition with ranges of degrees in the notation of papers."""
    return re.sub(r"^(\d+)-(\d+) deg$", rf"\1{DASH}\2°", condition)


def _best(lines: pd.DataFrame) -> set[int]:
    """Return the index of the best line of each condition and of those not significantly worse; empty for one line.

    Lines that are printed like the best one count as best.
    """
    unit = lines["unit"].iloc[0]
    values = lines["value"].map(lambda value: float(printed(value, unit)))
    rivals = values.groupby(lines["condition"])
    best = rivals.transform("max" if unit == "%" else "min")
    chosen = (values == best) | (values.notna() & (lines["p_best"] >= SIGNIFICANT))
    return set(lines.index[chosen & (rivals.transform("count") > 1)])


def _certain(lines: pd.DataFrame) -> set[int]:
    """Return the index of the differences that are significant, corrected for all comparisons of the table."""
    return set(lines.index[lines["p_holm"] < SIGNIFICANT])


def printed(value: float, unit: str, sign: str = "") -> str:
    """Return a number without its unit: a fraction in percent, an error unchanged."""
    return f"{100 * value if unit == '%' else value:{sign}.{DECIMALS.get(unit, 3)}f}"


def _range(numbers: Iterable[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}{DASH}{high}"
