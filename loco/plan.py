"""The plan of a run: which job reads which files, with which settings, and how each file must have been made.

:class:`Plan` depends on the configuration and the paths, and not on Snakemake; the rules call it. Each step of the
workflow from raw scenes to scores has up to two methods here: ``<step>_inputs(...)``, the files that its job reads, and
``<step>_recipe(...)``, how its output must be made (:class:`loco.records.Recipe`). Their arguments are the wildcards of
the rule. A recipe contains the recipes of the inputs, down to the raw data, so a step can check the complete origin of
its inputs. The content of tables and figures is planned in :mod:`loco.summary`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from loco import paths
from loco.config import (
    benchmark_scenes,
    provided_by,
    resolve,
    scenes,
    seen_scenes,
    training_split,
)
from loco.datasets import conventions_of, label_files, label_state, raw_files, raw_state
from loco.datasets.catalogue import FORMATS
from loco.errors import ConfigError
from loco.evaluation.catalogue import BENCHMARKS
from loco.fingerprints import code_fingerprint, file_fingerprint, settings_fingerprint
from loco.models.catalogue import COMPUTED, has_maps, is_deterministic, modules_of, stride_of
from loco.own_code import source_files
from loco.records import Recipe
from loco.simulate.catalogue import WRITERS
from loco.weights import computed_files, model_file, weight_files

DETERMINISTIC = "deterministic"  # replaces `seed<n>` in names of runs that do not depend on the seed
_CACHED = (
    "checkpoint",
    "encoder",
    "evaluated_scenes",
    "is_made",
    "raw_files",
    "test_scenes",
    "training_correspondences",
    "_evaluated_files",
    "_required",
    "_tested_split",
)
SceneKey = tuple[str, str]  # (dataset, scene)
Files = dict[str, Any]  # role -> a path or a list of paths


class Plan:
    """The files of a run, and the recipe of each, as determined by the configuration."""

    def __init__(self, config: Mapping[str, Any], base: str | Path) -> None:
        """
        Args:
            config: a configuration of :func:`loco.config.load`.
            base: folder of the workflow, with the Snakefile.
        """
        self.config, self.base = config, Path(base)
        self.run = config["run"]
        self._building: list[str] = []  # models whose recipe is being built, to detect circular references
        for name in dir(type(self)):
            if name.endswith("_recipe") or name in _CACHED:
                setattr(self, name, cache(getattr(self, name)))

    # Scenes, encoders, datasets and experiments

    @cached_property
    def scenes(self) -> list[SceneKey]:
        """(dataset, scene) of all splits of the run, without repetition."""
        return list(dict.fromkeys(key for split in self.run["splits"] for key in scenes(self.config, split)))

    @cached_property
    def labelled_scenes(self) -> list[SceneKey]:
        """(dataset, scene) of all splits of the run whose dataset has labels."""
        return [key for key in self.scenes if key[0] in self.datasets_with("labels")]

    @cached_property
    def encoders(self) -> dict[str, dict[str, Any]]:
        """The encoders whose features are stored: a map from name to configuration."""
        return {name: self._encoder_model(e) for e in self.config["experiments"] if (name := self.encoder(e))}

    def datasets_with(self, block: str) -> list[str]:
        """Return the names of the datasets whose configuration has this block."""
        return [name for name, dataset in self.config["datasets"].items() if block in dataset]

    def experiments_with(self, block: str) -> list[str]:
        """Return the names of the experiments whose configuration has this block (``train`` or ``pca``)."""
        return [name for name, experiment in self.config["experiments"].items() if block in experiment]

    # Names of runs, checkpoints and metric files

    def is_deterministic(self, experiment: str) -> bool:
        """Return whether the features of an experiment do not depend on the seed."""
        setup = self.config["experiments"][experiment]
        return "train" not in setup and is_deterministic(setup["model"])

    def run_name(self, experiment: str, seed: int) -> str:
        """Return the name of one run of an experiment: ``seed<n>``, or ``deterministic``."""
        return DETERMINISTIC if self._without_seed(experiment) else f"seed{seed}"

    def checkpoint(self, experiment: str, split: str, seed: int) -> str:
        """Return the name of the weights of an experiment: ``<split>-<run>``, or ``<run>`` if they are not fitted."""
        name = self.run_name(experiment, seed)
        return f"{training_split(self.config, split)}-{name}" if self._fitted_by(experiment) else name

    def metric_file(self, benchmark: str, split: str, experiment: str, seed: int) -> str:
        """Return the path of the metric file of one run.

        Runs of the same extractor on the same test scenes have equal scores, so they share one file.
        """
        return paths.METRICS.format(
            benchmark=benchmark,
            split=self._tested_split(benchmark, split),
            experiment=experiment,
            checkpoint=self.checkpoint(experiment, split, seed),
        )

    # Raw scenes

    def simulate_recipe(self, dataset: str) -> Recipe:
        setup = self.config["datasets"][dataset]
        code = self.step_code("simulate", f"simulate/{WRITERS[setup['format']]}")
        return Recipe("simulate", code, {"format": setup["format"], **setup["simulate"]})

    def reconstruct_inputs(self, dataset: str, scene: str) -> Files:
        images = Path(self.config["datasets"][dataset]["reconstruct"]["images"], scene)
        if not images.is_dir():
            raise ConfigError(
                f"datasets.{dataset}.reconstruct.images: the folder {images} does not exist\n"
                "  what to do: copy the photographs of the scene to this folder, or remove the scene from the splits"
            )
        return {"images": str(images)}

    def reconstruct_recipe(self, dataset: str) -> Recipe:
        return Recipe("reconstruct", self.step_code("reconstruct"), self.config["datasets"][dataset]["reconstruct"])

    def is_made(self, dataset: str) -> bool:
        """Return whether the workflow makes the raw scenes of a dataset (by simulation or reconstruction)."""
        return bool(self.config["datasets"][dataset].keys() & {"simulate", "reconstruct"})

    def raw_files(self, dataset: str, scene: str) -> list[str]:
        """Return the raw files of a scene: the folder that a rule makes, or the files that exist.

        The check of the scene reports missing files.
        """
        return self._raw_files(raw_files, dataset, scene)

    def raw_label_files(self, dataset: str, scene: str) -> list[str]:
        """Return the raw files with the labels of a scene; otherwise as :meth:`raw_files`."""
        return self._raw_files(label_files, dataset, scene)

    def raw_state(self, dataset: str, scene: str) -> str:
        """Return a digest of the names, sizes and times of a scene's raw files; empty if the workflow makes them.

        The modification time of a folder does not change when a file in it is rewritten, so it does not suffice.
        """
        setup = self.config["datasets"][dataset]
        return "" if self.is_made(dataset) else raw_state(setup["format"], Path(setup["raw"]), scene)

    def label_state(self, dataset: str, scene: str) -> str:
        """Return a digest of the names, sizes and times of the files with the labels, as :meth:`raw_state`."""
        setup = self.config["datasets"][dataset]
        return "" if self.is_made(dataset) else label_state(setup["format"], Path(setup["raw"]), scene)

    def check_scene_recipe(self, dataset: str) -> Recipe:
        setup = self.config["datasets"][dataset]
        settings = {"format": setup["format"], "raw": setup["raw"], **setup["check"], **conventions_of(setup)}
        return Recipe("check_scene", self._raw_code("check_scene", dataset), settings, self._made_raw(dataset))

    def check_labels_recipe(self, dataset: str) -> Recipe:
        setup = self.config["datasets"][dataset]
        settings = {"format": setup["format"], "raw": setup["raw"], **setup["check"]}
        return Recipe("check_labels", self._raw_code("check_labels", dataset), settings, self._made_raw(dataset))

    def prepared_sizes(self) -> dict[str, dict[str, int]]:
        """Return for each dataset the settings that determine the disk space of its scenes.

        These are ``height``, ``width``, ``every`` and ``stride``.
        """
        return {
            name: {key: setup["frames"].get(key, 1) for key in ("height", "width", "every")}
            | {"stride": setup["patches"]["stride"]}
            for name, setup in self.config["datasets"].items()
        }

    def manifest_recipes(self) -> dict[str, Recipe]:
        """Return a map from each dataset of the run to the recipe of its manifests."""
        return {dataset: self.check_scene_recipe(dataset) for dataset in dict.fromkeys(d for d, _ in self.scenes)}

    # Frames, and files that are made from frames only

    def fuse_recipe(self, dataset: str) -> Recipe:
        setup = self.config["datasets"][dataset]
        settings = {"format": setup["format"], **setup["fuse"]}
        inputs = {"check_scene": self.check_scene_recipe(dataset)}
        return Recipe("fuse", self._raw_code("fuse", dataset), settings, inputs)

    def frames_inputs(self, dataset: str, scene: str) -> Files:
        fused = "fuse" in self.config["datasets"][dataset]
        names = {"dataset": dataset, "scene": scene}
        return {"manifest": paths.MANIFEST.format(**names), "mesh": paths.MESH.format(**names) if fused else []}

    def frames_recipe(self, dataset: str) -> Recipe:
        setup = self.config["datasets"][dataset]
        inputs = {"check_scene": self.check_scene_recipe(dataset)}
        inputs |= {"fuse": self.fuse_recipe(dataset)} if "fuse" in setup else {}
        settings = {"format": setup["format"], **setup["frames"]}
        return Recipe("frames", self._raw_code("frames", dataset), settings, inputs)

    def correspondence_recipe(self, dataset: str, stride: int | str) -> Recipe:
        tolerance = self.config["datasets"][dataset]["patches"]["overlap_tolerance"]
        settings = {"stride": int(stride), "overlap_tolerance": tolerance}
        return Recipe("correspondence", self.step_code("correspondence"), settings, self._from_frames(dataset))

    def pairs_recipe(self, dataset: str, stride: int | str, radius: float | str) -> Recipe:
        inputs = {"correspondence": self.correspondence_recipe(dataset, stride)}
        return Recipe("pairs", self.step_code("pairs"), {"radius": float(radius)}, inputs)

    def label_mapping(self, dataset: str) -> str:
        """Return the path of the table of raw labels of a dataset.

        Raises:
            ConfigError: the table does not exist.
        """
        mapping = str(resolve(self.config["datasets"][dataset]["labels"]["mapping"], self.base))
        if not Path(mapping).is_file():
            raise ConfigError(
                f"datasets.{dataset}.labels.mapping: the table {mapping} does not exist\n"
                "  what to do: correct the path or download the table"
            )
        return mapping

    def label_recipe(self, dataset: str) -> Recipe:
        mapping = file_fingerprint(self.label_mapping(dataset))
        settings = {"format": self.config["datasets"][dataset]["format"], "mapping": mapping}
        inputs = self._from_frames(dataset) | {"check_labels": self.check_labels_recipe(dataset)}
        return Recipe("label", self._raw_code("label", dataset), settings, inputs)

    # Models

    def encoder(self, experiment: str) -> str | None:
        """Return the name of the encoder whose stored features an experiment reads; None if it computes them."""
        stored = self.config["experiments"][experiment].get("cache")
        return settings_fingerprint(self._encoder_model(experiment))[:12] if stored else None

    def encode_inputs(self, encoder: str, dataset: str, scene: str) -> Files:
        return {
            "frames": paths.FRAMES.format(dataset=dataset, scene=scene),
            "weights": self._present(weight_files(self.encoders[encoder])),
        }

    def encode_recipe(self, encoder: str, dataset: str) -> Recipe:
        model = self.encoders[encoder]
        return Recipe("encode", self._model_code("encode", model), {"model": model}, self._from_frames(dataset))

    def train_inputs(self, split: str, experiment: str) -> Files:
        setup = self.config["experiments"][experiment]
        files: Files = {}
        for part in ("train", "val"):
            keys = scenes(self.config, split, part)
            files |= {
                f"{part}_frames": self.frames_of(keys),
                f"{part}_correspondences": self.correspondences_of(keys, stride_of(setup["model"])),
                f"{part}_encoded": self._encoded_of(experiment, keys),
            }
        files["train_pairs"] = self._pairs_of(experiment, scenes(self.config, split, "train"))
        init = self._present([model_file(setup["train"]["init"])]) if "init" in setup["train"] else []
        return files | {"weights": self._weights_of(experiment), "init": init}

    def train_recipe(self, split: str, experiment: str, run: str) -> Recipe:
        setup = self.config["experiments"][experiment]
        settings = {
            "model": setup["model"],
            "train": setup["train"],
            "seed": _seed_of(run),
            "data": self._training_data(split),
        }
        inputs = self._scene_recipes(experiment, split, ("train", "val"), stride_of(setup["model"]))
        if radius := setup["train"]["batch"].get("radius"):
            for dataset in dict.fromkeys(dataset for dataset, _ in scenes(self.config, split, "train")):
                inputs[f"pairs/{dataset}"] = self.pairs_recipe(dataset, stride_of(setup["model"]), radius)
        inputs |= self._product("init", setup["train"].get("init"))
        inputs |= self._pretrained(setup["model"])
        return Recipe("train", self._model_code("train", setup["model"]), settings, inputs)

    def fit_pca_inputs(self, split: str, experiment: str) -> Files:
        keys = scenes(self.config, split, "train")
        return {
            "frames": self.frames_of(keys),
            "encoded": self._encoded_of(experiment, keys),
            "weights": self._weights_of(experiment),
        }

    def fit_pca_recipe(self, split: str, experiment: str, run: str) -> Recipe:
        setup = self.config["experiments"][experiment]
        settings = {
            "model": setup["model"],
            "whiten": setup["pca"].get("whiten", False),
            "seed": _seed_of(run),
            "data": {"train": self._training_data(split)["train"]},
        }
        inputs = self._scene_recipes(experiment, split, ("train",)) | self._pretrained(setup["model"])
        return Recipe("fit_pca", self._model_code("fit_pca", setup["model"]), settings, inputs)

    def extract_inputs(self, experiment: str, checkpoint: str, dataset: str, scene: str) -> Files:
        model: str | list[str] = []
        if self._fitted_by(experiment):
            model = paths.MODEL.format(**dict(zip(("split", "experiment", "run"), self._named(experiment, checkpoint))))
        return {
            "frames": paths.FRAMES.format(dataset=dataset, scene=scene),
            "checkpoint": model,
            "weights": self._weights_of(experiment) + self._computed_of(experiment, dataset, scene),
            "encoded": self._encoded_of(experiment, [(dataset, scene)]),
        }

    def extract_recipe(self, experiment: str, checkpoint: str, dataset: str) -> Recipe:
        setup, fitted = self.config["experiments"][experiment], self._fitted_by(experiment)
        inputs = self._from_frames(dataset) | self._pretrained(setup["model"])
        if fitted:
            inputs["model"] = fitted(*self._named(experiment, checkpoint))
        if encoder := self.encoder(experiment):
            inputs["encode"] = self.encode_recipe(encoder, dataset)
        settings = {"model": setup["model"], "seed": None if fitted else _seed_of(checkpoint)}
        return Recipe("extract", self._model_code("extract", setup["model"]), settings, inputs)

    # Scores

    def test_scenes(self, benchmark: str, split: str) -> list[SceneKey]:
        """Return (dataset, scene) of the test scenes of a split that provide what a benchmark requires."""
        return benchmark_scenes(self.config, split, benchmark)

    def evaluates(self, benchmark: str, experiment: str) -> bool:
        """Return whether a benchmark can evaluate an experiment; most benchmarks require feature maps."""
        return BENCHMARKS[benchmark].keypoints or has_maps(self.config["experiments"][experiment]["model"])

    def evaluate_inputs(self, benchmark: str, split: str, experiment: str, checkpoint: str) -> Files:
        columns = zip(*self.evaluated_scenes(benchmark, split, experiment, checkpoint))
        roles = ("frames", "correspondences", "features", "labels")
        files = {role: [path for path in column if path] for role, column in zip(roles, columns)}
        training = dict.fromkeys(path for part in self.training_correspondences(benchmark, split) for path in part)
        return files | {"training": list(training)}

    def evaluated_scenes(self, benchmark: str, split: str, experiment: str, checkpoint: str) -> list[list[str | None]]:
        """Return the paths of frames, correspondences, features and labels of each test scene of a benchmark.

        A path is None if the benchmark does not require the file.
        """
        keys = self.test_scenes(benchmark, split)
        datasets = dict.fromkeys(dataset for dataset, _ in keys)
        patterns = {name: self._evaluated_files(benchmark, experiment, checkpoint, name) for name in datasets}
        return [[path and path.format(scene=scene) for path in patterns[dataset]] for dataset, scene in keys]

    def training_correspondences(self, benchmark: str, split: str) -> list[list[str]]:
        """Return for each test scene of a benchmark the correspondences of the training scenes in its world frame."""
        datasets = self.config["datasets"]
        by_frame: dict[str, list[str]] = {}
        for key in seen_scenes(self.config, split, benchmark):
            setup = datasets[key[0]]
            by_frame.setdefault(setup["world_frame"], []).extend(
                self.correspondences_of([key], setup["patches"]["stride"])
            )
        return [
            by_frame.get(datasets[dataset].get("world_frame"), []) for dataset, _ in self.test_scenes(benchmark, split)
        ]

    def evaluate_recipe(self, benchmark: str, split: str, experiment: str, checkpoint: str) -> Recipe:
        keys = self.test_scenes(benchmark, split)
        inputs, model = {}, self.config["experiments"][experiment]["model"]
        for dataset in dict.fromkeys(dataset for dataset, _ in keys):
            inputs |= self._evaluated_recipes(benchmark, experiment, checkpoint, dataset)
        seen = seen_scenes(self.config, split, benchmark)
        for dataset in dict.fromkeys(dataset for dataset, _ in seen):
            stride = self.config["datasets"][dataset]["patches"]["stride"]
            inputs[f"correspondence/{dataset}"] = self.correspondence_recipe(dataset, stride)
        settings = {
            "benchmark": benchmark,
            "settings": self.config["benchmarks"][benchmark],
            "scenes": [list(key) for key in keys],
            "seed": _seed_of(checkpoint),
            **({"training": [list(key) for key in seen]} if seen else {}),
            **({} if has_maps(model) else {"keypoints": model}),
        }
        return Recipe("evaluate", self.step_code("evaluate", f"evaluation/{benchmark}"), settings, inputs)

    def evaluate_scene_inputs(
        self, benchmark: str, experiment: str, checkpoint: str, dataset: str, scene: str
    ) -> Files:
        roles = ("frames", "correspondences", "features", "labels")
        pattern = self._evaluated_files(benchmark, experiment, checkpoint, dataset)
        return {role: path.format(scene=scene) if path else [] for role, path in zip(roles, pattern)}

    def evaluate_scene_recipe(self, benchmark: str, experiment: str, checkpoint: str, dataset: str) -> Recipe:
        settings = {"benchmark": benchmark, "settings": self.config["benchmarks"][benchmark]}
        inputs = self._evaluated_recipes(benchmark, experiment, checkpoint, dataset)
        return Recipe("evaluate_scene", self.step_code("evaluate_scene", f"evaluation/{benchmark}"), settings, inputs)

    def merge_items_inputs(self, benchmark: str, split: str, experiment: str, checkpoint: str) -> list[str]:
        names = {"benchmark": benchmark, "experiment": experiment, "checkpoint": checkpoint}
        keys = self.test_scenes(benchmark, split)
        return [paths.ITEMS.format(dataset=dataset, scene=scene, **names) for dataset, scene in keys]

    def merge_items_recipe(self, benchmark: str, split: str, experiment: str, checkpoint: str) -> Recipe:
        keys = self.test_scenes(benchmark, split)
        settings = {
            "benchmark": benchmark,
            "settings": self.config["benchmarks"][benchmark],
            "scenes": [list(key) for key in keys],
            "seed": _seed_of(checkpoint),
        }
        inputs = {
            f"evaluate_scene/{dataset}": self.evaluate_scene_recipe(benchmark, experiment, checkpoint, dataset)
            for dataset in dict.fromkeys(dataset for dataset, _ in keys)
        }
        return Recipe("merge_items", self.step_code("merge_items", f"evaluation/{benchmark}"), settings, inputs)

    def metrics_recipe(self, benchmark: str, split: str, experiment: str, checkpoint: str) -> Recipe:
        """Return the recipe of a metric file, by the step that writes it."""
        recipe = self.merge_items_recipe if BENCHMARKS[benchmark].per_scene else self.evaluate_recipe
        return recipe(benchmark, split, experiment, checkpoint)

    def label_recipes(self) -> dict[str, Recipe]:
        """Return a map from each dataset of the run that has labels to the recipe of the labels."""
        return {name: self.label_recipe(name) for name in dict.fromkeys(name for name, _ in self.labelled_scenes)}

    # Methods that several steps use

    def recipe_of(self, path: str | Path) -> Recipe | None:
        """Return the recipe of a file of the workflow by its path; None if this configuration has no such file."""
        for pattern, recipe in self._recipes_by_pattern():
            if (fields := paths.fields_of(pattern, str(path))) is not None:
                try:
                    if (
                        "scene" in fields
                        and fields["scene"] not in self.config["datasets"][fields["dataset"]]["scenes"]
                    ):
                        return None
                    return recipe(**fields)
                except (KeyError, ValueError, ConfigError):
                    return None
        return None

    def _recipes_by_pattern(self) -> Iterator[tuple[str, Callable[..., Recipe]]]:
        yield paths.RAW, lambda dataset, scene: self._made_raw(dataset).popitem()[1]
        yield paths.MANIFEST, lambda dataset, scene: self.check_scene_recipe(dataset)
        yield paths.LABEL_MANIFEST, lambda dataset, scene: self.check_labels_recipe(dataset)
        yield paths.MESH, lambda dataset, scene: self.fuse_recipe(dataset)
        yield paths.FRAMES, lambda dataset, scene: self.frames_recipe(dataset)
        yield paths.CORRESPONDENCES, lambda dataset, stride, scene: self.correspondence_recipe(dataset, stride)
        yield paths.PAIRS, lambda dataset, stride, radius, scene: self.pairs_recipe(dataset, stride, radius)
        yield paths.LABELS, lambda dataset, scene: self.label_recipe(dataset)
        yield paths.ENCODED, lambda encoder, dataset, scene: self.encode_recipe(encoder, dataset)
        yield paths.MODEL, self._model_recipe
        yield (
            paths.FEATURES,
            lambda experiment, checkpoint, dataset, scene: self.extract_recipe(experiment, checkpoint, dataset),
        )
        yield (
            paths.ITEMS,
            lambda benchmark, experiment, checkpoint, dataset, scene: self.evaluate_scene_recipe(
                benchmark, experiment, checkpoint, dataset
            ),
        )
        yield paths.METRICS, lambda **names: self.metrics_recipe(**names)

    def _model_recipe(self, split: str, experiment: str, run: str) -> Recipe:
        fitted = self._fitted_by(experiment)
        if fitted is None:
            raise ConfigError(
                f"experiments.{experiment}: this experiment has no trained weights, so it has no model file"
            )
        return fitted(split, experiment, run)

    def _tested_split(self, benchmark: str, split: str) -> str:
        """Return the first split of the run with the same test scenes, and therefore the same scores.

        If the benchmark compares test scenes with training scenes, the two splits also have the same training scenes. A
        split that is added after the others changes no name, so nothing is evaluated again.
        """

        def evaluated(name: str) -> tuple[Any, list[SceneKey]]:
            return self.config["splits"][name]["test"], seen_scenes(self.config, name, benchmark)

        return next(name for name in [*self.run["splits"], split] if evaluated(name) == evaluated(split))

    def _without_seed(self, experiment: str) -> bool:
        """Return whether neither the weights nor the features of an experiment depend on the seed."""
        if "pca" in self.config["experiments"][experiment]:  # principal components have no random initialisation
            return is_deterministic(self._encoder_model(experiment))
        return self.is_deterministic(experiment)

    def _fitted_by(self, experiment: str) -> Callable[..., Recipe] | None:
        """Return the method that returns the recipe of an experiment's weights; None if they are not fitted."""
        setup = self.config["experiments"][experiment]
        return self.train_recipe if "train" in setup else self.fit_pca_recipe if "pca" in setup else None

    def _named(self, experiment: str, checkpoint: str) -> tuple[str, str, str]:
        """Return the split, experiment and run of a checkpoint."""
        split, _, run = checkpoint.rpartition("-")
        return split, experiment, run

    def _encoder_model(self, experiment: str) -> dict[str, Any]:
        """Return the configuration of the part of an experiment's model whose features can be stored.

        This is the model without its head and its upsampling.
        """
        model = self.config["experiments"][experiment]["model"]
        return {key: model[key] for key in ("name", "backbone", "stride") if key in model}

    def _training_data(self, split: str) -> dict[str, Any]:
        """Return the training and validation scenes of a split, which determine a model; test scenes do not."""
        return {part: self.config["splits"][split].get(part, {}) for part in ("train", "val")}

    def _from_frames(self, dataset: str) -> dict[str, Recipe]:
        return {"frames": self.frames_recipe(dataset)}

    def _made_raw(self, dataset: str) -> dict[str, Recipe]:
        """Return the recipe of raw scenes that the workflow makes; an empty map for a download."""
        blocks = {"simulate": self.simulate_recipe, "reconstruct": self.reconstruct_recipe}
        setup = self.config["datasets"][dataset]
        return {block: recipe(dataset) for block, recipe in blocks.items() if block in setup}

    def _scene_recipes(
        self, experiment: str, split: str, parts: Iterable[str], stride: int | None = None
    ) -> dict[str, Recipe]:
        """Return the recipes of the files of the scenes to which a model is fitted."""
        recipes, encoder = {}, self.encoder(experiment)
        for dataset in dict.fromkeys(dataset for dataset, _ in scenes(self.config, split, *parts)):
            recipes[f"frames/{dataset}"] = self.frames_recipe(dataset)
            if stride is not None:
                recipes[f"correspondence/{dataset}"] = self.correspondence_recipe(dataset, stride)
            if encoder:
                recipes[f"encode/{dataset}"] = self.encode_recipe(encoder, dataset)
        return recipes

    def _pretrained(self, model: Mapping[str, Any]) -> dict[str, Recipe]:
        """Return the recipes of the models of this workflow from which a model is built."""
        if "models" in model:
            return {role: recipe for part in model["models"] for role, recipe in self._pretrained(part).items()}
        path = model.get("path") if model["name"] == "pretrained" else None
        return self._product(f"pretrained/{path}", path)

    def _product(self, role: str, path: str | None) -> dict[str, Recipe]:
        """Return the recipe of a model file by its role; an empty map if the workflow does not make the file."""
        fields = paths.fields_of(paths.MODEL, str(model_file(path))) if path else None
        if path is None or fields is None:
            return {}
        fitted = self._fitted_by(fields["experiment"]) if fields["experiment"] in self.config["experiments"] else None
        if fitted is None or fields["split"] not in self.config["splits"]:
            raise ConfigError(
                f"{path}: no experiment and split of the configuration produce this model file; correct the path"
            )
        if path in self._building:
            raise ConfigError(
                f"{path}: this model depends on itself; remove the circular reference from `model.path` or `train.init`"
            )
        self._building.append(path)
        try:
            return {role: fitted(**fields)}
        finally:
            self._building.remove(path)

    def _evaluated_files(self, benchmark: str, experiment: str, checkpoint: str, dataset: str) -> list[str | None]:
        """Return the paths of frames, correspondences, features and labels of the scenes of a dataset.

        The wildcard ``{scene}`` remains. A path is None if the benchmark does not require the file.
        """
        needs, stride = self._required(benchmark, dataset), self.config["datasets"][dataset]["patches"]["stride"]
        names = {"dataset": dataset, "scene": "{scene}", "experiment": experiment, "checkpoint": checkpoint}
        return [
            paths.FRAMES.format(**names),
            paths.CORRESPONDENCES.format(**names, stride=stride) if "places" in needs else None,
            paths.FEATURES.format(**names) if has_maps(self.config["experiments"][experiment]["model"]) else None,
            paths.LABELS.format(**names) if "labels" in needs else None,
        ]

    def _evaluated_recipes(self, benchmark: str, experiment: str, checkpoint: str, dataset: str) -> dict[str, Recipe]:
        """Return the recipes of the files of the scenes of a dataset that a benchmark reads."""
        needs, model = self._required(benchmark, dataset), self.config["experiments"][experiment]["model"]
        if not self.evaluates(benchmark, experiment):
            raise ConfigError(
                f"experiments.{experiment}: `{model['name']}` has no feature maps, which {benchmark} requires"
            )
        inputs = {f"frames/{dataset}": self.frames_recipe(dataset)}
        if has_maps(model):
            inputs[f"extract/{dataset}"] = self.extract_recipe(experiment, checkpoint, dataset)
        if "places" in needs:
            stride = self.config["datasets"][dataset]["patches"]["stride"]
            inputs[f"correspondence/{dataset}"] = self.correspondence_recipe(dataset, stride)
        if "labels" in needs:
            inputs[f"label/{dataset}"] = self.label_recipe(dataset)
        return inputs

    def _required(self, benchmark: str, dataset: str) -> frozenset[str]:
        """Return the ground truth of a dataset that a benchmark requires."""
        return frozenset().union(*BENCHMARKS[benchmark].requires) & provided_by(self.config["datasets"][dataset])

    def frames_of(self, keys: Iterable[SceneKey]) -> list[str]:
        return [paths.FRAMES.format(dataset=dataset, scene=scene) for dataset, scene in keys]

    def correspondences_of(self, keys: Iterable[SceneKey], stride: int) -> list[str]:
        return [paths.CORRESPONDENCES.format(dataset=dataset, scene=scene, stride=stride) for dataset, scene in keys]

    def _encoded_of(self, experiment: str, keys: Iterable[SceneKey]) -> list[str]:
        encoder = self.encoder(experiment)
        names = [{"encoder": encoder, "dataset": dataset, "scene": scene} for dataset, scene in keys]
        return [paths.ENCODED.format(**name) for name in names] if encoder else []

    def _pairs_of(self, experiment: str, keys: Iterable[SceneKey]) -> list[str]:
        """Return the paths of the indices of positive pairs, if the batches of an experiment are drawn from them."""
        setup = self.config["experiments"][experiment]
        if "radius" not in setup["train"]["batch"]:
            return []
        names = {"stride": stride_of(setup["model"]), "radius": float(setup["train"]["batch"]["radius"])}
        return [paths.PAIRS.format(dataset=dataset, scene=scene, **names) for dataset, scene in keys]

    def _weights_of(self, experiment: str) -> list[str]:
        return self._present(weight_files(self.config["experiments"][experiment]["model"]))

    def _computed_of(self, experiment: str, dataset: str, scene: str) -> list[str]:
        """Return the files with the features of a scene, if another program computed them."""
        model = self.config["experiments"][experiment]["model"]
        return self._present(computed_files(model["path"], dataset, scene)) if model["name"] == COMPUTED else []

    def _present(self, files: Iterable[Path]) -> list[str]:
        """Return the paths of weight files, which must exist or be made by the workflow.

        Snakemake would accept an existing result of other weights if an input were missing.
        """
        files = list(files)
        if missing := [str(f) for f in files if not f.exists() and paths.fields_of(paths.MODEL, str(f)) is None]:
            raise ConfigError(
                f"missing weights: {', '.join(missing)}\n  what to do: download them to these paths, or correct the "
                "paths"
            )
        return [str(file) for file in files]

    def _raw_files(self, files: Callable[[str, Path, str], list[Path]], dataset: str, scene: str) -> list[str]:
        if self.is_made(dataset):
            return [paths.RAW.format(dataset=dataset, scene=scene)]
        setup = self.config["datasets"][dataset]
        return [str(path) for path in files(setup["format"], Path(setup["raw"]), scene) if path.exists()]

    def _raw_code(self, step: str, dataset: str) -> str:
        """Return the code fingerprint of a step that reads raw scenes, with the reader of the dataset's format."""
        return self.step_code(step, f"datasets/{FORMATS[self.config['datasets'][dataset]['format']].module}")

    def _model_code(self, step: str, model: Mapping[str, Any]) -> str:
        """Return the code fingerprint of a step that builds a model, with the modules that are imported by name."""
        return self.step_code(step, *(f"models/{module}" for module in modules_of(model)), own=source_files(model))

    def step_code(self, step: str, *modules: str, own: Iterable[Path] = ()) -> str:
        """Return the fingerprint of the code that a step runs.

        It replaces the rerun trigger `code` of Snakemake, which ignores the modules that a script imports, and reruns a
        step when only a comment or a time stamp has changed.

        Args:
            step: the step.
            modules: paths of further modules of ``loco``, without suffix.
            own: source files of an extractor written by the user.

        Raises:
            ConfigError: a source file of the user is not valid Python.
        """
        files = [self.base / "workflow_scripts" / f"{step}.py", *(self.base / "loco" / f"{m}.py" for m in modules)]
        try:
            return code_fingerprint(*files, *own)
        except SyntaxError as error:
            raise ConfigError(
                f"{error.filename}, line {error.lineno}: the file is not valid Python ({error.msg}); correct it"
            ) from error


def _seed_of(name: str) -> int | None:
    """Return the seed in the name of a run or checkpoint; None if there is none."""
    _, found, seed = name.rpartition("seed")
    return int(seed) if found and seed.isdigit() and name != DETERMINISTIC else None
