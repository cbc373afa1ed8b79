"""The registry of raw formats: the reader, the input files of a scene and the ground truth of each format.

This module imports no reader and no heavy library. A reader is imported when it is used, so a step depends only on the
code of its own reader.
"""

from __future__ import annotations

from dataclasses import dataclass

from loco.datasets import layouts
from loco.datasets.layouts import Layout


@dataclass(frozen=True)
class Format:
    """One raw format.

    Attributes:
        module: module of this package with the reader.
        class_name: name of the reader, a subclass of :class:`loco.datasets.raw.RawScene`.
        sources: returns the input files of a scene's frames, from the scene's folder and name.
        provides: ground truth for evaluation: ``places`` (3D points of patches, in one frame for the whole scene),
            ``depth``, ``pairs`` of images with their relative pose, ``homographies``, ``positives`` (photographs of the
            same place). A ``labels`` block of the configuration adds ``labels``.
        labels: as ``sources``, returns the additional input files of labels; None if the format has no labels.
        conventions: keys of a dataset's configuration that are passed to its reader.
    """

    module: str
    class_name: str
    sources: Layout
    provides: frozenset[str] = frozenset({"places", "depth"})
    labels: Layout | None = None
    conventions: tuple[str, ...] = ()


def _anyloc(class_name: str, sources: Layout) -> Format:
    return Format("anyloc", class_name, sources, frozenset({"positives"}))


_DEPTH_SCALE = ("depth_scale",)

FORMATS = {
    "matterport3d": Format(
        "matterport3d", "Matterport3DScene", layouts.matterport3d, labels=layouts.matterport3d_labels
    ),
    "scannet": Format("scannet", "ScanNetScene", layouts.scannet, labels=layouts.scannet_labels),
    "seven_scenes": Format("seven_scenes", "SevenScenesScene", layouts.seven_scenes, conventions=_DEPTH_SCALE),
    "tum_rgbd": Format("tum_rgbd", "TumRgbdScene", layouts.tum_rgbd, conventions=_DEPTH_SCALE),
    "posed_rgbd": Format(
        "posed_rgbd",
        "PosedRgbdScene",
        layouts.fixed(
            ("poses.txt", "K.txt"),
            images=("color", "depth"),
            optional=(*layouts.CALIBRATION, "mesh.ply"),
        ),
        conventions=_DEPTH_SCALE,
    ),
    "nerfstudio": Format("nerfstudio", "NerfstudioScene", layouts.nerfstudio, conventions=_DEPTH_SCALE),
    "colmap": Format("colmap", "ColmapScene", layouts.colmap, frozenset({"places"})),
    "scannet_pairs": Format("scannet_pairs", "ScanNetPairsScene", layouts.scannet_pairs, frozenset({"depth", "pairs"})),
    "hpatches": Format(
        "hpatches",
        "HPatchesScene",
        layouts.fixed((*(f"{k}.ppm" for k in range(1, 7)), *(f"H_1_{k}" for k in range(2, 7)))),
        frozenset({"homographies"}),
    ),
    "baidu": _anyloc(
        "BaiduScene",
        layouts.fixed(("training_gt", "query_gt"), images=("training_images_undistort", "query_images_undistort")),
    ),
    "gardens": _anyloc("GardensScene", layouts.fixed(("gardens_gt.npy",), images=("day_right", "night_right"))),
    "seventeen_places": _anyloc(
        "SeventeenPlacesScene",
        layouts.fixed((), images=("ref", "query"), optional=("ground_truth_new.npy", "better_ground_truth.npy")),
    ),
    "geotagged": _anyloc("GeotaggedScene", layouts.fixed((), images=("images/test/database", "images/test/queries"))),
    "oxford_robotcar": _anyloc("OxfordRobotCarScene", layouts.fixed(("oxdatapart.mat",), images=("oxDataPart",))),
    "hawkins": _anyloc("HawkinsScene", layouts.fixed(("pose_topic_list.npy",), images=("db_images", "q_images"))),
    "laurel_caverns": _anyloc(
        "LaurelCavernsScene", layouts.fixed(("pose_topic_list.npy",), images=("db_images", "q_images"))
    ),
    "mid_atlantic_ridge": _anyloc(
        "MidAtlanticRidgeScene", layouts.fixed(("eiffel_gt.npy",), images=("db_images", "q_images"))
    ),
    "nardo_air": _anyloc(
        "NardoAirScene", layouts.fixed(("gt_matches.csv",), images=("reference_images", "query_images"))
    ),
    "vp_air": _anyloc(
        "VPAirScene", layouts.fixed(("vpair_gt.npy",), images=("reference_views", "distractors", "queries"))
    ),
}
