"""Parse untrusted PLY files: text or binary, with polygons of any number of corners and further elements.

The format is Greg Turk's (paulbourke.net/dataformats/ply). Counts are compared with the size of the file before memory
is allocated. Bytes after the last element are ignored, as in most readers, because some programs append a line break.
"""

from __future__ import annotations

import re
import warnings
from array import array
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8"},
}
LARGEST_HEADER = 1 << 16  # bytes
MAX_CORNERS = 1 << 12  # largest number of corners of a polygon
MAX_MIXED = 5_000_000  # largest number of records whose lists differ in length, which are read one by one
FLAT = 1e-6  # tolerance for the areas of triangles, as a fraction of the area of their polygon
CORNERS = ("vertex_indices", "vertex_index")
_END = re.compile(rb"^end_header[ \t]*(\r\n|\n|\r)", re.MULTILINE)


class Property(NamedTuple):
    """A property of an element; ``length`` is the type of the length if it is a list, None if it is a single number."""

    name: str
    type: str
    length: str | None = None


@dataclass(frozen=True)
class Element:
    """An element: the number of its records and their properties."""

    name: str
    count: int
    properties: list[Property]


class Polygons(NamedTuple):
    """Vertices (v, 3) float64, and the concatenated ``corners`` of all faces: face i has ``lengths[i]`` corners."""

    vertices: NDArray[np.float64]
    lengths: NDArray[np.int64]
    corners: NDArray[np.int64]


def parse_ply(data: bytes | bytearray) -> Polygons:
    """Return the vertices and faces of a PLY file, which may have no faces.

    Raises:
        ValueError: it is not a PLY file, or is truncated or damaged.
    """
    elements, order, at = _header(data)
    content = _Content(memoryview(data)[at:], order)
    vertices, lengths, corners = None, np.empty(0, np.int64), np.empty(0, np.int64)
    for element in elements:
        columns = content.read(element)
        if element.name == "vertex" and columns:
            if not {"x", "y", "z"} <= columns.keys() or any(columns[axis].lengths is not None for axis in "xyz"):
                raise ValueError("its vertices have no x, y and z")
            vertices = np.stack([content.values(columns[axis]).astype(np.float64) for axis in "xyz"], axis=1)
        found = next((columns[name] for name in CORNERS if name in columns), None)
        if element.name == "face" and found is not None and found.lengths is not None:
            lengths, corners = found.lengths, _whole(content.values(found))
        if vertices is not None and len(lengths):
            break  # the elements that follow are not needed
    if vertices is None:
        raise ValueError("it has no vertices")
    return Polygons(vertices, lengths, corners)


def _whole(values: NDArray) -> NDArray[np.int64]:
    """Return indices of vertices as integers; text files and some writers store them as floating-point numbers."""
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.floor(values)).all()):
        raise ValueError("a face has a vertex index that is not an integer")
    if len(values) and not abs(float(values.max())) + abs(float(values.min())) < 1 << 62:
        raise ValueError("a face has a vertex index out of range")
    return values.astype(np.int64)


def triangulate(polygons: Polygons) -> NDArray[np.int64]:
    """Return triangles (t, 3), in the order of the faces they are part of; faces of fewer than 3 corners have none.

    A polygon is divided into the fan of triangles around the corner that maximises the smallest triangle, so that no
    triangle of a non-convex quad covers area outside the quad.

    Raises:
        ValueError: a polygon has no corner from which all of it can be seen, or too many corners.
    """
    vertices, lengths, corners = polygons
    starts = np.cumsum(lengths) - lengths
    if len(lengths) and lengths.max() > MAX_CORNERS:
        raise ValueError(f"a face has {lengths.max()} corners; at most {MAX_CORNERS} are supported")
    faces, triangles = [np.empty(0, np.int64)], [np.empty((0, 3), np.int64)]
    for sides in np.unique(lengths[lengths >= 3]).tolist():
        chosen = np.flatnonzero(lengths == sides)
        polygon = corners[starts[chosen, None] + np.arange(sides)]
        fans = polygon[:, None] if sides == 3 else _fans(polygon, vertices)
        faces.append(np.repeat(chosen, sides - 2))
        triangles.append(fans.reshape(-1, 3))
    order = np.argsort(np.concatenate(faces), kind="stable")
    return np.concatenate(triangles)[order]


