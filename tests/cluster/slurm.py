"""A SLURM cluster on this machine, two nodes with GPUs and two without: its own keys, sockets and ports, no accounting.

The daemons are those of Debian's packages (``make test-cluster`` installs them). They need root, write only below one
folder, and are independent of a SLURM that may be configured in ``/etc/slurm``.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")  # those that the workflow runs
PARTITIONS = {"cpu": ("c1", "c2"), "gpu": ("g1", "g2")}
CPUS, MEMORY, GPUS = 16, 64_000, 2  # of each node. They are only stated: nothing is bound to CPUs or GPUs
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={controller}
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2
ReturnToService=2
MpiDefault=none
MinJobAge=86400
KillWait=60
GresTypes=gpu
{nodes}
PartitionName=cpu Nodes=c[1-2] Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=g[1-2] MaxTime=INFINITE State=UP
"""


class Cluster:
    """A running cluster: commands with ``environment`` use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
        }

    def command(self, *arguments: str) -> str:
        """Run a command of SLURM and return what it prints."""
        return subprocess.run(
            arguments, env=self.environment, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def jobs(self) -> list[dict[str, str]]:
        """The jobs of the last minutes, in any state: the fields of ``scontrol show job``."""
        listing = self.command("scontrol", "show", "job", "--oneliner")
        lines = [line for line in listing.splitlines() if line.startswith("JobId=")]
        return [dict(field.split("=", 1) for field in line.split() if "=" in field) for line in lines]

    def jobs_of(self, rule: str) -> list[dict[str, str]]:
        """The jobs of one rule or group, found by the comment that the executor plugin sets."""
        return [job for job in self.jobs() if rule in job.get("Comment", "")]


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Start the daemons and wait until all nodes are idle; stop the daemons and their jobs at the end."""
    _write_configuration(folder)
    cluster = Cluster(folder)
    with ExitStack() as daemons:
        for command in _daemons(folder):
            daemons.enter_context(_daemon(command, folder, cluster.environment))
            _wait_for_its_file(command, folder)
        daemons.callback(_cancel_all, cluster)
        _wait(
            lambda: cluster.command("sinfo", "--noheader", "--format=%T", "--Node").split() == ["idle"] * len(_nodes())
        )
        yield cluster


def missing_programs() -> list[str]:
    """Return the programs of a cluster that are not installed."""
    return [name for name in (*DAEMONS, *COMMANDS) if not shutil.which(name)]


def _nodes() -> list[str]:
    return [name for names in PARTITIONS.values() for name in names]


def _write_configuration(folder: Path) -> None:
    controller, *ports = _free_ports(1 + len(_nodes()))
    host = socket.gethostname().partition(".")[0]
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory={MEMORY}"
        + (f" Gres=gpu:{GPUS}" if name in PARTITIONS["gpu"] else "")
        for name, port in zip(_nodes(), ports)
    )
    settings = {"folder": folder, "host": f"{host}(127.0.0.1)", "controller": controller}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(nodes=nodes, **settings))
    devices = [folder / f"gpu{k}" for k in range(GPUS)]  # SLURM requires that they exist, and does not open them
    for device in devices:
        device.touch()
    names = ",".join(PARTITIONS["gpu"])
    (folder / "gres.conf").write_text("".join(f"NodeName={names} Name=gpu File={device}\n" for device in devices))
    (folder / "hosts").write_text(Path("/etc/hosts").read_text() + f"127.0.0.1 {' '.join(_nodes())}\n")
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge.key").chmod(0o400)
    (folder / "state").mkdir()
    (folder / "bin").mkdir()
    for name in COMMANDS:  # the executor plugin removes SLURM_CONF from the environment of jobs
        (folder / "bin" / name).write_text(
            f'#!/bin/sh\nSLURM_CONF="{folder}/slurm.conf" exec "{shutil.which(name)}" "$@"\n'
        )
        (folder / "bin" / name).chmod(0o755)


def _daemons(folder: Path) -> list[list[str]]:
    configuration = ["-f", str(folder / "slurm.conf")]
    munged = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket"]
    munged += [f"--{kind}-file={folder}/munged.{kind}" for kind in ("log", "pid", "seed")]
    # Jobs see a file of hosts of their own, in which the nodes have addresses.
    own_hosts = ["unshare", "--mount", "sh", "-c", f'mount --bind {folder}/hosts /etc/hosts && exec "$@"', "sh"]
    nodes = [[*own_hosts, "slurmd", "-D", "-N", name, *configuration] for name in _nodes()]
    return [munged, ["slurmctld", "-D", "-i", *configuration], *nodes]


@contextmanager
def _daemon(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    with (folder / "daemons.log").open("a") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_its_file(command: Sequence[str], folder: Path) -> None:
    if command[0] == "munged":
        _wait(lambda: (folder / "munge.socket").exists())


def _cancel_all(cluster: Cluster) -> None:
    cluster.command("scancel", "--user=root")
    _wait(lambda: not cluster.command("squeue", "--noheader"))


def _wait(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the SLURM daemons did not reach the expected state in time; see their logs")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as sockets:
        found = [sockets.enter_context(closing(socket.socket())) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]
