"""Check a configuration against its JSON schema, and describe violations in a readable form."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from loco.errors import ConfigError, hint

SCHEMA = "config/schemas/config.schema.yaml"
MAX_VALUES, MAX_LEVELS = 200_000, 50  # a larger configuration is a mistake or an attack
LARGEST_NUMBER = 1e300
Keys = tuple[str | int, ...]


def plain_copy(config: Any) -> tuple[Any, list[str], dict[Keys, float]]:
    """Return a copy of a configuration that consists of plain dicts, lists, strings and numbers.

    Returns:
        The copy, in which infinity (`.inf`) is kept and any other non-finite number is None; the problems (keys and
        values of other types); and the numbers that became None by their keys, for :func:`schema_problems`.

    Raises:
        ConfigError: the configuration contains itself, or is too large or too deeply nested.
    """
    problems: list[str] = []
    not_finite: dict[Keys, float] = {}
    left = MAX_VALUES

    def copy(value: Any, keys: Keys) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConfigError(f"the configuration expands to more than {MAX_VALUES:,} values; check its aliases (`*`)")
        if len(keys) > MAX_LEVELS:
            raise ConfigError(
                f"{dotted(keys[:5])}...: the configuration is nested more than {MAX_LEVELS} levels deep; check its "
                "aliases (`*`)"
            )
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    problems.append(f"{dotted(keys)}: YAML does not read the key {key!r} as text; put it in quotes")
            return {str(key): copy(item, (*keys, str(key))) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [copy(item, (*keys, number)) for number, item in enumerate(value)]
        if _is_infinite(value):
            return math.inf
        if isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:
            not_finite[keys] = value
            return None
        if isinstance(value, date | PurePath):
            return str(value)
        if value is not None and not isinstance(value, str | int | float):
            problems.append(f"{dotted(keys)}: expected text or a number, found {type(value).__name__}")
        return value

    return copy(config, ()), problems, not_finite


def schema_problems(
    config: dict[str, Any], schema_file: Path, not_finite: Mapping[Keys, float] | None = None
) -> list[str]:
    """Return all violations of the schema as messages; convert floats such as ``3.0`` where an integer is required.

    Args:
        config: result of :func:`plain_copy`; changed in place.
        schema_file: path of the schema.
        not_finite: the numbers that :func:`plain_copy` replaced.
    """
    not_finite = not_finite or {}
    validator = _validator(schema_file)
    errors = sorted(validator.iter_errors(config), key=lambda error: error.json_path)
    if _convert_whole_floats(config, errors):
        return schema_problems(config, schema_file, not_finite)
    problems = [_not_finite_problem(keys, value) for keys, value in not_finite.items()]
    others = [error for error in errors if tuple(error.absolute_path) not in not_finite]
    return problems + [problem for error in others for problem in _in_words(error)]


def infinity_to_null(value: Any) -> Any:
    """Return a copy of a configuration with infinity replaced by null, because JSON has no infinity."""
    if isinstance(value, dict):
        return {key: infinity_to_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [infinity_to_null(item) for item in value]
    return None if _is_infinite(value) else value


def name_pattern(schema_file: Path) -> str:
    """Return the regular expression that names of scenes, datasets, splits and experiments must match completely."""
    return _read_schema(schema_file.with_name("common.yaml"))["$defs"]["name"]["pattern"]


def name_problem(name: str) -> str:
    """Return what is wrong with a name that does not match :func:`name_pattern`."""
    allowed = "ASCII letters, digits, `_`, `-` and `.`, not beginning with `-` or `.`"
    return f"invalid name {name!r}: names consist of {allowed}"


def names_of(part: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the values of `name` to which a part of an ``allOf`` applies (``if: {properties: {name: ...}}``)."""
    name = part.get("if", {}).get("properties", {}).get("name", {})
    return tuple(name.get("enum", [name["const"]] if "const" in name else []))


def yaml_text(value: Any) -> str:
    """Return a value in YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("...").strip()


def dotted(keys: Iterable[str | int]) -> str:
    """Return the path of keys as users write it, such as ``run.seeds.0``."""
    return ".".join(map(str, keys)) or "the top level"


@lru_cache
def _validator(schema_file: Path) -> Any:
    """Return a validator of a schema, which may refer to other schemas by file names in the same folder."""
    # A schema that names its dialect would be applied by the library's own validator, which accepts 3.0 as integer.
    beside = read_schemas(schema_file.parent)
    plain = {name: {key: value for key, value in schema.items() if key != "$schema"} for name, schema in beside.items()}
    described = {name: _with_descriptions(schema, name, plain) for name, schema in plain.items()}
    resources = [(name, DRAFT202012.create_resource(schema)) for name, schema in described.items()]
    return _Validator(described[schema_file.name], registry=Registry().with_resources(resources))


def _with_descriptions(stated: Any, file: str, schemas: Mapping[str, Any]) -> Any:
    """Return a copy of a schema in which references without a description have that of their target."""
    if isinstance(stated, list):
        return [_with_descriptions(item, file, schemas) for item in stated]
    if not isinstance(stated, dict):
        return stated
    copy = {key: _with_descriptions(item, file, schemas) for key, item in stated.items()}
    if "$ref" in copy:
        target, _ = referenced(copy["$ref"], file, schemas)
        if "description" in target:
            copy.setdefault("description", target["description"])
    return copy


def referenced(reference: str, file: str, schemas: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the definition that a reference in a schema file points to, and the name of the file that contains it.

    Args:
        reference: as in ``$ref``: ``FILE``, ``FILE#/$defs/NAME`` or ``#/$defs/NAME``.
        file: name of the file that contains the reference.
        schemas: file name -> schema (:func:`read_schemas`).
    """
    name, _, pointer = reference.partition("#")
    file = name or file
    target = schemas[file]
    for step in pointer.split("/")[1:]:
        target = target[step]
    return target, file


