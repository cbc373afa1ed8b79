"""Fingerprints of code, settings and files, which determine which results are up to date.

This module uses the standard library alone and imports nothing of the package, so any interpreter can load it by its
path and compute the same fingerprints.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.util import cache_from_source
from itertools import product
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent

# Modules that do not change the fingerprint of a module that imports them: path in the package -> reason. A registry
# has a line for every dataset or benchmark, so each new line would change every step that uses the registry. The module
# that a step takes from a registry is passed as a further entry instead.
NOT_COUNTED = {
    "catalogue.py": "registry, in any folder of the package",
    "__init__.py": "version of the package and shortcuts for its users",
    "cli.py": "command line, not part of the workflow",
    "config.py": "settings reach a step as its parameters, which have a separate fingerprint",
    "devices.py": "chooses where a job runs, does not change its results",
    "errors.py": "texts of messages",
    "extras.py": "texts of messages",
    "fingerprints.py": "compares results, does not compute them",
    "logs.py": "texts of messages",
    "parent_process.py": "ends jobs, does not change their results",
    "paths.py": "chooses inputs, which have records",
    "plan.py": "chooses inputs and settings, which have fingerprints",
    "records.py": "describes results, does not compute them",
    "resources.py": "chooses the resources of a job, does not change its results",
    "summary.py": "chooses inputs and settings, which have fingerprints",
}


@cache
def code_fingerprint(*entries: str | Path) -> str:
    """Return the fingerprint of what scripts or modules do, with everything of the package that they use.

    An entry is included whole. Of each module that is imported, directly or indirectly, a function, class or import is
    included if code that is included mentions its name; all other statements run on import and are always included.
    A module that is imported as an object (``from loco import models``) is included whole. A name that a package's
    ``__init__`` re-exports leads to the module that defines it, and to no other. Imports inside functions are followed,
    imports under ``if TYPE_CHECKING`` are not. Imports by a computed name cannot be followed: pass these modules as
    further entries.

    The fingerprint is computed from the syntax tree and is equal on all supported versions of Python. It does not
    depend on comments, layout, docstrings, type annotations, messages (of exceptions, logging, warnings, assertions,
    ``print`` and progress bars), or the modules in :data:`NOT_COUNTED`. Annotations are included where they can be read
    at run time: ``ClassVar``, ``InitVar`` and ``KW_ONLY``, and under decorators that are not in :data:`_TRANSPARENT`.

    Args:
        entries: paths of Python files. Results are cached per process, so files must not change while it runs.

    Returns:
        SHA-256 in hexadecimal. It depends neither on the order of the entries nor on the folder of the package.

    Raises:
        OSError: a file cannot be read.
        SyntaxError: a file is not Python.
    """
    counted = _reach([Path(entry).absolute() for entry in entries])
    return settings_fingerprint(sorted([_module_name(path), _read_module(path).text(found)] for path, found in counted))


def settings_fingerprint(settings: Any) -> str:
    """Return the SHA-256 of JSON-able settings; the order of keys does not matter.

    Raises:
        ValueError: a number is infinite or not a number.
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode()).hexdigest()


