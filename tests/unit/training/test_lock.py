"""The lock of the folder of a training run, on file systems with and without locks of the system."""

import errno
import fcntl
import os
import subprocess
import sys
from multiprocessing import get_context

import pytest

from loco.errors import DataError
from loco.process_identity import ProcessIdentity
from loco.training import lock as module
from loco.training.lock import LOCK, is_locked, training_lock

HELD = ".lock.held.1"  # the first file that serves as a lock
WITHOUT = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


def without_locks(monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture(params=[None, *WITHOUT], ids=["flock", "ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def locks(request, monkeypatch):
    """The lock of the system, and each way in which a file system reports that it has none."""
    if request.param is not None:
        without_locks(monkeypatch, request.param)
    return request.param


def ended_process() -> ProcessIdentity:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = ProcessIdentity.of(process.pid)
        process.communicate(b"\n")
    return identity


def test_a_second_training_is_refused_until_the_first_ends(locks, tmp_path):
    folder = tmp_path / "made" / "if_missing"
    with training_lock(folder):
        assert is_locked(folder)
        with pytest.raises(DataError, match=rf"another training is running[\s\S]*process {os.getpid()} on .* since 20"):
            training_lock(folder).__enter__()
    assert not is_locked(folder)
    assert len([path for path in folder.iterdir() if path.name != LOCK]) == (locks is not None)
    with training_lock(folder):
        pass


def test_the_lock_ends_with_a_training_that_fails(locks, tmp_path):
    with pytest.raises(RuntimeError, match="diverged"), training_lock(tmp_path):
        raise RuntimeError("diverged")
    assert not is_locked(tmp_path)


def hold(folder, number, held, end):
    if number is not None:
        without_locks(pytest.MonkeyPatch(), number)
    with training_lock(folder):
        held.set()
        end.wait(60)


def test_the_lock_of_a_killed_training_is_taken_over(locks, tmp_path):
    context = get_context("fork")
    held, end = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, locks, held, end))
    process.start()
    assert held.wait(60)
    with pytest.raises(DataError, match=f"process {process.pid} on"):
        training_lock(tmp_path).__enter__()
    process.kill()
    process.join()
    with training_lock(tmp_path):
        assert is_locked(tmp_path)


def test_a_child_holds_the_lock_when_its_parent_was_killed(monkeypatch, tmp_path):
    """As the launcher of a distributed training does; without locks, by the list of processes."""
    without_locks(monkeypatch, errno.ENOLCK)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        (tmp_path / HELD).write_text(f"{ended_process()}\n{ProcessIdentity.of(child.pid)}\n")
        with pytest.raises(DataError, match=rf"found: +process {child.pid} on"):
            training_lock(tmp_path).__enter__()
        child.communicate(b"\n")
    assert not is_locked(tmp_path)


def test_a_training_shares_its_lock_with_its_launcher(locks, tmp_path):
    """The launcher outlives the block: the lock of the system is inherited, the other kind lists the launcher."""
    with (
        training_lock(tmp_path) as lock,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=lock.descriptors) as child,
    ):
        lock.share(child.pid)
        text = lock.path.read_text().split()
        child.communicate(b"\n")
    assert text[1::3] == [str(os.getpid()), str(child.pid)]


def test_a_process_of_another_machine_may_run(monkeypatch, tmp_path):
    without_locks(monkeypatch, errno.ENOSYS)
    (tmp_path / HELD).write_text("elsewhere 12 34\n")
    with pytest.raises(DataError, match=rf"process 12 on elsewhere[\s\S]*delete {tmp_path / HELD}"):
        training_lock(tmp_path).__enter__()
    assert (tmp_path / HELD).read_text() == "elsewhere 12 34\n"
    assert is_locked(tmp_path)


def test_an_incomplete_file_may_belong_to_a_training_that_begins(monkeypatch, tmp_path):
    without_locks(monkeypatch, errno.ENOLCK)
    (tmp_path / HELD).touch()
    with pytest.raises(DataError, match=f"delete {tmp_path / HELD}"):
        training_lock(tmp_path).__enter__()


def test_a_process_that_was_slow_to_take_a_lock_takes_none_that_others_hold(monkeypatch, tmp_path):
    """The process saw file 1; others created files 2 and 3, and perhaps removed them, before it created file 2."""
    without_locks(monkeypatch, errno.ENOLCK)
    (tmp_path / HELD).write_text(f"{ended_process()}\n")
    real, looks = module._numbers, []

    def numbers(folder):
        looks.append(real(folder))
        if len(looks) == 1:
            (tmp_path / HELD).unlink()
            (tmp_path / ".lock.held.3").write_text(f"{ProcessIdentity.of(os.getpid())}\n")
        return looks[-1]

    monkeypatch.setattr(module, "_numbers", numbers)
    with pytest.raises(DataError, match=f"process {os.getpid()} on"):
        training_lock(tmp_path).__enter__()
    assert real(tmp_path) == {3}


def take(folder, number, results, start):
    without_locks(pytest.MonkeyPatch(), number)
    start.wait()
    try:
        with training_lock(folder):
            results.put("held")
            start.wait()  # until every other process has been refused or has failed to be
    except DataError:
        results.put("refused")
        start.wait()


def test_of_many_that_find_a_stale_lock_one_takes_it_over(tmp_path):
    context = get_context("fork")
    stale = ended_process()
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        (folder / HELD).write_text(f"{stale}\n")
        results, start = context.Queue(), context.Barrier(6)
        processes = [context.Process(target=take, args=(folder, errno.ENOLCK, results, start)) for _ in range(6)]
        for process in processes:
            process.start()
        found = sorted(results.get(timeout=120) for _ in processes)
        for process in processes:
            process.join(60)
        assert found == ["held"] + 5 * ["refused"]


def test_other_errors_of_a_lock_are_raised(monkeypatch, tmp_path):
    without_locks(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"), training_lock(tmp_path):
        pass
    assert not (tmp_path / HELD).exists()
