"""Start the ranks of a distributed training, on one machine or on the nodes of a SLURM job, and wait for them.

Every rank is ``python -m loco.training JOB`` under PyTorch's launcher (torchrun). Each node runs one launcher, its
agent, which starts the ranks of the node. On several nodes, one step of the SLURM job starts the agents, whose
rendezvous is on the first node.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment, TorchElasticEnvironment

from loco.devices import gpus_granted_by_slurm
from loco.errors import ConfigError, DataError, LocoError
from loco.logs import THREADS
from loco.training.lock import Lock

STOP = signal.SIGUSR1  # srun forwards it to its tasks, the agents, which forward it to the ranks
ERROR = "error.txt"  # in the folder of the state: the error message of a rank
# Variables of the SLURM job that a new step inherits. All other SLURM_* describe the step of this process, and srun
# would interpret them as options.
_KEPT = ("SLURM_JOB_ID", "SLURM_CONF")
_PORTS = range(10_000, 30_000)  # below the ephemeral ports

logger = logging.getLogger(__name__)


class Ranks(NamedTuple):
    """The rank and world size of this process in a training.

    ``rank`` of ``world_size``, on one of ``nodes`` machines with ``per_node`` ranks each. ``environment`` prevents
    Lightning from detecting a cluster: within a SLURM job it would requeue the job on signals that the training handles
    itself.
    """

    rank: int
    world_size: int
    per_node: int
    nodes: int
    environment: ClusterEnvironment

    @classmethod
    def of_environment(cls) -> Ranks:
        """Read the ranks from the variables of torchrun; a single rank if torchrun did not start this process."""
        if not TorchElasticEnvironment.detect():
            return cls(0, 1, 1, 1, LightningEnvironment())
        rank, world_size, per_node = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        return cls(rank, world_size, per_node, world_size // per_node, TorchElasticEnvironment())


def launch(job: Path, processes: int, nodes: int, threads: int, lock: Lock) -> None:
    """Run the ranks of a distributed training and wait for them.

    SIGTERM is forwarded to the agents, and by them to all ranks, which save the state and exit. With srun, SIGUSR1
    (:data:`STOP`) is sent instead, because srun kills its tasks at once on SIGTERM. The launched process also holds the
    ``lock`` of the training, because it may outlive this process.

    Args:
        job: JSON file of the arguments of the training; a rank that fails writes its error message to the same folder.
        processes: number of ranks on all nodes.
        nodes: number of machines, with equal numbers of ranks. More than one requires a SLURM job with as many nodes,
            on all of which the folder of ``job`` has the same path.
        threads: CPU threads of each rank.
        lock: lock of the training.

    Raises:
        ConfigError: ``nodes`` is more than one, and this process is not part of a SLURM job with as many nodes.
        LocoError: a rank failed; the message is that of the rank.
        SystemExit: the training was requested to stop, or a rank ended without a message.
    """
    command, environment = [*_agent(job, processes, nodes), "-m", "loco.training", str(job)], dict(os.environ)
    if nodes > 1:
        command = [*_step(nodes, processes // nodes * threads, processes // nodes), *command]
        environment = step_environment(os.environ)
    environment |= dict.fromkeys(THREADS, str(threads))
    job.with_name(ERROR).unlink(missing_ok=True)
    logger.info("start %d ranks on %d node(s): %s", processes, nodes, " ".join(command))
    with subprocess.Popen(command, env=environment, pass_fds=lock.descriptors) as launched:
        lock.share(launched.pid)
        passed_on = signal.SIGTERM if nodes == 1 else STOP
        before = signal.signal(signal.SIGTERM, lambda *_: launched.send_signal(passed_on))
        try:
            code = launched.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    if code and (error := job.with_name(ERROR)).is_file():
        raise LocoError(error.read_text())
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def step_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a new step of a SLURM job, without the variables of the current step."""
    return {name: value for name, value in environment.items() if not name.startswith("SLURM_") or name in _KEPT}


def _agent(job: Path, processes: int, nodes: int) -> list[str]:
    """Return the command of torchrun on each node."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes // nodes}"]
    if nodes == 1:
        return [*command, "--standalone"]
    command.append(f"--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,{STOP.name}")
    run = f"{os.environ.get('SLURM_JOB_ID', '')}-{job.parent.name}"  # two trainings may share a SLURM job
    port = _PORTS[zlib.crc32(run.encode()) % len(_PORTS)]
    address = f"{_hosts(nodes)[0]}:{port}"
    return [*command, f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={address}", f"--rdzv-id={run}"]


def _step(nodes: int, cpus: int, gpus: int) -> list[str]:
    """Return the command that starts one task on each node of this SLURM job, with all ``cpus`` and ``gpus``."""
    command = ["srun", f"--jobid={os.environ['SLURM_JOB_ID']}", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}"]
    command += ["--ntasks-per-node=1", f"--cpus-per-task={cpus}", "--kill-on-bad-exit=1"]
    if gpus_granted_by_slurm():
        command += [f"--gpus-per-node={gpus}"]
    return command


def _hosts(nodes: int) -> list[str]:
    """Return the names of the nodes of this SLURM job.

    They are requested from SLURM, because ``SLURM_JOB_NODELIST`` lists the nodes of the step that this process is part
    of, which may be the first node alone.

    Raises:
        ConfigError: this process is not part of a SLURM job, or the job has another number of nodes.
        DataError: a command of SLURM fails.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or not all(map(shutil.which, ("srun", "scontrol", "squeue"))):
        raise ConfigError(
            f"`train.nodes: {nodes}` requires a SLURM job with {nodes} nodes, but this process is not part of one; "
            "submit the workflow with `--workflow-profile profiles/slurm`, or set `train.nodes: 1`"
        )
    listed = _ask("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()
    hosts = _ask("scontrol", "show", "hostnames", listed).split()
    if len(hosts) != nodes:
        raise ConfigError(
            f"`train.nodes: {nodes}`, but this SLURM job has {len(hosts)} node(s) ({listed}); the rule `train` "
            "requests the nodes by its resources `nodes` and `tasks`: remove other values of them from `set-resources` "
            "of the profile, or set `train.nodes: 1`"
        )
    return hosts


def _ask(*command: str) -> str:
    """Return the output of a command of SLURM.

    Raises:
        DataError: the command fails.
    """
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise DataError(f"`{' '.join(command)}` failed: {answer.stderr.strip()}", remedy="check the SLURM installation")
    return answer.stdout
