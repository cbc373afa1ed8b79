"""Render a house by ray casting: exact depth and instances, and the light that reaches the camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import open3d as o3d
from numpy.typing import NDArray

from loco.geometry.cameras import pixel_centres
from loco.simulate.house import House
from loco.simulate.lighting import Light, light_house, ray_scene, surface_reflectance, triangle_reflectance
from loco.simulate.materials import outdoors
from loco.simulate.shapes import Floats

OUTSIDE = 1.8  # scale of the radiance outside the windows
BRIGHTEST = 4.0  # radiance is clipped at this multiple of the mean before subpixels are averaged, as by saturation
SHINY = 0.12  # reflectances of mirror reflections below this are ignored
EDGE = 0.12  # neighbouring pixels that differ by more than this fraction of full scale are supersampled
SUBPIXELS = np.array([[-0.125, -0.375], [0.375, -0.125], [0.125, 0.375], [-0.375, 0.125]])  # rotated grid


@dataclass(frozen=True)
class RenderedView:
    """The view of a camera: arrays (h, w) of values at pixel centres, and ``radiance``, averaged over each pixel.

    Attributes:
        radiance: (h, w, 3) float32 linear light.
        depth: float32 z-depth, metres, 0 = no surface.
        instance: int32 index into ``House.instances``, -1 = no surface.
        reflectance: float32 mean diffuse reflectance.
        cosine: float32 of the angle between the surface's normal and the ray.
        gloss: float32, see :class:`materials.Material`.
        transparent: bool, whether the surface is a pane or a lit lamp, for which a depth sensor returns no depth.
    """

    radiance: NDArray[np.float32]
    depth: NDArray[np.float32]
    instance: NDArray[np.int32]
    reflectance: NDArray[np.float32]
    cosine: NDArray[np.float32]
    gloss: NDArray[np.float32]
    transparent: NDArray[np.bool_]


@dataclass(frozen=True)
class _Surface:
    """First hits of rays; fields as in :class:`RenderedView`, per ray."""

    distance: Floats
    triangle: NDArray
    radiance: Floats
    reflectance: Floats
    cosine: Floats
    gloss: Floats
    transparent: NDArray


class Renderer:
    """Renders a lit house."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.scene = ray_scene(house)
        self.light: Light = light_house(house, self.scene)
        self._gloss = np.array([m.gloss for m in house.materials], np.float32)[house.material]
        self._emission = np.array([m.emission for m in house.materials], np.float32)[house.material]
        self._see_through = np.array([m.see_through for m in house.materials])[house.material]
        self._room = np.array([i.room for i in house.instances])[house.instance]
        centre = [np.array([*(room.low + room.high) / 2, room.height - 0.3]) for room in house.rooms]
        lamp = {lamp.room: lamp.position for lamp in reversed(house.lamps)}
        self._lamp = np.array([lamp.get(k, centre[k]) for k in range(len(centre))], np.float32)

    def render(self, intrinsics: Floats, pose: Floats, size: tuple[int, int]) -> RenderedView:
        """Render a view with ``intrinsics`` (3, 3), camera-to-world ``pose`` (4, 4) and ``size`` (height, width)."""
        height, width = size
        centres = pixel_centres(height, width).reshape(-1, 2)
        seen = self._trace(*_rays(centres, intrinsics, pose))
        radiance = seen.radiance.copy()
        rough = _contrast(seen, size)
        fine = [self._trace(*_rays(centres[rough] + offset, intrinsics, pose)).radiance for offset in SUBPIXELS]
        limit = BRIGHTEST * radiance.mean()
        radiance[rough] = np.mean([np.minimum(sample, limit) for sample in fine], axis=0)
        hit = seen.triangle >= 0
        shape = lambda values: values.reshape(height, width, *values.shape[1:])  # noqa: E731
        return RenderedView(
            radiance=shape(radiance),
            depth=shape(np.where(hit, seen.distance, 0).astype(np.float32)),
            instance=shape(np.where(hit, self.house.instance[seen.triangle], -1).astype(np.int32)),
            reflectance=shape(seen.reflectance),
            cosine=shape(seen.cosine),
            gloss=shape(seen.gloss),
            transparent=shape(seen.transparent),
        )

    def brightness(self, position: Floats) -> float:
        """Meter the exposure: return the mean light that reaches ``position`` (3,), without the brightest tenth."""
        k = np.arange(1000) + 0.5
        z, angle = 0.7 * (1 - 2 * k / 1000), k * np.pi * (3 - np.sqrt(5))
        flat = np.sqrt(1 - z**2)
        directions = np.stack([flat * np.cos(angle), flat * np.sin(angle), z], axis=1)
        light = np.sort(self._trace(np.broadcast_to(position, directions.shape), directions).radiance.mean(axis=1))
        return float(light[:900].mean())

    def vertex_colours(self) -> NDArray[np.uint8]:
        """Return the display colours (n, 3) of the lit vertices."""
        colour = np.zeros_like(self.light.irradiance)
        colour[self.house.triangles] = triangle_reflectance(self.house)[:, None]
        shown = 1 - np.exp(-1.5 * colour * self.light.irradiance / self.light.irradiance.mean())
        return (255 * shown ** (1 / 2.2)).astype(np.uint8)

    def _trace(self, origins: Floats, directions: Floats, reflect: bool = True) -> _Surface:
        """Trace rays from ``origins`` (n, 3) along ``directions`` (n, 3), of any length, with one reflection."""
        house = self.house
        rays = np.concatenate([origins, directions], axis=1).astype(np.float32)
        hits = self.scene.cast_rays(o3d.core.Tensor(rays), nthreads=1)
        distance = hits["t_hit"].numpy()
        hit = np.isfinite(distance)
        triangle = np.where(hit, hits["primitive_ids"].numpy().astype(np.int64), -1)
        points = rays[:, :3] + np.where(hit, distance, 0)[:, None] * rays[:, 3:]
        view = -_unit(rays[:, 3:])
        u, v = hits["primitive_uvs"].numpy().T
        weights = np.stack([1 - u - v, u, v], axis=1)
        corners = house.triangles[triangle]
        normals = _unit(_blend(weights, house.normals[corners]))
        cosine = np.clip(_dot(normals, view), 0.0, 1.0)

        diffuse = surface_reflectance(house, triangle, points, normals)
        radiance = diffuse * (_blend(weights, self.light.irradiance[corners]) + self._emission[triangle][:, None])
        gloss = self._gloss[triangle]
        half = _unit(_unit(self._lamp[self._room[triangle]] - points) + view)
        shine = np.maximum(_dot(half, normals), 0) ** (20 + 100 * gloss)
        radiance += (1.5 * gloss * shine * _blend(weights, self.light.lamps[corners][..., None])[:, 0])[:, None]

        mirror = np.where(gloss >= 1, 0.9, gloss * (0.12 + 0.88 * (1 - cosine) ** 4))  # after Schlick (1994)
        shiny = np.flatnonzero(hit & (mirror > SHINY)) if reflect else np.array([], int)
        if len(shiny):
            away = 2 * _dot(normals[shiny], view[shiny])[:, None] * normals[shiny] - view[shiny]
            mirrored = self._trace(points[shiny] + 1e-3 * normals[shiny], away, reflect=False).radiance
            strength = (mirror[shiny] * np.minimum(1, (mirror[shiny] - SHINY) / SHINY))[:, None]
            radiance[shiny] = radiance[shiny] * (1 - strength) + strength * mirrored

        pane = np.flatnonzero(hit & self._see_through[triangle])
        radiance[pane] = OUTSIDE * outdoors(-view[pane], house.noise)
        radiance[~hit] = 0
        return _Surface(
            distance=distance,
            triangle=triangle,
            radiance=radiance.astype(np.float32),
            reflectance=diffuse @ np.full(3, 1 / 3, np.float32),
            cosine=cosine.astype(np.float32),
            gloss=gloss,
            transparent=hit & (self._see_through[triangle] | (self._emission[triangle] > 0)),
        )


