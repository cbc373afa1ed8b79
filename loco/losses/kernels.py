"""Fused Triton kernels for the two steps between the matrix products of the exact loss, for NVIDIA GPUs.

They perform the operations of :mod:`loco.losses.histograms` without writing the distance, the class and the grid point
of a pair to memory. Pairs are counted in integers, and fractions in units of 2^-24, so the sums do not depend on the
order of the threads: results are bitwise reproducible.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from loco.losses.histograms import MARGIN, Grid, steps_of
from loco.losses.tiles import Block, Tiling

_SIDE = 32  # a program processes the pairs of 32 x 32 patches
_COPIES = 8  # copies of the histograms, each for an eighth of the programs, to reduce contention at frequent scores
_UNIT = 2**24  # resolution of the fractions, that of float32


class Binning:
    """Counts the pairs of each class at each grid point."""

    def __init__(self, tiling: Tiling, grid: Grid, classes: int) -> None:
        self.pairs = _Pairs(tiling, grid)
        shape = (_COPIES, 2, classes, grid.bins)
        self.totals = torch.zeros(shape, dtype=torch.int64, device=tiling.points.device)

    def add(self, block: Block, similarity: Tensor) -> None:
        """Count the pairs of a block."""
        each = self.totals[0, 0].numel()
        self.pairs.launch(_count, block, similarity, self.totals, each, COPIES=_COPIES, UNIT=_UNIT)

    def histograms(self) -> Tensor:
        """Return the histograms (classes, bins), float64."""
        counts, passed_on = self.totals.sum(dim=0).double()
        return self.pairs.grid.bin_linearly(counts, passed_on / _UNIT)


class Lookup:
    """Tables over the grid, one for each class (classes, bins), read by linear interpolation."""

    def __init__(self, tiling: Tiling, grid: Grid, values: Tensor, dtype: torch.dtype) -> None:
        self.pairs, self.dtype = _Pairs(tiling, grid), dtype
        self.table = torch.stack([values, steps_of(values)], dim=-1).float().contiguous()

    def read(self, block: Block, similarity: Tensor) -> Tensor:
        """Return the value of each pair of a block."""
        out = torch.empty_like(similarity, dtype=self.dtype)
        self.pairs.launch(_read, block, similarity, self.table, out)
        return out


class _Pairs:
    """Arguments of the kernels that describe the pairs of a tiling."""

    def __init__(self, tiling: Tiling, grid: Grid) -> None:
        self.tiling, self.grid = tiling, grid
        self.radii = torch.tensor([radius * radius for radius in tiling.radii]).to(tiling.points)

    def launch(self, kernel: Any, block: Block, similarity: Tensor, *arguments: Any, **constants: int) -> None:
        """Run a kernel for each pair of a block; ``similarity`` is float32."""
        (rows, columns), points = similarity.shape, self.tiling.points
        kernel[(triton.cdiv(rows, _SIDE), triton.cdiv(columns, _SIDE))](
            similarity, rows, columns, points, self.tiling.image_ids, points.shape[1], self.radii,
            block.i.start, block.j.start, 1 / self.grid.width, MARGIN, self.grid.bins, *arguments,
            RADII=len(self.tiling.radii), COMPARE_IMAGES=block.nearest <= self.tiling.image_matters_within,
            ONE_TILE=block.i == block.j, SIDE=_SIDE, **constants,
        )  # fmt: skip


# A program processes the pairs of SIDE rows and SIDE columns of a block, whose first patches are i and j.


@triton.jit
def _count(
    scores, rows, columns, points, images, n, radii, i, j, scale, margin, bins, totals, each,
    RADII: tl.constexpr, COMPARE_IMAGES: tl.constexpr, ONE_TILE: tl.constexpr, SIDE: tl.constexpr,
    COPIES: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    row, column, inside = _place(rows, columns, SIDE)
    below, fraction = _locate(scores, row, column, columns, inside, scale, margin, bins)
    passed = _classes(points, images, n, radii, i + row, j + column, RADII, COMPARE_IMAGES)
    counted = _counted(passed, row, column, inside, RADII, ONE_TILE)
    copy = (tl.program_id(0) + tl.program_id(1) * tl.num_programs(0)) % COPIES
    cell = totals + copy.to(tl.int64) * 2 * each + passed * bins + below
    tl.atomic_add(cell, tl.full(cell.shape, 1, tl.int64), mask=counted, sem="relaxed")
    tl.atomic_add(cell + each, (fraction * UNIT).to(tl.int64), mask=counted, sem="relaxed")


@triton.jit
def _read(
    scores, rows, columns, points, images, n, radii, i, j, scale, margin, bins, table, out,
    RADII: tl.constexpr, COMPARE_IMAGES: tl.constexpr, ONE_TILE: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    row, column, inside = _place(rows, columns, SIDE)
    below, fraction = _locate(scores, row, column, columns, inside, scale, margin, bins)
    passed = _classes(points, images, n, radii, i + row, j + column, RADII, COMPARE_IMAGES)
    counted = _counted(passed, row, column, inside, RADII, ONE_TILE)
    entry = table + 2 * (passed * bins + below)
    value = tl.load(entry, mask=counted, other=0.0) + fraction * tl.load(entry + 1, mask=counted, other=0.0)
    tl.store(out + _offset(row, column, columns), value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _place(rows, columns, SIDE: tl.constexpr):
    row, column = tl.program_id(0) * SIDE + tl.arange(0, SIDE), tl.program_id(1) * SIDE + tl.arange(0, SIDE)
    return row, column, (row < rows)[:, None] & (column < columns)[None, :]


@triton.jit
def _offset(row, column, columns):
    return row[:, None].to(tl.int64) * columns + column[None, :]


@triton.jit
def _locate(scores, row, column, columns, inside, scale, margin, bins):
    """Return the grid point below, int32, and the cell fraction, as :meth:`loco.losses.histograms.Grid.locate`."""
    score = tl.load(scores + _offset(row, column, columns), mask=inside, other=0.0)
    position = tl.minimum(tl.maximum((score + margin) * scale, 0.0), bins - 1.0)
    below = position.to(tl.int32)
    return below, position - below.to(tl.float32)


@triton.jit
def _classes(points, images, n, radii, row, column, RADII: tl.constexpr, COMPARE_IMAGES: tl.constexpr):
    """Return the class of each pair, as :meth:`loco.losses.tiles.Tiling.classes`; rows and columns are patches."""
    x = _difference(points, n, row, column)
    y = _difference(points + n, n, row, column)
    z = _difference(points + 2 * n, n, row, column)
    squared = x * x + y * y + z * z
    passed = tl.full(squared.shape, 0, tl.int32)
    for k in tl.static_range(RADII):
        passed += (squared > tl.load(radii + k)).to(tl.int32)
    if COMPARE_IMAGES:
        a, b = tl.load(images + row, mask=row < n, other=0), tl.load(images + column, mask=column < n, other=0)
        passed += (a[:, None] == b[None, :]).to(tl.int32) * (RADII + 1)
    return passed


@triton.jit
def _difference(axis, n, row, column):
    a, b = tl.load(axis + row, mask=row < n, other=0.0), tl.load(axis + column, mask=column < n, other=0.0)
    return a[:, None] - b[None, :]


@triton.jit
def _counted(passed, row, column, inside, RADII: tl.constexpr, ONE_TILE: tl.constexpr):
    """Return whether to count a pair: within the last radius, once within a tile, and not of a patch with itself."""
    counted = inside & (passed % (RADII + 1) < RADII)
    if ONE_TILE:
        counted = counted & (row[:, None] < column[None, :])
    return counted
