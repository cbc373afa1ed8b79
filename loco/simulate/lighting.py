"""Precomputed light in a house: irradiance at every vertex from lamps, daylight and surrounding surfaces.

Shadows are soft because lamps and panes are sampled as areas. Indirect light is computed by radiosity, solved by
Jacobi iteration, with form factors from one fixed cosine-weighted set of rays per vertex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import open3d as o3d
from numpy.typing import NDArray

from loco.simulate.house import House
from loco.simulate.materials import reflectance
from loco.simulate.shapes import Floats

LAMP_SAMPLES, LAMP_RADIUS = 4, 0.12  # number of samples of a lamp, and radius of the ring on which they are, metres
PANE_SAMPLES = (3, 4)  # samples of a pane, horizontally and vertically
GATHER = 40  # rays per vertex for the indirect light
BOUNCES = 3  # reflections of the indirect light
FAINT = 0.003  # light sources that would contribute less than this without shadows are ignored
LIFT = 0.05  # metres; see `_lifted`
CHUNK = 1 << 20  # rays that are traced together


@dataclass(frozen=True)
class Light:
    """``irradiance`` (n, 3) at the vertices, divided by pi; ``lamps`` (n,) is its direct part from lamps, as grey."""

    irradiance: NDArray[np.float32]
    lamps: NDArray[np.float32]


def ray_scene(house: House) -> o3d.t.geometry.RaycastingScene:
    """Return a ray-casting scene of the house that uses one thread."""
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(o3d.core.Tensor(house.vertices), o3d.core.Tensor(house.triangles.astype(np.uint32)))
    return scene


def light_house(house: House, scene: o3d.t.geometry.RaycastingScene) -> Light:
    """Compute the light at every vertex of ``house``."""
    origins = _lifted(house)
    lamps, daylight = _from_lamps(house, scene, origins), _from_panes(house, scene, origins)
    direct = lamps + daylight
    triangle, faces_us = _gather(house, scene, origins)
    albedo = triangle_reflectance(house)
    total = direct
    for _ in range(BOUNCES):
        radiosity = albedo * total[house.triangles].mean(axis=1)
        bounced = (radiosity[triangle] * faces_us[..., None]).mean(axis=1)
        total = direct + bounced
    return Light(total.astype(np.float32), lamps.mean(axis=1).astype(np.float32))


def triangle_reflectance(house: House) -> Floats:
    """Return the reflectance (m, 3) at the centroid of each triangle."""
    centroid = house.vertices[house.triangles].mean(axis=1)
    normal = house.normals[house.triangles].mean(axis=1)
    return surface_reflectance(house, np.arange(len(house.triangles)), centroid, normal)


def surface_reflectance(house: House, triangle: NDArray, points: Floats, normals: Floats) -> Floats:
    """Return the reflectance (n, 3) at world ``points`` (n, 3) on ``triangle`` (n,) with ``normals`` (n, 3)."""
    rotations = np.stack([instance.pose[:3, :3] for instance in house.instances]).astype(np.float32)
    origins = np.stack([instance.pose[:3, 3] for instance in house.instances]).astype(np.float32)
    number = house.instance[triangle]
    rotation = rotations[number]
    points = np.einsum("nij,ni->nj", rotation, points - origins[number])
    normals = np.einsum("nij,ni->nj", rotation, normals)
    colour = np.empty((len(triangle), 3), np.float32)
    for material, at in _groups(house.material[triangle]):
        colour[at] = reflectance(house.materials[material], points[at], normals[at], house.noise)
    return np.minimum(colour * house.tint[triangle], 0.95)


def _groups(keys: NDArray) -> list[tuple[int, NDArray]]:
    """Return (key, indices of the elements with this key) for each distinct key."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    return [(int(keys[part[0]]), part) for part in np.split(order, starts[1:]) if len(part)]


def _lifted(house: House) -> Floats:
    """Return the points (n, 3) at which the light of the vertices is computed, one per vertex.

    They are ``LIFT`` above the surface, so that flat objects on the surface do not occlude them, and slightly inside
    the border of the surface, so that their rays do not pass through corners.
    """
    centroid = house.vertices[house.triangles].mean(axis=1)
    inside = np.zeros_like(house.vertices)
    for corner in range(3):
        np.add.at(inside, house.triangles[:, corner], centroid - house.vertices[house.triangles[:, corner]])
    length = np.linalg.norm(inside, axis=1, keepdims=True)
    inside *= np.minimum(0.03, 0.4 * length) / np.maximum(length, 1e-9)
    return house.vertices + inside + LIFT * house.normals


