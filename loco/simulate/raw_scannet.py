"""Write a simulated scene as a raw ScanNet scan: a .sens file, a mesh and labels, in ScanNet's conventions and units.

Layout: github.com/ScanNet/ScanNet. Poses are those of the depth camera, pixel centres are integers, and depth is in
millimetres. No other module of this package depends on these conventions.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray
from tqdm import tqdm

from loco.datasets.pose_files import HALF_A_PIXEL
from loco.datasets.sens import COLOR_COMPRESSIONS, DEPTH_COMPRESSIONS, FRAME, HEADER, VERSION, SensFile, SensHeader
from loco.simulate.handheld import DepthRig, Walk
from loco.simulate.house import House, scene_seed
from loco.simulate.raw_matterport3d import oversegment
from loco.simulate.shapes import Floats
from loco.storage import atomic_path, write_text

UNITS_PER_METRE = 1000
JPEG_QUALITY = 92
FOCAL = 0.95  # focal length of the depth camera as a fraction of its image width
MICROSECONDS = 33_333  # time between frames


class SensFrame(NamedTuple):
    """A frame of a .sens file: pose (4, 4) of the depth camera, and both images, compressed."""

    pose: Floats
    color: bytes
    depth: bytes


def simulate_scannet(directory: Path, scene: str, settings: Mapping[str, Any]) -> None:
    """Build a scene, render a video, and write it as a raw ScanNet scan.

    Args:
        directory: output folder, created if missing. Files are written atomically.
        scene: its name; together with the seed it determines the content.
        settings: settings of :class:`loco.simulate.handheld.Walk`, and ``lost_poses``, the number of images,
            evenly spaced, without a pose. Depth images have half the height and width of colour images.
    """
    rig = depth_rig(settings)
    walk = Walk(scene, settings, rig)
    header = _header(walk, rig)
    lost = _lost(settings["images"], settings.get("lost_poses", 0))
    photos = tqdm(walk.photos(), total=len(walk.poses), desc=f"{scene}: images", unit="image", mininterval=1.0)
    write_sens(
        directory / f"{scene}.sens",
        header,
        (
            SensFrame(
                pose=np.full((4, 4), -np.inf) if k in lost else photo.pose @ rig.pose_in_color,
                color=encode_color(photo.rgb, header.color_compression),
                depth=encode_depth(_in_units(photo.depth), header.depth_compression),
            )
            for k, photo in enumerate(photos)
        ),
    )
    _write_mesh(directory, scene, walk.house, walk.renderer.vertex_colours())
    _write_labels(directory, scene, walk.house, np.random.default_rng([*scene_seed(settings["seed"], scene), 5]))


def depth_rig(settings: Mapping[str, Any]) -> DepthRig:
    """Return a depth camera of half the resolution, 4 cm beside the colour camera and slightly rotated."""
    height, width = settings["image"]["height"] // 2, settings["image"]["width"] // 2
    intrinsics = np.array([[FOCAL * width, 0, 0.51 * width], [0, FOCAL * width, 0.49 * height], [0, 0, 1.0]])
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(np.radians([0.5, -1.0, 0.3]))[0]
    pose[:3, 3] = [-0.04, 0.005, 0.01]
    return DepthRig(intrinsics, (height, width), pose)


def write_sens(path: Path, header: SensHeader, frames: Iterable[SensFrame]) -> None:
    """Write a .sens file, one frame at a time."""
    matrices = (header.intrinsic_color, header.extrinsic_color, header.intrinsic_depth, header.extrinsic_depth)
    name = header.sensor.encode()

    def head(count: int) -> bytes:
        fields = HEADER.pack(
            *np.concatenate([matrix.ravel() for matrix in matrices]),
            COLOR_COMPRESSIONS.index(header.color_compression),
            DEPTH_COMPRESSIONS.index(header.depth_compression),
            *header.color_size[::-1],
            *header.depth_size[::-1],
            header.depth_shift,
            count,
        )
        return VERSION.to_bytes(4, "little") + len(name).to_bytes(8, "little") + name + fields

    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(head(0))
        count = 0
        for pose, color, depth in frames:
            time = count * MICROSECONDS
            file.write(FRAME.pack(*np.ravel(pose), time, time, len(color), len(depth)))
            file.write(color)
            file.write(depth)
            count += 1
        file.write(bytes(8))  # number of frames of the inertial sensor: none
        file.seek(0)
        file.write(head(count))


def encode_color(rgb: NDArray[np.uint8], compression: str) -> bytes:
    """Encode a colour image (H, W, 3) for a .sens file; ``compression`` is "raw", "png" or "jpeg"."""
    if compression == "raw":
        return rgb.tobytes()
    suffix, options = {"png": (".png", []), "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])}[compression]
    return cv2.imencode(suffix, rgb[..., ::-1], options)[1].tobytes()


def encode_depth(units: NDArray[np.uint16], compression: str) -> bytes:
    """Encode a depth image (h, w) for a .sens file: compressed with zlib for "zlib_ushort", raw for any other name."""
    data = units.astype("<u2").tobytes()
    return zlib.compress(data) if compression == "zlib_ushort" else data


def export_scannet(sens: Path, folder: Path) -> None:
    """Write the images, poses and cameras of a .sens file to folders, as SensReader's ``reader.py`` does."""
    file = SensFile(sens, sens.stem)
    for kind in ("color", "depth", "pose", "intrinsic"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for k, pose in enumerate(file.poses):
        (folder / "color" / f"{k}.jpg").write_bytes(file.color_bytes(k))
        (folder / "depth" / f"{k}.png").write_bytes(_png(file.depth(k)))
        np.savetxt(folder / "pose" / f"{k}.txt", pose, fmt="%f")
    for name in ("intrinsic_color", "extrinsic_color", "intrinsic_depth", "extrinsic_depth"):
        np.savetxt(folder / "intrinsic" / f"{name}.txt", getattr(file.header, name), fmt="%f")


def simulate_scannet_pairs(folder: Path, scenes: Sequence[str], pairs: int, settings: Mapping[str, Any]) -> None:
    """Write test pairs of simulated scans in the layout of LoFTR's ScanNet pairs (:mod:`loco.datasets.scannet_pairs`).

    Args:
        folder: output folder.
        scenes: names of the scans, sceneXXXX_YY.
        pairs: number of pairs per scan; each consists of successive images of the video.
        settings: settings of :class:`loco.simulate.handheld.Walk`. Depth has the size of ``image``; colour is
            written at twice this size, so that it must be resized to depth.
    """
    names, relative, intrinsics = [], [], {}
    for scene in scenes:
        walk = Walk(scene, settings)
        room, scan = int(scene[5:9]), int(scene[10:12])
        intrinsics[scene] = walk.intrinsics - HALF_A_PIXEL
        for kind in ("color", "depth"):
            (folder / scene / kind).mkdir(parents=True, exist_ok=True)
        for k, photo in enumerate(walk.photos()):
            large = np.repeat(np.repeat(photo.rgb, 2, axis=0), 2, axis=1)
            (folder / scene / "color" / f"{k}.jpg").write_bytes(encode_color(large, "jpeg"))
            (folder / scene / "depth" / f"{k}.png").write_bytes(_png(_in_units(photo.depth)))
        for a in range(pairs):
            names.append([room, scan, a, a + 1])
            relative.append((np.linalg.inv(walk.poses[a + 1]) @ walk.poses[a])[:3].ravel())
    with atomic_path(folder / "test.npz") as path:
        np.savez(path, name=np.array(names), rel_pose=np.array(relative))
    with atomic_path(folder / "intrinsics.npz") as path:
        np.savez(path, **intrinsics)


def _header(walk: Walk, rig: DepthRig) -> SensHeader:
    color, depth = np.eye(4), np.eye(4)
    color[:3, :3], depth[:3, :3] = walk.intrinsics - HALF_A_PIXEL, rig.intrinsics - HALF_A_PIXEL
    return SensHeader(
        sensor="StructureSensor",
        intrinsic_color=color,
        extrinsic_color=np.eye(4),
        intrinsic_depth=depth,
        extrinsic_depth=rig.pose_in_color,
        color_compression="jpeg",
        depth_compression="zlib_ushort",
        color_size=walk.size,
        depth_size=rig.size,
        depth_shift=UNITS_PER_METRE,
    )


def _lost(images: int, lost: int) -> set[int]:
    return set(np.linspace(0, images, lost + 2)[1:-1].astype(int).tolist())


def _in_units(depth: Floats) -> NDArray[np.uint16]:
    units = np.round(depth * UNITS_PER_METRE)
    return np.where(units > 65535, 0, units).astype(np.uint16)


def _png(units: NDArray[np.uint16]) -> bytes:
    return cv2.imencode(".png", units)[1].tobytes()


def _write_mesh(directory: Path, scene: str, house: House, colours: NDArray[np.uint8]) -> None:
    mesh = trimesh.Trimesh(house.vertices, house.triangles, vertex_colors=colours, process=False)
    with atomic_path(directory / f"{scene}_vh_clean_2.ply") as path:
        path.write_bytes(mesh.export(file_type="ply", vertex_normal=False))


def _write_labels(directory: Path, scene: str, house: House, rng: np.random.Generator) -> None:
    """Write the segments of the vertices, and the objects that they form."""
    instance = np.zeros(len(house.vertices), int)
    instance[house.triangles] = house.instance[:, None]
    segments = oversegment(instance, house.vertices, rng)
    groups = [
        {
            "id": k,
            "objectId": k,
            "segments": np.unique(segments[instance == k]).tolist(),
            "label": house.instances[k].label,
        }
        for k in np.unique(instance).tolist()
    ]
    stem = f"{scene}_vh_clean_2"
    _write_json(directory / f"{stem}.0.010000.segs.json", {"sceneId": stem, "segIndices": segments.tolist()})
    _write_json(
        directory / f"{scene}.aggregation.json",
        {
            "sceneId": f"scannet.{scene}",
            "appId": "loco.simulate",
            "segGroups": groups,
            "segmentsFile": f"scannet.{stem}.0.010000.segs.json",
        },
    )


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, separators=(",", ":")))


# Format -> the function that simulates a scene of it, for `loco.simulate.simulate_scene`.
SIMULATE = {"scannet": simulate_scannet}
