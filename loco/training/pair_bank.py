"""Batches of images that come from positive pairs of patches, drawn uniformly over all of them (LoCo, sec. 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from loco.errors import DataError, counted
from loco.geometry.near_pairs import NearPairs, partners
from loco.storage import PairIndex
from loco.training.scene_files import SceneFiles

_TRIES = 1000  # maximum number of draws of pairs per batch, and of draws of a partner


class PairBank:
    """Images of batches, drawn in pairs from positive pairs of patches.

    A positive pair consists of two patches of different images of a scene, up to ``radius`` apart. Pairs are drawn with
    replacement until their images fill a batch: first a scene, then one of its pairs, uniformly. No pair is stored: the
    index of a scene (:class:`loco.storage.PairIndex`) takes 24 bytes per patch, however many pairs there are, and stays
    in its file, of which a draw reads a few pages.

    If a single image is missing, an image that has a positive pair with an image of the batch is added. Each image of a
    batch therefore has a partner in the batch. If the scenes of the batch have no further image of this kind, any image
    with positive pairs is added instead.
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
            scenes: scenes from which images are drawn, with the indices of their pairs. Scenes without positive pairs
                are never drawn.
            radius: maximum distance of a positive pair, metres (``batch.radius``); must be that of the indices.
            images: number of images per batch, 2 or more.
            scenes_by: ``equal`` draws every scene with positive pairs with the same probability; ``size`` draws a scene
                with a probability in proportion to its number of positive pairs, so that all pairs are equally likely.
            seed: seed of all draws.

        Raises:
            DataError: there are fewer than ``images`` images with positive pairs; a scene has no index, or an index for
                another radius.
        """
        self.scenes, self.images, self.seed = scenes, images, seed
        counts, paired = [], []
        for number, scene in enumerate(scenes):
            bounds = _checked_index(scene, radius).bounds
            counts.append(bounds[-1] // 2)
            found = np.flatnonzero(np.diff(bounds))
            paired.append(np.stack([np.full(len(found), number), found], axis=1))
        self.pair_counts = np.array(counts, np.int64)  # (scenes,) number of positive pairs
        self.paired = np.concatenate(paired)  # (k, 2) scene and frame of each image with partners
        if len(self.paired) < images:
            raise DataError(
                f"too few images have positive pairs with another image of their scene within {radius:g} m",
                expected=f"at least {images} images, the size of a batch",
                found=f"{len(self.paired)} in {counted(len(scenes), 'scene')}",
                remedy=(
                    "train on more images or on images that overlap more, use fewer images per batch, or raise "
                    "`batch.radius`"
                ),
            )
        weights = self.pair_counts if scenes_by == "size" else self.pair_counts > 0
        self.weights = weights / weights.sum()

    def draw(self, step: int) -> list[tuple[int, int]]:
        """Draw the images of batch number ``step``, as indices of scene and frame; all are different.

        The images depend only on the seed and ``step``.
        """
        rng = np.random.default_rng([self.seed, step])
        chosen: dict[tuple[int, int], None] = {}  # in the order of the draws
        for _ in range(_TRIES):
            if len(chosen) > self.images - 2:
                break
            number = int(rng.choice(len(self.scenes), p=self.weights))
            chosen |= {(number, image): None for image in draw_pair(self.scenes[number].pair_index, rng)}
        while len(chosen) < self.images:
            chosen[self._draw_partner(list(chosen), rng)] = None
        return list(chosen)

    def _draw_partner(self, chosen: list[tuple[int, int]], rng: np.random.Generator) -> tuple[int, int]:
        """Draw a further image: the partner in a random positive pair of an image of ``chosen``, if one is found."""
        taken = set(chosen)
        for _ in range(_TRIES):
            number, image = chosen[rng.integers(len(chosen))]
            partner = (number, draw_pair(self.scenes[number].pair_index, rng, image)[1])
            if partner not in taken:
                return partner
        rest = [image for image in map(tuple, self.paired.tolist()) if image not in taken]
        return rest[rng.integers(len(rest))]


def draw_pair(index: PairIndex, rng: np.random.Generator, image: int | None = None) -> tuple[int, int]:
    """Draw a random positive pair, and return the images of its first and its second patch.

    Pairs are numbered in the order of their first patches, and the pairs of a patch in the order of its partners in the
    index.

    Args:
        index: index of the pairs of a scene, which must have a pair.
        rng: random number generator.
        image: draw among the pairs whose first patch is of this image, which must have one; None for all pairs.

    Raises:
        DataError: the index is damaged: its arrays contradict each other.
    """
    bounds, first = index.bounds, index.first
    pair = int(rng.integers(0, bounds[-1]) if image is None else rng.integers(*bounds[image : image + 2]))
    image = int(np.searchsorted(bounds, pair, side="right")) - 1
    points, images, place, counts, cells, starts = index.patches
    own = counts[first[image] : first[image + 1]]
    last = np.cumsum(own, dtype=np.int64)  # one past the last pair of each patch, within the image
    if len(own) == 0 or last[-1] != bounds[image + 1] - bounds[image]:
        raise index.damaged(f"different counts in frame {image}")
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
    """Return the index of the positive pairs of a scene.

    Raises:
        DataError: the scene has no index, or an index for another radius.
    """
    index = scene.pair_index
    if index is None:
        raise DataError(
            "the scene has no index of positive pairs",
            file=scene.frames_path,
            scene=scene.frames.scene,
            remedy="create one with the step `pairs` (loco.steps.pairs), and pass it to the training",
        )
    if index.radius != radius:
        raise DataError(
            "the index contains pairs within another radius",
            file=index.path,
            scene=index.scene,
            expected=f"{radius:g} m",
            found=f"{index.radius:g} m",
            remedy="create the index with the radius of the batches (`batch.radius`)",
        )
    return index
