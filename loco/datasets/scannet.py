"""ScanNet in its raw download layout, or with its images exported.

``<raw>/<scan>/`` contains

- the images: ``<scan>.sens`` (:mod:`loco.datasets.sens`) or its export, either in the folder of the scan or in a
  subfolder. An export by ScanNet's ``SensReader/python/reader.py`` consists of ``color``, ``depth``, ``pose`` and
  ``intrinsic``; in ``scannet_frames_25k``, ``intrinsics_color.txt`` and ``intrinsics_depth.txt`` replace the latter;
- optionally the mesh ``<scan>_vh_clean_2.ply``;
- optionally its labels, ``<scan>.aggregation.json`` with ``<scan>_vh_clean_2.0.010000.segs.json``. The test scans have
  none. ``<scan>_vh_clean.aggregation.json`` belongs to another, finer mesh and is not read.

Conventions, from ``SensReader/c++/src/sensorData.h``: poses are those of the depth camera; the extrinsics of a camera
map its frame to a base frame that both cameras share; depth is in units of 1 / ``depth_shift`` metres (1 mm); pixel
``i`` has its centre at ``i``, so half a pixel is added to the principal points here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from loco.datasets.calibration import require_size
from loco.datasets.checklist import Checklist, few
from loco.datasets.files import LARGEST_JSON, RESTORE, parse_json, read_bytes, where_from
from loco.datasets.images import LARGEST_FILE, decode_color, decode_depth, depth_in_metres
from loco.datasets.layouts import AGGREGATION, EXPORTED, FLAT_INTRINSICS, MESH, SEGMENTS, exported_folder
from loco.datasets.ply import read_ply
from loco.datasets.pose_files import centred, is_camera, is_rigid, read_number, read_text
from loco.datasets.raw import Images, LabelledMesh, RawFrame, RawScene
from loco.datasets.segments import segment_numbers, segment_objects
from loco.datasets.sens import SensFile
from loco.errors import DataError
from loco.geometry.cameras import Camera
from loco.geometry.mesh import Mesh
from loco.geometry.origin import LARGEST_STEP, single_step

PUBLISHED = r"scene\d{4}_\d{2}"  # names of scans
MATRICES = ("intrinsic_color", "extrinsic_color", "intrinsic_depth", "extrinsic_depth")


class ScanNetScene(RawScene):
    """A scan of ScanNet (:class:`loco.datasets.raw.RawScene`).

    The camera is handheld, so no image is "horizontal" by design: ``names("horizontal")`` returns all. Images are named
    by their six-digit numbers. Images without a pose (infinite or NaN: tracking was lost) are in ``skipped``.
    """

    format = "scannet"

    def __init__(self, raw: Path, scene: str) -> None:
        """Open a scan. Raise DataError if the images are missing, or a file of their cameras is broken."""
        super().__init__(raw, scene)
        self.recording = _open_recording(self.folder, scene)
        faults = {name: _pose_fault(pose) for name, pose in zip(self.recording.names, self.recording.poses)}
        self._skipped = {name: fault for name, fault in faults.items() if fault}

    @classmethod
    def remedy_of(cls, scene: str) -> str:
        return _download(scene, ".sens")

    @classmethod
    def inspect(cls, raw: Path, scene: str, found: Checklist) -> dict[str, Any]:
        return _inspect(raw, scene, found)

    @classmethod
    def inspect_labels(cls, raw: Path, scene: str, found: Checklist) -> dict[str, int]:
        labelled = _read_labels(raw / scene, scene, found.notes)
        if labelled is None:
            found.add(
                "the scan has no labels",
                file=raw / scene,
                expected=f"{scene}{AGGREGATION} and {scene}{SEGMENTS} (the test scans have none)",
                remedy=f"{_download(scene, AGGREGATION)}, or remove the scan from the splits with labels",
            )
        return {"objects": len(labelled.labels) if labelled else 0}

    @property
    def skipped(self) -> Mapping[str, str]:
        return self._skipped

    def names(self, images: Images) -> list[str]:
        return [name for name in self.recording.names if name not in self._skipped]

    def poses(self) -> NDArray[np.float64]:
        usable = [name not in self._skipped for name in self.recording.names]
        return self.recording.poses[usable] @ self.recording.rig.color_in_depth

    def frames(self, names: Sequence[str]) -> Iterator[RawFrame]:
        numbers, rig = {name: k for k, name in enumerate(self.recording.names)}, self.recording.rig
        for name in names:
            k = numbers[name]
            pose = self.recording.poses[k]
            yield RawFrame(
                name=name,
                rgb=self.recording.color(k),
                depth=self.recording.depth(k),
                intrinsics=rig.color,
                pose=pose @ rig.color_in_depth,
                depth_camera=Camera(rig.depth, pose),
            )

    def mesh(self) -> Mesh | None:
        return _read_mesh(self.folder, self.scene)

    def labelled_mesh(self) -> LabelledMesh | None:
        """Return the mesh with its objects, numbered in the order of the file.

        A triangle is assigned to the object of the majority of its three vertices, by their segments; if these belong
        to three objects, to the object of its first vertex.
        """
        return _read_labels(self.folder, self.scene, notes=[])


# --- images ------------------------------------------------------------------------------------------------------


class Rig(NamedTuple):
    """Intrinsics (3, 3) of both cameras, pixels; pose (4, 4) of the colour camera in the frame of the depth camera."""

    color: NDArray[np.float64]
    depth: NDArray[np.float64]
    color_in_depth: NDArray[np.float64]


class _Sens:
    """The images of a .sens file: ``names``, ``poses`` (n, 4, 4) of the depth camera, ``rig``, and ``depth_scale``."""

    def __init__(self, path: Path, scene: str) -> None:
        self._file = SensFile(path, scene)
        header = self._file.header
        self.depth_scale = header.depth_shift
        self.names = [f"{k:06d}" for k in range(len(self._file))]
        self.poses = self._file.poses
        _require_precise(self.poses, path, scene)
        self.rig = _rig({name: getattr(header, name) for name in MATRICES}, path, scene)
        require_scan_size("color", header.color_size, self.rig.color, path, scene)
        require_scan_size("depth", header.depth_size, self.rig.depth, path, scene)

    def color(self, k: int) -> NDArray[np.uint8]:
        return self._file.color(k)

    def depth(self, k: int) -> NDArray[np.float32]:
        return depth_in_metres(self._file.depth(k), self.depth_scale)


class _Exported:
    """The images of exported folders, like :class:`_Sens`. All images must have the size of the first one read."""

    depth_scale = 1000.0  # the exporter writes the values of the .sens file, but not their unit

    def __init__(self, folder: Path, scene: str) -> None:
        self._folder, self._scene = folder, scene
        self._files = _exported_files(folder, scene)
        self._sizes: dict[str, tuple[int, int]] = {}
        self.names = [f"{number:06d}" for number in self._files["pose"]]
        self.poses = _read_poses(list(self._files["pose"].values()), scene)
        self.rig, self.flat = _exported_rig(folder, scene), _is_flat(folder)

    def color(self, k: int) -> NDArray[np.uint8]:
        return self._image("color", k, decode_color, self.rig.color)

    def depth(self, k: int) -> NDArray[np.float32]:
        decode = partial(decode_depth, remedy=export_remedy(self._scene))
        return depth_in_metres(self._image("depth", k, decode, self.rig.depth), self.depth_scale)

    def _image(self, kind: str, k: int, decode: Callable[..., NDArray], intrinsics: NDArray) -> NDArray:
        file = self._files[kind][int(self.names[k])]
        image = decode(read_bytes(file, self._scene, limit=LARGEST_FILE), file=file, scene=self._scene)
        height, width = image.shape[:2]
        size = self._sizes.setdefault(kind, (height, width))
        if image.shape[:2] != size:
            raise _export_error(
                f"the image differs in size from the other {kind} images", file, self._scene, size, image.shape[:2]
            )
        of_camera = self._folder / "intrinsic" / f"intrinsic_{kind}.txt"
        require_scan_size(kind, size, intrinsics, of_camera, self._scene)
        return image


def _open_recording(folder: Path, scene: str) -> _Sens | _Exported:
    sens = folder / f"{scene}.sens"
    if sens.is_file():
        return _Sens(sens, scene)
    if exported := exported_folder(folder):
        return _Exported(exported, scene)
    if folder.is_dir():
        os.listdir(folder)  # raises the error of the system if the folder cannot be read
    raise DataError(
        f"{sens.name} is missing",
        file=sens,
        scene=scene,
        expected="the file, or the folders color, depth, pose and intrinsic of its export",
        remedy=_download(scene, ".sens"),
    )


def _exported_files(folder: Path, scene: str) -> dict[str, dict[int, Path]]:
    """Return kind -> number -> file of the exported frames, sorted by number, with the same numbers in all kinds."""
    numbers: dict[str, dict[int, Path]] = {kind: {} for kind in EXPORTED}
    for kind, suffix in EXPORTED.items():
        for file in sorted((folder / kind).iterdir()) if (folder / kind).is_dir() else []:
            if match := re.fullmatch(rf"([0-9]{{1,9}}){re.escape(suffix)}", file.name):
                other = numbers[kind].setdefault(int(match[1]), file)
                if other != file:
                    what = f"two files have the number {int(match[1])}"
                    raise _export_error(what, folder / kind, scene, "each number once", f"{other.name}, {file.name}")
    every = set().union(*numbers.values())
    lacking = [f"{kind}/{n}{EXPORTED[kind]}" for kind in EXPORTED for n in sorted(every - numbers[kind].keys())]
    if lacking:
        raise _export_error(
            f"exported files are missing ({len(lacking)}): {few(lacking)}",
            folder,
            scene,
            "the same numbers in each folder",
            ", ".join(f"{len(found)} in {kind}" for kind, found in numbers.items()),
        )
    return {kind: {number: found[number] for number in sorted(every)} for kind, found in numbers.items()}


def _is_flat(folder: Path) -> bool:
    """Return whether the intrinsics are beside the folders of images, as in ``scannet_frames_25k``."""
    return not (folder / "intrinsic").is_dir() and any((folder / name).is_file() for name in FLAT_INTRINSICS)


def _exported_rig(folder: Path, scene: str) -> Rig:
    """Read the cameras of an export by ScanNet's ``reader.py`` or of ``scannet_frames_25k``.

    The latter lacks the extrinsics, so both cameras are assumed to have the same pose, as is the case in the exports of
    almost all scans.
    """
    if _is_flat(folder):
        files = dict(zip(("intrinsic_color", "intrinsic_depth"), (folder / name for name in FLAT_INTRINSICS)))
        matrices = {"extrinsic_color": np.eye(4), "extrinsic_depth": np.eye(4)}
        return _rig(matrices | {name: _read_matrix(file, scene) for name, file in files.items()}, folder, scene)
    files = {name: folder / "intrinsic" / f"{name}.txt" for name in MATRICES}
    return _rig({name: _read_matrix(file, scene) for name, file in files.items()}, folder / "intrinsic", scene)


def _read_poses(files: list[Path], scene: str) -> NDArray[np.float64]:
    """Read poses (n, 4, 4). If files do not contain a matrix, raise one DataError that lists them."""
    poses, broken = np.empty((len(files), 4, 4)), []
    for k, file in enumerate(files):
        try:
            poses[k] = _read_matrix(file, scene)
        except DataError as error:
            broken.append(f"{file.name} ({error.problem})")
    if broken:
        raise _export_error(
            f"pose files do not contain a matrix ({len(broken)}): {few(broken)}",
            files[0].parent,
            scene,
            "4 rows of 4 numbers",
        )
    return poses


def _read_matrix(file: Path, scene: str) -> NDArray[np.float64]:
    """Read a matrix (4, 4) from a text file; its numbers may be infinite or NaN."""
    try:
        rows = [
            [read_number(word) for word in line.split()] for line in read_text(file, scene).splitlines() if line.strip()
        ]
    except ValueError as error:
        raise _export_error(f"the file cannot be read: {error}", file, scene) from error
    if [len(row) for row in rows] != [4, 4, 4, 4]:
        raise _export_error(
            "the file does not contain a matrix",
            file,
            scene,
            "4 rows of 4 numbers",
            f"numbers per row: {[len(row) for row in rows]}",
        )
    return np.array(rows)


def _rig(matrices: Mapping[str, NDArray], file: Path, scene: str) -> Rig:
    """Return both cameras from the matrices (4, 4) of the files, named as in :data:`MATRICES`."""
    intrinsics = {}
    for kind in ("color", "depth"):
        k = matrices[f"intrinsic_{kind}"][:3, :3]
        if not is_camera(k):
            expected = "fx 0 cx, 0 fy cy, 0 0 1 in its first three rows and columns"
            raise _camera_error(f"intrinsic_{kind} is not a camera matrix", file, scene, expected, k.tolist())
        if not is_rigid(matrices[f"extrinsic_{kind}"]):
            expected, found = "a rotation and a translation in metres", matrices[f"extrinsic_{kind}"].tolist()
            raise _camera_error(f"extrinsic_{kind} is not a rigid transformation", file, scene, expected, found)
        intrinsics[kind] = centred(k)
    color_in_depth = np.linalg.inv(matrices["extrinsic_depth"]) @ matrices["extrinsic_color"]
    return Rig(intrinsics["color"], intrinsics["depth"], color_in_depth)


def require_scan_size(kind: str, size: tuple[int, int], intrinsics: NDArray, file: Path, scene: str) -> None:
    """Refuse the intrinsics of images of another size, for example if only the images were resized."""
    remedy = "export the images at their original size, or scale the intrinsics with them"
    require_size(intrinsics, size, f"intrinsic_{kind}", file=file, scene=scene, remedy=remedy)


def _require_precise(poses: NDArray, file: Path, scene: str) -> None:
    """Refuse poses of a .sens file if single precision rounds them too coarsely."""
    centres = poses[np.isfinite(poses).all(axis=(1, 2)), :3, 3]
    farthest = np.abs(np.median(centres, axis=0)).max() if len(centres) else 0.0
    if single_step(farthest) > LARGEST_STEP:
        raise DataError(
            f"the camera positions are {farthest:.0f} m from the origin, where single precision rounds them to "
            f"{single_step(farthest):g} m",
            file=file,
            scene=scene,
            expected=f"positions that are rounded to at most {LARGEST_STEP:g} m",
            remedy="subtract an origin near the scene before the recording is written, or export the images with "
            "poses in text files of full precision",
        )


def _pose_fault(pose: NDArray) -> str | None:
    if not np.isfinite(pose).all():
        return "pose lost"
    return None if is_rigid(pose) else "pose is not a rigid transformation"


# --- mesh and labels ---------------------------------------------------------------------------------------------


def _read_mesh(folder: Path, scene: str) -> Mesh | None:
    file = folder / f"{scene}{MESH}"
    return read_ply(read_bytes(file, scene), file=file, scene=scene) if os.path.lexists(file) else None


def _read_labels(folder: Path, scene: str, notes: list[str]) -> LabelledMesh | None:
    """Read the labelled mesh; None if both label files are missing. Notes on harmless peculiarities go to ``notes``."""
    files = {suffix: folder / f"{scene}{suffix}" for suffix in (AGGREGATION, SEGMENTS, MESH)}
    if not (os.path.lexists(files[AGGREGATION]) or os.path.lexists(files[SEGMENTS])):
        return None
    for suffix, file in files.items():
        if not os.path.lexists(file):
            raise DataError(
                f"{file.name} is missing, although other files of the labels exist",
                file=file,
                scene=scene,
                remedy=_download(scene, suffix),
            )
    mesh = _read_mesh(folder, scene)
    file = files[SEGMENTS]
    indices = _read_json(file, scene, "segIndices")["segIndices"]
    segments = segment_numbers(indices, len(mesh.vertices), file=file, scene=scene, name=file.name)
    file = files[AGGREGATION]
    objects = segment_objects(segments, _groups(file, scene), file=file, scene=scene, name=file.name)
    if objects.labels and (objects.object < 0).all():
        raise _json_error("none of the segments of the file belongs to the mesh", file, scene, "segments of this mesh")
    notes += objects.notes
    a, b, c = objects.object[mesh.triangles].T
    return LabelledMesh(mesh, np.where(b == c, b, a), objects.labels)


def _groups(file: Path, scene: str) -> list:
    """Return the objects of the file, after checking that it belongs to this scan and its mesh."""
    content = _read_json(file, scene, "segGroups")
    # Both names are written with the prefix `scannet.`.
    of_scan, of_segments = str(content.get("sceneId")), str(content.get("segmentsFile"))
    if of_scan.removeprefix("scannet.") != scene:
        raise _json_error("the file belongs to another scan", file, scene, scene, of_scan)
    if "_vh_clean" in of_segments and "_vh_clean_2" not in of_segments:
        raise _json_error(
            "the file refers to the segments of another mesh", file, scene, f"{scene}{SEGMENTS}", of_segments
        )
    return content["segGroups"]


def _read_json(file: Path, scene: str, key: str) -> dict[str, Any]:
    try:
        content = parse_json(read_bytes(file, scene, limit=LARGEST_JSON))
    except ValueError as error:
        raise _json_error(f"the file is not valid JSON: {error}", file, scene) from error
    if not (isinstance(content, dict) and isinstance(content.get(key), list)):
        raise _json_error(f"the file has no list {key!r}", file, scene)
    return content


# --- check -------------------------------------------------------------------------------------------------------


def _inspect(raw: Path, scene: str, found: Checklist) -> dict[str, Any]:
    scan = found.attempt(lambda: ScanNetScene(raw, scene))
    if scan is not None:
        usable = [k for k, name in enumerate(scan.recording.names) if name not in scan.skipped]
        for k in tqdm(found.chosen(usable), desc=scene, unit="image", mininterval=1.0):
            found.attempt(partial(scan.recording.color, k))
            found.attempt(partial(scan.recording.depth, k))
        if not usable:
            found.add(
                "no image has a pose",
                file=raw / scene,
                found=f"{len(scan.skipped)} images without a valid pose",
                remedy="write infinite or NaN poses for lost frames only, or remove the scan from the split",
            )
        if isinstance(scan.recording, _Exported) and scan.recording.flat:
            found.note("there are no extrinsics: the colour and the depth camera are assumed to have the same pose")
    mesh = found.attempt(lambda: _read_mesh(raw / scene, scene))
    if not os.path.lexists(raw / scene / f"{scene}{MESH}"):
        found.note(f"there is no {scene}{MESH}, from which holes of the depth could be filled")
    return {
        "images": len(scan.names("all")) if scan else 0,
        "lost_poses": len(scan.skipped) if scan else 0,
        "triangles": len(mesh.triangles) if mesh else 0,
        **({"depth_scale": scan.recording.depth_scale} if scan else {}),
    }


# --- errors ------------------------------------------------------------------------------------------------------


def _download(scene: str, kind: str) -> str:
    own = f"add {scene}{kind} or the folders of its export; `raw` must be the folder that contains the scans"
    download = (
        f"sign the terms of use (github.com/ScanNet/ScanNet), run `download-scannet.py -o <folder> --id {scene} "
        f"--type {kind}`, and set `raw` to the folder that contains the scans (<folder>/scans or <folder>/scans_test)"
    )
    return where_from(scene, PUBLISHED, download, own)


def export_remedy(scene: str) -> str:
    """Return the remedy for missing or broken files of an exported scan."""
    own = "write color/N.jpg, depth/N.png and pose/N.txt of each frame, and the intrinsics (docs/datasets.md)"
    download = (
        f"copy {scene}.sens to the folder of the scan, or export it again (ScanNet, SensReader/python): "
        f"`reader.py --filename {scene}.sens --output_path <folder> --export_depth_images --export_color_images "
        "--export_poses --export_intrinsics`"
    )
    return where_from(scene, PUBLISHED, download, own)


def _export_error(problem: str, file: Path, scene: str, expected: object = None, found: object = None) -> DataError:
    return DataError(problem, file=file, scene=scene, expected=expected, found=found, remedy=export_remedy(scene))


def _camera_error(problem: str, file: Path, scene: str, expected: str, found: object) -> DataError:
    return DataError(problem, file=file, scene=scene, expected=expected, found=found, remedy=RESTORE)


def _json_error(problem: str, file: Path, scene: str, expected: object = None, found: object = None) -> DataError:
    return DataError(problem, file=file, scene=scene, expected=expected, found=found, remedy=RESTORE)
