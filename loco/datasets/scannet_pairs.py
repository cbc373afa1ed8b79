"""The 1,500 image pairs of ScanNet's test scans on which matching is evaluated.

SuperGlue (Sarlin et al., CVPR 2020) chose the pairs, LoFTR (Sun et al., CVPR 2021, ``assets/scannet_test_1500``)
published them as files, and Probe3D (El Banani et al., CVPR 2024) and LoCo use them. The folder contains

- ``test.npz``: ``name`` (n, 4), the numbers of room, scan, image a and image b; ``rel_pose`` (n, 12), the rows of a
  3 x 4 matrix;
- ``intrinsics.npz``: the 3 x 3 intrinsics of each scan;
- ``sceneXXXX_YY/`` with ``color/N.jpg`` and ``depth/N.png``.

``rel_pose`` maps points of camera a to camera b, x_b = R x_a + t: SuperGlue's list calls it T_AB, and LoFTR computes it
from ScanNet's camera-to-world poses as inv(P_b) P_a. The intrinsics are those of the depth images (480 x 640, units of
1 mm); colour images are registered to them after a resize to this size. Pixel centres are integers, as in all files of
ScanNet (:mod:`loco.datasets.scannet`), so half a pixel is added here.

The complete folder is one scene, :class:`ScanNetPairsScene`, so that the benchmark reads it like any other scene.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from loco.datasets.checklist import Checklist, few
from loco.datasets.files import read_bytes
from loco.datasets.images import LARGEST_FILE, decode_color, decode_depth, depth_in_metres
from loco.datasets.pose_files import centred, is_camera, is_rigid
from loco.datasets.raw import Images, RawFrame, RawScene
from loco.datasets.scannet import export_remedy, require_scan_size
from loco.errors import DataError

PAIRS, INTRINSICS = "test.npz", "intrinsics.npz"
PUBLISHED = 1500  # pairs
UNITS_PER_METRE = 1000
LARGEST_LIST = 1 << 26  # largest total size of the arrays, bytes; the published ones take 150 kB


@dataclass(frozen=True)
class TestPair:
    """Two images of one scan.

    Attributes:
        scene: the scan.
        names: names of both images, which are numbers.
        intrinsics: (3, 3), of the depth images, pixels.
        pose_a_to_b: (4, 4), maps points of camera a to camera b, metres.
        folder: folder of the scan.
    """

    scene: str
    names: tuple[str, str]
    intrinsics: NDArray[np.float64]
    pose_a_to_b: NDArray[np.float64]
    folder: Path

    @property
    def full_names(self) -> tuple[str, str]:
        """Names of both images that are unique among all scans: sceneXXXX_YY/N."""
        a, b = (f"{self.scene}/{name}" for name in self.names)
        return a, b

    def images(self) -> tuple[RawFrame, RawFrame]:
        """Read both images, with poses in the frame of camera a and colour resized to the size of depth.

        Raises:
            DataError: an image is missing or broken, or its size does not match its intrinsics.
        """
        a, b = self.names
        return self.image(a, np.eye(4)), self.image(b, np.linalg.inv(self.pose_a_to_b))

    def files(self) -> list[Path]:
        """Return the four image files."""
        of_scene = self.folder / self.scene
        return [of_scene / kind for n in self.names for kind in (f"color/{n}.jpg", f"depth/{n}.png")]

    def image(self, name: str, pose: NDArray[np.floating]) -> RawFrame:
        """Read one image by its name, and return it with the given ``pose`` (4, 4); see :meth:`images`."""
        of_scene = self.folder / self.scene
        depth = read_pair_depth(of_scene / "depth" / f"{name}.png", self.intrinsics, self.scene)
        color = read_pair_color(of_scene / "color" / f"{name}.jpg", self.scene)
        # Averaged over the area of each new pixel, to avoid aliasing of fine texture.
        rgb = cv2.resize(color, depth.shape[::-1], interpolation=cv2.INTER_AREA)
        return RawFrame(f"{self.scene}/{name}", rgb, depth, self.intrinsics, pose)


class ScanNetPairsScene(RawScene):
    """The folder of the pairs, with all scans in one scene (:class:`loco.datasets.raw.RawScene`).

    Its images share no world frame: the pose of each is the identity, and the relative poses are part of the pairs
    (:meth:`ground_truth`). Images are named sceneXXXX_YY/N and are in the order in which the pairs first list them. No
    image is "horizontal" by design, so ``names("horizontal")`` returns all.
    """

    format = "scannet_pairs"

    def __init__(self, raw: Path, scene: str) -> None:
        """Open the pairs. Raise DataError if a list is missing or broken."""
        super().__init__(raw, scene)
        self.pairs = read_pairs(self.folder)

    @classmethod
    def remedy_of(cls, scene: str) -> str:
        return _remedy("the images and lists")

    @classmethod
    def inspect(cls, raw: Path, scene: str, found: Checklist) -> dict[str, Any]:
        return _inspect(raw / scene, found)

    def names(self, images: Images) -> list[str]:
        return list(dict.fromkeys(name for pair in self.pairs for name in pair.full_names))

    def frames(self, names: Sequence[str]) -> Iterator[RawFrame]:
        holders = {full: (pair, name) for pair in self.pairs for full, name in zip(pair.full_names, pair.names)}
        for full in names:
            pair, name = holders[full]
            yield pair.image(name, np.eye(4))

    def ground_truth(self) -> dict[str, Any]:
        """Return ``pairs``, in the order of the list: names ``a`` and ``b``, and ``pose_a_to_b``, 4 x 4, metres."""
        pairs = ((*pair.full_names, pair.pose_a_to_b.tolist()) for pair in self.pairs)
        return {"pairs": [{"a": a, "b": b, "pose_a_to_b": pose} for a, b, pose in pairs]}


def read_pairs(folder: Path) -> list[TestPair]:
    """Return the pairs in the order of the list; no image is read.

    Raises:
        DataError: a list is missing or broken, a pose is invalid, or a scan has no intrinsics.
    """
    lists = _read_arrays(folder / PAIRS, ["name", "rel_pose"])
    names = _rows(lists, "name", 4, "iu", folder / PAIRS)
    relative = _rows(lists, "rel_pose", 12, "f", folder / PAIRS)
    if len(names) != len(relative):
        raise _list_error(
            "the arrays of the file differ in length", folder / PAIRS, f"{len(names)} poses", f"{len(relative)} poses"
        )
    intrinsics = {scene: _intrinsics(scene, k, folder) for scene, k in _read_arrays(folder / INTRINSICS).items()}
    return [_pair(folder, row, matrix, intrinsics) for row, matrix in zip(names.tolist(), relative)]


def _inspect(folder: Path, found: Checklist) -> dict[str, int]:
    """Check the lists, that all images exist, and that the chosen ones can be decoded."""
    pairs = found.attempt(lambda: read_pairs(folder)) or []
    files = {file: pair for pair in pairs for file in pair.files()}
    missing = [file for file in files if not os.path.lexists(file)]
    if missing:
        names = [str(file.relative_to(folder)) for file in missing]
        found.add(
            f"images are missing ({len(missing)} of {len(files)}): {few(names)}",
            file=folder,
            remedy=_remedy("scannet_test_1500.tar"),
        )
    present = sorted(files.keys() - set(missing))
    for file in tqdm(found.chosen(present), desc=folder.name, unit="image", mininterval=1.0):
        pair = files[file]
        if file.parent.name == "depth":
            found.attempt(partial(read_pair_depth, file, pair.intrinsics, pair.scene))
        else:
            found.attempt(partial(read_pair_color, file, pair.scene))
    if pairs and len(pairs) != PUBLISHED:
        found.note(f"there are {len(pairs)} pairs; published results are for {PUBLISHED}")
    scenes = len({pair.scene for pair in pairs})
    return {"images": len(present) // 2, "pairs": len(pairs), "scenes": scenes, "depth_scale": UNITS_PER_METRE}


def read_pair_color(file: Path, scene: str) -> NDArray[np.uint8]:
    """Read a colour image (H, W, 3), RGB, at its original size."""
    return decode_color(read_bytes(file, scene, limit=LARGEST_FILE), file=file, scene=scene)


def read_pair_depth(file: Path, intrinsics: NDArray, scene: str) -> NDArray[np.float32]:
    """Read a depth image (h, w) in metres, 0 = none."""
    numbers = decode_depth(
        read_bytes(file, scene, limit=LARGEST_FILE), file=file, scene=scene, remedy=export_remedy(scene)
    )
    require_scan_size("depth", numbers.shape, intrinsics, file, scene)
    return depth_in_metres(numbers, UNITS_PER_METRE)


def _pair(folder: Path, row: list[int], matrix: NDArray, intrinsics: Mapping[str, NDArray]) -> TestPair:
    room, scan, *images = row
    scene = f"scene{room:04d}_{scan:02d}"
    pose = np.vstack([matrix.reshape(3, 4), [0, 0, 0, 1]])
    if not is_rigid(pose):
        what = f"`rel_pose` of {scene}, images {images[0]} and {images[1]}, is not a rigid transformation"
        raise _list_error(what, folder / PAIRS, found=matrix.tolist())
    if scene not in intrinsics:
        raise _list_error(f"the file has no intrinsics of {scene}", folder / INTRINSICS)
    return TestPair(scene, (str(images[0]), str(images[1])), intrinsics[scene], pose, folder)


def _intrinsics(scene: str, k: NDArray, folder: Path) -> NDArray[np.float64]:
    if k.shape != (3, 3) or k.dtype.kind != "f" or not is_camera(k):
        found = k.tolist() if k.shape == (3, 3) else f"shape {k.shape}"
        expected = "a 3 x 3 matrix of floating-point numbers: fx 0 cx, 0 fy cy, 0 0 1"
        raise _list_error(f"the file contains invalid intrinsics of {scene}", folder / INTRINSICS, expected, found)
    return centred(k.astype(np.float64))


def _rows(arrays: Mapping[str, NDArray], name: str, width: int, kind: str, file: Path) -> NDArray:
    """Return the array ``name`` of numbers of ``kind`` (integers "iu", floats "f") as (n, width)."""
    array = arrays.get(name, np.empty(0))
    if array.dtype.kind not in kind or array.size == 0 or array.size != len(array) * width:
        expected = f"shape (n, {width}), {'integers' if kind == 'iu' else 'floating-point numbers'}"
        found = f"shape {array.shape}, {array.dtype}" if name in arrays else f"arrays {', '.join(arrays) or 'none'}"
        raise _list_error(f"the file has no valid array `{name}`", file, expected, found)
    return array.reshape(-1, width)


def _read_arrays(file: Path, names: Sequence[str] | None = None) -> dict[str, NDArray]:
    """Read the arrays of an .npz file that are in ``names``, or all arrays; refuse objects and implausible sizes."""
    content = BytesIO(read_bytes(file, file.parent.name, limit=LARGEST_LIST, missing=_remedy(file.name)))
    try:
        with zipfile.ZipFile(content) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > LARGEST_LIST:
            raise _list_error(
                "the file contains arrays that are too large", file, f"at most {LARGEST_LIST} bytes", f"{size} bytes"
            )
        content.seek(0)
        with np.load(content, allow_pickle=False) as arrays:
            wanted = arrays.files if names is None else [name for name in names if name in arrays.files]
            return {name: np.atleast_1d(arrays[name]) for name in wanted}
    except DataError:
        raise
    # The file is untrusted, and broken content raises errors of many kinds.
    except Exception as error:
        raise _list_error(f"the file cannot be read: {type(error).__name__}: {error}", file) from error


def _list_error(problem: str, file: Path, expected: object = None, found: object = None) -> DataError:
    return DataError(
        problem, file=file, scene=file.parent.name, expected=expected, found=found, remedy=_remedy(file.name)
    )


def _remedy(what: str) -> str:
    return (
        f"download {what} of ScanNet's test pairs as described in LoFTR's documentation (github.com/zju3dv/LoFTR, "
        "test.npz and "
        "intrinsics.npz are in its assets/scannet_test_1500), after agreeing to ScanNet's terms of use"
    )
