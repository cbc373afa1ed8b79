"""Write an explorer page: one HTML file with everything that it shows."""

from __future__ import annotations

from pathlib import Path

from loco.results.explorer.content import Content
from loco.results.explorer.payload import pack
from loco.results.explorer.template import fill_template
from loco.storage import write_text


def write_page(content: Content, out: Path) -> int:
    """Write the page to ``out``, and return its size in bytes."""
    html = fill_template(content.title, *pack(content))
    write_text(out, html)
    return len(html.encode())
