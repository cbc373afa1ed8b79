"""Bin the scores of pairs into histograms, and look up the values of pairs in tables over the score."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from loco.losses.tiles import Block, Tiling

BINS_PER_TAU = 80
SMALLEST_TAU = 1e-4  # a grid of 1.6 million points, 13 MB per table and class of pairs
MARGIN = 1.01  # rounded similarities of L2-normalised rows lie within [-MARGIN, MARGIN]


class Grid(NamedTuple):
    """A uniform grid of similarities over [-MARGIN, MARGIN]."""

    bins: int

    @classmethod
    def for_tau(cls, tau: float) -> Grid:
        """Return the grid for a temperature: at least :data:`BINS_PER_TAU` points per tau, and at least 512 points."""
        return cls(max(512, int(2 * MARGIN * BINS_PER_TAU / tau) + 1))

    @property
    def width(self) -> float:
        return 2 * MARGIN / (self.bins - 1)

    def locate(self, similarity: Tensor) -> tuple[Tensor, Tensor]:
        """Return the index of the grid point below each similarity, int32, and its position in the cell, in [0, 1).

        Overwrites ``similarity``.
        """
        position = similarity.add_(MARGIN).mul_(1 / self.width).clamp_(0, self.bins - 1)
        return position.int(), position.frac_()

    def bin_linearly(self, counts: Tensor, passed_on: Tensor) -> Tensor:
        """Return histograms with linear binning (classes, bins).

        Args:
            counts: number of pairs in the cell above each grid point, (classes, bins).
            passed_on: sum of the positions of these pairs in the cell, i.e. of the fractions that are counted at the
                next grid point, (classes, bins).
        """
        histograms = counts - passed_on
        histograms[:, 1:] += passed_on[:, :-1]
        return histograms


class Binning:
    """Histograms of the scores of each class of pairs, accumulated block by block."""

    def __init__(self, tiling: Tiling, grid: Grid, classes: int) -> None:
        self.tiling, self.grid = tiling, grid
        self.counts, self.passed_on = torch.zeros(
            (2, classes, grid.bins), dtype=torch.float64, device=tiling.points.device
        )

    def add(self, block: Block, similarity: Tensor) -> None:
        """Count the pairs of a block; overwrites ``similarity``."""
        below, fraction = self.grid.locate(similarity)
        index = below.add_(self.tiling.classes(block), alpha=self.grid.bins).view(-1)
        for total, weights in ((self.counts, None), (self.passed_on, fraction.view(-1))):
            part = torch.bincount(index, weights)
            total.view(-1)[: len(part)] += part

    def histograms(self) -> Tensor:
        """Return the histograms (classes, bins), float64."""
        return self.grid.bin_linearly(self.counts, self.passed_on)


class Lookup:
    """Tables over the grid, ``values`` (classes, bins), one per class of pairs, read by linear interpolation."""

    def __init__(self, tiling: Tiling, grid: Grid, values: Tensor, dtype: torch.dtype) -> None:
        self.tiling, self.grid = tiling, grid
        self.values = values.to(dtype).view(-1)
        self.steps = steps_of(values).to(dtype).view(-1)

    def read(self, block: Block, similarity: Tensor) -> Tensor:
        """Return the value of each pair of a block; overwrites ``similarity``."""
        below, fraction = self.grid.locate(similarity)
        index = below.add_(self.tiling.classes(block), alpha=self.grid.bins).view(-1)
        found = self.values.index_select(0, index).addcmul_(self.steps.index_select(0, index), fraction.view(-1))
        return found.view(similarity.shape)


def steps_of(values: Tensor) -> Tensor:
    """Return the differences between consecutive ``values`` (classes, bins); 0 for the last."""
    return torch.nn.functional.pad(values.diff(dim=1), (0, 1))
