"""The context in which a job of the workflow runs: its log file, threads, errors and termination."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loco.errors import LocoError, printable_lines
from loco.parent_process import watch_parent

_FINISHED = "finished"  # the last message of a job that has succeeded
# Environment variables that set the number of threads of OpenCV, PyTorch and BLAS when they are imported.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


@contextmanager
def job(log: str | Path, threads: int = 1) -> Iterator[None]:
    """Run a job, and write its log messages, warnings and errors to ``log``.

    A :class:`~loco.errors.LocoError` is caused by the user's data or settings, and its message is logged without a
    traceback. Any other exception is a bug, and its traceback is logged. Either way the process ends with exit status 1
    and prints nothing more, because Snakemake shows the log of a job that failed. SIGTERM ends the block by SystemExit,
    so that temporary files are removed. The job ends when the Snakemake that started it does
    (:mod:`loco.parent_process`).

    Args:
        log: file to write. Modules log to ``logging.getLogger(__name__)``.
        threads: number of threads for OpenCV, PyTorch and BLAS, if they are imported within the block.
    """
    os.environ |= dict.fromkeys(THREADS, str(threads))
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log, mode="w", encoding="utf-8")
    handler.setFormatter(_Printable("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], force=True)
    logging.captureWarnings(True)
    logger = logging.getLogger("loco")
    logger.setLevel(logging.INFO)
    logger.info("started with %d thread(s)", threads)
    signal.signal(signal.SIGTERM, _exit)
    watch_parent()
    try:
        yield
    except LocoError as error:
        logger.error("%s", error)
        sys.exit(1)
    except SystemExit as stop:
        logger.error("stopped: exit status %s (%d is SIGTERM)", stop.code, 128 + signal.SIGTERM)
        raise
    except Exception:
        logger.exception("stopped by an unexpected error (a bug):")
        sys.exit(1)
    logger.info(_FINISHED)


def unfinished_logs(directory: Path) -> dict[Path, str]:
    """Return the logs of jobs that have not finished, and what is known about each.

    Args:
        directory: working directory of a run. The logs of jobs are in ``results/logs``; those that SLURM writes, whose
            files Snakemake removes if their jobs succeed, in ``.snakemake/slurm_logs``.
    """
    found = {}
    for log in sorted((directory / "results/logs").rglob("*.log")):
        text = log.read_text(encoding="utf-8", errors="replace")
        if not text.endswith(f" INFO {_FINISHED}\n"):
            found[log] = "failed" if " ERROR " in text else "runs, or was killed (by a limit of time or memory)"
    cluster = sorted((directory / ".snakemake/slurm_logs").rglob("*.log"))
    return found | dict.fromkeys(cluster, "output of a SLURM job that failed or still runs")


class _Printable(logging.Formatter):
    """Escapes control characters, which names of files and messages of libraries may contain."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def _exit(number: int, _: object) -> None:
    raise SystemExit(128 + number)
