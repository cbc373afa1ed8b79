"""The captions of the report render, with the default configuration, to sound text."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from docutils.core import publish_parts
from jinja2 import Environment, StrictUndefined

from loco.evaluation import NEEDS
from loco.results import plots

ROOT = Path(__file__).parents[3]
CAPTIONS = sorted((ROOT / "report").glob("*.rst"))


@pytest.mark.parametrize("caption", CAPTIONS, ids=lambda path: path.stem)
def test_caption_renders(caption: Path) -> None:
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    template = Environment(undefined=StrictUndefined).from_string(caption.read_text(encoding="utf-8"))
    text = template.render(snakemake=SimpleNamespace(config=config))
    # halt_level 2: warnings are errors
    html = publish_parts(text, writer_name="html", settings_overrides={"halt_level": 2, "report_level": 2})["html_body"]
    assert "{" not in text
    assert html.count("<strong>") or "<h1" in html


def test_rules_and_captions_name_each_other() -> None:
    rules = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk"))
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    for benchmark in config["benchmarks"]:
        assert (ROOT / "report" / f"{benchmark}.rst").is_file()
    for name in re.findall(r"report/(\w+)\.rst", rules):
        assert (ROOT / "report" / f"{name}.rst").is_file()
    figures = re.search(r"^FIGURES = (\{.*?^\})", rules, re.MULTILINE | re.DOTALL)
    drawn = {figure for names in ast.literal_eval(figures[1]).values() for figure in names}
    for figure in drawn:
        assert (ROOT / "report" / f"{figure}.rst").is_file()
        assert callable(getattr(plots, figure))
    for caption in CAPTIONS:
        assert caption.stem in {"workflow", *NEEDS, *drawn} or f"report/{caption.name}" in rules
