"""Index of the positive pairs of a scene, memory-mapped so that drawing a pair reads only a few pages of the file."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from loco.errors import DataError
from loco.storage.scene_file import Array, SceneFile


class PairIndex(SceneFile):
    """Pairs of nearby patches in different images of a scene (``results/pairs``).

    A pair consists of two valid patches of different images at most ``facts["radius"]`` metres apart; each pair is
    counted in both orders. Patches are numbered in the order of the valid patches of
    :class:`loco.storage.Correspondences`, image by image: the patches of image i begin at ``first[i]``, and the pairs
    whose first patch is in image i begin at ``bounds[i]``. ``count[k]`` is the number of pairs with patch k as first
    patch, and ``place[k]`` is the index of patch k in ``points`` and ``image``, which are sorted by the cells of a
    grid. ``cell`` and ``start`` are described in :class:`loco.geometry.near_pairs.NearPairs`; ``facts["grid_origin"]``
    is the origin of the grid.

    The arrays of patches and cells are memory-mapped, so that processes share them in the page cache.
    """

    format = "loco-pairs"
    version = 1
    arrays: ClassVar = {
        "first": Array("int64", ("bounds",)),
        "bounds": Array("int64", ("bounds",)),
        "count": Array("uint32", ("m",), frames="mapped"),
        "place": Array("uint32", ("m",), frames="mapped"),
        "points": Array("float32", ("m", 3), frames="mapped"),
        "image": Array("uint32", ("m",), frames="mapped"),
        "cell": Array("int64", ("c",), frames="mapped"),
        "start": Array("int64", ("starts",), frames="mapped"),
    }

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """(n + 1,), index of the first patch of each image, followed by the number of patches."""
        return self["first"][:]

    @cached_property
    def bounds(self) -> NDArray[np.int64]:
        """(n + 1,), index of the first pair of each image, followed by the number of pairs, counted in both orders."""
        return self["bounds"][:]

    @cached_property
    def patches(self) -> tuple[NDArray[Any], ...]:
        """``points``, ``image``, ``place``, ``count``, ``cell``, ``start`` as read-only arrays mapped from the file."""
        return tuple(self.mapped(name) for name in ("points", "image", "place", "count", "cell", "start"))

    @property
    def radius(self) -> float:
        """Largest distance of a pair, metres."""
        return float(self.facts["radius"])

    def damaged(self, found: object) -> DataError:
        """Return the error to raise if the arrays contradict each other."""
        return self._unfit("the file is damaged: its arrays are inconsistent", "as many partners as it counts", found)

    def _check_values(self) -> None:
        patches, cells = len(self["count"]), len(self["cell"])
        for name, last in (("first", patches), ("bounds", None)):
            values = self[name][:]
            ascending = len(values) and values[0] == 0 and (np.diff(values) >= 0).all()
            if not ascending or last not in (None, values[-1]):
                raise self._unfit(
                    f"array `{name}` does not contain valid bounds; `found` shows its last values",
                    f"ascending indices from 0 to {'the number of pairs' if last is None else last}",
                    values[-3:],
                )
        if len(self["start"]) != cells + 1:
            raise self._unfit(
                f"the number of start indices must be that of the cells ({cells}) plus 1", cells + 1, len(self["start"])
            )
        if not (0 < self.radius < np.inf and np.isfinite(self.facts["grid_origin"]).all()):
            raise self._unfit(
                f"the radius or the origin of the grid, {self.facts['grid_origin']}, is invalid",
                "a positive, finite radius and a finite origin",
                self.facts["radius"],
            )
