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

Run = tuple[str, str, int]  # (split, experiment, seed): what a table has a row of
Rows = dict[str, list[tuple[str, str]]]  # metric file -> the (split, name) of each row that it is shown as


class Summary:
    """What the tables and figures of a run are made from."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.config, self.run = plan, plan.config, plan.run
        self.ablations = {name: ablation_rows(self.config, name) for name in self.config.get("ablations", {})}

    @cached_property
    def titles(self) -> dict[str, str]:
        """Experiment of the run -> its name in tables and figures."""
        return {name: self.config["experiments"][name]["title"] for name in self.run["experiments"]}

    @cached_property
    def pictures(self) -> dict[str, str]:
        """``split``, ``dataset`` and ``scene`` that the pictures show; empty where none are asked for."""
        return dict(zip(("split", "dataset", "scene"), figure_scene(self.config) or ()))

    @cached_property
    def mapped_titles(self) -> dict[str, str]:
        """Those of the experiments that have feature maps, which pictures can show."""
        return {
            name: title for name, title in self.titles.items() if has_maps(self.config["experiments"][name]["model"])
        }

    @cached_property
    def figures(self) -> list[tuple[str, str]]:
        """(benchmark, figure) of the run."""
        return [(name, figure) for name in self.run["benchmarks"] for figure in BENCHMARKS[name].figures]

    def evaluated_splits(self, benchmark: str) -> list[str]:
        """The splits of the run that have test scenes for a benchmark."""
        return benchmark_splits(self.config, self.run["splits"], benchmark)

    def metric_rows(self, benchmark: str) -> Rows:
        """Metric files of the run on a benchmark -> the (split, experiment) that each is shown as."""
        runs = product(self.evaluated_splits(benchmark), self.run["experiments"], self.run["seeds"])
        return self._rows(benchmark, ((run, run[:2]) for run in runs))

    def figure_rows(self, benchmark: str, split: str) -> Rows:
        """Those of one split."""
        runs = product([split], self.run["experiments"], self.run["seeds"])
        return self._rows(benchmark, ((run, run[:2]) for run in runs))

    def figure_inputs(self, benchmark: str, split: str) -> list[str]:
        return list(self.figure_rows(benchmark, split))

    def metric_recipes(self, benchmark: str) -> dict[str, Recipe]:
        """Metric file of the run on a benchmark -> its recipe."""
        return self._recipes(self.metric_rows(benchmark))

    def ablation_benchmarks(self, ablation: str) -> list[str]:
        """The benchmarks of the run that the splits of an ablation have test scenes for."""
        splits = {split for split, _ in self.ablations[ablation]}
        return [name for name in self.run["benchmarks"] if benchmark_splits(self.config, splits, name)]

    def ablation_rows(self, ablation: str, benchmark: str) -> Rows:
        """Metric files of an ablation on a benchmark -> the (split, variant) that each is shown as."""
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
        """Those on all benchmarks."""
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
        """Names of an ablation's variants, by which its tables and plots call them."""
        return {variant: variant for _, variant in self.ablations[ablation].values()}

    @cached_property
    def trained(self) -> list[str]:
        """The experiments of the run that are trained."""
        return [name for name in self.run["experiments"] if "train" in self.config["experiments"][name]]

    @cached_property
    def curve_splits(self) -> list[str]:
        """The splits of the run that have a training of their own, where anything is trained."""
        return [split for split in self.run["splits"] if self.trained and training_split(self.config, split) == split]

    def training_curve_inputs(self, split: str) -> Files:
        runs = [(name, f"seed{seed}") for name in self.trained for seed in self.run["seeds"]]
        names = [{"split": split, "experiment": experiment, "run": run} for experiment, run in runs]
        return {
            "curves": [paths.CURVE.format(**name) for name in names],
            "models": [paths.MODEL.format(**name) for name in names],
        }

    def training_recipes(self, split: str) -> dict[str, Recipe]:
        """Model file -> its recipe."""
        return self._recipes(self.training_curve_inputs(split)["models"])

    def published(self, benchmark: str) -> dict[str, Any]:
        """What decides which published numbers the table of a benchmark shows.

        ``file``, None where there is none; ``datasets`` (:meth:`published_datasets`); ``methods``, experiment -> the
        published method that it measures anew; ``digest`` of the file.
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
        """What the caption of a benchmark's table says."""
        return BENCHMARKS[benchmark].caption

    def published_datasets(self, benchmark: str) -> dict[str, list[str]]:
        """Split -> the names by which published numbers are of what it tests on, where they can be."""
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
        """Digest of the files that the page of the explorer is filled into."""
        return template_fingerprint()

    def pictures_recipes(self) -> dict[str, Recipe]:
        """Input of the pictures -> its recipe."""
        return self._recipes(path for files in self.pictures_inputs().values() for path in files)

    def _recipes(self, files: Iterable[str]) -> dict[str, Recipe]:
        """File -> its recipe."""
        recipes = {path: self.plan.recipe_of(path) for path in files}
        if unknown := [path for path, recipe in recipes.items() if recipe is None]:
            raise ConfigError(f"no rule of the current configuration makes {unknown[0]}")
        return recipes

    def _rows(self, benchmark: str, runs: Iterable[tuple[Run, tuple[str, str]]]) -> Rows:
        """Metric file of each run -> the rows that it is shown as, each once, in the order of the runs.

        Experiments that the benchmark cannot evaluate have no row.
        """
        rows: dict[str, dict[tuple[str, str], None]] = {}
        for run, shown in runs:
            if not self.plan.evaluates(benchmark, run[1]):
                continue
            rows.setdefault(self.plan.metric_file(benchmark, *run), {})[shown] = None
        return {path: list(shown) for path, shown in rows.items()}
