"""All tests, and the processes that they start, compute on one thread.

`make test` runs two workers. With the libraries' default of one thread per core in each of them, threads wait for each
other far longer than they compute: a test of many small tensors takes ten times as long.
"""

import os

from loco.logs import THREADS

os.environ |= dict.fromkeys(THREADS, "1")  # before torch, numpy and OpenCV are imported
