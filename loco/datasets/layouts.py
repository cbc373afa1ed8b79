"""Which files a scene is made of, in every raw layout.

A layout is a function of the scene's folder and name that returns a list of :class:`loco.datasets.identity.Source`. It
reads no image and raises nothing, and this module imports no heavy library: a workflow is planned with it. What the
files hold is documented in the reader of each format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from loco.datasets.files import read_bytes
from loco.datasets.identity import Source
from loco.errors import DataError

Layout = Callable[[Path, str], list[Source]]
LARGEST_LIST = 1 << 26  # bytes of a list of images


def fixed(needed: tuple[str, ...], *, images: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> Layout:
    """Return a layout of fixed names.

    Args:
        needed: files, and folders of text files.
        images: folders of images, which are needed as well.
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
    """The mesh of the regions fills holes of the depth, so it is part of the frames; the labels beside it are not."""
    return [
        _zip_or_folder(folder, scene, COLOR, images=True),
        _zip_or_folder(folder, scene, DEPTH, images=True),
        _zip_or_folder(folder, scene, CAMERAS),
        _zip_or_folder(folder, scene, REGIONS, (".ply",)),
    ]


def matterport3d_labels(folder: Path, scene: str) -> list[Source]:
    return [_zip_or_folder(folder, scene, REGIONS, (".json",))]


def unpacked(folder: Path, scene: str, kind: str) -> Path:
    """The folder that a zip of Matterport3D was unpacked to: beside the zip, or inside the scene's own."""
    return next((found for found in (folder / kind, folder / scene / kind) if os.path.isdir(found)), folder / kind)


def _zip_or_folder(folder: Path, scene: str, kind: str, suffixes: tuple[str, ...] = (), images: bool = False) -> Source:
    packed, found = folder / f"{kind}.zip", unpacked(folder, scene, kind)
    if os.path.isdir(found) and not os.path.isfile(packed):
        return Source(found, suffixes, images)
    return Source(packed)


# --- ScanNet ---------------------------------------------------------------------------------------------------------

MESH, SEGMENTS, AGGREGATION = "_vh_clean_2.ply", "_vh_clean_2.0.010000.segs.json", ".aggregation.json"
EXPORTED = {"color": ".jpg", "depth": ".png", "pose": ".txt"}


def scannet(folder: Path, scene: str) -> list[Source]:
    """The ``.sens`` file, or else what it was exported to; and the mesh, which fills holes of the depth."""
    sens, mesh = folder / f"{scene}.sens", Source(folder / f"{scene}{MESH}", needed=False)
    exported = exported_folder(folder)
    if exported is None or os.path.isfile(sens):
        return [Source(sens), mesh]
    kinds = [Source(exported / kind, (suffix,), images=kind != "pose") for kind, suffix in EXPORTED.items()]
    return [*kinds, Source(exported / "intrinsic", (".txt",)), mesh]


def scannet_labels(folder: Path, scene: str) -> list[Source]:
    return [Source(folder / f"{scene}{suffix}") for suffix in (SEGMENTS, AGGREGATION)]


def exported_folder(folder: Path) -> Path | None:
    """The folder of an export: the scan's own, or the first one inside that holds a folder of images or poses."""
    candidates = [folder, *(folder / name for name in _folders(folder))]
    return next((found for found in candidates if any(os.path.isdir(found / kind) for kind in EXPORTED)), None)


def scannet_pairs(folder: Path, scene: str) -> list[Source]:
    scans = [name for name in _folders(folder) if name.startswith("scene")]
    kinds = [folder / name / kind for kind in ("color", "depth") for name in scans]
    images = [Source(path, images=True) for path in kinds if os.path.isdir(path)]
    return [Source(folder / "test.npz"), Source(folder / "intrinsics.npz"), *images]


# --- posed RGB-D images ----------------------------------------------------------------------------------------------


# What states the cameras and the depth of posed images, where it differs from the default.
CALIBRATION = ("K_depth.txt", "depth_to_color.txt", "depth_scale.txt", "distortion.txt", "distortion_depth.txt")


def seven_scenes(folder: Path, scene: str) -> list[Source]:
    names = sorted((name for name in _folders(folder) if name.startswith("seq-")), key=natural) or ["seq-01"]
    kinds = [((".png",), True), ((".txt",), False)]
    return [
        *(Source(folder / name, suffixes, images) for name in names for suffixes, images in kinds),
        *(Source(folder / name, needed=False) for name in ("K.txt", *CALIBRATION)),
    ]


def tum_rgbd(folder: Path, scene: str) -> list[Source]:
    """The lists, and the folders of the images that they name."""
    parents = {"rgb", "depth"}.union(*(_listed_folders(folder / name) for name in ("rgb.txt", "depth.txt")))
    # A folder inside of another one is part of it.
    outermost = [name for name in sorted(parents) if not any(str(p) in parents for p in PurePosixPath(name).parents)]
    return [
        *(Source(folder / name) for name in ("rgb.txt", "depth.txt", "groundtruth.txt")),
        *(Source(folder / name, images=True, needed=False) for name in outermost),
        *(Source(folder / name, needed=False) for name in ("K.txt", *CALIBRATION)),
    ]


def _listed_folders(file: Path) -> set[str]:
    """Folders of the images that a list of TUM RGB-D names; those outside of the scene are refused by the reader."""
    try:
        text = read_bytes(file, limit=LARGEST_LIST).decode("utf-8", errors="replace")
    except DataError:
        return set()
    lines = (line.split() for line in text.splitlines() if not line.lstrip().startswith("#"))
    paths = (PurePosixPath(words[1]) for words in lines if len(words) == 2 and "\0" not in words[1])
    inside = (path for path in paths if not path.is_absolute() and ".." not in path.parts)
    return {str(path.parent) for path in inside}


# --- COLMAP ----------------------------------------------------------------------------------------------------------

MODEL_NEEDED, MODEL_OPTIONAL = ("cameras", "images", "points3D"), ("rigs", "frames")


def colmap(folder: Path, scene: str) -> list[Source]:
    return [Source(folder / "images", images=True), *map(Source, model_files(folder))]


def model_files(folder: Path) -> list[Path]:
    """The files of a scene's model, present or not: of the paths and file types, those of which most are there."""
    places = [folder / "sparse" / "0", folder / "sparse"]
    names = (*MODEL_NEEDED, *MODEL_OPTIONAL)
    kinds = [[place / f"{name}{kind}" for name in names] for place in places for kind in (".bin", ".txt")]
    best = max(kinds, key=lambda files: sum(os.path.isfile(file) for file in files))
    return [file for file in best if file.stem in MODEL_NEEDED or os.path.isfile(file)]


# --- photographs -----------------------------------------------------------------------------------------------------


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort key of names by the numbers in them: 2 comes before 10."""
    parts = re.split(r"([0-9]+)", name)  # text, number, text, ...
    return [_number(part) if k % 2 else part for k, part in enumerate(parts)], name


def _number(digits: str) -> int:
    return int(digits[:1000])  # Python refuses to convert numbers of more than 4300 digits


def _folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []
