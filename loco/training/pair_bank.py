"""Batches of images that come from positive pairs of patches, drawn uniformly over all of them (LoCo, sec. 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from tqdm import tqdm

from loco.errors import DataError
from loco.training.scene_files import SceneFiles

_TRIES = 1000  # draws after which a batch no longer waits for pairs that bring new images


class PairBank:
    """Images of batches, two by two from positive pairs.

    A positive pair is two patches of different images of a scene, up to ``radius`` apart. Pairs are drawn, with
    replacement, until their images are as many as a batch takes: first a scene, then one of its pairs, each as likely
    as any other. No pair is stored: a scene takes about 60 bytes a patch, however many pairs there are.

    Where one place is left, at which a pair no longer fits, it goes to a new image that has a positive pair with one of
    the batch. So each image of a batch has a partner there; unless no such image is found, as when the scenes of the
    batch have no further ones. Then the place goes to any image that has partners somewhere.
    """

    def __init__(
        self,
        scenes: Sequence[SceneFiles],
        radius: float,
        images: int,
        scenes_by: Literal["equal", "size"],
        seed: int,
    ) -> None:
        """
        Args:
            scenes: to draw from. Scenes without positive pairs are never drawn.
            radius: largest distance of a positive pair, metres; that of the loss.
            images: number of images of a batch, 2 or more.
            scenes_by: draw scenes equally often, or in proportion to their positive pairs (``size``), so that all pairs
                of all scenes are equally likely.
            seed: of all draws.

        Raises:
            DataError: there are fewer than ``images`` images with positive pairs.
        """
        self.images, self.seed = images, seed
        self.scenes = [_index(scene, radius) for scene in tqdm(scenes, desc="positive pairs", unit="scene", delay=1)]
        self.paired = [(number, image) for number, scene in enumerate(self.scenes) for image in scene.paired]
        if len(self.paired) < images:
            raise DataError(
                f"too few images show, within {radius:g} m, a place that another image of their scene shows too",
                expected=f"{images} images, to make a batch",
                found=f"{len(self.paired)} in {len(scenes)} scenes",
                remedy="train on more images, or on images that overlap more; take fewer images a batch; or raise rho",
            )
        weights = self.pair_counts if scenes_by == "size" else self.pair_counts > 0
        self.weights = weights / weights.sum()

    @property
    def pair_counts(self) -> NDArray[np.int64]:
        """(scenes,) number of positive pairs of each scene."""
        return np.array([scene.count // 2 for scene in self.scenes])

    def draw(self, step: int) -> list[tuple[int, int]]:
        """The images of batch number ``step``, by the numbers of their scene and frame; all different.

        They depend on the seed and ``step`` alone.
        """
        rng = np.random.default_rng([self.seed, step])
        chosen: dict[tuple[int, int], None] = {}  # in the order in which they came
        for _ in range(_TRIES):
            if len(chosen) > self.images - 2:
                break
            number = int(rng.choice(len(self.scenes), p=self.weights))
            chosen |= {(number, image): None for image in self.scenes[number].draw(rng)}
        while len(chosen) < self.images:
            chosen[self._draw_partner(list(chosen), rng)] = None
        return list(chosen)

    def _draw_partner(self, chosen: list[tuple[int, int]], rng: np.random.Generator) -> tuple[int, int]:
        """A further image; if one is found, the partner in a random positive pair of a random one of ``chosen``."""
        taken = set(chosen)
        for _ in range(_TRIES):
            number, image = chosen[rng.integers(len(chosen))]
            partner = (number, self.scenes[number].draw(rng, image)[1])
            if partner not in taken:
                return partner
        rest = [image for image in self.paired if image not in taken]
        return rest[rng.integers(len(rest))]


class ScenePairs:
    """The positive pairs of a scene, in both orders: numbered by their first patch, and found when asked for."""

    def __init__(self, points: NDArray[np.floating], images: NDArray[np.integer], radius: float) -> None:
        """
        Args:
            points: (m, 3) of the scene's patches, metres.
            images: (m,) the image of each, ascending.
            radius: largest distance of a pair, metres.
        """
        self.tree, self.images, self.radius = cKDTree(points), images.astype(np.int32), radius
        ends = np.searchsorted(images, np.arange(images.max(initial=-1) + 1), side="right")
        partners = [self._count_partners(own) for own in np.split(points, ends[:-1])]
        self.last = np.cumsum(np.concatenate(partners), dtype=np.int64)  # number after that of each patch's last pair
        self.bounds = np.concatenate([[0], self.last])[np.concatenate([[0], ends])]  # the same by image

    @property
    def count(self) -> int:
        """Number of pairs, each in both orders."""
        return int(self.bounds[-1])

    @property
    def paired(self) -> list[int]:
        """Images with any pairs."""
        return np.flatnonzero(np.diff(self.bounds)).tolist()

    def draw(self, rng: np.random.Generator, image: int | None = None) -> tuple[int, int]:
        """The images of a random pair: any, or any whose first patch is of ``image``. There must be one."""
        first, last = (0, self.count) if image is None else self.bounds[image : image + 2]
        pair = rng.integers(first, last)
        patch = np.searchsorted(self.last, pair, side="right")
        others = self.images[self.tree.query_ball_point(self.tree.data[patch], self.radius)]
        others = others[others != self.images[patch]]
        return int(self.images[patch]), int(others[pair - self.last[patch]])  # counted from the end

    def _count_partners(self, own: NDArray) -> NDArray[np.int64]:
        """How many patches of other images are near each of an image's patches ``own`` (k, 3)."""
        near = self.tree.query_ball_point(own, self.radius, return_length=True)
        # Two trees may round differently. A hair more here, and no patch has more partners than `draw` finds.
        within = cKDTree(own).query_ball_point(own, self.radius * (1 + 1e-9), return_length=True)
        return np.maximum(near - within, 0)


def _index(scene: SceneFiles, radius: float) -> ScenePairs:
    valid = scene.correspondences["valid"][:]
    return ScenePairs(scene.correspondences["points"][:][valid], np.nonzero(valid)[0], radius)
