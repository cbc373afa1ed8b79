"""The depth step: a raw scene to frames of one size, with every hole of the depth filled or the frame dropped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from loco.datasets import open_scene
from loco.datasets.raw import RawFrame
from loco.errors import DataError
from loco.geometry.cameras import pixel_centres, scale_intrinsics
from loco.geometry.inpaint import inpaint_depth
from loco.geometry.patches import sample_depth
from loco.geometry.raycast import RayCaster
from loco.storage import Frames, frames_identity

SENSOR, MESH, INPAINTED = (Frames.SOURCES.index(name) for name in ("sensor", "mesh", "inpainted"))
NEAREST, FARTHEST = 0.01, 20.0  # metres; sensor depths outside are holes


def prepare_frames(
    format: str,
    raw: Path,
    scene: str,
    manifest: Mapping[str, Any],
    out: Path,
    dataset: str,
    settings: Mapping[str, Any],
    threads: int = 1,
) -> None:
    """Write a scene's frames.

    Args:
        format: raw layout, a key of :data:`loco.datasets.FORMATS`.
        raw: folder that holds the raw scenes.
        scene: name of the scene.
        manifest: what the check found; a broken scene is refused.
        out: file of :class:`loco.storage.Frames` to write.
        dataset: name of the dataset.
        settings: ``height``, ``width`` (pixels), ``images`` ("all" or "horizontal") and ``max_hole_fraction``: a frame
            that the mesh leaves with more holes is dropped, and counted in ``facts["dropped"]``.
        threads: for the ray casting.

    Raises:
        DataError: the manifest lists problems, or no frame is left.
    """
    if not manifest["ok"]:
        raise DataError(
            f"scene {scene!r} did not pass its check:\n- " + "\n- ".join(manifest["problems"]),
            scene=scene,
            remedy="mend or download the files above; the check then runs again by itself",
        )
    source = open_scene(format, raw, scene)
    mesh = source.mesh()
    caster = RayCaster(mesh, threads) if mesh is not None else None
    size = (settings["height"], settings["width"])
    names = source.names(settings["images"])
    kept: list[str] = []
    cameras: list[tuple[NDArray, NDArray]] = []
    dropped: dict[str, float] = {}
    with Frames.create(out, dataset, scene, {"n": len(names), "h": size[0], "w": size[1]}) as file:
        for raw_frame in tqdm(source.frames(settings["images"]), total=len(names), desc=scene, unit="image"):
            frame, origin = prepare_frame(raw_frame, size, caster)
            holes = float(np.mean(origin == 0))
            if holes > settings["max_hole_fraction"]:
                dropped[frame.name] = round(holes, 4)
                continue
            if holes:
                frame.depth[:], origin[origin == 0] = inpaint_depth(frame.depth, frame.rgb), INPAINTED
            file["rgb"][len(kept)], file["depth"][len(kept)] = frame.rgb, frame.depth
            file["source"][len(kept)] = origin
            kept.append(frame.name)
            cameras.append((frame.intrinsics, frame.pose))
        if not kept:
            raise DataError(
                f"every one of the {len(names)} frames has too many holes",
                scene=scene,
                expected=f"at most {settings['max_hole_fraction']:.0%} of a frame's pixels without depth",
                found=f"at least {min(dropped.values()):.0%}" if dropped else "no images",
                remedy="raise `frames.max_hole_fraction`, or leave the scene out of the split",
            )
        for array in Frames.arrays:
            file[array].resize(len(kept), axis=0)
        intrinsics, poses = (np.array(each) for each in zip(*cameras))
        file["name"][:], file["intrinsics"][:], file["pose"][:] = kept, intrinsics, poses
        file.attrs["frames_id"] = frames_identity(kept, intrinsics, poses, size)
        Frames.set_facts(file, {"dropped": dropped, "max_hole_fraction": settings["max_hole_fraction"]})


def prepare_frame(
    frame: RawFrame, size: tuple[int, int], caster: RayCaster | None
) -> tuple[RawFrame, NDArray[np.uint8]]:
    """Resize a frame and fill its holes from the mesh.

    Colour is averaged over the area of each new pixel. Depth is read at the new pixel centres, never averaged across
    an edge or a hole (:func:`loco.geometry.patches.sample_depth`).

    Returns:
        The frame of ``size``, and where each depth comes from (h, w), an index of ``Frames.SOURCES``.
    """
    height, width = frame.depth.shape
    intrinsics = scale_intrinsics(frame.intrinsics, (height, width), size)
    rgb = cv2.resize(frame.rgb, size[::-1], interpolation=cv2.INTER_AREA)
    with np.errstate(invalid="ignore"):
        usable = np.where((frame.depth >= NEAREST) & (frame.depth <= FARTHEST), frame.depth, 0)
    depth, _ = sample_depth(usable, pixel_centres(*size) * (width / size[1], height / size[0]))
    origin = np.where(depth > 0, SENSOR, 0).astype(np.uint8)
    if caster is not None and (depth == 0).any():
        seen = caster.cast(intrinsics, frame.pose, size, mask=depth == 0).depth
        depth = np.where(seen > 0, seen, depth)
        origin[seen > 0] = MESH
    return RawFrame(frame.name, rgb, depth.astype(np.float32), intrinsics, frame.pose), origin
