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
        query = self._draw(len(patches.features)).to(patches.features.device)
        together = patches.scene_ids[query, None] == patches.scene_ids[None]
        together[torch.arange(len(query)), query] = False
        across = patches.image_ids[query, None] != patches.image_ids[None]
        distance = torch.cdist(patches.points[query].float(), patches.points.float())
        positive = together & across & (distance <= self.rho)
        negative = together & (distance > self.rho) & (distance <= self.kappa)
        log = {"positives": int(positive.sum()), "negatives": int(negative.sum())}
        if not log["positives"]:
            return nothing_to_rank(patches.features, log["negatives"])
        useful = positive.any(dim=1)
        positive, negative = positive[useful], negative[useful]
        scores = patches.features[query[useful]] @ patches.features.T / self.tau
        total = scores.masked_fill(~(positive | negative), float("-inf")).logsumexp(dim=1, keepdim=True)
        each = ((total - scores) * positive).sum(dim=1) / positive.sum(dim=1)
        return each.mean(), log | {"mean_ap": float("nan")}

    def _draw(self, n: int) -> Tensor:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + int(self.calls))
        self.calls += 1
        return torch.randperm(n, generator=generator)[: self.queries]
