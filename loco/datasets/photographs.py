"""What datasets of photographs share: images without depth and pose, and ground truth in files of the dataset.

A layout is a subclass of :class:`Photographs` that says which images there are and what is known of them. Images keep
their own sizes; the intrinsics of a raw photograph are the identity, so those of its frame take raw pixels to its own.

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
LARGEST_PICKLE = 1 << 22  # bytes of an array of objects: a byte can take 64 in memory
NUMBER = re.compile(r"[<>=|]?([biuf][1248])")  # of the types that a stored array may have


class Listing(NamedTuple):
    """What a scene is made of.

    Attributes:
        images: name -> file, in the order of the frames.
        ground_truth: see :meth:`loco.datasets.raw.RawScene.ground_truth`.
        counts: of what, for the manifest.
        notes: on what is odd but harmless.
    """

    images: Mapping[str, Path]
    ground_truth: dict[str, Any]
    counts: Mapping[str, int]
    notes: Sequence[str] = ()


class Photographs(SceneFolder):
    """A scene of photographs with ground truth (:class:`loco.datasets.raw.RawScene`)."""

    def __init__(self, raw: Path, scene: str) -> None:
        """Raises DataError if a file that says what there is is missing or broken."""
        super().__init__(raw, scene)
        self.listed = self.listing(self.folder, scene)

    # What a layout says ----------------------------------------------------------------------------------------------

    @classmethod
    def listing(cls, folder: Path, scene: str) -> Listing:
        raise NotImplementedError

    # What follows from it --------------------------------------------------------------------------------------------

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
        """All: of no photograph is it known whether it is level."""
        return list(self.listed.images)

    def frames(self, names: Sequence[str]) -> Iterator[RawFrame]:
        for name in names:
            rgb = _read_image(self.listed.images[name], self.scene)
            yield RawFrame(name, rgb, None, np.eye(3), np.eye(4))

    def ground_truth(self) -> dict[str, Any]:
        return self.listed.ground_truth


def images_of(folder: Path, root: Path, scene: str) -> dict[str, Path]:
    """The images of a folder and its subfolders, by their paths from ``root``, in natural order (2 before 10).

    Raises:
        DataError: there is none.
    """
    files = [file for file in _visible(folder) if file.suffix.lower() in SUFFIXES]
    if not files:
        unread = unread_images(other_files(folder))
        raise DataError(
            "holds no images",
            file=folder,
            scene=scene,
            expected=f"files that end in {', '.join(SUFFIXES)}",
            found=f"{len(unread)} of kinds that are not read: {few(unread)}" if unread else "none",
            remedy=CONVERT if unread else "unpack the archive again",
        )
    names = {file.relative_to(root).as_posix(): file for file in files}
    return dict(sorted(names.items(), key=lambda item: natural(item[0])))


def other_files(folder: Path) -> list[str]:
    """Names of the files that are no images by their suffix; hidden ones do not count."""
    return [file.name for file in sorted(_visible(folder)) if file.suffix.lower() not in SUFFIXES]


def _visible(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file() and is_data(file.relative_to(folder)))


def _read_image(file: Path, scene: str) -> NDArray[np.uint8]:
    return decode_color(read_bytes(file, scene, limit=LARGEST_IMAGE_FILE), file=file, scene=scene)


def _check_images(found: Checklist, images: Mapping[str, Path], remedy: str) -> None:
    """Images that are missing, empty or cannot be decoded."""
    missing = [name for name, file in images.items() if not os.path.lexists(file)]
    empty = [name for name, file in images.items() if os.path.isfile(file) and not os.path.getsize(file)]
    for names, fault in ((missing, "images are missing"), (empty, "images are empty (0 bytes)")):
        if names:
            found.add(f"{len(names)} {fault}: {few(names)}", file=images[names[0]], remedy=remedy)
    for name in found.chosen([name for name in images if name not in {*missing, *empty}]):
        found.attempt(partial(_read_image, images[name], found.scene))


# --- arrays of objects -----------------------------------------------------------------------------------------------


def read_array(file: Path, scene: str) -> NDArray:
    """The array of a ``.npy`` file, of numbers or of objects: numbers, texts, lists, tuples and arrays of numbers.

    An array of objects is a pickle, a program that builds them. This one is let build nothing else: whatever it names
    beyond NumPy's arrays, types and scalars is refused, and in place of these stand classes of this module, so that the
    file calls no code of NumPy's either.

    Raises:
        DataError: the file is missing, too large, cut short, no ``.npy`` file, or names something else.
    """
    content = read_bytes(file, scene, limit=LARGEST_FILE)
    stream = BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = headers[version](stream)
        left = len(content) - stream.tell()
        if not dtype.hasobject and prod(shape) * dtype.itemsize != left:
            raise ValueError(f"its head states the shape {shape} of {dtype}, which does not take {left} bytes")
        array = _unpickle(stream.read()) if dtype.hasobject else np.load(BytesIO(content), allow_pickle=False)
        if array.shape != shape:
            raise ValueError(f"its head states the shape {shape}, it holds {array.shape}")
        return array
    # The file is not to be trusted: a broken pickle raises almost anything.
    except Exception as error:
        raise _array_error(f"cannot be read: {type(error).__name__}: {error}", file, scene) from error


def _unpickle(program: bytes) -> NDArray:
    if len(program) > LARGEST_PICKLE:
        raise pickle.UnpicklingError(f"it has {len(program)} bytes, expected {LARGEST_PICKLE} at most")
    for step, argument, _ in pickletools.genops(program):  # fails where more bytes are stated than there are
        if step.name in ("EMPTY_SET", "FROZENSET"):  # a byte would take 216
            raise pickle.UnpicklingError("it holds a set, which no array of numbers needs")
        if "PUT" in step.name and argument > len(program):  # memory for so many numbers would be taken
            raise pickle.UnpicklingError(f"it keeps something under the number {argument}")
    loaded = _Unpickler(BytesIO(program)).load()
    if not isinstance(loaded, _Array) or loaded.value is None:
        raise pickle.UnpicklingError("it is not the pickle of an array")
    return loaded.value


class _Unpickler(pickle.Unpickler):
    """Reads the pickle of an array; of the names in it, it knows NumPy's, as stand-ins without behaviour."""

    def __init__(self, stream: BytesIO) -> None:
        super().__init__(stream)
        arrays = {(module, "_reconstruct"): _Reconstruct() for module in _MODULES}
        scalars = {(module, "scalar"): _Scalar() for module in _MODULES}
        self._known = {**arrays, **scalars, ("numpy", "ndarray"): None, ("numpy", "dtype"): _TypeOf()}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array of numbers needs")
        return self._known[module, name]


_MODULES = ("numpy._core.multiarray", "numpy.core.multiarray")  # since NumPy 2, and before


class _Type:
    """Stands for a ``numpy.dtype``: ``value`` is one of numbers, or of objects."""

    def __init__(self, code: str) -> None:
        number = NUMBER.fullmatch(code)
        if number is None and code not in ("O", "O8"):
            raise pickle.UnpicklingError(f"its arrays are of the type {code!r}")
        self.value = np.dtype(number[1] if number else object)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands for a ``numpy.ndarray``; ``value`` is the array, once its content has been read."""

    value: NDArray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, is_fortran, content = state
        flat = _objects(content) if kind.value.hasobject else np.frombuffer(content, kind.value)
        self.value = flat.reshape(shape, order="F" if is_fortran else "C")


def _objects(content: list) -> NDArray[np.object_]:
    flat = np.empty(len(content), dtype=object)
    flat[:] = [element.value if isinstance(element, _Array) else element for element in content]
    return flat


# What the pickle calls. Objects without attributes, and no functions or classes: it could change those.


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
