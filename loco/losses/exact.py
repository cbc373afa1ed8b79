"""The ranking loss over all pairs, exact to rounding, in memory linear in the number of patches.

The loss sees a pair only through the number s = f_i . f_j and its class. So

1. a walk over tiles of the similarity matrix, which is never stored, gathers the pairs of each class in a histogram of
   s with linear binning;
2. on the grid of the histograms, R_P and R_N are correlations of a histogram with the sigmoid, and AP, the loss, and
   its derivative with respect to the score of a pair of each class are tables over s;
3. the backward walk forms the tiles again, looks the derivatives up by linear interpolation, and multiplies them back
   into the features.

The cost is three products of n x n x d, as in attention. Linear binning leaves an error of second order in
(width of a bin / tau), held small by :data:`BINS_PER_TAU`. Tiles hold patches near each other, so that a pair of tiles
farther apart than kappa, whose pairs take no part, is skipped, and of most others the boxes around them tell the class.
Several scales differ in the tables alone: they share both walks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from loco.losses.pairs import Patches, RankingLoss, Scale, mean_of_scales, nothing_to_rank, select

BINS_PER_TAU = 80
_MARGIN = 1.01  # similarities of unit rows in finite precision lie within [-_MARGIN, _MARGIN]


class ExactSmoothAP(RankingLoss):
    """Smooth AP over all pairs of a batch, in two walks over tiles.

    Points are compared and features multiplied in their own precision, float32 at least; the tables are float64.
    """

    takes_several_scales = True

    def __init__(
        self,
        rho: float | Sequence[float],
        kappa: float | Sequence[float],
        tau: float,
        tile: int = 512,
        same_image: float = 0.0,
        ratio: float = 1.0,
    ) -> None:
        """``tile`` is the number of patches along the side of a tile; the rest as in :class:`RankingLoss`."""
        super().__init__(rho, kappa, tau, same_image, ratio)
        self.tile = tile

    def loss(self, patches: Patches) -> tuple[Tensor, dict[str, float]]:
        mean_ap, positives, negatives = _MeanAP.apply(patches.features, self._walk(patches), self.tau, self.ratio)
        if not positives.any():
            return nothing_to_rank(patches.features, int(negatives.sum()))
        return mean_of_scales(self.scales, mean_ap, positives, negatives)

    @torch.no_grad()
    def patch_precision(
        self,
        features: Tensor,
        points: Tensor,
        scene_ids: Tensor | None = None,
        valid: Tensor | None = None,
        image_ids: Tensor | None = None,
    ) -> Tensor:
        """Mean AP over the positive pairs of each patch, of all scales: how well a place is recognised.

        Arguments as of a call. Returns (n,), NaN for a patch without a positive pair.
        """
        with torch.autocast(features.device.type, enabled=False):
            patches = select(features, points, scene_ids, valid, image_ids)
            walk = self._walk(patches)
            sorted_features = patches.features[walk.order]
            grid = Grid.for_tau(self.tau)
            tables = walk.tables(sorted_features, grid, self.tau, self.ratio)
            ap = Lookup(grid, sum(table.weighted_ap for table in tables), sorted_features.dtype)
            weight = Lookup(grid, sum(table.weight.expand_as(table.ap) for table in tables), sorted_features.dtype)
            sums = sorted_features.new_zeros(2, len(sorted_features))
            for block in walk.blocks(max(scale.rho for scale in self.scales)):
                below, fraction = grid.locate(sorted_features[block.i] @ sorted_features[block.j].T)
                index = below.add_(block.classes, alpha=grid.bins)
                for total, values in zip(sums, (ap(index, fraction), weight(index, fraction))):
                    total[block.i] += values.sum(dim=1)
                    total[block.j] += values.sum(dim=0)
        precision = torch.empty_like(sums[0])
        precision[walk.order] = sums[0] / sums[1]
        if valid is None:
            return precision
        return precision.new_full((len(features),), float("nan")).masked_scatter_(valid.bool(), precision)

    def _walk(self, patches: Patches) -> Walk:
        return Walk(patches, Classes(self.scales, self.same_image), self.tile)


class Classes:
    """The classes of pairs, and what each is to each of K scales.

    The class of a pair is the number of radii, of all scales, below its distance. For two patches of one image it is
    that plus :attr:`across`, the number of classes across images.
    """

    def __init__(self, scales: list[Scale], same_image: float) -> None:
        self.radii = sorted({radius for scale in scales for radius in scale})
        self.across = len(self.radii) + 1
        self.number = 2 * self.across
        self.image_matters_within = max(scale.rho for scale in scales) if same_image != 1 else 0.0
        upto = torch.tensor([*self.radii, torch.inf], dtype=torch.float64)
        rho, kappa = torch.tensor(scales, dtype=torch.float64).T[:, :, None]
        positive, negative = (upto <= rho).double(), ((upto > rho) & (upto <= kappa)).double()
        self.positive = torch.cat([positive, same_image * positive], dim=1)  # weights, (K, number)
        self.negative = torch.cat([negative, negative], dim=1)


class Block(NamedTuple):
    """A block of the pair matrix: rows i, columns j, and the class of all of its pairs or of each, int32."""

    i: slice
    j: slice
    classes: int | Tensor


class Walk:
    """The blocks of the pair matrix that hold any pair: each unordered pair once."""

    def __init__(self, patches: Patches, classes: Classes, tile: int) -> None:
        self.classes = classes
        points = patches.points.detach()
        points = points if points.dtype == torch.float64 else points.float()
        host_points, host_scenes = points.cpu().double().numpy(), patches.scene_ids.cpu().numpy()
        tiles = list(_tiles(host_points, host_scenes, tile))
        order = np.concatenate([np.empty(0, np.int64), *tiles])
        self.order = torch.from_numpy(order).to(points.device)
        self.points, self.image_ids = points[self.order].T.contiguous(), patches.image_ids[self.order]
        ends = np.cumsum([0, *map(len, tiles)])
        self.slices = [slice(*ends[k : k + 2].tolist()) for k in range(len(tiles))]
        self.scenes = np.array([host_scenes[rows[0]] for rows in tiles])
        self.low = np.array([host_points[rows].min(axis=0) for rows in tiles])
        self.high = np.array([host_points[rows].max(axis=0) for rows in tiles])
        self.before = torch.ones(tile, tile, dtype=torch.bool, device=points.device).tril_()

    def blocks(self, reach: float) -> Iterator[Block]:
        """The blocks that hold pairs up to a distance of ``reach``."""
        for a in range(len(self.slices)):
            low, high, scenes = self.low[a:], self.high[a:], self.scenes[a:]
            nearest = np.linalg.norm(np.maximum(0, np.maximum(low[0] - high, low - high[0])), axis=1)
            farthest = np.linalg.norm(np.maximum(high - low[0], high[0] - low), axis=1)
            for k in np.flatnonzero((scenes == scenes[0]) & (nearest <= reach)):
                i, j = self.slices[a], self.slices[a + k]
                yield Block(i, j, self._classes(i, j, float(nearest[k]), float(farthest[k])))

    def _classes(self, i: slice, j: slice, nearest: float, farthest: float) -> int | Tensor:
        radii = self.classes.radii
        passed = sum(radius < nearest for radius in radii)
        open_radii = [radius for radius in radii if nearest <= radius < farthest]
        tell_images = nearest <= self.classes.image_matters_within
        if not open_radii and not tell_images and i != j:
            return passed
        classes = torch.full((i.stop - i.start, j.stop - j.start), passed, dtype=torch.int32, device=self.points.device)
        if open_radii:
            # Coordinate differences, not the expanded square: points lie tens of metres from the origin, and the radii
            # decide at centimetres.
            x, y, z = (axis[i, None] - axis[None, j] for axis in self.points)
            squared = x.square_().addcmul_(y, y).addcmul_(z, z)
            for radius in open_radii:
                classes += squared > radius**2
        if tell_images:
            classes.add_(self.image_ids[i, None] == self.image_ids[None, j], alpha=self.classes.across)
        if i == j:  # a pair of one tile counts once, and no patch is its own pair
            classes.masked_fill_(self.before[: len(classes), : len(classes)], len(radii))
        return classes

    def tables(self, features: Tensor, grid: Grid, tau: float, ratio: float) -> list[Tables]:
        """The first walk: the tables of each scale, for features in the order of the walk."""
        shape = (self.classes.number, grid.bins)
        counts = torch.zeros(shape, dtype=torch.float64, device=features.device)
        passed_on = torch.zeros_like(counts)
        for block in self.blocks(self.classes.radii[-1]):
            below, fraction = grid.locate(features[block.i] @ features[block.j].T)
            index = below.add_(block.classes, alpha=grid.bins).view(-1)
            for total, weights in ((counts, None), (passed_on, fraction.view(-1))):
                part = torch.bincount(index, weights)
                total.view(-1)[: len(part)] += part
        # Each value is shared by the two grid points around it.
        histograms = counts - passed_on
        histograms[:, 1:] += passed_on[:, :-1]
        scales = zip(self.classes.positive.to(features.device), self.classes.negative.to(features.device))
        return [Tables(histograms, positive, negative, grid, tau, ratio) for positive, negative in scales]


class _MeanAP(torch.autograd.Function):
    """Mean smooth AP of the positive pairs at each scale, and the numbers of pairs; the gradient by a second walk."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, walk: Walk, tau: float, ratio: float) -> tuple[Tensor, Tensor, Tensor]:
        features, grid = features[walk.order], Grid.for_tau(tau)
        tables = walk.tables(features, grid, tau, ratio)
        ctx.save_for_backward(features)
        ctx.walk, ctx.grid, ctx.tables = walk, grid, tables
        mean_ap = torch.stack([table.mean_ap for table in tables]).to(features.dtype)
        positives, negatives = torch.stack([table.pairs for table in tables], dim=1)
        ctx.mark_non_differentiable(positives, negatives)
        return mean_ap, positives, negatives

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None, None, None]:
        (features,) = ctx.saved_tensors
        walk, grid = ctx.walk, ctx.grid
        out = torch.zeros_like(features)
        with torch.autocast(features.device.type, enabled=False):
            slopes = sum(g * table.slopes() for g, table in zip(grad.double(), ctx.tables))
            slope = Lookup(grid, slopes, features.dtype)
            for block in walk.blocks(walk.classes.radii[-1]):
                f_i, f_j = features[block.i], features[block.j]
                below, fraction = grid.locate(f_i @ f_j.T)
                weight = slope(below.add_(block.classes, alpha=grid.bins), fraction)
                out[block.i].addmm_(weight, f_j)
                out[block.j].addmm_(weight.T, f_i)
        gradient = torch.empty_like(out)
        gradient[walk.order] = out
        return gradient, None, None, None


