"""Fingerprints: what changes them and what does not."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from loco import provenance
from loco.provenance import code_fingerprint, passport, settings_fingerprint

SCRIPT = "from loco.area import circle\nprint(circle(2))\n"
MODULE = '''"""Areas."""
from loco.numbers.known import PI


def circle(radius):
    """Area of a circle."""
    return PI * radius**2  # the oldest formula of all
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the same name with a script beside it: script -> loco.area -> loco.numbers.known."""
    files = {
        "loco/__init__.py": "",
        "loco/area.py": MODULE,
        "loco/numbers/__init__.py": "",
        "loco/numbers/known.py": "PI = 3\n",
        "loco/unrelated.py": "x = 1\n",
        "script.py": SCRIPT,
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "loco")
    return tmp_path


def fingerprint(package: Path, *entries: str) -> str:
    provenance._read_module.cache_clear()
    return code_fingerprint(*(package / entry for entry in entries or ["script.py"]))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("loco/area.py", "  # the oldest formula of all", "  # or nearly so"),
        ("loco/area.py", '"""Area of a circle."""', '"""Another docstring."""'),
        ("loco/area.py", '"""Areas."""\n', ""),
        ("loco/area.py", "PI * radius**2", "PI * (radius**2)"),
        ("loco/unrelated.py", "x = 1", "x = 2"),
    ],
)
def test_unchanged_by_what_does_not_run(package: Path, file: str, old: str, new: str) -> None:
    before = fingerprint(package)
    edit(package / file, old, new)
    assert fingerprint(package) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("script.py", "circle(2)", "circle(3)"),
        ("loco/area.py", "radius**2", "radius**3"),
        ("loco/numbers/known.py", "3", "3.14"),
        ("loco/numbers/__init__.py", "", "import math\n"),
        ("loco/__init__.py", "", "import math\n"),
    ],
)
def test_changed_by_what_runs(package: Path, file: str, old: str, new: str) -> None:
    before = fingerprint(package)
    edit(package / file, old, new)
    assert fingerprint(package) != before


@pytest.mark.parametrize(
    "statement",
    [
        "import loco.unrelated",
        "import loco.unrelated as u",
        "from loco import unrelated",
        "from loco.unrelated import x",
        "def late():\n    from loco.unrelated import x\n",
    ],
)
def test_follows_every_form_of_import(package: Path, statement: str) -> None:
    (package / "script.py").write_text(statement)
    before = fingerprint(package)
    edit(package / "loco/unrelated.py", "x = 1", "x = 2")
    assert fingerprint(package) != before


def test_follows_relative_imports(package: Path) -> None:
    (package / "loco/numbers/known.py").write_text("from ..unrelated import x\nfrom . import other\n")
    (package / "loco/numbers/other.py").write_text("y = 1\n")
    first = fingerprint(package)
    edit(package / "loco/unrelated.py", "x = 1", "x = 2")
    second = fingerprint(package)
    edit(package / "loco/numbers/other.py", "y = 1", "y = 2")
    assert len({first, second, fingerprint(package)}) == 3


def test_does_not_depend_on_the_place_or_the_order_of_entries(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(package, "script.py", "loco/unrelated.py")
    assert fingerprint(package, "loco/unrelated.py", "script.py") == before
    elsewhere = package.rename(package.with_name("elsewhere"))
    monkeypatch.setattr(provenance, "PACKAGE", elsewhere / "loco")
    assert fingerprint(elsewhere, "script.py", "loco/unrelated.py") == before


def test_settings_fingerprint_ignores_the_order_of_keys_alone() -> None:
    assert settings_fingerprint({"a": 1, "b": [1, 2]}) == settings_fingerprint({"b": [1, 2], "a": 1})
    assert settings_fingerprint({"a": 1, "b": [1, 2]}) != settings_fingerprint({"a": 1, "b": [2, 1]})


def test_passport_holds_the_hashes_of_its_inputs(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    path.write_bytes(b"features")
    found = passport("c0de", "5e77", {"features": path}, seed=3)
    assert found.keys() == {"code", "settings", "inputs", "seed", "versions", "device"}
    assert found["inputs"] == {"features": hashlib.sha256(b"features").hexdigest()}
    assert (found["code"], found["settings"], found["seed"]) == ("c0de", "5e77", 3)
    assert found["versions"].keys() == {"python", "loco", "torch", "numpy", "opencv"}
    assert all(re.match(r"\d+\.\d+", version) for version in found["versions"].values())
