"""Validate the configuration before anything runs, and report all problems together: keys and types first.

:func:`load` checks a configuration; the other functions are queries of a loaded one. :func:`check_files` checks the
YAML files themselves for problems that are lost once they are read into dicts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loco.config_deprecated import replace_deprecated
from loco.config_files import (
    check_files,
    missing_files,
    missing_tables,
    read_scene_lists,
    resolve,
    scene_identity,
)
from loco.config_layers import Merged, layers, merge_layers, read_files, with_defaults
from loco.config_phases import former_keys
from loco.config_problems import ablation_problems, cross_check, published_problems, share_training
from loco.config_queries import (
    ablation_rows,
    benchmark_scenes,
    benchmark_splits,
    figure_scene,
    provided_by,
    published_names,
    scenes,
    seen_scenes,
    training_split,
    variant_experiment,
)
from loco.config_schema import SCHEMA, infinity_to_null, name_pattern, plain_copy, schema_problems
from loco.errors import ConfigError
from loco.evaluation.catalogue import BENCHMARKS

__all__ = [
    "ablation_rows",
    "benchmark_scenes",
    "benchmark_splits",
    "check_files",
    "figure_scene",
    "layers",
    "load",
    "merge_layers",
    "missing_files",
    "provided_by",
    "published_names",
    "read_files",
    "resolve",
    "scene_identity",
    "scenes",
    "seen_scenes",
    "training_split",
]


def load(config: Mapping[str, Any], base: str | Path) -> dict[str, Any]:
    """Add the defaults to a configuration, check it, and read the scene lists that it refers to.

    Files of weights and tables of labels that the run requires must exist (:func:`missing_files`); they are not opened.
    Raw scenes are not checked here, but by the check of each scene.

    Args:
        config: as read from YAML (:func:`read_files`); every key is described in ``config/README.md``.
        base: folder of the workflow, with the schema and the defaults; scene lists and tables of labels that are not in
            the working directory are searched for there (:func:`resolve`).

    Returns:
        A copy that consists of plain dicts with sorted keys: every scene list is a list of names, every integer is an
        int, the variants of ablations are experiments, and "no limit" is None.

    Warns:
        FutureWarning: for every deprecated key and value (:mod:`loco.config_deprecated`).

    Raises:
        ConfigError: lists all violations of the schema (keys, types and ranges) or, if there are none, the other
            problems, each with its key; states the files from which the configuration was merged.
    """
    base = Path(base)
    plain, problems, not_finite = plain_copy(config)
    replace_deprecated(plain)
    problems += former_keys(plain)
    plain = with_defaults(plain, base)
    problems += schema_problems(plain, base / SCHEMA, not_finite)
    if not problems:
        problems = _problems(plain, base)
    if problems:
        source = f" ({config.source})" if isinstance(config, Merged) else ""
        raise ConfigError("\n".join([f"the configuration{source} is not valid:", *(f"  - {p}" for p in problems)]))
    return json.loads(json.dumps(infinity_to_null(plain), sort_keys=True, allow_nan=False))


def _problems(config: dict[str, Any], base: Path) -> list[str]:
    """Return the problems of a configuration that satisfies the schema; read scene lists and add variants in place."""
    problems = read_scene_lists(config, base, name_pattern(base / SCHEMA))
    problems += [*share_training(config["splits"]), *ablation_problems(config)]
    if not problems and config.get("ablations"):
        config["experiments"] |= _variants(config)
        problems = schema_problems(config, base / SCHEMA)
    if not problems:
        problems = [*cross_check(config), *published_problems(config, base)]
    defined = [name for name in config["run"]["experiments"] if name in config["experiments"]]
    missing = [problem for name in defined for problem in missing_files(config, name)]
    if any("labels" in need for name in config["run"]["benchmarks"] for need in _requires(name)):
        missing += missing_tables(config, config["run"]["splits"], base)
    return [*problems, *missing]


def _requires(benchmark: str) -> tuple[frozenset[str], ...]:
    """Return what a benchmark requires of its test scenes; nothing for an unknown one, which is reported elsewhere."""
    return BENCHMARKS[benchmark].requires if benchmark in BENCHMARKS else ()


def _variants(config: dict[str, Any]) -> dict[str, Any]:
    """Return the experiments that the variants of all ablations add."""
    experiments = {}
    for name, ablation in config["ablations"].items():
        base = config["experiments"][ablation["experiment"]]
        for variant in ablation["variants"]:
            changes = {key: value for key, value in variant.items() if key not in ("name", "split")}
            experiment = variant_experiment(name, ablation, variant)
            if experiment != ablation["experiment"]:
                experiments[experiment] = {**_laid_over(base, changes), "title": variant["name"]}
    return experiments


def _laid_over(base: Any, changes: Any) -> Any:
    """Merge ``changes`` into ``base``: maps are merged unless their `name` differs, and null removes a key."""
    mergeable = isinstance(base, dict) and isinstance(changes, dict)
    if not mergeable or changes.get("name", base.get("name")) != base.get("name"):
        return changes
    merged = base | {key: _laid_over(base.get(key), value) for key, value in changes.items()}
    return {key: value for key, value in merged.items() if value is not None or key not in changes}
