"""Match the rows of a table to images, by a column of names or numbers, or else by the order of the names.

Software sorts names in several orders, and a table does not state which one its writer used. Time stamps with different
numbers of decimals are a common case: ``1.83`` is before ``1.9`` in lexicographic order and in time, but after it in
natural order; for ``frame2`` and ``frame10`` the opposite holds. Therefore rows without names are matched by order only
if all orders agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loco.datasets.checklist import few
from loco.datasets.layouts import natural
from loco.errors import DataError

ORDERS: dict[str, Callable[[Path], Any]] = {
    "natural order (2 before 10)": lambda file: natural(str(file)),
    "lexicographic order (10 before 2)": str,
    "lexicographic order of the names without suffix": lambda file: str(file.with_suffix("")),
    "lexicographic order regardless of case": lambda file: str(file).casefold(),
}


def match_rows(
    keys: Sequence[str] | None, rows: int, images: Mapping[str, Path], *, table: Path, scene: str
) -> list[str]:
    """Return the name of the image of each row.

    Args:
        keys: one key per row, or None if rows have none. Keys are names of images, with or without suffix, or numbers:
            those in the names of the images (``12`` matches ``000012``) or else the positions of the images in the
            order of their names, counted from 0 or from 1.
        rows: number of rows.
        images: name without suffix -> file, in natural order.
        table: the file of the rows, for errors.
        scene: name of the scene, for errors.

    Raises:
        DataError: not every image has exactly one row, or the order of the names is ambiguous.
    """
    if keys is None:
        if rows != len(images):
            raise DataError(
                "the file does not have one row per frame",
                file=table,
                scene=scene,
                expected=f"{len(images)} rows, one per image in {_folder(images)}/",
                found=f"{rows} rows",
                remedy="write one row per frame, in the order of the names, with NaN where tracking was lost; or begin "
                "each row with the name of its image",
            )
        require_one_order(images, table=table, scene=scene)
        return list(images)
    known = _known_keys(keys, images, table, scene)
    found = [known.get(_plain(key, known), "") for key in keys]
    unknown = [key for key, name in zip(keys, found) if not name]
    repeated = [name for name, count in Counter(filter(None, found)).items() if count > 1]
    lacking = [name for name in images if name not in set(found)]
    for which, fault in (
        (unknown, "rows have names without an image"),
        (repeated, "images have more than one row"),
        (lacking, "images have no row"),
    ):
        if which:
            raise DataError(
                f"{fault} ({len(which)}): {few(which)}",
                file=table,
                scene=scene,
                expected=f"one row for each of the {len(images)} images of {_folder(images)}/, which begins with its "
                "name, with or without suffix",
                found=f"{rows} rows, the first for {few(keys[:1])}; the first image is {few(list(images)[:1])}",
                remedy="correct the names, and write NaN where tracking was lost",
            )
    return found


def require_one_order(images: Mapping[str, Path], *, table: Path, scene: str) -> None:
    """Refuse names whose order is ambiguous; see :func:`match_rows` for the arguments.

    Raises:
        DataError: two of :data:`ORDERS` differ. The message names both images at the first position where they differ.
    """
    difference = order_difference(list(images.values()))
    if difference:
        raise DataError(
            f"the rows of the file cannot be matched to {_folder(images)}/, because the order of the names is "
            "ambiguous",
            file=table,
            scene=scene,
            expected="names with an unambiguous order, such as zero-padded numbers",
            found=difference,
            remedy="begin each row with the name of its image, or rename the images",
        )


def order_difference(files: Sequence[Path]) -> str | None:
    """Describe the first position at which two of :data:`ORDERS` differ; return None if the order is unambiguous."""
    (first, expected), *others = ((label, sorted(files, key=key)) for label, key in ORDERS.items())
    for other, order in others:
        for place, (one, another) in enumerate(zip(expected, order), start=1):
            if one != another:
                names = few([one.name]), few([another.name])
                return f"number {place} is {names[0]} in {first} and {names[1]} in {other}"
    return None


def _known_keys(keys: Sequence[str], images: Mapping[str, Path], table: Path, scene: str) -> dict[str, str]:
    """Return a map from possible row names to the names of images."""
    with_suffix = {file.name: name for name, file in images.items()}
    exact = {**with_suffix, **{name: name for name in images}}
    # `a.png` may be the name of one image without and of another with suffix.
    exact = {key: name for key, name in exact.items() if with_suffix.get(key, name) == name}
    if not all(map(_is_number, keys)) or not exact.keys().isdisjoint(keys):
        return exact
    numbers = {_digits(name): name for name in images if _is_number(name)}
    if len(numbers) == len(images):
        return numbers
    places = {_digits(key) for key in keys}
    for first in (0, 1):
        if places == {str(first + k) for k in range(len(images))}:
            require_one_order(images, table=table, scene=scene)
            return {str(first + k): name for k, name in enumerate(images)}
    return exact


def _plain(key: str, known: Mapping[str, str]) -> str:
    return key if key in known or not _is_number(key) else _digits(key)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _digits(number: str) -> str:
    """Return an integer as text without leading zeros."""
    return number.lstrip("0") or "0"


def _folder(images: Mapping[str, Path]) -> str:
    return next(iter(images.values())).parent.name if images else "color"
