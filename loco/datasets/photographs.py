"""Code shared by datasets of photographs: images without depth and poses, and ground truth in files of the dataset.

A layout is a subclass of :class:`Photographs` that lists the images and their ground truth. Images keep their original
sizes. The intrinsics of a raw photograph are the identity, so the intrinsics of its prepared frame map raw pixels to
frame pixels.

Ground truth in ``.npy`` files is often an array of Python objects, which NumPy stores as a pickle: a program.
:func:`read_array` does not run it.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loco.datasets.checklist import Checklist, few
from loco.datasets.files import RESTORE, read_bytes
from loco.datasets.images import CONVERT, decode_color, unread_images
from loco.datasets.images import LARGEST_FILE as LARGEST_IMAGE_FILE
from loco.datasets.layouts import natural
from loco.datasets.raw import Images, RawFrame
from loco.datasets.scene_folder import SceneFolder
from loco.errors import DataError
from loco.files import is_data

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp")
LARGEST_FILE = 1 << 26  # bytes; the largest published ground truth takes 82 kB
LARGEST_PICKLE = 1 << 22  # bytes of an array of objects: one byte can take 64 bytes in memory
NUMBER = re.compile(r"[<>=|]?([biuf][1248])")  # types of numbers that a stored array may have


class Listing(NamedTuple):
    """The images and the ground truth of a scene.

    Attributes:
        images: name -> file, in the order of the frames.
        ground_truth: see :meth:`loco.datasets.raw.RawScene.ground_truth`.
        counts: counts for the manifest.
        notes: notes on harmless peculiarities.
    """

    images: Mapping[str, Path]
    ground_truth: dict[str, Any]
    counts: Mapping[str, int]
    notes: Sequence[str] = ()


class Photographs(SceneFolder):
    """A scene of photographs with ground truth (:class:`loco.datasets.raw.RawScene`)."""

    def __init__(self, raw: Path, scene: str) -> None:
        """Open a scene. Raise DataError if a file that lists images or ground truth is missing or broken."""
        super().__init__(raw, scene)
        self.listed = self.listing(self.folder, scene)

    # Defined by a layout ---------------------------------------------------------------------------------------------

    @classmethod
    def listing(cls, folder: Path, scene: str) -> Listing:
        """Return the images and their ground truth; raise DataError if a file that lists them is missing or broken."""
        raise NotImplementedError

    # Derived ---------------------------------------------------------------------------------------------------------

    @classmethod
    def inspect(cls, raw: Path, scene: str, found: Checklist) -> dict[str, Any]:
        missing = cls.note_missing(raw / scene, scene, found)
        listed = None if missing else found.attempt(lambda: cls.listing(raw / scene, scene))
        images, _, counts, notes = listed or Listing({}, {}, {})
        for text in notes:
            found.note(text)
        _check_images(found, images, cls.remedy_of(scene))
        return {"images": len(images), **counts}

    def names(self, images: Images) -> list[str]:
        """Return all images, because it is unknown which of them are horizontal."""
        return list(self.listed.images)

    def frames(self, names: Sequence[str]) -> Iterator[RawFrame]:
        for name in names:
            rgb = _read_image(self.listed.images[name], self.scene)
            yield RawFrame(name, rgb, None, np.eye(3), np.eye(4))

    def ground_truth(self) -> dict[str, Any]:
        return self.listed.ground_truth


def images_of(folder: Path, root: Path, scene: str) -> dict[str, Path]:
    """Return the images of a folder and its subfolders by their paths from ``root``, in natural order (2 before 10).

    Raises:
        DataError: there are no images.
    """
    files = [file for file in _visible(folder) if file.suffix.lower() in SUFFIXES]
    if not files:
        unread = unread_images(other_files(folder))
        raise DataError(
            "the folder contains no images",
            file=folder,
            scene=scene,
            expected=f"files that end in {', '.join(SUFFIXES)}",
            found=f"files with unsupported formats ({len(unread)}): {few(unread)}" if unread else "none",
            remedy=CONVERT if unread else "unpack the archive again",
        )
    names = {file.relative_to(root).as_posix(): file for file in files}
    return dict(sorted(names.items(), key=lambda item: natural(item[0])))


def other_files(folder: Path) -> list[str]:
    """Return the names of the files without an image suffix; hidden files are ignored."""
    return [file.name for file in sorted(_visible(folder)) if file.suffix.lower() not in SUFFIXES]


def _visible(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file() and is_data(file.relative_to(folder)))


def _read_image(file: Path, scene: str) -> NDArray[np.uint8]:
    return decode_color(read_bytes(file, scene, limit=LARGEST_IMAGE_FILE), file=file, scene=scene)


def _check_images(found: Checklist, images: Mapping[str, Path], remedy: str) -> None:
    """Report images that are missing, empty or cannot be decoded."""
    missing = [name for name, file in images.items() if not os.path.lexists(file)]
    empty = [name for name, file in images.items() if os.path.isfile(file) and not os.path.getsize(file)]
    for names, fault in ((missing, "images are missing"), (empty, "images have 0 bytes")):
        if names:
            found.add(f"{fault} ({len(names)} of {len(images)}): {few(names)}", file=images[names[0]], remedy=remedy)
    for name in found.chosen([name for name in images if name not in {*missing, *empty}]):
        found.attempt(partial(_read_image, images[name], found.scene))


# --- arrays of objects -----------------------------------------------------------------------------------------------


def read_array(file: Path, scene: str) -> NDArray:
    """Read a ``.npy`` array of numbers or of objects: numbers, strings, lists, tuples and arrays of numbers.

    An array of objects is stored as a pickle, a program that builds them. References to anything except NumPy's arrays,
    types and scalars are refused. References to these are resolved to classes of this module, so that the file cannot
    call code of NumPy either.

    Raises:
        DataError: the file is missing, too large, truncated, not a ``.npy`` file, or refers to other objects.
    """
    content = read_bytes(file, scene, limit=LARGEST_FILE)
    stream = BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = headers[version](stream)
        left = len(content) - stream.tell()
        if not dtype.hasobject and prod(shape) * dtype.itemsize != left:
            raise ValueError(f"its header states the shape {shape} of {dtype}, which does not match {left} bytes")
        array = _unpickle(stream.read()) if dtype.hasobject else np.load(BytesIO(content), allow_pickle=False)
        if array.shape != shape:
            raise ValueError(f"its header states the shape {shape}, but the array has the shape {array.shape}")
        return array
    # The file is untrusted, and a broken pickle raises errors of many kinds.
    except Exception as error:
        raise _array_error(f"the file cannot be read: {type(error).__name__}: {error}", file, scene) from error


def _unpickle(program: bytes) -> NDArray:
    if len(program) > LARGEST_PICKLE:
        raise pickle.UnpicklingError(f"it has {len(program)} bytes, expected at most {LARGEST_PICKLE}")
    for step, argument, _ in pickletools.genops(program):  # raises if a step states more bytes than are left
        if step.name in ("EMPTY_SET", "FROZENSET"):  # one byte would take 216 bytes in memory
            raise pickle.UnpicklingError("it contains a set, which no array of numbers requires")
        if "PUT" in step.name and argument > len(program):  # the unpickler would allocate this many entries
            raise pickle.UnpicklingError(f"it stores an object under the number {argument}")
    loaded = _Unpickler(BytesIO(program)).load()
    if not isinstance(loaded, _Array) or loaded.value is None:
        raise pickle.UnpicklingError("it is not the pickle of an array")
    return loaded.value


class _Unpickler(pickle.Unpickler):
    """Unpickler of arrays that resolves only names of NumPy, to replacements without behaviour."""

    def __init__(self, stream: BytesIO) -> None:
        super().__init__(stream)
        arrays = {(module, "_reconstruct"): _Reconstruct() for module in _MODULES}
        scalars = {(module, "scalar"): _Scalar() for module in _MODULES}
        self._known = {**arrays, **scalars, ("numpy", "ndarray"): None, ("numpy", "dtype"): _TypeOf()}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no array of numbers requires")
        return self._known[module, name]


_MODULES = ("numpy._core.multiarray", "numpy.core.multiarray")  # since NumPy 2, and before


class _Type:
    """Replacement of ``numpy.dtype``: ``value`` is a NumPy type of numbers or of objects."""

    def __init__(self, code: str) -> None:
        number = NUMBER.fullmatch(code)
        if number is None and code not in ("O", "O8"):
            raise pickle.UnpicklingError(f"its arrays have the unsupported type {code!r}")
        self.value = np.dtype(number[1] if number else object)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """Replacement of ``numpy.ndarray``; ``value`` is the array, once its content has been read."""

    value: NDArray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, is_fortran, content = state
        flat = _objects(content) if kind.value.hasobject else np.frombuffer(content, kind.value)
        self.value = flat.reshape(shape, order="F" if is_fortran else "C")


def _objects(content: list) -> NDArray[np.object_]:
    flat = np.empty(len(content), dtype=object)
    flat[:] = [element.value if isinstance(element, _Array) else element for element in content]
    return flat


# Callables for the pickle: objects without attributes, because a pickle could modify functions and classes.


class _Reconstruct:
    __slots__ = ()

    def __call__(self, *_: Any) -> _Array:
        return _Array()


class _Scalar:
    __slots__ = ()

    def __call__(self, kind: _Type, content: bytes) -> int | float | bool:
        return np.frombuffer(content, kind.value)[0].item()


class _TypeOf:
    __slots__ = ()

    def __call__(self, code: str, *_: Any) -> _Type:
        return _Type(code)


def _array_error(problem: str, file: Path, scene: str, expected: object = None, found: object = None) -> DataError:
    remedy = RESTORE
    return DataError(problem, file=file, scene=scene, expected=expected, found=found, remedy=remedy)
