"""Ranking losses over pairs of patches, behind one interface: ``loss, log = criterion(features, points, ...)``.

- :class:`ExactSmoothAP`: all pairs, in memory linear in the number of patches. The recommended loss.
- :class:`SampledSmoothAP`: LoCo's estimate from a few anchors.
- :class:`DenseSmoothAP`: a direct implementation of the definition, for small batches and tests.
- :class:`LandmarkSmoothAP`: LoCUS's training loss, whose queries are a few patches.
- :class:`InfoNCE`, :class:`SupCon`: contrastive losses over the same pairs, for the first steps of untrained networks.
- :class:`TripletLoss`: a baseline.

:class:`LabelSmoothAP` is the exact ranking loss for embeddings with class labels, without geometry.
"""

from __future__ import annotations

from typing import Any

from loco.losses.contrastive import InfoNCE, SupCon
from loco.losses.dense import DenseSmoothAP
from loco.losses.exact import ExactSmoothAP
from loco.losses.labels import LabelSmoothAP
from loco.losses.landmark import LandmarkSmoothAP
from loco.losses.pairs import RankingLoss
from loco.losses.sampled import SampledSmoothAP
from loco.losses.stochastic import StochasticLoss
from loco.losses.triplet import TripletLoss

LOSSES: dict[str, type[RankingLoss]] = {
    "exact": ExactSmoothAP,
    "sampled": SampledSmoothAP,
    "dense": DenseSmoothAP,
    "landmarks": LandmarkSmoothAP,
    "info_nce": InfoNCE,
    "sup_con": SupCon,
    "triplet": TripletLoss,
}


def build_loss(name: str, seed: int = 0, **options: Any) -> RankingLoss:
    """Build a loss by its name in the configuration, with its options; ``seed`` is that of its random draws, if any."""
    draws: dict[str, Any] = {"seed": seed} if issubclass(LOSSES[name], StochasticLoss) else {}
    return LOSSES[name](**draws, **options)


__all__ = [
    "LOSSES",
    "DenseSmoothAP",
    "ExactSmoothAP",
    "InfoNCE",
    "LabelSmoothAP",
    "LandmarkSmoothAP",
    "RankingLoss",
    "SampledSmoothAP",
    "SupCon",
    "TripletLoss",
    "build_loss",
]
