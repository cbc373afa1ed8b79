"""Tables as HTML pages, for the report of a run: self-contained, without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5em; color: #222; }
p { max-width: 60em; }
table { border-collapse: collapse; margin: 0.8em 0 1.6em; }
th, td { padding: 0.25em 0.8em; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1.5px solid #222; }
tr.group th { text-align: left; font-style: italic; font-weight: normal; border-top: 1px solid #bbb; }
tr.count td { color: #666; }
tbody tr:not(.group):hover { background: #f3f3f3; }
small { color: #666; }
"""


def page(title: str, blocks: Iterable[str]) -> str:
    """Return an HTML document of blocks, which are HTML; ``title`` is text."""
    head = f'<head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head>'
    return "\n".join(["<!DOCTYPE html>", '<html lang="en">', head, "<body>", *blocks, "</body>", "</html>", ""])


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    """Return a table of column headers, which are HTML, and of rows as :func:`row` and :func:`group` return them."""
    cells = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    return "\n".join(["<table>", f"<thead><tr>{cells}</tr></thead>", "<tbody>", *rows, "</tbody>", "</table>"])


def row(cells: Iterable[str], kind: str = "") -> str:
    """Return a row of cells, which are HTML; ``kind`` is a class of :data:`STYLE`."""
    start = f'<tr class="{kind}">' if kind else "<tr>"
    return f"{start}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def group(name: str, columns: int) -> str:
    """Return a row that names the rows below it, over all columns."""
    return f'<tr class="group"><th colspan="{columns}">{name}</th></tr>'


def plain_page(title: str, columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a page with one table of text; underscores in the names of its columns become spaces."""
    head = [escape(name.replace("_", " ")) for name in columns]
    return page(title, [f"<p>{escape(title)}</p>", table(head, [row(map(escape, line)) for line in lines])])
