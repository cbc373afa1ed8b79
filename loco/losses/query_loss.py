"""Losses of query patches: each compares the similarities of a query to its positives and to its negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from loco.losses.draws import DrawingLoss, draw_rows
from loco.losses.pairs import nothing_to_rank
from loco.losses.patches import Patches
from loco.losses.processes import Group


class QueryLoss(DrawingLoss):
    """Base of these losses: the mean of :meth:`of_rows` over the queries that have a positive.

    Pairs within one image are no positives. The log counts the pairs of the queries before any is drawn, once for each;
    ``mean_ap`` is not measured.
    """

    takes_transforms = True

    def __init__(
        self,
        rho: float,
        kappa: float | None,
        tau: float | None,
        queries: int = 1024,
        positives: int | None = None,
        negatives: int | None = None,
        seed: int = 0,
        group: Group = None,
        normalise: bool = True,
    ) -> None:
        """
        Args:
            rho, kappa, tau, group, normalise: as in :class:`loco.losses.pairs.RankingLoss`.
            queries: number of query patches drawn; one without a positive is passed over.
            positives, negatives: largest numbers drawn for each query; None for all.
            seed: of the draws.

        Raises:
            ValueError: as :class:`loco.losses.pairs.RankingLoss`.
        """
        super().__init__(rho, kappa, tau, group=group, normalise=normalise, seed=seed)
        self.queries, self.positives, self.negatives = queries, positives, negatives

    def of_rows(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the loss of each query (q,).

        Args:
            scores: similarities of the queries to other patches, (q, m).
            positive, negative: which of these form a positive and a negative pair, (q, m) bool. Every query has a
                positive; it may have no negative.
        """
        raise NotImplementedError

    def loss(self, patches: Patches) -> tuple[Tensor, dict[str, float]]:
        generator = self.generator(patches)
        queries = draw_rows(patches, self.queries, generator)
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
            losses.append(self.of_rows(patches.features[query] @ patches.features[other].T, positive, negative))
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


def mean_of_rows(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """Return the mean of the values (p,) of each row, (rows,), from the row of each value; every row has one."""
    total, count = (values.new_zeros(rows).index_add(0, row, part) for part in (values, torch.ones_like(values)))
    return total / count


def keep(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the scores where the mask is true and the lowest finite number elsewhere.

    Unlike infinity, it has finite derivatives of all orders in rows without a true entry.
    """
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)


def _draw(mask: Tensor, most: int | None, generator: torch.Generator) -> Tensor:
    """A uniform draw of at most ``most`` of the true entries of each row."""
    if most is None or most >= mask.shape[1]:
        return mask
    keys = torch.rand(mask.shape, generator=generator).to(mask.device).masked_fill_(~mask, -1.0)
    return torch.zeros_like(mask).scatter_(1, keys.topk(most, dim=1).indices, True) & mask
