"""Statements about the project outside its code agree: packages and their versions, citation, security."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import loco

ROOT = Path(__file__).parents[2]
CONDA_NAMES = {"pytorch": "torch", "huggingface_hub": "huggingface-hub"}

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
UNPINNED = "timm"  # requires torchvision, whose version depends on that of torch and of CUDA
PINNED = chain(*(lines for extra, lines in EXTRAS.items() if extra != UNPINNED))
LINES = [*PYPROJECT["project"]["dependencies"], *PINNED, *PYPROJECT["dependency-groups"]["dev"]]
RANGES = [requirement for requirement in map(Requirement, LINES) if requirement.name != "loco"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def constraints() -> dict[str, str]:
    """Return the version of each package, also of those of some platforms only."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.partition(";")[0] for line in lines if line and not line.startswith("#")]
    return dict(pin.split("==") for pin in pins)


def conda_pins() -> dict[str, str]:
    """Return pinned packages by their PyPI name; system libraries are not pinned."""
    *conda, pip = ENVIRONMENT
    pins = [line.split("=", 1) for line in conda if "=" in line] + [line.split("==") for line in pip["pip"]]
    return {CONDA_NAMES.get(name, name): version for name, version in pins if name != "python"}


def test_constraints_are_sorted_canonical_and_unique() -> None:
    names = [line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    assert names == sorted({canonicalize_name(name) for name in names})


def test_every_pin_lies_in_its_range() -> None:
    pins = constraints()
    assert {r.name: pins[r.name] for r in RANGES if not r.specifier.contains(pins[r.name])} == {}


def test_conda_has_the_same_packages_and_versions() -> None:
    pins = constraints()
    # conda's PyTorch installs the Triton that it needs.
    assert conda_pins() == {r.name: pins[r.name] for r in RANGES if r.name != "triton"}


def test_conda_has_a_supported_python() -> None:
    (python,) = (line for line in ENVIRONMENT if isinstance(line, str) and line.startswith("python="))
    assert Requirement(f"python{PYPROJECT['project']['requires-python']}").specifier.contains(python.split("=")[1])


def test_the_citation_states_the_version_and_the_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (loco.__version__, PYPROJECT["project"]["license"])


def test_security_names_files_that_exist() -> None:
    named = re.findall(r"`((?:loco|tests)/[\w/]+\.py)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_workflow_tests_every_python_from_the_oldest_supported_one() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    first = int(tested[0].removeprefix("3."))
    assert PYPROJECT["project"]["requires-python"] == f">={tested[0]}"
    assert tested == [f"3.{first + k}" for k in range(len(tested))]


def test_the_quick_selection_covers_every_package() -> None:
    makefile = (ROOT / "Makefile").read_text()
    names = re.findall(r"\S*test_\w+", re.search(r"^QUICK := (.*?)\n\n", makefile, re.MULTILINE | re.DOTALL)[1])
    tests = ROOT / "tests/unit"
    assert [name for name in names if not (tests / f"{name}.py").is_file()] == []
    packages = {path.parent.name for path in tests.glob("*/test_*.py")}
    assert {name.split("/")[0] for name in names if "/" in name} == packages


def test_the_image_has_the_libraries_of_the_makefile_and_the_python_of_conda() -> None:
    makefile, image = (ROOT / "Makefile").read_text(), (ROOT / "Dockerfile").read_text()
    libraries = set(re.search(r"^SYSTEM_LIBRARIES := (.*)$", makefile, re.MULTILINE)[1].split())
    installed = re.search(r"apt-get install .*?\n(.*?)&&", image, re.DOTALL)[1]
    assert set(installed.replace("\\", "").split()) == libraries
    (python,) = (line for line in ENVIRONMENT if isinstance(line, str) and line.startswith("python="))
    assert f"FROM python:{python.removeprefix('python=')}-" in image
