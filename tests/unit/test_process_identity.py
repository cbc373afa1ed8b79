import os
import subprocess
import sys

import psutil
import pytest

from loco.process_identity import ProcessIdentity, start_time


def test_a_process_runs_until_it_ends():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = ProcessIdentity.of(process.pid)
        assert ProcessIdentity.parse(str(identity)) == identity
        assert not identity.has_ended
        process.communicate(b"\n")
    assert identity.has_ended


def test_a_reused_id_is_not_the_same_process():
    own = ProcessIdentity.of(os.getpid())
    assert not own.has_ended
    assert ProcessIdentity(own.host, own.number, own.started - 1).has_ended


def test_processes_of_other_machines_are_not_known_to_have_ended():
    elsewhere = ProcessIdentity("elsewhere", 2**22 + 1, 5)
    assert not elsewhere.is_local
    assert not elsewhere.has_ended


@pytest.mark.skipif(sys.platform != "linux", reason="start times are read from /proc")
def test_start_times_count_from_the_boot():
    seconds = start_time(os.getpid()) / os.sysconf("SC_CLK_TCK")
    assert psutil.boot_time() + seconds == pytest.approx(psutil.Process().create_time(), abs=2)


@pytest.mark.parametrize("text", ["", "host 1", "host one 2", "host 1 2 3"])
def test_other_text_is_no_identity(text):
    with pytest.raises(ValueError):  # noqa: PT011
        ProcessIdentity.parse(text)
