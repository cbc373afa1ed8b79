"""A new benchmark takes four files: its module, an entry in the catalogue, the schema of its settings, and settings."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("loco", "config", "report")

MODULE = '''
"""The mean length of features before they were normalised."""

from loco.evaluation.intervals import Item
from loco.evaluation.result import Evaluation, Sample


def evaluate(scenes, settings, seed=0):
    norms = [(s.frames.scene, float(s.features["norm"][:].mean())) for s in scenes]
    items = {"scene": [scene for scene, _ in norms], "norm": [norm for _, norm in norms]}
    return Evaluation([sample.row() for sample in samples(items, settings)], items)


def samples(items, settings):
    values = [norm**settings["power"] for norm in items["norm"]]
    return [Sample("mean norm", "all", [Item(scene) for scene in items["scene"]], values, unit="m")]
'''
ENTRY = """
    Benchmark(
        name="feature_norm",
        requires=_require("depth"),
        title="Feature norm",
        measures="Mean norm of the features of a scene",
        items="scenes",
        drawn="new scenes",
        figures=("dots",),
    ),
)

BENCHMARKS"""
SCHEMA = """
properties:
  feature_norm:
    type: object
    additionalProperties: false
    required: [power]
    properties:
      power: { type: integer, minimum: 1 }
"""
SETTINGS = """
benchmarks:
  feature_norm:
    power: 2
"""
USE = """
import sys
from pathlib import Path
from types import SimpleNamespace

from jinja2 import Environment

from loco.config import benchmark_splits, load, read_files
from loco.errors import ConfigError
from loco.evaluation.catalogue import BENCHMARKS
from loco.evaluation.feature_norm import evaluate
from loco.results.metrics import read_metrics, write_metrics
from loco.results.plots.scores import FIGURES
from loco.results.tables.differences import write_differences
from loco.results.tables.summary import write_tables

root, out = Path(sys.argv[1]), Path(sys.argv[2])
config = read_files([], root)
config["run"]["benchmarks"] = ["feature_norm"]
loaded = load(config, root)
assert benchmark_splits(loaded, ["houses"], "feature_norm") == ["houses"]
settings = loaded["benchmarks"]["feature_norm"]

import numpy as np

runs = []
for name, norm in {"exact": 3.0, "dense_sift_fine": 2.0}.items():
    features = {"norm": np.full((2, 3, 3), norm)}
    scenes = [SimpleNamespace(frames=SimpleNamespace(scene=scene), features=features) for scene in "ab"]
    run = {"benchmark": "feature_norm", "split": "houses", "experiment": name, "seed": None}
    path = out / f"{name}.json"
    write_metrics(path, **run, settings=settings, evaluation=evaluate(scenes, settings))
    runs.append(read_metrics(path))
titles = {"exact": "Exact", "dense_sift_fine": "SIFT"}
write_tables(runs, titles, out / "table")
write_differences(runs, titles, [("exact", "dense_sift_fine")], out / "differences")
for figure in BENCHMARKS["feature_norm"].figures:
    FIGURES[figure](runs, titles, out / figure)
template = Environment(trim_blocks=True, lstrip_blocks=True).from_string((root / "report/benchmark.rst").read_text())
params = {"words": BENCHMARKS["feature_norm"].caption, "published": []}
(out / "caption.rst").write_text(template.render(snakemake=SimpleNamespace(config=loaded, params=params)))

settings["power"] = 0
try:
    load(config | {"benchmarks": {"feature_norm": settings}}, root)
except ConfigError as error:
    (out / "refused.txt").write_text(str(error))
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository with the benchmark."""
    root = tmp_path_factory.mktemp("repository")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "loco/evaluation/feature_norm.py").write_text(MODULE.lstrip())
    insert(root / "loco/evaluation/catalogue.py", "\n)\n\nBENCHMARKS", ENTRY)
    insert(root / "config/schemas/benchmarks.yaml", "\nproperties:\n", SCHEMA)
    insert(root / "config/defaults.yaml", "\nbenchmarks:\n", SETTINGS)
    return root


def insert(path: Path, anchor: str, text: str) -> None:
    """Replace the anchor by a text, which repeats the anchor."""
    content = path.read_text(encoding="utf-8")
    assert content.count(anchor) == 1
    path.write_text(content.replace(anchor, text), encoding="utf-8")


def changed(ours: Path, theirs: Path) -> set[str]:
    """Return files that differ between two folders, or exist in one of them only."""
    files = {path.relative_to(root) for root in (ours, theirs) for path in root.rglob("*") if path.is_file()}
    files = {file for file in files if "__pycache__" not in file.parts}
    _, different, absent = filecmp.cmpfiles(ours, theirs, files, shallow=False)
    return {str(file) for file in [*different, *absent]}


def test_it_takes_four_files(repository: Path) -> None:
    found = {f"{folder}/{file}" for folder in COPIED for file in changed(ROOT / folder, repository / folder)}
    assert found == {
        "loco/evaluation/feature_norm.py",
        "loco/evaluation/catalogue.py",
        "config/schemas/benchmarks.yaml",
        "config/defaults.yaml",
    }


def test_it_is_configured_scored_tabulated_drawn_and_captioned(repository: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(repository), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", USE, str(repository), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    markdown = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert markdown.startswith("Feature norm. Mean norm of the features of a scene. In the unit of the metric")
    assert "| mean norm (m) | Exact | 9.000 [9.000, 9.000] |" in markdown
    assert "| number of scenes | 2 |" in markdown
    assert "+5.000" in (tmp_path / "differences.md").read_text(encoding="utf-8")
    assert (tmp_path / "dots.svg").stat().st_size > 1000
    caption = (tmp_path / "caption.rst").read_text(encoding="utf-8")
    assert caption.startswith("**Feature norm.** Mean norm of the features of a scene.\n")
    assert "- ``power``: ``2``\n" in caption
    assert "benchmarks.feature_norm.power: must be at least 1, found 0" in (tmp_path / "refused.txt").read_text()
    assert json.loads((tmp_path / "exact.json").read_text())["content"]["items"] == {
        "norm": [3.0, 3.0],
        "scene": ["a", "b"],
    }
