"""Recognise scenes of the raw formats, photographs and videos by the names of their files. No image is decoded."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from loco.datasets import layouts
from loco.datasets.catalogue import FORMATS
from loco.errors import LocoError
from loco.files import is_data

PHOTOGRAPHS = "photographs"  # not a format: a model of the format `colmap` is reconstructed from them
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")  # in lower case
MAX_LISTED = 10_000  # largest number of entries of a folder that are read
DEEPEST = 2  # how many levels below the given folder the folder that contains the scenes may be
MIN_PHOTOGRAPHS = 3  # smallest number per scene, because a point is verified by a third image
_COLOR_FOLDERS = ("color", "rgb", "images")  # of recordings with depth images
_DEPTH_FOLDER = "depth"
_HEAD = 1 << 18  # bytes read of an image to find its size, which may follow a thumbnail and a colour profile

# What `loco init` recognises, and an example of each layout.
EXAMPLES = {
    "matterport3d": "DIR/<scene>/undistorted_color_images.zip, undistorted_depth_images.zip, ... (or unpacked)",
    "scannet": "DIR/<scan>/<scan>.sens, or its export DIR/<scan>/color/ depth/ pose/ intrinsic/",
    "seven_scenes": "DIR/<scene>/seq-01/frame-000000.color.png .depth.png .pose.txt",
    "tum_rgbd": "DIR/<sequence>/rgb.txt depth.txt groundtruth.txt rgb/ depth/",
    "posed_rgbd": "DIR/<recording>/color/ depth/ poses.txt K.txt",
    "nerfstudio": "DIR/<scene>/transforms.json, images/ depth/ (with depth_file_path)",
    "colmap": "DIR/<scene>/images/ sparse/0/cameras.bin images.bin points3D.bin",
    PHOTOGRAPHS: "DIR/<scene>/*.jpg",
}


class Recognised(NamedTuple):
    """Scenes of one format.

    Attributes:
        format: key of :data:`loco.datasets.catalogue.FORMATS`, or ``photographs``.
        raw: folder with one folder per scene.
        scenes: their names, sorted.
        others: names of the other folders in ``raw``, which are not scenes of this format.
    """

    format: str
    raw: Path
    scenes: list[str]
    others: list[str]


def recognise(folder: Path) -> Recognised | None:
    """Return the scenes of a folder, or None if there are none.

    The folder may be a scene, a folder in a scene, the folder that contains the scenes, or a parent of the latter up to
    two levels above it. Photographs are recognised only in the folder and directly in its subfolders. If there are
    scenes of several formats, the format with the most scenes is returned. A folder with depth images is never
    recognised as photographs.
    """
    if (format := _format(folder, folder.name)) is not None:
        return Recognised(format, folder.parent, [folder.name], [])
    for root in _roots(folder):
        names = _names(root)
        formats = {name: _format(root / name, name) for name in names}
        if found := [format for format in formats.values() if format]:
            format = max(EXAMPLES, key=found.count)
            return _recognised(format, root, names, [name for name in names if formats[name] == format])
    if (format := _format(folder.parent, folder.parent.name)) is not None:  # a folder in a scene
        return Recognised(format, folder.parent.parent, [folder.parent.name], [])
    if _has_depth(folder):
        return None
    names = _names(folder)
    if photographed := [name for name in names if _has_photographs(folder / name)]:
        return _recognised(PHOTOGRAPHS, folder, names, photographed)
    return Recognised(PHOTOGRAPHS, folder.parent, [folder.name], []) if _has_photographs(folder) else None


def find_videos(given: Path) -> list[Path]:
    """Return ``given`` if it is a video file, or the videos directly in it if it is a folder; empty if there are none.

    Videos are in natural order (2 before 10). A folder with recognised scenes or depth images has no videos.
    """
    if given.is_file():
        return [given] if given.suffix.lower() in VIDEO_SUFFIXES else []
    names = sorted((name for name in _files(given) if name.lower().endswith(VIDEO_SUFFIXES)), key=layouts.natural)
    return [given / name for name in names] if names and recognise(given) is None and not _has_depth(given) else []


def nearest_problem(folder: Path) -> str | None:
    """Describe the recording with depth images in a folder, and what it lacks for the format ``posed_rgbd``.

    Returns:
        Its folder and what it lacks, as text; None if there is no such recording.
    """
    candidates = (*_recordings_of(folder), *_roots(folder))
    recording = next(filter(_is_recording, candidates), None)
    if recording is None:
        return None
    found = next(name for name in _COLOR_FOLDERS if (recording / name).is_dir())
    missing = [name for name in ("poses.txt", "K.txt") if not (recording / name).is_file()]
    problems = [f"expects `color/`, found `{found}/`"] if found != "color" else []
    problems += [f"missing: {', '.join(missing)}"] if missing else []
    return f"{recording} (nearest: posed_rgbd, {'; '.join(problems)})"


def images_by_suffix(folder: Path) -> dict[Path, dict[str, int]]:
    """Return the number of images by suffix, supported or not, of a folder and of each of its subfolders."""
    from loco.datasets.images import unread_images

    counts = {}
    for path in (folder, *(folder / name for name in _names(folder))):
        files = _files(path)
        images = [file for file in files if file.lower().endswith(layouts.PHOTOGRAPHS)] + unread_images(files)
        if images:
            counts[path] = dict(sorted(Counter(Path(file).suffix.lower() for file in images).items()))
    return counts


def image_size(found: Recognised) -> tuple[int, int] | None:
    """Return (height, width) of the first image of the first scene, in pixels; None if it cannot be read."""
    from loco.datasets.images import stated_size
    from loco.datasets.sens import SensFile

    name = found.scenes[0]
    folder = found.raw / name
    try:
        if (sens := folder / f"{name}.sens").is_file():
            return SensFile(sens, name).header.color_size
        head = next(_heads(found.format, folder, name), None)
        return None if head is None else stated_size(head)
    except (OSError, LocoError, zipfile.BadZipFile):
        return None


def _recognised(format: str, root: Path, names: list[str], scenes: list[str]) -> Recognised:
    return Recognised(format, root, scenes, [name for name in names if name not in scenes])


def _roots(folder: Path) -> Iterator[Path]:
    """Yield the folder and those below it, level by level."""
    level = [folder]
    for _ in range(DEEPEST + 1):
        yield from level
        level = [below / name for below in level for name in _names(below)][:MAX_LISTED]


def _format(folder: Path, name: str) -> str | None:
    return next((format for format, sign in _SIGNS.items() if sign(folder, name)), None)


def _is_matterport3d(folder: Path, name: str) -> bool:
    return any(
        (folder / f"{kind}.zip").is_file() or layouts.unpacked(folder, name, kind).is_dir()
        for kind in (layouts.COLOR, layouts.DEPTH)
    )


def _is_scannet(folder: Path, name: str) -> bool:
    if (folder / f"{name}.sens").is_file():
        return True
    exported = layouts.exported_folder(folder)
    return exported is not None and all((exported / kind).is_dir() for kind in ("color", "pose"))


def _is_seven_scenes(folder: Path, name: str) -> bool:
    sequences = [folder / name for name in _names(folder) if name.startswith("seq-")]
    return any(file.endswith(".pose.txt") for sequence in sequences for file in _files(sequence))


def _is_tum_rgbd(folder: Path, name: str) -> bool:
    return all((folder / file).is_file() for file in ("rgb.txt", "depth.txt"))


def _is_posed_rgbd(folder: Path, name: str) -> bool:
    return (folder / "poses.txt").is_file() and all((folder / kind).is_dir() for kind in ("color", "depth"))


def _is_nerfstudio(folder: Path, name: str) -> bool:
    file = folder / layouts.TRANSFORMS
    return file.is_file() and any(depth is not None for _, depth in layouts.paths_of_frames(file))


def _is_colmap(folder: Path, name: str) -> bool:
    return (folder / "images").is_dir() and bool(layouts.model_sizes(folder))


_SIGNS: dict[str, Callable[[Path, str], bool]] = {
    "matterport3d": _is_matterport3d,
    "scannet": _is_scannet,
    "seven_scenes": _is_seven_scenes,
    "tum_rgbd": _is_tum_rgbd,
    "posed_rgbd": _is_posed_rgbd,
    "nerfstudio": _is_nerfstudio,
    "colmap": _is_colmap,
}


def _has_photographs(folder: Path) -> bool:
    found = (name for name in _files(folder) if name.lower().endswith(layouts.PHOTOGRAPHS))
    return not _is_recording(folder) and len(list(islice(found, MIN_PHOTOGRAPHS))) == MIN_PHOTOGRAPHS


def _has_depth(folder: Path) -> bool:
    """Return whether a folder is a recording with depth images, or the folder of its colour or depth images."""
    return any(map(_is_recording, _recordings_of(folder)))


def _recordings_of(folder: Path) -> list[Path]:
    """Return the folders that may be a recording: ``folder``, and its parent if ``folder`` may contain its images."""
    return [folder, *([folder.parent] if folder.name in (*_COLOR_FOLDERS, _DEPTH_FOLDER) else [])]


def _is_recording(folder: Path) -> bool:
    return (folder / _DEPTH_FOLDER).is_dir() and any((folder / name).is_dir() for name in _COLOR_FOLDERS)


def _heads(format: str, folder: Path, name: str) -> Iterator[bytes]:
    """Yield the first bytes of the images of a scene, colour images before those of folders and archives of depth."""
    if format == PHOTOGRAPHS:
        images = [folder]
    else:
        sources = FORMATS[format].sources(folder, name)
        images = [source.path for source in sources if source.images or source.path.suffix == ".zip"]
        images.sort(key=lambda path: "depth" in path.name)
    for path in images:
        if path.suffix == ".zip" and path.is_file():
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    if member.lower().endswith(layouts.PHOTOGRAPHS) and is_data(member):
                        with archive.open(member) as file:
                            yield file.read(_HEAD)
        for file_name in sorted(_files(path)):
            if file_name.lower().endswith(layouts.PHOTOGRAPHS):
                with open(path / file_name, "rb") as file:
                    yield file.read(_HEAD)


def _names(folder: Path) -> list[str]:
    """Return the names of the subfolders in natural order; none if the folder cannot be listed."""
    names = (entry.name for entry in _entries(folder) if entry.is_dir())
    return sorted(names, key=layouts.natural)


def _files(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if entry.is_file()]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in islice(entries, MAX_LISTED) if is_data(entry.name)]
    except OSError:
        return []
