"""The ranking loss over all pairs, with an error below 1.5e-5, in memory linear in the number of patches.

The loss depends on a pair only through its score s = f_i . f_j and its class. Therefore

1. a pass over tiles of the similarity matrix, which is never stored, accumulates the pairs of each class in a histogram
   of s with linear binning;
2. on the grid of the histograms, R_P and R_N are correlations of a histogram with the sigmoid, and AP, the loss, and
   its derivative with respect to the score of a pair of each class are tables over s;
3. the backward pass recomputes the tiles, looks up the derivatives by linear interpolation, and multiplies them by the
   features.

Each unordered pair is visited once, so the matrix products take 4 n^2 d operations. With a stored similarity matrix,
they would take 6 n^2 d (three products of n x n x d).
Linear binning has an error of second order in (bin width / tau), which is bounded by the choice of
:data:`loco.losses.histograms.BINS_PER_TAU` (docs/losses.md). Several scales differ only in the tables: they share both
passes. The blocks are distributed over the ranks, and the histograms are summed (all-reduce).

The passes are implemented twice: by PyTorch operations on large tiles (:class:`loco.losses.tiled.TiledPairs`), the
reference, and by fused kernels for GPUs (:class:`loco.losses.kernels.FusedPairs`). With ``exchange="ring"``, ranks do
not gather the features of the batch (:class:`loco.losses.ring.RingPairs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, get_args

import torch
from torch import Tensor

from loco.losses import histograms
from loco.losses.distributed import Exchange, Group, all_reduce, rank_and_world_size
from loco.losses.first_order import first_order
from loco.losses.histograms import Grid
from loco.losses.inputs import wide_type
from loco.losses.log import Log
from loco.losses.pairs import AllPairsLoss, Ranking, mean_of_scales
from loco.losses.patches import Patches
from loco.losses.per_query import QueryMeanAP, query_precision
from loco.losses.query_rows import tile_of_rows
from loco.losses.ring import RingPairs
from loco.losses.stochastic import StochasticLoss, sample_rows
from loco.losses.tiled import Pairs, TiledPairs, multiply
from loco.losses.tiles import Classes, Tiling


class ExactSmoothAP(StochasticLoss, AllPairsLoss):
    """Smooth AP over all pairs of a batch, in two passes over tiles.

    Distances are computed in the precision of the points, at least float32, and products in that of the features, at
    least float32; half-precision features on a GPU are multiplied in half precision with accumulation in float32. The
    tables are float64.
    """

    takes_half = True
    smallest_tau = histograms.SMALLEST_TAU
    tiling_type = Tiling

    def __init__(
        self,
        rho: float | Sequence[float],
        kappa: float | Sequence[float | None] | None,
        tau: float,
        tile: int | None = None,
        same_image: float = 0.0,
        ratio: float = 1.0,
        group: Group = None,
        normalise: bool = True,
        ranking: Ranking = "batch",
        weights: Sequence[float] | None = None,
        queries: int | None = None,
        seed: int = 0,
        exchange: Exchange = "gather",
    ) -> None:
        """
        Args:
            rho, kappa, tau, same_image, ratio, group, normalise, ranking, weights: as in the base class.
            tile: maximum number of patches per side of a tile; None for a default that depends on the device. The fused
                kernels ignore it.
            queries: with ``ranking="query"``, number of patches drawn as queries, uniformly; patches without a positive
                are skipped. A query ranks all its pairs, so the mean AP of the drawn queries is an unbiased estimate of
                that of all queries. The log counts the pairs of the drawn queries. None for all patches.
            seed: seed of the draws.
            exchange: how the ranks of ``group`` exchange their features. ``gather``: each rank has all features and
                their gradient. ``ring``: each rank holds its own features and those of one other rank at a time
                (:mod:`loco.losses.ring`), for batches whose features do not fit into the memory of one rank. It
                requires ``ranking="batch"`` and does not use the fused kernels. Both give the same loss up to rounding.

        Raises:
            ValueError: as in the base class; fewer than one query, or ``queries`` with ``ranking="batch"``; an unknown
                exchange, or ``exchange="ring"`` with ``ranking="query"``.
        """
        super().__init__(
            rho, kappa, tau, same_image, ratio, group, normalise, ranking=ranking, weights=weights, seed=seed
        )
        if queries is not None and (ranking != "query" or queries < 1):
            raise ValueError(
                f"queries must be at least 1, with ranking='query'; found queries={queries} with ranking={ranking!r}"
            )
        if exchange not in get_args(Exchange):
            raise ValueError(f"the exchange must be one of {', '.join(get_args(Exchange))}, found {exchange!r}")
        if exchange == "ring" and ranking != "batch":
            raise ValueError(
                f"exchange='ring' is implemented for ranking='batch' only, found ranking={ranking!r}: "
                "set exchange='gather'"
            )
        self.tile, self.queries, self.exchange = tile, queries, exchange
        self.takes_half = ranking == "batch"
        self.classes = Classes(self.scales, same_image)

    @property
    def grid(self) -> Grid:
        """The grid of scores at the current temperature."""
        return Grid.for_tau(self.tau)

    def loss(self, patches: Patches) -> tuple[Tensor, Log]:
        source = patches.features[:0].clone()  # represents the features in the check for second derivatives
        if self.ranking == "query":
            differentiate = torch.is_grad_enabled() and patches.features.requires_grad
            queries = None if self.queries is None else sample_rows(patches, self.queries, self.generator(patches))
            tiling = self._tiling(patches)
            found = QueryMeanAP.apply(patches.features, source, self, tiling, queries, differentiate)
        else:
            found = _MeanAP.apply(patches.features, source, self, self.pairs(patches))
        return mean_of_scales(self.scales, self.weights, *found)

    def precision(self, patches: Patches) -> Tensor:
        if self.ranking == "query":
            return query_precision(self, self._tiling(patches), patches.features)
        pairs = self.tiled_pairs(patches)
        features, dtype = patches.features[pairs.order], wide_type(patches.features)
        scales = list(zip(self.weights, self.tables(pairs, features)))
        weighted_ap = torch.stack([v * table.weighted_ap for v, table in scales]).sum(dim=0)
        weights = torch.stack([v * table.weight.expand_as(table.ap) for v, table in scales]).sum(dim=0)
        ap, weight = (histograms.Lookup(pairs.tiling, self.grid, values, dtype) for values in (weighted_ap, weights))
        sums = torch.zeros(2, len(pairs.tiling.order), dtype=dtype, device=features.device)
        for block, (f_i,), (f_j,) in pairs.blocks(self.classes.positive_within, features):
            scores = multiply(f_i, f_j.T)
            for total, lookup in zip(sums, (ap, weight)):
                values = lookup.read(block, scores.clone())
                total[block.i] += values.sum(dim=1)
                total[block.j] += values.sum(dim=0)
        weighted_ap, weights = all_reduce(sums, self.group)[:, pairs.rows]
        precision = torch.empty_like(weights)
        precision[pairs.order] = weighted_ap / weights
        return precision

    def pairs(self, patches: Patches) -> Pairs:
        """Return the pairs of a batch: with the fused kernels if they are supported, else with PyTorch operations."""
        features = patches.features
        if (
            not self._in_ring
            and features.is_cuda
            and features.dtype != torch.float64
            and len(features)
            and self.tiling_type is Tiling
            and torch.cuda.get_device_capability(features.device) >= (8, 0)
            and find_spec("triton")
        ):
            from loco.losses.kernels import FusedPairs  # requires Triton

            return FusedPairs(patches, self.classes, self.group)
        return self.tiled_pairs(patches)

    def tiled_pairs(self, patches: Patches) -> TiledPairs:
        """Return the pairs of a batch with PyTorch operations, for the configured exchange between ranks."""
        if self._in_ring:
            return RingPairs(patches, self.classes, self._tile(patches), self.group)
        return TiledPairs(self._tiling(patches))

    def tables(self, pairs: Pairs, features: Tensor) -> list[Tables]:
        """Compute the tables of each scale, the first pass; ``features`` are in the order of ``pairs.order``."""
        scores = all_reduce(pairs.histograms(features, self.grid), self.group)
        # The tensors are small, so the driver copies them to a GPU without waiting for it.
        positive, negative = (
            part.to(scores, non_blocking=True) for part in (self.classes.positive, self.classes.negative)
        )
        return [Tables(scores, *each, self.grid, self.tau, self.ratio) for each in zip(positive, negative)]

    def _tiling(self, patches: Patches) -> Tiling:
        return self.tiling_type(patches, self.classes, self._tile(patches), self.group)

    def _tile(self, patches: Patches) -> int:
        on_gpu = patches.features.is_cuda
        default = tile_of_rows(on_gpu) if self.ranking == "query" else 2048 if on_gpu else 512
        return self.tile or default

    @property
    def _in_ring(self) -> bool:
        return self.exchange == "ring" and rank_and_world_size(self.group)[1] > 1


class _MeanAP(torch.autograd.Function):
    """Mean smooth AP of the positive pairs at each scale, and the numbers of positive and negative pairs, (K,) each.

    The gradient is computed in a second pass over the pairs.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, source: Tensor, criterion: ExactSmoothAP, pairs: Pairs
    ) -> tuple[Tensor, Tensor, Tensor]:
        features = features[pairs.order]
        tables = criterion.tables(pairs, features)
        ctx.save_for_backward(features, source)
        ctx.criterion, ctx.pairs, ctx.tables = criterion, pairs, tables
        mean_ap = torch.stack([table.mean_ap for table in tables]).to(wide_type(features))
        positives, negatives = torch.stack([table.pairs for table in tables], dim=1)
        ctx.mark_non_differentiable(positives, negatives)
        return mean_ap, positives, negatives

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None, None, None]:
        features, _ = ctx.saved_tensors
        grad = all_reduce(grad.double(), ctx.criterion.group)  # the blocks of this rank enter the loss of every rank
        slopes = sum(g * table.slopes() for g, table in zip(grad, ctx.tables))
        scale = slopes.abs().amax().clamp(min=torch.finfo(slopes.dtype).tiny)
        with torch.autocast(features.device.type, enabled=False):
            in_order = ctx.pairs.gradient(features, ctx.criterion.grid, slopes / scale)
        gradient = torch.empty_like(features)
        gradient[ctx.pairs.order] = in_order.mul_(scale).to(features.dtype)
        return gradient, None, None, None


