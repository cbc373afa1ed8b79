"""Smooth AP within rows of the pair matrix: one histogram, and one set of tables, for each row.

As the tables of :mod:`loco.losses.exact`, but thousands of them. So grids are coarse, and interpolation is cubic: a
score is shared out among the four nodes around it, by the polynomial through them (Lagrange). What is gathered of the
scores in a cell is the sums of the powers 0 to 3 of their fractions, from which the shares follow. Tables span the
scores of the positives, where AP is evaluated, and the nodes around them that are not saturated.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from loco.losses.histograms import MARGIN

NODES_PER_TAU = 6
SATURATED = 24  # in tau: sigma differs from 0 or 1 by less than 4e-11 beyond
_BAND = SATURATED * NODES_PER_TAU
_PART = 256  # nodes at which ranks are computed at once

# Share of the nodes -1, 0, 1, 2 (rows), by the powers 0, 1, 2, 3 of the fraction (columns), times 6.
_LAGRANGE = [[0, -2, 3, -1], [6, -3, -6, 3], [0, 6, 3, -3], [0, -1, 0, 1]]


class RowGrid:
    """An even grid of scores, the same for every row, at a temperature."""

    def __init__(self, tau: float, like: Tensor) -> None:
        """``like``: a tensor of the type and the device of all others."""
        self.width = tau / NODES_PER_TAU
        self.first = -MARGIN - self.width
        self.nodes = int(2 * MARGIN / self.width) + 4
        self.lagrange = like.new_tensor(_LAGRANGE) / 6
        node = torch.arange(-_BAND, _PART + _BAND, dtype=torch.float64, device=like.device)
        sigmoid = torch.sigmoid((node[:, None] - node[_BAND : _BAND + _PART]) / NODES_PER_TAU)
        self.sigmoid, self.slope = sigmoid.to(like), (sigmoid * (1 - sigmoid) / tau).to(like)

    def spanning(self, lowest: float, highest: float) -> RowGrid:
        """The part of the grid for scores between these two."""
        part = copy(self)
        below, above = (int((score - self.first) / self.width) for score in (lowest, highest))
        start, part.nodes = max(0, below - 1), min(self.nodes, above + 4) - max(0, below - 1)
        part.first = self.first + start * self.width
        return part

    def histograms(self, moments: Tensor) -> Tensor:
        """Histograms on the nodes (..., nodes), from the sums of the powers of the fractions (4, ..., nodes)."""
        before, here, after, beyond = torch.tensordot(self.lagrange, moments, dims=1)
        here[..., :-1] += before[..., 1:]
        here[..., 1:] += after[..., :-1]
        here[..., 2:] += beyond[..., :-2]
        return here

    def polynomials(self, values: Tensor) -> Tensor:
        """Coefficients (4, ..., m) of the powers of the fraction in each cell, from values at m nodes (..., m)."""
        padded = pad(values, (1, 2))
        around = torch.stack([padded[..., k : k + values.shape[-1]] for k in range(4)])
        return torch.tensordot(self.lagrange.T, around, dims=1)


class Window(NamedTuple):
    """The nodes from ``low`` to ``high``, which hold all positives of some rows, and those around them.

    Around are ``_BAND`` more nodes at either end, of which the outer ones may lie beyond the grid.
    """

    grid: RowGrid
    low: int
    high: int

    @classmethod
    def of(cls, grid: RowGrid, positives: Tensor) -> Window:
        """The window of histograms (..., nodes)."""
        held = torch.nonzero((positives != 0).flatten(0, -2).any(dim=0))
        return cls(grid, int(held[0]), int(held[-1]) + 1) if len(held) else cls(grid, 0, 1)

    @property
    def inside(self) -> slice:
        """The nodes of the grid that the surroundings contain."""
        return slice(max(0, self.low - _BAND), min(self.grid.nodes, self.high + _BAND))

    @property
    def at(self) -> slice:
        """Those nodes, counted from the first of the surroundings."""
        shift = self.low - _BAND
        return slice(self.inside.start - shift, self.inside.stop - shift)

    def around(self, histograms: Tensor) -> Tensor:
        """Histograms of the surroundings, whose last node has all scores above."""
        beyond = (self.high + _BAND) - self.inside.stop
        out = pad(histograms[..., self.inside], (self.at.start, beyond))
        out[..., -1] += histograms[..., self.inside.stop :].sum(dim=-1)
        return out

    def ranks(self, around: Tensor) -> Tensor:
        """sum_b histogram[b] sigma(x_b - x_k) at the nodes k of the window, from the histogram of the surroundings."""
        out = self._correlate(around, self.grid.sigmoid)
        for own, near in self._parts():
            out[..., own] += around[..., near.stop :].sum(dim=-1, keepdim=True)  # where sigma is 1
        return out

    def rank_slopes(self, around: Tensor) -> Tensor:
        """The same with the derivative of sigma."""
        return self._correlate(around, self.grid.slope)

    def _correlate(self, around: Tensor, kernel: Tensor) -> Tensor:
        """The sums over the nodes that are not saturated."""
        out = around.new_empty(*around.shape[:-1], self.high - self.low)
        for own, near in self._parts():
            size = own.stop - own.start
            out[..., own] = around[..., near] @ kernel[: size + 2 * _BAND, :size]
        return out

    def passing_slopes(self, within: Tensor) -> Tensor:
        """sum_k value[k] sigma'(x_b - x_k) at the nodes b of the surroundings, from values in the window."""
        out = within.new_zeros(*within.shape[:-1], self.high - self.low + 2 * _BAND)
        for own, near in self._parts():
            size = own.stop - own.start
            out[..., near] += within[..., own] @ self.grid.slope[: size + 2 * _BAND, :size].T
        return out

    def _parts(self) -> Iterator[tuple[slice, slice]]:
        """Parts of the window, and of its surroundings the nodes that are not saturated for them."""
        for start in range(0, self.high - self.low, _PART):
            stop = min(start + _PART, self.high - self.low)
            yield slice(start, stop), slice(start, stop + 2 * _BAND)


