"""The import graph of the package: it has no cycles, and parts import only the parts that they may depend on."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import loco

PACKAGE = Path(loco.__file__).parent
Graph = dict[str, set[str]]


def module_names(package: Path) -> dict[str, Path]:
    """Return dotted name -> file of every module below a package; a package's own module has the package's name."""
    paths = sorted(package.rglob("*.py"))
    names = (path.relative_to(package.parent).with_suffix("").parts for path in paths)
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for parts, path in zip(names, paths)}


def import_graph(package: Path) -> Graph:
    """Return module -> modules of the package that it imports, including imports in functions and for type checking.

    ``from a.b import c`` imports the module ``a.b.c`` if there is one, else ``a.b``. Importing a module runs the
    packages that contain it, so they are imported as well, except those that contain the importing module.
    """
    files = module_names(package)
    return {name: _imports(name, path, files) for name, path in files.items()}


def _imports(name: str, path: Path, files: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    around = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = around.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            found |= {full if (full := f"{origin}.{alias.name}") in files else origin for alias in node.names}
    packages = {".".join(parts[:k]) for parts in (full.split(".") for full in found) for k in range(1, len(parts))}
    own = {name.rsplit(".", k)[0] for k in range(name.count(".") + 1)}
    return {module for module in found | (packages - own) if module in files} - {name}


def cycles(graph: Graph) -> list[list[str]]:
    """Return one cycle of each strongly connected component of more than one module."""
    found, left = [], set(graph)
    while left:
        start = min(left)
        component = {m for m in reachable(graph, start) if start in reachable(graph, m)} | {start}
        left -= component
        if len(component) > 1:
            found.append(_path(graph, start, component))
    return found


def reachable(graph: Graph, start: str) -> set[str]:
    seen, waiting = set(), [start]
    while waiting:
        new = graph[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def _path(graph: Graph, start: str, component: set[str]) -> list[str]:
    """Return a shortest path from a module back to itself."""
    before, waiting = {}, [start]
    for module in waiting:
        for following in sorted(graph[module] & component):
            if following not in before:
                before[following] = module
                waiting.append(following)
    path = [start]
    while len(path) == 1 or path[-1] != start:
        path.append(before[path[-1]])
    return path[::-1]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return import_graph(PACKAGE)


def test_no_module_imports_itself_by_way_of_others(graph):
    assert len(graph) > 100
    found = cycles(graph)
    assert not found, "import cycles:\n" + "\n".join(" -> ".join(cycle) for cycle in found)


# Part of the package -> parts that it must not import, directly or indirectly.
UNKNOWN = {
    "loco.geometry": {"loco.storage", "loco.datasets", "loco.models", "loco.training", "loco.evaluation"},
    "loco.datasets": {"loco.storage", "loco.models", "loco.training", "loco.evaluation", "loco.steps", "loco.simulate"},
    "loco.storage": {"loco.datasets", "loco.models", "loco.training", "loco.evaluation", "loco.steps", "loco.results"},
    "loco.losses": {"loco.storage", "loco.datasets", "loco.models", "loco.training", "loco.evaluation"},
    "loco.models": {"loco.datasets", "loco.losses", "loco.training", "loco.steps", "loco.simulate"},
    "loco.evaluation": {"loco.losses", "loco.training", "loco.steps", "loco.results", "loco.simulate"},
    "loco.training": {"loco.datasets", "loco.steps", "loco.results", "loco.simulate"},
    "loco.simulate": {"loco.models", "loco.training", "loco.evaluation", "loco.steps", "loco.results"},
}


@pytest.mark.parametrize("part", UNKNOWN)
def test_parts_know_only_what_they_build_on(graph, part):
    members = [module for module in graph if module == part or module.startswith(f"{part}.")]
    assert members
    for module in members:
        wrong = {m for m in reachable(graph, module) for other in UNKNOWN[part] if f"{m}.".startswith(f"{other}.")}
        assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("module", ["loco.config", "loco.plan", "loco.simulate.catalogue", "loco.training.states"])
def test_planning_loads_nothing_heavy(module):
    """Snakemake plans with these in every job that it starts."""
    code = f"import sys, {module}; print({{'torch', 'cv2', 'open3d', 'h5py', 'scipy', 'lightning'}} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def write_package(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / "pack" / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    return folder / "pack"


@pytest.mark.parametrize(
    ("first", "second", "cycle"),
    [
        ("import pack.second", "x = 1", None),
        ("import pack.second", "from pack.first import y", True),
        ("from pack import second", "from . import first", True),
        ("from .second import x", "def f():\n    from pack import first", True),
        ("import pack.second", "if TYPE_CHECKING:\n    from pack.first import C", True),
        ("import pack", "import pack.first", None),  # the package itself imports neither
    ],
)
def test_cycles_are_found_in_every_form_of_import(tmp_path, first, second, cycle):
    found = cycles(import_graph(write_package(tmp_path, first=first, second=second)))
    assert found == ([["pack.first", "pack.second", "pack.first"]] if cycle else [])


def test_importing_a_module_imports_the_packages_around_it(tmp_path):
    package = write_package(tmp_path, inner__leaf="x = 1", inner__other="import pack.inner.leaf", outer="y = 1")
    (package / "inner" / "__init__.py").write_text("import pack.outer")
    (package / "outer.py").write_text("from pack.inner.leaf import x")
    graph = import_graph(package)
    assert graph["pack.inner.other"] == {"pack.inner.leaf"}  # not its own package
    assert graph["pack.outer"] == {"pack.inner", "pack.inner.leaf"}
    assert cycles(graph) == [["pack.inner", "pack.outer", "pack.inner"]]
