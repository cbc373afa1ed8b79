"""The wrapper of a job: what it writes to the log, and how it ends. Each test runs in a separate process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from loco.logs import unfinished_logs

ROOT = Path(__file__).parents[2]
HEAD = "import logging, os, warnings\nfrom loco.errors import DataError\nfrom loco.logs import job\n"


def run(tmp_path: Path, body: str) -> tuple[subprocess.CompletedProcess[str], str]:
    log = tmp_path / "logs/step.log"
    program = f"{HEAD}with job({str(log)!r}, threads=1):\n    {body}\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    return done, log.read_text()


def test_a_good_job_ends_its_log_with_finished(tmp_path: Path) -> None:
    done, log = run(tmp_path, "logging.getLogger('loco.x').info('halfway'); warnings.warn('careful')")
    assert done.returncode == 0
    words = ("started with 1 thread(s)", "halfway", "careful", "finished")
    places = [log.index(word) for word in words]
    assert places == sorted(places)


def test_a_users_mistake_is_logged_without_traceback(tmp_path: Path) -> None:
    done, log = run(tmp_path, "raise DataError('is missing', file='a.zip', scene='ash', remedy='download it')")
    assert done.returncode == 1
    assert "is missing\n  file: a.zip\n  scene: ash\n  what to do: download it\n" in log
    assert "Traceback" not in log + done.stderr
    assert "finished" not in log


def test_a_fault_of_the_program_is_logged_with_traceback(tmp_path: Path) -> None:
    done, log = run(tmp_path, "1 / 0")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in log
    assert "ZeroDivisionError" in log


def test_logs_of_jobs_that_have_not_finished(tmp_path: Path) -> None:
    """Logs are unfinished unless their last message states that the job finished, whatever they contain before it."""
    logs = tmp_path / "results"
    done, _ = run(logs, "logging.getLogger('loco.x').error('a remark')")
    assert done.returncode == 0
    assert unfinished_logs(tmp_path) == {}
    run(logs, "raise DataError('is missing', file='a.zip', scene='ash', remedy='download it')")
    assert unfinished_logs(tmp_path) == {logs / "logs/step.log": "failed"}
    run(logs, "logging.getLogger('loco.x').info('finished half'); os._exit(9)")
    cluster = tmp_path / ".snakemake/slurm_logs/rule_train/17.log"
    cluster.parent.mkdir(parents=True)
    cluster.write_text("slurmstepd: error: killed")
    assert unfinished_logs(tmp_path) == {
        logs / "logs/step.log": "runs, or was killed (by a limit of time or memory)",
        cluster: "output of a SLURM job that failed or still runs",
    }


def test_libraries_are_held_to_the_threads(tmp_path: Path) -> None:
    done, _ = run(tmp_path, "import cv2, torch; print(cv2.getNumThreads(), torch.get_num_threads())")
    assert done.stdout.split() == ["1", "1"]
