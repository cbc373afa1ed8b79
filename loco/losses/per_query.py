"""Smooth AP in which each patch ranks its pairs, with an error below 3.5e-5, in memory linear in the number of patches.

Patch i is a query, and L = 1 - mean over the queries with a positive of

    AP_i = sum over its positives a of w_a AP_i(a) / sum of w_a,

where AP_i(a) is that of :mod:`loco.losses.pairs`, with R_P and R_N over the pairs of patch i only. A pair counts for
both of its patches.

The rows of the pair matrix are independent, so they are processed in blocks of rows with all columns:

1. the scores of the pairs of each class in each row go into a histogram;
2. on the grid of the histogram, the AP of the row and its derivative with respect to the score of a pair of each class
   are tables (:mod:`loco.losses.rows`);
3. the derivative of each pair is looked up and multiplied by the features of its two patches.

The weight of each row in the loss is known in advance, from the points, so all three steps are done for a block before
the next one: the gradient is computed in the forward pass, and the products are computed only once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from loco.losses.distributed import all_reduce
from loco.losses.first_order import first_order
from loco.losses.pairs import AllPairsLoss
from loco.losses.query_rows import QueryRows, RowBlock
from loco.losses.rows import RowGrid, RowTables, Window
from loco.losses.tiles import Tiling


class QueryMeanAP(torch.autograd.Function):
    """Mean AP of the queries at each scale, and the numbers of positive and negative pairs, (K,) each.

    The loss depends on the mean APs only through their weighted mean over the scales, so only the gradient of this mean
    is computed, in the forward pass. In the backward pass, it is multiplied by the sum of the incoming gradients of the
    scales, which is the derivative of the loss with respect to this mean.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        source: Tensor,
        criterion: AllPairsLoss,
        tiling: Tiling,
        queries: Tensor | None,
        differentiate: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ranking = QueryRanking(criterion, tiling, features[tiling.order], queries, differentiate)
        sums = all_reduce(torch.cat([ranking.ap.sum(dim=0), ranking.pairs.flatten()]), criterion.group)
        ap, positives, negatives = sums.view(3, -1)
        mean_ap = (ap / ranking.queries.clamp(min=1)).to(features)
        positives, negatives = positives.round().long(), negatives.round().long()
        if ranking.gradient is not None:
            gradient = torch.empty_like(features)
            gradient[tiling.order] = ranking.gradient
            ctx.save_for_backward(gradient, source)
        ctx.group = criterion.group
        ctx.mark_non_differentiable(positives, negatives)
        return mean_ap, positives, negatives

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        gradient, _ = ctx.saved_tensors
        # The rows of this rank enter the loss of every rank.
        return gradient * all_reduce(grad.double().sum(), ctx.group).to(gradient), None, None, None, None, None


def query_precision(criterion: AllPairsLoss, tiling: Tiling, features: Tensor) -> Tensor:
    """Return the AP of each patch as a query, (n,).

    It is the weighted mean over the scales at which the patch has a positive, and NaN if there is no such scale.
    """
    ranking = QueryRanking(criterion, tiling, features[tiling.order], queries=None, differentiate=False)
    weights = ranking.ap.new_tensor(criterion.weights)
    sums = torch.stack([ranking.ap @ weights, ranking.ranked.to(weights) @ weights])
    total, weight = all_reduce(sums, criterion.group)
    precision = torch.empty_like(total)
    precision[tiling.order] = total / weight
    return precision


