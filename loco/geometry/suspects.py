"""Name the fault of a scene whose frames do not agree: which usual mistake, if undone, makes them agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loco.geometry.consistency import Agreement, Comparable

Floats = NDArray[np.floating]

LEAST_CONSISTENCY = 0.6  # below, the frames do not agree; correct recordings reach 0.99, unrelated poses 0.15 to 0.4
REPAIRED_CONSISTENCY = 0.85  # that a repair must reach
GAIN, LEAST_GAIN = 1.2, 0.02  # by which a repair must raise the net agreement: factor, and points per point
FEWER_CONTRADICTIONS = 0.5  # fraction of contradictions that a repair may leave
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # between OpenGL's camera axes (y up, z backward) and OpenCV's
SCALES = (1000.0, 100.0, 10.0, 5.0, 4.0, 2.5, 2.0, 1.5)
ZOOMS = (2.0, 1.75, 1.5, 4 / 3, 1.25, 1.1)
SHIFTS = (1, -1, 2, -2)
COARSE, FINALISTS = 5, 4  # each n-th point ranks the suspects, of which so many are compared by all points
REFINED = np.geomspace(0.9, 1.1, 9)  # around the best scale and zoom
STANDARD = 0.05  # a factor this near to one of these is stated as that one
BETTER = 1.05  # by which the net agreement must be raised for a factor that is not one of the above
CONVINCING = 0.995  # consistency that no repair can raise by much


class Suspect(NamedTuple):
    """A mistake and how to undo it.

    Attributes:
        fault: ``inverse``, ``axes``, ``inverse and axes``, ``shift``, ``reversed``, ``depth``, ``intrinsics`` (of
            images of another size) or ``focal`` (lengths alone).
        poses: (m, 4, 4) as they would be without it.
        amount: of a shift, in frames; of ``depth``, ``intrinsics`` and ``focal``, the factor that undoes the mistake.
    """

    fault: str
    poses: Floats
    amount: float = 1.0

    def agreement(self, views: Comparable, every: int = 1) -> Agreement:
        scale = self.amount if self.fault == "depth" else 1.0
        zoom = self.amount if self.fault == "intrinsics" else 1.0
        focal = self.amount if self.fault == "focal" else 1.0
        return views.agreement(self.poses, scale, zoom, focal, every)


class Diagnosis(NamedTuple):
    """What was found.

    Attributes:
        found: agreement of the frames as they are.
        fault: of the suspect that repairs them; ``unknown`` where they do not agree and no suspect does; None if they
            agree, or if they hardly see each other and no suspect changes that.
        amount: as of :class:`Suspect`.
        repaired: agreement after the repair.
    """

    found: Agreement
    fault: str | None = None
    amount: float = 1.0
    repaired: Agreement | None = None


def diagnose(
    views: Comparable, poses: Floats, moved: Callable[[NDArray[np.int64]], Floats], frames: NDArray[Any]
) -> Diagnosis:
    """Compare the frames as they are with what they would be without each of the usual mistakes.

    Args:
        views: the sample of m frames.
        poses: (m, 4, 4), their poses, camera-to-world.
        moved: numbers (m,) of frames of the scene -> the poses (m, 4, 4) that the sample would have if each of its
            frames had the pose of that frame.
        frames: (m,), the numbers of the sample.
    """
    found = views.agreement(poses)
    if found.consistency >= CONVINCING:
        return Diagnosis(found)
    suspect, best = _best(views, list(_suspects(poses, moved, frames)))
    if suspect.fault in ("depth", "intrinsics", "focal"):
        nearby = [suspect._replace(amount=suspect.amount * factor) for factor in REFINED]
        refined = _best(views, nearby)
        if refined[1].net > BETTER * best.net:
            suspect, best = refined
        suspect = suspect._replace(amount=_standard(suspect.amount))
    if _repairs(best, found):
        return Diagnosis(found, suspect.fault, suspect.amount, best)
    return Diagnosis(found, "unknown" if found.pairs and found.consistency < LEAST_CONSISTENCY else None)


def _best(views: Comparable, suspects: Sequence[Suspect]) -> tuple[Suspect, Agreement]:
    """The suspect without whose mistake the frames agree best: chosen from few points, then from all of them."""
    ranked = sorted(suspects, key=lambda suspect: -suspect.agreement(views, every=COARSE).net)[:FINALISTS]
    return max(((suspect, suspect.agreement(views)) for suspect in ranked), key=lambda item: item[1].net)


def _suspects(poses: Floats, moved: Callable[[NDArray[Any]], Floats], frames: NDArray[Any]) -> Iterator[Suspect]:
    inverse = np.linalg.inv(poses)
    yield Suspect("inverse", inverse)
    yield Suspect("axes", poses @ OPENGL)
    yield Suspect("inverse and axes", inverse @ OPENGL)
    for shift in SHIFTS:
        yield Suspect("shift", moved(frames + shift), shift)
    yield Suspect("reversed", moved(-1 - frames))
    for fault, factors in (("depth", SCALES), ("intrinsics", ZOOMS), ("focal", ZOOMS)):
        for factor in factors:
            yield Suspect(fault, poses, factor)
            yield Suspect(fault, poses, 1 / factor)


def _repairs(repaired: Agreement, found: Agreement) -> bool:
    return (
        repaired.consistency >= REPAIRED_CONSISTENCY
        and repaired.net >= GAIN * max(found.net, 0) + LEAST_GAIN
        and 1 - repaired.consistency <= FEWER_CONTRADICTIONS * (1 - found.consistency)
    )


def _standard(amount: float) -> float:
    known = [factor for value in (*SCALES, *ZOOMS) for factor in (value, 1 / value)]
    nearest = min(known, key=lambda value: abs(np.log(value / amount)))
    return nearest if abs(np.log(nearest / amount)) <= STANDARD else amount
