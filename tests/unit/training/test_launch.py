"""How the ranks of a training run are started: commands and environment in a simulated SLURM job."""

import json
import os
import re
import runpy
import sys

import pytest

from loco import parent_process
from loco.errors import ConfigError, DataError, LocoError
from loco.training.launch import ERROR, Ranks, launch, step_environment
from loco.training.lock import training_lock

ECHO = """
import json, os, sys
from pathlib import Path
job = Path(sys.argv[-1])
(job.parent / "seen.json").write_text(json.dumps({"command": sys.argv, "environment": dict(os.environ)}))
if (job.parent / "fails").exists():
    (job.parent / "error.txt").write_text("the reason")
    sys.exit(1)
"""


@pytest.fixture
def recorded(slurm, tmp_path, monkeypatch):
    """Run `launch` with a program in place of Python and of srun, which records how it was called."""
    program = tmp_path / "bin" / "srun"
    program.write_text(f"#!{sys.executable}\n{ECHO}")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    state = tmp_path / "out" / "state-0123"
    state.mkdir(parents=True)

    def start(processes, nodes, threads=3):
        with training_lock(state.parent) as lock:
            launch(state / "job.json", processes, nodes, threads, lock)
        seen = json.loads((state / "seen.json").read_text())
        return seen["command"][1:], seen["environment"]

    return start


def test_one_machine_needs_no_slurm(recorded, monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    command, environment = recorded(4, 1)
    assert command[:4] == ["-m", "torch.distributed.run", "--nproc-per-node=4", "--standalone"]
    assert command[4:6] == ["-m", "loco.training"]
    assert environment["OMP_NUM_THREADS"] == environment["OPENCV_FOR_THREADS_NUM"] == "3"


def test_nodes_are_one_step_of_the_job(recorded, monkeypatch):
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    command, environment = recorded(8, 2)
    options, agent = command[: command.index(sys.executable)], command[command.index(sys.executable) + 1 :]
    assert options == [
        "--jobid=4711",
        "--overlap",
        "--nodes=2",
        "--ntasks=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=12",
        "--kill-on-bad-exit=1",
        "--gpus-per-node=4",
    ]
    assert agent[:3] == ["-m", "torch.distributed.run", "--nproc-per-node=4"]
    assert {"--nnodes=2", "--rdzv-backend=c10d"} < set(agent)
    handled = next(part for part in agent if part.startswith("--signals-to-handle="))
    # Srun passes the second signal on by itself.
    assert {"SIGTERM", "SIGUSR1"} < set(handled.partition("=")[2].split(","))
    address = next(part for part in agent if part.startswith("--rdzv-endpoint="))
    assert address.startswith("--rdzv-endpoint=localhost:")
    assert 10_000 <= int(address.rpartition(":")[2]) < 30_000
    assert "--rdzv-id=4711-state-0123" in agent
    left = {name for name in environment if name.startswith("SLURM_")}
    assert left == {"SLURM_JOB_ID"}


def test_without_gpus_none_are_requested(recorded):
    command, _ = recorded(2, 2)
    assert not any(part.startswith("--gpu") for part in command)


def test_trainings_of_one_job_do_not_meet(recorded, tmp_path):
    first, _ = recorded(2, 2)
    (tmp_path / "out" / "state-0123").rename(tmp_path / "out" / "moved")
    (tmp_path / "out" / "state-4567").mkdir()
    with training_lock(tmp_path / "out") as lock:
        launch(tmp_path / "out" / "state-4567" / "job.json", 2, 2, 1, lock)
    second = json.loads((tmp_path / "out" / "state-4567" / "seen.json").read_text())["command"][1:]
    for option in ("--rdzv-id=", "--rdzv-endpoint="):
        ours, other = (next(part for part in command if part.startswith(option)) for command in (first, second))
        assert ours != other


def test_nodes_without_slurm_are_refused(recorded, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID")
    with pytest.raises(ConfigError, match="requires a SLURM job with 2 nodes"):
        recorded(2, 2)


def test_a_job_of_another_number_of_nodes_is_refused(recorded):
    with pytest.raises(ConfigError, match=r"`train.nodes: 4`, but this SLURM job has 2 node\(s\) \(n\[1-2\]\)"):
        recorded(4, 4)


def test_a_scheduler_that_does_not_answer_is_reported(recorded, tmp_path):
    for name in ("scontrol", "squeue"):  # the second is asked first
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\necho {name} is down >&2; exit 1\n")
        with pytest.raises(DataError, match=f"{name} is down"):
            recorded(2, 2)


def test_what_a_rank_reports_is_raised(recorded, tmp_path):
    (tmp_path / "out" / "state-0123" / "fails").touch()
    with pytest.raises(LocoError, match="the reason"):
        recorded(2, 1)


def test_a_rank_reports_what_goes_wrong(experiment, walls, tmp_path, monkeypatch):
    experiment["train"]["optimiser"]["lr"] = 1e30
    scenes = [[str(path) for path in scene] for scene in walls[:2]]
    job = {"experiment": experiment, "train": scenes, "val": [], "out_dir": str(tmp_path), "seed": 0}
    job |= {"state": str(tmp_path), "threads": 1, "facts": None, "record": None}
    (tmp_path / "job.json").write_text(json.dumps(job))
    monkeypatch.setattr(sys, "argv", ["loco.training", str(tmp_path / "job.json")])
    monkeypatch.setattr(parent_process, "watch_parent", lambda: None)
    with pytest.raises(SystemExit):
        runpy.run_module("loco.training", run_name="__main__")
    assert re.search(r"not finite at step \d+[\s\S]*learning rate", (tmp_path / ERROR).read_text())


def test_the_environment_of_a_step():
    around = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "1", "SLURM_CPU_BIND": "q", "SLURM_CONF": "/etc/s.conf", "PATH": "/"}
    assert step_environment(around) == {"SLURM_JOB_ID": "1", "SLURM_CONF": "/etc/s.conf", "PATH": "/"}


def test_ranks_are_those_of_torchrun(monkeypatch, slurm):
    monkeypatch.setenv("SLURM_NTASKS", "4")  # by which Lightning recognises SLURM
    alone = Ranks.of_environment()
    assert alone[:4] == (0, 1, 1, 1)
    assert not alone.environment.creates_processes_externally
    variables = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "x"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Ranks.of_environment()[:4] == (5, 8, 4, 2)
