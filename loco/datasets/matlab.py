"""Read cells of strings and numbers from an untrusted MATLAB file; SciPy's reader can crash on damaged files.

The format is MATLAB's "MAT-File Format", level 5. A header of 128 bytes ends with the byte order. Each of the elements
that follow has a tag of 8 bytes (kind and size) and its content, padded to a multiple of 8 bytes; up to 4 bytes of
content are stored in the second half of the tag instead. A matrix (kind 14) consists of elements: flags, dimensions, a
name, and its content. Kind 15 is a compressed element.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from math import prod

import numpy as np
from numpy.typing import NDArray

MATRIX, COMPRESSED = 14, 15
# Kinds of elements with numbers or characters -> NumPy type, without the byte order.
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TEXTS = {16: "utf-8", 17: "utf-16", 18: "utf-32", 2: "utf-8", 4: "utf-16"}
CELL, STRUCT, CHAR = 1, 2, 4  # classes of matrices
NUMERIC = range(6, 16)
Element = tuple[int, memoryview]


def read_cells(content: bytes, name: str, count: int, limit: int) -> list[list[str] | NDArray[np.float64]]:
    """Return the first ``count`` cells, or fields of a structure, of a variable.

    Args:
        content: content of the file.
        name: name of the variable, a cell array or a single structure.
        count: number of cells to read.
        limit: largest size in bytes of the decompressed variables.

    Returns:
        One entry per cell: its rows, if it contains text; otherwise its numbers as float64, in their original shape.

    Raises:
        ValueError: the file does not have this format, exceeds ``limit`` bytes, or lacks such a variable.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise ValueError("it is not a MATLAB file of level 5")
    try:
        for matrix in _variables(memoryview(content)[128:], order, limit):
            parts = _elements(matrix, order)
            kind, shape = _head(parts, order)
            if _bytes(next(parts)) == name.encode():
                return _cells(kind, shape, parts, order, count)
    except (struct.error, StopIteration, zlib.error) as error:
        raise ValueError("it is truncated or damaged") from error
    raise ValueError(f"it has no variable {name!r}")


def _variables(data: memoryview, order: str, limit: int) -> Iterator[memoryview]:
    left = limit
    for kind, content in _elements(data, order):
        if kind == COMPRESSED:
            inflated = zlib.decompressobj().decompress(content, left + 1)
            left -= len(inflated)
            if left < 0:
                raise ValueError(f"its variables take more than {limit} bytes")
            kind, content = next(_elements(memoryview(inflated), order), (0, memoryview(b"")))
        if kind == MATRIX:
            yield content


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    """Yield the elements of ``data``; raise struct.error if one is truncated."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # a small element: its size is beside its kind
            kind, size, begin, following = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if size > 4:
                raise struct.error
        else:
            begin = at + 8
            following = begin + size + (-size % 8 if kind != COMPRESSED else 0)
        if begin + size > len(data):
            raise struct.error
        yield kind, data[begin : begin + size]
        at = following


def _head(parts: Iterator[Element], order: str) -> tuple[int, tuple[int, ...]]:
    """Return class and shape of a matrix; its name is the next of its ``parts``."""
    (flags,) = struct.unpack_from(f"{order}I", next(parts)[1])
    sides = next(parts)[1]
    shape = struct.unpack(f"{order}{len(sides) // 4}i", sides)
    if len(shape) != 2 or min(shape) < 0:
        raise ValueError(f"it has an array of the shape {shape[:8]}, expected two dimensions")
    if flags >> 11 & 1:
        raise ValueError("it has an array of complex numbers")
    return flags & 0xFF, shape


def _cells(
    kind: int, shape: tuple[int, ...], parts: Iterator[Element], order: str, count: int
) -> list[list[str] | NDArray[np.float64]]:
    if kind == STRUCT and prod(shape) == 1:
        next(parts), next(parts)  # the length of a field's name, and the names
    elif kind != CELL or prod(shape) < count:
        raise ValueError(f"the variable has class {kind} and shape {shape}, expected at least {count} cells")
    cells = []
    for _ in range(count):
        element, content = next(parts)
        if element != MATRIX:
            raise ValueError("it has a cell that is not an array")
        cells.append(_array(_elements(content, order), order))
    return cells


def _array(parts: Iterator[Element], order: str) -> list[str] | NDArray[np.float64]:
    kind, shape = _head(parts, order)
    next(parts)  # the name of the array, which is empty
    element, content = next(parts)
    if kind == CHAR and element in TEXTS:
        text = _text(element, content, order)
        if len(text) != prod(shape):
            raise ValueError(f"it has a text of {len(text)} characters with the shape {shape}")
        return ["".join(text[row :: shape[0]]) for row in range(shape[0])]
    if kind in NUMERIC and element in NUMBERS:
        numbers = np.frombuffer(content, f"{order}{NUMBERS[element]}").astype(np.float64)
        return numbers.reshape(shape, order="F")
    raise ValueError(f"it has a cell of class {kind} with elements of kind {element}")


def _text(element: int, content: memoryview, order: str) -> str:
    encoding = TEXTS[element]
    if encoding != "utf-8":
        encoding += "-le" if order == "<" else "-be"
    return bytes(content).decode(encoding)


def _bytes(element: Element) -> bytes:
    return bytes(element[1])
