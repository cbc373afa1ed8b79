"""Batches of overlapping posed images with the 3D points of their patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from loco.errors import DataError
from loco.training.augment import colour_augmentation, geometric_augmentation
from loco.training.jitter import draw_factors
from loco.training.landmarks import thin
from loco.training.pair_bank import PairBank
from loco.training.scene_files import SceneFiles

Draw = tuple[int, int]  # an image of a batch: number of its scene, and of its frame


class Batch(NamedTuple):
    """Images with their patches.

    ``images`` (b, H, W, 3) uint8, None where the model does not look at them; ``points``
    (b, h, w, 3) metres, world frame of each scene; ``use`` (b, h, w) bool, the patches that take part in the loss;
    ``scene`` (b,) int64; ``image`` (b,) int64, the place of each in the batch of all processes; ``encoded``
    (b, C, h, w) float16, what the frozen part of the model makes of the images, if that was stored; ``jitter`` (b, 5)
    float32, the factors by which the colours are changed (:mod:`loco.training.jitter`), None for no change; ``rows``
    (m,) int64, the positions of the patches of ``use`` in reading order: to find them on a GPU would wait for it.
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
    """Images of batches, each of a few scenes, that overlap.

    A batch takes ``scenes`` scenes at random and from each a connected group of ``images_per_scene`` images: a random
    one, then time and again one that overlaps with one of the group by ``min_overlap`` or more, from a place that is
    ``min_baseline`` or more away.
    """

    def __init__(self, scenes: Sequence[SceneFiles], batch: Mapping[str, Any], seed: int) -> None:
        """
        Args:
            scenes: to draw from.
            batch: ``scenes``; ``images_per_scene``; ``min_overlap``; ``min_baseline``, metres.
            seed: of all draws.

        Raises:
            DataError: a scene has no image.
        """
        self.batch, self.seed = batch, seed
        self.pairs = [scene.pairs(batch["min_overlap"], batch["min_baseline"]) for scene in scenes]

    def draw(self, step: int) -> list[Draw]:
        """The images of batch number ``step``."""
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.permutation(len(self.pairs))[: self.batch["scenes"]].tolist()
        groups = [connected_group(self.pairs[number], self.batch["images_per_scene"], rng) for number in chosen]
        return [(number, image) for number, group in zip(chosen, groups) for image in group]


class Batches(IterableDataset):
    """An endless series of batches. Batch k depends on (seed, k) alone.

    So a training that resumes at step k sees what it would have seen, and several workers give the batches in the same
    order as none. The processes of a distributed training share the images of a batch out.
    """

    def __init__(
        self,
        scenes: Sequence[SceneFiles],
        batch: Mapping[str, Any],
        augment: Mapping[str, float] | None,
        seed: int,
        start: int = 0,
        process: int = 0,
        processes: int = 1,
        with_images: bool = True,
    ) -> None:
        """
        Args:
            scenes: to train on.
            batch: how batches are made. ``images`` images of positive pairs within ``radius`` metres, with scenes
                drawn ``scenes_by`` (:class:`PairBank`); or else as :class:`OverlappingImages`. And
                ``patches_per_image``, the number of valid patches of an image that take part in the loss (None: all),
                chosen as ``patches_by`` says (:func:`loco.training.landmarks.thin`).
            augment: largest relative changes of ``brightness``, ``contrast`` and ``colour``, and settings of
                :class:`loco.training.augment.GeometricAugmentation`; or None.
            seed: of all draws.
            start: number of the first batch.
            process, processes: this process takes its part of the images, one after another.
            with_images: False leaves the images unread, where their stored encodings are all that a model takes.

        Raises:
            DataError: a scene has no image, or there is no positive pair to draw.
            ConfigError: scenes with stored features are to be augmented.
        """
        self.scenes, self.batch, self.seed, self.start = scenes, batch, seed, start
        self.augment, self.geometry = colour_augmentation(augment), geometric_augmentation(augment, scenes, seed)
        self.process, self.processes, self.with_images = process, processes, with_images
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
        """This process's share of batch number ``step``."""
        drawn = self.sampler.draw(step)
        if len(drawn) < self.processes:  # in each of them alike
            raise DataError(
                f"the scenes of batch {step} have too few images for {self.processes} processes",
                expected=f"{self.processes} or more",
                found=str(len(drawn)),
                remedy="leave small scenes out, take more scenes a batch (`batch.scenes`), or fewer `processes`",
            )
        places: list[int] = np.array_split(np.arange(len(drawn)), self.processes)[self.process].tolist()
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
            valid = thin(valid, points, self.batch["patches_per_image"], how, rng)
        encoded = None if scene.encoded_path is None else torch.from_numpy(scene.encoded["encoded"][frame])
        return image, jitter, torch.from_numpy(points), torch.from_numpy(valid), torch.tensor(number), encoded


def connected_group(pairs: csr_array, count: int, rng: np.random.Generator) -> list[int]:
    """At most ``count`` different images, each but the first in a pair with one before it.

    Where no further image is, a random one starts a new group.

    Args:
        pairs: (n, n) bool, sparse, symmetric.
        count: how many.
        rng: source of the draws.
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
