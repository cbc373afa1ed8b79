"""The frames step: convert a raw scene to frames of one size, fill holes in their depth, and drop unusable frames.

If the images share no world frame, no 3D points are computed, so missing depth is not inpainted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from loco.datasets import conventions_of, is_photographs, open_scene, provides
from loco.datasets.crop import crop_to_aspect
from loco.datasets.ply import read_ply
from loco.datasets.raw import MAX_DEPTH, NOTED_BEYOND, Observations, RawFrame, depth_beyond
from loco.errors import DataError
from loco.geometry.cameras import Camera, scale_intrinsics
from loco.geometry.inpaint import inpaint_depth
from loco.geometry.overlap import KeyframeSelection, SparseKeyframeSelection
from loco.geometry.raycast import RayCaster
from loco.geometry.register import register_depth
from loco.records import Recipe, Record, new_record
from loco.storage import Frames, read_manifest, read_mesh
from loco.storage.scene_file import Writer

SENSOR, MESH, INPAINTED = (Frames.SOURCES.index(name) for name in ("sensor", "mesh", "inpainted"))
NEAREST = 0.01  # metres; nearer sensor depths are treated as missing, like those beyond `frames.max_depth`
Prepared = tuple[RawFrame, NDArray[np.uint8]]  # a frame, and the source of each depth


def run(
    recipe: Recipe,
    manifest_path: Path,
    raw: Path,
    out: Path,
    dataset: str,
    scene: str,
    mesh_path: Path | None = None,
    threads: int = 1,
) -> None:
    """Write the frames of a scene that passed its check.

    Args:
        recipe: recipe of the frames; its settings are those of :func:`prepare_frames`, and ``format``.
        manifest_path: manifest of the scene.
        raw: folder of the raw scenes.
        out: file of :class:`loco.storage.Frames` to write.
        dataset, scene: their names.
        mesh_path: a mesh made from the scene's own depth, if the configuration requires one.
        threads: number of threads for ray casting.

    Raises:
        DataError: an input was not made as planned, the scene did not pass its check, or no frame is left.
    """
    manifest = read_manifest(manifest_path, recipe.inputs["check_scene"])
    manifest.require_passed()
    inputs, mesh = {manifest_path: manifest.content_id}, None
    if mesh_path is not None:
        mesh, inputs[mesh_path] = read_mesh(mesh_path, recipe.inputs["fuse"])
    record = new_record(recipe, {"dataset": dataset, "scene": scene}, inputs)
    settings = {key: value for key, value in recipe.settings.items() if key != "format"}
    # The same conventions as in the check.
    conventions = conventions_of(recipe.inputs["check_scene"].settings)
    prepare_frames(recipe.settings["format"], raw, scene, out, dataset, settings, mesh, threads, record, conventions)


def prepare_frames(
    format: str,
    raw: Path,
    scene: str,
    out: Path,
    dataset: str,
    settings: Mapping[str, Any],
    mesh: bytes | None = None,
    threads: int = 1,
    record: Record | None = None,
    conventions: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write a scene's frames. Each image is read once, one image in memory at a time.

    Args:
        format: raw layout, a key of :data:`loco.datasets.FORMATS`.
        raw: folder of the raw scenes.
        scene: name of the scene.
        out: file of :class:`loco.storage.Frames` to write.
        dataset: name of the dataset.
        settings: ``height``, ``width`` (pixels); ``crop``, to crop to this aspect ratio instead of resizing both sides
            by different factors; ``images`` ("all" or "horizontal"); ``every``, to use every n-th image;
            ``max_hole_fraction``: frames with more holes after filling from the mesh are dropped; ``max_overlap``:
            frames that overlap more with a previous frame are left out
            (:class:`loco.geometry.overlap.KeyframeSelection`, or without depth its ``SparseKeyframeSelection``);
            ``max_depth``: sensor depths beyond it are treated as missing, metres
            (default: :data:`loco.datasets.raw.MAX_DEPTH`); ``scale``: metres per unit of a sparse model. The
            facts ``skipped``, ``dropped`` and ``not_keyframes`` list the frames that were left out.
        mesh: a PLY file made from the scene's own depth, to fill holes if the dataset has no mesh.
        threads: number of threads for ray casting.
        record: provenance record.
        conventions: conventions of the raw files (:func:`loco.datasets.conventions_of`).

    Raises:
        DataError: the raw files are broken, or no frame is left.

    Poses and points are written in local coordinates of the scene; the fact ``origin`` is the local origin in world
    coordinates, metres (:mod:`loco.datasets.local`).
    """
    source = open_scene(format, raw, scene, conventions)
    names = source.names(settings["images"])[:: settings.get("every", 1)]
    size = (settings["height"], settings["width"])
    raw_frames = tqdm(source.frames(names), total=len(names), desc=scene, unit="image")
    if settings.get("crop"):
        raw_frames = (crop_to_aspect(frame, size) for frame in raw_frames)
    dropped: dict[str, float] = {}
    not_keyframes: dict[str, float] = {}
    beyond: list[float] = []
    tracks, origin = source.tracks(), source.origin
    if is_photographs(format):
        prepared, tracks = photographs(raw_frames, size), np.empty((0, 3))
    elif tracks is None:
        surface = read_ply(mesh, file=out.parent / "mesh", scene=scene) if mesh is not None else source.mesh()
        caster = RayCaster(surface, threads) if surface is not None else None
        raw_frames = _measure_beyond(raw_frames, settings.get("max_depth", MAX_DEPTH), beyond)
        prepared = dense_frames(
            raw_frames, size, caster, settings, dropped, not_keyframes, fill="places" in provides(format)
        )
        tracks = np.empty((0, 3))
    else:
        scale = settings.get("scale", 1.0)
        prepared, tracks = sparse_frames(raw_frames, size, settings, not_keyframes), tracks * scale
        origin = origin * scale
    sizes = {"n": len(names), "h": size[0], "w": size[1], "t": len(tracks)}
    with Frames.create(out, dataset, scene, sizes, record=record) as file:
        file["track"][:] = tracks
        if not _write(file, prepared, size):
            raise _nothing_left(scene, len(names), settings, dropped, beyond)
        file.facts["origin"] = origin.tolist()
        file.facts |= {"skipped": dict(source.skipped), "dropped": dropped, "not_keyframes": not_keyframes}
        file.facts |= {"max_hole_fraction": settings["max_hole_fraction"], "ground_truth": source.ground_truth()}


