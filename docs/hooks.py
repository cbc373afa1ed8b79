"""Hooks of the documentation site: pages from outside ``docs/``, a page of reference per module, and their links.

MkDocs calls the functions ``on_...`` (https://www.mkdocs.org/dev-guide/plugins/#events).
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# Documents outside docs/ -> their pages on the site.
DOCUMENTS = {
    "README.md": "index.md",
    "config/README.md": "configuration.md",
    "results/README.md": "output.md",
    "benchmarks/README.md": "measurements.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def public_modules() -> dict[str, str]:
    """Return the dotted names of the public modules of the package, sorted, and the pages of their reference."""
    names = []
    for path in sorted((ROOT / "loco").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            names.append(".".join(parts))
    return {name: f"reference/{name}.md" for name in sorted(names)}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the reference to the navigation: the modules of ``loco`` itself, then a section per subpackage."""
    sections: dict[str, list[str]] = {}
    for name, page in public_modules().items():
        package = ".".join(name.split(".")[:2]) if (ROOT / Path(*name.split(".")[:2])).is_dir() else "loco"
        sections.setdefault(package, []).append(page)
    top = sections.pop("loco")
    config.nav.append({"Reference": [*top, *({package: pages} for package, pages in sections.items())]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents outside ``docs/`` and the pages of the reference."""
    for source, page in DOCUMENTS.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for name, page in public_modules().items():
        files.append(File.generated(config, page, content=f"---\ntitle: {name}\n---\n\n::: {name}\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make the links of a document, which are relative to it in the repository, relative to its page on the site."""
    here = page.file.src_uri
    source = {page: source for source, page in DOCUMENTS.items()}.get(here, f"docs/{here}")
    return "".join(
        part if fenced else LINK.sub(lambda link: _on_site(link, source, here), part)
        for fenced, part in _split_fences(markdown)
    )


def _split_fences(markdown: str) -> list[tuple[bool, str]]:
    """Return the parts of a document outside (False) and inside (True) of fenced code."""
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return [(part.startswith("```"), part) for part in parts]


def _on_site(link: re.Match[str], source: str, here: str) -> str:
    """Return a link of the document ``source`` as its page ``here`` needs it."""
    picture, text, target = link.groups()
    path, hash_, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return link[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    page = _page_of(path)
    if page is None:  # a file that is not part of the site
        return text
    return f"{picture}[{text}]({posixpath.relpath(page, posixpath.dirname(here) or '.')}{hash_}{anchor})"


def _page_of(path: str) -> str | None:
    """Return the page that shows a file of the repository, by its path; None if there is none."""
    if path.startswith("docs/") and not path.endswith(".py"):
        return path.removeprefix("docs/")
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return DOCUMENTS.get(path) or (public_modules().get(module) if path.endswith(".py") else None)
