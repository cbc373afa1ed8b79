"""Generate the tables of ``config/README.md`` from the schema and the defaults.

    python -m loco.config_tables

replaces the tables between the lines ``<!-- keys of TOPIC -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from loco.config_layers import DEFAULTS, EVERY
from loco.config_schema import names_of, read_schemas, referenced, yaml_text

README, SCHEMAS = "config/README.md", "config/schemas"


class Topic(NamedTuple):
    """The source of a table: a definition in a schema file (None: the file itself), and the path of its defaults."""

    file: str
    definition: str | None
    defaults: tuple[str, ...]  # keys of defaults.yaml, from the top level


_TRAIN = ("experiments", EVERY, "train")
TOPICS = {
    "run": Topic("run.yaml", None, ("run",)),
    "datasets": Topic("datasets.yaml", "dataset", ("datasets", EVERY)),
    "splits": Topic("splits.yaml", "split", ()),
    "experiments": Topic("experiments.yaml", "experiment", ()),
    "model": Topic("models.yaml", "model", ()),
    "model.backbone": Topic("models.yaml", "backbone", ()),
    "model.head": Topic("models.yaml", "head", ()),
    "train": Topic("training.yaml", "train", _TRAIN),
    "train.optimiser": Topic("training.yaml", "optimiser", (*_TRAIN, "optimiser")),
    "train.loss": Topic("losses.yaml", "loss", ()),
    "ablations": Topic("ablations.yaml", "ablation", ()),
    "figures": Topic("figures.yaml", None, ("figures",)),
}
BENCHMARKS = "benchmarks"  # each benchmark has a table, `benchmarks.<name>`
_OF_A_TOPIC = {(topic.file, topic.definition) for topic in TOPICS.values()}  # definitions with a table of their own
_Schemas = Mapping[str, Mapping[str, Any]]  # file name -> schema
_TABLE = re.compile(r"(<!-- keys of ([\w.]+) -->\n).*?(<!-- end -->)", re.DOTALL)


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
    schemas = read_schemas(base / SCHEMAS)
    part, _, benchmark = topic.partition(".")
    path: tuple[str, ...]
    if part == BENCHMARKS:
        reference, path = f"{BENCHMARKS}.yaml#/properties/{benchmark}", (BENCHMARKS, benchmark)
    else:
        file, definition, path = TOPICS[topic]
        reference = file if definition is None else f"{file}#/$defs/{definition}"
    start = _entry({"$ref": reference}, "", schemas)
    values: Any = yaml.safe_load((base / DEFAULTS).read_text(encoding="utf-8"))
    for key in path:
        values = values.get(key, {})
    yield from _keys(start, schemas, "", values)


class _Entry(NamedTuple):
    """What the schema states about a key, and the schema file that states it."""

    stated: Mapping[str, Any]
    file: str
    is_topic: bool = False


def _entry(stated: Mapping[str, Any], file: str, schemas: _Schemas) -> _Entry:
    """Resolve the references of an entry; its own statements override those of the referenced definitions."""
    is_topic = False
    if "$ref" in stated.get("else", {}):  # text or a map
        stated = stated["else"]
    while "$ref" in stated:
        reference = stated["$ref"]
        target, file = referenced(reference, file, schemas)
        is_topic |= (file, reference.rpartition("/")[2]) in _OF_A_TOPIC
        stated = {**target, **{key: value for key, value in stated.items() if key != "$ref"}}
    return _Entry(stated, file, is_topic)


class _Part(NamedTuple):
    """Keys that a part of a schema describes. Only maps whose `name` is in ``names`` have them; empty: all maps."""

    names: tuple[str, ...]
    required: tuple[str, ...]
    properties: Mapping[str, Any]


class _Key(NamedTuple):
    """A key of a map. Only maps whose `name` is in ``names`` have it; empty: all maps."""

    key: str
    names: tuple[str, ...]
    required: bool
    entry: _Entry


def _keys(start: _Entry, schemas: _Schemas, prefix: str, defaults: Any) -> Iterator[tuple[str, str, str]]:
    for key, names, required, entry in _properties(start, schemas):
        value = defaults[key] if isinstance(defaults, Mapping) and key in defaults else ...
        items = _entry(entry.stated.get("items", {}), entry.file, schemas)
        inner, mark = (items, "[].") if _is_map(items) else (entry, ".")
        yield f"{prefix}{key}", _default(entry, required, value), _description(names, entry.stated)
        if _is_map(inner) and not inner.is_topic:
            yield from _keys(inner, schemas, f"{prefix}{key}{mark}", value)


def _is_map(entry: _Entry) -> bool:
    return any(_parts(entry.stated))


def _parts(stated: Mapping[str, Any]) -> Iterator[_Part]:
    """Yield the parts of a schema that describe keys."""
    required = tuple(stated.get("required", ()))
    if stated.get("properties"):
        yield _Part((), required, stated["properties"])
    for condition in stated.get("allOf", ()):
        then = condition.get("then", {})
        if then.get("properties"):
            yield _Part(names_of(condition), (*required, *then.get("required", ())), then["properties"])
    if "allOf" not in stated and "properties" not in stated:
        # A map or something else (`if: {type: ...}`), or one of two kinds of map (`if: {required: [key]}`): the keys of
        # the second kind, which `then` describes, are optional.
        for branch in ("else", "then"):
            optional = branch == "then" and "required" in stated.get("if", {})
            for part in _parts(stated.get(branch, {})) if branch in stated else ():
                yield part._replace(required=() if optional else (*required, *part.required))


def _properties(start: _Entry, schemas: _Schemas) -> list[_Key]:
    """Return the keys that a schema describes. A key with the same description for several names is returned once."""
    found: list[_Key] = []
    for names, required, properties in _parts(start.stated):
        for key, stated in properties.items():
            if not isinstance(stated, Mapping):
                continue  # described elsewhere, or forbidden
            new = _Key(key, names, key in required, _entry(stated, start.file, schemas))
            same = next((n for n, old in enumerate(found) if old.key == key and old.entry == new.entry), None)
            if same is None:
                found.append(new)
            else:
                found[same] = found[same]._replace(names=(*found[same].names, *names))
    every = {name for key in found if key.key == "name" for name in key.entry.stated.get("enum", ())}
    return [key._replace(names=() if set(key.names) == every else key.names) for key in found]


def _description(names: tuple[str, ...], stated: Mapping[str, Any]) -> str:
    """Return the description of a key, preceded by the values of `name` whose maps have it."""
    text: str = stated["description"]
    if not names:
        return text
    word = re.split(r"[ ,:;]", text, maxsplit=1)[0]
    if word == "A" or (word[1:].isalpha() and word[1:].islower()):  # not LoRA or L2-normalised
        text = text[0].lower() + text[1:]
    return f"{', '.join(f'`{name}`' for name in names)}: {text}"


def _default(entry: _Entry, required: bool, value: Any) -> str:
    """Return the default in the table: a value, ``required``, or nothing if it is optional or has defaults itself."""
    has_keys = entry.stated.get("type") == "object" and _is_map(entry)
    default = entry.stated.get("default", ...) if value is ... or has_keys else value
    if default is not ...:
        return f"`{yaml_text(default)}`"
    return "required" if required and value is ... else ""


if __name__ == "__main__":
    main()
