"""Matterport3D in its raw download layout.

``<raw>/<scene>/`` holds four zips (or the folders that they were unpacked to), whose members lie under
``<scene>/<kind>/``; described in the dataset's own ``data_organization.md`` (github.com/niessner/Matterport). What is
converted at the door: the image origin is bottom-left with y up (cy becomes H - cy), cameras look along their -z axis,
depth is 16-bit PNG in units of 0.25 mm.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray

from loco.datasets.archive import Archive
from loco.datasets.raw import DECODE_SAMPLE, Decode, Images, RawFrame, decode_image
from loco.errors import DataError
from loco.geometry.raycast import Mesh

COLOR, DEPTH = "undistorted_color_images", "undistorted_depth_images"
CAMERAS, REGIONS = "undistorted_camera_parameters", "region_segmentations"
KINDS = (COLOR, DEPTH, CAMERAS, REGIONS)
DEPTH_UNITS_PER_METRE = 4000
# Image axes of the raw format (x right, y up, z backward) to OpenCV's (x right, y down, z forward).
FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])
_COLOR_NAME = re.compile(r"(?P<panorama>[0-9a-zA-Z]+)_i(?P<camera>[012])_(?P<yaw>[0-5])\.jpg")


@dataclass(frozen=True)
class Scan:
    """One line ``scan`` of the .conf: image names, raw intrinsics (origin bottom-left) and raw pose."""

    depth_name: str
    color_name: str
    intrinsics: NDArray[np.float64]
    pose: NDArray[np.float64]

    @property
    def horizontal(self) -> bool:
        return _COLOR_NAME.fullmatch(self.color_name)["camera"] == "1"


class Matterport3DScene:
    """A scene of Matterport3D (:class:`loco.datasets.raw.RawScene`)."""

    def __init__(self, raw: Path, scene: str) -> None:
        """Raises DataError if a file is missing or the .conf is broken."""
        self.scene = scene
        self.archives = {kind: _archive(raw, scene, kind) for kind in KINDS}
        self.scans = _read_conf(self.archives[CAMERAS], scene)

    @staticmethod
    def files(raw: Path, scene: str) -> list[Path]:
        return [raw / scene / f"{kind}.zip" for kind in KINDS]

    @staticmethod
    def check(raw: Path, scene: str, decode: Decode) -> dict[str, Any]:
        return _check(raw, scene, decode)

    def names(self, images: Images) -> list[str]:
        return [Path(scan.color_name).stem for scan in self._chosen(images)]

    def frames(self, images: Images) -> Iterator[RawFrame]:
        for scan in self._chosen(images):
            rgb = _read_color(self.archives[COLOR], self.scene, scan.color_name)
            depth = _read_depth(self.archives[DEPTH], self.scene, scan.depth_name)
            if rgb.shape[:2] != depth.shape:
                raise DataError(
                    f"colour and depth of {scan.color_name!r} differ in size",
                    file=self.archives[DEPTH].path,
                    scene=self.scene,
                    expected=rgb.shape[:2],
                    found=depth.shape,
                    remedy="download both zips again",
                )
            intrinsics = scan.intrinsics.copy()
            intrinsics[1, 2] = rgb.shape[0] - intrinsics[1, 2]
            yield RawFrame(
                name=Path(scan.color_name).stem,
                rgb=rgb,
                depth=depth.astype(np.float32) / DEPTH_UNITS_PER_METRE,
                intrinsics=intrinsics,
                pose=scan.pose @ FLIP_YZ,
            )

    def mesh(self) -> Mesh:
        """All regions as one mesh, in the order of their numbers."""
        archive = self.archives[REGIONS]
        parts = [read_ply(archive, name, self.scene) for name in _regions(archive)]
        first_vertex = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
        return Mesh(
            np.concatenate([part.vertices for part in parts]),
            np.concatenate([part.triangles + np.uint32(first) for part, first in zip(parts, first_vertex)]),
        )

    def _chosen(self, images: Images) -> list[Scan]:
        return [scan for scan in self.scans if images == "all" or scan.horizontal]


def read_ply(archive: Archive, name: str, scene: str) -> Mesh:
    """The triangle mesh of one PLY.

    Raises:
        DataError: it has no triangles, a vertex that is not finite, or a triangle without its vertex.
    """
    try:
        mesh = trimesh.load(io.BytesIO(archive.read(name)), file_type="ply", process=False)
        vertices, triangles = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces)
    except DataError:
        raise
    except Exception as error:  # trimesh raises many kinds for broken files
        raise DataError(f"mesh {name!r} cannot be read: {error}", file=archive.path, scene=scene) from error
    faults = {
        "has no triangles": len(triangles) == 0,
        "has vertices that are not finite": not np.isfinite(vertices).all(),
        "has triangles without their vertices": len(triangles) > 0
        and not 0 <= triangles.min() <= triangles.max() < len(vertices),
    }
    for fault, present in faults.items():
        if present:
            raise DataError(f"mesh {name!r} {fault}", file=archive.path, scene=scene, remedy="download it again")
    return Mesh(vertices, triangles.astype(np.uint32))


def _archive(raw: Path, scene: str, kind: str) -> Archive:
    folder = raw / scene
    # Unpacked in the folder that holds the scenes, or inside the scene's own.
    unpacked = next((f for f in (folder / kind, folder / scene / kind) if f.is_dir()), folder / kind)
    try:
        return Archive(folder / f"{kind}.zip", unpacked, f"{scene}/{kind}/", scene)
    except DataError as error:
        if error.problem != "is missing":
            raise
        raise DataError(
            f"{kind}.zip is missing",
            file=folder / f"{kind}.zip",
            scene=scene,
            remedy=f"sign the agreement at https://niessner.github.io/Matterport, run `download_mp.py -o <folder> "
            f"--id {scene} --type {kind}`, and let `raw` name the folder that holds the scenes (<folder>/v1/scans)",
        ) from None


def _read_conf(archive: Archive, scene: str) -> list[Scan]:
    """The scans of the .conf, in its order."""
    name = f"{scene}/{CAMERAS}/{scene}.conf"
    scans: list[Scan] = []
    announced = intrinsics = None
    for number, line in enumerate(archive.read(name).decode("utf-8", errors="replace").splitlines(), start=1):
        keyword, *values = line.split() or [""]
        try:
            if keyword == "n_images":
                announced = int(values[0])
            elif keyword == "intrinsics_matrix":
                intrinsics = _numbers(values, (3, 3))
            elif keyword == "scan":
                scans.append(_scan(values, intrinsics))
        except (ValueError, IndexError) as error:
            raise DataError(
                f"line {number} of {name!r} cannot be understood: {error}",
                file=archive.path,
                scene=scene,
                expected="`intrinsics_matrix` with 9 numbers, or `scan <depth.png> <color.jpg>` with 16",
                found=line[:80],
                remedy="download it again",
            ) from error
    if not scans or announced not in (None, len(scans)):
        raise DataError(
            f"{name!r} does not list the images that it announces",
            file=archive.path,
            scene=scene,
            expected=f"{announced} images" if announced else "at least one image",
            found=f"{len(scans)} `scan` lines",
            remedy="download it again",
        )
    return scans


def _scan(values: list[str], intrinsics: NDArray | None) -> Scan:
    depth_name, color_name, *numbers = values
    if intrinsics is None:
        raise ValueError("a `scan` comes before the first `intrinsics_matrix`")
    if not _COLOR_NAME.fullmatch(color_name):
        raise ValueError(f"{color_name!r} is not named <panorama>_i<camera>_<yaw>.jpg")
    pose = _numbers(numbers, (4, 4))
    if abs(np.linalg.det(pose[:3, :3]) - 1) > 1e-2:
        raise ValueError("the pose is not a rotation and a translation")
    return Scan(depth_name, color_name, intrinsics, pose)


def _numbers(values: list[str], shape: tuple[int, int]) -> NDArray[np.float64]:
    if len(values) != shape[0] * shape[1]:
        raise ValueError(f"{len(values)} numbers instead of {shape[0] * shape[1]}")
    numbers = np.array([float(value) for value in values]).reshape(shape)
    if not np.isfinite(numbers).all():
        raise ValueError("a number is not finite")
    return numbers


def _read_color(archive: Archive, scene: str, name: str) -> NDArray[np.uint8]:
    data = archive.read(f"{scene}/{COLOR}/{name}")
    image = decode_image(data, cv2.IMREAD_COLOR, file=archive.path, name=name, scene=scene)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _read_depth(archive: Archive, scene: str, name: str) -> NDArray[np.uint16]:
    data = archive.read(f"{scene}/{DEPTH}/{name}")
    image = decode_image(data, cv2.IMREAD_UNCHANGED, file=archive.path, name=name, scene=scene)
    if image.dtype != np.uint16 or image.ndim != 2:
        raise DataError(
            f"depth image {name!r} is not a 16-bit image of one channel",
            file=archive.path,
            scene=scene,
            found=f"{image.dtype} {image.shape}",
            remedy="download it again",
        )
    return image


def _regions(archive: Archive) -> list[str]:
    """Members that are region meshes, in the order of their numbers."""
    found = {}
    for name in archive.sizes:
        if match := re.search(r"(?:^|/)region(\d+)\.ply$", name):
            found[int(match[1])] = name
    if not found:
        raise DataError(
            "holds no region mesh", file=archive.path, expected="region0.ply, ...", remedy="download it again"
        )
    return [found[number] for number in sorted(found)]


# --- check -------------------------------------------------------------------------------------------------------


def _check(raw: Path, scene: str, decode: Decode) -> dict[str, Any]:
    problems: list[str] = []

    def attempt(action: Callable[[], Any]) -> Any:
        try:
            return action()
        except DataError as error:
            problems.append(str(error))
            return None

    archives = {}
    for kind in KINDS:
        archive = attempt(lambda kind=kind: _archive(raw, scene, kind))
        if archive is not None:
            archives[kind] = archive
            problems += [
                f"{p}\n  file: {archive.path}\n  what to do: download it again" for p in archive.broken_members()
            ]

    scans = attempt(lambda: _read_conf(archives[CAMERAS], scene)) if CAMERAS in archives else None
    if scans:
        for kind, read, names in (
            (COLOR, _read_color, [scan.color_name for scan in scans]),
            (DEPTH, _read_depth, [scan.depth_name for scan in scans]),
        ):
            if kind in archives:
                problems += _check_images(archives[kind], scene, kind, names)
                for name in names if decode == "all" else _spread(names, DECODE_SAMPLE):
                    if f"{scene}/{kind}/{name}" in archives[kind]:
                        attempt(lambda kind=kind, read=read, name=name: read(archives[kind], scene, name))
    regions = (attempt(lambda: _regions(archives[REGIONS])) or []) if REGIONS in archives else []
    for name in regions:
        attempt(lambda name=name: _check_region(archives[REGIONS], scene, name))

    return {
        "format": "matterport3d",
        "scene": scene,
        "ok": not problems,
        "problems": problems,
        "files": [_describe(a.path) for a in archives.values() if a.path.is_file()],
        "images": len(scans or []),
        "panoramas": len({_COLOR_NAME.fullmatch(scan.color_name)["panorama"] for scan in scans or []}),
        "regions": len(regions),
        "decoded": decode,
    }


def _check_images(archive: Archive, scene: str, kind: str, names: list[str]) -> list[str]:
    """Images that the .conf lists and the archive lacks or holds empty, and images that the .conf does not list."""
    members = {name: f"{scene}/{kind}/{name}" for name in names}
    missing = [name for name, member in members.items() if member not in archive]
    empty = [name for name, member in members.items() if archive.sizes.get(member) == 0]
    extra = sorted(set(archive.sizes) - set(members.values()))
    faults = (
        (missing, "images of the .conf are missing"),
        (empty, "images are empty (0 bytes)"),
        (extra, "files are not listed in the .conf"),
    )
    return [
        f"{len(which)} {fault}: {', '.join(which[:3])}{', ...' if len(which) > 3 else ''}\n  file: {archive.path}\n"
        "  what to do: download this zip and the camera parameters again"
        for which, fault in faults
        if which
    ]


def _check_region(archive: Archive, scene: str, name: str) -> None:
    """A region's mesh can be read and has one segment number a triangle."""
    triangles = len(read_ply(archive, name, scene).triangles)
    stem = name.removesuffix(".ply")
    segments = len(_read_json(archive, f"{stem}.fsegs.json", scene, "segIndices"))
    _read_json(archive, f"{stem}.semseg.json", scene, "segGroups")
    if segments != triangles:
        raise DataError(
            f"{stem}.fsegs.json does not belong to its mesh",
            file=archive.path,
            scene=scene,
            expected=f"{triangles} segment numbers, one a triangle",
            found=segments,
            remedy="download it again",
        )


def _read_json(archive: Archive, name: str, scene: str, key: str) -> list:
    try:
        return list(json.loads(archive.read(name))[key])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{name!r} is not JSON with the list {key!r}: {error}",
            file=archive.path,
            scene=scene,
            remedy="download it again",
        ) from error


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}


def _spread(names: list[str], count: int) -> list[str]:
    """``count`` of the names, evenly spread, first and last included."""
    return [names[i] for i in np.unique(np.linspace(0, len(names) - 1, count).round().astype(int))]
