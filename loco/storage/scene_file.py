"""One HDF5 file per scene and step: checked when opened, read one frame at a time, written atomically.

Every file states its format, version, dataset, scene and the ``frames_id`` of the frames that it describes, so that
files of different frames are never combined. Arrays are chunked by frame: reading a frame costs its own decoding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import h5py
import numpy as np

from loco.errors import DataError
from loco.storage.atomic import atomic_path


@dataclass(frozen=True)
class Array:
    """An array of the file: element type and shape, where equal letters stand for equal sizes."""

    dtype: str
    shape: tuple[str | int, ...]
    per_frame: bool = False  # large: chunked by its first axis and compressed


class SceneFile:
    """A scene's file, open for reading. Subclasses state ``format``, ``version`` and ``arrays``."""

    format: ClassVar[str]
    version: ClassVar[int]
    arrays: ClassVar[Mapping[str, Array]]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise DataError(
                f"cannot be opened as a file of {self.format}: {error}",
                file=self.path,
                remedy="delete it and run the workflow again",
            ) from error
        try:
            self._check()
        except BaseException:
            self.close()
            raise
        attributes = self._file.attrs
        self.dataset = str(attributes["dataset"])
        self.scene = str(attributes["scene"])
        self.frames_id = str(attributes["frames_id"])
        self.facts: dict[str, Any] = json.loads(attributes["facts"])

    def _check(self) -> None:
        found = (self._file.attrs.get("format"), self._file.attrs.get("version"))
        if found != (self.format, self.version):
            raise DataError(
                "is of another format or version",
                file=self.path,
                expected=f"{self.format} version {self.version}",
                found=f"{found[0]} version {found[1]}",
                remedy="delete it and run the workflow again",
            )
        sizes: dict[str, int] = {}
        for name, array in self.arrays.items():
            shape = self._file[name].shape
            expected = tuple(sizes.setdefault(d, s) if isinstance(d, str) else d for d, s in zip(array.shape, shape))
            if len(shape) != len(array.shape) or shape != expected:
                raise DataError(f"array `{name}` has the wrong shape", file=self.path, expected=expected, found=shape)

    def __getitem__(self, name: str) -> h5py.Dataset:
        return self._file[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def require_frames(self, other: SceneFile) -> None:
        """Check that both files describe the same frames of the same scene.

        Raises:
            DataError: they do not; using them together would misalign images and points.
        """
        if (self.dataset, self.scene) != (other.dataset, other.scene):
            raise DataError(
                "is of another scene than the file that it is used with",
                file=self.path,
                expected=f"{other.dataset}/{other.scene}, as {other.path}",
                found=f"{self.dataset}/{self.scene}",
            )
        if self.frames_id != other.frames_id:
            raise DataError(
                "was made from other frames than the file that it is used with",
                file=self.path,
                scene=self.scene,
                expected=f"frames {other.frames_id[:12]} of {other.path}",
                found=f"frames {self.frames_id[:12]}",
                remedy="delete both and run the workflow again",
            )

    @classmethod
    @contextmanager
    def create(
        cls,
        path: str | Path,
        dataset: str,
        scene: str,
        sizes: Mapping[str, int],
        facts: Mapping[str, Any] | None = None,
    ) -> Iterator[h5py.File]:
        """Write a new file; it appears under ``path`` when the block ends well.

        Args:
            path: where.
            dataset: name of the dataset.
            scene: name of the scene.
            sizes: size of every letter of ``arrays``.
            facts: what else to remember, JSON-able (counts, settings).

        Yields:
            The open file with its arrays made. The block fills them and sets the attribute ``frames_id``.
        """
        with atomic_path(path) as temporary, h5py.File(temporary, "w", libver="latest") as file:
            file.attrs.update(
                format=cls.format,
                version=cls.version,
                dataset=dataset,
                scene=scene,
            )
            cls.set_facts(file, facts or {})
            for name, array in cls.arrays.items():
                shape = tuple(sizes[d] if isinstance(d, str) else d for d in array.shape)
                dtype = h5py.string_dtype() if array.dtype == "str" else array.dtype
                layout: dict[str, Any] = {"maxshape": (None, *shape[1:])}
                if array.per_frame:
                    layout |= {"chunks": (1, *shape[1:]), "compression": "gzip", "compression_opts": 1, "shuffle": True}
                file.create_dataset(name, shape=shape, dtype=dtype, **layout)
            yield file

    @staticmethod
    def set_facts(file: h5py.File, facts: Mapping[str, Any]) -> None:
        """Remember ``facts`` in a file that is being written."""
        file.attrs["facts"] = json.dumps(facts, sort_keys=True)


class Frames(SceneFile):
    """Posed colour and depth images of a scene, all of one size (``results/frames``).

    ``rgb`` (n, h, w, 3) uint8; ``depth`` (n, h, w) float32 z-depth in metres, 0 = none; ``source`` (n, h, w) uint8
    says where a depth comes from (:attr:`SOURCES`); ``intrinsics`` (n, 3, 3) and ``pose`` (n, 4, 4, camera-to-world)
    float64; ``name`` (n,) the raw image names.
    """

    format = "loco-frames"
    version = 1
    SOURCES = ("none", "sensor", "mesh", "inpainted")
    arrays: ClassVar = {
        "name": Array("str", ("n",)),
        "intrinsics": Array("float64", ("n", 3, 3)),
        "pose": Array("float64", ("n", 4, 4)),
        "rgb": Array("uint8", ("n", "h", "w", 3), per_frame=True),
        "depth": Array("float32", ("n", "h", "w"), per_frame=True),
        "source": Array("uint8", ("n", "h", "w"), per_frame=True),
    }

    def __len__(self) -> int:
        return len(self["name"])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images, pixels."""
        return tuple(self["rgb"].shape[1:3])

    @property
    def names(self) -> list[str]:
        return [str(name) for name in self["name"].asstr()[:]]


class Correspondences(SceneFile):
    """Patch -> 3D point, and how much the images of a scene overlap (``results/correspondences``).

    ``points`` (n, h, w, 3) float32, world frame, metres; ``valid`` (n, h, w) bool; ``overlap`` (n, n) float32, where
    (i, j) is the fraction of image i's valid patches that image j sees. ``facts["stride"]`` is the patch size in
    pixels of the frames.
    """

    format = "loco-correspondences"
    version = 1
    arrays: ClassVar = {
        "points": Array("float32", ("n", "h", "w", 3), per_frame=True),
        "valid": Array("bool", ("n", "h", "w"), per_frame=True),
        "overlap": Array("float32", ("n", "n")),
    }

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the patch grid."""
        return tuple(self["valid"].shape[1:])


class Features(SceneFile):
    """Feature maps of a scene's frames by one extractor (``results/features``).

    ``features`` (n, h, w, c) float16, unit length up to rounding. The map covers the whole image: its cell
    (r, q) is centred at pixel ((q + 0.5) W / w, (r + 0.5) H / h).
    """

    format = "loco-features"
    version = 1
    arrays: ClassVar = {"features": Array("float16", ("n", "h", "w", "c"), per_frame=True)}


def frames_identity(names: Sequence[str], intrinsics: np.ndarray, poses: np.ndarray, size: tuple[int, int]) -> str:
    """Fingerprint of which frames, seen how: equal exactly if names, cameras and image size are."""
    digest = hashlib.sha256()
    digest.update(json.dumps([list(names), list(size)]).encode())
    digest.update(np.ascontiguousarray(intrinsics, dtype="<f8").tobytes())
    digest.update(np.ascontiguousarray(poses, dtype="<f8").tobytes())
    return digest.hexdigest()
