"""Where a result comes from: fingerprints of code, settings and files, and the passport that joins them."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import platform
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import loco

PACKAGE = Path(loco.__file__).parent


def code_fingerprint(*entries: str | Path) -> str:
    """Fingerprint of what scripts or modules do, with all ``loco`` modules that they reach by ``import``.

    It is taken from syntax trees without docstrings: comments, docstrings and layout do not change it, code does.
    Imports inside functions count. Imports by a computed name are not seen: name such modules as further entries.

    Raises:
        SyntaxError: a file is not Python.
    """
    waiting, reached = [Path(entry) for entry in entries], set()
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting.extend(_read_module(path)[1])
    return settings_fingerprint(sorted((_dotted_name(path), _read_module(path)[0]) for path in reached))


def settings_fingerprint(settings: Any) -> str:
    """Fingerprint of JSON-able settings; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode()).hexdigest()


def file_fingerprint(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def passport(code: str, settings: str, inputs: Mapping[str, str | Path], seed: int) -> dict[str, Any]:
    """What a result was made with.

    Args:
        code: fingerprint of the code of this step and those before it.
        settings: fingerprint of the settings of this step and those before it.
        inputs: name -> file.
        seed: of the run.

    Returns:
        JSON-able: these, with the SHA-256 of each input, the versions of what computes, and the device.
    """
    return {
        "code": code,
        "settings": settings,
        "inputs": {name: file_fingerprint(path) for name, path in inputs.items()},
        "seed": seed,
        "versions": {
            "python": platform.python_version(),
            "loco": loco.__version__,
            **{name: metadata.version(package) for name, package in _COMPUTING.items()},
        },
        "device": _device(),
    }


_COMPUTING = {"torch": "torch", "numpy": "numpy", "opencv": "opencv-python"}


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


@cache
def _read_module(path: Path) -> tuple[str, frozenset[Path]]:
    """Digest of a module's syntax tree, and the ``loco`` files that it imports."""
    tree = ast.parse(path.read_bytes(), filename=str(path))
    names: set[str] = set()
    for node in ast.walk(tree):
        names.update(_imported_names(node, path))
        _drop_docstring(node)
    files = {file for name in names for file in _module_files(name)}
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), frozenset(files)


def _imported_names(node: ast.AST, path: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = _dotted_name(path.parent) if node.level else None
        origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        # `y` of `from x import y` may be a module of its own or a name in x: `_module_files` takes those that exist.
        yield from (f"{origin}.{alias.name}" for alias in node.names)


def _module_files(name: str) -> Iterator[Path]:
    """Files that ``import name`` runs: of the module and of the packages around it. None outside of ``loco``."""
    parts = name.split(".")
    if parts[0] == PACKAGE.name:
        for end in range(1, len(parts) + 1):
            place = PACKAGE.joinpath(*parts[1:end])
            yield from (file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file())


def _dotted_name(path: Path) -> str:
    """``loco.a.b`` for a file or folder of the package, the bare name for any other."""
    inside = path.is_relative_to(PACKAGE)
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) if inside else path.stem


def _drop_docstring(node: ast.AST) -> None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        match node.body:
            case [ast.Expr(ast.Constant(str())), *rest]:
                node.body = rest
