"""What Snakemake does before any job runs: which files it opens, and which targets it knows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import ViTConfig, ViTModel

from tests.workflow.conftest import ROOT, TINY, World

# Python imports this module when it starts, in Snakemake and in all Python processes below it.
RECORD = """
import os, sys
_log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def _opened(event, arguments):
    if event in ("open", "os.listdir", "mmap.__new__") and isinstance(arguments[0], str):
        os.write(_log, (event + " " + os.path.abspath(arguments[0]) + "\\n").encode())
sys.addaudithook(_opened)
"""


@pytest.fixture
def recorded(finished: World, tmp_path: Path) -> World:
    """Return a finished world with a training run that starts from weights, and a model that is built on a backbone."""
    world = finished.clone(tmp_path / "world")
    weights = world.directory / "weights"
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, patch_size=10)
    ViTModel(config, add_pooling_layer=False).save_pretrained(weights / "vit")
    start = weights / "start.safetensors"
    start.write_bytes(b"weights that nothing should read")
    backbone = {"name": "transformers", "path": str(weights / "vit")}
    frozen = {"title": "frozen", "model": {"name": "backbone", "backbone": backbone, "stride": 10}, "cache": True}
    experiments = {"frozen": frozen, "quick": {"train": {"init": str(start)}}}
    world.overlay({"experiments": experiments, "run": {"experiments": ["quick", "frozen"]}})
    return world


@pytest.mark.parametrize("target", ["results/manifests/tiny/ash.json", "tables"])
def test_no_weights_models_or_results_are_opened(recorded, tmp_path, target):
    log = tmp_path / "opened"
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(RECORD.format(log=str(log)))
    done = recorded.snakemake("--cores", "1", "--dry-run", "--", target, modules=[tmp_path / "hook"])
    assert done.returncode == 0, done.stdout + done.stderr
    opened = [Path(line.partition(" ")[2]) for line in log.read_text().splitlines() if line.startswith("open")]
    assert TINY in opened
    assert recorded.workflow / "rules/train.smk" in opened
    below = {str(path.relative_to(recorded.directory)) for path in opened if path.is_relative_to(recorded.directory)}
    assert not {name for name in below if name.endswith((".safetensors", ".h5", ".zip", ".bin", ".pth"))}
    assert not {name for name in below if name.startswith("results/") and not name.startswith("results/logs")}


def test_the_documented_targets_are_those_of_the_workflow(tmp_path: Path) -> None:
    _, _, text = (ROOT / "docs/running.md").read_text().partition("\nTargets are ")
    documented = set(re.findall(r"`(\w+)`", text.partition("For a misspelt name")[0]))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path)]
    command += ["--configfile", str(TINY), "--list-target-rules"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    targets = set(re.findall(r"^(\w+)(?: \(|$)", done.stdout, re.MULTILINE))  # name (description)
    assert {"all", "tables", "figures"} <= documented <= targets
    figures = r"label_counts|\w+_(curve|plot|dots|spread|angle|curves|accuracy|at_k)|pictures|explorer"
    others = {name for name in targets - documented if not re.match(rf"table_|differences_|ablation_|{figures}", name)}
    assert others == set()