def read_schemas(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the schema files of a folder by name."""
    return {file.name: _read_schema(file) for file in folder.glob("*.yaml")}


@lru_cache
def _read_schema(file: Path) -> dict[str, Any]:
    return yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _is_integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _matches_whole(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    """Match patterns completely: JSON schema searches, and Python's ``$`` ignores a line break at the end."""
    if isinstance(value, str) and not re.fullmatch(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _has_type(validator: Any, types: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    """Check types; infinity has no type and is accepted only if the schema has the keyword `unlimited`.

    Errors receive the attribute ``list``: the valid list that a text or number in its place probably stands for.
    """
    if not (_is_infinite(value) and schema.get("unlimited")):
        for error in Draft202012Validator.VALIDATORS["type"](validator, types, value, schema):
            is_scalar = value is not None and not isinstance(value, list | dict)
            parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [value]
            error.list = parts if is_scalar and _is_valid(validator, parts, schema) else None
            yield error


def _has_items(validator: Any, items: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    """Check the items of a list. A list of scalars in place of a list of such lists is a single error."""
    errors = list(Draft202012Validator.VALIDATORS["items"](validator, items, value, schema))
    is_flat = errors and not any(isinstance(item, list | dict) for item in value)
    if is_flat and _is_valid(validator, [value], schema):
        yield ValidationError(f"expected a list of lists, found {yaml_text(value)}; write {yaml_text([value])}")
    else:
        yield from errors


def _is_valid(validator: Any, value: Any, schema: Mapping[str, Any]) -> bool:
    return next(validator.descend(value, schema), None) is None


def _satisfies_all(validator: Any, parts: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    """Check ``allOf``. Errors about unknown keys receive the attribute ``elsewhere``: the names that have this key."""
    for error in Draft202012Validator.VALIDATORS["allOf"](validator, parts, value, schema):
        if error.validator == "additionalProperties" and not error.path:
            owners: dict[str, list[str]] = {}
            for part in parts:
                for key in part.get("then", {}).get("properties", {}):
                    owners.setdefault(key, []).extend(f"`{name}`" for name in names_of(part))
            error.elsewhere = {
                key: f" with `name: {value.get('name')}`; `{key}` belongs to {_joined(names)}"
                for key, names in owners.items()
                if names
            }
        yield error


def _satisfies_if(validator: Any, condition: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    """Check ``if``. If one key distinguishes two kinds of map, errors about unknown keys receive ``elsewhere``, too."""
    for error in Draft202012Validator.VALIDATORS["if"](validator, condition, value, schema):
        if error.validator == "additionalProperties" and not error.path and condition.keys() == {"required"}:
            (kind,) = condition["required"]
            other = schema["else" if kind in value else "then"].get("properties", {})
            text = f"cannot be combined with `{kind}`; remove one of them" if kind in value else f"requires `{kind}`"
            error.elsewhere = {key: f"; `{key}` {text}" for key in other}
        yield error


def _joined(names: list[str]) -> str:
    """Return names in quotes as a list in a sentence, as values of `name`."""
    *first, last = names
    return "`name: " + (", ".join(first) + " or " + last if first else last).removeprefix("`")


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and value == math.inf


def _is_finite_number(checker: Any, value: Any) -> bool:
    return Draft202012Validator.TYPE_CHECKER.is_type(value, "number") and not _is_infinite(value)


# JSON schema accepts 3.0 as an integer; the code does not.
_Validator = validators.extend(
    Draft202012Validator,
    {
        "pattern": _matches_whole,
        "type": _has_type,
        "items": _has_items,
        "allOf": _satisfies_all,
        "if": _satisfies_if,
    },
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_finite_number}),
)


def _convert_whole_floats(config: dict[str, Any], errors: Iterable[ValidationError]) -> bool:
    """Convert floats with integer values that are invalid only because of their type; return whether there were any."""
    found = False
    for error in _leaves(errors):
        if error.validator == "type" and "integer" in _types(error) and _is_whole_float(error.instance):
            *parents, key = error.absolute_path
            holder = config
            for parent in parents:
                holder = holder[parent]
            holder[key] = int(error.instance)
            found = True
    return found


def _leaves(errors: Iterable[ValidationError]) -> Iterator[ValidationError]:
    """Yield errors, and recursively the errors of their alternatives (``oneOf``)."""
    for error in errors:
        yield error
        yield from _leaves(error.context)


def _is_whole_float(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def _types(error: ValidationError) -> list[str]:
    return [error.validator_value] if isinstance(error.validator_value, str) else list(error.validator_value)


def _not_finite_problem(keys: Iterable[str | int], value: float) -> str:
    if value != value:  # .nan; math.isnan fails for huge integers
        return f"{dotted(keys)}: expected a finite number, found .nan"
    return f"{dotted(keys)}: expected a finite number, found an infinite one (.inf); for no limit write a large number"


def _in_words(error: ValidationError) -> Iterator[str]:
    where = dotted(error.absolute_path)
    found = error.instance
    if _is_infinite(found):
        yield _not_finite_problem(error.absolute_path, found)
        return
    match error.validator:
        case "additionalProperties":
            known, elsewhere = list(error.schema["properties"]), getattr(error, "elsewhere", {})
            for key in (key for key in found if key not in known):
                yield f"unknown key `{key}` in {where}{elsewhere.get(key) or hint(key, known)}"
        case "required":
            # One error per missing key; its name is only in the message.
            _, key, _ = error.message.split("'")
            yield f"{where} lacks the key `{key}`{_meaning(key, error.schema, found)}"
        case "enum":
            yield f"{where}: {found!r} is not known{hint(found, error.validator_value)}"
        case "type":
            expected = f"expected {_kinds(_types(error))}, found {_kind(found)}{_yaml_hint(error)}"
            yield f"{where}: {expected}{_list_hint(error)}"
        case "pattern":
            yield f"{where}: {name_problem(found)}"
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum" | "multipleOf":
            yield f"{where}: must be {_LIMITS[error.validator]} {error.validator_value}, found {found}"
        case "maxLength":
            yield f"{where}: {found[:20]!r}... has {len(found)} characters, expected {error.validator_value} at most"
        case "minItems" | "minProperties":
            reason = f": expected {error.validator_value} or more, found {len(found)}" if found else " is empty"
            yield f"{where}{reason}"
        case "maxItems" | "maxProperties":
            yield f"{where}: expected {error.validator_value} at most, found {len(found)}"
        case "uniqueItems":
            yield f"{where}: {found} has non-unique elements"
        case "oneOf":
            texts = [text for inner in error.context for text in _in_words(inner)]
            yield f"{where}: " + "; or ".join(dict.fromkeys(text.removeprefix(f"{where}: ") for text in texts))
        case _:
            yield f"{where}: {error.message}"


_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "greater than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}
_WORDS = {
    "object": "a map",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "null": "nothing",
}


def _kinds(types: list[str]) -> str:
    return " or ".join(_WORDS[kind] for kind in types)


def _kind(value: Any) -> str:
    if value is None or isinstance(value, dict | list):
        return {dict: "a map", list: "a list"}.get(type(value), "nothing")
    return repr(value)


def _meaning(key: str, schema: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return the first sentence of the description of a key that a map lacks, if the schema has one for this map."""
    of_name = [part for part in schema.get("allOf", ()) if found.get("name") in names_of(part)]
    for part in (schema, *(part.get("then", {}) for part in of_name), schema.get("else", {})):
        stated = part.get("properties", {}).get(key)
        if isinstance(stated, Mapping) and "description" in stated:
            text = re.sub(r" \(\[below\]\([^)]*\)\)", "", stated["description"])  # links of config/README.md
            text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
            return ": " + re.split(r"[.](?: (?=[A-Z`])|$)", text, maxsplit=1)[0]
    return ""


def _list_hint(error: ValidationError) -> str:
    """Return what to write where a scalar stands in place of a list."""
    if not error.list:
        return ""
    count = error.instance
    is_count = error.absolute_path[-1] == "seeds" and 2 <= count <= 10
    return f"; write {yaml_text(error.list)}" + (f", or {list(range(count))} for {count} seeds" if is_count else "")


def _yaml_hint(error: ValidationError) -> str:
    """Return a hint about YAML 1.1, which reads ``2e-3`` as text and an unquoted ``00800`` as a number."""
    found, expected = error.instance, _types(error)
    if "string" in expected:
        return " (put it in quotes)" if isinstance(found, int | float) else ""
    if not isinstance(found, str) or not {"number", "integer"} & set(expected):
        return ""
    try:
        value = float(found)
    except ValueError:
        return ""
    if not math.isfinite(value):
        return " (write a finite number)"
    if "number" in expected:
        return f" (YAML reads this as text: write {yaml.safe_dump(value).split()[0]}, with a point and without quotes)"
    return f" (YAML reads this as text: write {int(value)}, without quotes)" if value.is_integer() else ""