def file_fingerprint(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Selection of statements ----------------------------------------------------------------------------------------------

_ALL = "*"  # requests all statements of a module
_RUN = ""  # requests the statements that run when the module is imported
# Code that uses one of these may find definitions that no code mentions by name.
_SEARCHES = frozenset({"__init_subclass__", "__subclasses__", "eval", "exec", "getmembers", "globals"})


def _reach(entries: Iterable[Path]) -> list[tuple[Path, set[int]]]:
    """Return the modules that the entries use, each with the indices of the statements that are used."""
    waiting = [(path, _ALL) for path in entries]
    whole, seen, searched = {path for path, _ in waiting}, set(), False
    counted: dict[Path, set[int]] = defaultdict(set)
    while waiting:
        path, name = request = waiting.pop()
        if request in seen:
            continue
        seen.add(request)
        module, passes = _read_module(path), path not in whole and _is_not_counted(path)
        waiting += module.elsewhere(name)
        for index in module.requested(name, only_imports=passes) - counted[path]:
            counted[path].add(index)
            statement = module.statements[index]
            waiting += [(path, used) for used in statement.names & module.defined]
            waiting += [target for origin in statement.imports for target in _targets(*origin)]
            searched = searched or bool(statement.names & _SEARCHES)
        if searched:
            waiting += [(found, _ALL) for found in counted if (found, _ALL) not in seen]
    return [(path, found) for path, found in counted.items() if found and (path in whole or not _is_not_counted(path))]


@cache
def _is_not_counted(path: Path) -> bool:
    inside = path.is_relative_to(PACKAGE)
    return inside and (path.name == "catalogue.py" or path.relative_to(PACKAGE).as_posix() in NOT_COUNTED)


@cache
def _targets(module: str, name: str) -> tuple[tuple[Path, str], ...]:
    """Return the requests (file, name) that ``from module import name`` causes; none for modules of other packages."""
    parts = module.split(".")
    parents = [(file, _RUN) for end in range(1, len(parts)) for file in _files(parts[:end])]
    submodules = [(file, _ALL) for file in _files([*parts, name])]
    return (*parents, *submodules, *((file, name) for file in _files(parts)))


def _files(parts: list[str]) -> list[Path]:
    """Return a list with the file of a module of the package; an empty list for any other name."""
    if parts[0] != PACKAGE.name or not all(part.isidentifier() for part in parts):
        return []
    place = PACKAGE.joinpath(*parts[1:])
    files = [place / "__init__.py", *([place.with_suffix(".py")] if parts[1:] else [])]
    return [file for file in files if file.is_file()][:1]


def _module_name(path: Path) -> str:
    """Return ``loco.a.b`` for a file or folder of the package, the name without suffix for any other file."""
    inside = path.is_relative_to(PACKAGE)
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) if inside else path.stem


# Statements of a module -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Statement:
    """A statement at the top level of a module, or one name that an import binds anywhere in it."""

    name: str | None  # name that it defines; None for a statement that is always used, because it runs on import
    digest: str
    names: frozenset[str] = frozenset()  # names that it mentions
    imports: tuple[tuple[str, str], ...] = ()  # (module, name)


@dataclass(frozen=True)
class _Module:
    """The statements of a module, its names, and the modules from which its ``__getattr__`` may import a name."""

    path: Path
    statements: list[_Statement]
    defined: frozenset[str]
    lazy: dict[str, set[str]]  # name -> modules that `__getattr__` may import; `_ALL` for any other name

    @cached_property
    def places(self) -> dict[str | None, set[int]]:
        """Name -> indices of the statements that define it; None: those without a name."""
        places: dict[str | None, set[int]] = {None: set()}
        for k, statement in enumerate(self.statements):
            places.setdefault(statement.name, set()).add(k)
        return places

    def requested(self, name: str, only_imports: bool) -> set[int]:
        """Return the indices of the statements that a use of ``name`` requires.

        With ``only_imports``, only imports that re-export the name.
        """
        if only_imports:
            return {k for k in self.places.get(name, ()) if self.statements[k].imports}
        if name == _ALL:
            return set(range(len(self.statements)))
        return self.places[None] | self.places.get(name, set())

    def elsewhere(self, name: str) -> list[tuple[Path, str]]:
        """Return the requests for a name that no statement of this module defines."""
        if name in (_RUN, _ALL) or name in self.defined:
            return []
        if self.lazy:
            return [request for module in self.lazy.get(name) or self.lazy[_ALL] for request in _targets(module, name)]
        is_submodule = self.path.name == "__init__.py" and _files([*_module_name(self.path.parent).split("."), name])
        return [] if is_submodule else [(self.path, _ALL)]

    def text(self, counted: set[int]) -> list[str]:
        """Return the digests of some statements in their order, after those of imports, whose order has no effect."""
        found = [self.statements[k] for k in sorted(counted)]
        imports = sorted({statement.digest for statement in found if statement.imports})
        return imports + [statement.digest for statement in found if not statement.imports]


