"""The pairs of a batch, as the passes of the exact loss visit them: the interface, and PyTorch operations on tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from loco.losses import histograms
from loco.losses.histograms import Grid
from loco.losses.inputs import wide_type
from loco.losses.tiles import Block, Tiling


class Pairs(Protocol):
    """The pairs of a batch that this rank visits in both passes."""

    @property
    def order(self) -> Tensor:
        """The patches in the order in which the passes take their features, (n,) int64."""

    def histograms(self, features: Tensor, grid: Grid) -> Tensor:
        """Return the histograms of the scores of each class (classes, bins) float64, from features (n, d)."""

    def gradient(self, features: Tensor, grid: Grid, slopes: Tensor) -> Tensor:
        """Return the gradient (n, d), in the dtype :func:`loco.losses.inputs.wide_type`.

        Args:
            features: (n, d), in the order of :attr:`order`.
            grid: grid of the scores.
            slopes: derivative of the loss with respect to the score of a pair of each class, (classes, bins). The
                caller scales them to at most 1 in absolute value, because half precision cannot represent 1e-8.
        """


class TiledPairs:
    """:class:`Pairs` by PyTorch operations on large tiles.

    Attributes:
        tiling: the tiles of all patches of the batch.
        rows: the positions, in the order of the tiling, of the patches whose features are passed; here all.
    """

    rows = slice(None)

    def __init__(self, tiling: Tiling) -> None:
        self.tiling, self.order, self.reach = tiling, tiling.order, tiling.radii[-1]

    def blocks(self, reach: float, *parts: Tensor) -> Iterator[tuple[Block, list[Tensor], list[Tensor]]]:
        """Yield the blocks of this rank with pairs within ``reach``, and the views of their patches in each part.

        Args:
            reach: metres.
            parts: tensors with one row per patch, in the order of :attr:`order`: the features first, which are read;
                the others are sums, to which the caller adds.

        Yields:
            A block; the views of its rows, one per part; and the views of its columns, one per part. The sums are
            complete when the iterator ends.
        """
        for block in self.tiling.blocks(reach):
            yield block, [part[block.i] for part in parts], [part[block.j] for part in parts]

    def histograms(self, features: Tensor, grid: Grid) -> Tensor:
        binning = histograms.Binning(self.tiling, grid, self.tiling.pair_classes.number)
        for block, (f_i,), (f_j,) in self.blocks(self.reach, features):
            binning.add(block, multiply(f_i, f_j.T))
        return binning.histograms()

    def gradient(self, features: Tensor, grid: Grid, slopes: Tensor) -> Tensor:
        lookup = histograms.Lookup(self.tiling, grid, slopes, product_type(features))
        out = torch.zeros_like(features, dtype=wide_type(features))
        for block, (f_i, out_i), (f_j, out_j) in self.blocks(self.reach, features, out):
            weight = lookup.read(block, multiply(f_i, f_j.T))
            multiply(weight, f_j, add_to=out_i)
            multiply(weight.T, f_i, add_to=out_j)
        return out


def product_type(factor: Tensor) -> torch.dtype:
    """Return the dtype of products: half precision on a GPU, which accumulates in float32; otherwise the wide type."""
    return factor.dtype if factor.is_cuda else wide_type(factor)


def multiply(a: Tensor, b: Tensor, add_to: Tensor | None = None) -> Tensor:
    """Return a @ b, in float32 at least, for factors of any dtype; or add it to ``add_to`` in place and return that."""
    kind = product_type(a)
    if kind != wide_type(a):
        product = torch.mm(a, b, out_dtype=torch.float32)
        return product if add_to is None else add_to.add_(product)
    a, b = a.to(kind), b.to(kind)
    return a @ b if add_to is None else add_to.addmm_(a, b)
