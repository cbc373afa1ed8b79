"""Objects as lists of segments of an over-segmented mesh, in the JSON format of Matterport3D and ScanNet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loco.datasets.files import RESTORE
from loco.errors import DataError


class Objects(NamedTuple):
    """The objects of the triangles of a mesh (Matterport3D) or of its vertices (ScanNet).

    ``object`` (t,) int32 is the index of the object of each triangle or vertex, -1 = none; ``labels`` are the objects'
    raw labels, in the order of the file; ``notes`` are notes on harmless peculiarities of the file.
    """

    object: NDArray[np.int32]
    labels: list[str]
    notes: list[str]


def segment_numbers(values: Sequence[Any], count: int, *, file: Path, scene: str, name: str) -> NDArray[np.int64]:
    """Convert the list ``segIndices`` of a file to an array (count,).

    Args:
        values: the list.
        count: number of triangles (or vertices) of the mesh.
        file: source of the list, for errors.
        scene: name of the scene, for errors.
        name: name of the file, or of the member if ``file`` is an archive, for errors.

    Raises:
        DataError: the list has another length, or contains values that are not 64-bit integers.
    """
    if len(values) != count:
        raise DataError(
            f"{name!r} does not belong to its mesh",
            file=file,
            scene=scene,
            expected=f"{count} segment numbers",
            found=f"{len(values)} segment numbers",
            remedy=RESTORE,
        )
    if not _whole(values):
        raise DataError(
            f"{name!r} contains segment numbers that are not 64-bit integers",
            file=file,
            scene=scene,
            expected="a list `segIndices` of 64-bit integers",
            found=f"another value at index {next(k for k, value in enumerate(values) if not _whole([value]))}",
            remedy=RESTORE,
        )
    return np.array(values, np.int64)


def segment_objects(
    segments: NDArray[np.int64], groups: Iterable[Mapping[str, Any]], *, file: Path, scene: str, name: str
) -> Objects:
    """Return the object of each triangle or vertex.

    Objects are numbered by their position in the file, never by ``objectId``, because ids have gaps and any order. An
    object that is listed again with the same label and segments counts once (ScanNet's scene0217_00 lists all its
    objects twice, the second time with new ids). A segment of two objects is assigned to the first, and a note is
    added. An object without remaining triangles or vertices keeps its number.

    Args:
        segments: (t,), the segment of each triangle or vertex.
        groups: the list ``segGroups``: maps with ``label``, ``segments`` and optionally ``objectId``.
        file: source of the lists, for errors.
        scene: name of the scene, for errors.
        name: name of the file, or of the member if ``file`` is an archive, for errors.

    Raises:
        DataError: a group is broken, or two objects have the same ``objectId``.
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
        "objects that are listed twice and count once": repeated,
        "segments of two objects, which are assigned to the first": shared,
        "segments of objects that are not in the mesh": strays,
    }
    return Objects(number[inverse], labels, [f"{name!r}: {fact}: {n}" for fact, n in facts.items() if n])


def _group(group: Any, place: int, broken: Callable[[str], DataError]) -> tuple[Any, str, frozenset[int]]:
    """Return the ``objectId`` (or position) of a group, its label and its segments."""
    match group:
        case {"label": str(label), "segments": list(segments), **rest} if _whole(segments):
            identity = rest.get("objectId", place)
            if isinstance(identity, int | str):
                return identity, label, frozenset(segments)
    raise broken(f"object {place} of the list has no `label`, no integer `segments`, or an invalid `objectId`")


def _whole(values: Sequence[Any]) -> bool:
    return all(type(value) is int and abs(value) < 1 << 63 for value in values)
