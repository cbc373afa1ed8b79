"""Losses of batches that are distributed over several ranks.

Each rank has some of the patches. :func:`gather_patches` returns all of them on every rank (all-gather), so that a loss
over pairs includes the pairs between ranks. Every rank computes the loss of the whole batch. In the backward pass, the
gradients of a patch are summed over the ranks (reduce-scatter) on the rank from which it came.

The gradient is therefore that of the sum of the losses of all W ranks. Distributed training divides by W:
``DistributedDataParallel`` averages gradients over the ranks. The network then gets the gradient of the loss of the
whole batch.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, distributed

from loco.losses.first_order import first_order
from loco.losses.patches import Patches

Group: TypeAlias = "distributed.ProcessGroup | None"


def rank_and_world_size(group: Group) -> tuple[int, int]:
    """Return the rank of this process in its group and the world size: (0, 1) without a group."""
    return (0, 1) if group is None else (distributed.get_rank(group), distributed.get_world_size(group))


def gather_patches(patches: Patches, group: Group) -> tuple[Patches, slice]:
    """Return the patches of all ranks, in the order of the ranks, and the slice of this rank's patches."""
    if group is None:
        return patches, slice(None)
    rank, world_size = rank_and_world_size(group)
    count = torch.tensor([len(patches.features)], device=patches.features.device)
    gathered = [torch.empty_like(count) for _ in range(world_size)]
    distributed.all_gather(gathered, count, group)
    counts = [int(number) for number in gathered]
    first = sum(counts[:rank])
    features = _Gather.apply(patches.features, counts, group)
    others = (_gather(part, counts, group) for part in patches[1:])
    return type(patches)(features, *others), slice(first, first + counts[rank])


def all_reduce(tensor: Tensor, group: Group) -> Tensor:
    """Sum ``tensor`` over the ranks in place (all-reduce), and return it."""
    if group is not None:
        distributed.all_reduce(tensor, group=group)
    return tensor


def _gather(part: Tensor, counts: list[int], group: Group) -> Tensor:
    padded = _padded(part, max(counts))
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded, group)
    return torch.cat([part[:count] for part, count in zip(parts, counts)])


def _padded(part: Tensor, rows: int) -> Tensor:
    """Pad ``part`` with zero rows to the number of rows that every rank sends."""
    return torch.cat([part, part.new_zeros(rows - len(part), *part.shape[1:])])


class _Gather(torch.autograd.Function):
    """All-gather of rows; its backward pass sums the gradients of this rank's rows over the ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], group: Group) -> Tensor:
        ctx.counts, ctx.group = counts, group
        return _gather(rows, counts, group)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        parts = [_padded(part, max(ctx.counts)) for part in grad.split(ctx.counts)]
        local = torch.empty_like(parts[0])
        distributed.reduce_scatter(local, parts, group=ctx.group)
        return local[: ctx.counts[distributed.get_rank(ctx.group)]], None, None
