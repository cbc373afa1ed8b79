"""Asynchronous transfer of numbers from a device: copies are enqueued, and read a step later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, distributed


class Deferred:
    """Numbers that are read later. Their copy to the host is enqueued after the operations that compute them."""

    def __init__(self, numbers: Mapping[str, Tensor | float]) -> None:
        """
        Args:
            numbers: scalar tensors of one device, and Python numbers.
        """
        self._known = {name: number for name, number in numbers.items() if not isinstance(number, Tensor)}
        tensors = {name: number for name, number in numbers.items() if isinstance(number, Tensor)}
        self._names, self._copied = list(tensors), None
        if tensors:
            stacked = torch.stack([number.detach().double() for number in tensors.values()])
            self._host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=stacked.is_cuda)
            self._host.copy_(stacked, non_blocking=True)
            if stacked.is_cuda:
                self._copied = torch.cuda.Event()
                self._copied.record(torch.cuda.current_stream(stacked.device))

    def read(self) -> dict[str, float]:
        """Return the numbers, by name. Waits for the device if it has not computed them yet."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._known | (dict(zip(self._names, self._host.tolist())) if self._names else {})


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Return whether all numbers of some tensors are finite: a scalar bool, on their device."""
    return torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()


class StopVote:
    """The agreement of the ranks of a training to stop.

    A single rank stops when requested. Several ranks sum their votes at the end of every step (all-reduce), and read
    the sum of the previous step: no rank waits for the others, and all stop after the same step.
    """

    def __init__(self) -> None:
        self._votes: Deferred | None = None

    def __call__(self, requested: bool, device: torch.device) -> bool:
        """Return whether to stop now; every rank calls this once per step, with its own request."""
        if not distributed.is_initialized() or distributed.get_world_size() == 1:
            return requested
        vote = torch.full((), float(requested), device=device)
        distributed.all_reduce(vote)
        before, self._votes = self._votes, Deferred({"votes": vote})
        return before is not None and before.read()["votes"] > 0
