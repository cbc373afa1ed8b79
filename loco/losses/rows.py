"""Smooth AP within rows of the pair matrix: one histogram, and one set of tables, for each row.

The tables are those of :mod:`loco.losses.exact`, but there are thousands of them. The grids are therefore coarse, and
a score is distributed over the four nodes around it with the weights of cubic Lagrange interpolation, in which the
cubic power is replaced by lower powers (Chebyshev economisation). For each cell, the sums of the powers 0 to 2 of the
positions of its scores within the cell (the fractions) are accumulated, from which the weights of the nodes follow.
Tables span the scores of the positives, where AP is evaluated, and the unsaturated nodes around them.

A *kind* is a set of classes of pairs with equal weights (:mod:`loco.losses.per_query`).
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from loco.losses.histograms import MARGIN

NODES_PER_TAU = 7
SATURATED = 24  # difference of scores, in tau, beyond which sigma differs from 0 or 1 by less than 4e-11
_BAND = SATURATED * NODES_PER_TAU
_PART = 128  # nodes whose ranks are computed at once

# Weights of the nodes -1, 0, 1, 2 (rows), as coefficients of the powers 0, 1, 2, 3 of the fraction (columns), times 6.
_LAGRANGE = [[0, -2, 3, -1], [6, -3, -6, 3], [0, 6, 3, -3], [0, -1, 0, 1]]
# The power 3 as coefficients of the powers 0, 1, 2: their sum differs from it by at most 1/32 within the cell.
_CHEBYSHEV = [1 / 32, -9 / 16, 3 / 2]


class RowGrid:
    """A uniform grid of scores, common to all rows, for a temperature."""

    def __init__(self, tau: float, like: Tensor) -> None:
        """Create the grid with the dtype and device of ``like``."""
        self.width = tau / NODES_PER_TAU
        self.first = -MARGIN - self.width
        self.nodes = int(2 * MARGIN / self.width) + 4
        lagrange = torch.tensor(_LAGRANGE, dtype=torch.float64) / 6
        self.weights = (lagrange[:, :3] + lagrange[:, 3:] * torch.tensor(_CHEBYSHEV)).to(like)  # (nodes, powers)
        node = torch.arange(-_BAND, _PART + _BAND, dtype=torch.float64, device=like.device)
        sigmoid = torch.sigmoid((node[:, None] - node[_BAND : _BAND + _PART]) / NODES_PER_TAU)
        self.sigmoid, self.slope = sigmoid.to(like), (sigmoid * (1 - sigmoid) / tau).to(like)

    def spanning(self, lowest: float, highest: float) -> RowGrid:
        """Return the part of the grid for scores from ``lowest`` to ``highest``."""
        part = copy(self)
        below, above = (int((score - self.first) / self.width) for score in (lowest, highest))
        start, part.nodes = max(0, below - 1), min(self.nodes, above + 4) - max(0, below - 1)
        part.first = self.first + start * self.width
        return part

    def histograms(self, moments: Tensor) -> Tensor:
        """Return histograms on the nodes (..., nodes).

        Args:
            moments: sums of the powers 0 to 2 of the fractions of each cell, (3, ..., nodes).
        """
        before, here, after, beyond = torch.tensordot(self.weights, moments, dims=1)
        here[..., :-1] += before[..., 1:]
        here[..., 1:] += after[..., :-1]
        here[..., 2:] += beyond[..., :-2]
        return here

    def polynomials(self, values: Tensor) -> Tensor:
        """Return the coefficients of the powers 0 to 2 of the fraction in each cell, (3, ..., nodes), which interpolate
        ``values`` (..., nodes).
        """
        padded = pad(values, (1, 2))
        around = torch.stack([padded[..., k : k + values.shape[-1]] for k in range(4)])
        return torch.tensordot(self.weights.T, around, dims=1)


class Window(NamedTuple):
    """The nodes from ``low`` to ``high`` of a grid, which contain all positives of some rows."""

    grid: RowGrid
    low: int
    high: int

    @classmethod
    def of(cls, grid: RowGrid, positives: Tensor) -> Window:
        """Return the window of histograms (..., nodes)."""
        filled = torch.nonzero((positives != 0).flatten(0, -2).any(dim=0))
        return cls(grid, int(filled[0]), int(filled[-1]) + 1) if len(filled) else cls(grid, 0, 1)

    @property
    def inside(self) -> slice:
        return slice(self.low, self.high)

    def ranks(self, histograms: Tensor) -> Tensor:
        """Return sum_b histogram[b] sigma(x_b - x_k) at the nodes k of the window, from histograms (..., nodes)."""
        out = self._correlate(histograms, self.grid.sigmoid)
        for part, near, _ in self._parts():
            out[..., part] += histograms[..., near.stop :].sum(dim=-1, keepdim=True)  # where sigma is 1
        return out

    def rank_slopes(self, histograms: Tensor) -> Tensor:
        """Return the sums of :meth:`ranks` with the derivative of sigma in place of sigma."""
        return self._correlate(histograms, self.grid.slope)

    def _correlate(self, histograms: Tensor, kernel: Tensor) -> Tensor:
        """Return sum_b histogram[b] kernel(x_b - x_k) at the nodes k of the window, over the unsaturated nodes b."""
        out = histograms.new_empty(*histograms.shape[:-1], self.high - self.low)
        for part, near, of_part in self._parts():
            out[..., part] = histograms[..., near] @ kernel[of_part]
        return out

    def passing_slopes(self, within: Tensor) -> Tensor:
        """Return sum_k value[k] sigma'(x_b - x_k) at the nodes b of the grid, from values in the window."""
        out = within.new_zeros(*within.shape[:-1], self.grid.nodes)
        for part, near, of_part in self._parts():
            out[..., near] += within[..., part] @ self.grid.slope[of_part].T
        return out

    def _parts(self) -> Iterator[tuple[slice, slice, tuple[slice, slice]]]:
        """Yield parts of the window, the nodes that are not saturated for each, and their part of the kernels."""
        for start in range(self.low, self.high, _PART):
            stop, below = min(start + _PART, self.high), start - _BAND
            near = slice(max(0, below), min(self.grid.nodes, stop + _BAND))
            of_part = slice(near.start - below, near.stop - below), slice(stop - start)
            yield slice(start - self.low, stop - self.low), near, of_part


