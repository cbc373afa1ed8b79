"""InfoNCE over the same pairs: each query patch is to be recognised among its negatives."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from loco.losses.draws import DrawingLoss
from loco.losses.pairs import nothing_to_rank
from loco.losses.patches import Patches
from loco.losses.processes import Group


class InfoNCE(DrawingLoss):
    """Contrastive loss (van den Oord et al., 2018) with the pairs of a ranking loss, many positives a query.

    For query i with positives P_i and negatives N_i, and e_k = exp(s_ik / tau), the mean over its positives j of

        -log (e_j / (sum over P_i of e_k + |N_i| sum over N_i of q_k e_k)),   q_k = e_k^beta / sum over N_i of e_k^beta.

    ``beta`` is the concentration of hard negatives (Robinson et al., ICLR 2021, sec. 3, without the correction for
    false negatives: the points tell which pairs are negative). The negatives count as if they had been drawn with
    probability q, which favours those that look like the query; with 0 they count alike. As in that paper's code beta
    multiplies s / tau, and q is differentiated.

    ``queries=256, positives=128, negatives=384, beta=0.1`` are the settings of the NCE baseline of LoCo
    (NeurIPS 2024). It states no formula; reading its beta as this concentration is our choice.

    The loss pushes hardest where a ranking is worst, where the slope of an average precision vanishes: a start for
    networks that know nothing yet.

    The log counts the pairs of the queries before any is drawn, once for each; ``mean_ap`` is not measured.
    """

    takes_transforms = True

    def __init__(
        self,
        rho: float,
        kappa: float,
        tau: float,
        queries: int = 1024,
        positives: int | None = None,
        negatives: int | None = None,
        beta: float = 0.0,
        seed: int = 0,
        group: Group = None,
        normalise: bool = True,
    ) -> None:
        """
        Args:
            rho, kappa, group, normalise: as in :class:`loco.losses.pairs.RankingLoss`.
            tau: temperature of the softmax.
            queries: number of query patches drawn; one without a positive is passed over.
            positives, negatives: largest numbers drawn for each query; None for all.
            beta: concentration on hard negatives, 0 for none.
            seed: of the draws.

        Raises:
            ValueError: as :class:`loco.losses.pairs.RankingLoss`, or beta < 0.
        """
        super().__init__(rho, kappa, tau, group=group, normalise=normalise, seed=seed)
        if beta < 0:
            raise ValueError(f"the concentration beta must not be negative, found {beta}")
        self.queries, self.positives, self.negatives = queries, positives, negatives
        self.beta = beta

    def loss(self, patches: Patches) -> tuple[Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.call_number(patches))
        queries = torch.randperm(len(patches.features), generator=generator)[: self.queries]
        queries = queries.to(patches.features.device)
        losses, log = [], {"positives": 0, "negatives": 0, "mean_ap": float("nan")}
        for scene in patches.scene_ids.unique():  # patches of different scenes form no pairs
            query = queries[patches.scene_ids[queries] == scene]
            other = torch.nonzero(patches.scene_ids == scene)[:, 0]
            positive, negative = self._classes(patches, query, other)
            log["positives"] += int(positive.sum())
            log["negatives"] += int(negative.sum())
            useful = positive.any(dim=1)
            query = query[useful]
            positive = _draw(positive[useful], self.positives, generator)
            negative = _draw(negative[useful], self.negatives, generator)
            scores = patches.features[query] @ patches.features[other].T / self.tau
            rivals = self._log_rivals(scores, positive, negative)
            losses.append(rivals - (scores * positive).sum(dim=1) / positive.sum(dim=1))
        if not log["positives"]:
            return nothing_to_rank(patches.features, log["negatives"])
        return torch.cat(losses).mean(), log

    def _classes(self, patches: Patches, query: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the other patches are positive and negative for each query, (q, m) each."""
        # Not by a matrix product: points lie tens of metres from the origin, and the radii decide at centimetres.
        distance = torch.cdist(
            patches.points[query], patches.points[other], compute_mode="donot_use_mm_for_euclid_dist"
        )
        near = distance <= self.rho
        positive = near & (patches.image_ids[query, None] != patches.image_ids[other])
        return positive, ~near & (distance <= self.kappa)

    def _log_rivals(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Logarithm of what a positive is held against, (q,)."""
        if not self.beta:
            return _log_sum(scores, positive | negative)
        count = negative.sum(dim=1)
        hard = _log_sum((1 + self.beta) * scores, negative) - _log_sum(self.beta * scores, negative)
        hard = torch.where(count > 0, hard + count.to(hard).clamp(min=1).log(), -math.inf)
        return torch.logaddexp(_log_sum(scores, positive), hard)


def _log_sum(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(~mask, -math.inf).logsumexp(dim=1)


def _draw(mask: Tensor, most: int | None, generator: torch.Generator) -> Tensor:
    """A uniform draw of at most ``most`` of the true entries of each row."""
    if most is None or most >= mask.shape[1]:
        return mask
    keys = torch.rand(mask.shape, generator=generator).to(mask.device).masked_fill_(~mask, -1.0)
    return torch.zeros_like(mask).scatter_(1, keys.topk(most, dim=1).indices, True) & mask
