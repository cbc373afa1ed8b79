"""Rewrite the poses, cameras, depth or meshes of a raw scene in place, to simulate faulty or georeferenced recordings.

Every function supports all layouts that the simulator writes; scans of ScanNet must be exported
(:func:`loco.simulate.raw_scannet.export_scannet`). Numbers are written with full precision.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import trimesh
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from loco.datasets.images import decode_depth
from loco.simulate.shapes import Floats

Change = Callable[[Floats], Floats]


def rewrite_poses(format: str, folder: Path, scene: str, change: Change) -> None:
    """Replace the poses (n, 4, 4) of a scene by ``change(poses)``, in the convention and order of its files.

    Poses of COLMAP are world-to-camera, all others are camera-to-world. Poses of TUM RGB-D are the rows of its ground
    truth, which has more rows than there are images.

    Args:
        format: a layout of :data:`loco.simulate.catalogue.WRITERS`, except ``hpatches``.
        folder: folder of the raw scene.
        scene: name of the scene.
        change: function from poses to poses, both (n, 4, 4).

    Raises:
        ValueError: the layout has no poses.
    """
    if format == "posed_rgbd":
        file = folder / "poses.txt"
        _write(file, change(np.loadtxt(file).reshape(-1, 4, 4)).reshape(-1, 16))
    elif format == "nerfstudio":
        file = folder / "transforms.json"
        content = json.loads(file.read_text())
        axes = np.diag([1.0, -1.0, -1.0, 1.0])  # of OpenGL, which the file uses
        poses = change(np.array([frame["transform_matrix"] for frame in content["frames"]]) @ axes) @ axes
        for frame, pose in zip(content["frames"], poses):
            frame["transform_matrix"] = pose.tolist()
        file.write_text(json.dumps(content))
    elif format in ("seven_scenes", "scannet"):
        files = sorted(folder.glob("seq-*/*.pose.txt")) or sorted(
            folder.glob("pose/*.txt"), key=lambda file: int(file.stem)
        )
        for file, pose in zip(files, change(np.array([np.loadtxt(file) for file in files]))):
            _write(file, pose)
    elif format == "tum_rgbd":
        file = folder / "groundtruth.txt"
        rows = np.loadtxt(file)
        poses = np.tile(np.eye(4), (len(rows), 1, 1))
        poses[:, :3, :3], poses[:, :3, 3] = Rotation.from_quat(rows[:, 4:]).as_matrix(), rows[:, 1:4]
        changed = change(poses)
        quaternions = Rotation.from_matrix(changed[:, :3, :3]).as_quat()
        _write(file, np.column_stack([rows[:, 0], changed[:, :3, 3], quaternions]))
    elif format == "matterport3d":
        _edit_zip(folder / "undistorted_camera_parameters.zip", r"\.conf$", lambda data: _rewrite_conf(data, change))
    elif format == "colmap":
        _edit_model(folder / "sparse/0", lambda model: _change_poses(model, change))
    else:
        raise ValueError(f"the format {format} has no poses")


def reverse_axes(format: str, folder: Path, scene: str) -> None:
    """Change the camera axes of all poses from OpenCV's convention to OpenGL's, or back: reverse y and z."""
    axes = np.diag([1.0, -1.0, -1.0, 1.0])
    rewrite_poses(format, folder, scene, lambda poses: axes @ poses if format == "colmap" else poses @ axes)


def reorder_poses(format: str, folder: Path, scene: str, order: Callable[[int], NDArray[np.integer]]) -> None:
    """Assign to every frame k of n the pose of frame ``order(n)[k]``, in the order of the files."""
    if format != "tum_rgbd":
        rewrite_poses(format, folder, scene, lambda poses: poses[order(len(poses))])
        return
    # Poses are indexed by time, so the time stamps of colour and depth images are permuted in the same way.
    inverse = None
    for name in ("rgb.txt", "depth.txt"):
        lines = (folder / name).read_text().splitlines()
        head, rows = [x for x in lines if x[0] == "#"], [x.split() for x in lines if x[0] != "#"]
        inverse = np.argsort(order(len(rows))) if inverse is None else inverse
        moved = [f"{time} {rows[k][1]}" for (time, _), k in zip(rows, inverse)]
        (folder / name).write_text("\n".join([*head, *moved, ""]))


def rewrite_intrinsics(format: str, folder: Path, factor: float) -> None:
    """Multiply focal lengths and principal points of a scene's depth and colour cameras by ``factor``.

    The image sizes that the cameras of COLMAP and nerfstudio state are not changed.
    """
    if format == "nerfstudio":
        file = folder / "transforms.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content | {key: content[key] * factor for key in ("fl_x", "fl_y", "cx", "cy")}))
        return
    if format == "colmap":
        _edit_model(folder / "sparse/0", lambda model: _scale_cameras(model, factor))
        return
    if format == "matterport3d":

        def scaled(data: bytes) -> bytes:
            return re.sub(
                rb"(?m)^intrinsics_matrix (.*)$",
                lambda line: b"intrinsics_matrix " + _text(_scaled(line[1].split(), factor)),
                data,
            )

        _edit_zip(folder / "undistorted_camera_parameters.zip", r"\.conf$", scaled)
        return
    files = [folder / name for name in ("K.txt", "K_depth.txt")] + list(folder.glob("intrinsic/intrinsic_*.txt"))
    for file in filter(os.path.exists, files):
        matrix = np.loadtxt(file)
        matrix[:2] *= factor
        _write(file, matrix)


def rewrite_depth(format: str, folder: Path, factor: float) -> None:
    """Multiply the values of all depth images by ``factor``; values that do not fit into 16 bits become 0.

    COLMAP models have no depth images, so the positions of their points are multiplied.
    """
    if format == "colmap":
        _edit_model(folder / "sparse/0", lambda model: _scale_points(model, factor))
        return

    def scaled(data: bytes) -> bytes:
        image = decode_depth(data, file=folder, scene=folder.name, remedy="simulate the scene again")
        units = image.astype(np.float64)
        units = np.round(np.where(units == 65535, 0, units) * factor)
        return cv2.imencode(".png", np.where(units < 65535, units, 0).astype(np.uint16))[1].tobytes()

    if format == "matterport3d":
        _edit_zip(folder / "undistorted_depth_images.zip", r"\.png$", scaled)
        return
    for file in [*folder.glob("depth/*.png"), *folder.glob("seq-*/*.depth.png")]:
        file.write_bytes(scaled(file.read_bytes()))


def rewrite_meshes(folder: Path, change: Change) -> None:
    """Replace the vertices (v, 3) of all meshes of a scene by ``change(vertices)``, in double precision."""

    def changed(data: bytes) -> bytes:
        mesh = trimesh.load(io.BytesIO(data), file_type="ply", process=False)
        return ply_in_double(change(np.asarray(mesh.vertices, np.float64)), np.asarray(mesh.faces))

    for file in folder.glob("*.ply"):
        file.write_bytes(changed(file.read_bytes()))
    for file in folder.glob("region_segmentations.zip"):
        _edit_zip(file, r"\.ply$", changed)


def ply_in_double(vertices: Floats, triangles: NDArray) -> bytes:
    """Return a binary PLY of ``vertices`` (v, 3), in double precision, and ``triangles`` (t, 3)."""
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        "property double x\nproperty double y\nproperty double z\n"
        f"element face {len(triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    faces = np.zeros(len(triangles), [("n", "u1"), ("corners", "<i4", 3)])
    faces["n"], faces["corners"] = 3, triangles
    return header.encode() + np.ascontiguousarray(vertices, "<f8").tobytes() + faces.tobytes()


def _rewrite_conf(data: bytes, change: Change) -> bytes:
    lines = data.decode().splitlines()
    scans = [k for k, line in enumerate(lines) if line.startswith("scan ")]
    poses = change(np.array([lines[k].split()[3:] for k in scans], np.float64).reshape(-1, 4, 4))
    for k, pose in zip(scans, poses):
        lines[k] = " ".join(lines[k].split()[:3]) + " " + _text(pose).decode()
    return "\n".join([*lines, ""]).encode()


def _edit_model(folder: Path, edit: Callable[[pycolmap.Reconstruction], None]) -> None:
    model = pycolmap.Reconstruction(folder)
    edit(model)
    model.write(folder)


def _scale_points(model: pycolmap.Reconstruction, factor: float) -> None:
    for point in model.points3D.values():
        point.xyz = factor * point.xyz


def _scale_cameras(model: pycolmap.Reconstruction, factor: float) -> None:
    for camera in model.cameras.values():
        scaled, params = [*camera.focal_length_idxs(), *camera.principal_point_idxs()], np.array(camera.params)
        params[scaled] *= factor
        camera.params = params


def _change_poses(model: pycolmap.Reconstruction, change: Change) -> None:
    images = sorted(model.images.values(), key=lambda image: image.name)
    poses = np.tile(np.eye(4), (len(images), 1, 1))
    poses[:, :3] = [image.cam_from_world().matrix() for image in images]
    for image, pose in zip(images, change(poses)):
        moved = pycolmap.Rigid3d(pycolmap.Rotation3d(pose[:3, :3]), pose[:3, 3])
        model.frames[image.frame_id].rig_from_world = moved


def _edit_zip(file: Path, pattern: str, edit: Callable[[bytes], bytes]) -> None:
    """Replace the content of each member whose name matches ``pattern`` by ``edit(content)``."""
    edited = file.with_suffix(".edited")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(edited, "w") as new:
        for name, data in _members(old):
            new.writestr(name, edit(data) if re.search(pattern, name) else data)
    shutil.move(edited, file)


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    return ((name, archive.read(name)) for name in archive.namelist())


def _scaled(numbers: list[bytes], factor: float) -> Floats:
    matrix = np.array(numbers, np.float64).reshape(3, 3)
    matrix[:2] *= factor
    return matrix


def _write(file: Path, rows: Floats) -> None:
    file.write_bytes(b"".join(_text(row) + b"\n" for row in np.atleast_2d(rows)))


def _text(numbers: Floats) -> bytes:
    return " ".join(repr(float(number)) for number in np.ravel(numbers)).encode()
