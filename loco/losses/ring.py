"""The pairs of a batch whose features are not gathered, but passed from rank to rank in a ring.

An all-gather puts the features of the whole batch (n, d), and in the backward pass their gradient, on each of W ranks.
In a ring, a rank holds its own features, its *shard*, and one other shard. In step s, rank r receives the shard of rank
r - s from rank r - 1, visits the pairs between this shard and its own, and passes it on to rank r + 1. Any two shards
meet within W // 2 steps. If W is even, the two shards that meet in the last step do so on both of their ranks, and each
of the two ranks visits half of the blocks. In the backward pass, the gradient of a shard is passed along with it, and
is sent back to the rank of the shard at the end.

Points, scenes and images, some tens of bytes per patch, are gathered: every rank has the tiles of the whole batch and
skips blocks without pairs as usual. While the pairs of a shard are visited, the next shard and the gradient of the
previous one are transferred.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, islice, pairwise
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor

from loco.losses.distributed import Group, Shift, gather_counts, gather_rows, padded, rank_and_world_size
from loco.losses.patches import Patches
from loco.losses.tiled import TiledPairs
from loco.losses.tiles import Block, Classes, Tiling


class RingPairs(TiledPairs):
    """:class:`loco.losses.tiled.Pairs` of a batch whose features are distributed over the ranks.

    The passes take the features of the patches of this rank, and return the gradient for these patches; :attr:`order`
    is the order of these patches. The tiling is that of the whole batch.
    """

    def __init__(self, patches: Patches, classes: Classes, tile: int, group: Group) -> None:
        """
        Args:
            patches: patches of this rank; there may be none.
            classes, tile: as for :class:`loco.losses.tiles.Tiling`.
            group: the ranks of the batch, at least two; all must call this constructor.
        """
        self.group = group
        self.rank, self.world_size = rank_and_world_size(group)
        counts = gather_counts(patches.features, group)
        self.longest = max(1, *counts)  # rows of every transfer
        self.starts = [0, *accumulate(counts)]
        others = (gather_rows(part, counts, group) for part in patches[1:])
        tiling = _ShardedTiling(Patches(patches.features, *others), counts, classes, tile)
        super().__init__(tiling)
        self.shards = tiling.shards
        self.rows = slice(self.starts[self.rank], self.starts[self.rank + 1])
        self.order = self.tiling.order[self.rows] - self.rows.start

    def blocks(self, reach: float, *parts: Tensor) -> Iterator[tuple[Block, list[Tensor], list[Tensor]]]:
        features, *sums = parts
        last = self.world_size // 2
        arriving = Shift(padded(features, self.longest), 1, self.group)
        leaving: list[Shift] = []
        yield from self._blocks_with(self.rank, parts, parts, reach)
        for step in range(1, last + 1):
            visiting = arriving.wait()
            if step < last:
                arriving = Shift(visiting, 1, self.group)
            added = [torch.zeros_like(visiting, dtype=total.dtype) for total in sums]
            yield from self._blocks_with((self.rank - step) % self.world_size, parts, (visiting, *added), reach)
            _add_received(added, leaving)
            leaving = [Shift(part, 1 if step < last else -last, self.group) for part in added]
        _add_received(sums, leaving)

    def _blocks_with(
        self, shard: int, own: tuple[Tensor, ...], visiting: tuple[Tensor, ...], reach: float
    ) -> Iterator[tuple[Block, list[Tensor], list[Tensor]]]:
        """Yield the blocks between this rank's shard and ``shard``, or within this rank's shard, as :meth:`blocks`.

        Args:
            shard: rank of the other shard.
            own: features and sums of this rank's shard.
            visiting: features and sums of the other shard.
            reach: metres.
        """
        (a, of_rows), (b, of_columns) = sorted([(self.rank, own), (shard, visiting)], key=itemgetter(0))
        found = self.tiling.blocks_between(self.shards[a], self.shards[b], reach)
        if 2 * ((self.rank - shard) % self.world_size) == self.world_size:  # the other rank visits the other half
            found = islice(found, int(self.rank > shard), None, 2)
        for block in found:
            i, j = (_moved(part, -self.starts[number]) for part, number in ((block.i, a), (block.j, b)))
            yield block, [part[i] for part in of_rows], [part[j] for part in of_columns]


class _ShardedTiling(Tiling):
    """The tiles of the patches of all ranks; no tile contains patches of two ranks.

    Attributes:
        shards: indices of the tiles of each rank.
    """

    def __init__(self, patches: Patches, counts: list[int], classes: Classes, tile: int) -> None:
        """
        Args:
            patches: patches of all ranks, in the order of the ranks; their features are not used.
            counts: number of patches of each rank.
            classes, tile: as in the base class.
        """
        different, scenes = patches.scene_ids.unique(return_inverse=True)
        self.scene_count = len(different)
        ranks = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(scenes.device)
        # The base class divides tiles at the boundaries of scenes. Here, the patches of a scene on two ranks count as
        # two scenes, so that tiles are also divided at the boundaries of ranks.
        super().__init__(patches._replace(scene_ids=ranks * self.scene_count + scenes), classes, tile)
        ends = np.searchsorted(self.scenes, np.arange(len(counts) + 1) * self.scene_count)
        self.shards = [range(*pair) for pair in pairwise(ends.tolist())]

    def _forms_pairs(self, scene: int, others: np.ndarray) -> np.ndarray:
        return others % self.scene_count == scene % self.scene_count


def _add_received(sums: list[Tensor], shifts: list[Shift]) -> None:
    """Wait for ``shifts``, add the received rows to ``sums`` in place, and empty ``shifts``."""
    for total in sums[: len(shifts)]:
        total += shifts.pop(0).wait()[: len(total)]


def _moved(rows: slice, by: int) -> slice:
    return slice(rows.start + by, rows.stop + by)
