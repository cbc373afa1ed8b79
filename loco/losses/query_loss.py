"""Losses of query patches: each compares the similarities of a query to its positives and to its negatives.

With drawn queries, the (queries, patches) matrix is stored and differentiated by autograd, to any order. With all
patches as queries, it is processed in blocks of rows (:mod:`loco.losses.query_rows`), in memory linear in the number of
patches: the number of queries is known in advance, from the points, so the gradient of a block is computed and
accumulated in the forward pass, before the next block. The rows are distributed over the ranks of a group.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loco.losses.distributed import Group, all_reduce
from loco.losses.first_order import first_order
from loco.losses.pairs import nothing_to_rank
from loco.losses.patches import Patches
from loco.losses.query_rows import QueryRows, RowBlock, tile_of_rows
from loco.losses.stochastic import StochasticLoss, sample_rows
from loco.losses.tiles import Classes, Tiling


class QueryLoss(StochasticLoss):
    """Base class of losses per query: the mean of :meth:`of_rows` over the queries that have a positive.

    Pairs within one image are not positives. The log counts the pairs of the drawn queries (or of all queries with a
    positive, if queries are not drawn) before pairs are drawn, once per query; its ``mean_ap`` is NaN.
    """

    def __init__(
        self,
        rho: float,
        kappa: float | None,
        tau: float | None,
        queries: int | None = 1024,
        positives: int | None = None,
        negatives: int | None = None,
        seed: int = 0,
        group: Group = None,
        normalise: bool = True,
    ) -> None:
        """
        Args:
            rho, kappa, tau, group, normalise: as in :class:`loco.losses.pairs.RankingLoss`.
            queries: number of query patches drawn; those without a positive are skipped. None for all patches, with
                first derivatives only.
            positives, negatives: maximum numbers of positive and of negative pairs drawn per query; None for all. Both
                must be None if ``queries`` is None.
            seed: seed of the draws.

        Raises:
            ValueError: as :class:`loco.losses.pairs.RankingLoss`; a number below 1; or ``positives`` or ``negatives``
                with ``queries=None``.
        """
        super().__init__(rho, kappa, tau, group=group, normalise=normalise, seed=seed)
        for name, number in (("queries", queries), ("positives", positives), ("negatives", negatives)):
            if number is not None and number < 1:
                raise ValueError(f"the number of {name} must be at least 1, or None for all, found {number}")
        if queries is None and (positives is not None or negatives is not None):
            raise ValueError(
                "with queries=None, all pairs are used: positives and negatives must be None, found "
                f"positives={positives} and negatives={negatives}"
            )
        self.queries, self.positives, self.negatives = queries, positives, negatives
        self.takes_transforms = queries is not None

    def of_rows(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the loss of each query (q,).

        Args:
            scores: similarities of the queries to other patches, (q, m).
            positive, negative: masks of the positive and the negative pairs, (q, m) bool. Every query has a positive;
                it may have no negative.
        """
        raise NotImplementedError

    def loss(self, patches: Patches) -> tuple[Tensor, dict[str, float]]:
        if self.queries is None:
            return self._of_all(patches)
        generator = self.generator(patches)
        queries = sample_rows(patches, self.queries, generator)
        losses, log = [], {"positives": 0, "negatives": 0, "mean_ap": float("nan")}
        for scene in patches.scene_ids.unique():  # patches of different scenes form no pairs
            query = queries[patches.scene_ids[queries] == scene]
            other = torch.nonzero(patches.scene_ids == scene)[:, 0]
            positive, negative = self._classes(patches, query, other)
            log["positives"] += int(positive.sum())
            log["negatives"] += int(negative.sum())
            ranked = positive.any(dim=1)
            query = query[ranked]
            positive = _draw(positive[ranked], self.positives, generator)
            negative = _draw(negative[ranked], self.negatives, generator)
            losses.append(self.of_rows(patches.features[query] @ patches.features[other].T, positive, negative))
        if not log["positives"]:
            return nothing_to_rank(patches.features, int(log["negatives"]))
        return torch.cat(losses).mean(), log

    def _of_all(self, patches: Patches) -> tuple[Tensor, dict[str, float]]:
        tile = tile_of_rows(patches.features.is_cuda)
        tiling = Tiling(patches, Classes(self.scales, self.same_image), tile, self.group)
        differentiate = torch.is_grad_enabled() and patches.features.requires_grad
        # The cloned rows represent the features in the check for second derivatives.
        mean, pairs = _MeanOfAll.apply(patches.features, patches.features[:0].clone(), self, tiling, differentiate)
        positives, negatives = pairs.tolist()
        if not positives:
            return nothing_to_rank(patches.features, negatives)
        return mean, {"positives": positives, "negatives": negatives, "mean_ap": float("nan")}

    def _classes(self, patches: Patches, query: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Return the masks (q, m) of the other patches that are positive and negative for each query."""
        # Without a matrix product: points are tens of metres from the origin, and distances must be exact to
        # centimetres.
        distance = torch.cdist(
            patches.points[query], patches.points[other], compute_mode="donot_use_mm_for_euclid_dist"
        )
        (scale,) = self.scales
        near = distance <= scale.rho
        positive = near & (patches.image_ids[query, None] != patches.image_ids[other])
        return positive, ~near & (distance <= scale.kappa)


class _MeanOfAll(torch.autograd.Function):
    """Mean of a loss over all patches with a positive, and their numbers of positive and negative pairs, (2,) int64."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, source: Tensor, criterion: QueryLoss, tiling: Tiling, differentiate: bool
    ) -> tuple[Tensor, Tensor]:
        in_order = features[tiling.order]
        rows = QueryRows(tiling, in_order, drawn=None)
        queries = all_reduce(rows.ranked.sum(), criterion.group).clamp(min=1)
        gradient = torch.zeros_like(in_order) if differentiate else None
        total = features.new_zeros((), dtype=torch.float64)
        pairs = torch.zeros(2, dtype=torch.int64, device=features.device)
        for block in rows.blocks:
            scores = block.multiply(in_order[block.rows], in_order, features.new_empty(len(block.rows), block.width))
            classes = _classes_of_rows(tiling, block)
            with torch.enable_grad():
                loss = criterion.of_rows(scores.requires_grad_(), *classes).sum(dtype=torch.float64) / queries
            total += loss.detach()
            pairs += torch.stack([part.sum() for part in classes])
            if gradient is not None:
                (slopes,) = torch.autograd.grad(loss, scores)
                block.multiply_back(slopes, in_order, gradient)
        if gradient is not None:
            ctx.save_for_backward(torch.empty_like(features).index_copy_(0, tiling.order, gradient), source)
        ctx.group = criterion.group
        pairs = all_reduce(pairs, criterion.group)
        ctx.mark_non_differentiable(pairs)
        return all_reduce(total, criterion.group).to(features), pairs

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None]:
        gradient, _ = ctx.saved_tensors
        # The rows of this rank enter the loss of every rank.
        return gradient * all_reduce(grad.double(), ctx.group).to(gradient), None, None, None, None


def _classes_of_rows(tiling: Tiling, block: RowBlock) -> tuple[Tensor, Tensor]:
    """Return the masks of the positive and the negative pairs of some rows, (r, width) bool each."""
    device = tiling.points.device
    positive, negative = torch.zeros((2, len(block.rows), block.width), dtype=torch.bool, device=device)
    of_class = [(tiling.pair_classes.positive[0] > 0).to(device), (tiling.pair_classes.negative[0] > 0).to(device)]
    for columns, classes in block.classes(tiling):
        for mask, table in zip((positive, negative), of_class):
            if isinstance(classes, Tensor):
                mask[:, columns] = table.index_select(0, classes.view(-1)).view(classes.shape)
            else:
                mask[:, columns] = table[classes]
    return positive, negative


def mean_of_rows(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """Return the mean of the values of each row, (rows,).

    Args:
        values: (p,).
        row: the row of each value, (p,) int64.
        rows: number of rows, each of which has a value.
    """
    total, count = (values.new_zeros(rows).index_add(0, row, part) for part in (values, torch.ones_like(values)))
    return total / count


def mask_scores(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the scores where the mask is true and the lowest finite number elsewhere.

    Unlike infinity, this number has finite derivatives of all orders in rows without a true entry.
    """
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)


def _draw(mask: Tensor, number: int | None, generator: torch.Generator) -> Tensor:
    """Return a mask of at most ``number`` true entries of each row of ``mask``, drawn uniformly; None for all."""
    if number is None or number >= mask.shape[1]:
        return mask
    keys = torch.rand(mask.shape, generator=generator).to(mask.device).masked_fill_(~mask, -1.0)
    return torch.zeros_like(mask).scatter_(1, keys.topk(number, dim=1).indices, True) & mask