def _nothing_left(
    scene: str, count: int, settings: Mapping[str, Any], dropped: Mapping[str, float], beyond: list[float]
) -> DataError:
    found = f"at least {min(dropped.values()):.0%}" if dropped else "no images"
    remedy = "raise `frames.max_hole_fraction`, or remove the scene from the split"
    fraction = float(np.mean(beyond)) if beyond else 0.0
    if fraction > NOTED_BEYOND:
        limit = settings.get("max_depth", MAX_DEPTH)
        found += f"; {fraction:.0%} of the measured depth is beyond {limit:g} m, the limit `frames.max_depth`"
        remedy = (
            "check the unit of the depth images and, if it is correct, raise `frames.max_depth`; otherwise " + remedy
        )
    return DataError(
        f"no frame of the {count} remains",
        scene=scene,
        expected=f"at most {settings['max_hole_fraction']:.0%} of the pixels of a frame without depth",
        found=found,
        remedy=remedy,
    )


def _measure_beyond(frames: Iterable[RawFrame], limit: float, beyond: list[float]) -> Iterator[RawFrame]:
    """Yield the frames, and append the fraction of each frame's measured depth beyond the limit to ``beyond``."""
    for frame in frames:
        fraction = depth_beyond(frame.depth, limit)
        beyond += [] if fraction is None else [fraction]
        yield frame


def dense_frames(
    frames: Iterable[RawFrame],
    size: tuple[int, int],
    caster: RayCaster | None,
    settings: Mapping[str, Any],
    dropped: dict[str, float],
    not_keyframes: dict[str, float],
    fill: bool,
) -> Iterator[Prepared]:
    """Yield frames of ``size`` and the source of each depth; with ``fill``, holes are inpainted.

    With ``fill``, frames without any depth are dropped, because inpainting requires known depths. Frames that are left
    out are added to ``dropped`` (name -> fraction of holes) or ``not_keyframes`` (name -> overlap beyond the limit).
    """
    limit = settings.get("max_overlap", 1)
    keyframes = KeyframeSelection(limit)
    for raw_frame in frames:
        frame, origin = prepare_frame(raw_frame, size, caster, settings.get("max_depth", MAX_DEPTH))
        holes = float(np.mean(origin == 0))
        if holes > settings["max_hole_fraction"] or (fill and holes == 1):
            dropped[frame.name] = round(holes, 4)
            continue
        view = frame.depth, frame.intrinsics, frame.pose
        if limit < 1 and not _is_keyframe(keyframes, view, frame.name, limit, not_keyframes):
            continue
        if fill and holes:
            frame.depth[:], origin[origin == 0] = inpaint_depth(frame.depth, frame.rgb), INPAINTED
        yield frame, origin


