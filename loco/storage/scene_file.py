"""One HDF5 file per scene and step: checked when opened, read one frame at a time, written atomically.

A file states its format, version, dataset, scene, the content id of the frames that it describes (files of different
frames are never combined), and its provenance record (:mod:`loco.records`). Arrays are chunked by frame, so reading a
frame decodes only this frame. Every chunk has a checksum, and the whole file has a content id
(:mod:`loco.storage.content_id`).
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from loco.errors import DataError
from loco.records import Recipe, Record, require_recipe
from loco.storage.atomic import atomic_path
from loco.storage.content_id import BLANK, read_content_id, seal
from loco.storage.hdf5_file import CheckedFile
from loco.storage.reading import REGENERATE, reading

_CHECKED: set[tuple[str | int, ...]] = set()  # files that were checked and may be opened again
_HARMLESS = 1 << 26  # bytes; smaller arrays are read regardless of the size of the file
_LARGEST_RATIO = 1100  # largest compression ratio of an array; DEFLATE reaches 1032
_LARGEST_FRAME = 1 << 29  # largest number of bytes per frame of an array
_USER_BLOCK = 512  # bytes before the HDF5 data, which contain the content id
_ALIGNMENT = 64  # alignment of memory-mapped arrays in bytes; NumPy copies arrays that are not aligned
_NO_CACHE = 0  # bytes of HDF5's chunk cache per array and open file (8 MB by default)


@dataclass(frozen=True)
class Array:
    """An array of the file: element type and shape, where equal letters denote equal sizes.

    ``frames`` is how a large array is stored. An array with one entry per frame is ``compressed`` (depth and labels) or
    ``plain`` (features and the arrays that training reads at every step, because gzip makes reading 6 to 12 times
    slower). ``mapped`` stores an array contiguously and without checksums, for :meth:`SceneFile.mapped`. None for small
    arrays.
    """

    dtype: str
    shape: tuple[str | int, ...]
    frames: Literal["compressed", "plain", "mapped"] | None = None

    def layout(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return how HDF5 stores the array: chunked, because only chunks have checksums, unless it is mapped."""
        if self.frames == "mapped":
            return {}
        layout: dict[str, Any] = {"maxshape": (None, *shape[1:]), "fletcher32": True}
        if self.frames:
            layout["chunks"] = (1, *shape[1:])
        if self.frames == "compressed":
            layout |= {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        return layout


class StoredArray:
    """An array of an open file. Reading a part of it raises a DataError if the file is damaged."""

    def __init__(self, dataset: h5py.Dataset, path: Path, scene: str) -> None:
        self._dataset, self._path, self._scene = dataset, path, scene
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype = dataset.dtype
        self.size: int = dataset.size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        with reading(self._path, self._scene):
            return self._dataset[index]


class SceneFile:
    """A file of a scene, open for reading. Subclasses define ``format``, ``version`` and ``arrays``.

    Attributes:
        dataset, scene: names of its dataset and scene.
        frames_id: content id of the frames that it describes; for frames, their own content id.
        content_id: SHA-256 of the content of the file.
        facts: further metadata from the writer.
        record: provenance record; None if it was written without one.
    """

    format: ClassVar[str]
    version: ClassVar[int]
    arrays: ClassVar[Mapping[str, Array]]
    may_be_empty: ClassVar[tuple[str, ...]] = ()  # sizes that are 0 unless the writer sets them

    def __init__(self, path: str | Path, expected: Recipe | None = None) -> None:
        """Open a file.

        Args:
            path: the file.
            expected: required recipe; None accepts any.

        Raises:
            DataError: it is missing or damaged, has a different format, or was not made as expected.
        """
        self.path = Path(path)
        self.content_id = read_content_id(self.path)
        with ExitStack() as on_failure, reading(self.path):
            self._file = on_failure.enter_context(h5py.File(self.path, "r", locking=False, rdcc_nbytes=_NO_CACHE))
            self._check_format()
            self._require_own_data()
            self.facts: dict[str, Any] = _read_json(self._file["facts"])
            record = _read_json(self._file["record"])
            self.record = Record.from_json(record) if record is not None else None
            self.dataset, self.scene = (_read_text(self._file, name) for name in ("dataset", "scene"))
            self.frames_id = _read_text(self._file, "frames_id") or self.content_id
            self._arrays = {name: StoredArray(self._file[name], self.path, self.scene) for name in self.arrays}
            status = self.path.stat()
            state = (self.content_id, status.st_ino, status.st_size, status.st_mtime_ns)
            if state not in _CHECKED:
                self._check_arrays()
                self._check_digests()
                self._check_values()
                _CHECKED.add(state)
            self.require_recipe(expected)
            on_failure.pop_all()

    def require_recipe(self, expected: Recipe | None) -> None:
        """Check that the file was made as expected; None accepts any recipe.

        Raises:
            DataError: it was not made as expected.
        """
        if expected is None:
            return
        if self.path.stem != self.scene:  # the plan names all files by their scene
            raise self._unfit("the file belongs to another scene than its name states", self.path.stem, self.scene)
        require_recipe(self.record, expected, {"dataset": self.dataset, "scene": self.scene}, file=self.path)

    def _check_format(self) -> None:
        found = _read_text(self._file, "format"), int(self._file.attrs["version"])
        if found != (self.format, self.version):
            raise DataError(
                "the file has another format or version",
                file=self.path,
                expected=f"{self.format} version {self.version}",
                found=f"{found[0]} version {found[1]}",
                remedy=REGENERATE,
            )

    def _require_own_data(self) -> None:
        """Refuse data in other files and sizes that cannot fit into this file, before any array is read."""
        length = self.path.stat().st_size
        for name in (*self.arrays, "facts", "record", "digests"):
            if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
                raise self._unfit(
                    f"`{name}` is not an array in this file",
                    "an array",
                    "a link" if self._file.get(name, getlink=True) else "no such entry",
                )
            array = self._file[name]
            if not isinstance(array, h5py.Dataset) or array.is_virtual or array.external:
                raise self._unfit(
                    f"`{name}` is not an array in this file",
                    "an array",
                    "an array that is stored in other files" if isinstance(array, h5py.Dataset) else "a group",
                )
            limit = max(_HARMLESS, _LARGEST_RATIO * length if array.compression else length)
            if array.nbytes > limit or array.dtype.hasobject:
                raise self._unfit(
                    f"`{name}` is too large for this file, or its element type ({array.dtype}) has no fixed size",
                    f"at most {limit} bytes",
                    array.nbytes,
                )
            one = array.nbytes // max(len(array), 1) if array.shape else array.nbytes
            if array.compression and max(one, _bytes_of_chunk(array)) > _LARGEST_FRAME:
                raise self._unfit(
                    f"`{name}` has too large frames ({one} bytes) or chunks ({_bytes_of_chunk(array)} bytes)",
                    f"at most {_LARGEST_FRAME} bytes per frame and per chunk",
                    one,
                )
            if name in self.arrays and self.arrays[name].frames == "mapped" and array.size:
                start = array.id.get_offset()  # None if it is not contiguous
                if start is None or start % _ALIGNMENT or start + array.nbytes > length:
                    raise self._unfit(
                        f"`{name}` cannot be memory-mapped",
                        f"a contiguous array within the file, at a multiple of {_ALIGNMENT} bytes",
                        "an array in chunks" if start is None else f"{array.nbytes} bytes at offset {start}",
                    )

    def _check_arrays(self) -> None:
        sizes: dict[str, int] = {}
        for name, array in self.arrays.items():
            shape, dtype = self[name].shape, self[name].dtype
            expected = tuple(sizes.setdefault(d, s) if isinstance(d, str) else d for d, s in zip(array.shape, shape))
            if len(shape) != len(array.shape) or shape != expected:
                raise self._unfit(f"array `{name}` has the wrong shape", expected, shape)
            if dtype != np.dtype(array.dtype):
                raise self._unfit(f"array `{name}` has the wrong element type", array.dtype, dtype)

    def _check_digests(self) -> None:
        """Check the small arrays against the digests stored by the writer.

        The digests detect changes by a program that edits the file in place, which the checksums of the chunks do not,
        because HDF5 updates them. Large arrays are checked only by ``loco verify``.
        """
        digests = _read_json(self._file["digests"])
        for name, array in self.arrays.items():
            if array.frames is None and digests[name] != _digest(self._file[name]):
                raise self._unfit(
                    f"array `{name}` was changed after the file was written", digests[name], "other values"
                )

    def _check_values(self) -> None:
        """Check the values of small arrays; overridden by subclasses."""

    def _unfit(self, problem: str, expected: object, found: object) -> DataError:
        return DataError(problem, file=self.path, expected=expected, found=found, remedy=REGENERATE)

    def __getitem__(self, name: str) -> StoredArray:
        return self._arrays[name]

    def mapped(self, name: str) -> NDArray[Any]:
        """Return a read-only memory map of an array that is stored as ``mapped``, without reading it.

        All processes share the pages that are read. The array stays valid when the file is closed.
        """
        array = self[name]
        if not array.size:
            return np.empty(array.shape, array.dtype)
        start = self._file[name].id.get_offset()
        return np.frombuffer(self._map, array.dtype, array.size, start).reshape(array.shape)

    @cached_property
    def _map(self) -> mmap.mmap:
        with reading(self.path, self.scene):
            return mmap.mmap(self._file.id.get_vfd_handle(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def origin(self) -> NDArray[np.float64]:
        """(3,), metres; poses and points of the file plus this offset are in the world frame of the raw scene."""
        return np.array(self.facts.get("origin", (0.0, 0.0, 0.0)), np.float64)

    def require_frames(self, other: SceneFile) -> None:
        """Check that both files describe the same frames of the same scene.

        Raises:
            DataError: they describe different frames; using them together would misalign images and points.
        """
        if (self.dataset, self.scene) != (other.dataset, other.scene):
            raise DataError(
                "the file belongs to another scene than the file that it is used with",
                file=self.path,
                expected=f"{other.dataset}/{other.scene}, as {other.path}",
                found=f"{self.dataset}/{self.scene}",
                remedy="use files of the same dataset and scene",
            )
        if self.frames_id != other.frames_id:
            raise DataError(
                "the file was made from other frames than the file that it is used with",
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
        *,
        frames_id: str = "",
        record: Record | None = None,
    ) -> Iterator[Writer]:
        """Write a new file, which appears under ``path`` when the block ends without an error.

        Args:
            path: output file.
            dataset: name of the dataset.
            scene: name of the scene.
            sizes: size for every letter in the shapes of ``arrays``; 0 for those in ``may_be_empty`` if not stated.
            facts: further metadata, JSON-serialisable (counts, settings).
            frames_id: content id of the frames that the file describes; empty for frames themselves.
            record: provenance record.

        Yields:
            The writer, whose arrays the block fills.

        Raises:
            DataError: the disk is full.
            OSError: a write failed for another reason. Every failed write raises an error in the block or at its end.
            RuntimeError: the block wrote only some of the frames of an array.
        """
        with atomic_path(path) as temporary:
            sizes = dict.fromkeys(cls.may_be_empty, 0) | dict(sizes)
            with CheckedFile(temporary) as raw:
                aligned = any(array.frames == "mapped" for array in cls.arrays.values())
                alignment = {"alignment_threshold": 1, "alignment_interval": _ALIGNMENT} if aligned else {}
                with h5py.File(raw, "w", libver="latest", userblock_size=_USER_BLOCK, **alignment) as file:
                    file.attrs["version"] = cls.version
                    for name, text in (("format", cls.format), ("dataset", dataset), ("scene", scene)):
                        _write_text(file, name, text)
                    writer = Writer(file, raw, cls.arrays, sizes, dict(facts or {}), frames_id)
                    yield writer
                    writer.finish(record.to_json() if record else None)
                raw.require_written()
            with temporary.open("r+b") as file:
                file.write(f"{cls.format} version {cls.version}\ncontent_id {BLANK}\n".encode())
            seal(temporary)


class Writer:
    """The arrays of a scene file that is being written.

    ``facts`` and ``frames_id`` are written when the block ends and may be changed until then.
    """

    def __init__(
        self,
        file: h5py.File,
        raw: CheckedFile,
        arrays: Mapping[str, Array],
        sizes: Mapping[str, int],
        facts: dict[str, Any],
        frames_id: str,
    ) -> None:
        self.facts, self.frames_id = facts, frames_id
        self._file, self._raw, self._arrays = file, raw, arrays
        # Datasets are held until the end, because h5py cannot raise errors that occur when it releases a dataset.
        self._held: dict[str, WrittenArray] = {}
        for name, array in arrays.items():
            shape = tuple(sizes[d] if isinstance(d, str) else d for d in array.shape)
            dataset = file.create_dataset(name, shape=shape, dtype=array.dtype, **array.layout(shape))
            self._held[name] = WrittenArray(dataset, raw)

    def __getitem__(self, name: str) -> WrittenArray:
        return self._held[name]

    def finish(self, record: Mapping[str, Any] | None) -> None:
        """Write facts and record, and check that everything has been stored.

        Raises:
            OSError: a write failed.
            RuntimeError: only some of the frames of an array were written.
        """
        _write_text(self._file, "frames_id", self.frames_id)
        digests = {name: _digest(self._held[name].dataset) for name, a in self._arrays.items() if a.frames is None}
        for name, content in (("facts", self.facts), ("record", record), ("digests", digests)):
            # Facts are not stored as attributes, because large attributes have no checksum.
            text = np.frombuffer(json.dumps(content, sort_keys=True).encode(), np.uint8)
            self._file.create_dataset(name, data=text, chunks=text.shape, fletcher32=True)
        for name, held in self._held.items():
            stored = held.dataset.id.get_num_chunks() if held.dataset.size and held.dataset.chunks else 0
            if self._arrays[name].frames and 0 < stored < len(held.dataset):
                raise RuntimeError(f"array {name!r} has {stored} of {len(held.dataset)} frames")
        self._file.flush()
        self._raw.require_written()


class WrittenArray:
    """An array that is being written. A write that fails raises at once."""

    def __init__(self, dataset: h5py.Dataset, raw: CheckedFile) -> None:
        self.dataset, self._raw = dataset, raw
        self.shape, self.size = dataset.shape, dataset.size

    def __setitem__(self, index: Any, values: Any) -> None:
        self.dataset[index] = values
        self._raw.require_written()

    def resize(self, length: int) -> None:
        """Change the length of the first axis."""
        self.dataset.resize(length, axis=0)
        self.shape, self.size = self.dataset.shape, self.dataset.size


def _write_text(file: h5py.File, name: str, text: str) -> None:
    # The length is fixed, because HDF5 stores strings of variable length without a checksum.
    file.attrs[name] = np.bytes_(text.encode())


def _read_text(file: h5py.File, name: str) -> str:
    return bytes(file.attrs[name]).decode()


def _bytes_of_chunk(dataset: h5py.Dataset) -> int:
    return math.prod(dataset.chunks or ()) * dataset.dtype.itemsize


def _digest(dataset: h5py.Dataset) -> str:
    """Return the SHA-256 of the values of an array."""
    return hashlib.sha256(np.ascontiguousarray(dataset[()]).tobytes()).hexdigest()


def _read_json(dataset: h5py.Dataset) -> Any:
    return json.loads(dataset[:].tobytes())


class Frames(SceneFile):
    """Posed colour and depth images of a scene, all of one size (``results/frames``).

    ``rgb`` (n, h, w, 3) uint8; ``depth`` (n, h, w) float32 z-depth in metres, 0 = none; ``source`` (n, h, w) uint8
    is the source of each depth, an index into :attr:`SOURCES`; ``intrinsics`` (n, 3, 3) float64, pixels; ``pose``
    (n, 4, 4) float64, camera-to-world, metres; ``facts["names"]`` are the names of the raw images.

    Frames of a sparse model have no depth. Instead, ``track`` (t, 3) float64 are the points of the model, world frame,
    metres, and each observation k of m states that point ``observation_track[k]`` is visible at pixel
    ``observation_uv[k]`` of frame ``observation_frame[k]``. For frames with depth, t = m = 0.
    """

    format = "loco-frames"
    version = 3
    SOURCES = ("none", "sensor", "mesh", "inpainted")
    may_be_empty = ("t", "m")
    arrays: ClassVar = {
        "intrinsics": Array("float64", ("n", 3, 3)),
        "pose": Array("float64", ("n", 4, 4)),
        "rgb": Array("uint8", ("n", "h", "w", 3), frames="plain"),
        "depth": Array("float32", ("n", "h", "w"), frames="compressed"),
        "source": Array("uint8", ("n", "h", "w"), frames="compressed"),
        "track": Array("float64", ("t", 3)),
        "observation_frame": Array("int64", ("m",)),
        "observation_track": Array("int64", ("m",)),
        "observation_uv": Array("float64", ("m", 2)),
    }

    def _check_values(self) -> None:
        if len(self.names) != len(self):
            raise self._unfit("the numbers of names and of frames differ", len(self), len(self.names))
        for name in ("intrinsics", "pose"):
            if not np.isfinite(self[name][:]).all():
                raise self._unfit(f"array `{name}` is not finite", "finite camera parameters", "NaN or infinity")

    def __len__(self) -> int:
        return len(self["pose"])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images, pixels."""
        height, width = self["rgb"].shape[1:3]
        return height, width

    @property
    def names(self) -> list[str]:
        return [str(name) for name in self.facts["names"]]

    @property
    def sparse(self) -> bool:
        """Whether correspondences come from the points of a sparse model instead of depth."""
        return len(self["track"]) > 0


class Correspondences(SceneFile):
    """The 3D points of the patches of a scene, and the overlap of its images (``results/correspondences``).

    ``points`` (n, h, w, 3) float32, world frame, metres; ``valid`` (n, h, w) bool; ``overlap`` (n, n) float32, where
    (i, j) is the fraction of image i's valid patches that image j sees. ``facts["stride"]`` is the patch size in
    pixels of the frames.
    """

    format = "loco-correspondences"
    version = 2
    arrays: ClassVar = {
        "points": Array("float32", ("n", "h", "w", 3), frames="plain"),
        "valid": Array("bool", ("n", "h", "w"), frames="plain"),
        "overlap": Array("float32", ("n", "n")),
    }

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the patch grid."""
        rows, columns = self["valid"].shape[1:]
        return rows, columns

    @property
    def extent(self) -> tuple[int, int]:
        """(height, width), pixels of the frames, that the grid covers."""
        return tuple(self.facts["extent"])


class Labels(SceneFile):
    """Instance and category of each pixel of a scene's frames (``results/labels``).

    ``instance`` (n, h, w) int32 is the index of the object, or :attr:`VOID` where the ray of the pixel hits no object;
    ``semantic`` (n, h, w) uint8 is its category, an index into :data:`loco.datasets.labels.MPCAT40`, 0 = void.

    ``facts["objects"]`` lists the objects by index: ``label`` (raw label), ``category`` (name), ``stuff`` (bool), and
    the numbers of its ``triangles``, of the ``pixels`` and of the ``frames`` that show it. ``facts["counts"]`` contains
    the number of ``objects`` with triangles, the numbers of ``things`` and ``stuff`` among them, and ``void``, the
    fraction of pixels without a category.
    """

    format = "loco-labels"
    version = 2
    VOID = -1
    arrays: ClassVar = {
        "instance": Array("int32", ("n", "h", "w"), frames="compressed"),
        "semantic": Array("uint8", ("n", "h", "w"), frames="compressed"),
    }


class Features(SceneFile):
    """Feature maps of a scene's frames by one extractor (``results/features``).

    ``features`` (n, h, w, c) float16 are L2-normalised up to rounding. The map covers ``extent``: its cell (r, q) is
    centred at pixel ((q + 0.5) width / w, (r + 0.5) height / h). ``token`` (n, t) float16 is the class token of each
    frame; t = 0 if the extractor has none. ``norm`` (n, h, w) float32 is the feature norm before normalisation.
    """

    format = "loco-features"
    version = 4
    may_be_empty = ("t",)
    arrays: ClassVar = {
        "features": Array("float16", ("n", "h", "w", "c"), frames="plain"),
        "norm": Array("float32", ("n", "h", "w"), frames="plain"),
        "token": Array("float16", ("n", "t")),
    }

    @property
    def extent(self) -> tuple[int, int]:
        """(height, width), pixels of the frames, that the map covers."""
        return tuple(self.facts["extent"])

    def map(self, i: int) -> NDArray[np.float16]:
        """Return the L2-normalised features (h, w, c) of frame ``i``.

        Raises:
            DataError: a feature is not finite; a benchmark would rank such features in an arbitrary order.
        """
        found = self["features"][i]
        if not np.isfinite(found).all():
            raise DataError(
                "the file contains features that are not finite",
                file=self.path,
                scene=self.scene,
                expected="finite features",
                found=f"NaN or infinity in frame {i}",
                remedy="check the weights of the extractor: a training run that diverged produces such features",
            )
        return found


class Encoded(SceneFile):
    """Outputs of the frozen encoder of a model for a scene's frames (``results/encoded``), for training to read.

    ``encoded`` (n, c, h, w) float16 are the maps that :meth:`loco.models.Extractor.encode` returns for the extractor
    described by ``facts["encoder"]``.
    """

    format = "loco-encoded"
    version = 2
    arrays: ClassVar = {"encoded": Array("float16", ("n", "c", "h", "w"), frames="plain")}


def prepared_bytes(count: int, size: tuple[int, int], stride: int) -> int:
    """Estimate the size on disk, in bytes, of the frames and correspondences of a scene.

    Colours take 3 bytes per pixel, points and masks 13 bytes per patch, and the overlap matrix 4 bytes per entry; depth
    with its source takes 2.5 bytes per pixel, as measured on files of simulated scenes.

    Args:
        count: number of images.
        size: (height, width) of the frames, pixels.
        stride: patch size, pixels.
    """
    pixels = size[0] * size[1]
    return int(count * (5.5 * pixels + 13 * pixels / stride**2) + 4 * count**2)
