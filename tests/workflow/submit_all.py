"""Snakemake, with the same arguments, that submits all SLURM jobs of a run at once, in the order of the data.

With ``--immediate-submit`` Snakemake submits jobs without waiting for those before them. The executor plugin for SLURM
submits in the background, and Snakemake ends before it has; here each submission is waited for. At its end, the plugin
waits for the next status check, so these are a second apart.
"""

import asyncio
import sys

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor


def _submit(self: Executor, job) -> None:
    self.run_job_pre(job)
    self.run_job(job)


Executor._submit_job = _submit
Executor.sleep = lambda self: asyncio.sleep(1)
sys.exit(main(["--immediate-submit", "--notemp", "--slurm-init-seconds-before-status-checks=1", *sys.argv[1:]]))
