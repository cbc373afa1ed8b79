"""Cameras and poses in text files."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loco.datasets.files import RESTORE, read_bytes
from loco.errors import DataError
from loco.files import decode_text

DEPTH_TO_COLOR = "depth_to_color.txt"
HALF_A_PIXEL = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # shift of a principal point
NEARLY_ONE = 1e-2  # tolerance for rotation matrices of rounded numbers
MAX_SKEW = 0.05  # largest skew of a camera, as a fraction of its focal length
FARTHEST = 1e8  # largest coordinate of a position, metres; the radius of the earth is 6.4e6
_NOT_FINITE = re.compile(r"[+-]?(?:1\.#(?:(?P<infinite>INF)|IND|QNAN|SNAN)\d*|nan\([^)\s]*\))", re.IGNORECASE)
LARGEST_TEXT = 1 << 26  # bytes


def read_intrinsics(file: Path, scene: str) -> tuple[NDArray[np.float64], tuple[int, int] | None]:
    """Read intrinsics (3, 3), with the centre of the top-left pixel moved from (0, 0) to (0.5, 0.5).

    Also return the size (height, width) of the images, or None if the file does not state it. A file states it as width
    and height after the matrix.

    Raises:
        DataError: the file is missing, has another number of values, or does not contain a camera matrix.
    """
    words = read_text(file, scene).split()
    if len(words) not in (9, 11):
        raise _count_error(
            file, scene, "3 x 3 numbers, optionally followed by the width and height of the images", len(words)
        )
    numbers = _numbers(words, file, scene)
    matrix, (width, height) = numbers[:9].reshape(3, 3), numbers[9:] if len(words) == 11 else (1, 1)
    if not (is_camera(matrix) and all(side >= 1 and float(side).is_integer() for side in (width, height))):
        raise DataError(
            "the file does not contain an intrinsic matrix",
            file=file,
            scene=scene,
            expected="fx 0 cx  0 fy cy  0 0 1, pixels, and optionally the width and height of the images",
            found=" ".join(f"{value:g}" for value in numbers),
            remedy="write the 3 x 3 intrinsic matrix of the calibration",
        )
    return centred(matrix), (int(height), int(width)) if len(words) == 11 else None


def is_camera(intrinsics: NDArray[np.float64]) -> bool:
    """Return whether a matrix (3, 3) is a camera matrix: finite, with positive focal lengths and little skew."""
    focal = intrinsics.diagonal()[:2]
    return bool(
        np.isfinite(intrinsics).all()
        and (focal > 0).all()
        and abs(intrinsics[0, 1]) <= MAX_SKEW * focal[0]
        and intrinsics[1, 0] == 0
        and np.array_equal(intrinsics[2], [0, 0, 1])
    )


def is_rigid(matrix: NDArray[np.float64]) -> bool:
    """Return whether a matrix (4, 4) is a rotation, up to rounding, and a translation of at most :data:`FARTHEST`."""
    rotation = matrix[:3, :3]
    return bool(
        np.isfinite(matrix).all()
        and np.abs(matrix[:3, 3]).max() <= FARTHEST
        and np.allclose(rotation @ rotation.T, np.eye(3), atol=NEARLY_ONE)
        and np.linalg.det(rotation) > 0
        and np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-6)  # rounding does not change these
    )


def centred(intrinsics: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert intrinsics (3, 3) from pixel centres at integers to pixel centres at i + 0.5."""
    return intrinsics + HALF_A_PIXEL


def read_depth_to_color(folder: Path, scene: str, default: NDArray[np.float64]) -> NDArray[np.float64]:
    """Read the transformation (4, 4) from the depth camera to the colour camera, metres.

    Returns:
        The content of ``depth_to_color.txt``, with an exact rotation; ``default`` if the file does not exist.

    Raises:
        DataError: the file does not contain a rigid transformation.
    """
    file = folder / DEPTH_TO_COLOR
    if not file.exists():
        return default
    pose = as_pose(read_matrix(file, (4, 4), scene), file=file, scene=scene)
    if pose is None:
        raise DataError(
            "the matrix contains a number that is not finite",
            file=file,
            scene=scene,
            remedy="write the rotation and the translation from the depth camera to the colour camera",
        )
    return pose


def as_pose(
    matrix: NDArray[np.float64], *, file: Path, scene: str, row: int | None = None
) -> NDArray[np.float64] | None:
    """Return a pose with an exactly orthonormal rotation, or None if a number is not finite (tracking was lost).

    Args:
        matrix: (4, 4), rigid transformation, metres; the rotation may be rounded, by up to :data:`NEARLY_ONE`.
        file: file that contains the matrix, for errors.
        scene: name of the scene, for errors.
        row: number of the pose in the file, from 1, for errors; None if the file contains a single matrix.

    Raises:
        DataError: the matrix is finite but not a rigid transformation, or a coordinate of the position is beyond
            :data:`FARTHEST`.
    """
    if not np.isfinite(matrix).all():
        return None
    require_near(matrix[:3, 3], f" (row {row})" if row else "", file=file, scene=scene)
    rotation = matrix[:3, :3]
    off = max(np.abs(rotation.T @ rotation - np.eye(3)).max(), np.abs(matrix[3] - [0, 0, 0, 1]).max())
    if off > NEARLY_ONE or np.linalg.det(rotation) < 0:
        raise DataError(
            "the pose is not a rigid transformation" + (f" (row {row})" if row else ""),
            file=file,
            scene=scene,
            expected="a 4 x 4 rigid transformation, row by row, metres (poses: camera-to-world)",
            found=" ".join(f"{value:g}" for value in matrix.ravel()),
            remedy="write the matrix in this form, or a pose of NaN where tracking was lost",
        )
    left, _, right = np.linalg.svd(rotation)
    pose = matrix.copy()
    pose[:3, :3], pose[3] = left @ right, [0, 0, 0, 1]
    return pose


