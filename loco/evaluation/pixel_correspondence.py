"""Pixel correspondences between posed images: Probe3D's protocol (El Banani et al. 2024, section 3.2 and appendix).

Every pixel of image A with known depth is matched to the pixel of image B with the most similar feature. The score of a
match is 1 - D1 / D2 (ratio test), where D1 and D2 are its cosine distances (1 - cosine similarity) to the nearest and
the second nearest pixel of B. The 1000 matches with the highest scores are kept. The error of a match is its distance
in B, in pixels, from the projection of the 3D point of A; recall is the fraction of matches with an error below a
threshold. Matching is one-directional. Points that are occluded in B or outside its borders are not filtered.

Features are extracted from the whole frames. Pixels are those of frames subsampled by ``step`` (every step-th row and
column). Probe3D has frames of 480 x 640 and a step of 4: it matches and measures errors at 120 x 160, so its "10 px"
are 40 pixels of the frame.

Pairs are listed by the dataset (ScanNet's 1,500), or drawn by overlap and rotation. The variants of LoCo's release can
be evaluated in addition, with one search per pair: other filters (:mod:`loco.evaluation.pixel_search`), and leaving out
the points that are not visible in B. The 3D errors of Probe3D's NAVI protocol can be evaluated as well: the distances
between the 3D points of the matched pixels of A and B.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import triu
from torch import Tensor
from tqdm import tqdm

from loco.errors import DataError
from loco.evaluation.image_pairs import bin_number, draw_from_bin, pairs_of_dataset
from loco.evaluation.intervals import Item
from loco.evaluation.observed_points import (
    OCCLUSION_TOLERANCE,
    is_visible,
    observed_depth,
    pixels_with_depth,
    reprojection_errors,
    shown_points,
)
from loco.evaluation.pixel_search import Extent, Neighbours, best_matches, nearest_pixels
from loco.evaluation.refinement import refined_offsets
from loco.evaluation.result import EvaluatedScene, Evaluation, Sample, append
from loco.evaluation.training_surfaces import SURFACES, Surfaces, training_surfaces
from loco.geometry.cameras import (
    backproject,
    pixel_centres,
    relative_rotation_angle,
    rotation_angle,
    scale_intrinsics,
)
from loco.geometry.image_pairs import mutual_overlap, overlapping_pairs
from loco.geometry.patches import patch_of
from loco.geometry.sampling import sample_features


@dataclass(frozen=True)
class Pair:
    """Two images of a scene.

    Attributes:
        scene: number of the scene.
        a: number of image A; of drawn pairs, A comes before B.
        b: number of image B.
        angle: rotation between them, degrees.
        overlap: fraction of each image that the other sees, averaged over both; None if the dataset lists the pair.
        bin: index of the rotation bin (:func:`loco.evaluation.image_pairs.bin_number`).
        pose_a_to_b: (4, 4), transform from camera A to camera B, metres, if the dataset lists the pair; None for drawn
            pairs, for which the poses of the frames determine it.
    """

    scene: int
    a: int
    b: int
    angle: float
    overlap: float | None
    bin: int
    pose_a_to_b: NDArray[np.float64] | None = field(default=None, compare=False)


class Variant(NamedTuple):
    """A selection of the scored matches.

    ``filter``, a name of ``pixel_search.FILTERS``; ``visible_only``, whether points that are not visible in B are left
    out; ``name``, the suffix of the metric names, empty for the first variant, the main one; ``surface``, the surfaces
    to which the points of A are restricted: those seen or unseen in training, or None for all.
    """

    filter: str
    visible_only: bool
    name: str
    surface: str | None = None


class Errors(NamedTuple):
    """Errors of a pair's matches: ``px`` (k,) in the image, pixels; ``m`` (k,) in 3D, metres. Infinite if undefined."""

    px: NDArray[np.float64]
    m: NDArray[np.float64]


