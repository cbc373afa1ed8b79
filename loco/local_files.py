"""Find the local copies of the files of a job.

The plan names files by their paths from the working directory. With a storage provider, Snakemake passes copies of
them to a job, in another folder: these are the inputs of the job, in the order in which the plan named them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

STORAGE = ".snakemake/storage/"  # below the working directory: copies of files of storage providers
RESULTS = "results/"  # the start of every path of the plan
T = TypeVar("T")


def planned_name(path: str | Path) -> str:
    """Return the path of a file as the plan names it: for records, which must not depend on where a job has run."""
    name = str(path)
    return name[name.rindex(RESULTS) :] if STORAGE in name and RESULTS in name else name


def by_local_path(values: Mapping[str, T], names: Iterable[str], files: Sequence[str]) -> dict[str, T]:
    """Return values by the local paths of files.

    Args:
        values: name of a file -> its value.
        names: the files as the plan names them.
        files: their local paths, in the same order.
    """
    return {file: values[name] for name, file in zip(names, files, strict=True)}


def raw_folder(raw: str, files: Sequence[str]) -> Path:
    """Return the local folder of the raw scenes of a dataset.

    Args:
        raw: value of ``raw`` in the configuration.
        files: local paths of raw files in it; empty if there are none, so that nothing was copied.
    """
    name = str(Path(raw))
    file = next((file for file in files if f"{name}/" in file), None)
    return Path(raw) if file is None else Path(file[: file.rindex(f"{name}/")] + name)
