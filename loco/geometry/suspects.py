"""Name the fault of a scene whose frames do not agree: which usual mistake, if undone, makes them agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loco.geometry.consistency import Agreement, Views

Floats = NDArray[np.floating]

LEAST_CONSISTENCY = 0.6  # below, the frames do not agree; correct recordings reach 0.99, unrelated poses 0.15 to 0.4
REPAIRED_CONSISTENCY = 0.85  # that a repair must reach
GAIN, LEAST_GAIN = 1.2, 0.02  # by which a repair must raise the net agreement: factor, and points per point
FEWER_CONTRADICTIONS = 0.5  # fraction of contradictions that a repair may leave
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # between OpenGL's camera axes (y up, z backward) and OpenCV's
SCALES = (1000.0, 100.0, 10.0, 5.0, 4.0, 2.5, 2.0, 1.5)
ZOOMS = (2.0, 1.75, 1.5, 4 / 3, 1.2)
SHIFTS = (1, -1, 2, -2)
REFINED = np.geomspace(0.92, 1.08, 9)  # around the best scale and zoom
STANDARD = 0.03  # a scale or zoom this near to a standard one is taken to be that one


class Suspect(NamedTuple):
    """A mistake and how to undo it.

    Attributes:
        fault: ``inverse``, ``axes``, ``inverse and axes``, ``shift``, ``reversed``, ``depth`` or ``intrinsics``.
        poses: (m, 4, 4) as they would be without it.
        amount: of a shift, in frames; of ``depth`` and ``intrinsics``, the factor that undoes the mistake.
    """

    fault: str
    poses: Floats
    amount: float = 1.0

    def agreement(self, views: Views) -> Agreement:
        scale = self.amount if self.fault == "depth" else 1.0
        zoom = self.amount if self.fault == "intrinsics" else 1.0
        return views.agreement(self.poses, scale, zoom)


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


def diagnose(views: Views, poses: Floats, moved: Callable[[NDArray[np.int64]], Floats], frames: NDArray) -> Diagnosis:
    """Compare the frames as they are with what they would be without each of the usual mistakes.

    Args:
        views: the sample of m frames.
        poses: (m, 4, 4), their poses, in the camera axes of their files.
        moved: numbers (m,) of frames of the scene -> the poses (m, 4, 4) that the sample would have if each of its
            frames had the pose of that frame.
        frames: (m,), the numbers of the sample; and ``frames[-1]`` at most ``n - 1`` of the scene's n frames.
    """
    found = views.agreement(poses)
    tried = [(suspect, suspect.agreement(views)) for suspect in _suspects(poses, moved, frames)]
    suspect, best = max(tried, key=lambda item: item[1].net)
    if suspect.fault in ("depth", "intrinsics"):
        nearby = [suspect._replace(amount=suspect.amount * factor) for factor in REFINED]
        suspect, best = max(((s, s.agreement(views)) for s in nearby), key=lambda item: item[1].net)
        suspect = suspect._replace(amount=_standard(suspect.amount))
    if _repairs(best, found):
        return Diagnosis(found, suspect.fault, suspect.amount, best)
    return Diagnosis(found, "unknown" if found.pairs and found.consistency < LEAST_CONSISTENCY else None)


def _suspects(poses: Floats, moved: Callable[[NDArray], Floats], frames: NDArray) -> Iterator[Suspect]:
    inverse = np.linalg.inv(poses)
    yield Suspect("inverse", inverse)
    yield Suspect("axes", poses @ OPENGL)
    yield Suspect("inverse and axes", inverse @ OPENGL)
    for shift in SHIFTS:
        yield Suspect("shift", moved(frames + shift), shift)
    yield Suspect("reversed", moved(-1 - frames))
    for fault, factors in (("depth", SCALES), ("intrinsics", ZOOMS)):
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
    """The standard factor that is near ``amount``, or else two digits of it."""
    known = [factor for value in (*SCALES, *ZOOMS) for factor in (value, 1 / value)]
    nearest = min(known, key=lambda value: abs(np.log(value / amount)))
    return nearest if abs(np.log(nearest / amount)) <= STANDARD else float(f"{amount:.2g}")
