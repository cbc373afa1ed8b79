"""The documentation site: every link has a target, the reference is complete, and no page requests another host."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import loco

ROOT = Path(__file__).parents[2]
PACKAGE = Path(loco.__file__).parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site strictly: warnings, for example about links without target, are errors."""
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def public_functions() -> dict[str, list[str]]:
    """Return the dotted names of the public functions and classes of each public module."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if "._" not in name:
            tree = ast.parse(path.read_bytes())
            nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
            found[name] = [f"{name}.{node.name}" for node in nodes if not node.name.startswith("_")]
    return found


def test_every_public_module_and_function_has_its_reference(site):
    functions = public_functions()
    assert len(functions) > 200
    for module, names in functions.items():
        page = (site / f"reference/{module}.html").read_text()
        assert [name for name in [module, *names] if f'id="{name}"' not in page] == []


def test_the_reference_shows_arguments_and_links_types(site):
    page = (site / "reference/loco.losses.exact.html").read_text()
    assert "patches per side of a tile" in page  # an argument of the constructor
    assert 'href="loco.losses.histograms.html#loco.losses.histograms.BINS_PER_TAU"' in page
    assert not any(re.search(r":(mod|func|class|data|meth):", file.read_text()) for file in site.rglob("*.html"))


def test_no_page_requests_another_host(site):
    requests = re.compile(r"""<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]*)""")
    assert {url for page in site.rglob("*.html") for url in requests.findall(page.read_text())} == set()
    styles = re.compile(r"""(?:url\(|@import\s+)["']?((?:https?:)?//[^"')\s]*)""")
    assert {url for sheet in site.rglob("*.css") for url in styles.findall(sheet.read_text())} == set()


def test_documents_from_outside_of_docs_are_pages_with_their_links(site):
    home = (site / "index.html").read_text()
    assert 'src="similarity_maps.jpg"' in home
    assert 'href="tutorials/recording.html"' in home
    assert 'href="../datasets.html' in (site / "tutorials/recording.html").read_text()
    assert 'href="reference/loco.datasets.anyloc.html"' in (site / "datasets.html").read_text()


def test_the_readme_cites_what_the_citation_file_lists():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    readme = re.sub(r"[{}]", "", (ROOT / "README.md").read_text())
    for work in (citation, *citation["references"]):
        assert work["title"] in readme
    assert f"version   = {citation['version']}" in readme
    for author in (author for work in citation["references"] for author in work["authors"]):
        assert author["family-names"] in readme


def test_documents_stay_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 170
    for tutorial in (ROOT / "docs/tutorials").glob("*.md"):
        assert len(tutorial.read_text().splitlines()) < 100, tutorial


def test_messages_that_the_documents_quote_are_those_of_the_code() -> None:
    """Compare the symptoms in the recovery table, except those of Snakemake and the system, and the printed output."""
    said = "\n".join(_texts(ast.parse(file.read_text(encoding="utf-8"))) for file in (ROOT / "loco").rglob("*.py"))
    running = (ROOT / "docs/running.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", running.partition("| symptom |")[2].partition("\n\n")[0], re.M)
    foreign = ("died with", "PermissionError", "Clock skew")
    quoted = [text for row in rows for text in re.findall(r"`([^`]*)`", row) if not text.startswith(foreign)]
    assert len(quoted) >= 6
    printed = re.findall(
        r"^    (?:\d+ |loco verify: 1 of 19 )?(files verified: |files failed|nothing was removed; ).*$", running, re.M
    )
    assert len(printed) == 3
    assert [text for text in [*quoted, *printed] if text.strip() not in said] == []


def _texts(tree: ast.AST) -> str:
    """Return the text of all string literals, adjacent parts of f-strings joined."""
    parts = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.Constant)]
    joined = [
        "".join(v.value for v in p.values if isinstance(v, ast.Constant)) for p in parts if isinstance(p, ast.JoinedStr)
    ]
    return "\n".join([*joined, *(p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str))])
