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
_TABLE = re.compile(r"(<!-- keys of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Write the tables into the README of this checkout."""
    base = Path(__file__).parents[1]
    file = base / README
    file.write_text(with_tables(file.read_text(encoding="utf-8"), base), encoding="utf-8")


def with_tables(text: str, base: Path) -> str:
    """Return a document with its tables replaced by those of the schema in ``base``."""
    return _TABLE.sub(lambda match: f"{match[1]}{table(match[2], base)}{match[3]}", text)


def table(topic: str, base: Path) -> str:
    """Return the Markdown table of the keys of a topic (:data:`TOPICS`): key, default and description."""
    defaults = _read(base / DEFAULTS).get(topic, {})
    rows = keys(topic, base, defaults.get(EVERY, defaults) if isinstance(defaults, dict) else {})
    lines = [f"| `{key}` | {default} | {description} |" for key, default, description in rows]
    return "\n".join(["| key | default | meaning |", "| --- | --- | --- |", *lines]) + "\n"


def keys(topic: str, base: Path, defaults: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, default, description) of all keys of a topic in the order of the schema."""
    schema = _read(base / SCHEMAS / f"{topic}.yaml")
    definition = TOPICS[topic]
    start = schema if definition is None else schema["$defs"][definition]
    yield from _keys(start, schema, "", defaults)


def _keys(
    schema: Mapping[str, Any], document: Mapping[str, Any], prefix: str, defaults: Any
) -> Iterator[tuple[str, str, str]]:
    for key, entry in schema["properties"].items():
        reference = entry.get("$ref", "")
        if reference.startswith("#/$defs/"):
            entry = {**document["$defs"][reference.removeprefix("#/$defs/")], **entry}
        value = defaults[key] if isinstance(defaults, Mapping) and key in defaults else ...
        inner = entry["items"] if isinstance(entry.get("items"), Mapping) and "properties" in entry["items"] else entry
        nested = "properties" in inner
        yield f"{prefix}{key}", _default(key, entry, schema, ... if nested else value), entry["description"]
        if nested:
            mark = "[]." if inner is not entry else "."
            yield from _keys(inner, document, f"{prefix}{key}{mark}", value)


def _default(key: str, entry: Mapping[str, Any], schema: Mapping[str, Any], value: Any) -> str:
    """Return the default in the table: a value, ``required``, or nothing for what is left out or has keys."""
    if value is ... and "default" in entry:
        value = entry["default"]
    if value is not ...:
        return f"`{_text(value)}`"
    return "required" if key in schema.get("required", ()) and "properties" not in entry else ""


def _text(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("...").strip()


def _read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
