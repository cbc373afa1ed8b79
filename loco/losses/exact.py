"""The ranking loss over all pairs, exact to rounding, in memory linear in the number of patches.

The loss sees a pair only through the number s = f_i . f_j and its class. So

1. a walk over tiles of the similarity matrix, which is never stored, gathers the pairs of each class in a histogram of
   s with linear binning;
2. on the grid of the histograms, R_P and R_N are correlations of a histogram with the sigmoid, and AP, the loss, and
   its derivative with respect to the score of a pair of each class are tables over s;
3. the backward walk forms the tiles again, looks the derivatives up by linear interpolation, and multiplies them back
   into the features.

The cost is three products of n x n x d, as in attention. Linear binning leaves an error of second order in
(width of a bin / tau), held small by :data:`loco.losses.histograms.BINS_PER_TAU`. Several scales differ in the tables
alone: they share both walks. Several processes share them out: each walks some of the tiles, and the histograms are
added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from loco.losses import histograms
from loco.losses.draws import DrawingLoss, draw_rows
from loco.losses.first_order import first_order
from loco.losses.histograms import Grid
from loco.losses.inputs import wide_type
from loco.losses.log import Log
from loco.losses.pairs import AllPairsLoss, Ranking, mean_of_scales
from loco.losses.patches import Patches
from loco.losses.per_query import QueryMeanAP, query_precision
from loco.losses.processes import Group, add_up
from loco.losses.tiles import Classes, Walk


class ExactSmoothAP(DrawingLoss, AllPairsLoss):
    """Smooth AP over all pairs of a batch, in two walks over tiles.

    Points are compared in their own precision, float32 at least. So are features multiplied, but for those in half
    precision on a GPU: there the products are of half precision, summed in float32. The tables are float64.
    """

    takes_half = True
    smallest_tau = histograms.SMALLEST_TAU

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
    ) -> None:
        """
        Args:
            rho, kappa, tau, same_image, ratio, group, normalise, ranking, weights: as in the base class.
            tile: patches along the side of a tile; None for what suits the device.
            queries: with ``ranking="query"``, number of patches drawn as queries, uniformly; a patch without a positive
                is passed over. Each is ranked against all its pairs, so that the mean AP of the drawn queries is an
                unbiased estimate of that of all. The log counts the pairs of the drawn queries. None for all patches.
            seed: of the draws.

        Raises:
            ValueError: as in the base class; fewer than one query, or ``queries`` with ``ranking="batch"``.
        """
        super().__init__(
            rho, kappa, tau, same_image, ratio, group, normalise, ranking=ranking, weights=weights, seed=seed
        )
        if queries is not None and (ranking != "query" or queries < 1):
            raise ValueError(f"queries must be 1 or more, with ranking='query'; found {queries} with {ranking!r}")
        self.tile, self.queries = tile, queries
        self.takes_half = ranking == "batch"
        self.classes = Classes(self.scales, same_image)

    @property
    def grid(self) -> Grid:
        """The grid of scores at the present temperature."""
        return Grid.for_tau(self.tau)

    def loss(self, patches: Patches) -> tuple[Tensor, Log]:
        source = patches.features[:0].clone()  # stands for the features where their derivative is refused
        walk = self._walk(patches)
        if self.ranking == "query":
            differentiate = torch.is_grad_enabled() and patches.features.requires_grad
            queries = None if self.queries is None else draw_rows(patches, self.queries, self.generator(patches))
            found = QueryMeanAP.apply(patches.features, source, self, walk, queries, differentiate)
        else:
            found = _MeanAP.apply(patches.features, source, self, walk)
        return mean_of_scales(self.scales, self.weights, *found)

    def precision(self, patches: Patches) -> Tensor:
        if self.ranking == "query":
            return query_precision(self, self._walk(patches), patches.features)
        walk, features = self._walk(patches), patches.features
        features = features[walk.order]
        tables, engine, dtype = self.tables(walk, features), self.engine(features), wide_type(features)
        scales = list(zip(self.weights, tables))
        ap = engine.Lookup(walk, self.grid, sum(v * table.weighted_ap for v, table in scales), dtype)
        weights = sum(v * table.weight.expand_as(table.ap) for v, table in scales)
        weight = engine.Lookup(walk, self.grid, weights, dtype)
        sums = torch.zeros(2, len(features), dtype=dtype, device=features.device)
        for block in walk.blocks(self.classes.positive_within):
            scores = multiply(features[block.i], features[block.j].T)
            for total, lookup in zip(sums, (ap, weight)):
                values = lookup.read(block, scores.clone())
                total[block.i] += values.sum(dim=1)
                total[block.j] += values.sum(dim=0)
        total, weight = add_up(sums, self.group)
        precision = torch.empty_like(total)
        precision[walk.order] = total / weight
        return precision

    def tables(self, walk: Walk, features: Tensor) -> list[Tables]:
        """The first walk: the tables of each scale, for features in the order of the walk."""
        binning = self.engine(features).Binning(walk, self.grid, self.classes.number)
        for block in walk.blocks(self.classes.radii[-1]):
            binning.add(block, multiply(features[block.i], features[block.j].T))
        scores = add_up(binning.histograms(), self.group)
        weights = zip(self.classes.positive.to(scores), self.classes.negative.to(scores))
        return [Tables(scores, *of_scale, self.grid, self.tau, self.ratio) for of_scale in weights]

    def gradient(self, walk: Walk, features: Tensor, slopes: Tensor) -> Tensor:
        """The second walk: this process's share of the derivative, from that by the scores of each class."""
        size = slopes.abs().amax().clamp(min=torch.finfo(slopes.dtype).tiny)  # half precision has no room for 1e-8
        lookup = self.engine(features).Lookup(walk, self.grid, slopes / size, product_type(features))
        out = torch.zeros_like(features, dtype=wide_type(features))
        for block in walk.blocks(self.classes.radii[-1]):
            f_i, f_j = features[block.i], features[block.j]
            weight = lookup.read(block, multiply(f_i, f_j.T))
            multiply(weight, f_j, add_to=out[block.i])
            multiply(weight.T, f_i, add_to=out[block.j])
        return out.mul_(size)

    def engine(self, features: Tensor) -> Any:
        """What counts and looks up: the module of fused kernels where it can be used, else that of plain operations."""
        if features.is_cuda and features.dtype != torch.float64 and find_spec("triton"):
            from loco.losses import kernels  # which needs Triton

            return kernels
        return histograms

    def _walk(self, patches: Patches) -> Walk:
        tile = self.tile or (4096 if patches.features.is_cuda else 512)
        return Walk(patches, self.classes, tile, self.group)


