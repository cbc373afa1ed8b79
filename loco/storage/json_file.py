"""JSON documents between the steps (manifests, metrics) with a format, a version, a record and a content id."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import isfinite
from pathlib import Path
from textwrap import shorten
from typing import Any

from loco.errors import DataError
from loco.records import Recipe, Record, require_recipe
from loco.storage.atomic import atomic_path
from loco.storage.content_id import BLANK, read_content_id, seal, verified_bytes
from loco.storage.reading import REGENERATE, reading

LARGEST = 2**63  # larger integers fit neither an array nor a float


@dataclass(frozen=True)
class Document:
    """A JSON document that was read: its content, its content id, and its provenance record (None if it has none)."""

    path: Path
    content: dict[str, Any]
    content_id: str
    record: Record | None


def write_json(
    path: str | Path, content: Mapping[str, Any], format: str, version: int, record: Record | None = None
) -> None:
    """Write a document to ``path``, atomically.

    Args:
        path: output file.
        content: JSON-serialisable content.
        format, version: name and version of the format, which :func:`read_json` checks.
        record: provenance record.

    Raises:
        DataError: the disk is full.
        ValueError: a number is NaN or infinite, which JSON cannot represent.
    """
    head = {"content_id": BLANK, "format": format, "version": version}
    body = {"record": record.to_json() if record else None, "content": content}
    text = json.dumps(head)[:-1] + ",\n" + json.dumps(body, indent=1, sort_keys=True, allow_nan=False)[1:] + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        seal(temporary)


def read_json(
    path: str | Path,
    format: str,
    version: int,
    expected: Recipe | None = None,
    schema: Mapping[str, Any] | None = None,
) -> Document:
    """Read a document.

    Args:
        path: the file.
        format, version: required format and version.
        expected: required recipe; None accepts any.
        schema: JSON Schema of its content; ``integer`` means a number without a decimal point. None accepts any
            object.

    Raises:
        DataError: it is missing or damaged, has a different format or version, violates the schema, or was not made as
            expected.
    """
    text = verified_bytes(path)
    with reading(path):
        document = _parse(text.decode())
        found = f"{document['format']} version {document['version']}"
        if found != f"{format} version {version}":
            raise DataError(
                "the file has another format or version",
                file=path,
                expected=f"{format} version {version}",
                found=found,
                remedy=REGENERATE,
            )
        record = Record.from_json(document["record"]) if document["record"] is not None else None
        content = document["content"]
    if problem := _schema_problem(content, {**(schema or {}), "type": "object"}):
        raise DataError(problem, file=path, remedy=REGENERATE)
    if expected is not None:
        require_recipe(record, expected, file=path)
    return Document(Path(path), content, read_content_id(path), record)


def _schema_problem(content: Any, schema: Mapping[str, Any]) -> str | None:
    """Describe the most relevant violation of a JSON Schema; return None if the content satisfies it."""
    # Imported on use: the base of the package, without the extra `data`, reads no documents.
    from jsonschema.exceptions import best_match

    if (fault := best_match(_validator()(schema).iter_errors(content))) is None:
        return None
    place = fault.json_path.removeprefix("$").removeprefix(".") or "the top level"
    return f"the file has unexpected content at {place}: {shorten(fault.message, 200)}"


@cache
def _validator() -> Any:
    """Return a validator that, unlike JSON Schema, does not accept a float such as 1.0 as an integer."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    return extend(Draft202012Validator, type_checker=types)


def _parse(text: str) -> Any:
    """Parse strict JSON, without NaN and without numbers that overflow.

    Raises:
        ValueError, RecursionError: it is not strict JSON, or is nested too deeply.
    """
    content = json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=_bounded)
    if re.search(r"\\u[dD][89a-fA-F]", text):  # half of a surrogate pair is not a character and cannot be encoded
        json.dumps(content, ensure_ascii=False).encode()
    return content


def _no_number(token: str) -> Any:
    raise ValueError(f"{token} is not a finite number of the supported range")


def _finite(token: str) -> float:
    number = float(token)
    return number if isfinite(number) else _no_number(token)


def _bounded(token: str) -> int:
    number = int(token)
    return number if abs(number) < LARGEST else _no_number(token)
