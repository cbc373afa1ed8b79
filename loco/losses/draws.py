"""Losses that draw: each call draws anew, and a call that is repeated in a backward pass draws the same."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loco.losses.pairs import RankingLoss
from loco.losses.patches import Patches

_REMEMBERED = 256  # calls; more than a step makes before its backward pass
_SAME = 1e-6  # relative difference of sums over the same points, at most


class DrawingLoss(RankingLoss):
    """Base of the losses that draw. The draws depend on ``seed`` and on the number of the call.

    The number of calls is part of the module's state, so a resumed training draws what an uninterrupted one would.

    Activation checkpointing (:mod:`torch.utils.checkpoint`) repeats a forward pass inside the backward pass. A call
    there is not a new one: it gets the number of the call on the same patches, and so draws the same.
    """

    def __init__(self, *arguments: Any, seed: int = 0, **options: Any) -> None:
        """``seed``: of the draws. The rest as in the base class."""
        super().__init__(*arguments, **options)
        self.seed = seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self._recent: deque[_Call] = deque(maxlen=_REMEMBERED)

    def call_number(self, patches: Patches) -> int:
        """Return the number of this call, and count it unless it repeats an earlier one."""
        summary = _Summary.of(patches)
        if torch._C._current_graph_task_id() != -1 and (repeated := self._repeated(summary)):
            repeated.times += 1
            return repeated.number
        number = int(self.calls)
        self.calls += 1
        self._recent.append(_Call(number, summary))
        return number

    def _repeated(self, summary: _Summary) -> _Call | None:
        """The call on the same points with the nearest features; of equal ones the least repeated, then the last."""
        same = [call for call in self._recent if call.summary.has_same_points(summary)]
        order = [(float((call.summary.features - summary.features).norm()), call.times, -call.number) for call in same]
        return same[order.index(min(order))] if same else None


@dataclass
class _Call:
    """A call that was made, and how often it was repeated."""

    number: int
    summary: _Summary
    times: int = 0


class _Summary(NamedTuple):
    """Weighted sums over the patches of a call, float64, on the CPU. Features are recomputed up to rounding."""

    points: Tensor  # of points, scenes and images; and the number of patches
    features: Tensor

    @classmethod
    def of(cls, patches: Patches) -> _Summary:
        features, points = patches.features.detach(), patches.points
        weights = torch.arange(1, len(points) + 1, dtype=torch.float64, device=points.device).mul_(0.6180339887).frac_()
        ids = torch.stack([patches.scene_ids, patches.image_ids], dim=1).double()
        sums = [(weights.to(part.dtype) @ part).double().cpu() for part in (points, ids, features)]
        return cls(torch.cat([torch.tensor([len(points)]), *sums[:2]]), sums[2])

    def has_same_points(self, other: _Summary) -> bool:
        return bool((self.points - other.points).abs().le(_SAME * self.points.abs()).all())
