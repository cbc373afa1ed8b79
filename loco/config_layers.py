"""Merge the layers of a configuration: defaults, extended files, files of ``--configfile``, and the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from loco.config_files import check_files, read_text
from loco.errors import ConfigError, printable

DEFAULTS, DEMO = "config/defaults.yaml", "config/config.yaml"
EVERY = "*"  # key of `datasets` and `experiments`: values of every entry that does not set them
MADE = ("simulate", "reconstruct")  # keys of datasets whose raw scenes the workflow writes


class Merged(dict[str, Any]):
    """A configuration that was merged from files.

    Attributes:
        source: the files, as messages name them: `my.yaml, extends config.yaml`.
    """

    source = ""


def workflow_folder() -> Path | None:
    """Return the folder with the Snakefile: the working directory, else that of this installation, else None."""
    candidates = (Path.cwd(), Path(__file__).parents[1])
    return next((folder for folder in candidates if (folder / "Snakefile").is_file()), None)


def read_files(
    paths: Iterable[str | Path], base: str | Path, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read configuration files, and merge them with all files that they extend.

    Args:
        paths: files in the order of ``--configfile``; the demo if there are none.
        base: folder of the workflow.
        overrides: as for :func:`merge_layers`.

    Returns:
        As :func:`merge_layers`.

    Raises:
        ConfigError: as :func:`layers`.
    """
    return merge_layers(layers(paths, base), overrides)


