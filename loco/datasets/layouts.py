"""The input files of a scene in each raw layout.

A layout is a function of the scene's folder and name that returns a list of :class:`loco.datasets.identity.Source`. It
reads no image and raises nothing, and this module imports no heavy library, so that it can be used for planning. The
content of the files is documented in the reader of each format.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from loco.datasets.files import parse_json, read_bytes
from loco.datasets.identity import Source
from loco.errors import DataError
from loco.files import decode_text, is_data, open_regular

Layout = Callable[[Path, str], list[Source]]
PHOTOGRAPHS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # suffixes, in lower case
LARGEST_LIST = 1 << 26  # largest list of images, bytes


def fixed(needed: tuple[str, ...], *, images: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> Layout:
    """Return a layout of fixed names.

    Args:
        needed: required files and folders of text files.
        images: required folders of images.
        optional: files that may be missing.
    """

    def sources(folder: Path, scene: str) -> list[Source]:
        return [
            *(Source(folder / name, images=True) for name in images),
            *(Source(folder / name) for name in needed),
            *(Source(folder / name, needed=False) for name in optional),
        ]

    return sources


# --- Matterport3D ----------------------------------------------------------------------------------------------------

COLOR, DEPTH = "undistorted_color_images", "undistorted_depth_images"
CAMERAS, REGIONS = "undistorted_camera_parameters", "region_segmentations"


def matterport3d(folder: Path, scene: str) -> list[Source]:
    """Return the files of a scene. The region meshes fill holes of the depth, so frames depend on them."""
    return [
        _zip_or_folder(folder, scene, COLOR, images=True),
        _zip_or_folder(folder, scene, DEPTH, images=True),
        _zip_or_folder(folder, scene, CAMERAS),
        _zip_or_folder(folder, scene, REGIONS, (".ply",)),
    ]


def matterport3d_labels(folder: Path, scene: str) -> list[Source]:
    return [_zip_or_folder(folder, scene, REGIONS, (".json",))]


def unpacked(folder: Path, scene: str, kind: str) -> Path:
    """Return the folder that a zip of Matterport3D was unpacked to: beside the zip, or inside the scene's folder."""
    return next((found for found in (folder / kind, folder / scene / kind) if os.path.isdir(found)), folder / kind)


def _zip_or_folder(folder: Path, scene: str, kind: str, suffixes: tuple[str, ...] = (), images: bool = False) -> Source:
    packed, found = folder / f"{kind}.zip", unpacked(folder, scene, kind)
    if os.path.isdir(found) and not os.path.isfile(packed):
        return Source(found, suffixes, images)
    return Source(packed)


# --- ScanNet ---------------------------------------------------------------------------------------------------------

MESH, SEGMENTS, AGGREGATION = "_vh_clean_2.ply", "_vh_clean_2.0.010000.segs.json", ".aggregation.json"
FLAT_INTRINSICS = ("intrinsics_color.txt", "intrinsics_depth.txt")  # in scannet_frames_25k, beside the images
EXPORTED = {"color": ".jpg", "depth": ".png", "pose": ".txt"}


def scannet(folder: Path, scene: str) -> list[Source]:
    """Return the ``.sens`` file or its exported files, and the mesh, which fills holes of the depth."""
    sens, mesh = folder / f"{scene}.sens", Source(folder / f"{scene}{MESH}", needed=False)
    exported = exported_folder(folder)
    if exported is None or os.path.isfile(sens):
        return [Source(sens), mesh]
    kinds = [Source(exported / kind, (suffix,), images=kind != "pose") for kind, suffix in EXPORTED.items()]
    cameras = [exported / name for name in FLAT_INTRINSICS]
    if any(map(os.path.isfile, cameras)) and not os.path.isdir(exported / "intrinsic"):
        return [*kinds, *map(Source, cameras), mesh]
    return [*kinds, Source(exported / "intrinsic", (".txt",)), mesh]


def scannet_labels(folder: Path, scene: str) -> list[Source]:
    return [Source(folder / f"{scene}{suffix}") for suffix in (SEGMENTS, AGGREGATION)]


def exported_folder(folder: Path) -> Path | None:
    """Return the folder of an export: the scan's folder, or its first subfolder with a folder of images or poses."""
    candidates = [folder, *(folder / name for name in _folders(folder))]
    return next((found for found in candidates if any(os.path.isdir(found / kind) for kind in EXPORTED)), None)


def scannet_pairs(folder: Path, scene: str) -> list[Source]:
    scans = [name for name in _folders(folder) if name.startswith("scene")]
    kinds = [folder / name / kind for kind in ("color", "depth") for name in scans]
    images = [Source(path, images=True) for path in kinds if os.path.isdir(path)]
    return [Source(folder / "test.npz"), Source(folder / "intrinsics.npz"), *images]


# --- posed RGB-D images ----------------------------------------------------------------------------------------------


# Optional files that state the cameras and the depth scale of posed images.
CALIBRATION = ("K_depth.txt", "depth_to_color.txt", "depth_scale.txt", "distortion.txt", "distortion_depth.txt")


def seven_scenes(folder: Path, scene: str) -> list[Source]:
    names = sorted((name for name in _folders(folder) if name.startswith("seq-")), key=natural) or ["seq-01"]
    kinds = [((".png",), True), ((".txt",), False)]
    return [
        *(Source(folder / name, suffixes, images) for name in names for suffixes, images in kinds),
        *(Source(folder / name, needed=False) for name in ("K.txt", *CALIBRATION)),
    ]


