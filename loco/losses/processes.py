"""Batches that several processes hold together.

Each process has some of the patches. :func:`gather_patches` gives every process all of them, so that a loss over pairs
sees the pairs between processes too. Every process computes the loss of the whole batch. Backward, the gradients that
the processes have for a patch are added up on the process that it came from.

So the gradient is that of the sum of the losses of all processes, as it is wherever each of W processes has a loss of
its own. Distributed training divides by W: ``DistributedDataParallel`` averages gradients over processes. What the
network then gets is the gradient of the loss of the whole batch.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, distributed

from loco.losses.first_order import first_order
from loco.losses.patches import Patches

Group: TypeAlias = "distributed.ProcessGroup | None"


def place(group: Group) -> tuple[int, int]:
    """Number of this process in its group, and of processes: (0, 1) without a group."""
    return (0, 1) if group is None else (distributed.get_rank(group), distributed.get_world_size(group))


def gather_patches(patches: Patches, group: Group) -> tuple[Patches, slice]:
    """The patches of all processes, in the order of the processes, and which are this one's."""
    if group is None:
        return patches, slice(None)
    process, processes = place(group)
    count = torch.tensor([len(patches.features)], device=patches.features.device)
    gathered = [torch.empty_like(count) for _ in range(processes)]
    distributed.all_gather(gathered, count, group)
    counts = [int(number) for number in gathered]
    first = sum(counts[:process])
    features = _Gather.apply(patches.features, counts, group)
    others = (_gather(part, counts, group) for part in patches[1:])
    return type(patches)(features, *others), slice(first, first + counts[process])


def add_up(tensor: Tensor, group: Group) -> Tensor:
    """``tensor`` summed over the processes, in place."""
    if group is not None:
        distributed.all_reduce(tensor, group=group)
    return tensor


def _gather(part: Tensor, counts: list[int], group: Group) -> Tensor:
    padded = _padded(part, max(counts))
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded, group)
    return torch.cat([part[:count] for part, count in zip(parts, counts)])


def _padded(part: Tensor, rows: int) -> Tensor:
    """``part`` with zeros below, to the rows that all processes send alike."""
    return torch.cat([part, part.new_zeros(rows - len(part), *part.shape[1:])])


class _Gather(torch.autograd.Function):
    """Rows of all processes; backward, the sum over the processes of the gradients of this one's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], group: Group) -> Tensor:
        ctx.counts, ctx.group = counts, group
        return _gather(rows, counts, group)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        parts = [_padded(part, max(ctx.counts)) for part in grad.split(ctx.counts)]
        mine = torch.empty_like(parts[0])
        distributed.reduce_scatter(mine, parts, group=ctx.group)
        return mine[: ctx.counts[distributed.get_rank(ctx.group)]], None, None
