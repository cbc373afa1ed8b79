"""Run a function in several processes of one process group, like the ranks of a training run."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed

# Processes are forked from a server that has imported these once; each import would take seconds.
multiprocessing.get_context("forkserver").set_forkserver_preload(
    ["torch.nn.parallel", "torch._dynamo", "loco.losses", "loco.training.grad_cache"]
)


def run_together(work: Callable[..., Any], count: int, folder: Path, *arguments: Any) -> list[Any]:
    """Return what ``work(rank, *arguments)`` returns in each of ``count`` processes, by rank.

    Args:
        work: a function of a module, which other processes can import.
        count: number of processes.
        folder: empty, through which they meet and report.
        arguments: what all processes get.
    """
    torch.multiprocessing.start_processes(_rank, (work, count, folder, arguments), count, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _rank(rank: int, work: Callable[..., Any], count: int, folder: Path, arguments: tuple) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    torch.save(work(rank, *arguments), folder / f"{rank}.pt")
    distributed.destroy_process_group()
