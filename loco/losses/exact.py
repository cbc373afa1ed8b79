"""The ranking loss over all pairs, exact to rounding, in memory linear in the number of patches.

The loss sees a pair only through the number s = f_i . f_j and its class. So

1. a walk over tiles of the similarity matrix, which is never stored, gathers the positives and the negatives in two
   histograms of s with linear binning;
2. on the grid of the histograms, R_P and R_N are correlations of a histogram with the sigmoid, and AP, the loss, and
   its derivative with respect to the score of a positive and of a negative pair are tables over s;
3. the backward walk forms the tiles again, looks the derivatives up by linear interpolation, and multiplies them back
   into the features.

The cost is three products of n x n x d, as in attention. Linear binning leaves an error of second order in
(width of a bin / tau), held small by :data:`BINS_PER_TAU`. Patches are sorted in space, so that tiles farther apart
than kappa, which hold "don't care" pairs alone, are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from loco.losses.pairs import Patches, RankingLoss, nothing_to_rank

BINS_PER_TAU = 80
_MARGIN = 1.01  # similarities of unit rows in finite precision lie within [-_MARGIN, _MARGIN]


class ExactSmoothAP(RankingLoss):
    """Smooth AP over all pairs of a batch, in two walks over tiles.

    The points are compared in float32, features in their own precision; the tables are float64.
    """

    def __init__(self, rho: float, kappa: float, tau: float, tile: int = 512) -> None:
        """``tile`` is the number of patches along the side of a tile."""
        super().__init__(rho, kappa, tau)
        self.tile = tile

    def loss(self, patches: Patches) -> tuple[Tensor, dict[str, float]]:
        order, tiles = _sort_into_tiles(patches.points, patches.scene_ids, self.kappa, self.tile)
        walk = _Walk(patches.points[order].float(), patches.image_ids[order], tiles, self.rho, self.kappa)
        mean_ap, counts = _MeanAP.apply(patches.features[order], walk, self.tau)
        positives, negatives = (int(count) for count in counts)
        if not positives:
            return nothing_to_rank(patches.features, negatives)
        return 1 - mean_ap, {"positives": positives, "negatives": negatives, "mean_ap": mean_ap.item()}


class Tile(NamedTuple):
    """Patches ``start`` to ``stop`` of one scene, and the box around them."""

    start: int
    stop: int
    scene: int
    low: Tensor
    high: Tensor


class Block(NamedTuple):
    """A block of the pair matrix: rows i, columns j, and which of its pairs are positive and negative."""

    i: slice
    j: slice
    positive: Tensor
    negative: Tensor


class _Walk:
    """The blocks of the pair matrix that hold any pair: each unordered pair once."""

    def __init__(self, points: Tensor, image_ids: Tensor, tiles: list[Tile], rho: float, kappa: float) -> None:
        self.points, self.image_ids, self.tiles, self.rho, self.kappa = points, image_ids, tiles, rho, kappa

    def __iter__(self) -> Iterator[Block]:
        for a, first in enumerate(self.tiles):
            for second in self.tiles[a:]:
                if first.scene == second.scene and self._gap(first, second) <= self.kappa:
                    yield self._block(first, second)

    @staticmethod
    def _gap(a: Tile, b: Tile) -> float:
        return float(torch.clamp(torch.maximum(a.low - b.high, b.low - a.high), min=0).norm())

    def _block(self, first: Tile, second: Tile) -> Block:
        i, j = slice(first.start, first.stop), slice(second.start, second.stop)
        # Coordinate differences, not the expanded square: points lie tens of metres from the origin, and the radii
        # decide at centimetres.
        squared = sum((self.points[i, None, axis] - self.points[None, j, axis]).square_() for axis in range(3))
        within = squared <= self.kappa**2
        if first is second:
            within = within.triu_(1)
        near = squared <= self.rho**2
        across = self.image_ids[i, None] != self.image_ids[None, j]
        return Block(i, j, within & near & across, within & ~near)


class _MeanAP(torch.autograd.Function):
    """Mean smooth AP of the positive pairs; its gradient by a second walk."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, walk: _Walk, tau: float) -> tuple[Tensor, Tensor]:
        grid = Grid.for_tau(tau)
        positives = torch.zeros(grid.bins, dtype=torch.float64, device=features.device)
        negatives = torch.zeros_like(positives)
        for block in walk:
            similarity = features[block.i] @ features[block.j].T
            positives += grid.histogram(similarity[block.positive])
            negatives += grid.histogram(similarity[block.negative])
        tables = Tables(positives, negatives, grid, tau)
        ctx.save_for_backward(features)
        ctx.walk, ctx.grid, ctx.tables = walk, grid, tables
        counts = torch.stack([positives.sum(), negatives.sum()]).round().long()
        ctx.mark_non_differentiable(counts)
        return tables.mean_ap.to(features.dtype), counts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        (features,) = ctx.saved_tensors
        slope_p, slope_n = (slope.to(features.dtype) for slope in ctx.tables.slopes())
        out = torch.zeros_like(features)
        for block in ctx.walk:
            f_i, f_j = features[block.i], features[block.j]
            similarity = f_i @ f_j.T
            weight = torch.zeros_like(similarity)
            weight[block.positive] = ctx.grid.interpolate(slope_p, similarity[block.positive])
            weight[block.negative] = ctx.grid.interpolate(slope_n, similarity[block.negative])
            out[block.i] += weight @ f_j
            out[block.j] += weight.T @ f_i
        return grad * out, None, None


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
        """Index of the grid point below, and the way to the next one in [0, 1]."""
        position = ((similarity + _MARGIN) / self.width).clamp_(0, self.bins - 1)
        below = position.long().clamp_(max=self.bins - 2)
        return below, position - below

    def histogram(self, similarity: Tensor) -> Tensor:
        """Histogram with linear binning, (bins,) float64: each value is shared by the two grid points around it."""
        below, fraction = self.locate(similarity)
        count = torch.bincount(below, minlength=self.bins).double()
        passed_on = torch.bincount(below, weights=fraction, minlength=self.bins).double()
        histogram = count - passed_on
        histogram[1:] += passed_on[:-1]
        return histogram

    def interpolate(self, table: Tensor, similarity: Tensor) -> Tensor:
        """Values of ``table`` (bins,) at similarities, by linear interpolation."""
        below, fraction = self.locate(similarity)
        return torch.lerp(table[below], table[below + 1], fraction)


