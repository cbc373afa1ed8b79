"""Write tables of results as CSV (tidy, with all columns), Markdown, LaTeX (for papers) and HTML (for the report).

A fraction (unit ``%``) is between 0 and 1 in CSV and in percent elsewhere, and higher is better; for errors in any
other unit, lower is better.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from loco.evaluation.catalogue import BENCHMARKS
from loco.evaluation.intervals import FEWEST_SCENES
from loco.results.tables import html
from loco.results.tables.published import footnote
from loco.storage import write_text

DASH = "\N{EN DASH}"
DECIMALS = {"%": 1, "px": 2, "deg": 2, "m": 3}


@dataclass(frozen=True)
class TableKind:
    """A kind of table.

    Attributes:
        suffix: suffix of its label.
        reading: part of the caption that explains the numbers, with ``{scale}``, ``{spread}``, ``{interval}`` and
            ``{comparisons}``.
        scales: texts of ``{scale}`` for fractions and for errors.
        sign: ``+`` to print the sign of positive numbers.
        bold: returns the index of the lines of a metric that are in bold.
    """

    suffix: str
    reading: str
    scales: tuple[str, str]
    sign: str
    bold: Callable[[pd.DataFrame], set[int]]


def write(table: pd.DataFrame, kind: TableKind, stem: str | Path) -> None:
    """Write ``stem``.csv, ``stem``.md, ``stem``.tex and ``stem``.html, each atomically."""
    caption = _caption(table, kind)
    write_text(f"{stem}.csv", table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    write_text(f"{stem}.md", _markdown(table, kind, caption))
    write_text(f"{stem}.tex", _latex(table, kind, caption))
    write_text(f"{stem}.html", _html(table, kind, caption))


def _caption(table: pd.DataFrame, kind: TableKind) -> str:
    benchmark = BENCHMARKS[table["benchmark"].iloc[0]]
    fractions = table["unit"] == "%"
    scale = ", or in ".join(part for part, used in zip(kind.scales, (fractions, ~fractions)) if used.any())
    count = int(table["comparisons"].max())
    comparisons = f"{count} comparison{'s' * (count != 1)}"
    reading = kind.reading.format(
        scale=scale, spread=_spread(table), interval=_interval(table), comparisons=comparisons
    )
    return f"{benchmark.title}. {benchmark.measures}. {reading}"


def _interval(table: pd.DataFrame) -> str:
    """Return the population of the confidence intervals of a table, and the reason if it is not new scenes."""
    measured = table.dropna(subset="population")
    names = list(measured["population"].value_counts().index)
    if not names:
        return "95 % confidence interval"
    parts = [names[0], *(f"{name} ({_where(measured, name)})" for name in names[1:])]
    few = measured.loc[(measured["population"] != "new scenes") & (measured["scenes"] < FEWEST_SCENES), "scenes"]
    reason = (
        f"; intervals for new scenes require {FEWEST_SCENES} scenes, found {_format_range(few)}" if len(few) else ""
    )
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
    """Return the statement of a caption about seeds. Rows of published numbers have no seeds and are ignored."""
    measured = table.dropna(subset="seeds")
    deterministic = measured["deterministic"].astype(bool)
    if deterministic.all():
        return "all extractors are deterministic"
    seeds = _format_range(measured.loc[~deterministic, "seeds"])
    if seeds == "1":
        return "one seed; the intervals do not include the variation between seeds"
    spread = f"value ± standard deviation over {seeds} seeds; the intervals include the variation between seeds"
    return f"{spread}; deterministic extractors have no seeds" if deterministic.any() else spread


@dataclass(frozen=True)
class Markup:
    """The notation of a format for the content of a cell."""

    bold: str
    italic: str
    interval: str
    special: Mapping[int, str]

    def escape(self, text: str) -> str:
        return text.translate(self.special)

    def score(self, line: pd.Series, sign: str, bold: bool) -> str:
        """Return a value with its standard deviation and interval; if only one bound is missing, it is infinite."""
        if pd.isna(line["value"]):
            return self.escape(DASH)
        value, low, high = (format_value(line[name], line["unit"], sign) for name in ("value", "low", "high"))
        value += "" if pd.isna(line["std"]) else self.escape(f" ± {format_value(line['std'], line['unit'])}")
        value = self.bold.format(value) if bold else value
        missing = line[["low", "high"]].isna()
        if missing.all():
            return value
        low = self.escape("\N{MINUS SIGN}\N{INFINITY}") if missing["low"] else low
        high = self.escape(f"{sign}\N{INFINITY}") if missing["high"] else high
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


def _markdown(table: pd.DataFrame, kind: TableKind, caption: str) -> str:
    lines = [MARKDOWN.escape(caption), ""]
    for split, block in table.groupby("split", sort=False):
        conditions, groups, counts = _cells(block, kind, MARKDOWN)
        lines += [f"**Split `{split}`**", ""]
        lines += [_markdown_row(["", "", *conditions]), _markdown_row([":--", ":--", *["--:"] * len(conditions)])]
        for metric, rows in groups:
            lines += [
                _markdown_row([metric if first else "", *row]) for first, row in zip([True] + [False] * len(rows), rows)
            ]
        lines += [
            *(_markdown_row(["", *row]) for row in counts),
            "",
            *(f"{note}\n" for note in _notes(block, MARKDOWN)),
        ]
    return "\n".join(lines)


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latex(table: pd.DataFrame, kind: TableKind, caption: str) -> str:
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering\\small",
        f"  \\caption{{{LATEX.escape(caption)}}}",
        f"  \\label{{tab:{table['benchmark'].iloc[0]}{kind.suffix}}}",
    ]
    for split, block in table.groupby("split", sort=False):
        conditions, groups, counts = _cells(block, kind, LATEX)
        columns = len(conditions) + 1
        lines += [f"  \\begin{{tabular}}{{l{'r' * len(conditions)}}}", "    \\toprule"]
        lines += [_latex_row([f"split: {LATEX.escape(str(split))}", *conditions])]
        for metric, rows in groups:
            lines += ["    \\midrule", f"    \\multicolumn{{{columns}}}{{l}}{{\\emph{{{metric}}}}} \\\\"]
            lines += [_latex_row(row) for row in rows]
        lines += ["    \\midrule", *map(_latex_row, counts), "    \\bottomrule", "  \\end{tabular}"]
        lines += [f"\n  {{\\footnotesize {note}\\par}}\n" for note in _notes(block, LATEX)]
    return "\n".join([*lines, "\\end{table}", ""])


def _latex_row(cells: Iterable[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _html(table: pd.DataFrame, kind: TableKind, caption: str) -> str:
    blocks = [f"<p>{HTML.escape(caption)}</p>"]
    for split, block in table.groupby("split", sort=False):
        conditions, groups, counts = _cells(block, kind, HTML)
        rows: list[str] = []
        for metric, lines in groups:
            rows += [html.group(metric, len(conditions) + 1), *map(html.row, lines)]
        rows += [html.row(count, "count") for count in counts]
        blocks += [html.table([f"split: {HTML.escape(str(split))}", *conditions], rows)]
        blocks += [f"<p>{note}</p>" for note in _notes(block, HTML)]
    return html.page(BENCHMARKS[table["benchmark"].iloc[0]].title, blocks)


def _cells(
    block: pd.DataFrame, kind: TableKind, markup: Markup
) -> tuple[list[str], list[tuple[str, list[list[str]]]], list[list[str]]]:
    """Return the cells of one split: column headers, (metric, rows) groups, and the final rows of counts."""
    measured, shown = block.dropna(subset="seeds"), _published(block)
    columns = [("value", c) for c in measured["condition"].unique()]
    columns += [("published", c) for c in shown["condition"].unique()]
    missing = markup.escape(DASH)
    groups = []
    for metric, lines in block.groupby("metric", sort=False):
        bold, unit = kind.bold(lines), lines["unit"].iloc[0]
        rows = []
        for (_, title), row in lines.groupby(["experiment", "title"], sort=False):
            cells = {
                ("value", line["condition"]): markup.score(line, kind.sign, i in bold) for i, line in row.iterrows()
            }
            for line in _published(row).itertuples():
                cells["published", line.condition] = format_value(line.published, unit)
            rows.append([markup.escape(title), *(cells.get(column, missing) for column in columns)])
        groups.append((markup.escape(metric if unit == "%" else f"{metric} ({unit})"), rows))
    counts = [
        [
            name,
            *(_format_count(measured, condition, column) if what == "value" else DASH for what, condition in columns),
        ]
        for name, column in {
            f"number of {BENCHMARKS[block['benchmark'].iloc[0]].items}": "n",
            "number of scenes": "scenes",
            "number of seeds": "seeds",
        }.items()
    ]
    return (
        [_column_header(*column, markup) for column in columns],
        groups,
        [[*map(markup.escape, row)] for row in counts],
    )


def _format_count(lines: pd.DataFrame, condition: str, column: str) -> str:
    """Return the range of a count over the rows of a condition; ``seeds`` excludes deterministic extractors."""
    row = lines[lines["condition"] == condition]
    row = row[~row["deterministic"].astype(bool)] if column == "seeds" else row
    return _format_range(row[column]) if len(row) else DASH


def _published(lines: pd.DataFrame) -> pd.DataFrame:
    return lines.dropna(subset="published") if "published" in lines else lines[:0]


def _notes(block: pd.DataFrame, markup: Markup) -> list[str]:
    """Return the notes below the block of a split: the sources of the published numbers that it shows, if any."""
    shown = _published(block)
    return [f"{markup.italic.format('published')}: {markup.escape(footnote(shown))}"] if len(shown) else []


def _column_header(what: str, condition: str, markup: Markup) -> str:
    named = [markup.escape(_format_condition(condition))] if condition or what == "value" else []
    return ", ".join([*named, markup.italic.format(what)] if what == "published" else named)


def _format_condition(condition: str) -> str:
    """Return a condition with ranges of degrees in the notation of papers."""
    return re.sub(r"^(\d+)-(\d+) deg$", rf"\1{DASH}\2°", condition)


def format_value(value: float, unit: str, sign: str = "") -> str:
    """Return a number without its unit: a fraction in percent, an error unchanged."""
    return f"{100 * value if unit == '%' else value:{sign}.{DECIMALS.get(unit, 3)}f}"


def _format_range(numbers: Iterable[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}{DASH}{high}"