def evaluate(scenes: Iterable[EvaluatedScene], settings: Mapping[str, Any], seed: int = 0) -> Evaluation:
    """Compute the recall of pixel correspondences, by the rotation between the cameras.

    Args:
        scenes: test scenes, all open at once (the pairs are spread over them), frames of one size. If the ground truth
            of a scene has ``pairs``, all of these are evaluated: names ``a`` and ``b``, and ``pose_a_to_b`` (4, 4), the
            transform from camera A to camera B, metres.
        settings: ``rotation_bins`` (edges, degrees), ``step`` (default 1), ``thresholds`` (pixels of the subsampled
            frames), ``matches`` to keep per pair. For drawn pairs: ``pairs_per_bin`` over all scenes, ``min_overlap``,
            ``min_baseline`` (metres). Optional: ``interpolate``, whether L2-normalised features (``normalised``, the
            default) or unnormalised ones (``raw``) are interpolated to pixels; ``candidates``, the pixels of B among
            which matches are searched, ``all`` (the default) or those of ``observed`` depth (Probe3D: ``raw`` and
            ``observed``); ``filters``, names of ``pixel_search.FILTERS`` (default ``[ratio]``); ``occlusions`` (default
            ``[false]``), where true leaves out, before the selection, the points that are not visible in B: those
            outside the image, and those whose depth differs by more than ``occlusion_tolerance`` (metres, default
            0.05); ``thresholds_m`` of 3D errors (metres, none by default); ``pooled`` (default false); ``refine`` and
            its keys, which move the matched position in B within its pixel (:mod:`loco.evaluation.refinement`, default
            ``none``); ``seen_by_training`` and its keys (:mod:`loco.evaluation.training_surfaces`, default ``ignore``).
        seed: seed of all draws.

    Returns:
        A row "recall@10px" for every threshold and bin ("30-60 deg"), and for "all" pairs: the mean over pairs of the
        recall of a pair; the value is None if there is no pair. Likewise "recall@2cm" for ``thresholds_m``, and, if
        ``pooled``, "recall@10px, pooled": pairs weighted by their number of matches, as in LoCo's release. These are
        for the first filter and the first of ``occlusions``; the others have separate rows ("recall@10px, similarity
        filter, visible only"). With ``seen_by_training: report``, the rows "recall@10px, seen surfaces" and "...,
        unseen surfaces" are computed from the points of A in such patches. The same fraction of these is kept as of all
        points of the pair, so that the selection is equally strict.

        Items: the pairs. A pair without matches (no matchable pixel with observed depth in A, or fewer than two
            candidates in B) has ``n_matches`` 0, None as recall and error, and is in no row. A pair without observed
            depth in B has None as 3D recalls. The median error is None if half of the matches or more are of points
            behind camera B.

    Raises:
        DataError: frames differ in size, so that pixel thresholds are not comparable; the frames lack an image
            of a listed pair; or a scene has neither listed pairs nor overlaps.
    """
    scenes = list(scenes)
    _require_one_size(scenes)
    edges = np.asarray(settings["rotation_bins"], dtype=np.float64)
    listed = [pair for number, scene in enumerate(scenes) for pair in listed_pairs(scene, number, edges)]
    names = [scene.frames.names for scene in scenes]
    items: dict[str, list[Any]] = {column: [] for column in _columns(settings)}
    progress = tqdm(scenes, desc="surfaces of the training scenes", unit="scene", delay=2)
    surfaces = [training_surfaces(scene, settings) for scene in progress]
    for pair in tqdm(listed + draw_pairs(scenes, settings, seed), desc="pixel correspondence", unit="pair"):
        scene = scenes[pair.scene]
        row = [scene.frames.scene, names[pair.scene][pair.a], names[pair.scene][pair.b], pair.angle, pair.overlap]
        rng = scene.rng(seed, pair.a, pair.b)
        for errors in _pair_errors(scene, pair, settings, rng, surfaces[pair.scene]):
            row += _summary(errors, settings)
        append(items, row)
    return Evaluation([sample.row() for sample in samples(items, settings)], items)


