"""Triangle meshes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Mesh(NamedTuple):
    """A triangle mesh: vertices (v, 3) float32, world frame, metres; triangles (t, 3) uint32."""

    vertices: NDArray[np.float32]
    triangles: NDArray[np.uint32]