class Tables:
    """AP and its derivatives as functions of the score, on a grid, from the histograms of the pairs (float64)."""

    def __init__(self, positives: Tensor, negatives: Tensor, grid: Grid, tau: float) -> None:
        self.positives, self.count = positives, positives.sum().clamp(min=1)
        offset = torch.arange(-(grid.bins - 1), grid.bins, dtype=torch.float64, device=positives.device) * grid.width
        self.sigmoid = torch.sigmoid(offset / tau)
        self.sigmoid_slope = self.sigmoid * (1 - self.sigmoid) / tau
        self.negatives = negatives
        # A pair does not compete with itself: minus sigma(0). Not clamped at 0: a pair is shared by two grid points,
        # where its own term is a little below and a little above sigma(0), and the two errors cancel.
        self.r_p = _correlate(positives, self.sigmoid) - 0.5
        self.r_n = _correlate(negatives, self.sigmoid)
        total = 1 + self.r_p + self.r_n
        self.ap = (1 + self.r_p) / total
        self.ap_by_r_p = self.r_n / total**2
        self.ap_by_r_n = -(1 + self.r_p) / total**2
        self.mean_ap = (positives * self.ap).sum() / self.count

    def slopes(self) -> tuple[Tensor, Tensor]:
        """Derivative of the mean AP with respect to the score of one positive, and of one negative pair, (bins,) each.

        A pair's score enters through the ranks of all positives, by which it passes them; a positive's also through
        its own rank. What a pair would do to itself cancels between the two.
        """
        as_rival_p = -_correlate(self.positives * self.ap_by_r_p, self.sigmoid_slope)
        as_rival_n = -_correlate(self.positives * self.ap_by_r_n, self.sigmoid_slope)
        own = self.ap_by_r_p * _correlate(self.positives, self.sigmoid_slope)
        own += self.ap_by_r_n * _correlate(self.negatives, self.sigmoid_slope)
        return -(as_rival_p + own) / self.count, -as_rival_n / self.count


def _correlate(histogram: Tensor, kernel: Tensor) -> Tensor:
    """sum_b histogram[b] kernel(x_b - x_k) at all grid points k, by FFT; ``kernel`` holds offsets -(B-1) .. B-1."""
    bins = len(histogram)
    size = 1 << (3 * bins).bit_length()
    spectrum = torch.fft.rfft(histogram, size) * torch.fft.rfft(kernel.flip(0), size)
    return torch.fft.irfft(spectrum, size)[bins - 1 : 2 * bins - 1]


def _sort_into_tiles(points: Tensor, scene_ids: Tensor, kappa: float, tile: int) -> tuple[Tensor, list[Tile]]:
    """An order of the patches in which neighbours in space are near each other, and its tiles, one scene each."""
    cells = ((points - points.amin(dim=0)) / (kappa / 2)).long() if len(points) else points.long()
    order = torch.argsort(_morton(cells), stable=True)
    order = order[torch.argsort(scene_ids[order], stable=True)]
    sorted_points, sorted_scenes = points[order].float().cpu(), scene_ids[order].cpu()
    tiles = []
    scenes, counts = torch.unique_consecutive(sorted_scenes, return_counts=True)
    start = 0
    for scene, count in zip(scenes.tolist(), counts.tolist()):
        for begin in range(start, start + count, tile):
            end = min(begin + tile, start + count)
            box = sorted_points[begin:end]
            tiles.append(Tile(begin, end, scene, box.amin(dim=0), box.amax(dim=0)))
        start += count
    return order, tiles


def _morton(cells: Tensor) -> Tensor:
    """Morton codes of cells (m, 3): the bits of the three coordinates in turn."""
    code = torch.zeros(len(cells), dtype=torch.int64, device=cells.device)
    for bit in range(20):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code
