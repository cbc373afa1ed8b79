"""Direct implementation of the ranking loss, which compares every positive pair with every pair: the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from loco.losses.distributed import Group
from loco.losses.pairs import AllPairsLoss, Ranking, Scale, mean_of_scales, nothing_to_rank
from loco.losses.patches import Patches

BLOCK = 2**24  # sigmoids held in memory at a time


class DenseSmoothAP(AllPairsLoss):
    """Smooth AP over all pairs in time O(|P| (|P| + |N|)): for small batches, and for tests.

    With ``self_term``, a pair is also compared with itself, which adds w_a sigma(0) to R_P, as in the LoCUS release.
    The other arguments are those of :class:`loco.losses.pairs.AllPairsLoss`.
    """

    takes_transforms = True

    def __init__(
        self,
        rho: float | Sequence[float],
        kappa: float | Sequence[float | None] | None,
        tau: float,
        self_term: bool = False,
        same_image: float = 0.0,
        ratio: float = 1.0,
        group: Group = None,
        normalise: bool = True,
        ranking: Ranking = "batch",
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(rho, kappa, tau, same_image, ratio, group, normalise, ranking=ranking, weights=weights)
        self.self_term = self_term

    def loss(self, patches: Patches) -> tuple[Tensor, Mapping[str, float]]:
        ranked = [self._rank(patches, scale) for scale in self.scales]
        positives, negatives = torch.tensor([[len(r.ap), r.negatives] for r in ranked], device=patches.points.device).T
        if not positives.any():
            return nothing_to_rank(patches.features, int(negatives.sum()), self.scales)
        mean_ap = torch.stack([(r.weight * r.ap).sum() / r.weight.sum() for r in ranked])
        return mean_of_scales(self.scales, self.weights, mean_ap, positives, negatives)

    def precision(self, patches: Patches) -> Tensor:
        total, weight = patches.features.new_zeros(2, len(patches.features))
        for of_scale, ranked in ((w, self._rank(patches, scale)) for w, scale in zip(self.weights, self.scales)):
            for end in ranked.patches:
                total.index_add_(0, end, of_scale * ranked.weight * ranked.ap)
                weight.index_add_(0, end, of_scale * ranked.weight)
        return total / weight

    def _rank(self, patches: Patches, scale: Scale) -> _Ranked:
        n = len(patches.features)
        i, j = torch.triu_indices(n, n, 1, device=patches.features.device)
        distance = (patches.points[i] - patches.points[j]).norm(dim=1)
        together = patches.scene_ids[i] == patches.scene_ids[j]
        similarity = (patches.features[i] * patches.features[j]).sum(dim=1)
        weight = torch.ones_like(similarity)
        weight[patches.image_ids[i] == patches.image_ids[j]] = self.same_image
        positive = together & (distance <= scale.rho) & (weight > 0)
        negative = together & (distance > scale.rho) & (distance <= scale.kappa)
        if self.ranking == "query":
            return self._rank_queries(torch.stack([i, j]), similarity, weight, positive, negative)
        weight = weight[positive]
        ap = self.smooth_ap(similarity[positive], similarity[negative], weight)
        return _Ranked(torch.stack([i, j])[:, positive], weight, ap, int(negative.sum()))

    def _rank_queries(self, pairs: Tensor, similarity: Tensor, weight: Tensor, *classes: Tensor) -> _Ranked:
        """Rank the pairs of each query, i.e. of each patch with a positive; ``classes`` are the masks of the positive
        and of the negative ``pairs``.
        """
        lists, negatives = [], 0
        for query in pairs[:, classes[0]].unique():
            positive, negative = (part & (pairs == query).any(dim=0) for part in classes)
            of_query = weight[positive]
            ap = self.smooth_ap(similarity[positive], similarity[negative], of_query)
            lists.append((query.expand(len(of_query)), of_query / of_query.sum(), ap))
            negatives += int(negative.sum())
        query, weight, ap = map(torch.cat, zip(*lists)) if lists else (pairs[0, :0], weight[:0], similarity[:0])
        return _Ranked(query[None], weight, ap, negatives)

    def smooth_ap(self, s_p: Tensor, s_n: Tensor, weight: Tensor) -> Tensor:
        """Return the smooth AP (p,) of the positives.

        Args:
            s_p: scores of the positives, (p,).
            s_n: scores of the negatives, (n,).
            weight: weights of the positives, (p,).
        """
        rows = max(1, BLOCK // max(1, len(s_p) + len(s_n)))
        if len(s_p) <= rows:
            return self._block_ap(s_p, weight, s_p, s_n, weight)
        blocks = zip(s_p.split(rows), weight.split(rows))
        # Blocks are recomputed in the backward pass, so that only one is held in memory at a time.
        return torch.cat([checkpoint(self._block_ap, *part, s_p, s_n, weight, use_reentrant=False) for part in blocks])

    def _block_ap(self, s_a: Tensor, self_weight: Tensor, s_p: Tensor, s_n: Tensor, weight: Tensor) -> Tensor:
        """Return the AP (a,) of some of the positives, with the scores ``s_a`` and the weights ``self_weight``, (a,)
        each; the other arguments are those of :meth:`smooth_ap`.
        """
        r_p = (weight * torch.sigmoid((s_p[None] - s_a[:, None]) / self.tau)).sum(dim=1)
        if not self.self_term:
            r_p = r_p - 0.5 * self_weight
        r_n = self.ratio * torch.sigmoid((s_n[None] - s_a[:, None]) / self.tau).sum(dim=1)
        return (1 + r_p) / (1 + r_p + r_n)


class _Ranked(NamedTuple):
    """The ranked positive pairs at one scale."""

    patches: Tensor  # (2, p) int64, both patches of each pair; with ranking="query", (1, p), its query
    weight: Tensor  # (p,); with ranking="query", the weights of each query add up to 1
    ap: Tensor  # (p,)
    negatives: int  # number of negative pairs
