"""The merge_items step: compute the scores of one extractor from the items of all test scenes of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from loco.evaluation.result import Evaluation
from loco.records import Recipe, new_record, require_recipe
from loco.results.metrics import read_items, write_metrics
from loco.steps.evaluate import require_items


def run(recipe: Recipe, items_paths: Sequence[Path], out: Path, subject: Mapping[str, str]) -> None:
    """Merge the items of the test scenes to a metric file, as if one job had evaluated all scenes.

    Args:
        recipe: recipe of the metric file; its settings are ``benchmark`` (name), ``settings`` of the benchmark,
            ``scenes`` (evaluated scenes) and ``seed`` of the extractor (None if it has none).
        items_paths: the file of items of each scene, in the order of ``scenes``.
        out: metric file to write.
        subject: ``split``, ``experiment`` and ``checkpoint``, for the record.

    Raises:
        DataError: a file is missing or damaged, was not made as planned, or belongs to another scene; or no scene has
            an item.
    """
    benchmark, settings = recipe.settings["benchmark"], recipe.settings["settings"]
    named = {"benchmark": benchmark, **{key: subject[key] for key in ("experiment", "checkpoint")}}
    documents = [read_items(path) for path in items_paths]
    for document, (dataset, scene) in zip(documents, recipe.settings["scenes"], strict=True):
        planned = {**named, "dataset": dataset, "scene": scene}
        require_recipe(document.record, recipe.inputs[f"evaluate_scene/{dataset}"], planned, file=document.path)
    items = {column: [entry for d in documents for entry in d.content[column]] for column in documents[0].content}
    scores = import_module(f"loco.evaluation.{benchmark}").samples(items, settings)
    evaluation = Evaluation([score.row() for score in scores], items)
    require_items(evaluation, benchmark, subject["split"])
    write_metrics(
        out,
        benchmark=benchmark,
        split=subject["split"],
        experiment=subject["experiment"],
        seed=recipe.settings["seed"],
        settings=settings,
        evaluation=evaluation,
        record=new_record(recipe, subject, {document.path: document.content_id for document in documents}),
    )
