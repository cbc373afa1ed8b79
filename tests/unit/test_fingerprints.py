"""Fingerprints: what changes them, what does not, and that all versions of Python agree."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from loco import fingerprints
from loco.fingerprints import NOT_COUNTED, code_fingerprint, file_fingerprint, settings_fingerprint

SCRIPT = "from loco.area import circle\nprint(circle(2))\n"
AREA = '''"""Areas."""
import logging
import warnings
from typing import TYPE_CHECKING

from tqdm import tqdm

from loco.errors import AreaError
from loco.numbers import PI

if TYPE_CHECKING:
    from loco.unrelated import Unrelated

logger = logging.getLogger(__name__)
_REMEDY = "give a number that is not negative"
UNIT = "m2"


class Circle(Shape):
    """A circle."""

    radius: float = 1
    scale = 2


def circle(radius, unit=UNIT, *, exact=True):
    """Area of a circle."""
    if radius < 0:
        raise AreaError("is negative", found=f"{radius:.1f} m", remedy=_REMEDY)
    if radius > 1e9:
        raise _too_large(radius, "is no circle of this world")
    assert exact in (True, False), "neither true nor false"
    logger.info("area of %d", radius)
    warnings.warn("slow", stacklevel=2)
    for _ in tqdm([radius], desc="areas", unit="circle"):
        print("working")
    mode = "exact" if exact else "fast"
    first = PI * radius**2  # the oldest formula of all
    second = first + 0
    third = 0
    return _round(second, mode=mode)


def _too_large(radius, problem):
    return AreaError(problem, expected="at most " + str(1e9), found="{} m".format(radius))


@cache
def _round(value, mode):
    from loco.digits import DIGITS

    return round(value, DIGITS)


def unused(radius):
    return 2 * radius
'''
NUMBERS = '''"""Numbers."""
from loco.numbers.known import PI
from .odd import E

__all__ = ["E", "PI"]
'''
FILES = {
    "loco/__init__.py": '__version__ = "1.0"\n',
    "loco/errors.py": 'class AreaError(Exception):\n    """An area."""\n\n    problem = "a problem"\n',
    "loco/area.py": AREA,
    "loco/numbers/__init__.py": NUMBERS,
    "loco/numbers/known.py": "PI = 3\n",
    "loco/numbers/odd.py": "E = 2\n",
    "loco/digits.py": "from loco.numbers import catalogue\n\nDIGITS = 3\n",
    "loco/numbers/catalogue.py": 'NUMBERS = {\n    "pi": "known",\n}\n',
    "loco/unrelated.py": "class Unrelated:\n    pass\n",
    "script.py": SCRIPT,
}


class Package:
    """Write a package of this name and a script beside it: script -> loco.area -> loco.numbers.known, loco.digits."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert text.count(old) == 1, f"{old!r} is not once in {name}"
        (self.root / name).write_text(text.replace(old, new))

    def fingerprint(self, *entries: str) -> str:
        forget()
        return code_fingerprint(*(self.root / entry for entry in entries or ["script.py"]))


def forget() -> None:
    for function in vars(fingerprints).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    monkeypatch.setattr(fingerprints, "PACKAGE", tmp_path / "loco")
    return Package(tmp_path)


@pytest.fixture
def of_source(tmp_path: Path) -> Callable[[str], str]:
    """Return the fingerprint of a script with this text."""
    numbers = itertools.count()

    def fingerprint(source: str) -> str:
        folder = tmp_path / f"source{next(numbers)}"
        folder.mkdir()
        (folder / "script.py").write_text(source)
        return code_fingerprint(folder / "script.py")

    return fingerprint


