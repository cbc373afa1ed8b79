"""Write a handheld video of a simulated scene as photographs and an exact COLMAP model.

Cameras and points are the ground truth, so the model has no error, and the result of a reader can be compared with the
scene itself. The layout is that of https://colmap.github.io/format.html; no other module of this package depends on it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import open3d as o3d
import pycolmap
from numpy.typing import NDArray
from tqdm import tqdm

from loco.geometry.cameras import backproject, project
from loco.simulate.handheld import Photo, Walk
from loco.simulate.shapes import Floats
from loco.storage import atomic_path

JPEG_QUALITY = 92
FEATURES = 400  # largest number of features per photograph
APART = 3.0  # pixels; a feature closer than this to the projection of an existing point creates no new point
TOLERANCE = 1e-4  # a point is visible if no surface on its ray is nearer by more than this fraction of its depth


def simulate_colmap(directory: Path, scene: str, settings: Mapping[str, Any]) -> None:
    """Build a scene, render a video, and write the photographs and their COLMAP model.

    Args:
        directory: folder of ``images`` and ``sparse/0``, created if missing. Files are written atomically.
        scene: its name; together with the seed it determines the content.
        settings: those of :class:`loco.simulate.handheld.Walk`, and ``model``, "binary" (default) or "text".
    """
    walk, directory = Walk(scene, settings), Path(directory)
    names, places = [], []
    photos = tqdm(walk.photos(), total=len(walk.poses), desc=f"{scene}: photographs", unit="image", mininterval=1.0)
    for number, photo in enumerate(photos):
        names.append(f"{number:05d}.jpg")
        with atomic_path(directory / "images" / names[-1]) as path:
            cv2.imwrite(str(path), photo.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        known = np.concatenate([np.empty((0, 3)), *places])
        places.append(_new_places(walk, photo, known))
    write_model(
        directory / "sparse" / "0", exact_model(walk, names, np.concatenate(places)), settings.get("model", "binary")
    )


def exact_model(walk: Walk, names: Sequence[str], points: Floats) -> pycolmap.Reconstruction:
    """Return a model of the true cameras and ``points`` (m, 3), each observed in all images where it is visible."""
    model = pycolmap.Reconstruction()
    (height, width), k = walk.size, walk.intrinsics
    parameters = [k[0, 0], k[1, 1], k[0, 2], k[1, 2]]
    camera = pycolmap.Camera(camera_id=1, model="PINHOLE", width=width, height=height, params=parameters)
    model.add_camera_with_trivial_rig(camera)
    tracks = [pycolmap.Track() for _ in points]
    for number, (name, pose) in enumerate(zip(names, walk.poses), start=1):
        uv, seen = _look(walk, pose, points)
        for place, index in enumerate(seen):
            tracks[index].add_element(number, place)
        image = pycolmap.Image(name=name, camera_id=1, image_id=number, keypoints=uv[seen])
        world_to_camera = np.linalg.inv(pose)[:3]
        model.add_image_with_trivial_frame(
            image, pycolmap.Rigid3d(pycolmap.Rotation3d(world_to_camera[:, :3]), world_to_camera[:, 3])
        )
    for point, track in zip(points, tracks):
        model.add_point3D(point, track)
    model.update_point_3d_errors()
    return model


def write_model(directory: Path, model: pycolmap.Reconstruction, kind: str) -> None:
    """Write the files of a model as ``text`` or ``binary``, each atomically."""
    with tempfile.TemporaryDirectory() as temporary:
        (model.write_text if kind == "text" else model.write_binary)(temporary)
        for file in sorted(Path(temporary).iterdir()):
            with atomic_path(directory / file.name) as path:
                path.write_bytes(file.read_bytes())


def _new_places(walk: Walk, photo: Photo, known: Floats) -> Floats:
    """Return surface points (m, 3) at the features of a photograph that are not at a visible ``known`` point (n, 3)."""
    features = cv2.SIFT_create(FEATURES).detect(cv2.cvtColor(photo.rgb, cv2.COLOR_RGB2GRAY), None)
    # In OpenCV, the centre of the first pixel is at 0.
    uv = np.array([feature.pt for feature in features]).reshape(-1, 2) + 0.5
    column, row = np.floor(uv).astype(int).T
    uv = uv[~photo.view.transparent[row, column]]  # transparent panes have no features
    positions, seen = _look(walk, photo.pose, known)
    taken = list(positions[seen])
    new = []
    for position in uv:
        if not taken or np.linalg.norm(np.array(taken) - position, axis=1).min() > APART:
            taken.append(position)
            new.append(position)
    uv = np.array(new).reshape(-1, 2)
    z = _depth(walk, photo.pose, uv)
    return backproject(uv[z > 0], z[z > 0], photo.intrinsics, photo.pose)


def _look(walk: Walk, pose: Floats, points: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return the projections (n, 2) of surface ``points`` (n, 3), and the indices of the visible points."""
    uv, z = project(points, walk.intrinsics, pose)
    seen = np.flatnonzero((z > 0) & (uv >= 0).all(axis=1) & (uv < walk.size[::-1]).all(axis=1))
    nearest = _depth(walk, pose, uv[seen])
    return uv, seen[nearest >= (1 - TOLERANCE) * z[seen]]


def _depth(walk: Walk, pose: Floats, uv: Floats) -> Floats:
    """Return the z-depth (n,) of the surface at pixels ``uv`` (n, 2), 0 = none, in float64 (Open3D uses float32)."""
    rays = backproject(uv, np.ones(len(uv)), walk.intrinsics, pose) - pose[:3, 3]
    origins = np.broadcast_to(pose[:3, 3], rays.shape)
    both = np.concatenate([origins, rays], axis=1).astype(np.float32)
    hits = walk.renderer.scene.cast_rays(o3d.core.Tensor(both), nthreads=1)
    hit = np.isfinite(hits["t_hit"].numpy())
    triangles = walk.house.triangles[hits["primitive_ids"].numpy()[hit]]
    a, b, c = np.moveaxis(walk.house.vertices[triangles].astype(np.float64), 1, 0)
    normals = np.cross(b - a, c - a)
    z = np.zeros(len(uv))
    z[hit] = np.sum(normals * (a - pose[:3, 3]), axis=1) / np.sum(normals * rays[hit], axis=1)
    return z


# Format -> the function that simulates a scene of it, for `loco.simulate.simulate_scene`.
SIMULATE = {"colmap": simulate_colmap}