def variants(settings: Mapping[str, Any]) -> list[Variant]:
    """Return all combinations of ``filters``, ``occlusions`` and the surfaces to report; the main one first."""
    filters, occlusions = settings.get("filters", ["ratio"]), settings.get("occlusions", [False])
    surfaces = [None, *(SURFACES if settings.get("seen_by_training") == "report" else ())]
    found = []
    for filter, visible_only, surface in product(filters, occlusions, surfaces):
        name = f", {filter.replace('_', ' ')} filter" if filter != filters[0] else ""
        name += (", visible only" if visible_only else ", all points") if visible_only != occlusions[0] else ""
        name += f", {surface} surfaces" if surface else ""
        found.append(Variant(filter, visible_only, name, surface))
    return found


def listed_pairs(scene: EvaluatedScene, number: int, edges: NDArray[np.floating]) -> list[Pair]:
    """Return the pairs that the dataset of scene ``number`` lists, in its order; empty if it has no list.

    Raises:
        DataError: the frames lack an image that is listed.
    """
    listed = pairs_of_dataset(scene) or []
    angles = [float(rotation_angle(pose_a_to_b[:3, :3])) for *_, pose_a_to_b in listed]
    bins = bin_number(angles, edges).tolist()
    return [
        Pair(number, a, b, angle, None, of_bin, pose_a_to_b)
        for (a, b, pose_a_to_b), angle, of_bin in zip(listed, angles, bins)
    ]


def draw_pairs(scenes: Sequence[EvaluatedScene], settings: Mapping[str, Any], seed: int) -> list[Pair]:
    """Draw at most ``pairs_per_bin`` pairs per rotation bin, as evenly as possible from all scenes without a list.

    Images of a pair overlap by at least ``min_overlap`` and were taken at least ``min_baseline`` apart. Bins contain
    their lower edge; the last bin also contains its upper edge.

    Raises:
        DataError: a scene has neither a list nor overlaps.
    """
    edges = np.asarray(settings["rotation_bins"], dtype=np.float64)
    others = [s for s, scene in enumerate(scenes) if pairs_of_dataset(scene) is None]
    candidates = [_candidates(scenes[s], settings) for s in others]
    angles = [(scenes[s], angle) for s, (_, _, angle, _) in zip(others, candidates)]
    pairs = []
    for number in range(len(edges) - 1):
        for s, i in draw_from_bin(angles, edges, number, settings["pairs_per_bin"], seed):
            a, b, angle, overlap = (column[i].item() for column in candidates[s])
            pairs.append(Pair(others[s], a, b, angle, overlap, number))
    return sorted(pairs, key=lambda pair: (pair.bin, pair.scene, pair.a, pair.b))