UNCHANGED = {
    "comment": ("loco/area.py", "  # the oldest formula of all", "  # or nearly so"),
    "docstring": ("loco/area.py", '"""Area of a circle."""', '"""Another docstring."""'),
    "no docstring": ("loco/area.py", '"""Areas."""\n', ""),
    "docstring of a class": ("loco/area.py", '    """A circle."""\n\n', ""),
    "attribute docstring": ("loco/area.py", 'UNIT = "m2"\n', 'UNIT = "m2"\n"""Of areas."""\n'),
    "blank lines": ("loco/area.py", "    mode = ", "\n\n    mode = "),
    "parentheses": ("loco/area.py", "PI * radius**2", "(PI * (radius**2))"),
    "quotes": ("loco/area.py", 'UNIT = "m2"', "UNIT = 'm2'"),
    "line breaks": ("loco/area.py", "_round(second, mode=mode)", "_round(\n        second,\n        mode=mode,\n    )"),
    "annotation of an argument": ("loco/area.py", "def circle(radius,", "def circle(radius: float,"),
    "annotation of a result": ("loco/area.py", "exact=True):", "exact=True) -> float:"),
    "annotation of a variable": ("loco/area.py", "second = first", "second: float = first"),
    "annotation of a constant": ("loco/area.py", 'UNIT = "m2"', 'UNIT: str = "m2"'),
    "another annotation of a field": ("loco/area.py", "radius: float = 1", "radius: int = 1"),
    "import for type checkers": ("loco/area.py", "import Unrelated", "import Unrelated, Other"),
    "import of a type": ("loco/area.py", "from typing import TYPE_CHECKING", "from typing import TYPE_CHECKING, Any"),
    "order of imports": ("loco/area.py", "import logging\nimport warnings\n", "import warnings\nimport logging\n"),
    "exception": ("loco/area.py", '"is negative"', '"must not be negative"'),
    "f-string of an exception": ("loco/area.py", '{radius:.1f} m"', '{radius} metres"'),
    "remedy": ("loco/area.py", "give a number that is not negative", "give a positive number"),
    "no remedy": ("loco/area.py", ", remedy=_REMEDY", ""),
    "exception by a helper": ("loco/area.py", "is no circle of this world", "is too large"),
    "exception of a helper": ("loco/area.py", '"at most " + str(1e9)', '"no more than " + str(1e9)'),
    "formatted exception of a helper": ("loco/area.py", '"{} m"', '"{} metres"'),
    "assertion": ("loco/area.py", '"neither true nor false"', '"no truth"'),
    "log": ("loco/area.py", '"area of %d"', '"the area of %d"'),
    "warning": ("loco/area.py", '"slow"', '"very slow"'),
    "print": ("loco/area.py", '"working"', 'f"working on {radius}"'),
    "progress bar": ("loco/area.py", 'desc="areas", unit="circle"', 'desc="circles", unit="disc"'),
    "version": ("loco/__init__.py", "1.0", "1.1"),
    "errors": ("loco/errors.py", "a problem", "the problem"),
    "catalogue": ("loco/numbers/catalogue.py", '"known",\n', '"known",\n    "e": "odd",\n'),
    "unrelated module": ("loco/unrelated.py", "pass", "x = 1"),
    "module behind another re-export": ("loco/numbers/odd.py", "2", "2.7"),
    "another re-export": ("loco/numbers/__init__.py", "from .odd import E\n", "from .odd import E, New\n"),
    "function that nothing uses": ("loco/area.py", "return 2 * radius", "return 3 * radius"),
    "new class": ("loco/area.py", "def unused", "class Square(Shape):\n    side: int = 1\n\n\ndef unused"),
}  # fmt: skip

