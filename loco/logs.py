"""The frame around a workflow step: its log file, its threads, and how it fails."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loco.errors import LocoError


@contextmanager
def step(log: str | Path, threads: int = 1) -> Iterator[None]:
    """Run a step: what it logs, its warnings and what goes wrong are written to ``log``.

    A :class:`~loco.errors.LocoError` is the user's to mend: its message is logged without a traceback. Any other
    exception is a fault of the program: its traceback is logged. Either way the process ends with exit code 1 and
    prints nothing more, because Snakemake shows the log of a step that failed.

    Args:
        log: file to write. Modules log under ``logging.getLogger(__name__)``.
        threads: for OpenCV, PyTorch and BLAS, as far as they are imported within the block.
    """
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ[variable] = str(threads)
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=log, filemode="w", format="%(asctime)s %(levelname)s %(message)s", force=True)
    logging.captureWarnings(True)
    logger = logging.getLogger("loco")
    logger.setLevel(logging.INFO)
    logger.info("started with %d thread(s)", threads)
    try:
        yield
    except LocoError as error:
        logger.error("%s", error)
        # HDF5 complains once more, by a traceback, when it drops a file that a full disk let it not finish.
        sys.unraisablehook = lambda _: None
        sys.exit(1)
    except Exception:
        logger.exception("stopped by a fault of the program:")
        sys.exit(1)
    logger.info("finished")
