"""Scenes that are evaluated one by one and merged have the metric file of one job over all scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from loco.datasets.labels import MPCAT40
from loco.errors import DataError
from loco.evaluation.catalogue import BENCHMARKS
from loco.records import Recipe, new_record
from loco.results.metrics import read_metrics
from loco.steps import evaluate, evaluate_scene, merge_items
from loco.storage import Features, Frames, Labels
from loco.storage.content_id import read_content_id

SETTINGS = {"epochs": 3, "batch": 2, "train_fraction": 0.5, "block": 2}
SCENES = [["first", "ash"], ["second", "birch"], ["first", "cedar"], ["first", "unlabelled"]]
SUBJECT = {"split": "both", "experiment": "exact", "checkpoint": "both-seed3"}
FRAMES = Recipe("frames", "f0", {})
INPUTS = {"frames": FRAMES, "extract": Recipe("extract", "x0", {}), "label": Recipe("label", "l0", {})}


def write_scene(folder: Path, dataset: str, scene: str, seed: int) -> list[Path | None]:
    """Write eight images of a moving camera, with random objects and features; a scene may have no label."""
    rng = np.random.default_rng(seed)
    n, rows, columns = 8, 3, 4
    paths = {name: folder / name / dataset / f"{scene}.h5" for name in INPUTS}
    records = {name: new_record(recipe, {"dataset": dataset, "scene": scene}, {}) for name, recipe in INPUTS.items()}
    facts = {"names": [f"view{i}" for i in range(n)]}
    sizes = {"n": n, "h": 4 * rows, "w": 4 * columns}
    with Frames.create(paths["frames"], dataset, scene, sizes, facts, record=records["frames"]) as file:
        poses = np.tile(np.eye(4), (n, 1, 1))
        poses[:, 0, 3] = np.arange(n)
        file["intrinsics"][:], file["pose"][:] = np.eye(3), poses
        file["rgb"][:], file["depth"][:], file["source"][:] = 0, 1.0, 1
    frames_id = {"frames_id": read_content_id(paths["frames"])}
    categories = rng.choice(["chair", "table", "wall", "floor"], 6)
    objects = [{"category": c, "label": c, "stuff": c in ("wall", "floor"), "triangles": 9} for c in categories]
    instance = rng.integers(0, 6, (n, rows, columns)).repeat(4, axis=1).repeat(4, axis=2)
    if scene == "unlabelled":
        instance[:] = -1
    with Labels.create(
        paths["label"], dataset, scene, sizes, {**facts, "objects": objects}, record=records["label"], **frames_id
    ) as file:
        file["instance"][:] = instance
        file["semantic"][:] = np.array([*map(MPCAT40.index, categories), 0])[instance]
    cells = {"n": n, "h": rows, "w": columns, "c": 16}
    facts |= {"extent": [4 * rows, 4 * columns]}
    with Features.create(
        paths["extract"], dataset, scene, cells, facts, record=records["extract"], **frames_id
    ) as file:
        features = rng.normal(size=(n, rows, columns, 16))
        file["features"][:] = features / np.linalg.norm(features, axis=-1, keepdims=True)
        file["norm"][:] = 1
    return [paths["frames"], None, paths["extract"], paths["label"]]


@pytest.fixture(params=[name for name, benchmark in BENCHMARKS.items() if benchmark.per_scene])
def job(request, tmp_path):
    """Return the benchmark, the files of each scene, and the recipes of the items and of the merged metric file."""
    settings = {"benchmark": request.param, "settings": SETTINGS}
    files = [write_scene(tmp_path, *key, seed) for seed, key in enumerate(SCENES)]
    recipes = {
        dataset: Recipe("evaluate_scene", "s0", settings, {f"{name}/{dataset}": r for name, r in INPUTS.items()})
        for dataset in ("first", "second")
    }
    inputs = {f"evaluate_scene/{dataset}": recipe for dataset, recipe in recipes.items()}
    merged = Recipe("merge_items", "m0", settings | {"scenes": SCENES, "seed": 3}, inputs)
    return request.param, files, recipes, merged


def evaluate_scenes(tmp_path, job) -> list[Path]:
    benchmark, files, recipes, _ = job
    written = []
    for (dataset, scene), paths in zip(SCENES, files):
        subject = {"benchmark": benchmark, "dataset": dataset, "scene": scene}
        subject |= {key: SUBJECT[key] for key in ("experiment", "checkpoint")}
        written.append(tmp_path / "items" / dataset / f"{scene}.json")
        evaluate_scene.run(recipes[dataset], paths, written[-1], subject)
    return written


def test_merged_scenes_have_the_scores_of_one_job(tmp_path, job):
    _, files, recipes, merged = job
    inputs = {role: recipe for part in recipes.values() for role, recipe in part.inputs.items()}
    whole = Recipe("evaluate", "e0", merged.settings, inputs)
    evaluate.run(whole, files, [()] * len(files), tmp_path / "whole.json", SUBJECT)
    items = evaluate_scenes(tmp_path, job)
    merge_items.run(merged, items, tmp_path / "merged.json", SUBJECT)
    expected, found = (json.loads((tmp_path / f"{name}.json").read_text())["content"] for name in ("whole", "merged"))
    assert found == expected
    assert any(row["value"] for row in found["rows"])
    assert set(found["items"]["scene"]) == {"ash", "birch", "cedar"}
    record = read_metrics(tmp_path / "merged.json", merged).record
    assert record.inputs == {str(path): read_content_id(path) for path in items}


def test_items_of_another_scene_or_recipe_are_refused(tmp_path, job):
    _, _, recipes, merged = job
    first, *others = evaluate_scenes(tmp_path, job)
    with pytest.raises(DataError, match=r"copy of another file[\s\S]*scene ash[\s\S]*scene cedar"):
        merge_items.run(merged, [others[1], *others], tmp_path / "merged.json", SUBJECT)
    other = Recipe("evaluate_scene", "s1", recipes["first"].settings, recipes["first"].inputs)
    inputs = dict(merged.inputs) | {"evaluate_scene/first": other}
    changed = Recipe("merge_items", "m0", merged.settings, inputs)
    with pytest.raises(DataError, match="made by code s0, expected s1"):
        merge_items.run(changed, [first, *others], tmp_path / "merged.json", SUBJECT)
    assert not (tmp_path / "merged.json").exists()


def test_a_benchmark_without_a_single_item_is_refused(tmp_path, job):
    benchmark, files, recipes, merged = job
    settings = merged.settings | {"scenes": SCENES[-1:]}
    message = rf"{benchmark} has nothing to score in the test scenes of the split both[\s\S]*found: none"
    whole = Recipe("evaluate", "e0", settings, dict(recipes["first"].inputs))
    with pytest.raises(DataError, match=message):
        evaluate.run(whole, files[-1:], [()], tmp_path / "whole.json", SUBJECT)
    with pytest.raises(DataError, match=message):
        merge_items.run(
            Recipe("merge_items", "m0", settings, merged.inputs),
            evaluate_scenes(tmp_path, job)[-1:],
            tmp_path / "merged.json",
            SUBJECT,
        )
    assert not list(tmp_path.glob("*.json"))