CHANGED = {
    "argument": ("script.py", "circle(2)", "circle(3)"),
    "operator": ("loco/area.py", "PI * radius**2", "PI + radius**2"),
    "constant": ("loco/area.py", "radius**2", "radius**3"),
    "type of a constant": ("loco/area.py", "radius**2", "radius**2.0"),
    "threshold": ("loco/area.py", "radius > 1e9:", "radius > 1e8:"),
    "comparison": ("loco/area.py", "radius < 0", "radius <= 0"),
    "default": ("loco/area.py", "exact=True):", "exact=False):"),
    "renamed argument": ("loco/area.py", "def circle(radius,", "def circle(r,"),
    "order of arguments": ("loco/area.py", "(value, mode)", "(mode, value)"),
    "positional arguments": ("loco/area.py", "unit=UNIT, *, exact", "unit=UNIT, exact"),
    "renamed keyword": ("loco/area.py", "mode=mode)", "way=mode)"),
    "order of statements": ("loco/area.py", "second = first + 0\n    third = 0", "third = 0\n    second = first + 0"),
    "statement": ("loco/area.py", "    second = first + 0\n", "    second = first + 0\n    second += 1\n"),
    "decorator": ("loco/area.py", "@cache\ndef _round", "def _round"),
    "string that selects": ("loco/area.py", '"exact" if exact', '"precise" if exact'),
    "string constant": ("loco/area.py", '"m2"', '"cm2"'),
    "exception of another kind": ("loco/area.py", "raise AreaError", "raise ValueError"),
    "value of an exception": ("loco/area.py", "raise _too_large(radius,", "raise _too_large(-radius,"),
    "what is logged": ("loco/area.py", '%d", radius)', '%d", radius.pop())'),
    "unused constant": ("loco/area.py", 'UNIT = "m2"\n', 'UNIT = "m2"\nADDED = True\n'),
    "module two levels down": ("loco/numbers/known.py", "3", "3.14"),
    "import in a function": ("loco/digits.py", "3", "4"),
    "another module for a name": ("loco/numbers/__init__.py", "numbers.known import", "numbers.odd import E as"),
    "statement of an init": ("loco/numbers/__init__.py", "__all__", "import sys\nsys.setrecursionlimit(9)\n__all__"),
    "definition replaced": ("loco/area.py", "def unused", "def circle(radius):\n    return 1\n\n\ndef unused"),
    "registered class": ("loco/area.py", "def unused", "@register\nclass Square:\n    pass\n\n\ndef unused"),
}  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new"), UNCHANGED.values(), ids=UNCHANGED)
def test_unchanged_by_what_cannot_change_a_result(package: Package, file: str, old: str, new: str) -> None:
    before = package.fingerprint()
    package.edit(file, old, new)
    assert package.fingerprint() == before


@pytest.mark.parametrize(("file", "old", "new"), CHANGED.values(), ids=CHANGED)
def test_changed_by_what_can(package: Package, file: str, old: str, new: str) -> None:
    before = package.fingerprint()
    package.edit(file, old, new)
    assert package.fingerprint() != before


@pytest.mark.parametrize("module", [f"loco/{name}" for name in NOT_COUNTED])
def test_modules_that_do_not_count_count_as_entries(package: Package, module: str) -> None:
    name = module.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    package.write("script.py", f"import {name}\nfrom {name} import X\n")
    package.write(module, "X = 1\n")
    before, as_entry = package.fingerprint(), package.fingerprint("script.py", module)
    package.write(module, "X = 2\n")
    assert package.fingerprint() == before
    assert package.fingerprint("script.py", module) != as_entry


MODULES = {"loco/a/__init__.py": "", "loco/a/b.py": "def f():\n    return 1\n\n\ndef g():\n    return 1\n"}
IMPORTS = {  # script -> whether its fingerprint includes f and g of loco.a.b
    "from loco.a.b import f": (True, False),
    "from loco.a.b import f as h": (True, False),
    "from loco.a.b import *": (True, True),
    "import loco.a.b": (True, True),
    "import loco.a.b as m": (True, True),
    "from loco.a import b": (True, True),
    "from loco.a import b as m": (True, True),
    "def late():\n    from loco.a.b import g": (False, True),
    "try:\n    from loco.a.b import f\nexcept ImportError:\n    f = None": (True, False),
    "import loco.a": (False, False),
    "if TYPE_CHECKING:\n    from loco.a.b import f\nelse:\n    from loco.a.b import g": (False, True),
}
REEXPORTS = {  # loco/a/__init__.py -> whether a script with `from loco.a import f` includes f and g of loco.a.b
    "from loco.a.b import f, g": (True, False),
    "from .b import f\nfrom .b import g": (True, False),
    "from .b import g as f, f as g": (False, True),
    "from ..a.b import f": (True, False),
    "from .b import *": (True, True),
    "try:\n    from .missing import f\nexcept ImportError:\n    from .b import f": (True, False),
    "def __getattr__(name):\n    from .b import f, g\n    return {'f': f, 'g': g}[name]": (True, True),
    "_LAZY = {'f': 'loco.a.b', 'g': 'loco.a.c'}\ndef __getattr__(name):\n    return load(_LAZY[name])": (True, False),
    "_LAZY = {'b': ['f', 'g']}\ndef __getattr__(name):\n    return load(_LAZY, name)": (True, False),
    "_LAZY = ['.b']\ndef __getattr__(name):\n    return load(_LAZY, name)": (True, False),
    "from .b import g\nf = g": (False, True),
    "from . import b\nf = b.f": (True, True),
}


