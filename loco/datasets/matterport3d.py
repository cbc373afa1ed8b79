"""Matterport3D in its raw download layout.

``<raw>/<scene>/`` contains four zips (or the folders that they were unpacked to), whose members are under
``<scene>/<kind>/``, as described in the dataset's ``data_organization.md`` (github.com/niessner/Matterport). This
module converts its conventions: the image origin is bottom-left with y up (cy becomes H - cy), and cameras look along
their -z axis. Depth images are 16-bit PNG in units of 0.25 mm, in which 0 and 65535 denote missing depth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loco.datasets.archive import Archive
from loco.datasets.calibration import require_size
from loco.datasets.checklist import Checklist, few
from loco.datasets.files import RESTORE, parse_json
from loco.datasets.images import decode_color, decode_depth, depth_in_metres
from loco.datasets.layouts import CAMERAS, COLOR, DEPTH, REGIONS, unpacked
from loco.datasets.ply import read_ply
from loco.datasets.pose_files import is_camera, is_rigid, read_number
from loco.datasets.raw import Images, LabelledMesh, RawFrame, RawScene
from loco.datasets.segments import Objects, segment_numbers, segment_objects
from loco.errors import DataError
from loco.files import decode_text
from loco.geometry.mesh import Mesh

KINDS = (COLOR, DEPTH, CAMERAS, REGIONS)
DEPTH_UNITS_PER_METRE = 4000
# From the camera axes of the raw format (x right, y up, z backward) to OpenCV's (x right, y down, z forward).
FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])
_COLOR_NAME = re.compile(r"(?P<panorama>[0-9a-zA-Z]+)_i(?P<camera>[012])_(?P<yaw>[0-5])\.jpg")


@dataclass(frozen=True)
class Scan:
    """One ``scan`` line of the .conf, in the conventions of the file.

    Attributes:
        depth_name, color_name: file names of the images.
        intrinsics: (3, 3), pixels; image origin bottom-left, y up.
        pose: (4, 4), camera-to-world, metres; the camera looks along -z.
    """

    depth_name: str
    color_name: str
    intrinsics: NDArray[np.float64]
    pose: NDArray[np.float64]

    @property
    def name(self) -> str:
        return Path(self.color_name).stem

    @property
    def horizontal(self) -> bool:
        return _COLOR_NAME.fullmatch(self.color_name)["camera"] == "1"


class Matterport3DScene(RawScene):
    """A scene of Matterport3D (:class:`loco.datasets.raw.RawScene`)."""

    format = "matterport3d"
    opengl = True

    def __init__(self, raw: Path, scene: str) -> None:
        """Open a scene. Raise DataError if a file is missing or the .conf is broken."""
        super().__init__(raw, scene)
        self.archives = {kind: _archive(raw, scene, kind) for kind in KINDS}
        self.scans = _read_conf(self.archives[CAMERAS], scene)

    @classmethod
    def remedy_of(cls, scene: str) -> str:
        return _download(scene, " ".join(KINDS))

    @classmethod
    def inspect(cls, raw: Path, scene: str, found: Checklist) -> dict[str, Any]:
        return _inspect(raw, scene, found)

    @classmethod
    def inspect_labels(cls, raw: Path, scene: str, found: Checklist) -> dict[str, int]:
        archive = _archive(raw, scene, REGIONS)
        regions = [found.attempt(partial(_read_region, archive, name, scene)) for name in _regions(archive)]
        objects = [objects for _, objects in filter(None, regions)]
        for note in (note for of_region in objects for note in of_region.notes):
            found.note(note)
        return {"regions": len(regions), "objects": sum(len(of_region.labels) for of_region in objects)}

    def names(self, images: Images) -> list[str]:
        return [scan.name for scan in self.scans if images == "all" or scan.horizontal]

    def poses(self) -> NDArray[np.float64]:
        return np.array([scan.pose @ FLIP_YZ for scan in self.scans])

    def frames(self, names: Sequence[str]) -> Iterator[RawFrame]:
        scans = {scan.name: scan for scan in self.scans}
        for scan in (scans[name] for name in names):
            rgb = _read_color(self.archives[COLOR], self.scene, scan.color_name)
            depth = _read_depth(self.archives[DEPTH], self.scene, scan.depth_name)
            if rgb.shape[:2] != depth.shape:
                raise DataError(
                    f"colour and depth of {scan.color_name!r} differ in size",
                    file=self.archives[DEPTH].path,
                    scene=self.scene,
                    expected=f"{rgb.shape[:2]} (height, width), as the colour image",
                    found=depth.shape,
                    remedy="use two zip archives of the same download or export",
                )
            _require_size(scan, rgb.shape[:2], self.archives[CAMERAS].path, self.scene)
            intrinsics = scan.intrinsics.copy()
            intrinsics[1, 2] = rgb.shape[0] - intrinsics[1, 2]
            yield RawFrame(
                name=scan.name,
                rgb=rgb,
                depth=depth_in_metres(depth, DEPTH_UNITS_PER_METRE),
                intrinsics=intrinsics,
                pose=scan.pose @ FLIP_YZ,
            )

    def mesh(self) -> Mesh:
        """Return all regions as one mesh, in the order of their numbers."""
        archive = self.archives[REGIONS]
        return _joined([_region_mesh(archive, name, self.scene) for name in _regions(archive)])

    def labelled_mesh(self) -> LabelledMesh:
        """Return the triangles of :meth:`mesh`, in the same order, with the objects of all regions in one numbering."""
        archive = self.archives[REGIONS]
        regions = [_read_region(archive, name, self.scene) for name in _regions(archive)]
        labels: list[str] = []
        numbers = []
        for _, objects in regions:
            numbers.append(np.where(objects.object < 0, np.int32(-1), objects.object + np.int32(len(labels))))
            labels += objects.labels
        return LabelledMesh(_joined([mesh for mesh, _ in regions]), np.concatenate(numbers), labels)


def _archive(raw: Path, scene: str, kind: str) -> Archive:
    folder = raw / scene
    try:
        return Archive(folder / f"{kind}.zip", unpacked(folder, scene, kind), f"{scene}/{kind}/", scene)
    except FileNotFoundError:
        raise DataError(
            f"{kind}.zip is missing",
            file=folder / f"{kind}.zip",
            scene=scene,
            remedy=_download(scene, kind),
        ) from None


def _download(scene: str, kinds: str) -> str:
    return (
        f"sign the agreement at https://niessner.github.io/Matterport, run `download_mp.py -o <folder> --id {scene} "
        f"--type {kinds}`, and set `raw` to the folder that contains the scenes (<folder>/v1/scans)"
    )


def _read_conf(archive: Archive, scene: str) -> list[Scan]:
    """Read the scans of the .conf, in order."""
    name = f"{scene}/{CAMERAS}/{scene}.conf"
    scans: list[Scan] = []
    listed: set[str] = set()
    announced = intrinsics = None
    for number, line in enumerate(decode_text(archive.read(name)).splitlines(), start=1):
        keyword, *values = line.split() or [""]
        try:
            if keyword == "n_images":
                announced = int(values[0])
            elif keyword == "intrinsics_matrix":
                intrinsics = _numbers(values, (3, 3))
                if not is_camera(intrinsics):
                    raise ValueError("the matrix is not a camera matrix")
            elif keyword == "scan":
                scan = _scan(values, intrinsics)
                if scan.name in listed:
                    raise ValueError(f"{scan.color_name!r} is listed twice")
                listed.add(scan.name)
                scans.append(scan)
        except (ValueError, IndexError) as error:
            raise DataError(
                f"line {number} of {name!r} cannot be parsed: {error}",
                file=archive.path,
                scene=scene,
                expected="`intrinsics_matrix` with 9 numbers, or `scan <depth.png> <color.jpg>` with 16",
                found=line[:80],
                remedy=RESTORE,
            ) from error
    if not scans or announced not in (None, len(scans)):
        raise DataError(
            f"{name!r} does not list as many images as it states",
            file=archive.path,
            scene=scene,
            expected=f"{announced} images" if announced else "at least one image",
            found=f"{len(scans)} `scan` lines",
            remedy=RESTORE,
        )
    return scans


def _scan(values: list[str], intrinsics: NDArray | None) -> Scan:
    depth_name, color_name, *numbers = values
    if intrinsics is None:
        raise ValueError("a `scan` line precedes the first `intrinsics_matrix` line")
    if not _COLOR_NAME.fullmatch(color_name):
        raise ValueError(f"{color_name!r} is not named <panorama>_i<camera>_<yaw>.jpg")
    pose = _numbers(numbers, (4, 4))
    if not is_rigid(pose):
        raise ValueError("the pose is not a rigid transformation")
    return Scan(depth_name, color_name, intrinsics, pose)


def _numbers(values: list[str], shape: tuple[int, int]) -> NDArray[np.float64]:
    if len(values) != shape[0] * shape[1]:
        raise ValueError(f"{len(values)} numbers instead of {shape[0] * shape[1]}")
    numbers = np.array([read_number(value) for value in values]).reshape(shape)
    if not np.isfinite(numbers).all():
        raise ValueError("a number is not finite")
    return numbers


def _require_size(scan: Scan, size: tuple[int, int], file: Path, scene: str) -> None:
    """Refuse intrinsics for images of another size."""
    what, remedy = (
        f"the camera of {scan.color_name!r}",
        "use camera parameters and images of the same download or export",
    )
    require_size(scan.intrinsics, size, what, file=file, scene=scene, remedy=remedy)


def _read_color(archive: Archive, scene: str, name: str) -> NDArray[np.uint8]:
    data = archive.read(f"{scene}/{COLOR}/{name}")
    return decode_color(data, file=archive.path, scene=scene, name=name)


def _read_depth(archive: Archive, scene: str, name: str) -> NDArray[np.uint16]:
    data = archive.read(f"{scene}/{DEPTH}/{name}")
    return decode_depth(data, file=archive.path, scene=scene, name=name, remedy=RESTORE)


def _regions(archive: Archive) -> list[str]:
    """Return the region meshes in the archive, in the order of their numbers."""
    found = {}
    for name in archive.sizes:
        if match := re.search(r"(?:^|/)region(\d+)\.ply$", name):
            found[int(match[1])] = name
    if not found:
        raise DataError(
            "the archive contains no region mesh",
            file=archive.path,
            scene=archive.scene,
            expected="region0.ply, region1.ply, ...",
            found=f"other files: {few(sorted(archive.sizes))}" if archive.sizes else "no file",
            remedy=RESTORE,
        )
    return [found[number] for number in sorted(found)]


def _region_mesh(archive: Archive, name: str, scene: str) -> Mesh:
    return read_ply(archive.read(name), file=archive.path, scene=scene, name=name)


def _read_region(archive: Archive, name: str, scene: str) -> tuple[Mesh, Objects]:
    """Read a region's mesh, and the objects of its triangles."""
    mesh, stem = _region_mesh(archive, name, scene), name.removesuffix(".ply")
    of_segments, of_objects = f"{stem}.fsegs.json", f"{stem}.semseg.json"
    where: dict[str, Any] = {"file": archive.path, "scene": scene}
    values = _read_json(archive, of_segments, scene, "segIndices")
    segments = segment_numbers(values, len(mesh.triangles), name=of_segments, **where)
    groups = _read_json(archive, of_objects, scene, "segGroups")
    return mesh, segment_objects(segments, groups, name=of_objects, **where)


