"""What remains when Snakemake or its jobs are killed, or the disk is full; and that a second run completes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from loco.models.stored import read_content
from loco.storage import Frames
from tests.workflow.conftest import MODEL, World

FRAMES = "results/frames/tiny/cedar.h5"
FEATURES = "results/features/quick/tiny-seed0/tiny/cedar.h5"
METRICS = "results/metrics/location_consistency/tiny/quick/tiny-seed0.json"
LARGE = {"datasets": {"tiny": {"frames": {"height": 240, "width": 320}}}}  # a job that takes a moment
T = TypeVar("T")


def wait_for(condition: Callable[[], T], seconds: float = 600) -> T:
    """Wait until a condition holds, and return its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return value


def start(world: World, *arguments: str) -> subprocess.Popen[bytes]:
    """Start Snakemake in its own process group."""
    return subprocess.Popen(
        world.command("--cores", "1", *arguments),
        cwd=world.directory,
        env=world.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def parts(world: World) -> list[Path]:
    """Return the temporary files of frames that are being written."""
    return list((world.directory / FRAMES).parent.glob(".cedar*.part*"))


def writer(world: World, before: Sequence[Path] = ()) -> int:
    """Wait until a job writes frames, and return its process number, which is in the name of its temporary file."""
    (part,) = wait_for(lambda: [part for part in parts(world) if part not in before])
    return int(part.name.split("-")[-3])


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes(world: World) -> list[int]:
    """Return all processes of a world: Snakemake and the jobs have its folder in their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(world.directory).encode() in path.read_bytes() and alive(int(path.parent.name)):
                found.append(int(path.parent.name))
    return found


@pytest.fixture(autouse=True)
def nothing_goes_on(world):
    """Leave no process behind if a test fails."""
    yield
    for process in processes(world):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def steps_of(world: World) -> int:
    """Return the steps of the model in the results."""
    return read_content(world.directory / MODEL)["facts"]["steps"]


def test_a_training_without_its_snakemake_ends_and_the_next_run_has_its_own_settings(world):
    training = {"steps": 5000, "validate_every": 1000, "save_every": 5}
    world.overlay({"experiments": {"quick": {"train": training}}})
    snakemake = start(world, "--", METRICS)
    state = world.directory / Path(MODEL).parent
    wait_for(lambda: list(state.glob("state-*/*.ckpt")))
    snakemake.kill()  # only Snakemake, not its jobs
    snakemake.wait()
    assert processes(world)
    wait_for(lambda: not processes(world), seconds=180)
    assert not (world.directory / MODEL).exists()

    world.overlay({"experiments": {"quick": {"train": {"steps": 4, "validate_every": 2, "save_every": 2}}}})
    world.run("--unlock")
    world.run("--", METRICS)
    assert steps_of(world) == 4
    assert not world.plan("--", METRICS)


def test_more_steps_continue_a_finished_training_with_a_constant_rate(world):
    log = Path(MODEL).with_name("log.csv")
    world.overlay({"experiments": {"quick": {"train": {"optimiser": {"schedule": "constant"}, "steps": 3}}}})
    world.run("--", MODEL)
    before = world.read(str(log))
    world.overlay({"experiments": {"quick": {"train": {"steps": 5, "save_every": 4, "workers": 1}}}})
    world.run("--", MODEL)
    assert world.read(str(log)).startswith(before)  # times included: these steps were not run again
    assert len(world.read(str(log)).splitlines()) == 1 + 5
    assert steps_of(world) == 5


@pytest.mark.long
def test_a_job_that_was_stopped_while_it_outlived_its_snakemake_changes_nothing(world):
    """The job has the former settings, so its output would have them, too."""
    world.overlay(LARGE)
    snakemake = start(world, "--", FRAMES)
    job = writer(world)
    os.kill(job, signal.SIGSTOP)
    (before,) = parts(world)
    snakemake.kill()
    snakemake.wait()

    world.overlay({"datasets": {"tiny": {"frames": {"height": 48, "width": 64, "every": 2}}}})
    world.run("--unlock")
    world.run("--", FRAMES)
    made = (world.directory / FRAMES).read_bytes()
    with Frames(world.directory / FRAMES) as frames:
        assert frames.size == (48, 64)
    assert before.exists()  # the writer of the file is alive
    os.kill(job, signal.SIGCONT)
    wait_for(lambda: not alive(job), seconds=180)
    assert (world.directory / FRAMES).read_bytes() == made
    assert not parts(world)
    assert not world.plan("--", FRAMES)


def test_a_run_that_was_killed_whole_completes_in_a_second_one(world, finished):
    """As by a time limit or the kernel, nothing is cleaned up, and the next job finds the remaining files."""
    before: list[Path] = []
    for _ in range(2):
        snakemake = start(world, "--forcerun", "frames", "--", FRAMES)
        job = writer(world, before)
        os.kill(job, signal.SIGSTOP)
        assert not any(part.exists() for part in before)
        before = parts(world)
        os.killpg(snakemake.pid, signal.SIGKILL)
        snakemake.wait()
        wait_for(lambda: not processes(world), seconds=180)
        world.run("--unlock")
    assert before[0].exists()
    world.run("--", FRAMES)
    assert (world.directory / FRAMES).read_bytes() == (finished.directory / FRAMES).read_bytes()
    assert not parts(world)


@pytest.mark.parametrize(
    ("rule", "file", "log"),
    [
        ("frames", FRAMES, "frames/tiny/cedar.log"),
        ("extract", FEATURES, "extract/quick/tiny-seed0/tiny/cedar.log"),
        ("train", MODEL, "train/tiny/quick/seed0.log"),
    ],
)
def test_a_full_disk_leaves_nothing_half_written(world, rule, file, log):
    path = world.directory / file
    said = world.refuse("--forcerun", rule, "--", file, file_size=path.stat().st_size // 2)
    text = world.read(f"results/logs/{log}")
    assert "the disk is full" in text
    assert file.rpartition("/")[0] in text
    assert "Traceback" not in text
    assert text in said
    assert not [path for path in path.parent.rglob("*") if ".part" in path.name]
    assert not path.exists()
