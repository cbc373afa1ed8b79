"""GPUs, on a machine without any: the list of GPUs is simulated, and processes compete for real locks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from loco.devices import Gpu, claimed_gpus, select_visible
from loco.errors import ConfigError

LISTING = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa1111)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb2222)
  MIG 3g.40gb     Device  0: (UUID: MIG-cccc3333)
  MIG 3g.40gb     Device  1: (UUID: MIG-dddd4444)
GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-eeee5555)
"""
GPUS = [Gpu(str(k), f"GPU-{k}") for k in range(3)]


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["GPU-aaaa1111", "MIG-cccc3333", "MIG-dddd4444", "GPU-eeee5555"]),
        ("2,0", ["2", "0"]),
        ("GPU-ee, MIG-dddd4444", ["GPU-ee", "MIG-dddd4444"]),
        ("1,-1,0", ["1"]),  # as CUDA reads it
        ("0,7,2", ["0"]),
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_visible_gpus_are_those_of_cuda(visible, names):
    found = list(select_visible(LISTING, visible))
    assert [gpu.name for gpu in found] == names
    assert list(select_visible("", visible)) == []


def test_names_lead_to_the_same_gpu():
    for visible, uuid in (("2", "GPU-eeee5555"), ("GPU-ee", "GPU-eeee5555"), ("0", "GPU-aaaa1111")):
        assert [gpu.uuid for gpu in select_visible(LISTING, visible)] == [uuid]


def test_jobs_take_different_gpus_and_share_when_none_is_free(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with claimed_gpus(1, GPUS, tmp_path) as first, claimed_gpus(1, GPUS, tmp_path) as second:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
        with claimed_gpus(2, GPUS, tmp_path) as pair:
            assert [gpu.name for gpu in (*first, *second)] == ["0", "1"]
            assert [gpu.name for gpu in pair] == ["0", "2"]  # the free one, and the first of the others
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,2"
            assert "GPU 0 is shared with 1 other job" in caplog.text
            with claimed_gpus(2, GPUS, tmp_path) as other:
                assert [gpu.name for gpu in other] == ["1", "2"]  # the GPUs with one job each
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1,2"
    with claimed_gpus(1, GPUS, tmp_path) as again:
        assert [gpu.name for gpu in again] == ["0"]


def test_without_gpus_nothing_is_claimed(tmp_path):
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    for count, gpus in ((2, []), (0, GPUS)):
        with claimed_gpus(count, gpus, tmp_path) as found:
            assert found == []
            assert os.environ.get("CUDA_VISIBLE_DEVICES") == before
    assert list(tmp_path.iterdir()) == []


def test_more_gpus_than_there_are_is_refused(tmp_path):
    with (
        pytest.raises(ConfigError, match=r"expected 4 visible GPUs, found 3 \(0, 1, 2\)"),
        claimed_gpus(4, GPUS, tmp_path),
    ):
        pass


JOB = """
import sys
from pathlib import Path
from loco.devices import Gpu, claimed_gpus
with claimed_gpus(1, [Gpu(str(k), f"GPU-{k}") for k in range(3)], Path(sys.argv[1])) as (gpu,):
    print(gpu.name, flush=True)
    sys.stdin.read()
"""


def test_processes_that_start_together_take_different_gpus_and_free_them_when_killed(tmp_path):
    def start():
        command = [sys.executable, "-c", JOB, str(tmp_path)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    jobs = [start() for _ in range(3)]
    try:
        names = [job.stdout.readline().strip() for job in jobs]
        assert sorted(names) == ["0", "1", "2"]
        jobs[1].send_signal(signal.SIGKILL)
        jobs[1].wait()
        with claimed_gpus(1, GPUS, tmp_path) as (gpu,):
            assert gpu.name == names[1]
    finally:
        for job in jobs:
            job.communicate()
