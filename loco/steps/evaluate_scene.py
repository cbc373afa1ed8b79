"""The evaluate_scene step: evaluate one extractor on one scene, for benchmarks that are divided by scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from loco.devices import claimed_gpus
from loco.evaluation.catalogue import BENCHMARKS
from loco.records import Recipe
from loco.results.metrics import write_items
from loco.steps.evaluate import evaluate


def run(recipe: Recipe, files: Sequence[Path | None], out: Path, subject: Mapping[str, str]) -> None:
    """Evaluate the features of an extractor on one scene, and write the items of the scores.

    Args:
        recipe: recipe of the file of items; its settings are ``benchmark`` (name) and ``settings`` of the benchmark.
        files: frames, correspondences, features and labels of the scene; None for files that the benchmark does not
            require.
        out: file of items to write.
        subject: ``benchmark``, ``experiment``, ``checkpoint``, ``dataset`` and ``scene``, for the record.

    Raises:
        DataError: an input was not made as planned, or the benchmark cannot be computed on it.
    """
    with claimed_gpus(BENCHMARKS[recipe.settings["benchmark"]].gpus):
        evaluation, record = evaluate(recipe, [files], [()], subject)
    write_items(out, evaluation.items, record)
