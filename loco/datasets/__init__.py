"""Raw datasets: read their layouts, check their files, state their frames and units.

A new dataset is one module with a class that follows :class:`loco.datasets.raw.RawScene`, and one line here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loco.datasets.matterport3d import Matterport3DScene
from loco.datasets.raw import Decode, RawScene

FORMATS: dict[str, type[RawScene]] = {"matterport3d": Matterport3DScene}


def raw_files(format: str, raw: Path, scene: str) -> list[Path]:
    """The files that a download of ``scene`` holds, present or not."""
    return FORMATS[format].files(raw, scene)


def check_scene(format: str, raw: Path, scene: str, decode: Decode) -> dict[str, Any]:
    """Check a scene's raw files and describe them.

    Args:
        format: a key of :data:`FORMATS`.
        raw: folder that holds the scenes.
        scene: name of the scene.
        decode: decode a sample of the images, or all of them.

    Returns:
        The manifest: ``format``, ``scene``, ``ok``, ``problems`` (one text each, with its remedy), ``files`` (name,
        bytes, sha256) and counts. Broken data are listed, not raised.
    """
    return FORMATS[format].check(raw, scene, decode)


def open_scene(format: str, raw: Path, scene: str) -> RawScene:
    """Open a scene for reading.

    Raises:
        DataError: its files are missing or broken.
    """
    return FORMATS[format](raw, scene)
