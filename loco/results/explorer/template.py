"""The template of the explorer page: an HTML file with placeholders for scripts, style and the data of a scene."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from loco.fingerprints import file_fingerprint, settings_fingerprint

ASSETS = Path(__file__).parent / "assets"
# Parts of one script, in order; later parts use earlier ones.
NAMES = ("decode", "similarity", "layout", "drawing", "cloud", "explorer", "column", "about", "page")
SCRIPTS = tuple(f"{name}.js" for name in NAMES)


def fill_template(title: str, header: dict[str, Any], payload: str) -> str:
    """Return the HTML of a page.

    Args:
        title: title of the scene, which the browser shows until the page is loaded.
        header: description of the data, JSON-able.
        payload: the data, in base64.
    """
    # In the order of the placeholders, so that inserted text is not searched for placeholders.
    parts = {
        "title": escape(title),
        "style": _read("style.css"),
        "script": "\n".join(map(_read, SCRIPTS)),
        "shaders": _script_json({name: _read(f"points.{name}") for name in ("vert", "frag")}),
        "header": _script_json(header),
        "payload": payload,
    }
    pieces = [_read("page.html")]
    for name, part in parts.items():
        before, place, after = pieces.pop().partition("{{" + name + "}}")
        if not place:
            raise ValueError(f"page.html has no placeholder {{{{{name}}}}} after those of the preceding parts")
        pieces += [before, part, after]
    return "".join(pieces)


def template_fingerprint() -> str:
    """Return the digest of the template files, which determine a page in addition to the code."""
    return settings_fingerprint({path.name: file_fingerprint(path) for path in sorted(ASSETS.iterdir())})


def _read(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _script_json(content: object) -> str:
    """Return JSON in which ``<`` is escaped, so that it cannot end the script element that contains it."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
