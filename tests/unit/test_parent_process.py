"""A job ends with the process that started it, also through a shell, and writes nothing after that."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

JOB = """
import sys, time
from loco.logs import job
with job({log!r}):
    from loco.storage import atomic_path
    with atomic_path({out!r}) as temporary:
        temporary.write_text("of old settings")
        print(__import__("os").getpid(), flush=True)
        while not __import__("os").path.exists({go!r}):
            time.sleep(0.05)
"""
# As Snakemake starts a script: with a shell in between, which cannot replace itself by the job.
PARENT = "import subprocess, sys; subprocess.run(['bash', '-c', f'set -e; {sys.executable} {sys.argv[1]}; true'])"


@pytest.fixture
def started(tmp_path):
    out, log, go = tmp_path / "out/frames.h5", tmp_path / "log", tmp_path / "go"
    (tmp_path / "job.py").write_text(JOB.format(out=str(out), log=str(log), go=str(go)))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "job.py")],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    number = int(parent.stdout.readline())
    yield parent, number, out, log, go
    for process in (parent.pid, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    parent.wait()


def ended(number: int, within: float) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            with open(f"/proc/{number}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_a_job_ends_when_its_parent_is_killed(started):
    parent, number, out, log, _ = started
    parent.kill()
    assert ended(number, within=10)
    assert list(out.parent.iterdir()) == []
    assert "has ended, so the job stops" in log.read_text()


def test_a_job_that_was_stopped_meanwhile_does_not_write_its_file(started):
    """The job continues just before the rename, where no watch has checked the parent again yet."""
    parent, number, out, _, go = started
    os.kill(number, signal.SIGSTOP)
    parent.kill()
    parent.wait()  # a killed process may continue for a moment
    go.touch()
    os.kill(number, signal.SIGCONT)
    assert ended(number, within=10)
    assert list(out.parent.iterdir()) == []


def test_a_job_whose_parent_lives_goes_on(started):
    parent, _, out, _, go = started
    time.sleep(1.5)  # the watch has checked the parent
    go.touch()
    assert parent.wait(10) == 0
    assert out.read_text() == "of old settings"