def merge_layers(files: Iterable[Path], overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Merge configuration files: maps are merged, everything else is replaced by the later value.

    Args:
        files: all files that the configuration consists of, in ascending order of precedence (:func:`layers`).
        overrides: values of ``--config``, which replace those of all files. Snakemake reads nested numbers as text;
            they are converted.

    Returns:
        The configuration without defaults, which :func:`loco.config.load` adds and checks.
    """
    config: Any = {}
    contents = [(file, _read(file)) for file in files]
    for _, content in contents:
        config = laid_over(config, content)
    config.pop("extends", None)
    merged = Merged(laid_over(config, _typed(overrides or {})))
    merged.source = _source(contents) + (", --config" if overrides else "")
    return merged


def _source(contents: Sequence[tuple[Path, Mapping[str, Any]]]) -> str:
    """Return the names of files in a message: those of the command line, and then those that they extend."""
    named, extended = [], []
    for file, content in reversed(contents):  # an extended file precedes the file that names it
        if all(Path(wanted).name != file.name for wanted in extended):
            named.append(os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file))
        if (wanted := content.get("extends")) is not None:
            extended.append(wanted)
    texts = [*reversed(named), *(f"extends {wanted}" for wanted in dict.fromkeys(extended))]
    return printable(", ".join(texts))


def layers(paths: Iterable[str | Path], base: str | Path) -> list[Path]:
    """Return the files that a configuration consists of, in ascending order of precedence.

    All extended files precede the files of the command line, so that an inherited value never overrides a value of the
    latter. Every file is included once, at its first position.

    Args:
        paths: as in :func:`read_files`.
        base: folder of the workflow.

    Raises:
        ConfigError: a file cannot be read, is not valid (:func:`loco.config.check_files`), or extends itself or a file
            that does not exist.
    """
    named = [Path(path) for path in paths] or [Path(base, DEMO)]
    check_files(named)
    extended = [file for path in named for file in reversed(_extended(path, Path(base)))]
    found: dict[str, Path] = {}  # real path -> path as passed
    for file in [*extended, *named]:
        found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def laid_over(lower: Any, upper: Any) -> Any:
    """Merge ``upper`` into ``lower``: maps are merged, everything else is replaced. Arguments are not changed."""
    if not (isinstance(lower, Mapping) and isinstance(upper, Mapping)):
        return upper
    return {**lower, **{key: laid_over(lower.get(key), value) for key, value in upper.items()}}


def with_defaults(config: Mapping[str, Any], base: str | Path) -> dict[str, Any]:
    """Return a configuration completed with the values of ``config/defaults.yaml``.

    The entry ``*`` of ``datasets`` and ``experiments`` provides the defaults of all other entries. The defaults of
    ``train`` apply only to experiments with a ``train`` block. Of the defaults of ``train.batch``, which describe
    batches of overlapping images, a batch of positive pairs (with ``radius``) takes only ``patches_per_image``. An
    experiment without ``title`` gets its name as title. A simulated or reconstructed dataset without ``raw`` gets the
    folder to which its scenes are written.

    Args:
        config: plain dicts (:func:`loco.config_schema.plain_copy`); may violate the schema.
        base: folder of the workflow.

    Raises:
        ConfigError: ``config/defaults.yaml`` cannot be read or is not valid (:func:`loco.config.check_files`).
    """
    file = Path(base, DEFAULTS)
    check_files([file])
    merged = laid_over(_read(file), config)
    for kind, complete in (("datasets", laid_over), ("experiments", experiment_with_defaults)):
        entries = merged.get(kind)
        if isinstance(entries, dict):
            every = entries.get(EVERY)
            merged[kind] = {name: complete(every, entry) for name, entry in entries.items() if name != EVERY}
    if isinstance(merged.get("datasets"), dict):
        for name, entry in merged["datasets"].items():
            if isinstance(entry, dict) and not entry.keys().isdisjoint(MADE):
                entry.setdefault("raw", made_folder(name))
    if isinstance(merged.get("experiments"), dict):
        for name, entry in merged["experiments"].items():
            if isinstance(entry, dict):
                entry.setdefault("title", name)
    return merged


def made_folder(dataset: str) -> str:
    """Return the folder of the scenes of a simulated or reconstructed dataset (:data:`MADE`)."""
    return f"results/raw/{dataset}"


def experiment_with_defaults(defaults: Any, experiment: Any) -> Any:
    """Return an experiment completed with the defaults that apply to it (:func:`with_defaults`)."""
    if not (isinstance(defaults, dict) and isinstance(experiment, dict)):
        return experiment
    used = dict(defaults)
    train = experiment.get("train")
    if not isinstance(train, dict):
        used.pop("train", None)
    elif isinstance(train.get("batch"), dict) and "radius" in train["batch"] and isinstance(used.get("train"), dict):
        # Batches of positive pairs and batches of overlapping images share this key only.
        patches = used["train"].get("batch", {}).get("patches_per_image")
        used["train"] = {**used["train"], "batch": {"patches_per_image": patches}}
    return laid_over(used, dict(experiment))


def _extended(path: Path, base: Path) -> list[Path]:
    """Return the chain of extended files: the file that ``path`` extends, the file that this one extends, and so on.

    Each is searched for in the folder of the file that names it, and then in ``config/`` of the workflow, so that a
    user's file named `config.yaml` can extend the demo.
    """
    chain = [path]
    while (wanted := _read(chain[-1]).get("extends")) is not None:
        file = chain[-1]
        if not isinstance(wanted, str):
            raise ConfigError(f"{file}: extends: expected the path of one file, found {wanted!r}; name a single file")
        places = [file.parent / wanted, base / "config" / wanted]
        found = (place for place in places if os.path.isfile(place))
        lower = next((place for place in found if not os.path.samefile(place, file)), None)
        if lower is None:
            looked = printable(" and ".join(dict.fromkeys(map(str, places))))
            raise ConfigError(
                f"{file}: extends: there is no file {printable(wanted)} (looked for {looked}); correct the path"
            )
        if os.path.realpath(lower) in map(os.path.realpath, chain):
            names = " -> ".join(map(str, [*chain, lower]))
            raise ConfigError(f"{file}: extends: {wanted} extends this file itself ({names}); remove one `extends`")
        check_files([lower])
        chain.append(lower)
    return chain[1:]


def _read(file: Path) -> dict[str, Any]:
    """Return the content of a file that :func:`loco.config.check_files` accepts: JSON or YAML."""
    text = read_text(file)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _typed(value: Any) -> Any:
    """Convert text in values of the command line that YAML reads as a number, true, false or null."""
    if isinstance(value, Mapping):
        return {key: _typed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_typed(item) for item in value]
    if isinstance(value, str):
        try:
            read = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):
            return value
        return read if value and (read is None or isinstance(read, int | float)) else value
    return value