class RowTables:
    """Mean AP of the positives of each row, and its derivatives as functions of the score, at one scale."""

    def __init__(self, window: Window, histograms: Tensor, positive: Tensor, negative: Tensor, ratio: float) -> None:
        """
        Args:
            window: window of all positives.
            histograms: histograms of the scores of each kind of pairs, (r, kinds, nodes).
            positive, negative: weights of the pairs of each kind, (kinds,).
            ratio: factor c of the negatives.

        Attributes:
            ap: mean AP of the positives of each row, weighted, (r,); 0 without positives.
        """
        self.window, self.positive, self.negative = window, positive, ratio * negative
        self.histograms = histograms[..., window.inside]
        self.summed = torch.stack([positive @ histograms, self.negative @ histograms])
        self.r_p, self.r_n = window.ranks(self.summed)
        self.weights = [float(weight) for weight in positive.unique() if weight > 0]
        total = self.summed[0].sum(dim=-1)
        self.row_scale = torch.where(total > 0, 1 / total, 0.0)[:, None]
        self.ap = sum((positives * ap).sum(dim=-1) for positives, ap, *_ in self._by_weight()) * self.row_scale[:, 0]

    def slopes(self) -> Tensor:
        """Return the derivative of a row's mean AP with respect to the score of a pair of each kind, (r, kinds, nodes).

        The score of a pair affects the ranks of all positives; the score of a positive also affects its own rank.
        """
        slope_p, slope_n = self.window.rank_slopes(self.summed)
        by_r_p = by_r_n = torch.zeros_like(self.r_p)
        as_ranked = torch.zeros_like(self.histograms)
        for weight, (positives, _, ap_by_r_p, ap_by_r_n) in zip(self.weights, self._by_weight()):
            by_r_p, by_r_n = by_r_p + positives * ap_by_r_p, by_r_n + positives * ap_by_r_n
            as_ranked[:, self.positive == weight] = weight * (ap_by_r_p * slope_p + ap_by_r_n * slope_n)[:, None]
        as_positive, as_negative = self.window.passing_slopes(torch.stack([by_r_p, by_r_n]))[:, :, None]
        slopes = self.positive[:, None] * as_positive + self.negative[:, None] * as_negative
        slopes[..., self.window.inside] -= as_ranked
        return slopes.mul_(self.row_scale[:, None])

    def _by_weight(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield, for the positives of each weight, the weighted histogram, the AP, and the derivatives of the AP with
        respect to R_P and R_N, (r, nodes of the window) each.
        """
        for weight in self.weights:
            positives = weight * self.histograms[:, self.positive == weight].sum(dim=1)
            above = 1 + self.r_p - 0.5 * weight  # a pair is not compared with itself
            total = above + self.r_n
            yield positives, above / total, self.r_n / total**2, -above / total**2
