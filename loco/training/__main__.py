"""One process of a distributed training: ``python -m loco.training JOB``, under PyTorch's launcher."""

import json
import sys
from pathlib import Path

from loco.training.run import fit

job = json.loads(Path(sys.argv[1]).read_text())
fit(
    job["experiment"],
    [[Path(file) for file in files] for files in job["train"]],
    [[Path(file) for file in files] for files in job["val"]],
    Path(job["out_dir"]),
    job["seed"],
    Path(job["state"]),
    job["threads"],
    job["facts"],
)
