"""The log of a training run (``log.csv``), and the digest by which a model identifies its log."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from loco.storage.reading import reading

LOG_COLUMNS = [
    "step", "phase", "lr", "tau", "loss", "mean_ap",
    "seconds", "images_per_second", "pairs_per_second", "data_fraction", "peak_gb", "val_map",
]  # fmt: skip
# Columns that depend on the machine and differ from run to run.
MEASURED = {"seconds", "images_per_second", "pairs_per_second", "data_fraction", "peak_gb"}


def curve_digest(log: Path) -> str:
    """Return the SHA-256 of the reproducible columns of a log, which is equal for two runs of the same training.

    Raises:
        DataError: the log cannot be read.
    """
    kept = [column for column in LOG_COLUMNS if column not in MEASURED]
    with reading(log), log.open(encoding="utf-8", newline="") as file:
        rows = [[row[column] for column in kept] for row in csv.DictReader(file)]
    return hashlib.sha256("\n".join(",".join(row) for row in rows).encode()).hexdigest()