class _MeanAP(torch.autograd.Function):
    """Mean smooth AP of the positive pairs at each scale, and the numbers of pairs; the gradient by a second walk."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, source: Tensor, criterion: ExactSmoothAP, walk: Walk
    ) -> tuple[Tensor, Tensor, Tensor]:
        features = features[walk.order]
        tables = criterion.tables(walk, features)
        ctx.save_for_backward(features, source)
        ctx.criterion, ctx.walk, ctx.tables = criterion, walk, tables
        mean_ap = torch.stack([table.mean_ap for table in tables]).to(wide_type(features))
        positives, negatives = torch.stack([table.pairs for table in tables], dim=1)
        ctx.mark_non_differentiable(positives, negatives)
        return mean_ap, positives, negatives

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None, None, None]:
        features, _ = ctx.saved_tensors
        grad = add_up(grad.double(), ctx.criterion.group)  # the blocks of this process count for the losses of all
        slopes = sum(g * table.slopes() for g, table in zip(grad, ctx.tables))
        with torch.autocast(features.device.type, enabled=False):
            sorted_gradient = ctx.criterion.gradient(ctx.walk, features, slopes)
        gradient = torch.empty_like(features)
        gradient[ctx.walk.order] = sorted_gradient.to(features.dtype)
        return gradient, None, None, None


class Tables:
    """AP and its derivatives as functions of the score, on a grid, at one scale (float64).

    They differ between classes of positive pairs: a pair does not compete with itself, and so not with its own weight.
    """

    def __init__(
        self, scores: Tensor, positive: Tensor, negative: Tensor, grid: Grid, tau: float, ratio: float
    ) -> None:
        """
        Args:
            scores: histograms of the scores of each class, (classes, bins).
            positive, negative: weights of the pairs of each class, (classes,).
            grid, tau, ratio: the grid, and the temperature and the factor of the negatives.
        """
        offset = torch.arange(-(grid.bins - 1), grid.bins, dtype=torch.float64, device=scores.device) * grid.width
        self.sigmoid = torch.sigmoid(offset / tau)
        self.sigmoid_slope = self.sigmoid * (1 - self.sigmoid) / tau
        self.weight, self.negative_weight = positive[:, None], ratio * negative[:, None]
        self.weighted = self.weight * scores
        self.positives = self.weighted.sum(dim=0)
        self.negatives = (self.negative_weight * scores).sum(dim=0)
        # Minus sigma(0). Not clamped at 0: a pair is shared by two grid points, where its own term is a little below
        # and a little above sigma(0), and the two errors cancel.
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
        """Derivative of the mean AP with respect to the score of one pair of each class, (classes, bins).

        A pair's score enters through the ranks of all positives, by which it passes them; a positive's also through
        its own rank. What a pair would do to itself cancels between the two.
        """
        as_positive = -_correlate((self.weighted * self.ap_by_r_p).sum(dim=0), self.sigmoid_slope)
        as_negative = -_correlate((self.weighted * self.ap_by_r_n).sum(dim=0), self.sigmoid_slope)
        own = self.ap_by_r_p * _correlate(self.positives, self.sigmoid_slope)
        own = own + self.ap_by_r_n * _correlate(self.negatives, self.sigmoid_slope)
        slopes = self.weight * (as_positive + own) + self.negative_weight * as_negative
        return -slopes / self.total_weight


def product_type(factor: Tensor) -> torch.dtype:
    """The type in which products are formed: half precision on a GPU, whose units sum them in float32; else wide."""
    return factor.dtype if factor.is_cuda else wide_type(factor)


def multiply(a: Tensor, b: Tensor, add_to: Tensor | None = None) -> Tensor:
    """a @ b, in float32 at least whatever the type of the factors; or that added to a tensor in place."""
    kind = product_type(a)
    if kind != wide_type(a):
        product = torch.mm(a, b, out_dtype=torch.float32)
        return product if add_to is None else add_to.add_(product)
    a, b = a.to(kind), b.to(kind)
    return a @ b if add_to is None else add_to.addmm_(a, b)


def _correlate(histogram: Tensor, kernel: Tensor) -> Tensor:
    """sum_b histogram[b] kernel(x_b - x_k) at all grid points k, by FFT; ``kernel`` holds offsets -(B-1) .. B-1."""
    bins = len(histogram)
    size = 1 << (3 * bins).bit_length()
    spectrum = torch.fft.rfft(histogram, size) * torch.fft.rfft(kernel.flip(0), size)
    return torch.fft.irfft(spectrum, size)[bins - 1 : 2 * bins - 1]