@cache
def _read_module(path: Path) -> _Module:
    """Return the statements of a module.

    They are stored beside Python's bytecode, as every run of the workflow requires those of about 200 modules, which
    take longer to analyse than everything else that precedes the first job.
    """
    source = path.read_bytes()
    package = _module_name(path.parent) if path.is_relative_to(PACKAGE) else ""
    key = hashlib.sha256(repr((_ANALYSIS, package, path.name, source)).encode()).hexdigest()
    stored = Path(cache_from_source(str(path))).with_suffix(".fingerprint")
    with suppress(OSError, zlib.error, ValueError, TypeError, KeyError):  # absent, damaged, or of another program
        return _load_module(path, key, json.loads(zlib.decompress(stored.read_bytes())))
    module = _analyse(path, source, package)
    if not module.lazy:  # these depend on which files exist
        _store_module(stored, key, module)
    return module


_ANALYSIS = file_fingerprint(__file__)


def _load_module(path: Path, key: str, document: Any) -> _Module:
    if document["key"] != key:
        raise ValueError
    statements = [
        _Statement(name, digest, frozenset(names), tuple((module, origin) for module, origin in imports))
        for name, digest, names, imports in document["statements"]
    ]
    return _Module(path, statements, frozenset(document["defined"]), lazy={})


def _store_module(file: Path, key: str, module: _Module) -> None:
    """Write the statements of a module to ``file``; do nothing if Python writes no bytecode or the system refuses."""
    if sys.dont_write_bytecode:
        return
    statements = [(s.name, s.digest, sorted(s.names), s.imports) for s in module.statements]
    document = {"key": key, "statements": statements, "defined": sorted(module.defined)}
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        try:
            unfinished.write_bytes(zlib.compress(json.dumps(document).encode(), level=1))
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)  # on a full disk


def _analyse(path: Path, source: bytes, package: str) -> _Module:
    tree = ast.parse(source, filename=str(path))
    texts, exceptions = _message_texts(tree), _exception_names(tree)
    written = []
    for node in _statements_with_effect(tree.body):
        writer = _Writer(package, texts, exceptions)
        writer.write(node)
        written.append((node, writer))
    names = frozenset().union(*(writer.names for _, writer in written))
    mentioned = names.union(*(writer.ignored for _, writer in written))
    statements, defined = [], set()
    for node, writer in written:
        is_message = _text_name(node, texts) in texts - names
        if writer.parts and not is_message:
            name = _defined_name(node)
            statements.append(_Statement(name, _digest(writer.parts), frozenset(writer.names)))
            defined |= {name} if name else writer.bound
    for module, name, bound in dict.fromkeys(found for _, writer in written for found in writer.imports):
        # An import whose name the module does not use is a re-export, in an `__init__`, or is there for side effects.
        used = bound != _ALL and (bound in mentioned or path.name == "__init__.py")
        statements.append(
            _Statement(bound if used else None, _digest([module, name, bound]), imports=((module, name),))
        )
        defined.add(bound)
    return _Module(path, statements, frozenset(defined), _lazy_modules(tree, package))


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _defined_name(node: ast.stmt) -> str | None:
    """Return the name of a function or class whose definition has no side effects; None for any other statement."""
    if not isinstance(node, _DEFINITIONS) or _is_seen_by_others(node):
        return None
    return None if node.name.startswith("__") else node.name


def _message_texts(tree: ast.Module) -> frozenset[str]:
    """Return the private names of a module that denote strings; they are ignored if only messages use them."""
    texts: frozenset[str] = frozenset()
    for node in tree.body:
        texts |= {_text_name(node, texts)} - {None}
    return texts


def _text_name(node: ast.stmt, texts: frozenset[str]) -> str | None:
    match node:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=value)
        ):
            return name if name.startswith("_") and value and _is_text(value, texts) else None
    return None


def _exception_names(tree: ast.Module) -> frozenset[str]:
    """Return the names of the exception classes that a module defines."""
    names: frozenset[str] = frozenset()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(_is_exception(base, names) for base in node.bases):
            names |= {node.name}
    return names


