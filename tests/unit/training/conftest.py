"""An experiment that trains in seconds, and a SLURM job in which it can run."""

import os
import sys

import pytest

# What srun does for the training: start a task per node with its own variables, wait for all tasks, pass SIGUSR1 on,
# and kill the tasks on SIGTERM.
SRUN = """
import os, signal, subprocess, sys
options = [part for part in sys.argv[1:] if part.startswith("--")]
command = sys.argv[1:]
while command[0].startswith("--"):
    del command[0]
count = int(next(part for part in options if part.startswith("--ntasks=")).partition("=")[2])
tasks = []
signal.signal(signal.SIGUSR1, lambda number, _: [task.send_signal(number) for task in tasks])
signal.signal(signal.SIGTERM, lambda *_: [task.kill() for task in tasks])
for rank in range(count):
    own = {"SLURM_PROCID": str(rank), "SLURM_NTASKS": str(count), "SLURM_JOB_NAME": "train", "SLURM_NODEID": str(rank)}
    tasks.append(subprocess.Popen(command, env={**os.environ, **own}))
sys.exit(max(abs(task.wait()) for task in tasks))
"""


@pytest.fixture
def experiment():
    return {
        "model": {"name": "compact_cnn", "dim": 16, "widths": [8, 16, 16, 16], "blocks": 1},
        "train": {
            "loss": {"name": "exact", "rho": 0.05, "kappa": 1.0, "tau": 0.05},
            "steps": 6,
            "batch": {
                "scenes": 2,
                "images_per_scene": 3,
                "min_overlap": 0.3,
                "min_baseline": 0.0,
                "patches_per_image": 40,
            },
            "optimiser": {"lr": 2e-3, "weight_decay": 0.01, "warmup_steps": 1, "clip": 1.0},
            "augment": {"brightness": 0.2, "contrast": 0.2, "colour": 0.1},
            "validate_every": 3,
            "save_every": 2,
        },
    }


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Simulate a SLURM job of two nodes, both of which are this machine, with `srun`, `scontrol` and `squeue`.

    Within a real job of two nodes (``sbatch --nodes 2 --wrap 'pytest ...'``), that job is used.
    """
    if "SLURM_JOB_ID" in os.environ:
        return
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "srun").write_text(f"#!{sys.executable}\n{SRUN}")
    (folder / "scontrol").write_text("#!/bin/sh\nprintf 'localhost\\nlocalhost\\n'\n")
    (folder / "squeue").write_text("#!/bin/sh\necho 'n[1-2]'\n")
    for program in folder.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    for name, value in {"JOB_ID": "4711", "JOB_NODELIST": "n1", "NTASKS": "1", "STEP_ID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
