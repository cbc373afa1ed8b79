"""The fuse step: fuse a scene's depth images into a mesh, to fill their holes if the dataset has no mesh."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import trimesh
from tqdm import tqdm

from loco.datasets import conventions_of, open_scene
from loco.errors import DataError
from loco.geometry.fuse import Fusion
from loco.records import Recipe, Record, new_record
from loco.storage import read_manifest, write_mesh


def run(recipe: Recipe, manifest_path: Path, raw: Path, out: Path, dataset: str, scene: str) -> None:
    """Write the mesh of a scene that passed its check; ``recipe.settings`` are those of :func:`fuse_scene`.

    Raises:
        DataError: as :func:`fuse_scene`; or the manifest was not made as planned, or lists problems.
    """
    manifest = read_manifest(manifest_path, recipe.inputs["check_scene"])
    manifest.require_passed()
    record = new_record(recipe, {"dataset": dataset, "scene": scene}, {manifest_path: manifest.content_id})
    # The same conventions as in the check.
    conventions = conventions_of(recipe.inputs["check_scene"].settings)
    fuse_scene(recipe.settings["format"], raw, scene, out, recipe.settings, record, conventions)


def fuse_scene(
    format: str,
    raw: Path,
    scene: str,
    out: Path,
    settings: Mapping[str, Any],
    record: Record | None = None,
    conventions: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write the mesh of a scene's depth images, in its local coordinates. Each image is read once.

    Args:
        format: raw layout, a key of :data:`loco.datasets.FORMATS`.
        raw: folder of the raw scenes.
        scene: name of the scene.
        out: PLY to write.
        settings: ``voxel``, the edge of a voxel, and ``max_depth``, the largest depth to use; metres.
        record: provenance record.
        conventions: conventions of the raw files (:func:`loco.datasets.conventions_of`).

    Raises:
        DataError: the scene has no depth images, or they contain no surface.
    """
    source = open_scene(format, raw, scene, conventions)
    if source.tracks() is not None:
        raise DataError(
            "a scene of a sparse model has no depth images to fuse",
            scene=scene,
            remedy="remove `fuse` from the settings of the dataset",
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
            expected=f"surfaces within {settings['max_depth']} m, each visible in at least two images",
            remedy="raise `fuse.max_depth` or `fuse.voxel`, or check the depth images and poses",
        ) from error
    ply = trimesh.Trimesh(mesh.vertices, mesh.triangles, process=False).export(file_type="ply")
    write_mesh(out, ply, record, source.origin)