def _lazy_modules(tree: ast.Module, package: str) -> dict[str, set[str]]:
    """Return the modules that a ``__getattr__`` may import, by the names next to them in dictionaries of strings."""
    if not any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body):
        return {}

    def modules(text: str) -> set[str]:
        parts = _absolute(text, package) if text.startswith(".") else text
        return {name for name in (parts, f"{package}.{text}") if _files(name.split("."))}

    lazy: dict[str, set[str]] = defaultdict(set)
    lazy[_ALL] = {name for text in _strings(tree) for name in modules(text)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values):
                for one, other in product(_strings(key), _strings(value)):
                    lazy[one] |= modules(other)
                    lazy[other] |= modules(one)
    return dict(lazy)


def _strings(node: ast.AST | None) -> list[str]:
    constants = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant)) if node else ()
    return [value for value in constants if isinstance(value, str)]


def _absolute(name: str, package: str) -> str:
    """Return the absolute name of a module from its name relative to a package, with leading dots."""
    inner = name.lstrip(".")
    parts = package.split(".")
    parts = parts[: len(parts) - (len(name) - len(inner) - 1)]
    return ".".join([*parts, inner] if inner else parts)


# Content of a statement -----------------------------------------------------------------------------------------------

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_BODIES = {"body", "orelse", "finalbody"}
# Fields that do not affect the behaviour of a program, or whose values differ between versions of Python.
_SKIPPED = {"ctx", "kind", "type_comment", "type_ignores", "type_params", "returns"}
_TYPING = {"__future__", "collections.abc", "typing", "typing_extensions"}  # imports from these modules are ignored
_MARKERS = {"ClassVar", "InitVar", "KW_ONLY"}  # annotations that determine the kind of a field of a dataclass
# Decorators, by their last name, that neither register a definition nor read its annotations.
_TRANSPARENT = {
    *("abstractmethod", "cache", "cached_property", "classmethod", "contextmanager", "dataclass", "final", "lru_cache"),
    *("overload", "override", "property", "runtime_checkable", "setter", "staticmethod", "total_ordering", "wraps"),
    *("disable", "inference_mode", "no_grad", "once_differentiable"),  # of PyTorch
}
_LOGGERS = {"logger", "logging", "log", "_logger"}
_LOGGING = {"critical", "debug", "error", "exception", "info", "log", "warning"}
_EXCEPTIONS = ("Error", "Exception", "Warning")  # suffixes of the names of exceptions, which no other class may have
_VALUED_EXCEPTIONS = {"StopAsyncIteration", "StopIteration", "SystemExit"}  # their argument is a value, not a message


