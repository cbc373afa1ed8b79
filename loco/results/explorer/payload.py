"""The data of a page as text: a JSON header and one block of bytes, deflated and in base64.

The header describes every array by its type, shape and offset in the block. The block is a zlib stream, whose checksum
the browser verifies.
"""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loco import __version__
from loco.results.explorer.content import MIN_BASELINE, RHO, Content, Geometry, Landmarks, PageExtractor, PageView

COLOUR_MAPS = ("viridis", "cividis", "magma", "gray")  # even steps of lightness: safe for colour-blind readers
LARGEST_SIDE = 480  # maximum length of the sides of the images in the page, pixels
QUALITY = 85  # JPEG quality of these images
ALIGNMENT = 8  # bytes; the offset of every array is a multiple


class Payload(NamedTuple):
    """The JSON-able ``header``, and as ``text`` the arrays that it describes, deflated and in base64."""

    header: dict[str, Any]
    text: str


def pack(content: Content) -> Payload:
    """Return the data of a page."""
    block = _Block()
    header = {
        "version": __version__,
        "title": content.title,
        "available": content.available,
        "coverage": content.coverage,
        "rho": RHO,
        "minBaseline": MIN_BASELINE,
        "origins": dict(content.origins),
        "views": [_view(view, block) for view in content.views],
        "geometry": _geometry(content.geometry, block) if content.geometry else None,
        "landmarks": _landmarks(content.landmarks, block) if content.landmarks else None,
        "extractors": [_extractor(extractor, block) for extractor in content.extractors],
        "colourMaps": {name: block.add(_colour_map(name)) for name in COLOUR_MAPS},
    }
    deflated = zlib.compress(block.bytes())
    header["bytes"] = {"deflated": len(deflated), "inflated": block.size}
    return Payload(header, base64.b64encode(deflated).decode("ascii"))


class _Block:
    """Arrays one after another, each at a multiple of :data:`ALIGNMENT`."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[bytes] = []

    def add(self, array: NDArray) -> dict[str, Any]:
        """Append an array and return its description; numbers are little-endian."""
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        description = {"type": array.dtype.name, "shape": list(array.shape), "offset": self.size}
        data = array.tobytes()
        self._parts.append(data + bytes(-len(data) % ALIGNMENT))
        self.size += len(self._parts[-1])
        return description

    def bytes(self) -> bytes:
        return b"".join(self._parts)


def _view(view: PageView, block: _Block) -> dict[str, Any]:
    height, width = view.rgb.shape[:2]
    return {
        "name": view.name,
        "size": [width, height],
        "grid": list(view.grid),
        "area": list(view.area),
        "jpeg": block.add(np.frombuffer(_jpeg(view.rgb), np.uint8)),
    }


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    image, stream = Image.fromarray(rgb), io.BytesIO()
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    image.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def _geometry(geometry: Geometry, block: _Block) -> dict[str, Any]:
    return {
        "unit": geometry.unit,
        "points": block.add(geometry.points),
        "valid": block.add(geometry.valid.astype(np.uint8)),
        "visible": block.add(np.packbits(geometry.visible, axis=1, bitorder="little")),
        "intrinsics": block.add(geometry.intrinsics),
        "poses": block.add(geometry.poses),
    }


def _landmarks(landmarks: Landmarks, block: _Block) -> dict[str, Any]:
    return {
        "patch": block.add(landmarks.patch.astype(np.int32)),
        "precision": block.add(landmarks.precision),
        "found": block.add(landmarks.found.astype(np.int32)),
        "seen": block.add(landmarks.seen.astype(np.int32)),
        "start": landmarks.start,
    }


def _extractor(extractor: PageExtractor, block: _Block) -> dict[str, Any]:
    features = extractor.codes
    return {
        "name": extractor.name,
        "title": extractor.title,
        "step": features.step,
        "square": features.square,
        "fidelity": extractor.fidelity._asdict(),
        "codes": block.add(features.codes.T),  # one channel after another, which deflates better
        "offset": block.add(features.offset),
        "colours": block.add(extractor.colours),
    }


def _colour_map(name: str) -> NDArray[np.uint8]:
    colours = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3]
    return np.round(255 * colours).astype(np.uint8)
