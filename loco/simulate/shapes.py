"""Solids of which rooms and furniture consist: triangles with smooth normals, fine enough for vertex lighting.

Light is stored at vertices (:mod:`lighting`), so large faces are divided into cells of about ``CELL``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import trimesh
from numpy.typing import NDArray

Floats = NDArray[np.floating]
CELL = 0.3  # metres
CREASE = np.cos(np.radians(40))  # normals are not smoothed between faces that meet at a larger angle


@dataclass(frozen=True)
class Solid:
    """Triangles ``faces`` (m, 3) over ``vertices`` (n, 3) with unit ``normals`` (n, 3); metres."""

    vertices: Floats
    normals: Floats
    faces: NDArray[np.integer]

    def moved(self, by: Sequence[float] | Floats) -> Solid:
        return Solid(self.vertices + np.asarray(by, float), self.normals, self.faces)

    def turned(self, angle: float, axis: int = 2) -> Solid:
        """Return the solid rotated about the x, y or z axis (0, 1, 2) through the origin by ``angle`` radians."""
        rotation = trimesh.transformations.rotation_matrix(angle, np.eye(3)[axis])[:3, :3]
        return Solid(self.vertices @ rotation.T, self.normals @ rotation.T, self.faces)


def grid(corner: Floats, along: Floats, up: Floats, us: Floats, vs: Floats, keep: NDArray | None = None) -> Solid:
    """Return a rectangle divided into cells.

    Args:
        corner, along, up: (3,), its corner and two unit directions; it faces ``along`` x ``up``.
        us, vs: the grid lines along both directions, ascending, metres.
        keep: (len(us) - 1, len(vs) - 1), bool, the cells that exist; None for all.
    """
    u, v = np.meshgrid(us, vs, indexing="ij")
    vertices = np.asarray(corner) + u[..., None] * np.asarray(along) + v[..., None] * np.asarray(up)
    index = np.arange(u.size).reshape(u.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    cells = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], axis=2)
    faces = (cells if keep is None else cells[keep]).reshape(-1, 3)
    used, faces = np.unique(faces, return_inverse=True)
    vertices = vertices.reshape(-1, 3)[used]
    return Solid(vertices, np.broadcast_to(np.cross(along, up), vertices.shape), faces.reshape(-1, 3))


def lines(length: float, cell: float = CELL, breaks: Sequence[float] = ()) -> Floats:
    """Return ascending positions that divide [0, length] into steps of at most ``cell``, and include all ``breaks``."""
    ends = np.unique([0.0, length, *breaks])
    steps = [np.linspace(a, b, max(2, int(np.ceil((b - a) / cell)) + 1))[:-1] for a, b in pairwise(ends)]
    return np.concatenate([*steps, [length]])


def box(width: float, depth: float, height: float, at: Sequence[float] = (0, 0, 0)) -> Solid:
    """Return a box whose bottom face is centred at ``at``."""
    size = np.array([width, depth, height])
    low = np.asarray(at, float) - [width / 2, depth / 2, 0]
    sides = []
    for i in range(3):
        along, up = np.eye(3)[(i + 1) % 3], np.eye(3)[(i + 2) % 3]
        us, vs = lines(size[(i + 1) % 3]), lines(size[(i + 2) % 3])
        sides.append(grid(low + np.eye(3)[i] * size[i], along, up, us, vs))
        sides.append(grid(low, up, along, vs, us))
    return join(sides)


def lathe(profile: Sequence[tuple[float, float]], at: Sequence[float] = (0, 0, 0), sections: int = 20) -> Solid:
    """Return the solid of revolution of a profile of (radius, height) points about the z axis, from bottom to top."""
    fine = [np.asarray(profile[0], float)]
    for a, b in pairwise(profile):
        steps = max(1, int(np.ceil(np.hypot(b[0] - a[0], b[1] - a[1]) / CELL)))
        fine += [np.asarray(a) + (np.asarray(b) - np.asarray(a)) * k / steps for k in range(1, steps + 1)]
    return _smooth(trimesh.creation.revolve(np.array(fine), sections=sections)).moved(at)


def cylinder(radius: float, height: float, at: Sequence[float] = (0, 0, 0), sections: int = 16) -> Solid:
    """Return an upright cylinder whose bottom is centred at ``at``."""
    return lathe([(0, 0), (radius, 0), (radius, height), (0, height)], at, sections)


def cushion(
    width: float, depth: float, height: float, at: Sequence[float] = (0, 0, 0), power: float = 4, detail: int = 2
) -> Solid:
    """Return a rounded box (power 2: an ellipsoid) whose bottom is centred at ``at``."""
    ball = trimesh.creation.icosphere(subdivisions=detail)
    vertices = ball.vertices / np.linalg.norm(ball.vertices, ord=power, axis=1)[:, None]
    ball.vertices = vertices * np.array([width, depth, height]) / 2 + [0, 0, height / 2]
    return _smooth(ball).moved(at)


def join(solids: Sequence[Solid]) -> Solid:
    """Merge several solids into one."""
    starts = np.cumsum([0, *(len(solid.vertices) for solid in solids)])
    return Solid(
        np.concatenate([solid.vertices for solid in solids]),
        np.concatenate([solid.normals for solid in solids]),
        np.concatenate([solid.faces + start for solid, start in zip(solids, starts)]),
    )


def _smooth(mesh: trimesh.Trimesh) -> Solid:
    """Return a mesh with smooth normals.

    The normal at a corner of a face is the area-weighted mean of the normals of the faces around its vertex, without
    those that form a larger angle with the face than the crease angle.
    """
    mesh.update_faces(mesh.area_faces > 1e-10)
    normals, faces = mesh.face_normals, mesh.faces
    around = mesh.vertex_faces[faces]  # (m, 3, k), -1 = none
    neighbours = normals[around] * mesh.area_faces[around][..., None]
    together = (around >= 0) & (np.einsum("mckx,mx->mck", normals[around], normals) > CREASE)
    corner = (neighbours * together[..., None]).sum(axis=2)
    corner /= np.linalg.norm(corner, axis=-1, keepdims=True)
    keys = np.concatenate([faces[..., None], np.round(corner, 3)], axis=-1).reshape(-1, 4)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return Solid(mesh.vertices[faces].reshape(-1, 3)[first], corner.reshape(-1, 3)[first], inverse.reshape(-1, 3))