@dataclass
class _Writer:
    """Writes a statement in a form that does not depend on the version of Python, and collects the names it uses.

    Empty fields are not written, so fields that a new version adds for new syntax do not change the form of older code.
    """

    package: str
    texts: frozenset[str]
    exceptions: frozenset[str]
    parts: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)  # names that it mentions
    bound: set[str] = field(default_factory=set)  # names that it assigns or defines
    ignored: set[str] = field(default_factory=set)  # names in annotations and messages
    imports: list[tuple[str, str, str]] = field(default_factory=list)  # (module, name, bound name)
    _in_message: bool = False
    _has_fields: bool = False  # whether the node is in the body of a class whose annotations define fields
    _reads_annotations: bool = False  # whether a decorator or metaclass may read the annotations

    def write(self, node: ast.AST) -> None:
        """Write a node of the syntax tree and all below it."""
        if self._in_message and _is_text(node, self.texts):
            self._ignore(node)
            self.parts.append("text")
            return
        getattr(self, f"_write_{type(node).__name__}", self._write_fields)(node)

    def _write_fields(self, node: ast.AST, *left_out: str) -> None:
        self.parts.append(f"{type(node).__name__}(")
        for name in node._fields:
            value = getattr(node, name, None)
            if name in _BODIES and isinstance(value, list):
                value = list(_statements_with_effect(value))
            if value and name not in _SKIPPED and name not in left_out:
                self.parts.append(f"{name}=")
                self._write_value(value)
        self.parts.append(")")

    def _write_value(self, value: Any) -> None:
        if isinstance(value, list):
            self.parts.append("[")
            for item in value:
                self._write_value(item)
            self.parts.append("]")
        elif isinstance(value, ast.AST):
            self.write(value)
        else:
            self.parts.append(_literal(value))

    def _ignore(self, node: ast.AST | None) -> None:
        if node:
            self.ignored |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}

    # Names and constants

    def _write_Name(self, node: ast.Name) -> None:
        (self.names if isinstance(node.ctx, ast.Load) else self.bound).add(node.id)
        self.parts.append(f"Name({node.id})")

    def _write_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in ("__subclasses__", "getmembers"):
            self.names.add(node.attr)
        self._write_fields(node)

    def _write_Constant(self, node: ast.Constant) -> None:
        self.parts.append(f"Constant({_literal(node.value)})")

    def _write_MatchSingleton(self, node: ast.MatchSingleton) -> None:
        self.parts.append(f"MatchSingleton({_literal(node.value)})")

    def _write_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Write an f-string with adjacent literals merged, because versions of Python divide them differently."""
        pieces: list[str | ast.AST] = []
        text = ""
        for value in node.values:
            if isinstance(value, ast.Constant):
                text += str(value.value)
            else:
                pieces += [text, value]
                text = ""
        self.parts.append("JoinedStr(")
        for piece in [*pieces, text]:
            if piece:
                self._write_value(piece)
        self.parts.append(")")

    def _write_FormattedValue(self, node: ast.FormattedValue) -> None:
        is_empty = isinstance(node.format_spec, ast.JoinedStr) and not node.format_spec.values
        self._write_fields(node, *(["format_spec"] if is_empty else []))

    # Imports

    def _write_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.imports.append((alias.name, _ALL, alias.asname or alias.name.split(".")[0]))

    def _write_ImportFrom(self, node: ast.ImportFrom) -> None:
        name = node.module or ""
        module = _absolute("." * node.level + name, self.package) if node.level else name
        if module not in _TYPING:
            self.imports += [(module, alias.name, alias.asname or alias.name) for alias in node.names]

    # Definitions and annotations

    def _write_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        outer = self._has_fields, self._reads_annotations
        self._has_fields = False
        self._reads_annotations |= _is_seen_by_others(node)
        self.bound.add(node.name)
        if node.name == "__init_subclass__":
            self.names.add(node.name)
        if self._reads_annotations and node.returns:
            self.write(node.returns)
        else:
            self._ignore(node.returns)
        self._write_fields(node)
        self._has_fields, self._reads_annotations = outer

    _write_AsyncFunctionDef = _write_FunctionDef

    def _write_ClassDef(self, node: ast.ClassDef) -> None:
        outer = self._has_fields, self._reads_annotations
        self._has_fields = bool(node.bases or node.keywords or node.decorator_list)
        self._reads_annotations |= _is_seen_by_others(node)
        self.bound.add(node.name)
        self._write_fields(node)
        self._has_fields, self._reads_annotations = outer

    def _write_arg(self, node: ast.arg) -> None:
        if not self._reads_annotations:
            self._ignore(node.annotation)
        self._write_fields(node, *([] if self._reads_annotations else ["annotation"]))

    def _write_AnnAssign(self, node: ast.AnnAssign) -> None:
        if self._reads_annotations:
            self._write_fields(node)
            return
        self._ignore(node.annotation)
        if self._has_fields:
            names = {part.id for part in ast.walk(node.annotation) if isinstance(part, ast.Name)}
            names |= {part.attr for part in ast.walk(node.annotation) if isinstance(part, ast.Attribute)}
            quoted = " ".join(_strings(node.annotation))
            self.parts += sorted(marker for marker in _MARKERS if marker in names or marker in quoted)
            self._write_fields(node, "annotation", "simple")
        elif node.value:
            self.write(ast.Assign(targets=[node.target], value=node.value))

    # Messages

    def _write_Raise(self, node: ast.Raise) -> None:
        if isinstance(node.exc, ast.Call) and _last_name(node.exc.func) not in _VALUED_EXCEPTIONS:
            self.parts.append("Raise(")
            self._write_message(node.exc)
            if node.cause:
                self.write(node.cause)
            self.parts.append(")")
        else:
            self._write_fields(node)

    def _write_Assert(self, node: ast.Assert) -> None:
        self._ignore(node.msg)
        self._write_fields(node, "msg")

    def _write_Call(self, node: ast.Call) -> None:
        name = _last_name(node.func)
        if _is_exception(node.func, self.exceptions) or _is_report(node):
            self._write_message(node)
        elif name in ("tqdm", "trange"):
            bar = [keyword for keyword in node.keywords if keyword.arg in ("desc", "unit")]
            for keyword in bar:
                self._ignore(keyword.value)
            self._write_fields(ast.Call(node.func, node.args, [each for each in node.keywords if each not in bar]))
        else:
            self._write_fields(node)

    def _write_message(self, node: ast.Call) -> None:
        """Write a call without its string arguments."""
        outer, self._in_message = self._in_message, True
        texts: list[ast.AST] = [each for each in node.args if _is_text(each, self.texts)]
        texts += [each for each in node.keywords if _is_text(each.value, self.texts)]
        for each in texts:
            self._ignore(each)
        args = [each for each in node.args if each not in texts]
        self._write_fields(ast.Call(node.func, args, [each for each in node.keywords if each not in texts]))
        self._in_message = outer


def _statements_with_effect(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a block without docstrings, ``pass``, ``__all__`` and code for type checkers only."""
    for node in body:
        match node:
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.AugAssign(target=ast.Name(id="__all__")):
                pass
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"), orelse=orelse):
                yield from _statements_with_effect(orelse)
            case _:
                yield node


