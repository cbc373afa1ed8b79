"""Limit all tests, and the processes that they start, to one thread, let them store bytecode, and run long files first.

`make test` runs two workers. If each of them had a thread per core, which is the default of the libraries, threads
would mostly wait for each other: a test of many small tensors would take ten times as long. The tests start hundreds of
processes; without stored bytecode, each of them would compile the package again.
"""

import os

import pytest

from loco.logs import THREADS

os.environ |= dict.fromkeys(THREADS, "1")  # set before torch, numpy and OpenCV are imported
# Jobs of the workflow set their number of threads themselves; with `passive`, waiting threads sleep.
os.environ["OMP_WAIT_POLICY"] = "passive"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Folders and files with long tests. Workers take files in order, so that none has a long file left when the others end.
FIRST = ("tests/workflow/", "tests/unit/training/test_run.py", "tests/unit/test_fuzz.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))