def counts(package: Package) -> tuple[bool, bool]:
    found = []
    for name in "fg":
        before = package.fingerprint()
        package.edit("loco/a/b.py", f"def {name}():\n    return 1", f"def {name}():\n    return 2")
        found.append(package.fingerprint() != before)
    return tuple(found)


@pytest.mark.parametrize(("script", "expected"), IMPORTS.items())
def test_follows_every_form_of_import(package: Package, script: str, expected: tuple[bool, bool]) -> None:
    for name, text in {**MODULES, "script.py": script}.items():
        package.write(name, text)
    assert counts(package) == expected


@pytest.mark.parametrize(("script", "expected"), REEXPORTS.items())
def test_follows_names_through_packages(package: Package, script: str, expected: tuple[bool, bool]) -> None:
    for name, text in {**MODULES, "loco/a/__init__.py": script, "script.py": "from loco.a import f"}.items():
        package.write(name, text)
    package.write("loco/a/c.py", "")
    assert counts(package) == expected


def test_a_package_that_is_imported_as_a_module_counts_with_all_that_it_passes_on(package: Package) -> None:
    for name, text in {**MODULES, "script.py": "from loco import a\na.f()"}.items():
        package.write(name, text)
    package.write("loco/a/__init__.py", "from loco.a.b import f, g\n")
    assert counts(package) == (True, True)


def test_follows_relative_imports_of_modules(package: Package) -> None:
    for name, text in {
        **MODULES,
        "loco/a/d.py": "from .b import f\nfrom . import b\n",
        "script.py": "import loco.a.d",
    }.items():
        package.write(name, text)
    assert counts(package) == (True, True)


@pytest.mark.parametrize(
    ("registry", "registered"),
    [
        ("class Base:\n    def __init_subclass__(cls):\n        ALL.append(cls)\n", "class Sub(Base):\n    x = 1\n"),
        ("class Base:\n    def all(self):\n        return Base.__subclasses__()\n", "class Sub(Base):\n    x = 1\n"),
        ("def Base(name):\n    return globals()[name]\n", "def sub():\n    x = 1\n"),
        ("class Base:\n    def find(self):\n        return eval(self.name)\n", "def sub():\n    x = 1\n"),
    ],
)
def test_what_may_be_found_without_its_name_counts(package: Package, registry: str, registered: str) -> None:
    package.write("loco/registry.py", f"ALL = []\n{registry}\n\n{registered}")
    package.write("script.py", "from loco.registry import Base\n")
    before = package.fingerprint()
    package.edit("loco/registry.py", "x = 1", "x = 2")
    assert package.fingerprint() != before


