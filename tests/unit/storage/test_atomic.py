import errno
import json
import os
import resource
import signal

import numpy as np
import pytest

from loco.errors import DataError
from loco.storage import Frames, atomic_path, write_json, write_text


def test_the_file_appears_whole_with_an_ordinary_mode(tmp_path):
    path = tmp_path / "deep" / "table.csv"
    write_text(path, "a,b\n")
    assert path.read_text() == "a,b\n"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert os.listdir(path.parent) == ["table.csv"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half of the new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(DataError, match=r"disk is full.*\n.*table.csv"), atomic_path(tmp_path / "table.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def no_room():
    """Let no file of this process grow past 64 KB, as a full disk would."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("no_room")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # HDF5 cannot close what it cannot write
def test_running_out_of_room_inside_hdf5_leaves_nothing(tmp_path):
    def write():
        with Frames.create(tmp_path / "scene.h5", "houses", "a", {"n": 4, "h": 128, "w": 160}) as file:
            file["rgb"][:] = np.random.default_rng(0).integers(0, 255, size=(4, 128, 160, 3))
            file.flush()

    with pytest.raises(DataError, match="disk is full"):
        write()
    assert os.listdir(tmp_path) == []


def test_json_is_sorted_and_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [0.5, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [0.5, None], "b": 1}
    assert (tmp_path / "a.json").read_text().index('"a"') < (tmp_path / "a.json").read_text().index('"b"')
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"a": float("nan")})
    assert not (tmp_path / "b.json").exists()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