def _rays(pixels: Floats, intrinsics: Floats, pose: Floats) -> tuple[Floats, Floats]:
    """Return origins and directions (n, 3) of rays through ``pixels`` (n, 2), scaled to z-depth 1."""
    local = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1) @ np.linalg.inv(intrinsics).T
    directions = local @ pose[:3, :3].T
    return np.broadcast_to(pose[:3, 3], directions.shape), directions


def _contrast(seen: _Surface, size: tuple[int, int]) -> NDArray:
    """Return the indices of pixels whose display brightness differs from a neighbour by more than ``EDGE``."""
    shown = seen.radiance / (seen.radiance + seen.radiance.mean())
    shown = shown.reshape(*size, 3)
    rough = np.zeros(size, bool)
    across, down = (np.any(np.abs(np.diff(shown, axis=axis)) > EDGE, axis=-1) for axis in (1, 0))
    rough[:, 1:] |= across
    rough[:, :-1] |= across
    rough[1:] |= down
    rough[:-1] |= down
    return np.flatnonzero(rough)


def _blend(weights: Floats, values: Floats) -> Floats:
    """Return the sum of values (n, 3 corners, c) weighted by (n, 3)."""
    return np.einsum("nk,nkc->nc", weights, values)


def _unit(vectors: Floats) -> Floats:
    return vectors / np.sqrt(_dot(vectors, vectors))[:, None]


def _dot(a: Floats, b: Floats) -> Floats:
    return np.einsum("nk,nk->n", a, b)
