"""Fused Triton kernels of the exact loss, for NVIDIA GPUs of compute capability 8.0 or higher.

The pair matrix is divided into blocks of 128 x 128 pairs. A program computes the scores of a block as a product of
features that stays in registers, and the class of each pair, unless the bounding boxes of the patches determine a
common one. The first pass counts the scores in histograms. The second pass looks up the slopes of the pairs, writes
them in the type of the features for a part of the matrix at a time, and multiplies them by the features.

Which blocks contain pairs is determined and listed on the device. The host knows the number of patches only; it
launches programs for all blocks, and those without pairs end at once. It never waits for the device.

Results are bitwise reproducible: pairs are counted in integers, and fractions in units of 2^-16 of a cell, so the sums
do not depend on the order of the threads; products are accumulated in the order of the lists.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from loco.losses.distributed import Group, rank_and_world_size
from loco.losses.histograms import MARGIN, Grid, steps_of
from loco.losses.patches import Patches
from loco.losses.tiles import Classes, spatial_order

SIDE = 128  # patches per side of a block
_EACH = -1  # kind of a block whose pairs may differ in class
COLUMNS = 16  # columns of blocks that a program processes
PART = 32  # rows and columns of blocks whose slopes are stored at a time
_COPIES = 64  # maximum number of copies of the histograms, which reduce contention at frequent scores
_COPY_BYTES = 2**26  # maximum size of all copies
UNIT = 2**16  # units per cell in which fractions are counted
ONE = 2**40  # one pair in a packed number, whose lower bits are the sum of the fractions
_COUNTED = 2**23 - 1  # pairs that a cell of a copy can count; more would overflow 64 bits
_DEPTH_BYTES = 128  # bytes of a row that one step of a product loads
CHUNK = 128  # columns of the gradient that a program computes
OPTIONS = {"num_warps": 8, "num_stages": 3}  # options of the Triton compiler


class _Blocks(NamedTuple):
    """For each row of blocks, the columns of the blocks that contain pairs; T is the number of tiles.

    Attributes:
        columns: (T, T) int32; in each row, the columns of the blocks with pairs, ascending, then the other columns.
        before: number of blocks with pairs before each column, (T, T + 1) int32.
    """

    columns: Tensor
    before: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> _Blocks:
        columns = torch.argsort(mask.logical_not().byte(), dim=1, stable=True).int()
        return cls(columns, pad(mask.cumsum(1, dtype=torch.int32), (1, 0)))


class FusedPairs:
    """The pairs of a batch on a GPU, for both passes of the exact loss.

    Attributes:
        order: the patches in the order in which the passes take their features, (n,) int64.
    """

    def __init__(self, patches: Patches, classes: Classes, group: Group = None, side: int = SIDE) -> None:
        """
        Args:
            patches: all patches of the batch, on a GPU.
            classes: classes of pairs and their weights.
            group: ranks over which the blocks are distributed.
            side: patches per side of a block.
        """
        points, scenes = patches.points, patches.scene_ids
        self.classes, self.side = classes, side
        self.order = spatial_order(points, scenes, side)
        self.count = len(points)
        self.tiles = triton.cdiv(self.count, side)
        # The last tile is completed by the last patch, whose copies form no pairs.
        completed = torch.cat([self.order, self.order[-1:].expand(-self.count % side)])
        self.points = points[completed].T.contiguous()
        self.scenes, self.images = (_ranks(ids)[completed] for ids in (scenes, patches.image_ids))
        # The tensor is small, so the driver copies it without waiting for the device.
        squares = torch.tensor([radius * radius for radius in classes.radii])
        self.squared_radii = squares.to(self.points, non_blocking=True)
        self.kinds, mask = self._kinds(group)
        self.by_row, self.by_column = _Blocks.of(mask), _Blocks.of(mask.T.contiguous())

    def _kinds(self, group: Group) -> tuple[Tensor, Tensor]:
        """Return the common class of each block, or _EACH, (T, T) int32, and the mask of the blocks with pairs that
        belong to this rank, (T, T) bool.
        """
        boxes = self.points.view(3, self.tiles, self.side).double()
        nearest, farthest = self.points.new_zeros((2, self.tiles, self.tiles), dtype=torch.float64)
        for low, high in zip(boxes.amin(dim=2), boxes.amax(dim=2)):
            beyond = low[None] - high[:, None]  # gap along this axis from the box of a row to that of a column
            nearest += torch.maximum(beyond, beyond.T).clamp_(min=0).square_()
            across = high[None] - low[:, None]
            farthest += torch.maximum(across, across.T).square_()
        nearest, farthest = nearest.sqrt_(), farthest.sqrt_()
        first, last = (self.scenes.view(self.tiles, self.side)[:, k] for k in (0, -1))
        one_scene = (first == last) & (first[:, None] == first) & (last[:, None] == last)
        tile = torch.arange(self.tiles, device=self.points.device)
        each = (nearest <= self.classes.image_matters_within) | ~one_scene | (tile[:, None] == tile)
        if self.count % self.side:
            each |= (tile == self.tiles - 1) | (tile[:, None] == self.tiles - 1)
        kinds = torch.zeros_like(each, dtype=torch.int32)
        for radius in self.classes.radii:
            each |= (nearest <= radius) & (radius < farthest)
            kinds += radius < nearest
        same_scene = (first <= last[:, None]) & (first[:, None] <= last)
        rank, world_size = rank_and_world_size(group)
        of_rank = (tile[:, None] + tile) % world_size == rank
        mask = same_scene & (nearest <= self.classes.radii[-1]) & (tile[:, None] <= tile) & of_rank
        return kinds.masked_fill_(each, _EACH), mask

    def histograms(self, features: Tensor, grid: Grid) -> Tensor:
        """Return the histograms of the scores of each class (classes, bins) float64.

        If any score is not finite, the last bin of the class of uncounted pairs (``across - 1``) is set to NaN. The
        loss and its gradient are then NaN, and the numbers of counted pairs remain correct. Scores that are not finite
        are binned at the last grid point, which no score of L2-normalised rows reaches.

        Args:
            features: (n, d), in the order of :attr:`order`.
            grid: the grid of scores.
        """
        cells = self.classes.number * grid.bins
        copies = max(1, min(_COPIES, _COPY_BYTES // (8 * cells)))
        packed = torch.zeros((copies, cells), dtype=torch.int64, device=features.device)
        totals = torch.zeros((2, cells), dtype=torch.int64, device=features.device)
        groups = triton.cdiv(self.tiles, COLUMNS)
        programs = self.tiles * groups
        at_once = copies * max(1, _COUNTED // (COLUMNS * self.side * self.side))
        for first in range(0, programs, at_once):
            self._launch(
                _count, (min(at_once, programs - first),), features, *self._pairs(grid), self.by_row.columns,
                self.by_row.before, self.tiles, first, groups, packed, copies, cells, COLUMNS=COLUMNS,
                UNIT=UNIT, ONE=ONE,
            )  # fmt: skip
            totals += torch.stack([(packed // ONE).sum(dim=0), (packed % ONE).sum(dim=0)])
            packed.zero_()
        counts, passed_on = totals.view(2, -1, grid.bins).double()
        histograms = grid.bin_linearly(counts, passed_on / UNIT)
        histograms[self.classes.across - 1, -1].masked_fill_(counts[:, -1].sum() > 0, torch.nan)
        return histograms

    def gradient(self, features: Tensor, grid: Grid, slopes: Tensor) -> Tensor:
        """Return, for each patch, the sum over its pairs of the slope times the features of the other patch.

        Args:
            features: (n, d), in the order of :attr:`order`.
            grid: the grid of scores.
            slopes: slope of a pair of each class (classes, bins), at most 1 in absolute value.

        Returns:
            (n, d) float32.
        """
        table = torch.stack([slopes, steps_of(slopes)], dim=-1).float().contiguous()
        out = torch.zeros(features.shape, device=features.device)
        side, part = self.side, min(PART, self.tiles)
        stored = features.new_empty((part * side, part * side))
        chunks = triton.cdiv(features.shape[1], CHUNK)
        for row in range(0, self.tiles, part):
            for column in range(row, self.tiles, part):
                rows, columns = (min(part, self.tiles - first) for first in (row, column))
                self._launch(
                    _look_up, (rows, triton.cdiv(columns, COLUMNS)), features, *self._pairs(grid),
                    self.by_row.columns, self.by_row.before, self.tiles, row, column, columns, table, stored,
                    part * side, COLUMNS=COLUMNS,
                )  # fmt: skip
                # The slopes are read by rows for the patches of the rows, and by columns for those of the columns.
                for blocks, own, others, number, other_number, strides in (
                    (self.by_row, row, column, rows, columns, stored.stride()),
                    (self.by_column, column, row, columns, rows, stored.stride()[::-1]),
                ):
                    self._launch(
                        _multiply, (number, chunks), features, *blocks, self.count, self.tiles, own, others,
                        others + other_number, stored, *strides, out, CHUNK=CHUNK,
                    )  # fmt: skip
        return out

    def _pairs(self, grid: Grid) -> tuple[Any, ...]:
        """Return the arguments of the kernels that describe the pairs."""
        return (
            self.points, self.images, self.scenes, self.squared_radii, self.kinds, self.count,
            1 / grid.width, MARGIN, grid.bins,
        )  # fmt: skip

    def _launch(self, kernel: Any, programs: tuple[int, ...], features: Tensor, *arguments: Any, **sizes: int) -> None:
        kernel[programs](
            features, features.shape[1], *arguments, SIDE=self.side, **sizes,
            **product_options(features.dtype, self.side),
            **({} if kernel is _multiply else {"RADII": len(self.classes.radii)}), **OPTIONS,
        )  # fmt: skip


def _ranks(ids: Tensor) -> Tensor:
    """Return the rank of each id (n,) among the different ids, int32."""
    in_order, order = ids.sort()
    ranks = pad((in_order[1:] != in_order[:-1]).cumsum(0, dtype=torch.int32), (1, 0))
    return torch.empty_like(ranks).scatter_(0, order, ranks)


def product_options(dtype: torch.dtype, side: int) -> dict[str, Any]:
    """Return the compile-time constants of the matrix products for features of a dtype.

    Features in float32 are multiplied in TF32 if :func:`torch.set_float32_matmul_precision` allows it, and otherwise as
    three TF32 products whose sum is about as accurate as float32.
    """
    highest = torch.get_float32_matmul_precision() == "highest"
    precision = "tf32x3" if dtype == torch.float32 and highest else "tf32"
    return {"DEPTH": min(side, _DEPTH_BYTES // dtype.itemsize), "PRECISION": precision}


# Arguments that vary with the batch: kernels are not compiled again for special values of these.
_VARYING = ["n", "tiles", "first", "groups", "row", "column", "columns", "own", "others", "end"]


@triton.jit(do_not_specialize=_VARYING)
def _count(
    features, dims, points, images, scenes, radii, kinds, n, scale, margin, bins, listed, before, tiles, first, groups,
    totals, copies, cells,
    SIDE: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, RADII: tl.constexpr, COLUMNS: tl.constexpr,
    UNIT: tl.constexpr, ONE: tl.constexpr,
):  # fmt: skip
    """Count the pairs of up to COLUMNS blocks of a row of blocks."""
    program = first + tl.program_id(0)
    i, column = program // groups, program % groups * COLUMNS
    start = tl.load(before + i * (tiles + 1) + column)
    end = tl.load(before + i * (tiles + 1) + tl.minimum(column + COLUMNS, tiles))
    copy = totals + (program % copies).to(tl.int64) * cells
    for k in range(start, end):
        j = tl.load(listed + i * tiles + k)
        below, fraction = _locate(features, dims, i, j, n, scale, margin, bins, SIDE, DEPTH, PRECISION)
        kind = tl.load(kinds + i * tiles + j)
        passed = _classes(kind, points, images, scenes, radii, i, j, n, tiles, SIDE, RADII)
        packed = ONE + (fraction * UNIT).to(tl.int64)
        tl.atomic_add(copy + passed * bins + below, packed, mask=passed % (RADII + 1) < RADII, sem="relaxed")


@triton.jit(do_not_specialize=_VARYING)
def _look_up(
    features, dims, points, images, scenes, radii, kinds, n, scale, margin, bins, listed, before, tiles, row, column,
    columns, table, out, stride,
    SIDE: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, RADII: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the slopes of the pairs of up to COLUMNS blocks of a row of blocks."""
    i, first = row + tl.program_id(0), tl.program_id(1) * COLUMNS
    start = tl.load(before + i * (tiles + 1) + column + first)
    end = tl.load(before + i * (tiles + 1) + column + tl.minimum(first + COLUMNS, columns))
    for k in range(start, end):
        j = tl.load(listed + i * tiles + k)
        below, fraction = _locate(features, dims, i, j, n, scale, margin, bins, SIDE, DEPTH, PRECISION)
        kind = tl.load(kinds + i * tiles + j)
        passed = _classes(kind, points, images, scenes, radii, i, j, n, tiles, SIDE, RADII)
        counted = passed % (RADII + 1) < RADII
        entry = table + 2 * (passed * bins + below)
        slope = tl.load(entry, mask=counted, other=0.0) + fraction * tl.load(entry + 1, mask=counted, other=0.0)
        a, b = (i - row) * SIDE + tl.arange(0, SIDE), (j - column) * SIDE + tl.arange(0, SIDE)
        tl.store(out + a[:, None] * stride + b[None, :], slope.to(out.dtype.element_ty))