def prepare_frame(
    frame: RawFrame, size: tuple[int, int], caster: RayCaster | None, max_depth: float = MAX_DEPTH
) -> Prepared:
    """Resize a frame, register its depth to the colour camera, and fill holes from the mesh.

    Sensor depths beyond ``max_depth`` (metres) are treated as missing.

    Colour is averaged over the area of each new pixel. Depth is sampled at the new pixel centres and never averaged
    across an edge or a hole (:func:`loco.geometry.register.register_depth`).

    Returns:
        The frame of ``size``, and the source of each depth, (h, w) uint8, an index into ``Frames.SOURCES``.
    """
    intrinsics = scale_intrinsics(frame.intrinsics, frame.rgb.shape[:2], size)
    rgb = cv2.resize(frame.rgb, size[::-1], interpolation=cv2.INTER_AREA)
    with np.errstate(invalid="ignore"):
        usable = np.where((frame.depth >= NEAREST) & (frame.depth <= max_depth), frame.depth, 0)
    depth = register_depth(usable, frame.camera_of_depth, Camera(intrinsics, frame.pose), size)
    origin = np.where(depth > 0, SENSOR, 0).astype(np.uint8)
    if caster is not None and (depth == 0).any():
        seen = caster.cast(intrinsics, frame.pose, size, mask=depth == 0).depth
        depth = np.where(seen > 0, seen, depth)
        origin[seen > 0] = MESH
    return replace(frame, rgb=rgb, depth=depth.astype(np.float32), intrinsics=intrinsics, depth_camera=None), origin


def _is_keyframe(
    keyframes: KeyframeSelection | SparseKeyframeSelection,
    view: tuple[Any, ...],
    name: str,
    limit: float,
    not_keyframes: dict[str, float],
) -> bool:
    """Add a frame to the keyframes, or to ``not_keyframes`` if its overlap with one of them exceeds the limit.

    ``view`` are the arguments of ``keyframes.overlap``.
    """
    overlap = keyframes.overlap(*view)
    if overlap > limit:
        not_keyframes[name] = round(overlap, 4)
        return False
    keyframes.add(*view)
    return True


def sparse_frames(
    frames: Iterable[RawFrame], size: tuple[int, int], settings: Mapping[str, Any], not_keyframes: dict[str, float]
) -> Iterator[Prepared]:
    """Yield frames of ``size`` without depth, with observations of a sparse model of ``scale`` metres per unit.

    Frames that are left out are added to ``not_keyframes`` (name -> the overlap beyond the limit).
    """
    nothing = np.zeros(size, np.float32), np.zeros(size, np.uint8)
    scale, limit, keyframes = settings.get("scale", 1.0), settings.get("max_overlap", 1), SparseKeyframeSelection()
    for frame in frames:
        view = (frame.observations.track,)
        if limit < 1 and not _is_keyframe(keyframes, view, frame.name, limit, not_keyframes):
            continue
        height, width = frame.rgb.shape[:2]
        pose = frame.pose.copy()
        pose[:3, 3] *= scale
        uv = frame.observations.uv * (size[1] / width, size[0] / height)
        yield (
            replace(
                frame,
                rgb=cv2.resize(frame.rgb, size[::-1], interpolation=cv2.INTER_AREA),
                depth=nothing[0],
                intrinsics=scale_intrinsics(frame.intrinsics, (height, width), size),
                pose=pose,
                observations=Observations(uv, frame.observations.track),
            ),
            nothing[1],
        )


def photographs(frames: Iterable[RawFrame], size: tuple[int, int]) -> Iterator[Prepared]:
    """Yield frames of ``size`` without depth and pose; their intrinsics map raw pixels to pixels of the frame."""
    nothing = np.zeros(size, np.float32), np.zeros(size, np.uint8)
    for frame in frames:
        rgb = cv2.resize(frame.rgb, size[::-1], interpolation=cv2.INTER_AREA)
        intrinsics = scale_intrinsics(frame.intrinsics, frame.rgb.shape[:2], size)
        yield replace(frame, rgb=rgb, depth=nothing[0], intrinsics=intrinsics), nothing[1]


def _write(file: Writer, prepared: Iterable[Prepared], size: tuple[int, int]) -> int:
    """Write the arrays of a frames file and return the number of frames."""
    names: list[str] = []
    cameras: list[Camera] = []
    observed: list[tuple[NDArray, NDArray, NDArray]] = []
    for frame, origin in prepared:
        k = len(names)
        file["rgb"][k], file["depth"][k], file["source"][k] = frame.rgb, frame.depth, origin
        names.append(frame.name)
        cameras.append(Camera(frame.intrinsics, frame.pose))
        if frame.observations is not None:
            uv, track = frame.observations
            observed.append((np.full(len(track), k), track, uv))
    if not names:
        return 0
    for array in ("intrinsics", "pose", "rgb", "depth", "source"):
        file[array].resize(len(names))
    file["intrinsics"][:], file["pose"][:] = (np.array(each) for each in zip(*cameras))
    file.facts["names"] = names
    for array, parts in zip(("frame", "track", "uv"), zip(*observed)):
        file[f"observation_{array}"].resize(sum(map(len, parts)))
        file[f"observation_{array}"][:] = np.concatenate(parts)
    return len(names)