class Grid(NamedTuple):
    """An even grid of similarities over [-_MARGIN, _MARGIN]."""

    bins: int

    @classmethod
    def for_tau(cls, tau: float) -> Grid:
        return cls(max(512, int(2 * _MARGIN * BINS_PER_TAU / tau) + 1))

    @property
    def width(self) -> float:
        return 2 * _MARGIN / (self.bins - 1)

    def locate(self, similarity: Tensor) -> tuple[Tensor, Tensor]:
        """Index of the grid point below, int32, and the way to the next one in [0, 1); ``similarity`` is used up."""
        position = similarity.add_(_MARGIN).mul_(1 / self.width).clamp_(0, self.bins - 1)
        return position.int(), position.frac_()


class Lookup:
    """Tables over the grid, one for each class (classes, bins), read by linear interpolation."""

    def __init__(self, grid: Grid, values: Tensor, dtype: torch.dtype) -> None:
        self.values = values.to(dtype).view(-1)
        self.steps = torch.zeros_like(self.values).view(-1, grid.bins)
        self.steps[:, :-1] = values.diff(dim=1)
        self.steps = self.steps.view(-1)

    def __call__(self, index: Tensor, fraction: Tensor) -> Tensor:
        """Values at ``index`` = class * bins + grid point below, and ``fraction`` of the way to the next."""
        flat = index.view(-1)
        found = self.values.index_select(0, flat).addcmul_(self.steps.index_select(0, flat), fraction.view(-1))
        return found.view(index.shape)


