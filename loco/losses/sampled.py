"""LoCo's sampled ranking loss (NeurIPS 2024, sec. 3.3 to 3.5), without gathering features per (anchor, pair).

A few positive pairs, the anchors, are ranked. If the similarity of a pair is more than Delta above that of the anchor,
where the sigmoid is saturated, the pair counts as 1; if it is more than Delta below, as 0. Of the other pairs, at most
a given number is drawn. Counts and draws are scaled to the population, so that R_P and R_N of each anchor are unbiased.
The similarity of every pair of the pools is computed once, and anchors gather scalars: the memory is that of the
features and of a few numbers per (anchor, pair of the pool).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from loco.losses.distributed import Group
from loco.losses.first_order import first_order
from loco.losses.pairs import nothing_to_rank
from loco.losses.patches import Patches
from loco.losses.stochastic import StochasticLoss

_CHUNK = 1024  # pairs whose features are gathered at once
_TRIALS = 500_000  # pairs tested at once


class SampledSmoothAP(StochasticLoss):
    """Smooth AP of sampled anchors against sampled pairs."""

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
        corrections: Literal["unbiased", "published"] = "unbiased",
        seed: int = 0,
        same_image: float = 0.0,
        population: Sequence[float] | None = None,
        ratio: float = 1.0,
        group: Group = None,
        normalise: bool = True,
    ) -> None:
        """
        Args:
            rho, kappa, tau, ratio, group, normalise: as in :class:`loco.losses.pairs.RankingLoss`.
            anchors: number of positive pairs that are ranked.
            max_positives, max_negatives: maximum numbers of unsaturated pairs drawn per anchor.
            pool: maximum number of positive, and of negative, pairs of the batch that are considered.
            saturation: the sigmoid counts as saturated where its slope is below this fraction of its maximum; 0 =
                never.
            corrections: how R_P is scaled. Let the pool have B positives in addition to the anchor, w of which are in
                the unsaturated range. ``unbiased`` uses B and w. ``published`` uses B - 1 and w - 1, as LoCo's release,
                which excludes the anchor from these numbers although they do not include it. The two agree as the pool
                grows.
            seed: seed of the draws.
            same_image: maximum fraction of positive pairs within one image: 0 leaves these out, 1 keeps all. LoCo's
                paper keeps all, its release has a limit of 0.4.
            population: numbers of positive and of negative pairs to which the ranks are scaled (|P| and |N| of LoCo,
                eq. 3), such as those of all training scenes; None for the pairs of the batch.

        Raises:
            ValueError: as :class:`loco.losses.pairs.RankingLoss`, or unknown ``corrections``, or a population that is
                not two positive numbers.
        """
        super().__init__(rho, kappa, tau, same_image, ratio, group, normalise, seed=seed)
        if population is not None and not (len(population) == 2 and min(population) > 0):
            raise ValueError(f"the population must be two positive numbers of pairs, found {population}")
        self.population = population
        if corrections not in ("unbiased", "published"):
            raise ValueError(f"corrections must be 'unbiased' or 'published', found {corrections!r}")
        self.anchors, self.pool = anchors, pool
        self.max_positives, self.max_negatives = max_positives, max_negatives
        self.saturation, self.corrections = saturation, corrections

    @property
    def delta(self) -> float:
        """The difference of similarities beyond which the sigmoid counts as 0 or 1, at the current temperature."""
        if not self.saturation:
            return math.inf
        return -self.tau * math.log(2 / (1 + math.sqrt(1 - self.saturation)) - 1)

    def loss(self, patches: Patches) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([self.seed, self.call_number(patches)])
        (scale,) = self.scales
        pairs = draw_pools(patches, scale.rho, scale.kappa, self.pool, rng, self.same_image)
        if not pairs.n_positive:
            return nothing_to_rank(patches.features, pairs.n_negative)
        s_p, s_n = (_PairSimilarity.apply(patches.features, pool) for pool in (pairs.positive, pairs.negative))
        sampled = self.draw(s_p.detach(), s_n.detach(), pairs, rng)
        s_a = s_p[sampled.anchors, None]
        r_p = sampled.positive.rank(s_p[sampled.positive.pairs] - s_a, self.tau)
        r_n = self.ratio * sampled.negative.rank(s_n[sampled.negative.pairs] - s_a, self.tau)
        mean_ap = ((1 + r_p) / (1 + r_p + r_n)).mean()
        log = {"positives": pairs.n_positive, "negatives": pairs.n_negative, "mean_ap": mean_ap.item()}
        return 1 - mean_ap, log

    def draw(self, s_p: Tensor, s_n: Tensor, pairs: Pairs, rng: np.random.Generator) -> SampledPairs:
        """Draw anchors, and the pairs with which they are compared.

        Args:
            s_p, s_n: similarities of the positive and of the negative pairs of the pools, (m,) each.
            pairs: the pools.
            rng: random number generator.
        """
        anchors = torch.from_numpy(rng.permutation(len(s_p))[: self.anchors]).to(s_p.device)
        generator = torch.Generator(s_p.device).manual_seed(int(rng.integers(2**62)))
        difference = s_p - s_p[anchors, None]
        difference[torch.arange(len(anchors), device=s_p.device), anchors] = -math.inf  # not compared with itself
        n_positive, n_negative = self.population or (pairs.n_positive, pairs.n_negative)
        pool_size, missing = len(s_p) - 1, int(self.corrections == "published")
        positive = self._sample_candidates(
            difference, n_positive - 1, pool_size, self.max_positives, generator, missing
        )
        difference = s_n - s_p[anchors, None]
        negative = self._sample_candidates(difference, n_negative, len(s_n), self.max_negatives, generator)
        return SampledPairs(anchors, positive, negative)

    def _sample_candidates(
        self,
        difference: Tensor,
        population: float,
        pool: int,
        cap: int,
        generator: torch.Generator,
        missing: int = 0,
    ) -> Candidates:
        """Draw at most ``cap`` unsaturated pairs for each anchor.

        Args:
            difference: s - s_a of each anchor and each pair of the pool, (A, m).
            population: number of pairs of which the pool is a uniform sample.
            pool: number of pairs of the pool with which an anchor is compared.
            cap: maximum number of pairs drawn per anchor.
            generator: source of the draws.
            missing: number that is subtracted from both counts in the scale factors: 1 for the positives with
                ``corrections="published"``, else 0.
        """
        near = (difference.abs() <= self.delta) & difference.isfinite()
        # The largest random keys are a uniform draw without replacement; pairs out of range get the key -1.
        keys = torch.rand(near.shape, generator=generator, device=near.device).masked_fill_(~near, -1.0)
        keys, drawn = keys.topk(min(cap, keys.shape[1]), dim=1)
        is_drawn = keys >= 0
        represented = population / max(pool - missing, 1)  # pairs of the population per pair of the pool
        in_range = near.sum(dim=1, dtype=difference.dtype)
        scale = (in_range - missing).clamp(min=0) / is_drawn.sum(dim=1).clamp(min=1)
        above = (difference > self.delta).sum(dim=1)
        return Candidates(drawn, is_drawn, represented * scale, represented * above)


class Candidates(NamedTuple):
    """The pairs with which each of A anchors is compared."""

    pairs: Tensor  # (A, m) int64, rows of a pool
    is_drawn: Tensor  # (A, m) bool; rows of anchors with fewer pairs in range are padded
    scale: Tensor  # (A,) number of pairs that each drawn pair represents
    above: Tensor  # (A,) number of pairs that count as 1, where the sigmoid is saturated

    def rank(self, difference: Tensor, tau: float) -> Tensor:
        """Estimate the sum of sigma(s - s_a) over the population, (A,).

        Args:
            difference: s - s_a of the drawn pairs, (A, m).
            tau: temperature.
        """
        sigma = torch.sigmoid(difference / tau) * self.is_drawn
        return self.scale * sigma.sum(dim=1) + self.above


class SampledPairs(NamedTuple):
    """The anchors, and the pairs with which they are compared."""

    anchors: Tensor  # (A,) int64, rows of the pool of positives
    positive: Candidates
    negative: Candidates


class Pairs(NamedTuple):
    """Pools of positive and negative pairs (m, 2) of a batch, and the total numbers of such pairs."""

    positive: Tensor
    negative: Tensor
    n_positive: int
    n_negative: int


def draw_pools(
    patches: Patches, rho: float, kappa: float, pool: int, rng: np.random.Generator, same_image: float = 0.0
) -> Pairs:
    """Draw uniform samples of the positive and of the negative pairs of a batch, at most ``pool`` of each.

    Before that, positive pairs within one image are dropped at random, such that they are at most a fraction
    ``same_image`` of all positive pairs.
    """
    points, scene_ids = patches.points.cpu().double().numpy(), patches.scene_ids.cpu().numpy()
    trees = [(rows, cKDTree(points[rows])) for rows in (np.flatnonzero(scene_ids == s) for s in np.unique(scene_ids))]
    near = [rows[tree.query_pairs(rho, output_type="ndarray")] for rows, tree in trees]
    positive = np.concatenate([np.empty((0, 2), np.int64), *near])
    positive = _limit_same_image(positive, patches.image_ids.cpu().numpy(), same_image, rng)
    counts = np.array([_count_pairs(tree, (rho, kappa)) for _, tree in trees], np.int64).reshape(-1, 2)
    n_negative = counts[:, 1] - counts[:, 0]
    positives = positive[rng.permutation(len(positive))[:pool]]
    negatives = _draw_pairs(trees, n_negative, rho, kappa, pool, rng)
    pools = [torch.from_numpy(part.astype(np.int64)).to(patches.features.device) for part in (positives, negatives)]
    return Pairs(pools[0], pools[1], len(positive), int(n_negative.sum()))


def _limit_same_image(
    pairs: np.ndarray, image_ids: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray:
    """Drop random pairs (m, 2) within one image, such that at most ``fraction`` of all pairs are within one image."""
    same = image_ids[pairs[:, 0]] == image_ids[pairs[:, 1]]
    across, within = pairs[~same], pairs[same]
    limit = len(within) if fraction == 1 else int(fraction / (1 - fraction) * len(across))
    if limit < len(within):
        within = within[rng.permutation(len(within))[:limit]] if limit else within[:0]
    return np.concatenate([across, within])


def _count_pairs(tree: cKDTree, radii: tuple[float, float]) -> np.ndarray:
    """Count the unordered pairs of different points within each radius."""
    return (tree.count_neighbors(tree, np.array(radii)) - tree.n) // 2


def _draw_pairs(
    trees: list[tuple[np.ndarray, cKDTree]],
    counts: np.ndarray,
    above: float,
    upto: float,
    pool: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw at most ``pool`` pairs with above < distance <= upto, uniformly without replacement over all scenes."""
    parts = [
        rows[_draw_scene_pairs(tree, int(count), int(number), above, upto, rng)]
        for (rows, tree), count, number in zip(trees, counts, _split_count(counts, pool, rng))
        if number
    ]
    return np.concatenate([np.empty((0, 2), np.int64), *parts])


