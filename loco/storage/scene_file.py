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
from numpy.typing import NDArray

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
    may_be_empty: ClassVar[tuple[str, ...]] = ()  # sizes that are 0 where a writer does not name them

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
            sizes = dict.fromkeys(cls.may_be_empty, 0) | dict(sizes)
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

    Frames of a sparse model have no depth. Instead ``track`` (t, 3) float64 are its points, world frame, metres, and
    observation k shows point ``observation_track[k]`` at ``observation_uv[k]``, pixels, in frame
    ``observation_frame[k]``. Frames with depth have none of them: t = m = 0.
    """

    format = "loco-frames"
    version = 2
    SOURCES = ("none", "sensor", "mesh", "inpainted")
    may_be_empty = ("t", "m")
    arrays: ClassVar = {
        "name": Array("str", ("n",)),
        "intrinsics": Array("float64", ("n", 3, 3)),
        "pose": Array("float64", ("n", 4, 4)),
        "rgb": Array("uint8", ("n", "h", "w", 3), per_frame=True),
        "depth": Array("float32", ("n", "h", "w"), per_frame=True),
        "source": Array("uint8", ("n", "h", "w"), per_frame=True),
        "track": Array("float64", ("t", 3)),
        "observation_frame": Array("int64", ("m",)),
        "observation_track": Array("int64", ("m",)),
        "observation_uv": Array("float64", ("m", 2)),
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

    @property
    def sparse(self) -> bool:
        """Whether places are known as points of a sparse model, not as depth."""
        return len(self["track"]) > 0


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

    @property
    def extent(self) -> tuple[int, int]:
        """(height, width), pixels of the frames, that the grid covers."""
        return tuple(self.facts["extent"])


class Labels(SceneFile):
    """What each pixel of a scene's frames shows (``results/labels``).

    ``instance`` (n, h, w) int32, the number of the object, :attr:`VOID` where the ray meets none; ``semantic``
    (n, h, w) uint8, its category: an index of :data:`loco.datasets.labels.MPCAT40`, 0 = void.

    ``facts["objects"]`` lists the objects by their numbers: ``label`` (raw), ``category``, ``stuff`` (bool),
    ``triangles``, ``pixels``, ``frames``. ``facts["counts"]``: how many ``objects`` have triangles, ``things`` and
    ``stuff`` among them, and ``void``, the share of pixels without category.
    """

    format = "loco-labels"
    version = 1
    VOID = -1
    arrays: ClassVar = {
        "instance": Array("int32", ("n", "h", "w"), per_frame=True),
        "semantic": Array("uint8", ("n", "h", "w"), per_frame=True),
    }


class Features(SceneFile):
    """Feature maps of a scene's frames by one extractor (``results/features``).

    ``features`` (n, h, w, c) float16, unit length up to rounding. The map covers ``extent``: its cell
    (r, q) is centred at pixel ((q + 0.5) width / w, (r + 0.5) height / h). ``token`` (n, t) float16 is the class token
    of each frame; t = 0 where the extractor has none. ``norm`` (n, h, w) float32 is how long each feature was.
    """

    format = "loco-features"
    version = 3
    may_be_empty = ("t",)
    arrays: ClassVar = {
        "features": Array("float16", ("n", "h", "w", "c"), per_frame=True),
        "norm": Array("float32", ("n", "h", "w"), per_frame=True),
        "token": Array("float16", ("n", "t")),
    }

    @property
    def extent(self) -> tuple[int, int]:
        """(height, width), pixels of the frames, that the map covers."""
        return tuple(self.facts["extent"])

    def map(self, i: int) -> NDArray[np.float16]:
        """Unit features (h, w, c) of frame ``i``.

        Raises:
            DataError: some are not finite; they would be ranked in some order, and score.
        """
        found = self["features"][i]
        if not np.isfinite(found).all():
            raise DataError(
                "holds features that are not finite",
                file=self.path,
                scene=self.scene,
                found=f"frame {i}",
                remedy="look at the weights of the extractor: a network that diverged gives such features",
            )
        return found


class Encoded(SceneFile):
    """What the frozen part of a model makes of a scene's frames (``results/encoded``), for training to read.

    ``encoded`` (n, c, h, w) float16: the output of ``encode`` of the extractor that ``facts["encoder"]`` describes.
    """

    format = "loco-encoded"
    version = 1
    arrays: ClassVar = {"encoded": Array("float16", ("n", "c", "h", "w"), per_frame=True)}


def prepared_bytes(count: int, size: tuple[int, int], stride: int) -> int:
    """About how much disk the frames and correspondences of ``count`` images of ``size`` take, bytes.

    As measured on files of simulated scenes: 2 bytes a pixel of colour, 2.5 of depth with its source, 9 a patch, and
    the matrix of overlaps as it is.
    """
    pixels = size[0] * size[1]
    return int(count * (4.5 * pixels + 9 * pixels / stride**2) + 4 * count**2)


def frames_identity(names: Sequence[str], intrinsics: np.ndarray, poses: np.ndarray, size: tuple[int, int]) -> str:
    """Fingerprint of which frames, seen how: equal exactly if names, cameras and image size are."""
    digest = hashlib.sha256()
    digest.update(json.dumps([list(names), list(size)]).encode())
    digest.update(np.ascontiguousarray(intrinsics, dtype="<f8").tobytes())
    digest.update(np.ascontiguousarray(poses, dtype="<f8").tobytes())
    return digest.hexdigest()