@triton.jit(do_not_specialize=_VARYING)
def _multiply(
    features, dims, listed, before, n, tiles, own, others, end, slopes, own_stride, other_stride, out,
    SIDE: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Add slopes times features of the tiles from ``others`` to ``end`` - 1 to CHUNK columns of the rows of a tile."""
    i, d = own + tl.program_id(0), tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    first = tl.load(before + i * (tiles + 1) + others)
    last = tl.load(before + i * (tiles + 1) + end)
    row, depth = tl.arange(0, SIDE), tl.arange(0, DEPTH)
    total = tl.full((SIDE, CHUNK), 0.0, tl.float32)
    parts: tl.constexpr = SIDE // DEPTH
    for step in range(first * parts, last * parts):
        other = tl.load(listed + i * tiles + step // parts) * SIDE + step % parts * DEPTH + depth
        within = (i - own) * SIDE + row
        weight = tl.load(slopes + within[:, None] * own_stride + (other - others * SIDE)[None, :] * other_stride)
        rows = features + tl.minimum(other, n - 1).to(tl.int64) * dims
        value = tl.load(rows[:, None] + d[None, :], mask=d[None, :] < dims, other=0.0)
        total = tl.dot(weight, value, total, input_precision=PRECISION)
    if last > first:
        row += i * SIDE
        sums, inside = out + row[:, None].to(tl.int64) * dims + d[None, :], (row < n)[:, None] & (d < dims)[None, :]
        tl.store(sums, tl.load(sums, mask=inside) + total, mask=inside)


@triton.jit
def _locate(
    features, dims, i, j, n, scale, margin, bins, SIDE: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr
):
    """Return the grid point below each score of a block, int32, and the fraction of the cell.

    As :meth:`loco.losses.histograms.Grid.locate`; scores that are not finite are at the last grid point.
    """
    row = features + tl.minimum(i * SIDE + tl.arange(0, SIDE), n - 1).to(tl.int64) * dims
    column = features + tl.minimum(j * SIDE + tl.arange(0, SIDE), n - 1).to(tl.int64) * dims
    scores = tl.full((SIDE, SIDE), 0.0, tl.float32)
    for start in range(0, dims, DEPTH):
        d = start + tl.arange(0, DEPTH)
        a = tl.load(row[:, None] + d[None, :], mask=d[None, :] < dims, other=0.0)
        b = tl.load(column[None, :] + d[:, None], mask=d[:, None] < dims, other=0.0)
        scores = tl.dot(a, b, scores, input_precision=PRECISION)
    position = (scores + margin) * scale
    # The comparison is false for NaN.
    position = tl.where(tl.abs(position) < bins - 1.0, tl.maximum(position, 0.0), bins - 1.0)
    below = position.to(tl.int32)
    return below, position - below.to(tl.float32)


@triton.jit
def _classes(kind, points, images, scenes, radii, i, j, n, tiles, SIDE: tl.constexpr, RADII: tl.constexpr):
    """Return the class of each pair of a block, int32, as :meth:`loco.losses.tiles.Tiling.classes`."""
    passed = tl.full((SIDE, SIDE), kind, tl.int32)
    if kind < 0:
        row, column = i * SIDE + tl.arange(0, SIDE), j * SIDE + tl.arange(0, SIDE)
        x = _difference(points, row, column)
        y = _difference(points + tiles * SIDE, row, column)
        z = _difference(points + 2 * tiles * SIDE, row, column)
        squared = x * x + y * y + z * z
        passed = tl.full((SIDE, SIDE), 0, tl.int32)
        for k in tl.static_range(RADII):
            passed += (squared > tl.load(radii + k)).to(tl.int32)
        same_image = tl.load(images + row)[:, None] == tl.load(images + column)[None, :]
        passed += same_image.to(tl.int32) * (RADII + 1)
        # Count a pair once, no patch with itself, and no copies of the last patch.
        is_pair = (row[:, None] < column[None, :]) & (column < n)[None, :]
        is_pair = is_pair & (tl.load(scenes + row)[:, None] == tl.load(scenes + column)[None, :])
        passed = tl.where(is_pair, passed, RADII)
    return passed


@triton.jit
def _difference(axis, row, column):
    return tl.load(axis + row)[:, None] - tl.load(axis + column)[None, :]
