"""Run one rank of a distributed training: ``python -m loco.training JOB``, under PyTorch's launcher (torchrun).

``JOB`` is the JSON file that :func:`loco.training.run.train` writes.
"""

import json
import sys
from pathlib import Path

from loco.errors import LocoError
from loco.parent_process import watch_parent
from loco.records import Record
from loco.storage import write_text
from loco.training.launch import ERROR
from loco.training.run import fit

job = json.loads(Path(sys.argv[1]).read_text())
state = Path(job["state"])
watch_parent()
try:
    fit(
        job["experiment"],
        [[file and Path(file) for file in files] for files in job["train"]],
        [[file and Path(file) for file in files] for files in job["val"]],
        Path(job["out_dir"]),
        job["seed"],
        state,
        job["threads"],
        job["facts"],
        Record.from_json(job["record"]) if job["record"] else None,
    )
except LocoError as error:  # the process that started the ranks raises it again
    write_text(state / ERROR, str(error))
    sys.exit(1)
