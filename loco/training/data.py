"""Batches of overlapping posed images with the 3D points of their patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from loco.errors import DataError
from loco.geometry.image_pairs import overlapping_pairs
from loco.storage import Correspondences, Frames


class Batch(NamedTuple):
    """Images with their patches.

    ``images`` (b, 3, H, W) float32 colours in [0, 1]; ``points`` (b, h, w, 3) metres, world frame of each scene;
    ``use`` (b, h, w) bool, the patches that take part in the loss; ``scene`` (b,) int64.
    """

    images: Tensor
    points: Tensor
    use: Tensor
    scene: Tensor


@dataclass(frozen=True)
class SceneFiles:
    """A scene's frames and correspondences, opened in the process that first reads them."""

    frames_path: Path
    correspondences_path: Path

    @cached_property
    def frames(self) -> Frames:
        return Frames(self.frames_path)

    @cached_property
    def correspondences(self) -> Correspondences:
        correspondences = Correspondences(self.correspondences_path)
        correspondences.require_frames(self.frames)
        return correspondences

    def pairs(self, min_overlap: float, min_baseline: float) -> NDArray[np.bool_]:
        """(n, n): which images may follow each other in a batch (:func:`overlapping_pairs`)."""
        return overlapping_pairs(self.frames["pose"][:], self.correspondences["overlap"][:], min_overlap, min_baseline)


class OverlappingImages(IterableDataset):
    """An endless series of batches, each of a few scenes, whose images overlap.

    A batch takes ``scenes`` scenes at random and from each a connected group of ``images_per_scene`` images: a random
    one, then time and again one that overlaps with one of the group by ``min_overlap`` or more, from a place that is
    ``min_baseline`` or more away. Batch k depends on (seed, k) alone, so a training that resumes at step k sees what it
    would have seen.
    """

    def __init__(
        self,
        scenes: Sequence[SceneFiles],
        batch: Mapping[str, Any],
        augment: Mapping[str, float] | None,
        seed: int,
        start: int = 0,
    ) -> None:
        """
        Args:
            scenes: to train on.
            batch: ``scenes``; ``images_per_scene``; ``min_overlap``; ``min_baseline``, metres; ``patches_per_image``,
                the number of valid patches of an image that take part in the loss (None: all).
            augment: largest relative changes of ``brightness``, ``contrast`` and ``colour``, or None.
            seed: of all draws.
            start: number of the first batch.

        Raises:
            DataError: a scene has no image.
        """
        self.scenes, self.batch, self.augment, self.seed, self.start = scenes, batch, augment, seed, start
        self.pairs = [scene.pairs(batch["min_overlap"], batch["min_baseline"]) for scene in scenes]

    def __iter__(self) -> Iterator[Batch]:
        step = self.start
        while True:
            yield self.draw(step)
            step += 1

    def draw(self, step: int) -> Batch:
        """Batch number ``step``."""
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.permutation(len(self.scenes))[: self.batch["scenes"]]
        parts = [self._draw_scene(number, rng) for number in chosen]
        return Batch(*(torch.cat(tensors) for tensors in zip(*parts)))

    def _draw_scene(self, number: int, rng: np.random.Generator) -> Batch:
        scene = self.scenes[number]
        indices = connected_group(self.pairs[number], self.batch["images_per_scene"], rng)
        images = torch.from_numpy(np.stack([scene.frames["rgb"][i] for i in indices])).permute(0, 3, 1, 2) / 255
        if self.augment:
            images = jitter(images, self.augment, rng)
        use = np.stack([scene.correspondences["valid"][i] for i in indices])
        if self.batch["patches_per_image"] is not None:
            use = np.stack([_thin(valid, self.batch["patches_per_image"], rng) for valid in use])
        points = np.stack([scene.correspondences["points"][i] for i in indices])
        return Batch(images, torch.from_numpy(points), torch.from_numpy(use), torch.full((len(indices),), int(number)))


def connected_group(pairs: NDArray[np.bool_], count: int, rng: np.random.Generator) -> list[int]:
    """At most ``count`` different images, each but the first in a pair with one before it.

    Where no further image is, a random one starts a new group.

    Args:
        pairs: (n, n), symmetric.
        count: how many.
        rng: source of the draws.
    """
    n = len(pairs)
    chosen: list[int] = []
    free, near = np.ones(n, dtype=bool), np.zeros(n, dtype=bool)
    for _ in range(min(count, n)):
        candidates = np.flatnonzero(free & near) if (free & near).any() else np.flatnonzero(free)
        image = int(rng.choice(candidates))
        chosen.append(image)
        free[image] = False
        near |= pairs[image]
    return chosen


def jitter(images: Tensor, amount: Mapping[str, float], rng: np.random.Generator) -> Tensor:
    """Change the exposure, contrast and colour balance of each image, as different cameras would.

    Args:
        images: (b, 3, H, W) colours in [0, 1].
        amount: largest relative change of ``brightness``, ``contrast`` and ``colour`` (of each channel).
        rng: source of the draws.
    """

    def factors(name: str, channels: int) -> Tensor:
        drawn = rng.uniform(-amount[name], amount[name], size=(len(images), channels, 1, 1))
        return torch.from_numpy(np.exp(drawn)).to(images.dtype)

    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * factors("contrast", 1) + mean
    return (images * factors("brightness", 1) * factors("colour", 3)).clamp_(0, 1)


def open_scenes(paths: Sequence[tuple[Path, Path]]) -> list[SceneFiles]:
    """Scenes by their (frames, correspondences) files.

    Raises:
        DataError: the files of a scene do not belong together, or scenes differ in the size of their images.
    """
    scenes = [SceneFiles(Path(frames), Path(correspondences)) for frames, correspondences in paths]
    for scene in scenes:
        scene.correspondences  # opens both files, and checks that they belong together  # noqa: B018
        if scene.frames.size != scenes[0].frames.size:
            raise DataError(
                "has images of another size than the first scene of the split",
                file=scene.frames_path,
                scene=scene.frames.scene,
                expected=scenes[0].frames.size,
                found=scene.frames.size,
                remedy="give the datasets of one split the same `frames.height` and `frames.width`",
            )
    return scenes


def _thin(valid: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A random ``count`` of the valid patches."""
    keep = np.zeros(valid.size, dtype=bool)
    keep[rng.permutation(np.flatnonzero(valid))[:count]] = True
    return keep.reshape(valid.shape)