class RowTables:
    """Mean AP of the positives of each row, and its derivatives as functions of the score, at one scale."""

    def __init__(self, window: Window, histograms: Tensor, positive: Tensor, negative: Tensor, ratio: float) -> None:
        """
        Args:
            window: of all positives.
            histograms: of the scores of each kind of pairs, (r, kinds, nodes).
            positive, negative: weights of the pairs of each kind, (kinds,).
            ratio: factor of the negatives.
        """
        self.window, self.positive, self.negative = window, positive, ratio * negative
        self.histograms = histograms[..., window.low : window.high]
        self.around = window.around(torch.stack([positive @ histograms, self.negative @ histograms]))
        self.r_p, self.r_n = window.ranks(self.around)
        self.weights = [float(weight) for weight in positive.unique() if weight > 0]
        total = self.around[0].sum(dim=-1)
        self.share = torch.where(total > 0, 1 / total, 0.0)[:, None]
        self.ap = sum((own * ap).sum(dim=-1) for own, ap, *_ in self._by_weight()) * self.share[:, 0]

    def slopes(self) -> Tensor:
        """Derivative of a row's mean AP by the score of one of its pairs of each kind (r, kinds, nodes around).

        A pair's score enters through the ranks of all positives, by which it passes them; a positive's also through
        its own rank.
        """
        slope_p, slope_n = self.window.rank_slopes(self.around)
        by_r_p = by_r_n = torch.zeros_like(self.r_p)
        own_slopes = torch.zeros_like(self.histograms)
        for weight, (own, _, ap_by_r_p, ap_by_r_n) in zip(self.weights, self._by_weight()):
            by_r_p, by_r_n = by_r_p + own * ap_by_r_p, by_r_n + own * ap_by_r_n
            own_slopes[:, self.positive == weight] = weight * (ap_by_r_p * slope_p + ap_by_r_n * slope_n)[:, None]
        as_positive, as_negative = self.window.passing_slopes(torch.stack([by_r_p, by_r_n]))[:, :, None]
        slopes = self.positive[:, None] * as_positive + self.negative[:, None] * as_negative
        slopes[..., _BAND:-_BAND] -= own_slopes
        return slopes.mul_(self.share[:, None])

    def _by_weight(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For the positives of each weight: their weighted histogram, AP, and its derivatives by R_P and R_N."""
        for weight in self.weights:
            own = weight * self.histograms[:, self.positive == weight].sum(dim=1)
            above = 1 + self.r_p - 0.5 * weight  # a pair does not compete with itself
            total = above + self.r_n
            yield own, above / total, self.r_n / total**2, -above / total**2
