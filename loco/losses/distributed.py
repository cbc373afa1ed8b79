"""Losses of batches that are distributed over several ranks.

Each rank has some of the patches. :func:`gather_patches` returns all of them on every rank (all-gather), so that a loss
over pairs includes the pairs between ranks. Every rank computes the loss of the whole batch. In the backward pass, the
gradients of a patch are summed over the ranks (reduce-scatter), and the rank that holds the patch receives the sum. If
the features of all ranks do not fit into the memory of one rank, they are passed from rank to rank instead
(:class:`Shift`, :mod:`loco.losses.ring`).

The gradient is therefore that of the sum of the losses of all W ranks. Distributed training divides it by W:
``DistributedDataParallel`` averages gradients over the ranks. The network then gets the gradient of the loss of the
whole batch.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, distributed

from loco.losses.first_order import first_order
from loco.losses.patches import Patches

Group: TypeAlias = "distributed.ProcessGroup | None"
Exchange: TypeAlias = Literal["gather", "ring"]


def rank_and_world_size(group: Group) -> tuple[int, int]:
    """Return the rank of this process in its group and the world size: (0, 1) without a group."""
    return (0, 1) if group is None else (distributed.get_rank(group), distributed.get_world_size(group))


def gather_patches(patches: Patches, group: Group) -> tuple[Patches, slice]:
    """Return the patches of all ranks, in the order of the ranks, and the slice of this rank's patches.

    The features are differentiable: their gradients are summed over the ranks. Without a group, the patches are
    returned unchanged.
    """
    if group is None:
        return patches, slice(None)
    counts = gather_counts(patches.features, group)
    rank, _ = rank_and_world_size(group)
    first = sum(counts[:rank])
    features = _Gather.apply(patches.features, counts, group)
    others = (gather_rows(part, counts, group) for part in patches[1:])
    return type(patches)(features, *others), slice(first, first + counts[rank])


def gather_counts(rows: Tensor, group: Group) -> list[int]:
    """Return the number of rows of each rank."""
    count = torch.tensor([len(rows)], device=rows.device)
    gathered = [torch.empty_like(count) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(gathered, count, group)
    return [int(number) for number in gathered]


def gather_rows(rows: Tensor, counts: list[int], group: Group) -> Tensor:
    """Return the rows of all ranks, concatenated in the order of the ranks, without a gradient.

    Args:
        rows: (counts[rank], ...), the rows of this rank.
        counts: number of rows of each rank (:func:`gather_counts`).
        group: process group; not None.

    Returns:
        (sum(counts), ...), on the device of ``rows``.
    """
    sent = padded(rows, max(counts))
    parts = [torch.empty_like(sent) for _ in counts]
    distributed.all_gather(parts, sent, group)
    return torch.cat([part[:count] for part, count in zip(parts, counts)])


def all_reduce(tensor: Tensor, group: Group, operation: Any = distributed.ReduceOp.SUM) -> Tensor:
    """Reduce ``tensor`` over the ranks in place (all-reduce), by default to the sum, and return it."""
    if group is not None:
        distributed.all_reduce(tensor, operation, group=group)
    return tensor


class Shift:
    """A transfer between ranks that starts on creation: rank r sends to rank r + ``by``, and receives from rank
    r - ``by`` (modulo the world size).

    All ranks must start their transfers in the same order, with tensors of the same shape and dtype. The sent tensor
    may be read but not changed until :meth:`wait` returns.
    """

    def __init__(self, sent: Tensor, by: int, group: Group) -> None:
        rank, world_size = rank_and_world_size(group)
        ahead, behind = ((rank + places) % world_size for places in (by, -by))
        self.received = torch.empty_like(sent)
        self._works = distributed.batch_isend_irecv(
            [
                distributed.P2POp(distributed.isend, sent, group=group, group_peer=ahead),
                distributed.P2POp(distributed.irecv, self.received, group=group, group_peer=behind),
            ]
        )

    def wait(self) -> Tensor:
        """Wait for the end of the transfer, release the sent tensor, and return the received one."""
        while self._works:
            self._works.pop().wait()
        return self.received


def padded(part: Tensor, rows: int) -> Tensor:
    """Pad ``part`` with zero rows to ``rows`` rows; it is not copied if it has as many and is contiguous."""
    if len(part) == rows:
        return part.contiguous()
    return torch.cat([part, part.new_zeros(rows - len(part), *part.shape[1:])])


class _Gather(torch.autograd.Function):
    """All-gather of rows; its backward pass sums the gradients of this rank's rows over the ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], group: Group) -> Tensor:
        ctx.counts, ctx.group = counts, group
        return gather_rows(rows, counts, group)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        parts = [padded(part, max(ctx.counts)) for part in grad.split(ctx.counts)]
        local = torch.empty_like(parts[0])
        distributed.reduce_scatter(local, parts, group=ctx.group)
        return local[: ctx.counts[distributed.get_rank(ctx.group)]], None, None
