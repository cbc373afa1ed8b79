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
_ROUNDING = 1e-4  # largest relative difference of sums over the same rows, which a GPU may compute anew otherwise


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
        if self._recent and torch._C._current_graph_task_id() != -1 and (call := self._repeated(_Summary.of(patches))):
            call.times += 1
            return call.number
        number = int(self.calls)
        self.calls += 1
        if _is_checkpointed():
            self._recent.append(_Call(number, _Summary.of(patches)))
        return number

    def _repeated(self, summary: _Summary) -> _Call | None:
        """The call on the same points, with the same features if any; of several the least repeated, then the last."""
        same = [call for call in self._recent if _differ_by(call.summary.points, summary.points) < _ROUNDING]
        order = [(call.summary.features_differ(summary), call.times, -call.number) for call in same]
        return same[order.index(min(order))] if same else None


def _is_checkpointed() -> bool:
    """Whether this forward pass may be repeated: it keeps no graph (the reentrant form), or hooks store its tensors."""
    return not torch.is_grad_enabled() or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


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

    def features_differ(self, other: _Summary) -> int:
        """0 for equal features, 1 for equal ones up to rounding, 2 for others."""
        difference = _differ_by(self.features, other.features)
        return int(difference > 0) + int(difference > _ROUNDING)


def _differ_by(sums: Tensor, other: Tensor) -> float:
    """Largest relative difference."""
    if sums.shape != other.shape:
        return torch.inf
    return float(((sums - other).abs() / (1 + sums.abs())).max()) if len(sums) else 0.0
