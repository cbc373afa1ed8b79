"""A local origin for scenes whose world coordinates are large, as in UTM or earth-centred (ECEF) metres.

Points are stored and rays are cast in single precision, which has 24 significant bits: its resolution is 0.06 mm at
1 km and 0.5 m at the northings of UTM. Coordinates therefore stay in double precision until the origin of their scene
has been subtracted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST_STEP = 1e-3  # metres; coordinates stored with a coarser resolution are refused
FAR = 1000.0  # metres; up to this distance single precision rounds by at most 0.03 mm, so no origin is subtracted


def local_origin(centres: NDArray[np.floating], metric: bool = True) -> NDArray[np.float64]:
    """Return the origin of a scene's local coordinates, in its world coordinates.

    The origin is zero if the median camera centre is within :data:`FAR` of zero along each axis, so scenes that need no
    origin keep their coordinates. Otherwise it is the median camera centre, rounded to a multiple of the power of ten
    above the extent of the cameras: a readable number that shifts coordinates by whole metres.

    Args:
        centres: (n, 3), camera centres, world frame.
        metric: whether the unit is the metre. Otherwise the unit is unknown, and the extent of the cameras replaces the
            metre where it is smaller.

    Returns:
        (3,); zero if there is no camera.
    """
    centres = np.asarray(centres, np.float64)
    if not len(centres):
        return np.zeros(3)
    centre = np.median(centres, axis=0)
    extent = 2 * np.median(np.abs(centres - centre).max(axis=1))
    unit = 1.0 if metric or extent == 0 else min(extent, 1.0)
    if np.abs(centre).max() <= FAR * unit:
        return np.zeros(3)
    grain = 10.0 ** np.ceil(np.log10(max(extent, unit)))
    return np.round(centre / grain) * grain


def single_step(coordinate: float) -> float:
    """Return the distance from a coordinate to the next one in single precision."""
    return float(np.spacing(np.float32(min(abs(coordinate), 1e38))))
