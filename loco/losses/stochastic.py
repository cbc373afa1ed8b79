"""Losses with random draws: each call makes new draws, but a call repeated in a backward pass makes the same draws."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loco.losses.pairs import RankingLoss
from loco.losses.patches import Patches

_REMEMBERED = 256  # number of remembered calls; must exceed the number of calls before a backward pass
_ROUNDING = 1e-4  # largest relative difference of sums over the same rows when a GPU recomputes them


class StochasticLoss(RankingLoss):
    """Base class of losses with random draws, which depend on ``seed`` and on the number of the call.

    The number of calls is part of the module's state, so a resumed training run makes the same draws as an
    uninterrupted one.

    Activation checkpointing (:mod:`torch.utils.checkpoint`) repeats a forward pass inside the backward pass. A repeated
    call gets the number of the original call on the same patches, and thus makes the same draws.
    """

    calls: Tensor

    def __init__(self, *arguments: Any, seed: int = 0, **options: Any) -> None:
        """Initialise the base class; ``seed`` is the seed of the draws."""
        super().__init__(*arguments, **options)
        self.seed = seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self._recent: deque[_Call] = deque(maxlen=_REMEMBERED)

    def generator(self, patches: Patches) -> torch.Generator:
        """Return the generator of the draws of this call, on the CPU, and count the call (:meth:`call_number`).

        Its state is the same on all ranks.
        """
        return torch.Generator().manual_seed(1_000_003 * self.seed + self.call_number(patches))

    def call_number(self, patches: Patches) -> int:
        """Return the number of this call, and count it unless it repeats an earlier one."""
        if self._recent and torch._C._current_graph_task_id() != -1 and (call := self._repeated(_Summary.of(patches))):
            call.times += 1
            return call.number
        with torch._C._DisableFuncTorch():  # a transform raises an error if a tensor from outside is modified
            number = int(self.calls)
            self.calls += 1
        if torch._C._are_functorch_transforms_active():
            # Such a call is not repeated by checkpointing, and the transform would track the sums over its patches.
            return number
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
        if hooks or not torch.is_grad_enabled():  # the forward pass stores no graph, so it may be repeated
            self._recent.append(_Call(number, _Summary.of(patches), id(hooks[0]) if hooks else None))
        return number

    def _repeated(self, summary: _Summary) -> _Call | None:
        """Return the call on the same points, preferably with the same features, and with the fewest repetitions.

        Ties are resolved in favour of the first call in the last region, because regions are repeated in reverse order,
        each from its beginning.
        """
        same = [call for call in self._recent if _differ_by(call.summary.points, summary.points) < _ROUNDING]
        order = [(call.summary.features_differ(summary), call.times) for call in same]
        alike = [call for call, key in zip(same, order) if key == min(order)]
        if not alike:
            return None
        return next((call for call in alike if call.region and call.region == alike[-1].region), alike[-1])


def sample_rows(patches: Patches, number: int, generator: torch.Generator) -> Tensor:
    """Return the rows of at most ``number`` patches, drawn uniformly without replacement: int64, in random order."""
    return torch.randperm(len(patches.features), generator=generator)[:number].to(patches.features.device)


@dataclass
class _Call:
    """A call, the checkpointed region in which it was made (None if unknown), and the number of its repetitions."""

    number: int
    summary: _Summary
    region: int | None
    times: int = 0


class _Summary(NamedTuple):
    """Weighted sums over the patches of a call, float64, on the CPU, by which a repeated call is recognised.

    Recomputed features may differ from the original ones by rounding.
    """

    points: Tensor  # sums of points, scenes and images, and the number of patches
    features: Tensor

    @classmethod
    def of(cls, patches: Patches) -> _Summary:
        features, points = patches.features.detach(), patches.points
        weights = torch.arange(1, len(points) + 1, dtype=torch.float64, device=points.device).mul_(0.6180339887).frac_()
        ids = torch.stack([patches.scene_ids, patches.image_ids], dim=1).double()
        sums = [(weights.to(part.dtype) @ part).double().cpu() for part in (points, ids, features)]
        return cls(torch.cat([torch.tensor([len(points)]), *sums[:2]]), sums[2])

    def features_differ(self, other: _Summary) -> int:
        """Return 0 for equal features, 1 for features that are equal up to rounding, 2 for others."""
        difference = _differ_by(self.features, other.features)
        return int(difference > 0) + int(difference > _ROUNDING)


def _differ_by(sums: Tensor, other: Tensor) -> float:
    """Return the largest relative difference of two sums; infinity if their shapes differ."""
    if sums.shape != other.shape:
        return torch.inf
    return float(((sums - other).abs() / (1 + sums.abs())).max()) if len(sums) else 0.0
