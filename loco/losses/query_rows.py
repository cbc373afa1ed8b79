"""Rows of the pair matrix that are queries, as blocks of rows with all columns with which they form pairs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loco.losses.tiles import Block, Tiling

_PAIRS_AT_A_TIME = 2**13, 2**19, 2**21  # pairs of a block on a CPU: per feature dimension, minimum, maximum
_PAIRS_ON_A_GPU = 2**25  # pairs of a block on a GPU
_ROWS = 96  # minimum number of rows of a block, up to the maximum of pairs: products of fewer rows are slow


def tile_of_rows(on_gpu: bool) -> int:
    """Return the number of patches per side of a tile for passes over rows.

    With small tiles, fewer pairs are computed that do not count. With large tiles, there are fewer blocks, each of
    which takes time to launch on a GPU.
    """
    return 2048 if on_gpu else 128


class RowBlock(NamedTuple):
    """Queries of one tile, and their pairs, whose scores or slopes are stored as a matrix (r, width).

    Attributes:
        rows: the queries (r,) int64, in tile order.
        blocks: blocks of columns of the pair matrix.
        columns: the columns of each block in the stored matrix.
        runs: contiguous columns of the pair matrix, and their columns in the stored matrix.
    """

    rows: Tensor
    blocks: list[Block]
    columns: list[slice]
    runs: list[tuple[slice, slice]]

    @property
    def width(self) -> int:
        return self.columns[-1].stop

    def classes(self, tiling: Tiling) -> Iterator[tuple[slice, int | Tensor]]:
        """Yield the columns of each block with the common class of its pairs, or their classes (r, columns) int32."""
        for block, columns in zip(self.blocks, self.columns):
            yield columns, tiling.classes_of_rows(self.rows, block)

    def multiply(self, queries: Tensor, features: Tensor, out: Tensor) -> Tensor:
        """Write the scores of the pairs to ``out`` (r, width).

        Args:
            queries: features of the queries, (r, d).
            features: features of all patches, (n, d), in tile order.
            out: (r, width).

        Returns:
            ``out``.
        """
        for others, columns in self.runs:
            torch.mm(queries, features[others].T, out=out[:, columns])
        return out

    def multiply_back(self, slopes: Tensor, features: Tensor, gradient: Tensor) -> None:
        """Add the gradient with respect to the features to ``gradient`` (n, d) in place.

        Args:
            slopes: gradient with respect to the scores of the pairs, (r, width).
            features: features of all patches, (n, d), in tile order.
            gradient: (n, d), in tile order.
        """
        queries, out = features[self.rows], torch.zeros(len(self.rows), features.shape[1]).to(features)
        for others, columns in self.runs:
            out.addmm_(slopes[:, columns], features[others])
            gradient[others].addmm_(slopes[:, columns].T, queries)
        gradient.index_add_(0, self.rows, out)


class QueryRows:
    """The queries of this rank.

    Attributes:
        ranked: which patches, in tile order, are queries of this rank at each scale, i.e. drawn and with a
            positive, (n, K) bool.
        blocks: blocks of the patches that are queries at any scale.
    """

    def __init__(self, tiling: Tiling, features: Tensor, drawn: Tensor | None) -> None:
        """
        Args:
            tiling: the tiling of the pair matrix.
            features: (n, d), in tile order.
            drawn: patches that may be queries, int64, in the original order; None for all.
        """
        self.tiling, classes = tiling, tiling.pair_classes
        device, (n, dims) = features.device, features.shape
        self.ranked = torch.zeros((n, len(classes.positive)), dtype=torch.bool, device=device)
        is_drawn = torch.full((n,), drawn is None, device=device)
        if drawn is not None:
            is_drawn[drawn] = True
        per_dimension, minimum, maximum = _PAIRS_AT_A_TIME
        at_a_time = _PAIRS_ON_A_GPU if features.is_cuda else min(max(minimum, per_dimension * dims), maximum)
        self.blocks = list(self._blocks(is_drawn[tiling.order], at_a_time))

    def _blocks(self, drawn: Tensor, at_a_time: int) -> Iterator[RowBlock]:
        is_positive = (self.tiling.pair_classes.positive > 0).T.to(drawn.device)
        for strip in self.tiling.strips(self.tiling.radii[-1]):
            rows = torch.nonzero(drawn[strip[0].i])[:, 0] + strip[0].i.start
            self.ranked[rows] = is_positive[self._nearest_class(rows, strip)]
            rows = rows[self.ranked[rows].any(dim=1)]
            ends = np.cumsum([0, *(block.j.stop - block.j.start for block in strip)]).tolist()
            columns = [slice(*pair) for pair in pairwise(ends)]
            runs = list(_runs(strip, columns))
            pairs = max(at_a_time, min(_ROWS * ends[-1], _PAIRS_AT_A_TIME[2]))
            for part in rows.split(max(1, pairs // ends[-1])):
                if len(part):
                    yield RowBlock(part, strip, columns, runs)

    def _nearest_class(self, rows: Tensor, strip: list[Block]) -> Tensor:
        """Return the class of the nearest pair of each row that can be positive, as if all pairs were across images.

        Pairs within one image are excluded if they have weight 0.
        """
        classes_of_pairs = self.tiling.pair_classes
        nearest = torch.full_like(rows, len(self.tiling.radii))
        for block in strip:
            if block.nearest <= classes_of_pairs.positive_within:
                classes = self.tiling.classes_of_rows(rows, block)
                if classes_of_pairs.same_image:
                    classes = classes % self.tiling.across
                nearest = torch.minimum(nearest, torch.as_tensor(classes, device=rows.device).amin(dim=-1))
        return nearest


def _runs(strip: list[Block], columns: list[slice]) -> Iterator[tuple[slice, slice]]:
    """Merge adjacent blocks into runs; yield their columns in the pair matrix and in the stored matrix."""
    first = 0
    for k in range(1, len(strip) + 1):
        if k == len(strip) or strip[k].j.start != strip[k - 1].j.stop:
            yield slice(strip[first].j.start, strip[k - 1].j.stop), slice(columns[first].start, columns[k - 1].stop)
            first = k
