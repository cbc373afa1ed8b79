"""InfoNCE over the same pairs: each query patch is to be recognised among its negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from loco.losses.pairs import Patches, RankingLoss, nothing_to_rank


class InfoNCE(RankingLoss):
    """Contrastive loss (van den Oord et al., 2018) with the pairs of a ranking loss, many positives a query.

    For query i with positives P_i and negatives N_i, the mean over its positives j of
    -log (exp(s_ij / tau) / sum over k in P_i and N_i of exp(s_ik / tau)). It pushes hardest where a ranking is worst,
    where the slope of an average precision vanishes: a start for networks that know nothing yet.

    The log counts the pairs of the queries, once for each; ``mean_ap`` is not measured. The queries depend on ``seed``
    and on the number of calls, which is part of the module's state.
    """

    def __init__(self, rho: float, kappa: float, tau: float, queries: int = 1024, seed: int = 0) -> None:
        """
        Args:
            rho, kappa: as in :class:`loco.losses.pairs.RankingLoss`.
            tau: temperature of the softmax.
            queries: number of query patches drawn; one without a positive is passed over.
            seed: of the draw.
        """
        super().__init__(rho, kappa, tau)
        self.queries, self.seed = queries, seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def loss(self, patches: Patches) -> tuple[Tensor, dict[str, float]]:
        queries = self._draw(len(patches.features)).to(patches.features.device)
        losses, log = [], {"positives": 0, "negatives": 0, "mean_ap": float("nan")}
        for scene in patches.scene_ids.unique():  # patches of different scenes form no pairs
            query = queries[patches.scene_ids[queries] == scene]
            other = torch.nonzero(patches.scene_ids == scene)[:, 0]
            distance = torch.cdist(patches.points[query], patches.points[other])
            near = distance <= self.rho
            positive = near & (patches.image_ids[query, None] != patches.image_ids[other])
            negative = ~near & (distance <= self.kappa)
            log["positives"] += int(positive.sum())
            log["negatives"] += int(negative.sum())
            useful = positive.any(dim=1)
            query, positive, negative = query[useful], positive[useful], negative[useful]
            scores = patches.features[query] @ patches.features[other].T / self.tau
            total = scores.masked_fill(~(positive | negative), float("-inf")).logsumexp(dim=1)
            losses.append(total - (scores * positive).sum(dim=1) / positive.sum(dim=1))
        if not log["positives"]:
            return nothing_to_rank(patches.features, log["negatives"])
        return torch.cat(losses).mean(), log

    def _draw(self, n: int) -> Tensor:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + int(self.calls))
        self.calls += 1
        return torch.randperm(n, generator=generator)[: self.queries]
