"""Divide the pair matrix of a batch into blocks, without the blocks that no loss uses.

Patches are sorted into tiles of neighbours. Pairs of tiles farther apart than kappa are skipped, because their pairs
are ignored; for most others, the bounding boxes determine a common class of all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from loco.losses.distributed import Group, rank_and_world_size
from loco.losses.pairs import Scale
from loco.losses.patches import Patches

_COLUMNS = 1024  # maximum columns of a merged block of several classes, so that temporary matrices stay in the cache


class Classes:
    """The classes of pairs, and their weights at each of K scales.

    The class of a pair is the number of radii, of all scales, below its distance. The last class, ``across`` - 1,
    contains pairs beyond all radii, which count at no scale, and entries that are not pairs. For two patches of one
    image, ``across`` is added.

    Attributes:
        radii: all radii of all scales, ascending, metres.
        across: number of classes of pairs across images.
        number: number of all classes.
        positive_within: largest distance of a positive pair, metres.
        image_matters_within: distance up to which the weight of a pair depends on the images of its patches, metres.
        positive, negative: weight of the pairs of each class as positives and as negatives, (K, number) float64.
    """

    def __init__(self, scales: list[Scale], same_image: float) -> None:
        """
        Args:
            scales: radii of the positive and of the negative pairs at each scale.
            same_image: weight of the positive pairs within one image.
        """
        self.radii = sorted({radius for scale in scales for radius in scale})
        self.across = len(self.radii) + 1
        self.number = 2 * self.across
        self.same_image = same_image
        self.positive_within = max(scale.rho for scale in scales)
        self.image_matters_within = self.positive_within if same_image != 1 else 0.0
        upto = torch.tensor(self.radii, dtype=torch.float64)
        rho, kappa = torch.tensor(scales, dtype=torch.float64).T[:, :, None]
        within = (upto <= rho, (upto > rho) & (upto <= kappa))
        positive, negative = (pad(part.double(), (0, 1)) for part in within)
        self.positive = torch.cat([positive, same_image * positive], dim=1)
        self.negative = torch.cat([negative, negative], dim=1)


class Block(NamedTuple):
    """A block of the pair matrix: its rows i and columns j, and bounds of the distances of its pairs, metres."""

    i: slice
    j: slice
    nearest: float
    farthest: float


class Tiling:
    """The blocks of the pair matrix that contain any pair; each unordered pair occurs once.

    The blocks are distributed over the ranks of a group.

    Attributes:
        order: patches in the order of the tiles (tile order), (n,) int64.
        points: points in tile order, (3, n).
        slices: the patches of each tile, in tile order.
    """

    def __init__(self, patches: Patches, classes: Classes, tile: int, group: Group = None) -> None:
        """
        Args:
            patches: all patches of the batch; their features are not used.
            classes: classes of pairs and their weights.
            tile: maximum number of patches per tile.
            group: ranks over which the blocks are distributed; None if this process visits all.
        """
        self.pair_classes = classes
        self.radii, self.across, self.image_matters_within = classes.radii, classes.across, classes.image_matters_within
        self.rank, self.world_size = rank_and_world_size(group)
        n, points = len(patches.points), patches.points
        tile = max(1, -(-n // 2 ** halvings(n, tile)))  # equal tiles of at most the requested size
        self.order = spatial_order(points, patches.scene_ids, tile)
        self.points = points[self.order].T.contiguous()
        # Images are numbered from 0 in the dtype of the points, whose comparisons are several times as fast as int64.
        self.images = patches.image_ids.unique(return_inverse=True)[1][self.order].to(points)
        host_points, host_scenes = self.points.cpu().double().numpy(), patches.scene_ids[self.order].cpu().numpy()
        # A tile that contains several scenes is divided at their boundaries.
        first_of_scenes = np.flatnonzero(np.diff(host_scenes)) + 1
        starts = np.union1d(np.arange(0, n, tile), first_of_scenes).astype(np.int64)
        self.slices = [slice(*pair) for pair in pairwise([*starts.tolist(), n])]
        self.scenes = host_scenes[starts]
        self.low, self.high = (
            part.reduceat(host_points, starts, axis=1).T if n else np.empty((0, 3)) for part in (np.minimum, np.maximum)
        )

    def blocks(self, reach: float) -> Iterator[Block]:
        """Yield the blocks of this rank that contain pairs up to a distance of ``reach``."""
        tiles = range(len(self.slices))
        return islice(self.blocks_between(tiles, tiles, reach), self.rank, None, self.world_size)

    def blocks_between(self, rows: range, columns: range, reach: float) -> Iterator[Block]:
        """Yield the blocks of these tiles, on and above the diagonal, that contain pairs up to ``reach``."""
        for a in rows:
            yield from self._of_tile(a, self.slices[a], slice(max(a, columns.start), columns.stop), reach)

    def strips(self, reach: float) -> Iterator[list[Block]]:
        """Yield a strip for each tile: the blocks of this rank's rows of the tile and all columns with which they form
        pairs within ``reach``.

        The blocks of a strip have the same rows. A pair is in the strips of both of its patches.
        """
        for a, tile in enumerate(self.slices):
            size = tile.stop - tile.start
            first, end = (tile.start + size * k // self.world_size for k in (self.rank, self.rank + 1))
            if first < end and (strip := list(self._merged(self._of_tile(a, slice(first, end), slice(None), reach)))):
                yield strip

    def _of_tile(self, a: int, rows: slice, columns: slice, reach: float) -> Iterator[Block]:
        """Yield the blocks of ``rows``, patches of tile ``a``, and the tiles ``columns`` with pairs up to ``reach``."""
        slices, low, high = self.slices[columns], self.low[columns], self.high[columns]
        nearest = np.linalg.norm(np.maximum(0, np.maximum(self.low[a] - high, low - self.high[a])), axis=1)
        farthest = np.linalg.norm(np.maximum(high - self.low[a], self.high[a] - low), axis=1)
        for k in np.flatnonzero(self._forms_pairs(self.scenes[a], self.scenes[columns]) & (nearest <= reach)):
            yield Block(rows, slices[k], float(nearest[k]), float(farthest[k]))

    def _merged(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """Merge adjacent blocks of one common class, and small ones of several classes, because fewer and larger blocks
        take less time.
        """
        last = next(blocks, None)
        if last is None:
            return
        for block in blocks:
            columns, common = slice(last.j.start, block.j.stop), self._common_class(block)
            is_small = common is not None or columns.stop - columns.start <= _COLUMNS
            if block.j.start == last.j.stop and common == self._common_class(last) and is_small:
                last = Block(last.i, columns, min(last.nearest, block.nearest), max(last.farthest, block.farthest))
            else:
                yield last
                last = block
        yield last

    def _forms_pairs(self, scene: int, others: np.ndarray) -> np.ndarray:
        """Return for tiles of the scenes ``others`` (m,) whether they form pairs with a tile of ``scene``."""
        return others == scene

    def classes(self, block: Block) -> int | Tensor:
        """Return the common class of all pairs of a block, or the class of each pair, (rows, columns) int32.

        Entries that are not to be counted, on and below the diagonal, have the class of pairs beyond all radii.
        """
        classes = self._classes(block.i, block, of_each=block.i == block.j)
        # Count pairs within a tile once, and no patch with itself.
        if isinstance(classes, Tensor) and block.i == block.j:
            classes.masked_fill_(torch.ones_like(classes, dtype=torch.bool).tril_(), len(self.radii))
        return classes

    def classes_of_rows(self, rows: Tensor, block: Block) -> int | Tensor:
        """Return :meth:`classes` for rows (r,) int64 of a block of a strip, without pairs of a patch with itself."""
        on_diagonal = block.j.start <= block.i.start < block.j.stop
        classes = self._classes(rows, block, of_each=on_diagonal)
        if isinstance(classes, Tensor) and on_diagonal:
            classes[torch.arange(len(rows), device=rows.device), rows - block.j.start] = len(self.radii)
        return classes

    def _common_class(self, block: Block) -> int | None:
        """Return the class of all pairs of a block; None if their distances or their images may differ in class."""
        passed = sum(radius < block.nearest for radius in self.radii)
        within = sum(radius < block.farthest for radius in self.radii)
        return passed if passed == within and block.nearest > self.image_matters_within else None

    def _classes(self, i: slice | Tensor, block: Block, of_each: bool) -> int | Tensor:
        """Return the common class of all pairs of the rows ``i`` and the columns of a block, or the class of each pair.

        With ``of_each``, the class of each pair is returned in any case.
        """
        _, j, nearest, farthest = block
        common = self._common_class(block)
        if common is not None and not of_each:
            return common
        # Classes are floating-point numbers until the end, because their comparisons and sums are the fastest.
        images, passed = self.images[i], sum(radius < nearest for radius in self.radii)
        classes = torch.full((len(images), j.stop - j.start), passed, dtype=self.points.dtype, device=images.device)
        mask = torch.empty_like(classes)
        open_radii = [radius for radius in self.radii if nearest <= radius < farthest]
        if open_radii:
            # The expanded square would not be accurate enough: points are tens of metres from the origin, and distances
            # must be exact to centimetres.
            x, y, z = (axis[i][:, None] - axis[None, j] for axis in self.points)
            squared = x.square_().addcmul_(y, y).addcmul_(z, z)
            for radius in open_radii:
                classes += torch.gt(squared, radius * radius, out=mask)  # radius**2 raises OverflowError for huge radii
        if nearest <= self.image_matters_within:
            classes.add_(torch.eq(images[:, None], self.images[None, j], out=mask), alpha=self.across)
        return classes.int()


def halvings(n: int, tile: int) -> int:
    """Return how often n patches must be halved for parts of at most ``tile``."""
    return max(0, -(-n // tile) - 1).bit_length()


def spatial_order(points: Tensor, scene_ids: Tensor, tile: int) -> Tensor:
    """Return an order of patches in which the patches of each tile (``tile`` consecutive patches) are neighbours.

    The patches are sorted by scene and bisected repeatedly, at multiples of the tile, across the longest side of the
    bounding box of each part, as in a k-d tree. All parts of a level are sorted at once, so the number of operations
    depends on n alone, and nothing waits for the device.

    Args:
        points: (n, 3), finite.
        scene_ids: (n,) int64.
        tile: patches per tile.

    Returns:
        (n,) int64. A tile contains several scenes only where one ends and the next begins.
    """
    n = len(points)
    order = torch.argsort(scene_ids, stable=True)
    scenes = scene_ids[order]
    scene_rank = pad((scenes[1:] != scenes[:-1]).cumsum(0), (min(n, 1), 0))
    # The scene is a fourth coordinate, whose extent exceeds that of the points where there are several.
    extent = 1 + 4 * points.abs().amax() if n else 1
    coordinates = torch.cat([points[order], (scene_rank * extent)[:, None].to(points)], dim=1)
    position = torch.arange(n, device=points.device)
    for level in range(halvings(n, tile), 0, -1):
        size = tile << level
        part = position // size
        padded = torch.cat([coordinates, coordinates[-1:].expand(-n % size, -1)]).view(-1, size, 4)
        low, high = padded.amin(dim=1), padded.amax(dim=1)
        axis = (high - low).argmax(dim=1)[part, None]
        along = coordinates.gather(1, axis) - low[part].gather(1, axis)
        # One sort by part and coordinate: the bits of positive floating-point numbers are ordered like the numbers.
        key = (part << 32) | along[:, 0].float().view(torch.int32)
        by_key = torch.argsort(key, stable=True)
        order, coordinates = order[by_key], coordinates[by_key]
    return order