class Tables:
    """AP and its derivatives as functions of the score, on a grid, at one scale (float64).

    The tables differ between the classes of positive pairs, because a pair is not compared with itself and the classes
    differ in weight.

    Attributes:
        weight: weight of a positive pair of each class, (classes, 1).
        ap: AP of a positive pair of each class, (classes, bins).
        weighted_ap: their product, (classes, bins).
        mean_ap: mean AP over the positive pairs, weighted; scalar.
        pairs: numbers of the positive and of the negative pairs, (2,) int64.
    """

    def __init__(
        self, scores: Tensor, positive: Tensor, negative: Tensor, grid: Grid, tau: float, ratio: float
    ) -> None:
        """
        Args:
            scores: histograms of the scores of each class, (classes, bins).
            positive, negative: weights of the pairs of each class, (classes,).
            grid: grid of the histograms.
            tau: temperature.
            ratio: factor c of the negatives.
        """
        offset = torch.arange(-(grid.bins - 1), grid.bins, dtype=torch.float64, device=scores.device) * grid.width
        self.sigmoid = torch.sigmoid(offset / tau)
        self.sigmoid_slope = self.sigmoid * (1 - self.sigmoid) / tau
        self.weight, self.negative_weight = positive[:, None], ratio * negative[:, None]
        self.weighted = self.weight * scores
        self.positives = self.weighted.sum(dim=0)
        self.negatives = (self.negative_weight * scores).sum(dim=0)
        # Subtract sigma(0), the term of the pair itself. The result is not clamped at 0: a pair is divided between two
        # grid points, at which its term is slightly below and slightly above sigma(0), and the two errors cancel.
        r_p = _correlate(self.positives, self.sigmoid) - 0.5 * self.weight
        r_n = _correlate(self.negatives, self.sigmoid)
        total = 1 + r_p + r_n
        self.ap = (1 + r_p) / total
        self.ap_by_r_p = r_n / total**2
        self.ap_by_r_n = -(1 + r_p) / total**2
        total_weight = self.positives.sum()
        self.total_weight = torch.where(total_weight > 0, total_weight, 1.0)
        self.weighted_ap = self.weight * self.ap
        self.mean_ap = (self.weighted * self.ap).sum() / self.total_weight
        of_class = scores.sum(dim=1)
        counted = [torch.where(weight > 0, of_class, 0.0).sum() for weight in (positive, negative)]
        self.pairs = torch.stack(counted).round().long()

    def slopes(self) -> Tensor:
        """Return the derivative of the mean AP with respect to the score of one pair of each class, (classes, bins).

        The score of a pair affects the ranks of all positives; the score of a positive also affects its own rank. The
        effect of a pair on itself cancels between the two.
        """
        as_positive = -_correlate((self.weighted * self.ap_by_r_p).sum(dim=0), self.sigmoid_slope)
        as_negative = -_correlate((self.weighted * self.ap_by_r_n).sum(dim=0), self.sigmoid_slope)
        as_ranked = self.ap_by_r_p * _correlate(self.positives, self.sigmoid_slope)
        as_ranked = as_ranked + self.ap_by_r_n * _correlate(self.negatives, self.sigmoid_slope)
        slopes = self.weight * (as_positive + as_ranked) + self.negative_weight * as_negative
        return -slopes / self.total_weight


def _correlate(histogram: Tensor, kernel: Tensor) -> Tensor:
    """Return sum_b histogram[b] kernel(x_b - x_k) at all grid points k by FFT; ``kernel`` has offsets 1-B .. B-1."""
    bins = len(histogram)
    size = 1 << (3 * bins).bit_length()
    spectrum = torch.fft.rfft(histogram, size) * torch.fft.rfft(kernel.flip(0), size)
    return torch.fft.irfft(spectrum, size)[bins - 1 : 2 * bins - 1]
