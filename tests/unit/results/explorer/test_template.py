"""The template of the page."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from loco.results.explorer.template import ASSETS, SCRIPTS, fill_template, template_fingerprint


def test_contents_cannot_end_their_elements() -> None:
    html = fill_template("<b>&", {"title": "</script><!--", "note": "{{payload}}"}, "AAAA")
    header = re.search(r'<script type="application/json" id="header">(.*?)</script>', html, re.DOTALL)[1]
    assert json.loads(header) == {"title": "</script><!--", "note": "{{payload}}"}
    assert "<title>&lt;b&gt;&amp;: feature explorer</title>" in html
    assert '<script type="application/octet-stream" id="payload">AAAA</script>' in html


def test_every_asset_is_in_the_page() -> None:
    html = fill_template("room", {}, "")
    others = {"page.html", "style.css", "points.vert", "points.frag"}
    assert {path.name for path in ASSETS.iterdir()} == others | set(SCRIPTS)
    for path in ASSETS.iterdir():
        line = path.read_text().strip().splitlines()[-2].strip()
        assert line in html or json.dumps(line)[1:-1] in html
    assert not re.search(r"https?://(?!www\.w3\.org)", html)


def test_the_page_requests_nothing_by_its_own_policy() -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', fill_template("room", {}, ""))[1]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_a_changed_asset_changes_the_fingerprint(monkeypatch, tmp_path) -> None:
    before = template_fingerprint()
    for path in ASSETS.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr("loco.results.explorer.template.ASSETS", tmp_path)
    assert template_fingerprint() == before
    (tmp_path / "page.js").write_text("changed")
    assert template_fingerprint() != before


def test_the_page_contains_no_path_of_the_machine(page_file) -> None:
    html = page_file.read_text()
    for name in (str(page_file.parent), str(Path.cwd()), os.path.expanduser("~") + "/"):
        assert name not in html
