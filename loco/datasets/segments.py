"""Objects that are lists of segments of an over-segmented mesh, as Matterport3D and ScanNet write them (JSON)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loco.datasets.files import RESTORE
from loco.errors import DataError


class Objects(NamedTuple):
    """What the triangles of a mesh belong to.

    ``object`` (t,) int32, the number of each triangle's object, -1 = none; ``labels``, the raw label of each object, in
    the order of the file; ``notes``, what is odd in the file but does no harm.
    """

    object: NDArray[np.int32]
    labels: list[str]
    notes: list[str]


def segment_numbers(values: Sequence[Any], count: int, *, file: Path, scene: str, name: str) -> NDArray[np.int64]:
    """The list ``segIndices`` of a file as an array (count,).

    Args:
        values: the list.
        count: how many triangles (or vertices) the mesh has.
        file: where it comes from, for errors; ``name`` of the member where it is an archive.
        scene: likewise.
        name: likewise.

    Raises:
        DataError: it is of another length, or no list of whole numbers.
    """
    if len(values) != count:
        raise DataError(
            f"{name} does not belong to its mesh",
            file=file,
            scene=scene,
            expected=f"{count} segment numbers",
            found=len(values),
            remedy=RESTORE,
        )
    if not _whole(values):
        raise DataError(f"{name!r} holds segments that are no whole numbers", file=file, scene=scene, remedy=RESTORE)
    return np.array(values, np.int64)


def segment_objects(
    segments: NDArray[np.int64], groups: Iterable[Mapping[str, Any]], *, file: Path, scene: str, name: str
) -> Objects:
    """The object of each triangle.

    Objects are numbered by their place in the file, never by ``objectId``: ids have gaps and come in any order. An
    object that is listed again, with the same label and segments, is one object (ScanNet's scene0217_00 lists all of
    its objects twice, the second time under new ids). A segment that two objects name goes to the first, and is noted.
    An object of which no triangle is left keeps its number.

    Args:
        segments: (t,), of each triangle.
        groups: the list ``segGroups``: maps with ``label``, ``segments`` and perhaps ``objectId``.
        file: where they come from, for errors; ``name`` of the member where it is an archive.
        scene: likewise.
        name: likewise.

    Raises:
        DataError: a group is broken, or an ``objectId`` stands for two objects.
    """

    def broken(problem: str) -> DataError:
        return DataError(f"{name!r}: {problem}", file=file, scene=scene, remedy=RESTORE)

    labels: list[str] = []
    owner: dict[int, int] = {}  # segment -> object
    listed: dict[Any, tuple[str, frozenset[int]]] = {}  # objectId -> label and segments
    repeated = shared = 0
    for place, group in enumerate(groups):
        identity, label, own = _group(group, place, broken)
        if listed.get(identity) == (label, own) or (own and (label, own) in listed.values()):
            repeated += 1
            continue
        if identity in listed:
            raise broken(f"object {identity} is listed twice, with other segments or another label")
        listed[identity] = label, own
        shared += len(own & owner.keys())
        owner = dict.fromkeys(own, len(labels)) | owner
        labels.append(label)

    present, inverse = np.unique(segments, return_inverse=True)
    number = np.array([owner.get(segment, -1) for segment in present.tolist()], np.int32)
    strays = len(owner.keys() - set(present.tolist()))
    facts = {
        "objects are listed twice and count once": repeated,
        "segments are named by a second object and belong to the first": shared,
        "segments of objects have no triangle": strays,
    }
    return Objects(number[inverse], labels, [f"{name!r}: {n} {fact}" for fact, n in facts.items() if n])


def _group(group: Any, place: int, broken: Callable[[str], DataError]) -> tuple[Any, str, frozenset[int]]:
    """The ``objectId`` (or place) of a group, its label and its segments."""
    match group:
        case {"label": str(label), "segments": list(segments), **rest} if _whole(segments):
            identity = rest.get("objectId", place)
            if isinstance(identity, int | str):
                return identity, label, frozenset(segments)
    raise broken(f"object {place} of the list lacks a `label`, `segments` (whole numbers) or a sound `objectId`")


def _whole(values: Sequence[Any]) -> bool:
    return all(type(value) is int and abs(value) < 1 << 63 for value in values)
