"""The evaluate step: compute the scores of one extractor on the test scenes of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from loco.devices import claimed_gpus
from loco.errors import DataError
from loco.evaluation.catalogue import BENCHMARKS
from loco.evaluation.result import EvaluatedScene, Evaluation
from loco.records import Recipe, Record, new_record
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
    """Evaluate the features of an extractor on a benchmark.

    Args:
        recipe: recipe of the metric file; its settings are ``benchmark`` (name), ``settings`` of the benchmark,
            ``scenes`` (evaluated scenes), ``seed`` of the extractor (None if it has none), ``training`` (training
            scenes that they are compared with, if any) and ``keypoints`` (model of an extractor without feature maps).
        scenes: frames, correspondences, features and labels of each scene; None for files that the benchmark does not
            require.
        training: for each scene, the correspondences of the training scenes in its world frame; empty unless the
            benchmark reports which surfaces training images show.
        out: metric file to write.
        subject: ``split``, ``experiment`` and ``checkpoint``, for the record.

    Raises:
        DataError: an input was not made as planned, the benchmark cannot be computed on it, or it has nothing to score.
    """
    benchmark = BENCHMARKS[recipe.settings["benchmark"]]
    with claimed_gpus(benchmark.gpus):
        evaluation, record = evaluate(recipe, scenes, training, subject)
    require_items(evaluation, benchmark.name, subject["split"])
    write_metrics(
        out,
        benchmark=benchmark.name,
        split=subject["split"],
        experiment=subject["experiment"],
        seed=recipe.settings["seed"],
        settings=recipe.settings["settings"],
        evaluation=evaluation,
        record=record,
    )


def evaluate(
    recipe: Recipe,
    scenes: Sequence[Sequence[Path | None]],
    training: Sequence[Sequence[Path]],
    subject: Mapping[str, str],
) -> tuple[Evaluation, Record]:
    """Check the files of scenes, and evaluate a benchmark on them.

    Args:
        recipe, scenes, training, subject: as for :func:`run`; the recipe's settings ``scenes`` and ``seed`` are not
            used.

    Returns:
        The scores with their items, and the record of the file that will contain them.

    Raises:
        DataError: as for :func:`run`.
    """
    inputs = check_scenes(scenes, KINDS, recipe)
    distinct = dict.fromkeys(path for paths in training for path in paths)
    inputs |= check_scenes([[path] for path in distinct], [Correspondences], recipe)
    # The evaluation has its own seed, so that all experiments and seeds are evaluated on the same samples.
    evaluation = import_module(f"loco.evaluation.{recipe.settings['benchmark']}").evaluate(
        [
            # The paths are the first two to four fields.
            EvaluatedScene(  # type: ignore[misc]
                *paths,  # type: ignore[arg-type]
                training_paths=tuple(seen),
                keypoints=recipe.settings.get("keypoints"),
            )
            for paths, seen in zip(scenes, training)
        ],
        recipe.settings["settings"],
    )
    return evaluation, new_record(recipe, subject, inputs)


def require_items(evaluation: Evaluation, benchmark: str, split: str) -> None:
    """Raise an error if a benchmark found nothing to score in the test scenes of a split.

    Raises:
        DataError: there are no items.
    """
    if not any(evaluation.items.values()):
        raise DataError(
            f"the benchmark {benchmark} has nothing to score in the test scenes of the split {split}",
            expected=BENCHMARKS[benchmark].items,
            found="none",
            remedy=f"relax the settings `benchmarks.{benchmark}` that select them, such as `min_overlap` and "
            "`min_baseline`, or test on scenes with more images",
        )
