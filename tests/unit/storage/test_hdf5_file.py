"""Every failed write into an HDF5 file is reported, in all ways in which libhdf5 and h5py handle it."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from loco.errors import DataError
from loco.storage import Features, Frames

SIZES = {"n": 6, "h": 64, "w": 80}


def write(path):
    rng = np.random.default_rng(0)
    with Frames.create(path, "houses", "ash", SIZES) as file:
        file.facts["names"] = [f"{k}" for k in range(6)]
        file["pose"][:], file["intrinsics"][:] = np.eye(4), np.eye(3)
        for k in range(6):
            file["rgb"][k] = rng.integers(0, 255, (64, 80, 3))
            file["depth"][k] = rng.uniform(1, 5, (64, 80))
            file["source"][k] = 1


def count_writes(monkeypatch, fails=lambda number: False):
    """Count the writes, and let some fail."""
    numbers, real = [], os.pwrite

    def pwrite(descriptor, data, offset):
        numbers.append(len(numbers))
        if fails(numbers[-1]):
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    return numbers


def test_any_single_write_that_fails_is_raised(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        numbers = count_writes(patch)
        write(tmp_path / "good.h5")
        total = len(numbers)
    assert total > 20
    for failing in range(total):
        with monkeypatch.context() as patch:
            count_writes(patch, lambda number, failing=failing: number == failing)
            with pytest.raises(OSError, match="write failed"):
                write(tmp_path / "bad.h5")
        assert os.listdir(tmp_path) == ["good.h5"]


def test_the_first_failure_ends_the_work(tmp_path, monkeypatch):
    """A full disk is reported at once, not after all frames."""
    frames = []
    count_writes(monkeypatch, lambda number: number >= 4)

    def fill():
        with Features.create(tmp_path / "x.h5", "d", "s", {"n": 50, "h": 64, "w": 64, "c": 64}) as file:
            for k in range(50):
                frames.append(k)
                file["features"][k] = 0.5

    with pytest.raises(OSError, match="a write failed"):
        fill()
    assert len(frames) < 50
    assert os.listdir(tmp_path) == []


def test_a_frame_that_was_not_written_is_noticed(tmp_path):
    def leave_one_out():
        with Features.create(tmp_path / "x.h5", "d", "s", {"n": 3, "h": 2, "w": 2, "c": 4}) as file:
            file["norm"][:] = 1
            for k in (0, 2):
                file["features"][k] = 0.5

    with pytest.raises(RuntimeError, match="'features' has 2 of 3 frames"):
        leave_one_out()
    assert os.listdir(tmp_path) == []


@pytest.fixture
def no_room():
    """Limit every file that this process writes to 64 KB, like a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("no_room")
def test_running_out_of_room_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="disk is full"):
        write(tmp_path / "scene.h5")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_one_message_and_no_crash(tmp_path):
    """In a separate process, which must also exit normally: libhdf5 used to crash when it closed such a file."""
    program = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
from loco.logs import job
with job({str(tmp_path / "log")!r}):
    import sys
    sys.path.insert(0, "tests/unit/storage")
    from test_hdf5_file import write
    from pathlib import Path
    write(Path({str(tmp_path / "scene.h5")!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    log = (tmp_path / "log").read_text()
    assert done.returncode == 1
    assert done.stderr == ""
    assert log.count("the disk is full") == 1
    assert "Traceback" not in log
