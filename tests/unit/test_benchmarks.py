"""The scripts in ``benchmarks/`` run at small sizes; their measurements are made by hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = {
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


@pytest.mark.parametrize("name", SMALL)
def test_it_runs_and_prints_a_table(name):
    command = [sys.executable, "-m", f"benchmarks.{name}", *SMALL[name]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("|") >= 6
