"""The evaluate step: scores of one extractor on the test scenes of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from loco.devices import claimed_gpus
from loco.evaluation.catalogue import BENCHMARKS
from loco.evaluation.result import EvaluatedScene
from loco.records import Recipe, new_record
from loco.results.metrics import write_metrics
from loco.steps.scene_inputs import check_scenes
from loco.storage import Correspondences, Features, Frames, Labels

KINDS = (Frames, Correspondences, Features, Labels)


def run(
    recipe: Recipe,
    scenes: Sequence[Sequence[Path | None]],
    training: Sequence[Sequence[Path]],
    out: Path,
    subject: Mapping[str, str],
) -> None:
    """Score the features of an extractor on a benchmark.

    Args:
        recipe: of the metric file; its settings are ``benchmark``, the name, and ``settings`` of the benchmark,
            ``scenes``, those that are evaluated, and ``seed`` of the extractor (None if it has none); ``training``, the
            training scenes that they are compared with, if there are; ``keypoints``, the model of an extractor
            without feature maps.
        scenes: frames, correspondences, features and labels of each scene; None for what the benchmark does not need.
        training: for each scene the correspondences of the training scenes in its world frame; empty unless the
            benchmark reports what training images show.
        out: metric file to write.
        subject: ``split``, ``experiment`` and ``checkpoint``, for its record.

    Raises:
        DataError: an input was not made as the plan says, or the benchmark cannot be measured on it.
    """
    inputs = check_scenes(scenes, KINDS, recipe)
    distinct = dict.fromkeys(path for paths in training for path in paths)
    inputs |= check_scenes([[path] for path in distinct], [Correspondences], recipe)
    benchmark, settings = recipe.settings["benchmark"], recipe.settings["settings"]
    # Every experiment and seed answers the same questions: the evaluation has its own seed.
    with claimed_gpus(BENCHMARKS[benchmark].gpus):
        evaluation = import_module(f"loco.evaluation.{benchmark}").evaluate(
            [
                # The paths are the first two to four fields.
                EvaluatedScene(  # type: ignore[misc]
                    *paths,  # type: ignore[arg-type]
                    training_paths=tuple(seen),
                    keypoints=recipe.settings.get("keypoints"),
                )
                for paths, seen in zip(scenes, training)
            ],
            settings,
        )
        record = new_record(recipe, subject, inputs)
    write_metrics(
        out,
        benchmark=benchmark,
        split=subject["split"],
        experiment=subject["experiment"],
        seed=recipe.settings["seed"],
        settings=settings,
        evaluation=evaluation,
        record=record,
    )