def require_near(position: NDArray[np.float64], where: str, *, file: Path, scene: str) -> None:
    """Refuse an impossible camera position (3,), such as a number in another format or without its decimal point.

    Raises:
        DataError: a coordinate is beyond :data:`FARTHEST`.
    """
    if np.abs(position).max() > FARTHEST:
        raise DataError(
            f"the position of a camera is implausibly far away{where}",
            file=file,
            scene=scene,
            expected=f"coordinates of at most {FARTHEST:g} m",
            found=" ".join(f"{value:g}" for value in position),
            remedy="write positions in metres, and NaN where tracking was lost",
        )


def read_matrix(file: Path, shape: tuple[int, int], scene: str) -> NDArray[np.float64]:
    """Read a file that contains one matrix of this shape; its numbers may be infinite or NaN."""
    words = read_text(file, scene).split()
    if len(words) != shape[0] * shape[1]:
        raise _count_error(file, scene, f"{shape[0]} x {shape[1]} numbers", len(words))
    return _numbers(words, file, scene).reshape(shape)


def read_table(file: Path, scene: str, columns: int) -> list[list[str]]:
    """Return the words of each line, ``columns`` per line, without empty lines and lines that begin with ``#``."""
    rows = []
    for number, line in enumerate(read_text(file, scene).splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != columns:
            raise DataError(
                f"line {number} cannot be parsed",
                file=file,
                scene=scene,
                expected=f"{columns} values",
                found=f"{len(words)} values: {line[:80]}",
                remedy="correct this line, or replace the file with an intact copy",
            )
        rows.append(words)
    return rows


def read_numbers(file: Path, scene: str, columns: int) -> NDArray[np.float64]:
    """Read the numbers of a text file, (rows, columns); see :func:`read_table`."""
    rows = read_table(file, scene, columns)
    return _numbers([word for row in rows for word in row], file, scene).reshape(-1, columns)


def read_named_rows(file: Path, scene: str, columns: int) -> tuple[list[str] | None, NDArray[np.float64]]:
    """Read rows of ``columns`` numbers. Either every row begins with a name, which may contain spaces, or none does.

    Empty lines and lines that begin with ``#`` are ignored.

    Returns:
        The names, or None if there are none; and the numbers (rows, columns).
    """
    names: list[str | None] = []
    words: list[str] = []
    for number, line in enumerate(read_text(file, scene).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        *name, rest = _split_name(line, columns)
        names += name or [None]
        if len(rest) != columns or (names[0] is None) != (names[-1] is None):
            raise DataError(
                f"line {number} cannot be parsed",
                file=file,
                scene=scene,
                expected=f"{columns} values, or a name and {columns} values, with the same form in all lines",
                found=f"{len(line.split())} values: {line[:80]}",
                remedy=f"write {columns} numbers per line, after the name of the image in all lines or in none",
            )
        words += rest
    return None if None in names or not names else names, _numbers(words, file, scene).reshape(-1, columns)


def _split_name(line: str, columns: int) -> tuple[str, list[str]] | tuple[list[str]]:
    """Return the name before the last ``columns`` words of a line, if there is one, and these words."""
    words = line.split()
    if len(words) <= columns:
        return (words,)
    name, *rest = line.strip().rsplit(maxsplit=columns)
    return name, rest


def read_text(file: Path, scene: str) -> str:
    """Read a text file (:func:`loco.files.decode_text`); invalid bytes are replaced."""
    return decode_text(read_bytes(file, scene, limit=LARGEST_TEXT))


def read_number(word: str) -> float:
    """Parse a number, including NaN and infinity as written by the C library of Windows.

    Examples of the latter are ``-1.#IND``, ``1.#QNAN``, ``1.#INF00`` and ``-nan(ind)``.

    Raises:
        ValueError: it is not a number.
    """
    if match := _NOT_FINITE.fullmatch(word):
        return math.inf if match["infinite"] else math.nan
    if "_" in word:  # Python ignores underscores in numbers
        raise ValueError(f"could not convert string to float: {word!r}")
    return float(word)


def _count_error(file: Path, scene: str, expected: str, found: int) -> DataError:
    remedy = f"write {expected}, separated by spaces or line breaks"
    return DataError(
        "the file does not contain exactly one matrix",
        file=file,
        scene=scene,
        expected=expected,
        found=f"{found} values",
        remedy=remedy,
    )


def _numbers(words: list[str], file: Path, scene: str) -> NDArray[np.float64]:
    try:
        return np.array([read_number(word) for word in words])
    except ValueError as error:
        raise DataError(
            f"the file contains a value that is not a number: {error}", file=file, scene=scene, remedy=RESTORE
        ) from error
