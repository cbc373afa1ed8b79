"""Limit all tests, and the processes that they start, to one thread.

`make test` runs two workers. If each of them had a thread per core, which is the default of the libraries, threads
would mostly wait for each other: a test of many small tensors would take ten times as long.
"""

import os

from loco.logs import THREADS

os.environ |= dict.fromkeys(THREADS, "1")  # set before torch, numpy and OpenCV are imported
# Jobs of the workflow set their number of threads themselves; with `passive`, waiting threads sleep.
os.environ["OMP_WAIT_POLICY"] = "passive"
