"""Find the source files of extractors outside this project (``model: {name: python}``) without running them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any


def search_path() -> list[str]:
    """Return the folders in which modules are searched: those of Python, then the working directory."""
    return [*sys.path, str(Path.cwd())]


def module_of(name: str) -> str:
    """Return the module of a class: ``package.module`` for ``package.module.Class``."""
    return name.rpartition(".")[0]


def source_file(name: str) -> Path | None:
    """Return the source file of the module of a class; None if there is none.

    Args:
        name: the class, ``module.Class`` or ``package.module.Class``.
    """
    spec = _find(module_of(name))
    is_source = spec is not None and spec.origin is not None and spec.origin.endswith(".py")
    return Path(spec.origin) if spec is not None and spec.origin is not None and is_source else None


def source_files(model: Mapping[str, Any]) -> list[Path]:
    """Return the source files of the classes that a model names, sorted: if they change, the model may change.

    These are the file of the class, or all files of its package. Other modules that these import are not included.

    Args:
        model: an experiment's ``model``.
    """
    if "models" in model:
        return sorted({file for part in model["models"] for file in source_files(part)})
    if model["name"] != "python" or (file := source_file(model["class"])) is None:
        return []
    spec = _find(module_of(model["class"]).partition(".")[0])
    is_package = spec is not None and (spec.origin or "").endswith("__init__.py")
    folders: Iterable[str] = (spec.submodule_search_locations or ()) if spec and is_package else ()
    return sorted({file, *(found for folder in folders for found in Path(folder).rglob("*.py"))})


def class_problem(name: str) -> str | None:
    """Return why the source file of a class cannot be found; None if it can."""
    if not module_of(name):
        return f"the class {name!r} has no module; write module.Class, for example my_extractor.MyExtractor"
    if source_file(name) is None:
        return (
            f"the module {module_of(name)!r} does not exist; write its file to the working directory ({Path.cwd()}), "
            "or install its package"
        )
    return None


def _find(module: str) -> ModuleSpec | None:
    """Return where a module is, without importing it or the packages around it."""
    folders: Iterable[str] = search_path()
    spec = None
    for name in _prefixes(module):
        spec = PathFinder.find_spec(name, list(folders))
        if spec is None:
            return None
        folders = spec.submodule_search_locations or ()
    return spec


def _prefixes(module: str) -> list[str]:
    """Return ``a``, ``a.b`` and ``a.b.c`` of ``a.b.c``."""
    parts = module.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]
