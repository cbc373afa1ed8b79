"""The fuse step: a mesh from a scene's own depth images, to fill their holes with where the dataset has no mesh."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trimesh
from tqdm import tqdm

from loco.datasets import open_scene
from loco.datasets.checklist import require_passed
from loco.errors import DataError
from loco.geometry.fuse import Fusion
from loco.storage import atomic_path


def fuse_scene(
    format: str, raw: Path, scene: str, manifest: Mapping[str, Any], out: Path, settings: Mapping[str, Any]
) -> None:
    """Write the mesh of a scene's depth images. Each image is read once.

    Args:
        format: raw layout, a key of :data:`loco.datasets.FORMATS`.
        raw: folder that holds the raw scenes.
        scene: name of the scene.
        manifest: what the check found; a broken scene is refused.
        out: PLY to write.
        settings: ``voxel``, the edge of a voxel, and ``max_depth``, the largest depth to use; metres.

    Raises:
        DataError: the manifest lists problems, the scene has no depth images, or they make no surface.
    """
    require_passed(manifest)
    source = open_scene(format, raw, scene)
    if source.tracks() is not None:
        raise DataError(
            "a scene of a sparse model has no depth images to fuse",
            scene=scene,
            remedy="take `fuse` out of the settings of its dataset",
        )
    names = source.names("all")
    fusion = Fusion(settings["voxel"], settings["max_depth"])
    for frame in tqdm(source.frames(names), total=len(names), desc=scene, unit="image"):
        fusion.add(frame.depth, frame.camera_of_depth)
    try:
        mesh = fusion.mesh()
    except ValueError as error:
        raise DataError(
            str(error),
            scene=scene,
            expected=f"surfaces within {settings['max_depth']} m, each in two images or more",
            remedy="raise `fuse.max_depth` or `fuse.voxel`, or look at the depth images and poses",
        ) from error
    with atomic_path(out) as temporary:
        trimesh.Trimesh(mesh.vertices, mesh.triangles, process=False).export(temporary, file_type="ply")
