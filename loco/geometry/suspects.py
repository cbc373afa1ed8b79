"""Diagnose a scene whose frames are inconsistent: find the common mistake whose correction makes them consistent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loco.geometry.consistency import Agreement, Comparable

Floats = NDArray[np.floating]

MIN_CONSISTENCY = 0.6  # below this, frames are inconsistent; correct recordings reach 0.99, unrelated poses 0.15 to 0.4
REPAIRED_CONSISTENCY = 0.85  # minimum consistency after a repair
GAIN, MIN_GAIN = 1.2, 0.02  # minimum increase of the net agreement by a repair: factor, and difference
FEWER_CONTRADICTIONS = 0.5  # largest fraction of the contradictions that may remain after a repair
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # between OpenGL's camera axes (y up, z backward) and OpenCV's
SCALES = (1000.0, 100.0, 10.0, 5.0, 4.0, 2.5, 2.0, 1.5)
ZOOMS = (2.0, 1.75, 1.5, 4 / 3, 1.25, 1.1)
SHIFTS = (1, -1, 2, -2)
COARSE, FINALISTS = 5, 4  # suspects are ranked by every 5th point; the best 4 are then compared by all points
REFINED = np.geomspace(0.9, 1.1, 9)  # factors tried around the best scale and zoom
STANDARD = 0.05  # a factor this close to a standard factor is reported as the standard factor
BETTER = 1.05  # factor by which a non-standard factor must increase the net agreement to be preferred
CONVINCING = 0.995  # consistency that a repair can hardly increase


class Suspect(NamedTuple):
    """A mistake and how to undo it.

    Attributes:
        fault: ``inverse`` (poses are world-to-camera), ``axes`` (camera axes of OpenGL), ``inverse and axes``,
            ``shift`` (each frame has the pose of another frame, a fixed number of frames away), ``reversed`` (poses in
            reverse order), ``depth`` (unit of depth), ``intrinsics`` (for another image size) or ``focal`` (focal
            lengths only).
        poses: (m, 4, 4), poses after undoing the mistake.
        amount: for ``shift``, the number of frames by which the poses must be moved: frame i gets the stored pose of
            frame i + ``amount``; for ``depth``, ``intrinsics`` and ``focal``, the factor that undoes the mistake.
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
    """Result of :func:`diagnose`.

    Attributes:
        found: agreement of the frames as stored.
        fault: fault of the suspect that repairs them; ``unknown`` if they are inconsistent and no suspect repairs them;
            None if they are consistent, or if no two of them overlap and no suspect changes that.
        amount: see :class:`Suspect`.
        repaired: agreement after the repair.
    """

    found: Agreement
    fault: str | None = None
    amount: float = 1.0
    repaired: Agreement | None = None


def diagnose(
    views: Comparable, poses: Floats, moved: Callable[[NDArray[np.int64]], Floats], frames: NDArray[Any]
) -> Diagnosis:
    """Compare the agreement of the frames as stored with their agreement after undoing each common mistake.

    Args:
        views: the sample of m frames.
        poses: (m, 4, 4), poses of the sample, camera-to-world.
        moved: function from frame indices (m,) of the scene to the poses (m, 4, 4) that the sample would have if each
            of its frames had the pose of the frame with that index.
        frames: (m,), frame indices of the sample.
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
    return Diagnosis(found, "unknown" if found.pairs and found.consistency < MIN_CONSISTENCY else None)


def _best(views: Comparable, suspects: Sequence[Suspect]) -> tuple[Suspect, Agreement]:
    """Return the suspect whose correction gives the best agreement: ranked by few points, then compared by all."""
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
        and repaired.net >= GAIN * max(found.net, 0) + MIN_GAIN
        and 1 - repaired.consistency <= FEWER_CONTRADICTIONS * (1 - found.consistency)
    )


def _standard(amount: float) -> float:
    known = [factor for value in (*SCALES, *ZOOMS) for factor in (value, 1 / value)]
    nearest = min(known, key=lambda value: abs(np.log(value / amount)))
    return nearest if abs(np.log(nearest / amount)) <= STANDARD else amount
