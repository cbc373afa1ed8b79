"""All tests, and the processes that they start, compute on one thread.

`make test` runs two workers. With a thread per core in each of them, as libraries have by default, threads wait for
each other far longer than they compute: ten times as long in a test of many small tensors.
"""

import os

from loco.logs import THREADS

os.environ |= dict.fromkeys(THREADS, "1")  # before torch, numpy and OpenCV are imported
# Jobs of the workflow set the number of their threads; these sleep while they wait.
os.environ["OMP_WAIT_POLICY"] = "passive"
