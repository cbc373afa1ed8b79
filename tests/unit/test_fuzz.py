"""A few hundred mutations of every format cause no crash, no hang, no bug, and at most 1 GB (``benchmarks.fuzz``)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fuzz_targets import TARGETS

ROOT = Path(__file__).parents[2]


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.fuzz", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("target", TARGETS)
def test_mutations_are_read_or_refused(target):
    done = fuzz("--mutations", "100", "--seed", "1", "--targets", target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100 mutations" in done.stdout
    assert "; 0 faults" in done.stdout


@pytest.mark.parametrize("fault", ["crash", "hang", "foreign", "memory"])
def test_faults_are_found(fault):
    """The campaign continues after each fault."""
    done = fuzz("--mutations", "2", "--seconds", "0.5", "--targets", fault)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{fault.upper()}: 2" in done.stdout
    assert "2 faults" in done.stdout
