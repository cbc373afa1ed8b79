"""The scripts in ``benchmarks/`` run at small sizes; their measurements are made by hand."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import kernel_code, losses
from benchmarks.loss_speed import LOSSES

ROOT = Path(__file__).parents[2]
SMALL = {
    "exchange": ["--patches", "160", "--dim", "64", "--ranks", "2"],
    "inpaint": ["--images", "2"],
    "linear_probe": ["--images", "1"],
    "location_consistency": ["--queries", "20"],
    "overlap": ["--images", "12", "--rooms", "2"],
    "place_recognition": ["--images", "20", "5"],
    "training_step": [
        "--images=2",
        "--size=28",
        "--patches=4",
        "--blocks=1",
        "--steps=1",
        "--warmup=0",
        "--grad-cache=1",
    ],
}


def test_all_can_be_imported():
    names = [f"benchmarks.{path.stem}" for path in (ROOT / "benchmarks").glob("*.py") if path.stem != "__init__"]
    command = [sys.executable, "-c", f"import {', '.join(sorted(names))}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


SLOW = {"exchange", "linear_probe", "location_consistency", "training_step"}  # several CPU seconds each


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in SMALL]
)
def test_it_runs_and_prints_a_table(name):
    command = [sys.executable, "-m", f"benchmarks.{name}", *SMALL[name]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("|") >= 6


def test_loss_speed_appends_rows_that_state_their_origin(tmp_path, monkeypatch):
    path = tmp_path / "speed.csv"
    options = ["--device=cpu", "--patches=96", "--dims=64", "--kappas=0.5", "--runs=2", f"--csv={path}"]
    monkeypatch.setattr(sys, "argv", ["losses", *options])
    for _ in range(2):
        losses.main()
    rows = list(csv.DictReader(path.open()))
    assert [row["loss"] for row in rows] == 2 * list(LOSSES)
    assert all(row["commit"] and row["torch"] for row in rows)
    measured = [row for row in rows if not row["left_out"]]
    assert all(float(row["p20_s"]) <= float(row["p80_s"]) for row in measured)
    left_out = {row["loss"]: row["left_out"] for row in rows if row["left_out"]}
    assert list(left_out) == ["siglip-kernel"]
    assert "pip install siglip-kernel" in left_out["siglip-kernel"]
    assert path.with_suffix(".svg").is_file()


@pytest.mark.parametrize(("kernel", "capability"), [("_count", 80), ("_look_up", 90), ("_multiply", 90)])
def test_the_kernels_of_the_exact_loss_compile(kernel, capability):
    pytest.importorskip("triton", reason="the kernels need Triton")
    row = kernel_code.measure(kernel, torch.bfloat16, capability)
    assert row["shared"] <= {80: 163, 90: 227}[capability] * 1024
    assert row["spilled"] <= 1024  # many more would mean that a block does not fit into the registers
