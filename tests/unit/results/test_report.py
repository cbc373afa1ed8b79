"""The captions of the report render as in Snakemake, with the default configuration, to valid text."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docutils.core import publish_parts
from jinja2 import Environment, StrictUndefined

from loco.config_layers import read_files, with_defaults
from loco.evaluation.catalogue import BENCHMARKS
from loco.results.plots.scores import FIGURES

ROOT = Path(__file__).parents[3]
CAPTIONS = sorted((ROOT / "report").glob("*.rst"))
CONFIG = with_defaults(read_files([], ROOT), ROOT)
# What Snakemake appends to every caption: a link to each panel, category and file.
TARGETS = ("Workflow", "Statistics", "Data", "Pictures", "Results", "Training", "checks.html", "a_differences.html")
LINKS = "\n\n" + "".join(f".. _{target}: javascript:show('{target}')\n" for target in TARGETS)


def rendered(caption: Path, config: dict[str, Any] = CONFIG, **params: Any) -> tuple[str, str]:
    """Return text and HTML of a caption, by the settings of ``snakemake.report``; warnings of docutils are errors."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(caption.read_text(encoding="utf-8") + LINKS)
    text = template.render(snakemake=SimpleNamespace(config=config, params=params))
    settings = {"halt_level": 2, "report_level": 2}
    return text, publish_parts(text, writer_name="html", settings_overrides=settings)["html_body"]


@pytest.mark.parametrize("caption", [path for path in CAPTIONS if path.stem != "benchmark"], ids=lambda path: path.stem)
def test_caption_renders(caption: Path) -> None:
    text, html = rendered(caption)
    assert "{" not in text
    assert html.count("<strong>") or "<h1" in html
    assert "system-message" not in html


def test_first_page_has_one_bullet_per_experiment() -> None:
    titles = ["CNN", "LoCo* (a|b)_", r"back\slash", "50 % & more"]
    experiments = {f"e{k}": {"title": title} for k, title in enumerate(titles)}
    run = {"experiments": list(experiments), "splits": ["flats", "houses"], "seeds": [0, 1]}
    _, html = rendered(ROOT / "report" / "workflow.rst", {"run": run, "experiments": experiments})
    first_list = re.search(r"<ul.*?</ul>", html, re.DOTALL)[0]
    bullets = [re.sub(r"<[^>]+>|\s+", " ", item) for item in re.findall(r"<li>(.*?)</li>", first_list, re.DOTALL)]
    expected = [f"{title} ( e{k} )" for k, title in enumerate(titles)]
    assert [" ".join(bullet.split()) for bullet in bullets] == [text.replace("&", "&amp;") for text in expected]
    assert "Seeds: 0, 1." in html


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=lambda benchmark: benchmark.name)
def test_tables_are_captioned_by_the_catalogue(benchmark) -> None:
    # Benchmarks that the default configuration omits have arbitrary settings.
    config = {"benchmarks": {benchmark.name: {"matches": 1000, "descriptors": [{"name": "gem"}]}}}
    settings = CONFIG["benchmarks"].get(benchmark.name, config["benchmarks"][benchmark.name])
    template = ROOT / "report" / "benchmark.rst"
    caption = {"words": benchmark.caption, "published": []}
    text, html = rendered(template, {"benchmarks": {benchmark.name: settings}}, **caption)
    assert html.count("<li>") == len(settings)
    assert f"<strong>{benchmark.title}.</strong>" in html
    assert benchmark.measures in text
    assert benchmark.items in text
    assert "publications" not in html
    assert "publications" in rendered(template, config, **caption | {"published": [{"method": "M"}]})[1]


def test_tables_in_the_report_are_pages() -> None:
    rules = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk"))
    shown = re.findall(r"report\(\s*f?\"([^\"]+)\"", rules)
    assert {Path(path).suffix for path in shown} == {".html", ".svg", ".png"}
    assert all(path.endswith(".html") for path in shown if path.startswith("results/tables/"))


def test_rules_and_captions_name_each_other() -> None:
    rules = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk"))
    for name in re.findall(r"report/(\w+)\.rst", rules):
        assert (ROOT / "report" / f"{name}.rst").is_file()
    assert {figure for benchmark in BENCHMARKS.values() for figure in benchmark.figures} == FIGURES.keys()
    for figure in FIGURES:
        assert (ROOT / "report" / f"{figure}.rst").is_file()
    for caption in CAPTIONS:
        assert caption.stem in {"workflow", *FIGURES} or f"report/{caption.name}" in rules
