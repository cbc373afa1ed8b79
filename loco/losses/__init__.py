"""Ranking losses over pairs of patches, behind one interface: ``loss, log = criterion(features, points, ...)``.

- :class:`ExactSmoothAP`: all pairs, in memory linear in the number of patches. The recommended loss.
- :class:`SampledSmoothAP`: LoCo's loss, an estimate from a few positive pairs (the anchors) and sampled other pairs.
- :class:`DenseSmoothAP`: a direct implementation of the definition, for small batches and tests.
- :class:`LandmarkSmoothAP`: LoCUS's training loss, whose queries are a few patches (the landmarks).
- :class:`InfoNCE`, :class:`SupCon`: contrastive losses over the same pairs, for the first steps of untrained networks.
- :class:`TripletLoss`: the triplet loss with hard negatives, a baseline.

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
    """Build a loss by its name in the configuration.

    Args:
        name: a key of :data:`LOSSES`.
        seed: seed of the random draws; ignored by losses without random draws.
        options: arguments of the class, such as ``rho``, ``kappa`` and ``tau``.

    Raises:
        KeyError: there is no loss of this name.
        ValueError: an option is out of its range.
    """
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