def tum_rgbd(folder: Path, scene: str) -> list[Source]:
    """Return the list files and the folders of the listed images."""
    parents = {"rgb", "depth"}.union(*(_listed_folders(folder / name) for name in ("rgb.txt", "depth.txt")))
    return [
        *(Source(folder / name) for name in ("rgb.txt", "depth.txt", "groundtruth.txt")),
        *(Source(folder / name, images=True, needed=False) for name in _outermost(parents)),
        *(Source(folder / name, needed=False) for name in ("K.txt", *CALIBRATION)),
    ]


def _outermost(folders: set[str]) -> list[str]:
    """Return the folders that are not inside another one of ``folders``, sorted."""
    return [name for name in sorted(folders) if not any(str(p) in folders for p in PurePosixPath(name).parents)]


def _listed_folders(file: Path) -> set[str]:
    """Return the folders of the images in a list of TUM RGB-D; folders outside the scene are left to the reader."""
    try:
        text = decode_text(read_bytes(file, limit=LARGEST_LIST))
    except DataError:
        return set()
    lines = (line.split() for line in text.splitlines() if not line.lstrip().startswith("#"))
    paths = (PurePosixPath(words[1]) for words in lines if len(words) == 2 and "\0" not in words[1])
    inside = (path for path in paths if not path.is_absolute() and ".." not in path.parts)
    return {str(path.parent) for path in inside}


# --- nerfstudio ------------------------------------------------------------------------------------------------------

TRANSFORMS = "transforms.json"
LARGEST_TRANSFORMS = 1 << 26  # bytes; a frame takes about 600
# A check reads the file three times: for the images, the camera and the frames. The cache avoids parsing it each time.
parse_transforms = lru_cache(maxsize=1)(parse_json)


def nerfstudio(folder: Path, scene: str) -> list[Source]:
    """Return the file of poses and the folders of the images that it lists."""
    stated = (path for pair in paths_of_frames(folder / TRANSFORMS) for path in pair)
    paths = (PurePosixPath(path) for path in stated if isinstance(path, str) and "\0" not in path)
    listed = {str(path.parent) for path in paths if not path.is_absolute() and ".." not in path.parts}
    parents = {"images", "depth"} | listed
    return [
        Source(folder / TRANSFORMS),
        *(Source(folder / name, images=True, needed=False) for name in _outermost(parents)),
        Source(folder / "depth_scale.txt", needed=False),
    ]


def paths_of_frames(file: Path) -> list[tuple[Any, Any]]:
    """Return the stated paths of the colour and the depth image of each frame; none if the file is invalid."""
    try:
        frames = parse_transforms(read_bytes(file, limit=LARGEST_TRANSFORMS))["frames"]
        return [(frame.get("file_path"), frame.get("depth_file_path")) for frame in frames]
    except (DataError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return []


# --- COLMAP ----------------------------------------------------------------------------------------------------------

MODEL_NEEDED, MODEL_OPTIONAL = ("cameras", "images", "points3D"), ("rigs", "frames")
MODEL_KINDS = (".bin", ".txt")


def colmap(folder: Path, scene: str) -> list[Source]:
    return [Source(folder / "images", images=True), *map(Source, model_files(folder))]


def model_files(folder: Path) -> list[Path]:
    """Return the files of a scene's model, present or not.

    If there are several models, the one with the most images is chosen; if none is complete, the one with the most
    files.
    """
    sizes = model_sizes(folder)
    places = [max(sizes, key=lambda place: sizes[place])] if sizes else _model_places(folder)
    names = (*MODEL_NEEDED, *MODEL_OPTIONAL)
    kinds = [[place / f"{name}{kind}" for name in names] for place in places for kind in MODEL_KINDS]
    best = max(kinds, key=lambda files: sum(os.path.isfile(file) for file in files))
    return [file for file in best if file.stem in MODEL_NEEDED or os.path.isfile(file)]


def model_sizes(folder: Path) -> dict[Path, int]:
    """Return folder -> number of images of each complete model. A single model is not opened; its number is 0."""
    complete = {}
    for place in _model_places(folder):
        kinds = [kind for kind in MODEL_KINDS if all(os.path.isfile(place / f"{name}{kind}") for name in MODEL_NEEDED)]
        if kinds:
            complete[place] = place / f"images{kinds[0]}"
    return {place: _count_images(file) if len(complete) > 1 else 0 for place, file in complete.items()}


def _model_places(folder: Path) -> list[Path]:
    sparse = folder / "sparse"
    others = sorted((name for name in _folders(sparse) if name != "0"), key=natural)
    return [sparse / "0", sparse, *(sparse / name for name in others)]


def _count_images(file: Path) -> int:
    """Return the number of images that a file of a COLMAP model states; 0 if it cannot be read."""
    try:
        with open_regular(file) as opened:
            if file.suffix == ".bin":
                return int.from_bytes(opened.read(8), "little")
            lines = (line for line in opened if not line.startswith((b"#", codecs.BOM_UTF8 + b"#")))
            # The line after an image lists its points and may be empty.
            return sum(1 for line in lines if line.strip() and next(lines, b"") is not None)
    except (OSError, DataError):
        return 0


# --- photographs -----------------------------------------------------------------------------------------------------


def natural(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that compares numbers in names by value: 2 comes before 10."""
    parts = re.split(r"([0-9]+)", name)  # text, number, text, ...
    return [_number(part) if k % 2 else part for k, part in enumerate(parts)], name


def _number(digits: str) -> int:
    return int(digits[:1000])  # Python refuses to convert numbers of more than 4300 digits


def _folders(folder: Path) -> list[str]:
    """Return the names of the subfolders, sorted; none if the folder cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and is_data(entry.name))
    except OSError:
        return []
