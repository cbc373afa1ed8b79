"""Scenes of any format in coordinates relative to a local origin (:mod:`loco.geometry.origin`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loco.datasets.raw import LabelledMesh, RawFrame, RawScene
from loco.geometry.cameras import Camera
from loco.geometry.consistency import Sightings
from loco.geometry.mesh import Mesh
from loco.geometry.origin import local_origin


def origin_of(scene: RawScene) -> NDArray[np.float64]:
    """Return the origin (3,) of a scene's local coordinates; zero if its images share no world frame."""
    poses = scene.poses()
    return np.zeros(3) if poses is None else local_origin(poses[:, :3, 3], metric=scene.metric)


def in_local_coordinates(scene: RawScene) -> RawScene | LocalScene:
    """Return a scene in local coordinates: the scene itself if its origin is zero."""
    origin = origin_of(scene)
    return LocalScene(scene, origin) if origin.any() else scene


class LocalScene:
    """A :class:`loco.datasets.raw.RawScene` whose poses, meshes and points are relative to ``origin``.

    Attributes:
        world: the scene in the coordinates of its files.
        origin: (3,) float64, in the coordinates of the files; a local point plus ``origin`` is the world point.
    """

    def __init__(self, world: RawScene, origin: NDArray[np.float64]) -> None:
        self.world, self.origin = world, origin

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)  # all other attributes contain no coordinates

    def poses(self) -> NDArray[np.float64]:
        return np.array([self._moved(pose) for pose in self.world.poses()])

    def frames(self, names: Sequence[str]) -> Iterator[RawFrame]:
        for frame in self.world.frames(names):
            of_depth = frame.depth_camera
            if of_depth is not None:
                of_depth = Camera(of_depth.intrinsics, self._moved(of_depth.pose))
            yield replace(frame, pose=self._moved(frame.pose), depth_camera=of_depth)

    def mesh(self) -> Mesh | None:
        mesh = self.world.mesh()
        return None if mesh is None else self._moved_mesh(mesh)

    def labelled_mesh(self) -> LabelledMesh | None:
        labelled = self.world.labelled_mesh()
        return None if labelled is None else labelled._replace(mesh=self._moved_mesh(labelled.mesh))

    def tracks(self) -> NDArray[np.float64] | None:
        tracks = self.world.tracks()
        return None if tracks is None else tracks - self.origin

    def sightings(self, names: Sequence[str]) -> Sightings | None:
        sightings = self.world.sightings(names)
        return None if sightings is None else replace(sightings, points=sightings.points - self.origin)

    def _moved(self, pose: NDArray[np.floating]) -> NDArray[np.float64]:
        moved = pose.astype(np.float64)
        moved[:3, 3] -= self.origin
        return moved

    def _moved_mesh(self, mesh: Mesh) -> Mesh:
        return Mesh((mesh.vertices.astype(np.float64) - self.origin).astype(np.float32), mesh.triangles)
