"""Batches of overlapping posed images with the 3D points of their patches."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from loco.errors import DataError, counted
from loco.training.augment import colour_augmentation, geometric_augmentation
from loco.training.jitter import draw_factors
from loco.training.pair_bank import PairBank
from loco.training.patch_selection import select_patches
from loco.training.scene_files import SceneFiles

logger = logging.getLogger(__name__)

Draw = tuple[int, int]  # an image of a batch: indices of its scene and frame


class Batch(NamedTuple):
    """Images with their patches.

    ``images`` (b, H, W, 3) uint8, None if the model does not use them; ``points``
    (b, h, w, 3) metres, world frame of each scene; ``use`` (b, h, w) bool, the patches used in the loss;
    ``scene`` (b,) int64; ``image`` (b,) int64, the index of each image in the batch of all ranks; ``encoded`` (b, C, h,
    w) float16, the output of the frozen part of the model, if it was stored; ``jitter`` (b, 5) float32, the factors by
    which the colours are changed (:mod:`loco.training.jitter`), None for no change; ``rows`` (m,) int64, the indices of
    the patches of ``use`` in row-major order, because computing them on a GPU would synchronise.
    """

    images: Tensor | None
    points: Tensor
    use: Tensor
    scene: Tensor
    image: Tensor
    encoded: Tensor | None
    jitter: Tensor | None = None
    rows: Tensor | None = None


class OverlappingImages:
    """Batches of overlapping images of a few scenes.

    A batch has ``scenes`` random scenes, and from each a connected group of ``images_per_scene`` images: a random
    image, then repeatedly an image that overlaps with one of the group by ``min_overlap`` or more and was taken
    ``min_baseline`` or more away from it.
    """

    def __init__(self, scenes: Sequence[SceneFiles], batch: Mapping[str, Any], seed: int) -> None:
        """
        Args:
            scenes: scenes from which images are drawn.
            batch: ``scenes``; ``images_per_scene``; ``min_overlap``; ``min_baseline``, metres.
            seed: seed of all draws.

        Raises:
            DataError: no scene has a pair of such images.
        """
        self.batch, self.seed = batch, seed
        self.pairs = [scene.pairs(batch["min_overlap"], batch["min_baseline"]) for scene in scenes]
        self._require_pairs(scenes)

    def _require_pairs(self, scenes: Sequence[SceneFiles]) -> None:
        """Check that a scene has a pair of images that can be drawn together, and log the scenes without one."""
        images = sum(pairs.shape[0] for pairs in self.pairs)
        without = [scene for scene, pairs in zip(scenes, self.pairs) if pairs.nnz == 0]
        wanted = (
            f"overlap by at least {self.batch['min_overlap']:g} and were taken at least "
            f"{self.batch['min_baseline']:g} m apart"
        )
        if len(without) == len(self.pairs):
            raise DataError(
                f"no two images of a training scene {wanted}",
                expected="images that overlap, taken from different positions",
                found=f"{counted(images, 'image')} in {counted(len(self.pairs), 'scene')}, without such a pair",
                remedy="lower `train.batch.min_overlap` or `.min_baseline`, or use scenes with more images",
            )
        if without:
            named = ", ".join(scene.frames.scene for scene in without[:5]) + (", ..." if len(without) > 5 else "")
            logger.warning(
                "in %d of %d training scenes (%s), no two images %s; images of these scenes are drawn at random",
                *(len(without), len(self.pairs), named, wanted),
            )

    def draw(self, step: int) -> list[Draw]:
        """Draw the images of batch number ``step``."""
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.permutation(len(self.pairs))[: self.batch["scenes"]].tolist()
        groups = [connected_group(self.pairs[number], self.batch["images_per_scene"], rng) for number in chosen]
        return [(number, image) for number, group in zip(chosen, groups) for image in group]


class Batches(IterableDataset):
    """An infinite sequence of batches. Batch k depends only on (seed, k).

    A training run that is resumed at step k therefore gets the same batches as an uninterrupted one, and the order of
    the batches does not depend on the number of workers. The images of a batch are distributed over the ranks.
    """

    def __init__(
        self,
        scenes: Sequence[SceneFiles],
        batch: Mapping[str, Any],
        augment: Mapping[str, float] | None,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        with_images: bool = True,
    ) -> None:
        """
        Args:
            scenes: training scenes.
            batch: settings of the batches: either ``radius``, ``images`` and ``scenes_by``, for batches of positive
                pairs (:class:`loco.training.pair_bank.PairBank`), or those of :class:`OverlappingImages`. In addition
                ``patches_per_image``, the number of valid patches per image that are used in the loss (None: all),
                selected as defined by ``patches_by`` (:func:`loco.training.patch_selection.select_patches`).
            augment: maximum changes of ``brightness``, ``contrast`` and ``colour``
                (:func:`loco.training.jitter.draw_factors`), and settings of
                :class:`loco.training.augment.GeometricAugmentation`; or None.
            seed: seed of all draws.
            start: number of the first batch.
            rank, world_size: rank of this process and number of ranks; they determine this rank's part of the images.
            with_images: False to skip reading the images, if the model only needs their stored encodings.

        Raises:
            DataError: no two images of a scene can be drawn together, or there are too few positive pairs.
            ConfigError: scenes with stored features are to be augmented geometrically.
        """
        self.scenes, self.batch, self.seed, self.start = scenes, batch, seed, start
        self.augment, self.geometry = colour_augmentation(augment), geometric_augmentation(augment, scenes, seed)
        self.rank, self.world_size, self.with_images = rank, world_size, with_images
        self.sampler: PairBank | OverlappingImages
        if "radius" in batch:
            self.sampler = PairBank(scenes, batch["radius"], batch["images"], batch["scenes_by"], seed)
        else:
            self.sampler = OverlappingImages(scenes, batch, seed)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        step, stride = self.start, 1
        if worker is not None:
            step, stride = self.start + worker.id, worker.num_workers
        while True:
            yield self.draw(step)
            step += stride

    def draw(self, step: int) -> Batch:
        """Return this rank's part of batch number ``step``.

        Raises:
            DataError: the batch has fewer images than there are ranks.
        """
        drawn = self.sampler.draw(step)
        if len(drawn) < self.world_size:  # on all ranks
            raise DataError(
                f"the scenes of batch {step} have fewer images than there are ranks",
                expected=f"at least {self.world_size} images",
                found=f"{counted(len(drawn), 'image')} in the batch",
                remedy="remove small scenes, use more scenes per batch (`batch.scenes`), or fewer `processes`",
            )
        places: list[int] = np.array_split(np.arange(len(drawn)), self.world_size)[self.rank].tolist()
        parts = [self._load(*drawn[place], np.random.default_rng([self.seed, step, place]), step) for place in places]
        columns = (None if column[0] is None else torch.stack(column) for column in zip(*parts))
        images, jitter, points, use, scene, encoded = columns
        return Batch(images, points, use, scene, torch.tensor(places), encoded, jitter, use.flatten().nonzero()[:, 0])

    def _load(self, number: int, frame: int, rng: np.random.Generator, step: int) -> tuple[Tensor | None, ...]:
        scene = self.scenes[number]
        if self.geometry:
            rgb, points, valid = self.geometry.load(scene, frame, self.geometry.size(step), rng)
        else:
            rgb = scene.frames["rgb"][frame] if self.with_images else None
            points, valid = scene.correspondences["points"][frame], scene.correspondences["valid"][frame]
        image = torch.from_numpy(rgb) if self.with_images else None
        jitter = draw_factors(self.augment, rng) if self.with_images and self.augment else None
        if self.batch["patches_per_image"] is not None:
            how = self.batch.get("patches_by", "image")
            valid = select_patches(valid, points, self.batch["patches_per_image"], how, rng)
        encoded = None if scene.encoded_path is None else torch.from_numpy(scene.encoded["encoded"][frame])
        return image, jitter, torch.from_numpy(points), torch.from_numpy(valid), torch.tensor(number), encoded


def connected_group(pairs: csr_array, count: int, rng: np.random.Generator) -> list[int]:
    """Draw at most ``count`` different images, each of which (except the first) forms a pair with an earlier one.

    If no remaining image forms a pair with those drawn so far, a random one is drawn.

    Args:
        pairs: (n, n) bool, sparse, symmetric.
        count: maximum number of images.
        rng: random number generator.
    """
    n = pairs.shape[0]
    chosen: list[int] = []
    free, near = np.ones(n, dtype=bool), np.zeros(n, dtype=bool)
    for _ in range(min(count, n)):
        candidates = np.flatnonzero(free & near) if (free & near).any() else np.flatnonzero(free)
        image = int(rng.choice(candidates))
        chosen.append(image)
        free[image] = False
        near[pairs.indices[pairs.indptr[image] : pairs.indptr[image + 1]]] = True
    return chosen
