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
    "scannet_pairs": ("scannet_pairs", "ScanNetPairsScene"),
    "hpatches": ("hpatches", "HPatchesScene"),
    "baidu": ("anyloc", "BaiduScene"),
    "gardens": ("anyloc", "GardensScene"),
    "seventeen_places": ("anyloc", "SeventeenPlacesScene"),
    "geotagged": ("anyloc", "GeotaggedScene"),
    "oxford_robotcar": ("anyloc", "OxfordRobotCarScene"),
    "hawkins": ("anyloc", "HawkinsScene"),
    "laurel_caverns": ("anyloc", "LaurelCavernsScene"),
    "mid_atlantic_ridge": ("anyloc", "MidAtlanticRidgeScene"),
    "nardo_air": ("anyloc", "NardoAirScene"),
    "vp_air": ("anyloc", "VPAirScene"),
}
# What a benchmark can judge features by: `places` (3D points of patches, in one frame for the whole scene), `depth`,
# `pairs` of images with the pose between them, `homographies`, `positives` (photographs of one place).
# A format that is not named here gives places and depth; a `labels` block of the configuration adds `labels`.
GIVES = {
    "colmap": {"places"},
    "scannet_pairs": {"depth", "pairs"},
    "hpatches": {"homographies"},
    **{format: {"positives"} for format, (module, _) in FORMATS.items() if module == "anyloc"},
}


def gives(format: str) -> frozenset[str]:
    """What scenes of a format can judge features by (:data:`GIVES`)."""
    return frozenset(GIVES.get(format, {"places", "depth"}))


def is_photographs(format: str) -> bool:
    """Whether its images come without depth and without poses: what matches what is in files of the dataset."""
    return not gives(format) & {"places", "depth"}


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