def _candidates(scene: EvaluatedScene, settings: Mapping[str, Any]) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return pairs a < b (m,) each, the angles between them (m,) in degrees, and their mutual overlaps (m,)."""
    if scene.correspondences is None:
        raise DataError(
            "the scene has neither a list of image pairs nor overlaps from which to draw pairs",
            file=scene.frames.path,
            scene=scene.frames.scene,
            remedy="evaluate it on other benchmarks; this one requires posed images with depth or a list of pairs",
        )
    poses, overlap = scene.frames["pose"][:], scene.correspondences["overlap"][:]
    a, b = triu(overlapping_pairs(poses, overlap, settings["min_overlap"], settings["min_baseline"])).nonzero()
    return a, b, relative_rotation_angle(poses[a], poses[b]), mutual_overlap(overlap)[a, b]


def _pair_errors(
    scene: EvaluatedScene,
    pair: Pair,
    settings: Mapping[str, Any],
    rng: np.random.Generator,
    surfaces: Surfaces | None = None,
) -> Iterator[Errors]:
    """Yield the errors of the kept matches of a pair for each of :func:`variants`; ``surfaces`` are of the scene."""
    frames, step = scene.frames, settings.get("step", 1)
    depth_a, depth_b = (observed_depth(frames["depth"][i], frames["source"][i]) for i in (pair.a, pair.b))
    (uv_a, z_a), (uv_b, z_b) = (pixels_with_depth(depth, step) for depth in (depth_a, depth_b))
    candidates = z_b > 0 if settings.get("candidates", "all") == "observed" else np.ones(z_b.shape, bool)
    if not z_a.any() or candidates.sum() < 2:
        yield from (Errors(np.empty(0), np.empty(0)) for _ in variants(settings))
        return
    map_a, map_b = (_feature_map(scene, i, settings) for i in (pair.a, pair.b))
    extent = tuple(side / step for side in scene.features.extent)
    found = nearest_pixels(map_a, map_b, uv_a[z_a > 0], z_b.shape, rng, extent, candidates)
    whole = tuple(step * side for side in z_b.shape)
    k_a, k_b = (scale_intrinsics(frames["intrinsics"][i], whole, z_b.shape) for i in (pair.a, pair.b))
    pose_a, pose_b = _poses(scene, pair)
    points = backproject(uv_a[z_a > 0], z_a[z_a > 0], k_a, pose_a)
    shown = np.where(z_b[..., None] > 0, backproject(uv_b, z_b, k_b, pose_b), np.inf).reshape(-1, 3)
    tolerance = settings.get("occlusion_tolerance", OCCLUSION_TOLERANCE)
    visible = is_visible(points, depth_b, frames["intrinsics"][pair.b], pose_b, tolerance)
    refined = settings.get("refine", "none") != "none"
    of_surface = _points_on(surfaces, scene, pair.a, step * uv_a[z_a > 0])
    for variant in variants(settings):
        among = visible if variant.visible_only else np.ones(len(points), bool)
        selected = _select_matches(found, variant, settings["matches"], among, of_surface)
        own, places, there = (
            points[found.point[selected]],
            found.places[selected, 0],
            shown[found.pixel[selected, 0].numpy()],
        )
        if refined:
            queries = sample_features(map_a, torch.from_numpy(uv_a[z_a > 0][found.point[selected]]), extent)
            places = places + _offsets(queries, found.pixel[selected, 0].numpy(), map_b, extent, candidates, settings)
            there = shown_points(depth_b, step * places, frames["intrinsics"][pair.b], pose_b)
        in_space = np.linalg.norm(own - there, axis=1) if z_b.any() else np.empty(0)
        yield Errors(reprojection_errors(own, places, k_b, pose_b), in_space)


def _select_matches(
    found: Neighbours,
    variant: Variant,
    count: int,
    among: NDArray[np.bool_],
    surfaces: Mapping[str, NDArray[np.bool_]],
) -> NDArray[np.integer]:
    """Return the best matches of a variant, rows (k,) of ``found``.

    The ``count`` best matches of the points in the mask ``among`` (m,) are selected. For a variant with a surface,
    matches are selected from those of these points that are in the mask (m,) of the surface. The same fraction of them
    is selected as of all points, so k does not depend on the features.
    """
    if variant.surface is None:
        return best_matches(found, variant.filter, count, among)
    there = among & surfaces[variant.surface]
    fraction = min(1, count / max(1, among.sum()))
    return best_matches(found, variant.filter, ceil(fraction * there.sum()), there)


def _points_on(
    surfaces: Surfaces | None, scene: EvaluatedScene, image: int, uv: NDArray[np.floating]
) -> dict[str, NDArray[np.bool_]]:
    """Return the mask over positions (m, 2), frame pixels, of each surface; empty if the surfaces are unknown."""
    if surfaces is None:
        return {name: np.zeros(len(uv), bool) for name in SURFACES}
    patches = patch_of(uv, scene.correspondences.grid, scene.correspondences.extent)
    return {name: mask[image][patches] for name, mask in surfaces.items()}


def _offsets(
    queries: Tensor,
    pixels: NDArray[np.integer],
    map_b: Tensor,
    extent: Extent,
    candidates: NDArray[np.bool_],
    settings: Mapping[str, Any],
) -> NDArray[np.float64]:
    """Return the offsets (k, 2), pixels, from the centres of the pixels of B to which features (k, c) are matched."""
    centres = torch.from_numpy(pixel_centres(*candidates.shape).reshape(-1, 2))

    def features(numbers: NDArray[np.integer]) -> Tensor:
        return sample_features(map_b, centres[numbers], extent)

    return refined_offsets(queries, pixels, candidates.shape, features, settings, candidates)


def _feature_map(scene: EvaluatedScene, image: int, settings: Mapping[str, Any]) -> Tensor:
    """Return the feature map (h, w, c) of an image, L2-normalised unless `interpolate` is `raw`."""
    cells = torch.from_numpy(scene.features.map(image))
    if settings.get("interpolate", "normalised") == "normalised":
        return cells
    return cells.float() * torch.from_numpy(scene.features["norm"][image])[..., None]


def _poses(scene: EvaluatedScene, pair: Pair) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the camera-to-world poses (4, 4) of both images, metres; for listed pairs, the world frame is camera A."""
    if pair.pose_a_to_b is None:
        return scene.frames["pose"][pair.a], scene.frames["pose"][pair.b]
    return np.eye(4), np.linalg.inv(pair.pose_a_to_b)


