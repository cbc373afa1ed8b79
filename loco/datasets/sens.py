"""ScanNet's ``.sens`` files, version 4, read frame by frame.

The layout is that of ``SensReader/c++/src/sensorData.h`` (github.com/ScanNet/ScanNet), little-endian: a header; for
each frame a camera-to-world pose, time stamps, the sizes of its two compressed images, and the images; then frames of
the inertial sensor, which are ignored. Matrices are returned as stored in the file; :mod:`loco.datasets.scannet`
documents their meaning.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from loco.datasets.files import RESTORE, system_error
from loco.datasets.images import LARGEST_IMAGE, decode_color
from loco.errors import DataError
from loco.files import open_regular

VERSION = 4
COLOR_COMPRESSIONS = ("raw", "png", "jpeg")
DEPTH_COMPRESSIONS = ("raw_ushort", "zlib_ushort", "occi_ushort")
HEADER = struct.Struct("<64f 2i 4I f Q")  # fields after the sensor's name
FRAME = struct.Struct("<16f 4Q")  # pose; time stamps of colour and depth, microseconds; bytes of colour and depth
LONGEST_NAME = 1 << 10  # bytes
LARGEST_SIDE = 1 << 14  # pixels of an image
SLACK = 1 << 16  # bytes that an image may take beyond its pixels: headers, and incompressible data


@dataclass(frozen=True)
class SensHeader:
    """The header of a file, common to all frames.

    It states the intrinsics and extrinsics (4, 4) of both cameras; the sizes (height, width) of both images, pixels;
    ``depth_shift``, the units of depth per metre; and the compressions, which are members of
    :data:`COLOR_COMPRESSIONS` and :data:`DEPTH_COMPRESSIONS`.
    """

    sensor: str
    intrinsic_color: NDArray[np.float64]
    extrinsic_color: NDArray[np.float64]
    intrinsic_depth: NDArray[np.float64]
    extrinsic_depth: NDArray[np.float64]
    color_compression: str
    depth_compression: str
    color_size: tuple[int, int]
    depth_size: tuple[int, int]
    depth_shift: float


class SensFile:
    """A ``.sens`` file. Opening it reads the header and the offsets of its frames, about 100 bytes per frame, no image.

    Frames are then read individually. No file handle stays open.

    Attributes:
        header: see :class:`SensHeader`.
        poses: (n, 4, 4), camera-to-world; not finite where tracking was lost.
    """

    def __init__(self, path: Path, scene: str) -> None:
        """Open a file; ``scene`` is used in errors.

        Raises:
            DataError: the file is not a .sens of version 4, ends early, has an unsupported compression, or states
                impossible sizes.
        """
        self.path, self.scene = Path(path), scene
        with self._opened() as file:
            length = file.seek(0, 2)
            file.seek(0)
            self.header, frames = self._read_header(file, length)
            self.poses, self._images = self._find_frames(file, length, frames)

    def __len__(self) -> int:
        return len(self.poses)

    def color(self, k: int) -> NDArray[np.uint8]:
        """Read the colour image (H, W, 3) of frame ``k``, RGB."""
        data, size = self.color_bytes(k), self.header.color_size
        if self.header.color_compression == "raw":
            return self._pixels(data, np.uint8, (*size, 3), f"the colour of frame {k}")
        rgb = decode_color(data, file=self.path, scene=self.scene, name=f"colour of frame {k}")
        if rgb.shape[:2] != size:
            raise self._error(f"the colour of frame {k} differs in size from the header", size, rgb.shape[:2])
        return rgb

    def depth(self, k: int) -> NDArray[np.uint16]:
        """Read the depth image (h, w) of frame ``k`` in units of ``1 / depth_shift`` metres, 0 = none."""
        offset, color, depth = self._images[k].tolist()
        data, what = self._read(offset + color, depth), f"the depth of frame {k}"
        if self.header.depth_compression == "zlib_ushort":
            data = self._inflate(data, 2 * self.header.depth_size[0] * self.header.depth_size[1], what)
        return self._pixels(data, np.dtype("<u2"), self.header.depth_size, what)

    def color_bytes(self, k: int) -> bytes:
        """Read the colour image of frame ``k`` as it is stored, in the compression of the header."""
        offset, color, _ = self._images[k].tolist()
        return self._read(offset, color)

    # Opening ---------------------------------------------------------------------------------------------------------

    def _read_header(self, file: BinaryIO, length: int) -> tuple[SensHeader, int]:
        """Read the header and the number of frames."""
        version, name_length = struct.unpack("<IQ", self._take(file, 12, "the header"))
        if version != VERSION:
            raise self._error(
                "the file is not a .sens file of a supported version", f"version {VERSION}", f"version {version}"
            )
        if name_length > LONGEST_NAME:
            raise self._error(
                "the file is not a .sens file", f"a sensor name of at most {LONGEST_NAME} bytes", f"{name_length}"
            )
        sensor = self._take(file, name_length, "the header").decode("utf-8", errors="replace")
        values = HEADER.unpack(self._take(file, HEADER.size, "the header"))
        matrices = np.array(values[:64]).reshape(4, 4, 4)
        color, depth, color_width, color_height, depth_width, depth_height, shift, frames = values[64:]
        header = SensHeader(
            sensor=sensor,
            intrinsic_color=matrices[0],
            extrinsic_color=matrices[1],
            intrinsic_depth=matrices[2],
            extrinsic_depth=matrices[3],
            color_compression=self._compression("colour", color, COLOR_COMPRESSIONS, ("raw", "png", "jpeg")),
            depth_compression=self._compression("depth", depth, DEPTH_COMPRESSIONS, ("raw_ushort", "zlib_ushort")),
            color_size=(color_height, color_width),
            depth_size=(depth_height, depth_width),
            depth_shift=shift,
        )
        for kind, size in (("colour", header.color_size), ("depth", header.depth_size)):
            if not all(0 < side <= LARGEST_SIDE for side in size) or size[0] * size[1] > LARGEST_IMAGE:
                expected = f"sides of 1 to {LARGEST_SIDE} and at most {LARGEST_IMAGE} pixels"
                found = f"{size} (height, width)"
                raise self._error(f"the file states an invalid size of its {kind} images", expected, found)
        if not (np.isfinite(shift) and shift > 0):
            raise self._error("the file states an invalid depth unit", "units per metre, such as 1000", shift)
        if frames * FRAME.size > length:
            expected = f"at least {frames * FRAME.size} bytes for {frames} frames"
            raise self._error("the file states more frames than its size allows", expected, f"{length} bytes")
        return header, frames

    def _find_frames(self, file: BinaryIO, length: int, frames: int) -> tuple[NDArray, NDArray]:
        """Read poses (n, 4, 4), and (n, 3): offset of each frame's images, bytes of colour, bytes of depth."""
        (height, width), (depth_height, depth_width) = self.header.color_size, self.header.depth_size
        limits = {"colour": 3 * height * width + SLACK, "depth": 2 * depth_height * depth_width + SLACK}
        poses, images = np.empty((frames, 4, 4)), np.empty((frames, 3), np.int64)
        for k in range(frames):
            head = FRAME.unpack(self._take(file, FRAME.size, f"frame {k} of {frames}"))
            sizes, start = head[18:], file.tell()
            for (kind, limit), size in zip(limits.items(), sizes):
                if size > limit:
                    what = f"the {kind} of frame {k} is too large"
                    raise self._error(what, f"at most {limit} bytes", f"{size} bytes")
            if start + sum(sizes) > length:
                raise self._truncated(f"frame {k} of {frames}", start + sum(sizes), length)
            poses[k], images[k] = np.reshape(head[:16], (4, 4)), (start, *sizes)
            file.seek(sum(sizes), 1)
        return poses, images

    def _compression(self, kind: str, number: int, names: tuple[str, ...], read: tuple[str, ...]) -> str:
        name = names[number] if 0 <= number < len(names) else f"unknown ({number})"
        if name not in read:
            raise self._error(
                f"the {kind} images have an unsupported compression",
                " or ".join(read),
                name,
                "export the images with ScanNet's SensReader",
            )
        return name

    # Reading ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """Open the file; errors of the system, at any time, are raised as DataError."""
        try:
            with open_regular(self.path, self.scene) as file:
                yield file
        except OSError as error:
            raise system_error(error, self.path, self.scene) from error

    def _take(self, file: BinaryIO, size: int, where: str) -> bytes:
        begin = file.tell()
        data = file.read(size)
        if len(data) < size:
            raise self._truncated(where, begin + size, begin + len(data))
        return data

    def _read(self, offset: int, size: int) -> bytes:
        with self._opened() as file:
            file.seek(offset)
            return self._take(file, size, "an image; the file was truncated after it was opened")

    def _inflate(self, data: bytes, size: int, what: str) -> bytes:
        """Decompress at most ``size`` + 1 bytes, regardless of how many the data claim to have."""
        stream = zlib.decompressobj()
        try:
            pixels = stream.decompress(data, size + 1)
        except zlib.error as error:
            raise self._error(f"{what} cannot be decompressed: {error}", found=f"{len(data)} bytes") from error
        if len(pixels) == size and not stream.eof:
            raise self._error(f"{what} is truncated", found=f"{len(data)} bytes")
        return pixels

    def _pixels(self, data: bytes, dtype: np.dtype | type, shape: tuple[int, ...], what: str) -> NDArray:
        size = np.dtype(dtype).itemsize * int(np.prod(shape))
        if len(data) != size:
            found = f"{len(data)} bytes" if len(data) < size else f"more than {size} bytes"
            raise self._error(f"{what} differs in size from the header", f"{shape}, {size} bytes", found)
        return np.frombuffer(data, dtype).reshape(shape)

    def _truncated(self, where: str, expected: int, found: int) -> DataError:
        return self._error(f"the file ends within {where}", f"at least {expected} bytes", f"{found} bytes")

    def _error(self, problem: str, expected: object = None, found: object = None, remedy: str = RESTORE) -> DataError:
        return DataError(problem, file=self.path, scene=self.scene, expected=expected, found=found, remedy=remedy)
