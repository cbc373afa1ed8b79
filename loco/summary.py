"""The results of a run: which metric files each table and figure shows, and under which names."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import product
from typing import Any

from loco import paths
from loco.config import (
    ablation_rows,
    benchmark_scenes,
    benchmark_splits,
    figure_scene,
    published_names,
    training_split,
)
from loco.errors import ConfigError
from loco.evaluation.catalogue import BENCHMARKS
from loco.fingerprints import file_fingerprint
from loco.models.catalogue import has_maps
from loco.plan import Files, Plan
from loco.records import Recipe
from loco.results.explorer.template import template_fingerprint

Run = tuple[str, str, int]  # (split, experiment, seed)
Rows = dict[str, list[tuple[str, str]]]  # metric file -> (split, name) of each table row that shows it


class Summary:
    """The inputs of the tables and figures of a run."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.config, self.run = plan, plan.config, plan.run
        self.ablations = {name: ablation_rows(self.config, name) for name in self.config.get("ablations", {})}

    @cached_property
    def titles(self) -> dict[str, str]:
        """The titles of the experiments of the run in tables and figures: a map from experiment to title."""
        return {name: self.config["experiments"][name]["title"] for name in self.run["experiments"]}

    @cached_property
    def pictures(self) -> dict[str, str]:
        """The ``split``, ``dataset`` and ``scene`` that the pictures show; empty if no pictures are requested."""
        return dict(zip(("split", "dataset", "scene"), figure_scene(self.config) or ()))

    @cached_property
    def mapped_titles(self) -> dict[str, str]:
        """As :attr:`titles`, for the experiments that have feature maps, which pictures can show."""
        return {
            name: title for name, title in self.titles.items() if has_maps(self.config["experiments"][name]["model"])
        }

    @cached_property
    def figures(self) -> list[tuple[str, str]]:
        """(benchmark, figure) of all figures of the run."""
        return [(name, figure) for name in self.run["benchmarks"] for figure in BENCHMARKS[name].figures]

    def evaluated_splits(self, benchmark: str) -> list[str]:
        """Return the splits of the run that have test scenes for a benchmark."""
        return benchmark_splits(self.config, self.run["splits"], benchmark)

    def metric_rows(self, benchmark: str) -> Rows:
        """Return the metric files of the run on a benchmark, each with the (split, experiment) rows that show it."""
        runs = product(self.evaluated_splits(benchmark), self.run["experiments"], self.run["seeds"])
        return self._rows(benchmark, ((run, run[:2]) for run in runs))

    def figure_rows(self, benchmark: str, split: str) -> Rows:
        """Return the metric files of the run on a benchmark and split, each with the rows that show it."""
        runs = product([split], self.run["experiments"], self.run["seeds"])
        return self._rows(benchmark, ((run, run[:2]) for run in runs))

    def figure_inputs(self, benchmark: str, split: str) -> list[str]:
        return list(self.figure_rows(benchmark, split))

    def metric_recipes(self, benchmark: str) -> dict[str, Recipe]:
        """Return a map from each metric file of the run on a benchmark to its recipe."""
        return self._recipes(self.metric_rows(benchmark))

    def ablation_benchmarks(self, ablation: str) -> list[str]:
        """Return the benchmarks of the run for which the splits of an ablation have test scenes."""
        splits = {split for split, _ in self.ablations[ablation]}
        return [name for name in self.run["benchmarks"] if benchmark_splits(self.config, splits, name)]

    def ablation_rows(self, ablation: str, benchmark: str) -> Rows:
        """Return the metric files of an ablation on a benchmark, each with the (split, variant) rows that show it."""
        return self._rows(
            benchmark,
            (
                ((split, experiment, seed), shown)
                for (split, experiment), shown in self.ablations[ablation].items()
                if benchmark_scenes(self.config, split, benchmark)
                for seed in self.config["ablations"][ablation]["seeds"]
            ),
        )

    def all_ablation_rows(self, ablation: str) -> Rows:
        """Return the metric files of an ablation on all benchmarks, each with the rows that show it."""
        parts = (self.ablation_rows(ablation, benchmark) for benchmark in self.ablation_benchmarks(ablation))
        return {path: shown for part in parts for path, shown in part.items()}

    def ablation_table_inputs(self, ablation: str, benchmark: str) -> list[str]:
        return list(self.ablation_rows(ablation, benchmark))

    def ablation_plot_inputs(self, ablation: str) -> list[str]:
        return list(self.all_ablation_rows(ablation))

    def ablation_table_recipes(self, ablation: str, benchmark: str) -> dict[str, Recipe]:
        return self._recipes(self.ablation_rows(ablation, benchmark))

    def ablation_plot_recipes(self, ablation: str) -> dict[str, Recipe]:
        return self._recipes(self.all_ablation_rows(ablation))

    def variant_titles(self, ablation: str) -> dict[str, str]:
        """Return the titles of the variants of an ablation in its tables and plots, which are their names."""
        return {variant: variant for _, variant in self.ablations[ablation].values()}

    @cached_property
    def trained(self) -> list[str]:
        """The experiments of the run that are trained."""
        return [name for name in self.run["experiments"] if "train" in self.config["experiments"][name]]

    @cached_property
    def curve_splits(self) -> list[str]:
        """The splits of the run on which experiments are trained, without splits that are ``trained_on`` another."""
        return [split for split in self.run["splits"] if self.trained and training_split(self.config, split) == split]

    def training_curve_inputs(self, split: str) -> Files:
        runs = [(name, f"seed{seed}") for name in self.trained for seed in self.run["seeds"]]
        names = [{"split": split, "experiment": experiment, "run": run} for experiment, run in runs]
        return {
            "curves": [paths.CURVE.format(**name) for name in names],
            "models": [paths.MODEL.format(**name) for name in names],
        }

    def training_recipes(self, split: str) -> dict[str, Recipe]:
        """Return a map from each model file of the training curves of a split to its recipe."""
        return self._recipes(self.training_curve_inputs(split)["models"])

    def published(self, benchmark: str) -> dict[str, Any]:
        """Return the settings that determine which published numbers the table of a benchmark shows.

        Returns:
            ``file``, the file of published numbers, and its ``digest``, or None if there is none; ``datasets``
            (:meth:`published_datasets`); ``methods``, a map from experiment to the published method that it reproduces.
        """
        file, datasets = (
            self.plan.base / "config" / "published_results" / f"{benchmark}.csv",
            self.published_datasets(benchmark),
        )
        shown = bool(datasets) and file.is_file()
        experiments = self.config["experiments"]
        return {
            "file": str(file) if shown else None,
            "digest": file_fingerprint(file) if shown else None,
            "datasets": datasets,
            "methods": {
                n: experiments[n]["published"] for n in self.run["experiments"] if "published" in experiments[n]
            },
        }

    def caption(self, benchmark: str) -> dict[str, str]:
        """Return the parts of the caption of the table of a benchmark, by name, for ``report/benchmark.rst``."""
        return BENCHMARKS[benchmark].caption

    def published_datasets(self, benchmark: str) -> dict[str, list[str]]:
        """Return split -> names under which numbers on its test data may be published; no split without a name."""
        splits = benchmark_splits(self.config, self.run["splits"], benchmark)
        names = {split: published_names(self.config, split, benchmark) for split in splits}
        return {split: found for split, found in names.items() if found}

    def pictures_inputs(self) -> Files:
        split, key = self.pictures["split"], (self.pictures["dataset"], self.pictures["scene"])
        stride = self.config["datasets"][key[0]]["patches"]["stride"]
        names = [(name, self.plan.checkpoint(name, split, self.run["seeds"][0])) for name in self.mapped_titles]
        return {
            "frames": self.plan.frames_of([key]),
            "correspondences": self.plan.correspondences_of([key], stride),
            "features": [
                paths.FEATURES.format(experiment=experiment, checkpoint=checkpoint, dataset=key[0], scene=key[1])
                for experiment, checkpoint in names
            ],
        }

    @cached_property
    def explorer_template(self) -> str:
        """Digest of the template files of the explorer page."""
        return template_fingerprint()

    def pictures_recipes(self) -> dict[str, Recipe]:
        """Return a map from each input of the pictures to its recipe."""
        return self._recipes(path for files in self.pictures_inputs().values() for path in files)

    def _recipes(self, files: Iterable[str]) -> dict[str, Recipe]:
        """Return a map from each file to its recipe."""
        recipes = {path: self.plan.recipe_of(path) for path in files}
        if unknown := [path for path, recipe in recipes.items() if recipe is None]:
            raise ConfigError(f"no rule of the current configuration makes the file {unknown[0]}")
        return recipes

    def _rows(self, benchmark: str, runs: Iterable[tuple[Run, tuple[str, str]]]) -> Rows:
        """Return the metric file of each run with the rows that show it, without repetition, in the order of the runs.

        Experiments that the benchmark cannot evaluate have no row.
        """
        rows: dict[str, dict[tuple[str, str], None]] = {}
        for run, shown in runs:
            if not self.plan.evaluates(benchmark, run[1]):
                continue
            rows.setdefault(self.plan.metric_file(benchmark, *run), {})[shown] = None
        return {path: list(shown) for path, shown in rows.items()}
