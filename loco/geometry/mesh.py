"""Triangle meshes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Mesh(NamedTuple):
    """A triangle mesh: vertices (v, 3), world frame, metres; triangles (t, 3) uint32.

    Vertices are float32, or float64 while they are too far from zero for float32 (:mod:`loco.geometry.origin`).
    """

    vertices: NDArray[np.floating]
    triangles: NDArray[np.uint32]
