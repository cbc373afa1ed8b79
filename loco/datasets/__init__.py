"""Raw datasets: read their layouts, check their files, state their frames and units.

A new dataset is one module with a class that follows :class:`loco.datasets.raw.RawScene`, and one line here.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from loco.datasets.raw import Decode, RawScene

# format -> module of this package, class in it. Imported when used: a step runs again when its own reader changes,
# not when another does.
FORMATS = {
    "matterport3d": ("matterport3d", "Matterport3DScene"),
    "scannet": ("scannet", "ScanNetScene"),
    "seven_scenes": ("seven_scenes", "SevenScenesScene"),
    "tum_rgbd": ("tum_rgbd", "TumRgbdScene"),
    "posed_rgbd": ("posed_rgbd", "PosedRgbdScene"),
    "colmap": ("colmap", "ColmapScene"),
}


def raw_files(format: str, raw: Path, scene: str) -> list[Path]:
    """The files that a download of ``scene`` holds, present or not."""
    return _reader(format).files(raw, scene)


def check_scene(format: str, raw: Path, scene: str, decode: Decode) -> dict[str, Any]:
    """Check a scene's raw files and describe them.

    Args:
        format: a key of :data:`FORMATS`.
        raw: folder that holds the scenes.
        scene: name of the scene.
        decode: decode a sample of the images, or all of them.

    Returns:
        The manifest: ``format``, ``scene``, ``ok``, ``problems`` (one text each, with its remedy), ``files`` (name,
        bytes, sha256), ``images`` (how many can be used) and further counts. Broken data are listed, not raised.
    """
    return _reader(format).check(raw, scene, decode)


def open_scene(format: str, raw: Path, scene: str) -> RawScene:
    """Open a scene for reading.

    Raises:
        DataError: its files are missing or broken.
    """
    return _reader(format)(raw, scene)


def _reader(format: str) -> type[RawScene]:
    module, name = FORMATS[format]
    return getattr(import_module(f"{__name__}.{module}"), name)