def _literal(value: object) -> str:
    # `ascii` instead of `repr`: the characters that `repr` escapes depend on the Unicode version of Python.
    return f"{type(value).__name__}:{hex(value) if type(value) is int else ascii(value)}"


def _last_name(node: ast.AST) -> str:
    """Return ``c`` for ``a.b.c``, ``c`` or a call of either; an empty string for other expressions."""
    if isinstance(node, ast.Call):
        return _last_name(node.func)
    return getattr(node, "attr", "") or getattr(node, "id", "")


def _is_seen_by_others(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Return whether a decorator or metaclass may register a definition or read its annotations."""
    decorators = {_last_name(decorator) for decorator in node.decorator_list}
    return not decorators <= _TRANSPARENT or bool(getattr(node, "keywords", []))


def _is_exception(node: ast.AST, names: frozenset[str]) -> bool:
    name = _last_name(node)
    return name.endswith(_EXCEPTIONS) or name in names


def _is_report(node: ast.Call) -> bool:
    """Return whether a call logs, warns or prints to the terminal."""
    match node.func:
        case ast.Attribute(value=value, attr=method):
            receiver = _last_name(value)
            return (receiver in _LOGGERS and method in _LOGGING) or (receiver, method) == ("warnings", "warn")
        case ast.Name(id="print"):
            files = [_last_name(keyword.value) for keyword in node.keywords if keyword.arg in ("file", None)]
            return all(name in ("stdout", "stderr") for name in files)
    return False


def _is_text(node: ast.AST, names: frozenset[str]) -> bool:
    """Return whether an expression is a literal string: a constant, an f-string, or an expression of such strings."""
    match node:
        case ast.Constant(value=value):
            return isinstance(value, str)
        case ast.Name(id=name):
            return name in names
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _is_text(left, names) or _is_text(right, names)
        case ast.BinOp(left=left, op=ast.Mod()):
            return _is_text(left, names)
        case ast.IfExp(body=body, orelse=orelse):
            return _is_text(body, names) and _is_text(orelse, names)
        case ast.Call(func=ast.Attribute(value=value)):
            return _is_text(value, names)
    return type(node).__name__ in ("JoinedStr", "TemplateStr")
