"""Batches of images that come from positive pairs of patches, drawn uniformly over all of them (LoCo, sec. 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from loco.errors import DataError
from loco.geometry.near_pairs import NearPairs, partners
from loco.storage import PairIndex
from loco.training.scene_files import SceneFiles

_TRIES = 1000  # draws after which a batch no longer waits for pairs that bring new images


class PairBank:
    """Images of batches, two by two from positive pairs.

    A positive pair is two patches of different images of a scene, up to ``radius`` apart. Pairs are drawn, with
    replacement, until their images are as many as a batch takes: first a scene, then one of its pairs, each as likely
    as any other. No pair is stored: the index of a scene (:class:`loco.storage.PairIndex`) takes 24 bytes per patch,
    however many pairs there are, and stays in its file, of which a draw reads a few pages.

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
            scenes: to draw from, with the indices of their pairs. Scenes without positive pairs are never drawn.
            radius: largest distance of a positive pair, metres; that of the loss.
            images: number of images of a batch, 2 or more.
            scenes_by: draw scenes equally often, or in proportion to their positive pairs (``size``), so that all pairs
                of all scenes are equally likely.
            seed: of all draws.

        Raises:
            DataError: there are fewer than ``images`` images with positive pairs; a scene has no index, or one of
                another radius.
        """
        self.scenes, self.images, self.seed = scenes, images, seed
        counts, paired = [], []
        for number, scene in enumerate(scenes):
            bounds = _checked_index(scene, radius).bounds
            counts.append(bounds[-1] // 2)
            found = np.flatnonzero(np.diff(bounds))
            paired.append(np.stack([np.full(len(found), number), found], axis=1))
        self.pair_counts = np.array(counts, np.int64)  # (scenes,) number of positive pairs of each
        self.paired = np.concatenate(paired)  # (k, 2) scene and frame of each image that has partners
        if len(self.paired) < images:
            raise DataError(
                f"too few images show, within {radius:g} m, a place that another image of their scene shows too",
                expected=f"{images} images, to make a batch",
                found=f"{len(self.paired)} in {len(scenes)} scenes",
                remedy="train on more images, or on images that overlap more; take fewer images a batch; or raise rho",
            )
        weights = self.pair_counts if scenes_by == "size" else self.pair_counts > 0
        self.weights = weights / weights.sum()

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
            chosen |= {(number, image): None for image in draw_pair(self.scenes[number].pair_index, rng)}
        while len(chosen) < self.images:
            chosen[self._draw_partner(list(chosen), rng)] = None
        return list(chosen)

    def _draw_partner(self, chosen: list[tuple[int, int]], rng: np.random.Generator) -> tuple[int, int]:
        """A further image; if one is found, the partner in a random positive pair of a random one of ``chosen``."""
        taken = set(chosen)
        for _ in range(_TRIES):
            number, image = chosen[rng.integers(len(chosen))]
            partner = (number, draw_pair(self.scenes[number].pair_index, rng, image)[1])
            if partner not in taken:
                return partner
        rest = [image for image in map(tuple, self.paired.tolist()) if image not in taken]
        return rest[rng.integers(len(rest))]


def draw_pair(index: PairIndex, rng: np.random.Generator, image: int | None = None) -> tuple[int, int]:
    """The images of a random positive pair: any, or any whose first patch is of ``image``. There must be one.

    Pairs are numbered by their first patch, and those of a patch as its partners come in the index.

    Raises:
        DataError: the index contradicts itself.
    """
    bounds, first = index.bounds, index.first
    pair = int(rng.integers(0, bounds[-1]) if image is None else rng.integers(*bounds[image : image + 2]))
    image = int(np.searchsorted(bounds, pair, side="right")) - 1
    points, images, place, counts, cells, starts = index.patches
    own = counts[first[image] : first[image + 1]]
    last = np.cumsum(own, dtype=np.int64)  # number after that of each patch's last pair, in the image
    if len(own) == 0 or last[-1] != bounds[image + 1] - bounds[image]:
        raise index.damaged(f"other counts in frame {image}")
    patch = int(np.searchsorted(last, pair - bounds[image], side="right"))
    point = int(place[first[image] + patch])
    if point >= len(points):
        raise index.damaged(f"patch {point} of {len(points)}")
    near = NearPairs(points, images, place, counts, cells, starts, np.array(index.facts["grid_origin"]))
    found = partners(near, point, index.radius)
    if len(found) != own[patch] or found.max() >= len(first) - 1:
        raise index.damaged(f"{len(found)} partners of frame {image}, not {own[patch]}")
    return image, int(found[pair - bounds[image] - last[patch]])  # counted from the end


def _checked_index(scene: SceneFiles, radius: float) -> PairIndex:
    """The index of a scene's pairs within ``radius``."""
    index = scene.pair_index
    if index is None:
        raise DataError(
            "has no index of its positive pairs",
            file=scene.frames_path,
            scene=scene.frames.scene,
            remedy="write one with the step `pairs` (loco.steps.pairs), and give it to the training",
        )
    if index.radius != radius:
        raise DataError(
            "is an index of pairs within another radius",
            file=index.path,
            scene=index.scene,
            expected=f"{radius:g} m",
            found=f"{index.radius:g} m",
            remedy="write the index with the radius of the batches (`batch.radius`)",
        )
    return index
