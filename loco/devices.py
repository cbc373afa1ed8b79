"""Choose the GPUs of a job, so that jobs on one machine use different GPUs.

A job claims its GPUs by system locks (flock) in a folder that all jobs of the user on the machine share. The system
releases them when the process ends for any reason. Only visible GPUs are claimed (``CUDA_VISIBLE_DEVICES``: numbers,
UUIDs, MIG instances), and a job sees only the claimed GPUs: for PyTorch they are ``cuda:0``, ``cuda:1``, ...
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple

from loco.errors import ConfigError, DataError

VISIBLE = "CUDA_VISIBLE_DEVICES"
# Variables that are set in a SLURM job to which GPUs were allocated.
SLURM_GPUS = ("SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE", "SLURM_STEP_GPUS", "SLURM_GPUS")
MAX_JOBS = 64  # maximum number of jobs that share a GPU

logger = logging.getLogger(__name__)


class Gpu(NamedTuple):
    """A GPU or a MIG instance: its name in ``CUDA_VISIBLE_DEVICES`` (a number or a UUID), and its UUID."""

    name: str
    uuid: str


def visible_gpus() -> list[Gpu]:
    """Return the GPUs that this process may use, in the order of ``CUDA_VISIBLE_DEVICES``. CUDA is not initialised."""
    return list(select_visible(_listing(), os.environ.get(VISIBLE)))


def select_visible(listing: str, visible: str | None) -> Iterator[Gpu]:
    """Yield the visible GPUs of a machine.

    Args:
        listing: output of ``nvidia-smi -L``. A GPU with MIG instances is replaced by its instances.
        visible: value of ``CUDA_VISIBLE_DEVICES``; None if it is not set. As in CUDA, entries after an invalid one are
            ignored, and a prefix of a UUID is sufficient.
    """
    found = re.findall(r"^\s*(GPU|MIG)\b.*\(UUID: *([^)\s]+)", listing, flags=re.MULTILINE)
    physical = [uuid for kind, uuid in found if kind == "GPU"]
    if visible is None:
        divided = {found[k - 1][1] for k in range(1, len(found)) if found[k][0] == "MIG" and found[k - 1][0] == "GPU"}
        # Identify GPUs by UUID, because CUDA may number them in another order than the listing.
        yield from (Gpu(uuid, uuid) for _, uuid in found if uuid not in divided)
        return
    for entry in visible.split(","):
        name = entry.strip()
        if name.isdecimal() and int(name) < len(physical):
            yield Gpu(name, physical[int(name)])
        elif match := next((uuid for _, uuid in found if name and uuid.startswith(name)), None):
            yield Gpu(name, match)
        else:
            return


def gpus_granted_by_slurm() -> bool:
    """Return whether this process is part of a job of SLURM that was granted GPUs."""
    return any(os.environ.get(name) for name in SLURM_GPUS)


@contextmanager
def claimed_gpus(count: int, gpus: Sequence[Gpu] | None = None, folder: Path | None = None) -> Iterator[list[Gpu]]:
    """Claim GPUs for this process and those that it starts, and hide the others from them.

    Free GPUs are preferred. If there are too few, the GPUs with the fewest jobs are shared, and a warning is logged;
    waiting for a free GPU is the task of the scheduler (``--resources gpu=N`` of Snakemake).

    Nothing is claimed if ``count`` is 0, on a machine without GPUs (where jobs run on the CPU), and in a process that
    already uses CUDA (whose GPUs cannot be changed).

    Args:
        count: number of GPUs.
        gpus: GPUs to choose from; None for :func:`visible_gpus`.
        folder: folder of the locks; None for a folder of this user in ``/tmp``, which all jobs on the machine share.

    Yields:
        The claimed GPUs, to which ``CUDA_VISIBLE_DEVICES`` is set until the context exits.

    Raises:
        ConfigError: fewer GPUs are visible than requested.
        DataError: the folder of the locks is a symbolic link or belongs to another user.
    """
    if count == 0 or (gpus is None and _cuda_is_used()):
        yield []
        return
    gpus = visible_gpus() if gpus is None else gpus
    if not gpus:
        yield []
        return
    if len(gpus) < count:
        raise ConfigError(
            f"expected {count} visible GPUs, found {len(gpus)} ({', '.join(gpu.name for gpu in gpus)}): set "
            f"`train.processes` to at most {len(gpus)}, or list more GPUs in {VISIBLE}"
        )
    with ExitStack() as locks:
        chosen = _claim(count, gpus, folder or _shared_folder(), locks)
        before = os.environ.get(VISIBLE)
        os.environ[VISIBLE] = ",".join(gpu.name for gpu in chosen)
        try:
            yield chosen
        finally:
            os.environ.pop(VISIBLE) if before is None else os.environ.update({VISIBLE: before})


def _claim(count: int, gpus: Sequence[Gpu], folder: Path, locks: ExitStack) -> list[Gpu]:
    """Lock the ``count`` GPUs with the fewest jobs, the first ones on ties.

    Job k of a GPU locks its file k. Only one process chooses at a time, so the counts are consistent.
    """
    with (folder / "choosing").open("a") as choosing:
        fcntl.flock(choosing, fcntl.LOCK_EX)
        jobs = {gpu: _jobs(folder, gpu) for gpu in gpus}
        chosen = sorted(sorted(gpus, key=lambda gpu: jobs[gpu])[:count], key=gpus.index)
        for gpu in chosen:
            held = next(file for k in range(MAX_JOBS) if (file := _lock(_slot(folder, gpu, k))))
            locks.callback(held.close)
            if jobs[gpu]:
                logger.warning(
                    "GPU %s is shared with %d other job(s) of this user because no GPU is free: limit the jobs that "
                    "run concurrently with `--resources gpu=%d`",
                    gpu.name,
                    jobs[gpu],
                    len(gpus),
                )
    return chosen


def _jobs(folder: Path, gpu: Gpu) -> int:
    """Return the number of running jobs of this user that have claimed a GPU."""
    count = 0
    for path in folder.glob(f"{_slot(folder, gpu, 0).stem}.*"):
        file = _lock(path)
        count += file is None
        if file:
            file.close()
    return count


def _slot(folder: Path, gpu: Gpu, k: int) -> Path:
    return folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', gpu.uuid)}.{k}"


def _lock(path: Path) -> IO[str] | None:
    """Open a file and lock it without waiting; return None if another process has locked it."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _shared_folder() -> Path:
    """Return the folder of this user's GPU locks on this machine, which is created if it is missing.

    It is independent of ``TMPDIR``, which may differ between jobs.

    Raises:
        DataError: the path is a symbolic link or belongs to another user.
    """
    base = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())
    folder = base / f"loco-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise DataError(
            "the folder for the GPU locks is a symbolic link or belongs to another user",
            file=folder,
            expected=f"a folder that belongs to user {os.getuid()}",
            remedy="remove it, or ask its owner to remove it",
        )
    return folder


@cache
def _listing() -> str:
    """Return the output of ``nvidia-smi -L``, empty without a driver."""
    if not shutil.which("nvidia-smi"):
        return ""
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout if done.returncode == 0 else ""


def _cuda_is_used() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()