def test_a_name_that_no_statement_defines_counts_its_module_whole(package: Package) -> None:
    for name, text in {**MODULES, "script.py": "from loco.a.b import made_by_exec"}.items():
        package.write(name, text)
    assert counts(package) == (True, True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f():\n    'doc'", "def f():\n    pass"),
        ("raise KeyError(name)", "raise KeyError(name, 'text')"),
        ("raise problem('a %s' % b, found={'x': 'y'})", "raise problem('the %s' % b, found={'z': 'w'})"),
        ("raise SystemError('a')", "raise SystemError('b')"),
        ("raise X(', '.join(a) or 'none')", "raise X('; '.join(a) or 'nothing')"),
        ("e = my.FormatError('a' if b else f'c{d}')", "e = my.FormatError('other')"),
        ("class Stop(ValueError):\n    pass\ne = Stop('a')", "class Stop(ValueError):\n    pass\ne = Stop('b')"),
        ("self.logger.warning('a', b)", "self.logger.warning('c', b)"),
        ("print('a', b, file=sys.stderr)", "print('c', b, file=sys.stderr)"),
        ("f'{a}' 'b'", "f'{a}b'"),
        ("x = u'a'", "x = 'a'"),
        ("x = 0x10", "x = 16"),
        ("with (open(a) as b, c): d()", "with open(a) as b, c: d()"),
        ("if TYPE_CHECKING:\n    x()\ny()", "y()"),
        ("def f[T](x: T) -> T: return x", "def f(x): return x"),
    ],
)
def test_sources_with_one_meaning_are_equal(of_source: Callable[[str], str], one: str, other: str) -> None:
    if "[T]" in one and sys.version_info < (3, 12):
        pytest.skip("type parameters are syntax of Python 3.12")
    assert of_source(one) == of_source(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = True"),
        ("x = 0", "x = None"),
        ("x = 1", "x = 1.0"),
        ("x = '1'", "x = b'1'"),
        ("x = 1j", "x = 1"),
        ("x = 'a'", "x = 'b'"),
        ("x = ...", "x = None"),
        ("x = {**a, b: c}", "x = {a: None, b: c}"),
        ("f(*a)", "f(**a)"),
        ("f(a, b=c)", "f(a, c)"),
        ("x = f'{a!r}'", "x = f'{a!s}'"),
        ("x = f'{a:.2f}'", "x = f'{a:.3f}'"),
        ("x = f'{a}b'", "x = f'{a}c'"),
        ("x[a:b]", "x[a::b]"),
        ("match a:\n    case None: b()", "match a:\n    case False: b()"),
        ("match a:\n    case [b, *c]: d()", "match a:\n    case [b, c]: d()"),
        ("match a:\n    case B(c=1): d()", "match a:\n    case B(d=1): d()"),
        ("try: a()\nexcept B: c()", "try: a()\nexcept* B: c()"),
        ("[a for a in b]", "[a async for a in b]"),
        ("lambda a: b", "lambda a, /: b"),
        ("def f(a, *, b=1, c): pass", "def f(a, *, b, c=1): pass"),
        ("async def f(): pass", "def f(): pass"),
        ("a and b", "a or b"),
        ("global a", "global b"),
        ("a = b; c = d", "c = d; a = b"),
        ("raise SystemExit('a')", "raise SystemExit('b')"),
        ("raise StopIteration('a')", "raise StopIteration('b')"),
        ("found.add('a')", "found.add('b')"),
        ("self.log('a', b)", "self.log('c', b)"),
        ("log['a'] = b", "log['c'] = b"),
        ("print('a', file=table)", "print('b', file=table)"),
        ("print('a', **options)", "print('b', **options)"),
        ("warnings.simplefilter('error')", "warnings.simplefilter('ignore')"),
        ("logging.getLogger('a')", "logging.getLogger('b')"),
        ("check(x, 'a')", "check(x, 'b')"),
        ("tqdm(x, desc='a')", "tqdm(y, desc='a')"),
        ("except_mode('a')", "except_mode('b')"),
        ("@dataclass\nclass A:\n    x: int = 1", "@dataclass\nclass A:\n    x = 1"),
        ("@dataclass\nclass A:\n    x: int = 1", "@dataclass\nclass A:\n    x: ClassVar[int] = 1"),
        ("@dataclass\nclass A:\n    x: 'InitVar[int]'", "@dataclass\nclass A:\n    x: 'int'"),
        ("class A(NamedTuple):\n    x: int\n    y: int", "class A(NamedTuple):\n    y: int\n    x: int"),
        ("class A(TypedDict):\n    x: int\n    y: int", "class A(TypedDict):\n    x: int"),
        ("@triton.jit\ndef f(x: tl.constexpr): pass", "@triton.jit\ndef f(x): pass"),
        ("@f.register\ndef _(x: int): pass", "@f.register\ndef _(x: str): pass"),
        ("_TEXT = 'a'\nuse(_TEXT)", "_TEXT = 'b'\nuse(_TEXT)"),
        ("_TEXT = 'a'\nraise E(_TEXT)\nuse(_TEXT)", "_TEXT = 'b'\nraise E(_TEXT)\nuse(_TEXT)"),
        ("import a", "import b"),
        ("import a as b", "import a"),
        ("from a import b", "from c import b"),
        ("class A(b): pass", "class A(c): pass"),
        ("class A(b, metaclass=c): pass", "class A(b): pass"),
    ],
)  # fmt: skip
def test_sources_with_two_meanings_differ(of_source: Callable[[str], str], one: str, other: str) -> None:
    assert of_source(one) != of_source(other)


