"""Simulated scenes: furnished houses, photographed, and written in the raw layouts of real datasets.

The order of the modules: ``shapes`` and ``materials`` make ``furniture`` and ``structure``; a ``plan`` is built and
furnished (``furnish``) as a ``house``, lit (``lighting``), and looked at (``render``) from ``panoramas`` or by a
``handheld`` camera; ``sensor`` spoils the views as a real scanner does; a writer (``raw_...``) puts them into a
dataset's layout. Only the writer knows the layout, so another one goes beside it, and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

# format -> module of this package with a function simulate_<format>; imported when used, as the readers are.
SIMULATORS = {
    "matterport3d": "raw_matterport3d",
    "scannet": "raw_scannet",
    "seven_scenes": "raw_posed_rgbd",
    "tum_rgbd": "raw_posed_rgbd",
    "posed_rgbd": "raw_posed_rgbd",
    "colmap": "raw_colmap",
    "hpatches": "raw_hpatches",
}


def simulate_scene(format: str, directory: Path, scene: str, settings: Mapping[str, Any]) -> None:
    """Build a house, photograph it, and write it as a raw scene.

    Args:
        format: raw layout, a key of :data:`SIMULATORS`.
        directory: where the files go; made if missing. Each appears whole or not at all.
        scene: its name; with the seed it decides everything in it.
        settings: ``datasets.<name>.simulate`` of the configuration.
    """
    module = import_module(f"{__name__}.{SIMULATORS[format]}")
    getattr(module, f"simulate_{format}")(Path(directory), scene, settings)
