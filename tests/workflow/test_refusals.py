"""Old, copied and damaged files never pass for results of the run: the step that reads one refuses it by name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.workflow.conftest import MODEL, World

RAW = "results/raw/tiny/cedar"
MANIFEST = "results/manifests/tiny/cedar.json"
FRAMES = "results/frames/tiny/cedar.h5"
CORRESPONDENCES = "results/correspondences/tiny/stride4/cedar.h5"
FEATURES = "results/features/quick/tiny-seed0/tiny/cedar.h5"
METRICS = "results/metrics/location_consistency/tiny/quick/tiny-seed0.json"
TABLE = "results/tables/location_consistency.csv"

TYPO = "models/typo.safetensors"
BACKBONE = {"name": "transformers", "path": "./models/typo"}
MODELS = {
    "init": {"quick": {"title": "other", "train": {"steps": 5, "init": TYPO}}},
    "pretrained file": {"other": {"title": "other", "model": {"name": "pretrained", "path": TYPO, "stride": 4}}},
    "pretrained folder": {
        "other": {"title": "other", "model": {"name": "pretrained", "path": "models/typo", "stride": 4}}
    },
    "backbone": {"other": {"title": "other", "model": {"name": "backbone", "backbone": BACKBONE, "stride": 14}}},
}


@pytest.mark.parametrize("kind", MODELS)
def test_missing_weights_are_named_and_results_stay(world, kind):
    """Snakemake takes an output whose inputs cannot be found for a source file, and continues with it."""
    experiments = MODELS[kind]
    world.overlay({"experiments": experiments, "run": {"experiments": ["untrained", *experiments]}})
    before = world.results()
    assert "models/typo" in world.refuse(TABLE)
    assert world.results() == before


def test_missing_weights_of_an_ablation_concern_the_ablation_alone(view):
    variants = [{"name": "own"}, {"name": "typo", "train": {"init": TYPO}}]
    ablation = {"title": "start", "experiment": "quick", "split": "tiny", "seeds": [0], "variants": variants}
    view.overlay({"ablations": {"start": ablation}})
    assert not view.plan("all")
    for target in ("ablation_start", "results/train/tiny/start.typo/seed0/model.safetensors"):
        assert "models/typo.safetensors" in view.refuse("--dry-run", "--", target)


# Case -> changed settings, the step that is run, its output, the input that it must refuse, and both values.
COPIED: dict[str, tuple[dict[str, Any], str, str, str, str]] = {
    "raw scene": (
        {"datasets": {"tiny": {"simulate": {"seed": 2}}}},
        "check_scene",
        MANIFEST,
        RAW,
        "seed = 1, expected 2",
    ),
    "manifest": (
        {"datasets": {"tiny": {"check": {"decode": "sample"}}}},
        "frames",
        FRAMES,
        MANIFEST,
        "decode = 'all', expected 'sample'",
    ),
    "frames": (
        {"datasets": {"tiny": {"frames": {"max_hole_fraction": 0.8}}}},
        "correspondence",
        CORRESPONDENCES,
        FRAMES,
        "max_hole_fraction = 0.9, expected 0.8",
    ),
    "model": (
        {"experiments": {"quick": {"train": {"steps": 5}}}},
        "extract",
        FEATURES,
        MODEL,
        "train.steps = 3, expected 5",
    ),
    "features": (
        {"experiments": {"untrained": {"model": {"dim": 64}}}},
        "evaluate",
        "results/metrics/location_consistency/tiny/untrained/seed0.json",
        "results/features/untrained/seed0/tiny/cedar.h5",
        "model.dim = 128, expected 64",
    ),
    "correspondences": (
        {"datasets": {"tiny": {"patches": {"overlap_tolerance": 0.06}}}},
        "evaluate",
        METRICS,
        CORRESPONDENCES,
        "overlap_tolerance = 0.05, expected 0.06",
    ),
    "metrics": (
        {"benchmarks": {"location_consistency": {"queries_per_scene": 21}}},
        "table_location_consistency",
        TABLE,
        METRICS,
        "settings.queries_per_scene = 20, expected 21",
    ),
}


@pytest.mark.parametrize("kind", COPIED)
def test_results_of_other_settings_are_refused_without_the_records_of_snakemake(world, kind):
    """After ``results/`` was copied or ``.snakemake/`` deleted, Snakemake considers all files up to date."""
    changes, step, target, file, values = COPIED[kind]
    shutil.rmtree(world.directory / ".snakemake")
    world.overlay(changes)
    said = world.refuse("--forcerun", step, "--", target)
    assert file in said
    assert values in said
    assert "what to do: " in said
    assert not (world.directory / target).exists()


def flip_bit(path: Path, array: str) -> None:
    """Flip a bit in the middle chunk of an array, at its position in the file."""
    with h5py.File(path) as file:
        dataset = file[array].id
        chunk = dataset.get_chunk_info(dataset.get_num_chunks() // 2)
        offset = chunk.byte_offset + file.userblock_size
    data = bytearray(path.read_bytes())
    data[offset + chunk.size // 2] ^= 0x10
    path.write_bytes(bytes(data))


def change_weight(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-4001] ^= 0x40
    path.write_bytes(bytes(data))


def change_digit(path: Path) -> None:
    text = path.read_text()
    start = text.index('"value": 0.') + len('"value": 0.')
    path.write_text(text[:start] + str((int(text[start]) + 4) % 10) + text[start + 1 :])


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: 2 * len(data) // 3])


def empty(path: Path) -> None:
    path.write_bytes(b"")


# What happened to a file between two steps -> how to do it, the file, the step that reads it next, and what it makes.
DAMAGED: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "a pose": (partial(flip_bit, array="pose"), FRAMES, "correspondence", CORRESPONDENCES),
    "a weight": (change_weight, MODEL, "extract", FEATURES),
    "a digit of a score": (change_digit, METRICS, "table_location_consistency", TABLE),
    "a point": (partial(flip_bit, array="points"), CORRESPONDENCES, "evaluate", METRICS),
    "truncated features": (truncate, FEATURES, "evaluate", METRICS),
    "a truncated manifest": (truncate, MANIFEST, "frames", FRAMES),
    "an empty manifest": (empty, MANIFEST, "frames", FRAMES),
}


def damage(world: World, kind: str) -> str:
    """Damage a file like a failing disk, without changing its time, and return its name."""
    change, name, _, _ = DAMAGED[kind]
    path = world.directory / name
    times, before = path.stat(), path.read_bytes()
    change(path)
    assert path.read_bytes() != before
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return name


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_named_and_no_table_is_changed(world, kind):
    _, _, step, target = DAMAGED[kind]
    before = world.results()
    name = damage(world, kind)
    said = world.refuse("--forcerun", step, "--", target)
    assert name in said
    assert "what to do: " in said
    for path, content in world.results().items():
        assert content == before[path] or path.endswith(name)


def test_a_run_completes_as_before_once_the_damaged_files_are_deleted(world, finished):
    for kind in ("a pose", "truncated features", "a digit of a score"):
        (world.directory / damage(world, kind)).unlink()
    for table in (world.directory / "results/tables").glob("*_c*"):
        table.unlink()
    world.run("tables")
    for name in ("location_consistency", "pixel_correspondence"):
        assert world.read(f"results/tables/{name}.csv") == finished.read(f"results/tables/{name}.csv")


def old_frames(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "loco-frames", "version": 1, "passport": "{}"})
        file["pose"] = np.eye(4, dtype=np.float32)[None]


def old_metrics(path: Path) -> None:
    content = json.loads(path.read_text())["content"]
    path.write_text(json.dumps({"format": "loco-metrics", "version": 1, "passport": {}, **content}))


def old_manifest(path: Path) -> None:
    path.write_text(json.dumps({"format": "loco-manifest", "version": 1, **json.loads(path.read_text())["content"]}))


def old_model(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["loco-model"])
    own = {key: content[key] for key in ("model", "facts")}
    save_file(load_file(path), path, {"loco-model": json.dumps(own)})


# Files without a content id, as version 0.1 wrote them -> how to write one, and who reads it.
FIRST_DESIGN: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "frames": (old_frames, FRAMES, "correspondence", CORRESPONDENCES),
    "metrics": (old_metrics, METRICS, "table_location_consistency", TABLE),
    "manifest": (old_manifest, MANIFEST, "frames", FRAMES),
    "model": (old_model, MODEL, "extract", FEATURES),
}


@pytest.mark.parametrize("kind", FIRST_DESIGN)
def test_files_of_the_first_version_are_refused_with_what_to_delete(world, kind):
    write, name, step, target = FIRST_DESIGN[kind]
    path = world.directory / name
    times = path.stat()
    write(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    said = world.refuse("--forcerun", step, "--", target)
    assert name in said
    assert "content id" in said
    assert "earlier version of this project" in said
    assert "run the workflow again" in said
