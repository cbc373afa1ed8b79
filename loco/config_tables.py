"""Generate the tables of ``config/README.md`` from the schema and the defaults.

    python -m loco.config_tables

replaces the tables between the lines ``<!-- keys of TOPIC -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from loco.config_layers import DEFAULTS, EVERY

README, SCHEMAS = "config/README.md", "config/schemas"
# Topic -> definition in its schema file; None if the file itself describes the keys.
TOPICS = {"run": None, "datasets": "dataset", "splits": "split", "ablations": "ablation", "figures": None}
BENCHMARKS = "benchmarks"  # each benchmark has a table, `benchmarks.<name>`
_TABLE = re.compile(r"(<!-- keys of ([\w.]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_Schema = Mapping[str, Any]


def main() -> None:
    """Write the tables into the README of this checkout."""
    base = Path(__file__).parents[1]
    file = base / README
    file.write_text(with_tables(file.read_text(encoding="utf-8"), base), encoding="utf-8")


def with_tables(text: str, base: Path) -> str:
    """Return a document with its tables replaced by those of the schema in ``base``."""
    return _TABLE.sub(lambda match: f"{match[1]}{table(match[2], base)}{match[3]}", text)


def table(topic: str, base: Path) -> str:
    """Return the Markdown table of a topic (:data:`TOPICS`) or of ``benchmarks.<name>``: key, default and meaning."""
    lines = [f"| `{key}` | {default} | {description} |" for key, default, description in keys(topic, base)]
    return "\n".join(["| key | default | meaning |", "| --- | --- | --- |", *lines]) + "\n"


def keys(topic: str, base: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, default, description) of all keys of a topic in the order of the schema."""
    part, _, benchmark = topic.partition(".")
    schema = _read(base / SCHEMAS / f"{part}.yaml")
    defaults = _read(base / DEFAULTS).get(part, {})
    if part == BENCHMARKS:
        start, values = schema["properties"][benchmark], defaults.get(benchmark, {})
    else:
        definition = TOPICS[part]
        start = schema if definition is None else schema["$defs"][definition]
        values = defaults.get(EVERY, defaults)
    yield from _keys(_resolved(start, schema), schema, "", values)


def _keys(schema: _Schema, document: _Schema, prefix: str, defaults: Any) -> Iterator[tuple[str, str, str]]:
    for key, stated in _properties(schema).items():
        entry = _resolved(stated, document)
        value = defaults[key] if isinstance(defaults, Mapping) and key in defaults else ...
        items = _resolved(entry.get("items", {}), document)
        inner, mark = (items, "[].") if _properties(items) else (entry, ".")
        yield f"{prefix}{key}", _default(key, entry, schema, ... if _properties(entry) else value), entry["description"]
        yield from _keys(inner, document, f"{prefix}{key}{mark}", value) if _properties(inner) else ()


def _properties(schema: _Schema) -> dict[str, Any]:
    """Return the keys that a schema describes, also those that only some values of `name` have."""
    found = dict(schema.get("properties", {}))
    for condition in schema.get("allOf", ()):
        conditional = condition.get("then", {}).get("properties", {})
        found |= {key: entry for key, entry in conditional.items() if isinstance(entry, Mapping)}
    return found


def _resolved(entry: _Schema, document: _Schema) -> _Schema:
    """Replace a reference by its definition, and a choice between text and a map by the map."""
    entry = entry.get("else", entry) if "if" in entry and "properties" not in entry else entry
    reference = entry.get("$ref", "")
    if not reference.startswith("#/$defs/"):
        return entry
    return {**document["$defs"][reference.removeprefix("#/$defs/")], **entry}


def _default(key: str, entry: _Schema, schema: _Schema, value: Any) -> str:
    """Return the default in the table: a value, ``required``, or nothing if the key is optional or has keys itself."""
    if value is ... and "default" in entry:
        value = entry["default"]
    if value is not ...:
        return f"`{_text(value)}`"
    return "required" if key in schema.get("required", ()) and not _properties(entry) else ""


def _text(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("...").strip()


def _read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