def _from_lamps(house: House, scene: o3d.t.geometry.RaycastingScene, origins: Floats) -> Floats:
    total = np.zeros((len(origins), 3))
    turns = 2 * np.pi * np.arange(LAMP_SAMPLES) / LAMP_SAMPLES
    ring = LAMP_RADIUS * np.stack([np.cos(turns), np.sin(turns), np.zeros(LAMP_SAMPLES)], axis=1)
    for lamp in house.lamps:
        for offset in ring:
            direction = lamp.position + offset - origins
            square = (direction**2).sum(axis=1)
            cosine = (direction * house.normals).sum(axis=1) / np.sqrt(square)
            strength = cosine / (square + 0.1) / LAMP_SAMPLES
            total += _unshadowed(scene, origins, direction, strength, lamp.power.max())[:, None] * lamp.power / np.pi
    return total


def _from_panes(house: House, scene: o3d.t.geometry.RaycastingScene, origins: Floats) -> Floats:
    total = np.zeros((len(origins), 3))
    across, up = PANE_SAMPLES
    for pane in house.panes:
        area = np.linalg.norm(pane.across) * np.linalg.norm(pane.up) / (across * up)
        for a in (np.arange(across) + 0.5) / across:
            for b in (np.arange(up) + 0.5) / up:
                direction = pane.corner + a * pane.across + b * pane.up - origins
                square = (direction**2).sum(axis=1)
                here, there = (direction * house.normals).sum(axis=1), -(direction @ pane.inward)
                # area / 4 bounds the brightness of the nearest vertices, as the exact integral over the area does
                strength = here * np.maximum(there, 0) / square / (square + area / 4) * area
                light = _unshadowed(scene, origins, direction, strength, pane.radiance.max())
                total += light[:, None] * pane.radiance / np.pi
    return total


def _unshadowed(
    scene: o3d.t.geometry.RaycastingScene, origins: Floats, direction: Floats, strength: Floats, power: float
) -> Floats:
    """Return ``strength`` (n,), set to 0 if a surface is between ``origins`` and ``origins + direction``."""
    reached = np.flatnonzero(strength * power > FAINT)
    rays = np.concatenate([origins[reached], direction[reached]], axis=1).astype(np.float32)
    hidden = scene.test_occlusions(o3d.core.Tensor(rays), tnear=0.0, tfar=0.99, nthreads=1).numpy()
    light = np.zeros(len(origins))
    light[reached] = np.where(hidden, 0.0, strength[reached])
    return light


def _gather(house: House, scene: o3d.t.geometry.RaycastingScene, origins: Floats) -> tuple[NDArray, NDArray]:
    """Cast ``GATHER`` cosine-distributed rays from each vertex, and return what they hit.

    Returns:
        The indices of the triangles, (n, GATHER) int32, and (n, GATHER) float32: 1 for rays that hit the front of a
        triangle, 0 for those that hit its back or nothing.
    """
    k = np.arange(GATHER) + 0.5
    radius, angle = np.sqrt(k / GATHER), k * np.pi * (3 - np.sqrt(5))
    local = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1 - k / GATHER)], axis=1)
    triangle = np.zeros((len(origins), GATHER), np.int32)
    front = np.zeros((len(origins), GATHER), np.float32)
    for start in range(0, len(origins), CHUNK // GATHER):
        part = slice(start, start + CHUNK // GATHER)
        normal = house.normals[part].astype(np.float64)
        other = np.where(np.abs(normal[:, :1]) < 0.8, [[1.0, 0, 0]], [[0, 1.0, 0]])
        tangent = np.cross(normal, other)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        frame = np.stack([tangent, np.cross(normal, tangent), normal], axis=1)
        directions = np.einsum("kj,nji->nki", local, frame)
        sources = np.broadcast_to(origins[part][:, None], directions.shape)
        rays = np.concatenate([sources, directions], axis=-1).astype(np.float32)
        hits = scene.cast_rays(o3d.core.Tensor(rays), nthreads=1)
        hit = np.isfinite(hits["t_hit"].numpy())
        facing = (hits["primitive_normals"].numpy() * directions).sum(axis=-1)
        triangle[part] = np.where(hit, hits["primitive_ids"].numpy(), 0)
        front[part] = hit & (facing < 0)
    return triangle, front