class Tables:
    """AP and its derivatives as functions of the score, on a grid, at one scale (float64).

    They differ between classes of positive pairs: a pair does not compete with itself, and so not with its own weight.
    """

    def __init__(
        self, histograms: Tensor, positive: Tensor, negative: Tensor, grid: Grid, tau: float, ratio: float
    ) -> None:
        """
        Args:
            histograms: of the scores of each class, (classes, bins).
            positive, negative: weights of the pairs of each class, (classes,).
            grid, tau, ratio: the grid, and the temperature and the factor of the negatives.
        """
        offset = torch.arange(-(grid.bins - 1), grid.bins, dtype=torch.float64, device=histograms.device) * grid.width
        self.sigmoid = torch.sigmoid(offset / tau)
        self.sigmoid_slope = self.sigmoid * (1 - self.sigmoid) / tau
        self.weight, self.negative_weight = positive[:, None], ratio * negative[:, None]
        self.weighted = self.weight * histograms
        self.positives = self.weighted.sum(dim=0)
        self.negatives = (self.negative_weight * histograms).sum(dim=0)
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
        of_class = histograms.sum(dim=1)
        self.pairs = torch.stack([of_class[positive > 0].sum(), of_class[negative > 0].sum()]).round().long()

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


def _correlate(histogram: Tensor, kernel: Tensor) -> Tensor:
    """sum_b histogram[b] kernel(x_b - x_k) at all grid points k, by FFT; ``kernel`` holds offsets -(B-1) .. B-1."""
    bins = len(histogram)
    size = 1 << (3 * bins).bit_length()
    spectrum = torch.fft.rfft(histogram, size) * torch.fft.rfft(kernel.flip(0), size)
    return torch.fft.irfft(spectrum, size)[bins - 1 : 2 * bins - 1]


def _tiles(points: np.ndarray, scene_ids: np.ndarray, tile: int) -> Iterator[np.ndarray]:
    """Rows of at most ``tile`` patches of one scene near each other."""
    for scene in np.unique(scene_ids):
        yield from _halves(points, np.flatnonzero(scene_ids == scene), tile)


def _halves(points: np.ndarray, rows: np.ndarray, tile: int) -> Iterator[np.ndarray]:
    """Cut across the longest side of the box, in parts of whole tiles, until a part is one tile."""
    if len(rows) <= tile:
        yield rows
        return
    axis = np.ptp(points[rows], axis=0).argmax()
    half = -(-len(rows) // tile) // 2 * tile
    order = np.argpartition(points[rows, axis], half)
    for part in (order[:half], order[half:]):
        yield from _halves(points, np.sort(rows[part]), tile)
