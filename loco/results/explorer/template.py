"""The template of the explorer page: an HTML file with places for its other files and the data of a scene."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from loco.fingerprints import file_fingerprint, settings_fingerprint

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("decode.js", "similarity.js", "layout.js", "drawing.js", "cloud.js", "page.js")  # in this order


def fill_template(title: str, header: dict[str, Any], payload: str) -> str:
    """Return the HTML of a page.

    Args:
        title: of the scene, shown by the browser until the page is loaded.
        header: description of the data, JSON-able.
        payload: the data, in base64.
    """
    # In the order of their places, so that no part is searched for the place of another.
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
            raise ValueError(f"page.html has no {{{{{name}}}}} after the places before it")
        pieces += [before, part, after]
    return "".join(pieces)


def template_fingerprint() -> str:
    """Return the digest of the files of the template, which decide about a page as its code does."""
    return settings_fingerprint({path.name: file_fingerprint(path) for path in sorted(ASSETS.iterdir())})


def _read(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _script_json(content: object) -> str:
    """Return JSON for a script element, which it cannot end because it contains no ``<``."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
