"""Which packages the base and the extras install, and errors that name the extra of a missing package."""

from __future__ import annotations

import ast
import importlib
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import loco
from loco.cli import main
from loco.errors import ConfigError
from loco.extras import EXTRAS, named_extras

PACKAGE = Path(loco.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
# Packages whose name on PyPI differs from the name by which they are imported.
PYPI_NAMES = {"cv2": "opencv-python", "PIL": "pillow", "yaml": "pyyaml", "huggingface_hub": "huggingface-hub"}
OTHERS = {"triton"}  # a dependency of PyTorch on the platforms where it can be used


def extra_of(package: str) -> set[str]:
    """Return the extras that install a package, according to pyproject.toml."""
    name = PYPI_NAMES.get(package, package)
    extras = PROJECT["optional-dependencies"]
    return {extra for extra, lines in extras.items() if name in {Requirement(line).name for line in lines}}


def imported_packages() -> set[str]:
    """Return every package outside the standard library that a module of the project imports, at any place."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module)
    return {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names) - {"loco"}


def test_every_imported_package_is_in_the_base_or_in_an_extra():
    base = {Requirement(line).name for line in PROJECT["dependencies"]}
    missing = {name for name in imported_packages() if PYPI_NAMES.get(name, name) not in base} - EXTRAS.keys()
    assert missing == OTHERS


@pytest.mark.parametrize("package", EXTRAS)
def test_the_named_extra_installs_the_package(package):
    assert EXTRAS[package] in extra_of(package)


def test_all_installs_every_extra():
    def closure(extra: str) -> set[str]:
        lines = map(Requirement, PROJECT["optional-dependencies"][extra])
        inner = {name for line in lines if line.name == "loco" for name in line.extras}
        return {extra}.union(*map(closure, inner))

    assert closure("all") == PROJECT["optional-dependencies"].keys()


@pytest.fixture
def without(monkeypatch):
    """Make packages appear not to be installed, and the given modules of the project not yet imported."""

    def hide(package: str, *modules: str) -> None:
        loaded = [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]
        for name in [*loaded, *(m for m in modules if m in sys.modules)]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [_Hidden(package), *sys.meta_path])

    return hide


class _Hidden:
    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if f"{name}.".startswith(f"{self._package}."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_missing_package_is_an_error_with_its_extra(without):
    without("lightning", "loco.training.run", "loco.training.module")
    with pytest.raises(ConfigError, match=r"lightning is not installed: run `pip install 'loco\[train\]'`"):
        importlib.import_module("loco.training").train  # noqa: B018 - an attribute that is imported on use


def test_the_command_line_names_the_extra(without, tmp_path, capsys):
    without("pandas", "loco.results.pictures.matches")
    assert main(["match", "a.jpg", "b.jpg", "--model", "m", "--out", str(tmp_path / "c.png")]) == 2
    assert "pip install 'loco[results]'" in capsys.readouterr().err


def test_other_missing_modules_are_left_as_they_are():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), named_extras():
        importlib.import_module("no_such_module.part")