class QueryRanking:
    """The pass over the rows of this rank.

    Attributes:
        ap: AP of each query of this rank at each scale (n, K) float64, in tile order; 0 for other patches.
        ranked: which patches, in tile order, are queries of this rank at each scale, (n, K) bool.
        queries: numbers of queries at each scale, over all ranks, (K,) float64.
        pairs: numbers of positive and of negative pairs of the queries of this rank (2, K), float64.
        gradient: derivative of the weighted mean of the scales' mean AP with respect to the features, (n, d) in tile
            order, as far as it comes from the rows of this rank; None if it was not requested.
    """

    def __init__(
        self, criterion: AllPairsLoss, tiling: Tiling, features: Tensor, queries: Tensor | None, differentiate: bool
    ) -> None:
        """Process the rows of this rank.

        Args:
            criterion: the loss, which has the scales, weights and temperature.
            tiling: tiling of the pair matrix.
            features: (n, d), in tile order.
            queries: patches that may be queries, int64, in the original order; None for all.
            differentiate: whether to compute the gradient.
        """
        self.criterion, self.tiling, self.features = criterion, tiling, features
        self.classes, self.grid = tiling.pair_classes, RowGrid(criterion.tau, features)
        n, scales = len(features), len(criterion.scales)
        self.ap = features.new_zeros((n, scales), dtype=torch.float64)
        self.pairs = features.new_zeros((2, scales), dtype=torch.float64)
        self.gradient = torch.zeros_like(features) if differentiate else None
        weights = torch.cat([self.classes.positive, self.classes.negative]).T  # weights of each class (classes, 2 K)
        # A kind is a set of classes with equal weights at all scales; kind 0 has weight 0 everywhere.
        kinds, kind_of_class = weights.unique(dim=0, return_inverse=True)
        self.positive, self.negative = kinds[1:].T.to(features).view(2, scales, -1)  # (K, kinds)
        self.kinds = len(kinds) - 1  # without kind 0
        self.kind_of_class = kind_of_class.tolist()
        rows = QueryRows(tiling, features, queries)
        self.ranked = rows.ranked
        self.queries = all_reduce(self.ranked.sum(dim=0).double(), criterion.group)
        weights = self.queries.new_tensor(criterion.weights) * (self.queries > 0)
        self.row_weight = (weights / weights.sum().clamp(min=1e-300) / self.queries.clamp(min=1)).tolist()
        if rows.blocks:
            self._process(rows.blocks)

    def _process(self, blocks: list[RowBlock]) -> None:
        largest = max(len(rows.rows) * rows.width for rows in blocks)
        fraction, power, value = (self.features.new_empty(largest) for _ in range(3))
        cell = torch.empty(largest, dtype=torch.int64, device=fraction.device)
        for rows in blocks:
            shape = (len(rows.rows), rows.width)
            of_block = (buffer[: shape[0] * shape[1]].view(shape) for buffer in (cell, fraction, power, value))
            self._rank(rows, *of_block)

    def _rank(self, rows: RowBlock, cell: Tensor, fraction: Tensor, power: Tensor, value: Tensor) -> None:
        grid = self._locate(rows, cell, fraction, whole=power)
        histograms, counts = self._histograms(grid, cell, fraction, power)
        window = Window.of(grid, histograms[:, self.positive.any(dim=0)])
        slopes = self.features.new_zeros(())
        scales = zip(self.positive, self.negative, self.row_weight)
        for k, (positive, negative, weight) in enumerate(scales):
            tables = RowTables(window, histograms, positive, negative, self.criterion.ratio)
            ranked = self.ranked[rows.rows, k]
            self.ap[rows.rows, k] = torch.where(ranked, tables.ap.double(), 0.0)
            kinds = torch.stack([positive > 0, negative > 0]).double()
            self.pairs[:, k] += kinds @ counts[ranked].sum(dim=0)
            if self.gradient is not None:
                slopes = slopes + weight * tables.slopes()
        if self.gradient is not None:
            self._look_up(slopes, grid, cell, fraction, power, value)
            rows.multiply_back(value, self.features, self.gradient)

    def _locate(self, rows: RowBlock, cell: Tensor, fraction: Tensor, whole: Tensor) -> RowGrid:
        """Write the cell of each pair in the histograms of its row, and its fraction within the cell.

        The cells of a row are those of kind 1, kind 2, and so on, and a last one for all pairs of kind 0, which do not
        count.

        Returns:
            The part of the grid that the histograms cover.
        """
        rows.multiply(self.features[rows.rows] / self.grid.width, self.features, out=fraction)
        grid = self.grid.spanning(*(torch.stack(fraction.aminmax()) * self.grid.width).tolist())
        fraction.sub_(grid.first / grid.width)
        torch.floor(fraction, out=whole)
        fraction.sub_(whole)
        last = self.kinds * grid.nodes
        offsets = [(kind - 1) * grid.nodes if kind else last for kind in self.kind_of_class]
        table = whole.new_tensor(offsets)
        for columns, classes in rows.classes(self.tiling):
            if isinstance(classes, Tensor):
                whole[:, columns] += table.index_select(0, classes.view(-1)).view(classes.shape)
            elif offsets[classes]:
                whole[:, columns] += offsets[classes]
        cell.copy_(whole.clamp_(max=last))
        return grid

    def _histograms(self, grid: RowGrid, cell: Tensor, fraction: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
        """Return histograms (r, kinds, nodes) of the pairs of each kind except kind 0, and their counts (r, kinds)."""
        moments = fraction.new_zeros(3, len(cell), self.kinds * grid.nodes + 1)
        moments[0].scatter_add_(1, cell, fraction.new_ones(cell.shape[1]).expand_as(cell))
        moments[1].scatter_add_(1, cell, fraction)
        moments[2].scatter_add_(1, cell, torch.mul(fraction, fraction, out=power))
        moments = moments[..., :-1].unflatten(-1, (self.kinds, grid.nodes))
        return grid.histograms(moments), moments[0].sum(dim=-1, dtype=torch.float64)

    def _look_up(self, slopes: Tensor, grid: RowGrid, cell: Tensor, fraction: Tensor, *buffers: Tensor) -> None:
        """Write the slope of each pair to the second buffer, from the tables ``slopes`` (r, kinds, nodes) of all kinds
        except kind 0.
        """
        power, value = buffers
        constant, *others = pad(grid.polynomials(slopes).flatten(2), (0, 1))
        torch.gather(others.pop(), 1, cell, out=value)
        for coefficient in [*reversed(others), constant]:
            value.mul_(fraction).add_(torch.gather(coefficient, 1, cell, out=power))
