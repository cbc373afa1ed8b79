"""The files of a scene that training reads, opened when they are accessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.sparse import csr_array

from loco.errors import DataError
from loco.geometry.image_pairs import overlapping_pairs
from loco.storage import Correspondences, Encoded, PairIndex
from loco.storage.open_files import LazyFiles


@dataclass(frozen=True)
class SceneFiles(LazyFiles):
    """The files of a scene: frames, correspondences and, optionally, encoded frames and the index of positive pairs."""

    correspondences_path: Path
    encoded_path: Path | None = None
    pairs_path: Path | None = None

    @property
    def correspondences(self) -> Correspondences:
        return self.opened(Correspondences, self.correspondences_path)

    @property
    def encoded(self) -> Encoded | None:
        return None if self.encoded_path is None else self.opened(Encoded, self.encoded_path)

    @property
    def pair_index(self) -> PairIndex | None:
        return None if self.pairs_path is None else self.opened(PairIndex, self.pairs_path)

    def pairs(self, min_overlap: float, min_baseline: float) -> csr_array:
        """Return the pairs of images that can be drawn together, (n, n) bool (:func:`overlapping_pairs`)."""
        return overlapping_pairs(self.frames["pose"][:], self.correspondences["overlap"], min_overlap, min_baseline)


def open_scenes(paths: Sequence[Sequence[Path | None]]) -> list[SceneFiles]:
    """Open scenes by their files: frames, correspondences, encoded frames, pairs; missing files are None or omitted.

    Every file is opened once, to validate it.

    Raises:
        DataError: the files of a scene do not belong together, or scenes differ in the size of their images.
    """
    scenes = [SceneFiles(*(file and Path(file) for file in files)) for files in paths]
    sizes = [_checked_size(scene) for scene in scenes]
    for scene, size in zip(scenes, sizes):
        if size != sizes[0]:
            raise DataError(
                "the images differ in size from those of the first scene of the split",
                file=scene.frames_path,
                scene=scene.frames.scene,
                expected=sizes[0],
                found=size,
                remedy="set the same `frames.height` and `frames.width` for all datasets of the split",
            )
    return scenes


def _checked_size(scene: SceneFiles) -> tuple[int, int]:
    """Return the (height, width) of a scene's images, pixels, after opening and thereby validating its files."""
    scene.correspondences, scene.encoded, scene.pair_index  # noqa: B018
    return scene.frames.size