def _summary(errors: Errors, settings: Mapping[str, Any]) -> list[float | None]:
    """Return the number of matches, the recall at each threshold and the median error in pixels; None if undefined."""
    thresholds = _thresholds(settings).values()
    if len(errors.px) == 0:
        return [0, *(None for _ in thresholds), None]
    evaluated = ((getattr(errors, unit), threshold) for unit, threshold in thresholds)
    recalls = [float(np.mean(found < threshold)) if len(found) else None for found, threshold in evaluated]
    median = float(np.median(errors.px))
    return [len(errors.px), *recalls, median if np.isfinite(median) else None]


def _columns(settings: Mapping[str, Any]) -> list[str]:
    """Return the column names of the items."""
    of_variant = ["n_matches", *_thresholds(settings), "median_error"]
    return ["scene", "a", "b", "angle", "overlap"] + [n + v.name for v, n in product(variants(settings), of_variant)]


def samples(items: Mapping[str, list[Any]], settings: Mapping[str, Any]) -> list[Sample]:
    """Return the recalls that each row of :func:`evaluate` averages, computed from the items of all pairs."""
    edges = settings["rotation_bins"]
    bins = bin_number(items["angle"], edges).tolist()
    conditions: dict[str, set[int]] = {f"{low:g}-{high:g} deg": {i} for i, (low, high) in enumerate(pairwise(edges))}
    conditions["all"] = set(bins)
    pairs = [Item(scene, (a, b)) for scene, a, b in zip(items["scene"], items["a"], items["b"])]
    found = []
    pooling = [False, True] if settings.get("pooled", False) else [False]
    for variant, pooled, metric in product(variants(settings), pooling, _thresholds(settings)):
        recalls, counts = items[metric + variant.name], items["n_matches" + variant.name]
        if variant.surface and not any(counts):
            continue  # the training scenes are unknown
        for condition, chosen in conditions.items():
            rows = [row for row in zip(pairs, recalls, counts, bins) if row[3] in chosen and row[1] is not None]
            found.append(
                Sample(
                    metric + variant.name + (", pooled" if pooled else ""),
                    condition,
                    keys=[key for key, *_ in rows],
                    values=[recall for _, recall, *_ in rows],
                    weights=[count for *_, count, _ in rows] if pooled else None,
                )
            )
    return found


def _thresholds(settings: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """Return the field of :class:`Errors` and the threshold of each metric."""
    in_pixels = {f"recall@{threshold:g}px": ("px", threshold) for threshold in settings["thresholds"]}
    in_space = {f"recall@{100 * threshold:g}cm": ("m", threshold) for threshold in settings.get("thresholds_m", [])}
    return in_pixels | in_space


def _require_one_size(scenes: Sequence[EvaluatedScene]) -> None:
    for scene in scenes[1:]:
        if scene.frames.size != scenes[0].frames.size:
            raise DataError(
                "the frames differ in size (height, width) from those of the other test scenes, so pixel thresholds "
                "are not comparable",
                file=scene.frames.path,
                scene=scene.frames.scene,
                expected=scenes[0].frames.size,
                found=scene.frames.size,
                remedy="set the same `frames.height` and `frames.width` for all datasets of the split",
            )