def test_does_not_depend_on_the_folder_or_the_order_of_entries(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = package.fingerprint("script.py", "loco/unrelated.py")
    assert package.fingerprint("loco/unrelated.py", "script.py") == before
    package.root = package.root.rename(package.root.with_name("elsewhere"))
    monkeypatch.setattr(fingerprints, "PACKAGE", package.root / "loco")
    assert package.fingerprint("script.py", "loco/unrelated.py") == before


@pytest.fixture
def stored(package: Package, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file in which the statements of `loco/area.py` are stored."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    package.fingerprint()
    (path,) = (package.root / "loco/__pycache__").glob("area.*.fingerprint")
    return path


def test_stored_statements_are_read_instead_of_the_source(
    package: Package, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = package.fingerprint()
    monkeypatch.setattr(ast, "parse", lambda *_, **__: pytest.fail("the source was analysed again"))
    assert package.fingerprint() == expected


def test_a_change_with_the_same_size_and_time_is_noticed(package: Package, stored: Path) -> None:
    expected, source = package.fingerprint(), package.root / "loco/area.py"
    before = source.stat()
    package.edit("loco/area.py", "radius**2", "radius**3")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert package.fingerprint() != expected
    package.edit("loco/area.py", "radius**3", "radius**2")
    assert package.fingerprint() == expected


@pytest.mark.parametrize("damaged", [b"", b"\xff", *map(zlib.compress, (b"", b"[]", b"{}", b'{"key": 1}')), None])
def test_a_damaged_store_is_made_again(package: Package, stored: Path, damaged: bytes | None) -> None:
    expected, whole = package.fingerprint(), stored.read_bytes()
    if damaged is None:  # the right key, statements of another form
        damaged = zlib.compress(json.dumps(json.loads(zlib.decompress(whole)) | {"statements": [["name"]]}).encode())
    stored.write_bytes(damaged)
    assert package.fingerprint() == expected
    assert stored.read_bytes() == whole


def test_nothing_is_stored_where_python_stores_no_bytecode(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    package.fingerprint()
    assert not list(package.root.rglob("*.fingerprint"))


def test_a_store_that_cannot_be_written_changes_nothing(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (package.root / "loco/__pycache__").write_text("a file in place of the folder")
    expected = package.fingerprint()
    (package.root / "loco/__pycache__").unlink()
    assert package.fingerprint() == expected


def test_a_file_that_is_not_python_is_named(package: Package) -> None:
    package.write("loco/area.py", "def circle(:\n")
    with pytest.raises(SyntaxError) as caught:
        package.fingerprint()
    assert caught.value.filename == str(package.root / "loco/area.py")
    package.write("loco/area.py", "")
    with pytest.raises(FileNotFoundError):
        package.fingerprint("missing.py")


# Every kind of syntax; if a version of Python parses any of it differently, the digest changes.
EVERY_SYNTAX = r"""
from __future__ import annotations
import os.path as p, sys
from . import sibling
@first.of(all)
@dataclass(frozen=True)
class A(B, *bases, metaclass=M, **options):
    x: ClassVar[int] = 1
    y: list[str]
async def f(a, /, b: int = 1, *args: str, c=2.5, d, **kwargs) -> dict[str, int]:
    global g, h
    async with a as b, c: await d
    async for i in j: yield k
    return [x async for x in y if x if z]
def outer(n=-1j):
    def inner():
        nonlocal n
        n = yield from m
        del n, a.b, c[0]
        return lambda x, /, *y, z=(1, 2): (yield)
    while (line := read()) is not None:
        if line >= first: break
        elif line > last: continue
    else: raise ValueError(f"not {line!r}") from None
    return inner
match command, 0:
    case [1 | 2.0 | -3j, *rest] if rest: pass
    case {"a": A.b, **others} as all: done()
    case Point(x=0, y=None) | Point(True, False): done()
    case (str() | b"bytes"), _: done()
try:
    a = b = c; d += 1; e @= f
except* (E, F) as group: raise
else: assert a, "message"
finally: a[1:2, ..., ::3] = 1 if a else not b
try: pass
except (OSError, ValueError) as error: raise error
with (open(x) as f, open(y)): pass
text = f"a{b}" "c" f"{d!r:>{width}.{places}f}{{}}" + f"{e=}" + f"{g:}" + f"" + f"{h:%Y-%m}{'nested'}{i + 1 = !s:>9}"
values = {**a, b: c}, {1, 2}, {k: v for k, v in z}, (x for x in y), [*a, *b], ()
strings = "\U0001fae8\u00e9\ud800", b"\x00", "a" "b"
numbers = 0, 1_000, 0xff, 1e-300, 1e400, .5, 3.14j, True, None, ..., 123456789012345678901234567890
logic = a < b <= c != d is not e not in f and g or ~h ** -i // j % k << l >> m & n | o ^ p
logic = a > b >= c == d is e in f, +a - b * c / d @ e, {a for b in c}
for a in b: pass
print(*a, sep="", **b)
"""
GOLDEN = "88b18ae302db4e4afb0f03d316e852a67e5a66520e559d12439c05f2558ed6b6"
READ = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("fingerprints", sys.argv[1])
module = sys.modules["fingerprints"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
for path in sys.argv[2:]:
    print(module.code_fingerprint(path))
"""
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")


def test_digest_of_every_syntax_is_the_same_for_ever(of_source: Callable[[str], str]) -> None:
    """If this fails with a new version of Python, its syntax tree has a new form: convert it to the old one."""
    assert of_source(EVERY_SYNTAX) == GOLDEN


def test_the_example_has_every_syntax() -> None:
    """Return all node types of this version of Python, except those of newer syntax, other modes and older versions."""
    newer = {"TemplateStr", "Interpolation", "TypeAlias", "TypeVar", "ParamSpec", "TypeVarTuple"}
    other_modes = {"Interactive", "Expression", "FunctionType", "TypeIgnore"}
    older = {"AugLoad", "AugStore", "ExtSlice", "Index", "Param", "Suite", "slice"}
    older |= {"Bytes", "Ellipsis", "NameConstant", "Num", "Str", "_ast_Ellipsis"}
    kinds = {name: kind for name, kind in vars(ast).items() if isinstance(kind, type) and issubclass(kind, ast.AST)}
    kinds = {name: kind for name, kind in kinds.items() if name not in older}
    abstract = {base.__name__ for kind in kinds.values() for base in kind.__bases__}
    used = {type(node).__name__ for node in ast.walk(ast.parse(EVERY_SYNTAX))}
    assert kinds.keys() - abstract - newer - other_modes == used


def interpreter(version: str) -> str | None:
    """Return a Python of this version on this machine that can be started."""
    folders = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin"))
    candidates = [shutil.which(f"python{version}"), *(str(folder / "python") for folder in folders)]
    check = f"import sys; sys.exit(sys.version_info[:2] != {tuple(map(int, version.split('.')))})"
    started = (
        path for path in candidates if path and not subprocess.run([path, "-c", check], capture_output=True).returncode
    )
    return next(started, None)


@pytest.mark.parametrize("version", VERSIONS)
def test_all_versions_of_python_agree(version: str, tmp_path: Path) -> None:
    other = interpreter(version)
    if other is None:
        pytest.skip(f"no Python {version} on this machine")
    (tmp_path / "every_syntax.py").write_text(EVERY_SYNTAX)
    root = fingerprints.PACKAGE.parent
    paths = [
        tmp_path / "every_syntax.py",
        *sorted(fingerprints.PACKAGE.rglob("*.py")),
        *sorted(root.glob("workflow_scripts/*.py")),
    ]
    # -I: the other Python sees nothing of this environment, so the module cannot need any package.
    command = [other, "-I", "-c", READ, fingerprints.__file__, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    forget()
    assert dict(zip(paths, done.stdout.split())) == {path: code_fingerprint(path) for path in paths}


def test_settings_fingerprint_ignores_the_order_of_keys_alone() -> None:
    assert settings_fingerprint({"a": 1, "b": [1, 2]}) == settings_fingerprint({"b": [1, 2], "a": 1})
    assert settings_fingerprint({"a": 1, "b": [1, 2]}) != settings_fingerprint({"a": 1, "b": [2, 1]})
    with pytest.raises(ValueError, match="JSON"):
        settings_fingerprint({"a": float("inf")})


def test_file_fingerprint_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert file_fingerprint(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
    assert re.fullmatch("[0-9a-f]{64}", file_fingerprint(tmp_path / "file"))