def _split_count(counts: np.ndarray, pool: int, rng: np.random.Generator) -> np.ndarray:
    """Draw how many elements of each group are among ``pool`` elements that are drawn without replacement.

    ``counts`` are the sizes of the groups, up to billions; if there are no more than ``pool`` elements, all are drawn.
    """
    total = int(counts.sum())
    if total <= pool:
        return counts
    chosen = rng.choice(total, pool, replace=False, shuffle=False)
    return np.bincount(np.searchsorted(np.cumsum(counts), chosen, side="right"), minlength=len(counts))


def _draw_scene_pairs(
    tree: cKDTree, count: int, number: int, above: float, upto: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw ``number`` of the ``count`` pairs of a scene with above < distance <= upto, as indices (number, 2).

    They are drawn from a list of all pairs in range if the list is short, and otherwise by rejection.
    """
    possible = tree.n * (tree.n - 1) // 2
    trials = number * possible / count
    if number * 4 > count or trials > count:
        listed = tree.query_pairs(upto, output_type="ndarray")
        distance = np.linalg.norm(tree.data[listed[:, 0]] - tree.data[listed[:, 1]], axis=1)
        listed = listed[distance > above]
        return listed[rng.permutation(len(listed))[:number]]
    found = np.empty((0, 2), np.int64)
    while len(found) < number:
        trial = np.sort(rng.integers(tree.n, size=(min(int(1.2 * trials) + 16, _TRIALS), 2)), axis=1)
        distance = np.linalg.norm(tree.data[trial[:, 0]] - tree.data[trial[:, 1]], axis=1)
        accepted = (trial[:, 0] < trial[:, 1]) & (distance > above) & (distance <= upto)
        both = np.concatenate([found, trial[accepted]])
        _, first = np.unique(both[:, 0] * tree.n + both[:, 1], return_index=True)
        found = both[np.sort(first)]
    return found[:number]


class _PairSimilarity(torch.autograd.Function):
    """Scores f_i . f_j (m,) of pairs (m, 2), float32 at least; features are gathered for a few pairs at a time."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, pairs: Tensor) -> Tensor:
        ctx.save_for_backward(features, pairs)
        out = features.new_empty(len(pairs), dtype=torch.promote_types(features.dtype, torch.float32))
        for into, (i, j) in zip(out.split(_CHUNK), pairs.T.split(_CHUNK, dim=1)):
            torch.sum(features[i].to(out) * features[j], dim=1, out=into)
        return out

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        features, pairs = ctx.saved_tensors
        both_ways = torch.cat([pairs, pairs.flip(1)]).T
        size = 2 * (len(features),)
        weights = torch.sparse_coo_tensor(both_ways, torch.cat([grad, grad]), size, check_invariants=False)
        return (weights @ features.to(grad)).to(features), None
