"""Queries of a loaded configuration: which scenes, splits and experiments belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loco.datasets import provides
from loco.evaluation.catalogue import BENCHMARKS

PARTS = ("train", "val", "test")


def scenes(config: Mapping[str, Any], split: str, *parts: str) -> list[tuple[str, str]]:
    """Return (dataset, scene) of the scenes in ``parts`` of a split (default: all parts), in the order of the parts."""
    split_parts = config["splits"][split]
    return [
        (dataset, scene)
        for part in parts or PARTS
        for dataset, names in split_parts.get(part, {}).items()
        for scene in names
    ]


def benchmark_scenes(config: Mapping[str, Any], split: str, benchmark: str) -> list[tuple[str, str]]:
    """Return (dataset, scene) of the test scenes of a split that provide what a benchmark requires."""
    found = scenes(config, split, "test")
    requires = BENCHMARKS[benchmark].requires
    return [place for place in found if any(need <= provided_by(config["datasets"][place[0]]) for need in requires)]


def seen_scenes(config: Mapping[str, Any], split: str, benchmark: str) -> list[tuple[str, str]]:
    """Return (dataset, scene) of the training scenes with which a benchmark compares the test scenes of a split.

    These are the training scenes that share a world frame with a test scene. For a split that is ``trained_on`` another
    split, they are training scenes of the other split. The list is empty unless the benchmark has
    ``seen_by_training: report``.
    """
    if config["benchmarks"][benchmark].get("seen_by_training", "ignore") == "ignore":
        return []
    datasets, tested = config["datasets"], benchmark_scenes(config, split, benchmark)
    frames = {datasets[dataset].get("world_frame") for dataset, _ in tested} - {None}
    found = scenes(config, training_split(config, split), "train")
    return [place for place in found if datasets.get(place[0], {}).get("world_frame") in frames]


def benchmark_splits(config: Mapping[str, Any], splits: Iterable[str], benchmark: str) -> list[str]:
    """Return the splits that have a test scene for a benchmark."""
    return [split for split in splits if benchmark_scenes(config, split, benchmark)]


def training_split(config: Mapping[str, Any], split: str) -> str:
    """Return the split whose trained models a split evaluates: itself, or its ``trained_on``."""
    return config["splits"][split].get("trained_on", split)


def published_names(config: Mapping[str, Any], split: str, benchmark: str) -> list[str]:
    """Return the names under which files of published numbers may list a split's test data.

    These are the format and the name of its dataset and, if it has a single test scene, ``<format>/<scene>``
    (:mod:`loco.results.tables.published`). The list is empty if the split tests on several datasets or on a simulated
    one, for which no numbers are published.
    """
    places = benchmark_scenes(config, split, benchmark)
    datasets = {dataset for dataset, _ in places}
    if len(datasets) != 1 or "simulate" in config["datasets"][places[0][0]]:
        return []
    name, scene = places[0]
    format = config["datasets"][name]["format"]
    return [format, name, *([f"{format}/{scene}"] if len(places) == 1 else [])]


def provided_by(dataset: Mapping[str, Any]) -> frozenset[str]:
    """Return the ground truth that a dataset's scenes provide for evaluation (:func:`loco.datasets.provides`)."""
    return provides(dataset["format"]) | ({"labels"} if "labels" in dataset else set())


def variant_experiment(name: str, ablation: Mapping[str, Any], variant: Mapping[str, Any]) -> str:
    """Return the name of the experiment of a variant of the ablation ``name``.

    A variant that changes only the split is the experiment of the ablation, trained once for all ablations based on it.
    """
    return f"{name}.{variant['name']}" if variant.keys() - {"name", "split"} else ablation["experiment"]


def ablation_rows(config: Mapping[str, Any], name: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Return a map from (split, experiment) of each variant of an ablation to its table row (split, variant name).

    Variants that are trained on different scenes and evaluated on the same scenes are grouped, under the split of the
    ablation if it is evaluated on these scenes, too.
    """
    ablation = config["ablations"][name]
    runs = variant_runs(name, ablation)
    splits = [ablation["split"], *(split for split, _ in runs)]
    tested = {split: config["splits"][split]["test"] for split in splits}
    shown = {split: next(other for other in splits if tested[other] == tested[split]) for split in splits}
    return {run: (shown[run[0]], variant["name"]) for run, variant in zip(runs, ablation["variants"])}


def variant_runs(name: str, ablation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (split, experiment) of each variant."""
    return [(v.get("split", ablation["split"]), variant_experiment(name, ablation, v)) for v in ablation["variants"]]


def figure_scene(config: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return (split, dataset, scene) of ``figures.scene`` in the first split of the run that tests on it, or None."""
    wanted = config["figures"]["scene"]
    found = ((s, dataset, scene) for s in config["run"]["splits"] for dataset, scene in scenes(config, s, "test"))
    return next((place for place in found if place[2] == wanted), None)
