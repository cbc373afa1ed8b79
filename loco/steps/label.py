"""The label step: compute the object and category of each pixel of a scene's frames by ray casting."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from loco.datasets import open_scene
from loco.datasets.labels import MPCAT40, STUFF, Objects, categories_of, object_counts, read_mapping
from loco.datasets.raw import LabelledMesh
from loco.errors import DataError
from loco.geometry.raycast import RayCaster
from loco.records import Recipe, new_record
from loco.storage import Frames, Labels, Manifest, read_manifest
from loco.storage.scene_file import Writer


def run(
    recipe: Recipe,
    frames_path: Path,
    manifest_path: Path,
    raw: Path,
    mapping: Path,
    out: Path,
    scene: str,
    threads: int = 1,
) -> None:
    """Write the labels of a scene's frames.

    Args:
        recipe: recipe of the labels; its settings contain the ``format`` of the dataset.
        frames_path: file of :class:`loco.storage.Frames`.
        manifest_path: manifest of the label files.
        raw: folder of the raw scenes.
        mapping: table of raw labels.
        out: file of :class:`loco.storage.Labels` to write.
        scene: name of the scene.
        threads: number of threads for ray casting.

    Raises:
        DataError: as :func:`label_scene`; or an input was not made as planned, or the check found problems.
    """
    manifest = read_manifest(manifest_path, recipe.inputs["check_labels"])
    manifest.require_passed()
    label_scene(recipe.settings["format"], raw, scene, frames_path, mapping, out, threads, recipe, manifest)


def label_scene(
    format: str,
    raw: Path,
    scene: str,
    frames_path: Path,
    mapping: Path,
    out: Path,
    threads: int = 1,
    recipe: Recipe | None = None,
    manifest: Manifest | None = None,
) -> None:
    """Write the labels of a scene's frames, found by casting a ray through the centre of every pixel.

    Args:
        format: raw layout, a key of :data:`loco.datasets.FORMATS`.
        raw: folder of the raw scenes.
        scene: name of the scene.
        frames_path: file of :class:`loco.storage.Frames`.
        mapping: table of raw labels (:func:`read_mapping`).
        out: file of :class:`loco.storage.Labels` to write.
        threads: number of threads for ray casting.
        recipe: recipe of the file; None writes no record and accepts any frames.
        manifest: manifest of the label files, for the record.

    Raises:
        DataError: the dataset has no labels, the frames belong to another scene, or the table lacks a label.
    """
    labelled = open_scene(format, raw, scene).labelled_mesh()
    if labelled is None:
        raise DataError(
            "the scene has no labels",
            scene=scene,
            remedy="remove the scene from the splits, or remove `labels` from the configuration of the dataset",
        )
    categories = categories_of(labelled.labels, read_mapping(mapping), file=mapping, scene=scene)
    caster = RayCaster(labelled.mesh, threads)
    with Frames(frames_path, recipe and recipe.inputs["frames"]) as frames:
        if frames.scene != scene:
            raise DataError(
                "the file contains frames of another scene",
                file=frames_path,
                expected=scene,
                found=frames.scene,
                remedy="delete the file and run the workflow again",
            )
        sizes = dict(zip("nhw", frames["depth"].shape))
        record = None
        if recipe:
            inputs = {file.path: file.content_id for file in (frames, manifest) if file}
            record = new_record(recipe, {"dataset": frames.dataset, "scene": scene}, inputs)
        with Labels.create(out, frames.dataset, scene, sizes, frames_id=frames.content_id, record=record) as file:
            pixels, views = _write_maps(file, frames, caster, labelled.object, categories)
            objects = _describe(labelled, categories, pixels, views)
            file.facts |= {"objects": objects, "counts": _count(objects, frames["depth"].size)}


def _write_maps(
    file: Writer, frames: Frames, caster: RayCaster, object_of: NDArray[np.int32], categories: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Fill the maps frame by frame; return the numbers of pixels and of frames in which each object is seen."""
    # A ray without a hit has triangle -1, and a triangle without an object has object -1: both index the last entry.
    object_of = np.append(object_of, np.int32(Labels.VOID))
    categories = np.append(categories, np.uint8(MPCAT40.index("void")))
    pixels, views = np.zeros((2, len(categories) - 1), np.int64)
    cameras = zip(frames["intrinsics"][:], frames["pose"][:])
    for k, (intrinsics, pose) in enumerate(tqdm(cameras, total=len(frames), desc=frames.scene, unit="image")):
        instance = object_of[caster.cast(intrinsics, pose, frames.size).triangle]
        file["instance"][k], file["semantic"][k] = instance, categories[instance]
        seen = np.bincount(instance[instance >= 0], minlength=len(pixels))
        pixels += seen
        views += seen > 0
    return pixels, views


def _describe(
    labelled: LabelledMesh, categories: NDArray[np.uint8], pixels: Iterable[int], views: Iterable[int]
) -> list[dict[str, Any]]:
    triangles = np.bincount(labelled.object[labelled.object >= 0], minlength=len(labelled.labels))
    return [
        {
            "label": label,
            "category": MPCAT40[category],
            "stuff": MPCAT40[category] in STUFF,
            "triangles": int(t),
            "pixels": int(p),
            "frames": int(v),
        }
        for label, category, t, p, v in zip(labelled.labels, categories, triangles, pixels, views, strict=True)
    ]


def _count(objects: Objects, area: int) -> dict[str, Any]:
    """Return the fact ``counts``; ``area`` is the total number of pixels."""
    things, stuff = object_counts(objects)
    shown = sum(o["pixels"] for o in objects if o["category"] != "void")
    return {"objects": things + sum(stuff), "things": things, "stuff": sum(stuff), "void": 1 - shown / area}
