"""Queries of a loaded configuration: which scenes, splits and experiments belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loco.datasets import provides
from loco.evaluation.catalogue import BENCHMARKS

PARTS = ("train", "val", "test")


def scenes(config: Mapping[str, Any], split: str, *parts: str) -> list[tuple[str, str]]:
    """(dataset, scene) pairs of a split's ``parts`` (all of them if none is named), in their order."""
    split_parts = config["splits"][split]
    return [
        (dataset, scene)
        for part in parts or PARTS
        for dataset, names in split_parts.get(part, {}).items()
        for scene in names
    ]


def benchmark_scenes(config: Mapping[str, Any], split: str, benchmark: str) -> list[tuple[str, str]]:
    """(dataset, scene) pairs of a split's test part that give what a benchmark needs."""
    found = scenes(config, split, "test")
    requires = BENCHMARKS[benchmark].requires
    return [place for place in found if any(need <= provided_by(config["datasets"][place[0]]) for need in requires)]


def seen_scenes(config: Mapping[str, Any], split: str, benchmark: str) -> list[tuple[str, str]]:
    """(dataset, scene) pairs of the training scenes that a benchmark compares a split's test scenes with.

    Those in the world frame of a test scene, of a split that is ``trained_on`` another those of the other; none unless
    the benchmark has ``seen_by_training: report``.
    """
    if config["benchmarks"][benchmark].get("seen_by_training", "ignore") == "ignore":
        return []
    datasets, tested = config["datasets"], benchmark_scenes(config, split, benchmark)
    frames = {datasets[dataset].get("world_frame") for dataset, _ in tested} - {None}
    found = scenes(config, training_split(config, split), "train")
    return [place for place in found if datasets.get(place[0], {}).get("world_frame") in frames]


def benchmark_splits(config: Mapping[str, Any], splits: Iterable[str], benchmark: str) -> list[str]:
    """Those of the splits that have a test scene for a benchmark."""
    return [split for split in splits if benchmark_scenes(config, split, benchmark)]


def training_split(config: Mapping[str, Any], split: str) -> str:
    """The split whose training a split is evaluated on: its own, or the one that it names as ``trained_on``."""
    return config["splits"][split].get("trained_on", split)


def published_names(config: Mapping[str, Any], split: str, benchmark: str) -> list[str]:
    """By which names published numbers (:mod:`loco.results.published`) mean what a split tests on.

    Its dataset's format and name, and, of a single scene, the format with its name. None for several datasets together,
    or a simulated one: no published number is of them.
    """
    places = benchmark_scenes(config, split, benchmark)
    datasets = {dataset for dataset, _ in places}
    if len(datasets) != 1 or "simulate" in config["datasets"][places[0][0]]:
        return []
    name, scene = places[0]
    format = config["datasets"][name]["format"]
    return [format, name, *([f"{format}/{scene}"] if len(places) == 1 else [])]


def provided_by(dataset: Mapping[str, Any]) -> frozenset[str]:
    """What a dataset's scenes can judge features by (:data:`loco.datasets.GIVES`)."""
    return provides(dataset["format"]) | ({"labels"} if "labels" in dataset else set())


def variant_experiment(name: str, ablation: Mapping[str, Any], variant: Mapping[str, Any]) -> str:
    """Name of the experiment that a variant of the ablation ``name`` is.

    One that changes nothing but the split is the ablation's own, trained once for all ablations that start from it.
    """
    return f"{name}.{variant['name']}" if variant.keys() - {"name", "split"} else ablation["experiment"]


def ablation_rows(config: Mapping[str, Any], name: str) -> dict[tuple[str, str], tuple[str, str]]:
    """(split, experiment) of each variant of an ablation -> where its tables have it: (split, name of the variant).

    Variants that are trained on different scenes and evaluated on the same stand together, under the ablation's own
    split if it is evaluated on these, too.
    """
    ablation = config["ablations"][name]
    runs = variant_runs(name, ablation)
    splits = [ablation["split"], *(split for split, _ in runs)]
    tested = {split: config["splits"][split]["test"] for split in splits}
    shown = {split: next(other for other in splits if tested[other] == tested[split]) for split in splits}
    return {run: (shown[run[0]], variant["name"]) for run, variant in zip(runs, ablation["variants"])}


def variant_runs(name: str, ablation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(split, experiment) of each variant."""
    return [(v.get("split", ablation["split"]), variant_experiment(name, ablation, v)) for v in ablation["variants"]]


def figure_scene(config: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """(split, dataset, scene) that the pictures show: a split of the run that tests on ``figures.scene``; else None."""
    wanted = config["figures"]["scene"]
    found = ((s, dataset, scene) for s in config["run"]["splits"] for dataset, scene in scenes(config, s, "test"))
    return next((place for place in found if place[2] == wanted), None)
