import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from loco.errors import DataError
from loco.storage import atomic_path, write_text
from loco.storage.atomic import temporary_files


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


def start_writer(path, then="time.sleep(600)"):
    """A process that has a temporary file of ``path`` open."""
    program = f"""
import time
from loco.storage import atomic_path
with atomic_path({str(path)!r}) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    {then}
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", program], text=True, **pipes)
    assert process.stdout.readline() == "writing\n"
    return process


def test_what_a_killed_process_left_is_removed_by_the_next_writer_of_the_file(tmp_path):
    for _ in range(2):
        process = start_writer(tmp_path / "cedar.h5")
        process.kill()
        process.wait()
    other = start_writer(tmp_path / "ash.h5")
    other.kill()
    other.wait()
    # The second writer of cedar removed the file that the first had left.
    assert len(temporary_files(tmp_path)) == 3 - 1
    write_text(tmp_path / "cedar.h5", "whole")
    assert [path.name.split(".")[1] for path in temporary_files(tmp_path)] == ["ash"]
    assert (tmp_path / "cedar.h5").read_text() == "whole"


def test_the_temporary_file_of_a_living_process_stays(tmp_path):
    process = start_writer(tmp_path / "cedar.h5", then="input()")
    try:
        write_text(tmp_path / "cedar.h5", "mine")
        assert temporary_files(tmp_path) == []
        assert len(list(tmp_path.glob(".*.part.h5"))) == 1
    finally:
        process.kill()
        process.wait()


def test_files_of_another_machine_are_removed_when_nothing_has_written_to_them_for_an_hour(tmp_path):
    left = tmp_path / ".cedar.h5.elsewhere-1-1-0.part.h5"
    left.write_text("half")
    write_text(tmp_path / "cedar.h5", "whole")
    assert left.exists()
    os.utime(left, (time.time() - 4000,) * 2)
    write_text(tmp_path / "cedar.h5", "whole")
    assert not left.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_asked_to_stop_leaves_nothing(tmp_path, number):
    program = f"""
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from loco.logs import job
with job({str(tmp_path / "log")!r}):
    from loco.storage import atomic_path
    with atomic_path({str(tmp_path / "out/cedar.h5")!r}) as temporary:
        temporary.write_bytes(bytes(1000000))
        print("writing", flush=True)
        time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.readline()
    process.send_signal(number)
    assert process.wait(20) != 0
    assert os.listdir(tmp_path / "out") == []


def test_a_library_that_replaces_the_file_does_not_make_it_private(tmp_path):
    with atomic_path(tmp_path / "model.safetensors") as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