def _joined(meshes: Sequence[Mesh]) -> Mesh:
    """Concatenate meshes, in order."""
    first_vertex = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.triangles + np.uint32(first) for mesh, first in zip(meshes, first_vertex)]),
    )


def _read_json(archive: Archive, name: str, scene: str, key: str) -> list:
    try:
        return list(parse_json(archive.read(name))[key])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{name!r} is not JSON with the list {key!r}: {error}",
            file=archive.path,
            scene=scene,
            remedy=RESTORE,
        ) from error


# --- check -------------------------------------------------------------------------------------------------------


def _inspect(raw: Path, scene: str, found: Checklist) -> dict[str, int]:
    archives = {}
    for kind in KINDS:
        archive = found.attempt(partial(_archive, raw, scene, kind))
        if archive is not None:
            archives[kind] = archive
            for error in archive.broken_members():
                found.add_error(error)

    scans = found.attempt(lambda: _read_conf(archives[CAMERAS], scene)) if CAMERAS in archives else None
    sizes = []
    readers: list[tuple[str, Callable[[Archive, str, str], NDArray], list[str]]] = [
        (COLOR, _read_color, [scan.color_name for scan in scans or []]),
        (DEPTH, _read_depth, [scan.depth_name for scan in scans or []]),
    ]
    for kind, read, names in readers:
        if scans and kind in archives:
            _check_images(found, archives[kind], kind, names)
            present = [name for name in found.chosen(names) if f"{scene}/{kind}/{name}" in archives[kind]]
            images = [found.attempt(partial(read, archives[kind], scene, name)) for name in present]
            sizes += [image.shape[:2] for image in images if image is not None]
    if sizes:  # one image is enough, because all images of the dataset have the same size
        cameras = {scan.intrinsics.tobytes(): scan for scan in scans}
        for scan in cameras.values():
            found.attempt(partial(_require_size, scan, sizes[0], archives[CAMERAS].path, scene))

    regions = (found.attempt(lambda: _regions(archives[REGIONS])) or []) if REGIONS in archives else []
    for name in regions:
        found.attempt(partial(_region_mesh, archives[REGIONS], name, scene))
    panoramas = {_COLOR_NAME.fullmatch(scan.color_name)["panorama"] for scan in scans or []}
    return {
        "images": len(scans or []),
        "panoramas": len(panoramas),
        "regions": len(regions),
        "depth_scale": DEPTH_UNITS_PER_METRE,
    }


def _check_images(found: Checklist, archive: Archive, kind: str, names: list[str]) -> None:
    """Report images of the .conf that are missing or empty, and images that the .conf does not list."""
    members = {name: f"{found.scene}/{kind}/{name}" for name in names}
    missing = [name for name, member in members.items() if member not in archive]
    empty = [name for name, member in members.items() if archive.sizes.get(member) == 0]
    extra = sorted(set(archive.sizes) - set(members.values()))
    faults = (
        (missing, "images that the .conf lists are missing"),
        (empty, "images have 0 bytes"),
        (extra, "files are not listed in the .conf"),
    )
    for which, fault in faults:
        if which:
            found.add(
                f"{fault} ({len(which)}): {few(which)}",
                file=archive.path,
                remedy="use this archive and the camera parameters of the same download or export",
            )