def _fans(polygon: NDArray[np.int64], vertices: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return triangles (n, sides - 2, 3) of polygons (n, sides)."""
    vertices = vertices / max(np.abs(vertices).max(), np.finfo(float).tiny)  # so that no product overflows
    count, sides = polygon.shape
    points = vertices[polygon]
    points = points - points[:, :1]
    normal = np.cross(points, np.roll(points, -1, axis=1)).sum(axis=1)  # twice the area, along the normal (Newell)
    size = np.linalg.norm(normal, axis=1)
    direction = normal / np.maximum(size, np.finfo(float).tiny)[:, None]
    best, fan = np.full(count, -np.inf), np.zeros(count, np.int64)
    for apex in range(sides):
        around = np.roll(points, -apex, axis=1)
        arms = around[:, 1:] - around[:, :1]
        smallest = (np.cross(arms[:, :-1], arms[:, 1:]) @ direction[:, :, None])[..., 0].min(axis=1)
        better = smallest > best + FLAT * size
        best, fan = np.where(better, smallest, best), np.where(better, apex, fan)
    if (best < -FLAT * size).any():
        raise ValueError(
            "a face is a polygon that cannot be split into a triangle fan; triangulate the mesh in the program that "
            "made it"
        )
    turned = np.take_along_axis(polygon, (fan[:, None] + np.arange(sides)) % sides, axis=1)
    apexes = np.broadcast_to(turned[:, :1], (count, sides - 2))
    return np.stack([apexes, turned[:, 1:-1], turned[:, 2:]], axis=2)


# --- the header ------------------------------------------------------------------------------------------------------


def _header(data: bytes | bytearray) -> tuple[list[Element], str, int]:
    """Return the elements, the byte order ("" for text), and the offset of the content."""
    head = bytes(data[:LARGEST_HEADER]).removeprefix(b"\xef\xbb\xbf")
    skipped = min(len(data), LARGEST_HEADER) - len(head)
    end = _END.search(head)
    if not head.startswith(b"ply") or end is None:
        raise ValueError("it is not a PLY file" if not head.startswith(b"ply") else "its header does not end")
    order, elements = None, []
    for line in head[: end.start()].decode("ascii", "replace").splitlines()[1:]:
        match line.split():
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", kind, _]:
                order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}.get(kind)
            case ["element", name, count] if count.isdecimal() and len(count) < 19:
                elements.append(Element(name, int(count), []))
            case ["property", "list", length, kind, name] if elements and {length, kind} <= TYPES.keys():
                elements[-1].properties.append(Property(name, TYPES[kind], TYPES[length]))
            case ["property", kind, name] if elements and kind in TYPES:
                elements[-1].properties.append(Property(name, TYPES[kind]))
            case _:
                raise ValueError(f"its header cannot be parsed: {line[:80]!r}")
    if order is None:
        raise ValueError("its header states an unknown format")
    for element in elements:
        names = [each.name for each in element.properties]
        if len(set(names)) < len(names) or (not names and element.count):
            raise ValueError(f"its header lists no property of {element.name!r}, or a property twice")
    return elements, order, skipped + end.end()


# --- the content -----------------------------------------------------------------------------------------------------


class _Column(NamedTuple):
    """Where the values of a property are: the position of the first value of each record, and the lengths of its lists.

    ``lengths`` is None for a property that is a single number.
    """

    type: str
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64] | None


class _Content:
    """The records of a file, element by element. Positions count bytes, or numbers in a text file."""

    def __init__(self, data: memoryview, order: str) -> None:
        self._order, self._at = order, 0
        self._units = np.frombuffer(data, np.uint8) if order else _numbers(bytes(data))

    def read(self, element: Element) -> dict[str, _Column]:
        """Locate the values of the next element, and move to its end.

        Raises:
            ValueError: the file ends within the element, or a list has an impossible length.
        """
        smallest = sum(self._width(each.length or each.type) for each in element.properties)
        if element.count * smallest > len(self._units) - self._at:
            raise ValueError(f"it ends within its {element.count} records of {element.name!r}")
        if not element.count:
            return {}
        return self._alike(element) or self._one_by_one(element)

    def values(self, column: _Column) -> NDArray:
        """Return the values of a property; for a list, the concatenated values of all records."""
        if column.lengths is None:
            return self._gather(column.type, column.starts)
        before = np.cumsum(column.lengths) - column.lengths
        within = np.arange(column.lengths.sum()) - np.repeat(before, column.lengths)
        return self._gather(column.type, np.repeat(column.starts, column.lengths) + within * self._width(column.type))

    def _alike(self, element: Element) -> dict[str, _Column] | None:
        """Return the columns if the lists of all records have the lengths of the first record's; otherwise None."""
        offsets, lengths, width = {}, {}, 0
        for each in element.properties:
            if each.length:
                lengths[each.name] = self._length(each.length, self._at + width), width
                width += self._width(each.length)
            offsets[each.name] = width
            width += self._width(each.type) * (lengths[each.name][0] if each.length else 1)
        if element.count * width > len(self._units) - self._at:
            return None
        records = self._at + width * np.arange(element.count)
        for each in element.properties:
            if each.length:
                length, offset = lengths[each.name]
                if (self._gather(each.length, records + offset) != length).any():
                    return None
        self._at += element.count * width
        return {
            each.name: _Column(
                each.type,
                records + offsets[each.name],
                np.full(element.count, lengths[each.name][0]) if each.length else None,
            )
            for each in element.properties
        }

    def _one_by_one(self, element: Element) -> dict[str, _Column]:
        if element.count > MAX_MIXED:
            raise ValueError(
                f"its {element.count} records of {element.name!r} have lists of different lengths, which is supported "
                f"for at most {MAX_MIXED} records"
            )
        starts = {each.name: array("q") for each in element.properties}
        lengths = {each.name: array("q") for each in element.properties if each.length}
        for _ in range(element.count):
            for each in element.properties:
                length = 1
                if each.length:
                    length = self._length(each.length, self._at)
                    lengths[each.name].append(length)
                    self._at += self._width(each.length)
                starts[each.name].append(self._at)
                self._at += length * self._width(each.type)
            if self._at > len(self._units):
                raise ValueError(f"it ends within its {element.count} records of {element.name!r}")
        return {
            each.name: _Column(
                each.type, np.array(starts[each.name]), np.array(lengths[each.name]) if each.length else None
            )
            for each in element.properties
        }

    def _length(self, kind: str, at: int) -> int:
        width = self._width(kind)
        if at + width <= len(self._units):
            found = self._units[at : at + width].view(self._order + kind)[0] if self._order else self._units[at]
            if 0 <= found <= len(self._units) and found == int(found):
                return int(found)
        raise ValueError("it is truncated, or a list in it has an invalid length")

    def _gather(self, kind: str, starts: NDArray[np.int64]) -> NDArray:
        if not self._order:
            return self._units[starts]
        width = self._width(kind)
        found = np.empty((len(starts), width), np.uint8)
        for k in range(width):
            found[:, k] = self._units[starts + k]
        return found.view(self._order + kind)[:, 0]

    def _width(self, kind: str) -> int:
        return int(kind[1:]) if self._order else 1


def _numbers(text: bytes) -> NDArray[np.float64]:
    """Parse all numbers of a text."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # older versions of NumPy only warn of invalid numbers
        try:
            return np.fromstring(text, np.float64, sep=" ")
        except (ValueError, DeprecationWarning):
            raise ValueError("it contains a value that is not a number") from None
