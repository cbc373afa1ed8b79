"""Smooth AP within rows of the pair matrix: one histogram, and one set of tables, for each row.

As the tables of :mod:`loco.losses.exact`, but thousands of them, so grids are coarse and interpolation is cubic: a
score between two nodes is shared out among the four around it, by the polynomial through them (Lagrange). What is
gathered of the scores in a cell is the sums of the powers 0 to 3 of their fractions, from which the shares follow.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loco.losses.histograms import MARGIN

NODES_PER_TAU = 8
SATURATED = 24  # in tau: sigma differs from 0 or 1 by less than 4e-11 beyond
_WHOLE, _PART = 640, 256  # nodes: of grids whose sigmoid is one matrix, and of the parts of others

# Share of the nodes -1, 0, 1, 2 (rows), by the powers 0, 1, 2, 3 of the fraction (columns), times 6.
_LAGRANGE = [[0, -2, 3, -1], [6, -3, -6, 3], [0, 6, 3, -3], [0, -1, 0, 1]]


class RowGrid:
    """An even grid of scores for every row, at a temperature."""

    def __init__(self, tau: float, like: Tensor) -> None:
        """``like``: a tensor of the type and the device of all others."""
        self.width = tau / NODES_PER_TAU
        self.first = -MARGIN - self.width
        self.nodes = int(2 * MARGIN / self.width) + 4
        self.lagrange = like.new_tensor(_LAGRANGE) / 6
        self.band = min(SATURATED * NODES_PER_TAU, self.nodes)
        self.part = self.nodes if self.nodes <= _WHOLE else _PART
        offset = torch.arange(-self.band, self.part + self.band, dtype=torch.float64, device=like.device)
        offset = (offset[:, None] - torch.arange(self.part, device=like.device)) / NODES_PER_TAU
        sigmoid = torch.sigmoid(offset)
        self.sigmoid, self.slope = sigmoid.to(like), (sigmoid * (1 - sigmoid) / tau).to(like)

    def histograms(self, moments: Tensor) -> Tensor:
        """Histograms on the nodes (..., nodes), from the sums of the powers of the fractions (4, ..., nodes)."""
        before, here, after, beyond = torch.tensordot(self.lagrange, moments, dims=1)
        here[..., :-1] += before[..., 1:]
        here[..., 1:] += after[..., :-1]
        here[..., 2:] += beyond[..., :-2]
        return here

    def polynomials(self, values: Tensor) -> Tensor:
        """Coefficients (4, ..., nodes) of the powers of the fraction in each cell, from values (..., nodes)."""
        padded = torch.nn.functional.pad(values, (1, 2))
        around = torch.stack([padded[..., k : k + self.nodes] for k in range(4)])
        return torch.tensordot(self.lagrange.T, around, dims=1)

    def ranks(self, histograms: Tensor) -> Tensor:
        """sum_b histogram[b] sigma(x_b - x_k) at all nodes k, (..., nodes)."""
        return self._correlate(histograms, self.sigmoid, above=1.0)

    def rank_slopes(self, histograms: Tensor) -> Tensor:
        """The same with the derivative of sigma."""
        return self._correlate(histograms, self.slope, above=0.0)

    def _correlate(self, histograms: Tensor, kernel: Tensor, above: float) -> Tensor:
        """``kernel`` holds its values for the nodes of a part and those within ``band``; ``above`` is that beyond."""
        out = torch.empty_like(histograms)
        for start in range(0, self.nodes, self.part):
            end = min(start + self.part, self.nodes)
            low, high = max(0, start - self.band), min(self.nodes, end + self.band)
            near = kernel[low - start + self.band : high - start + self.band, : end - start]
            out[..., start:end] = histograms[..., low:high] @ near
            if above and high < self.nodes:
                out[..., start:end] += above * histograms[..., high:].sum(dim=-1, keepdim=True)
        return out


class RowTables:
    """Mean AP of the positives of each row, and its derivatives as functions of the score, at one scale."""

    def __init__(self, grid: RowGrid, histograms: Tensor, positive: Tensor, negative: Tensor, ratio: float) -> None:
        """
        Args:
            histograms: of the scores of each class, (r, classes, nodes).
            positive, negative: weights of the pairs of each class, (classes,).
            ratio: factor of the negatives.
        """
        self.grid, self.positive, self.negative = grid, positive, ratio * negative
        self.histograms = histograms
        self.pairs = torch.stack([positive @ histograms, self.negative @ histograms])  # of either kind (2, r, nodes)
        self.r_p, self.r_n = grid.ranks(self.pairs)
        self.weights = [float(weight) for weight in positive.unique() if weight > 0]
        total = self.pairs[0].sum(dim=-1)
        self.share = torch.where(total > 0, 1 / total, 0.0)[:, None]
        self.ap = sum((own * ap).sum(dim=-1) for own, ap, *_ in self._by_weight()) * self.share[:, 0]

    def slopes(self) -> Tensor:
        """Derivative of a row's mean AP with respect to the score of one of its pairs of each class."""
        slope_p, slope_n = self.grid.rank_slopes(self.pairs)
        by_r_p = by_r_n = 0.0
        own_slopes = torch.zeros_like(self.histograms)
        for weight, (own, _, ap_by_r_p, ap_by_r_n) in zip(self.weights, self._by_weight()):
            by_r_p, by_r_n = by_r_p + own * ap_by_r_p, by_r_n + own * ap_by_r_n
            own_slopes[:, self.positive == weight] = weight * (ap_by_r_p * slope_p + ap_by_r_n * slope_n)[:, None]
        as_positive, as_negative = self.grid.rank_slopes(torch.stack([by_r_p, by_r_n]))
        passing = self.positive[:, None] * as_positive[:, None] + self.negative[:, None] * as_negative[:, None]
        return (passing - own_slopes) * self.share[:, None]

    def _by_weight(self):
        """For the positives of each weight: their weighted histogram, AP, and its derivatives by R_P and R_N."""
        for weight in self.weights:
            own = weight * self.histograms[:, self.positive == weight].sum(dim=1)
            above = 1 + self.r_p - 0.5 * weight  # a pair does not compete with itself
            total = above + self.r_n
            yield own, above / total, self.r_n / total**2, -above / total**2
