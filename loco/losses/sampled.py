"""LoCo's sampled ranking loss (NeurIPS 2024, sec. 3.3 to 3.5), without gathering features per (anchor, pair).

A few positive pairs, the anchors, are ranked. Against each anchor, pairs whose similarity lies more than Delta above
count as 1 and those more than Delta below as 0, where the sigmoid is saturated; of those between, at most a given
number is drawn. Counts and draws are scaled up to what they stand for, so that each anchor's R_P and R_N are unbiased.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from loco.losses.pairs import Patches, RankingLoss, nothing_to_rank


class SampledSmoothAP(RankingLoss):
    """Smooth AP of sampled anchors against sampled pairs.

    The similarity of every pair of the pools is computed once; anchors gather scalars. The draws depend on ``seed`` and
    on the number of calls, which is part of the module's state: a resumed training draws what an unbroken one would.
    """

    def __init__(
        self,
        rho: float,
        kappa: float,
        tau: float,
        anchors: int = 32,
        max_positives: int = 6000,
        max_negatives: int = 30000,
        pool: int = 200_000,
        saturation: float = 0.002,
        seed: int = 0,
    ) -> None:
        """
        Args:
            rho, kappa, tau: as in :class:`loco.losses.pairs.RankingLoss`.
            anchors: number of positive pairs that are ranked.
            max_positives, max_negatives: largest numbers of unsaturated pairs drawn for each anchor.
            pool: largest number of positive, and of negative, pairs of the batch that are looked at.
            saturation: the sigmoid counts as saturated where its slope is below this share of its largest; 0 = never.
            seed: of the draws.
        """
        super().__init__(rho, kappa, tau)
        self.anchors, self.pool = anchors, pool
        self.max_positives, self.max_negatives = max_positives, max_negatives
        self.delta = -tau * math.log(2 / (1 + math.sqrt(1 - saturation)) - 1) if saturation else math.inf
        self.seed = seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def loss(self, patches: Patches) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([self.seed, int(self.calls)])
        self.calls += 1
        pairs = _pools(patches, self.rho, self.kappa, self.pool, rng)
        if not pairs.n_positive:
            return nothing_to_rank(patches.features, pairs.n_negative)
        s_p, s_n = (_similarities(patches.features, pool) for pool in (pairs.positive, pairs.negative))
        anchors = torch.from_numpy(rng.permutation(len(s_p))[: self.anchors])
        s_a = s_p[anchors]
        others = pairs.n_positive - 1
        r_p = self._rank(s_p, s_a, others, self.max_positives, rng, own=anchors)
        r_n = self._rank(s_n, s_a, pairs.n_negative, self.max_negatives, rng)
        mean_ap = ((1 + r_p) / (1 + r_p + r_n)).mean()
        log = {"positives": pairs.n_positive, "negatives": pairs.n_negative, "mean_ap": mean_ap.item()}
        return 1 - mean_ap, log

    def _rank(
        self,
        pool: Tensor,
        anchors: Tensor,
        population: int,
        cap: int,
        rng: np.random.Generator,
        own: Tensor | None = None,
    ) -> Tensor:
        """Estimate of sum sigma(s - s_a) over a population of pairs, of which ``pool`` is a uniform sample, (A,)."""
        pool_size = len(pool) - (own is not None)
        if pool_size == 0:
            return torch.zeros_like(anchors)
        with torch.no_grad():
            difference = pool[None] - anchors[:, None]
            near = difference.abs() <= self.delta
            above = difference > self.delta
            if own is not None:
                near[torch.arange(len(own)), own] = False
            # A uniform draw without replacement: the largest of random keys, pairs out of range having none.
            keys = torch.rand(
                near.shape, generator=torch.Generator().manual_seed(int(rng.integers(2**62)))
            ).masked_fill_(~near, -1.0)
            drawn_keys, drawn = keys.topk(min(cap, keys.shape[1]), dim=1)
            is_drawn = drawn_keys >= 0
            scale = near.sum(dim=1) / is_drawn.sum(dim=1).clamp(min=1)
        sigma = torch.sigmoid((pool[drawn] - anchors[:, None]) / self.tau) * is_drawn
        return (population / pool_size) * (scale * sigma.sum(dim=1) + above.sum(dim=1))


class _Pairs(NamedTuple):
    """Pools of positive and negative pairs (m, 2) of a batch, and how many there are in all."""

    positive: np.ndarray
    negative: np.ndarray
    n_positive: int
    n_negative: int


def _pools(patches: Patches, rho: float, kappa: float, pool: int, rng: np.random.Generator) -> _Pairs:
    points, scene_ids = patches.points.cpu().double().numpy(), patches.scene_ids.cpu().numpy()
    trees = [(rows, cKDTree(points[rows])) for rows in (np.flatnonzero(scene_ids == s) for s in np.unique(scene_ids))]
    near = [rows[tree.query_pairs(rho, output_type="ndarray")] for rows, tree in trees]
    positive = np.concatenate([np.empty((0, 2), np.int64), *near])
    image_ids = patches.image_ids.cpu().numpy()
    positive = positive[image_ids[positive[:, 0]] != image_ids[positive[:, 1]]]
    counts = np.array([_count_pairs(tree, (rho, kappa)) for _, tree in trees], np.int64).reshape(-1, 2)
    n_negative = counts[:, 1] - counts[:, 0]
    drawn = positive[rng.permutation(len(positive))[:pool]]
    return _Pairs(drawn, _draw_pairs(trees, n_negative, rho, kappa, pool, rng), len(positive), int(n_negative.sum()))


def _count_pairs(tree: cKDTree, radii: tuple[float, float]) -> np.ndarray:
    """Unordered pairs of different points within each radius."""
    return (tree.count_neighbors(tree, np.array(radii)) - tree.n) // 2


def _draw_pairs(
    trees: list[tuple[np.ndarray, cKDTree]],
    counts: np.ndarray,
    above: float,
    upto: float,
    pool: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """At most ``pool`` pairs with above < distance <= upto, a uniform draw without replacement over all scenes."""
    total = int(counts.sum())
    if total == 0:
        return np.empty((0, 2), np.int64)
    shares = counts if total <= pool else rng.multivariate_hypergeometric(counts, pool, method="marginals")
    parts = [
        rows[_draw_scene_pairs(tree, int(count), int(share), above, upto, rng)]
        for (rows, tree), count, share in zip(trees, counts, shares)
        if share
    ]
    return np.concatenate(parts)


def _draw_scene_pairs(
    tree: cKDTree, count: int, share: int, above: float, upto: float, rng: np.random.Generator
) -> np.ndarray:
    """``share`` of a scene's ``count`` pairs in the range. Listed where they are few, else found by trial."""
    possible = tree.n * (tree.n - 1) // 2
    if share * 4 > count or count * 50 < possible:
        listed = tree.query_pairs(upto, output_type="ndarray")
        distance = np.linalg.norm(tree.data[listed[:, 0]] - tree.data[listed[:, 1]], axis=1)
        listed = listed[distance > above]
        return listed[rng.permutation(len(listed))[:share]]
    found = np.empty((0, 2), np.int64)
    while len(found) < share:
        trial = np.sort(rng.integers(tree.n, size=(int(1.2 * share * possible / count) + 16, 2)), axis=1)
        distance = np.linalg.norm(tree.data[trial[:, 0]] - tree.data[trial[:, 1]], axis=1)
        good = (trial[:, 0] < trial[:, 1]) & (distance > above) & (distance <= upto)
        both = np.concatenate([found, trial[good]])
        _, first = np.unique(both[:, 0] * tree.n + both[:, 1], return_index=True)
        found = both[np.sort(first)]
    return found[:share]


def _similarities(features: Tensor, pairs: np.ndarray) -> Tensor:
    """f_i . f_j of pairs (m, 2), each once."""
    i, j = torch.from_numpy(pairs.astype(np.int64)).to(features.device).unbind(dim=1)
    return (features[i] * features[j]).sum(dim=1)
