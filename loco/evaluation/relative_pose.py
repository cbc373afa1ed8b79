"""Relative pose of two images from matches of their features.

The patches of both images are matched. Matches are mutual nearest neighbours by cosine similarity, of which those with
the best scores in the ratio test (as in :mod:`loco.evaluation.pixel_correspondence`) are kept. The position of a patch
is its centre; with ``refine``, the position in B moves to the peak of the similarities around it
(:mod:`loco.evaluation.refinement`). Keypoint extractors have their own positions, and also apply Lowe's ratio test
(:mod:`loco.evaluation.sift_keypoints`).

Two methods robustly estimate the motion from camera A to camera B. ``rigid`` lifts both positions to 3D, where depth
was observed, and aligns them (:mod:`loco.geometry.alignment`). ``essential`` needs no depth and yields no scale: an
essential matrix (Nister 2004) by OpenCV's USAC (Raguram et al. 2013), with MAGSAC's score (Barath et al. 2020).

Matches are weighted equally unless ``weights`` is ``similarity``, their cosine, or ``ratio``, the score of the ratio
test. *rigid* samples by weight and fits by weighted least squares; *essential* samples matches of greater weight first
(PROSAC, Chum and Matas 2005).

As in SuperGlue (Sarlin et al. 2020), the error of a pair is the larger of the angular errors of rotation and
translation direction, ignoring the sign of the translation of an essential matrix. AUC@t is the area under the curve of
recall over error from 0 to t, divided by t. It is computed exactly, as the mean of max(0, 1 - error / t); the published
code interpolates the steps of the curve linearly, which adds up to 1 / (2 n) for n pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import triu
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from loco.evaluation.camera_motion import Motion, essential_motion, rigid_motion
from loco.evaluation.defaults import SEEN_WITHIN
from loco.evaluation.image_pairs import bin_number, draw_from_bin, pairs_of_dataset
from loco.evaluation.intervals import Item
from loco.evaluation.neighbours import mutual_neighbours
from loco.evaluation.observed_points import observed_depth
from loco.evaluation.pixel_search import RESOLUTION
from loco.evaluation.refinement import refined_offsets
from loco.evaluation.result import EvaluatedScene, Evaluation, Sample, append
from loco.evaluation.sift_keypoints import MAX_KEYPOINTS, RATIO, detect, min_score
from loco.evaluation.training_surfaces import SURFACES, mostly, pair_fractions, training_surfaces
from loco.geometry.cameras import backproject, rotation_angle
from loco.geometry.image_pairs import mutual_overlap, overlapping_pairs
from loco.geometry.patches import patch_centres, sample_depth

METHODS = ("rigid", "essential")
WEIGHTS = ("none", "similarity", "ratio")
BLOCK = 1024  # patches compared with all others at a time
NO_BASELINE = 1e-6  # metres: images from one position, up to rounding


@dataclass(frozen=True)
class Pair:
    """Two images of a scene.

    Attributes:
        scene: number of the scene.
        a: number of image A.
        b: number of image B.
        a_to_b: (4, 4), true transform from camera A to camera B, metres.
        overlap: fraction of each image that the other sees, averaged over both; None for pairs that a dataset lists.
    """

    scene: int
    a: int
    b: int
    a_to_b: NDArray[np.float64]
    overlap: float | None


def evaluate(scenes: Iterable[EvaluatedScene], settings: Mapping[str, Any], seed: int = 0) -> Evaluation:
    """Compute the errors of relative poses, by the overlap of the images.

    Args:
        scenes: test scenes, all open at once (the pairs are spread over them).
        settings: ``overlap_bins`` (edges, fractions), ``pairs_per_bin`` over all scenes, ``min_baseline`` (metres);
            ``rotation_bins`` (edges, degrees) of pairs that a dataset lists, which are all evaluated (no bins by
            default); ``methods`` (of :data:`METHODS`), ``matches`` to keep per pair, ``iterations`` of the robust
            estimation, ``inlier_distance`` (metres, rigid), ``inlier_pixels`` (essential), ``auc`` (degrees);
            ``weights`` of matches (of :data:`WEIGHTS`) and ``refine`` with its keys, default ``none``;
            ``seen_by_training`` and its keys (:mod:`loco.evaluation.training_surfaces`).
        seed: seed of all draws.

    Returns:
        For every method, and for the pairs of every bin, "all" pairs and, with ``seen_by_training: report``, the pairs
        whose common surface is "mostly seen" or "mostly unseen" in training (more than half of it): the median
        "rotation error" (deg) with the median "translation error" (m; rigid) or "direction error" (deg; essential), and
        "AUC@5deg" for every threshold; each with the name of the method. Items: one per pair and method. A pair without
        an estimate (fewer than three matches with depth for ``rigid``, fewer than five for ``essential``, or too few
        inliers) has None as errors, which count as infinite; the value of an infinite median is None. Images
        without observed depth, such as those of sparse models, are not evaluated by ``rigid``.

    Raises:
        DataError: a dataset lists pairs of missing images.
    """
    scenes = list(scenes)
    names = [scene.frames.names for scene in scenes]
    items: dict[str, list[Any]] = {name: [] for name in ("scene", "a", "b", "angle", "baseline", "overlap", "method")}
    items |= {name: [] for name in ("n_matches", "n_inliers", "rotation_error", "translation_error", "direction_error")}
    reported = SURFACES if settings.get("seen_by_training") == "report" else ()
    items |= {name: [] for name in reported}
    progress = tqdm(scenes, desc="surfaces of the training scenes", unit="scene", delay=2)
    surfaces = [training_surfaces(scene, settings) for scene in progress]
    for pair in tqdm(draw_pairs(scenes, settings, seed), desc="relative pose", unit="pair"):
        scene = scenes[pair.scene]
        within = settings.get("seen_within", SEEN_WITHIN)
        fractions = pair_fractions(scene, surfaces[pair.scene], (pair.a, pair.b), within) if reported else ()
        named = (scene.frames.scene, names[pair.scene][pair.a], names[pair.scene][pair.b])
        angle, baseline = float(rotation_angle(pair.a_to_b[:3, :3])), float(np.linalg.norm(pair.a_to_b[:3, 3]))
        for answer in _answers(scene, pair, settings, scene.rng(seed, pair.a, pair.b)):
            append(items, (*named, angle, baseline, pair.overlap, *answer, *fractions))
    return Evaluation([sample.row() for sample in samples(items, settings)], items)


def draw_pairs(scenes: Sequence[EvaluatedScene], settings: Mapping[str, Any], seed: int) -> list[Pair]:
    """Return all listed pairs, and at most ``pairs_per_bin`` per overlap bin drawn evenly from the other scenes.

    Images of a drawn pair were taken at least ``min_baseline`` apart. Bins contain their lower edge; the last bin also
    contains its upper edge.
    """
    listed = {s: found for s, scene in enumerate(scenes) if (found := pairs_of_dataset(scene)) is not None}
    pairs = [Pair(s, *pair, overlap=None) for s, named in listed.items() for pair in named]
    others = [s for s in range(len(scenes)) if s not in listed]
    candidates = [_candidates(scenes[s], settings) for s in others]
    overlaps = [(scenes[s], overlap) for s, (*_, overlap) in zip(others, candidates)]
    edges = settings["overlap_bins"]
    for number in range(len(edges) - 1):
        # The candidates of a scene are ordered by a, then b; sorting keeps the pairs in this order.
        for s, i in sorted(draw_from_bin(overlaps, edges, number, settings["pairs_per_bin"], seed)):
            poses, *columns = candidates[s]
            a, b, overlap = (column[i].item() for column in columns)
            pairs.append(Pair(others[s], a, b, np.linalg.inv(poses[b]) @ poses[a], overlap))
    return pairs


def _candidates(scene: EvaluatedScene, settings: Mapping[str, Any]) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return the poses (n, 4, 4) of a scene, its pairs a < b, (m,) each, and their mutual overlaps (m,)."""
    poses, overlap = scene.frames["pose"][:], scene.correspondences["overlap"][:]
    min_overlap = settings["overlap_bins"][0]
    a, b = triu(overlapping_pairs(poses, overlap, min_overlap, settings["min_baseline"])).nonzero()
    return poses, a, b, mutual_overlap(overlap)[a, b]


def _answers(
    scene: EvaluatedScene, pair: Pair, settings: Mapping[str, Any], rng: np.random.Generator
) -> Iterator[tuple[str, int, int, float | None, float | None, float | None]]:
    """Yield the name, the number of matches, the number of inliers and the errors of the estimate of each method."""
    match_rng, *method_rngs = rng.spawn(1 + len(METHODS))
    images = pair.a, pair.b
    matches, uv = _matched(scene, images, settings, match_rng)
    cameras = [scene.frames["intrinsics"][i] for i in images]
    weights = matches.weights(settings.get("weights", "none"))
    depths = _depths(scene, images) if "rigid" in settings["methods"] else None
    for method, method_rng in zip(METHODS, method_rngs):
        if method not in settings["methods"] or (method == "rigid" and depths is None):
            continue
        if method == "rigid":
            in_a, in_b, lifted = _lift(depths, cameras, uv)
            count, of_lifted = len(in_a), None if weights is None else weights[lifted]
            distance = settings["inlier_distance"]
            motion = rigid_motion(in_a, in_b, distance, settings["iterations"], method_rng, of_lifted)
        else:
            count, (uv_a, uv_b), (k_a, k_b) = len(uv[0]), uv, cameras
            pixels = settings["inlier_pixels"]
            motion = essential_motion(uv_a, uv_b, k_a, k_b, pixels, settings["iterations"], method_rng, weights)
        yield method, count, motion[1] if motion else 0, *_errors(method, motion, pair.a_to_b)


def _matched(
    scene: EvaluatedScene, images: tuple[int, int], settings: Mapping[str, Any], rng: np.random.Generator
) -> tuple[Matches, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return the matches of two images, and their positions (k, 2) in both, pixels."""
    if scene.keypoints is not None:
        (uv_a, of_a), (uv_b, of_b) = (
            detect(scene.frames["rgb"][i], scene.keypoints.get("max_keypoints", MAX_KEYPOINTS)) for i in images
        )
        matches = mutual_matches(of_a, of_b, settings["matches"], rng)
        matches = matches.take(matches.ratio > min_score(scene.keypoints.get("ratio", RATIO)))
        return matches, (uv_a[matches.a], uv_b[matches.b])
    a, b = (_patches(scene, i) for i in images)
    matches = mutual_matches(a.features, b.features, settings["matches"], rng)
    offsets = refined_offsets(a.features[matches.a], matches.b, b.size, b.features.__getitem__, settings)
    return matches, (a.uv[matches.a], b.uv[matches.b] + offsets * b.cell)


class Patches(NamedTuple):
    """Patches of an image.

    ``features`` (m, c), L2-normalised rows; ``uv`` (m, 2), their centres, pixels; ``size`` (rows, columns) of their
    grid, with m cells in row-major order; ``cell`` (2,), width and height of a cell, pixels.
    """

    features: Tensor
    uv: NDArray[np.float64]
    size: tuple[int, int]
    cell: NDArray[np.float64]


def _patches(scene: EvaluatedScene, i: int) -> Patches:
    """Return the patches of an image whose centres lie in the image."""
    feature_map, extent = torch.from_numpy(scene.features.map(i)), scene.features.extent
    centres = patch_centres((feature_map.shape[0], feature_map.shape[1]), extent)
    inside = np.all(centres < scene.frames.size[::-1], axis=-1)
    features = normalize(feature_map[torch.from_numpy(inside)].float(), dim=1)
    cell = np.array(extent[::-1]) / feature_map.shape[1::-1]
    return Patches(features, centres[inside], (int(inside[:, 0].sum()), int(inside[0].sum())), cell)


class Matches(NamedTuple):
    """Matched rows of A and of B, (k,) each, their cosine ``similarity`` (k,), and ``ratio`` (k,), 1 - D1 / D2."""

    a: NDArray[np.integer]
    b: NDArray[np.integer]
    similarity: NDArray[np.float64]
    ratio: NDArray[np.float64]

    def take(self, chosen: NDArray) -> Matches:
        """Return the ``chosen`` matches, by indices or a mask (k,)."""
        return Matches(*(column[chosen] for column in self))

    def weights(self, kind: str) -> NDArray[np.float64] | None:
        """Return the positive weights (k,) of a kind of :data:`WEIGHTS`; None for ``none``."""
        return None if kind == "none" else np.maximum(getattr(self, kind), RESOLUTION)


def mutual_matches(a: Tensor, b: Tensor, count: int, rng: np.random.Generator) -> Matches:
    """Return mutual nearest neighbours, the most distinctive first: by 1 - D1 / D2 in A, with cosine distances D.

    Args:
        a: (m, c), L2-normalised rows.
        b: (n, c), L2-normalised rows.
        count: maximum number of matches.
        rng: random number generator that breaks ties.

    Returns:
        At most ``count`` matches; none if ``a`` or ``b`` has fewer than two rows, because D2 is then undefined.
    """
    if min(len(a), len(b)) < 2:
        return Matches(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0))
    order_a, order_b = rng.permutation(len(a)), rng.permutation(len(b))
    a, b = a[order_a], b[order_b]
    in_a, in_b = mutual_neighbours(a, b)
    similarity = torch.cat([(block @ b.T).topk(2, dim=1).values for block in a[in_a].split(BLOCK)])
    distance = (1 - similarity).clamp(min=RESOLUTION)
    ratio = 1 - distance[:, 0] / distance[:, 1]
    best = torch.argsort(ratio, descending=True, stable=True)[:count].numpy()
    numbers = (values.double().numpy()[best] for values in (similarity[:, 0], ratio))
    return Matches(order_a[in_a[best]], order_b[in_b[best]], *numbers)


def _depths(scene: EvaluatedScene, images: tuple[int, int]) -> list[NDArray[np.float64]] | None:
    """Return the observed depth of both images, (height, width) each; None unless both have some."""
    frames = scene.frames
    if frames.sparse:
        return None
    depths = [observed_depth(frames["depth"][i], frames["source"][i]) for i in images]
    return depths if all(depth.any() for depth in depths) else None


def _lift(
    depths: Sequence[NDArray[np.floating]], cameras: Sequence[NDArray[np.floating]], uv: tuple[NDArray, NDArray]
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.bool_]]:
    """Lift match positions (m, 2) to the frames of both cameras, (k, 3) each, metres; also return their mask (m,).

    Only matches with observed depth in both images are lifted. Positions on a depth edge have no unique 3D point.
    """
    points, known = [], []
    for depth, intrinsics, places in zip(depths, cameras, uv):
        z, smooth = sample_depth(depth, places)
        points.append(backproject(places, z, intrinsics, np.eye(4)))
        known.append(smooth)
    both = known[0] & known[1]
    return points[0][both], points[1][both], both


def _errors(method: str, motion: Motion | None, truth: NDArray) -> tuple[float | None, float | None, float | None]:
    """Return the errors of rotation (degrees), translation (metres; None without scale) and its direction (degrees)."""
    if motion is None:
        return None, None, None
    found, _ = motion
    rotation = float(rotation_angle(found[:3, :3] @ truth[:3, :3].T))
    direction = direction_angle(found[:3, 3], truth[:3, 3])
    if method == "essential":
        return rotation, None, min(direction, 180 - direction)
    return rotation, float(np.linalg.norm(found[:3, 3] - truth[:3, 3])), direction


def direction_angle(found: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """Return the angle between two vectors (3,), degrees in [0, 180], well conditioned at both ends.

    The angle is 0 if the true translation, in metres, has no direction (:data:`NO_BASELINE`), and 90 if only the
    estimate has none.
    """
    if np.linalg.norm(truth) < NO_BASELINE:
        return 0.0
    if not found.any():
        return 90.0
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(found, truth)), found @ truth)))


def samples(items: Mapping[str, list[Any]], settings: Mapping[str, Any]) -> list[Sample]:
    """Return the errors and scores that each row of :func:`evaluate` summarises, from the items of all pairs."""
    pairs = [Item(scene, (a, b)) for scene, a, b in zip(items["scene"], items["a"], items["b"])]
    found = []
    for method, (condition, chosen) in product(settings["methods"], _conditions(items, settings).items()):
        rows = [n for n in chosen if items["method"][n] == method]
        keys = [pairs[n] for n in rows]
        errors = {name: _infinite(items[f"{name}_error"], rows) for name in ("rotation", "translation", "direction")}
        place, unit = ("translation", "m") if method == "rigid" else ("direction", "deg")
        for name, of in (("rotation", "deg"), (place, unit)):
            found.append(Sample(f"{name} error, {method}", condition, keys, errors[name], None, "median", of))
        larger = np.maximum(errors["rotation"], errors["direction"])
        for degrees in settings["auc"]:
            scores = np.maximum(0, 1 - larger / degrees).tolist()
            found.append(Sample(f"AUC@{degrees:g}deg, {method}", condition, keys, scores))
    return found


def _conditions(items: Mapping[str, list[Any]], settings: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the items by condition: overlap or rotation bin, all, and mostly seen or unseen in training."""
    drawn = [n for n, overlap in enumerate(items["overlap"]) if overlap is not None]
    named = [n for n, overlap in enumerate(items["overlap"]) if overlap is None]
    conditions = {}
    if drawn or not named:
        conditions |= _binned(items["overlap"], drawn, settings["overlap_bins"], "overlap {:g}-{:g}")
    if named:
        conditions |= _binned(items["angle"], named, settings.get("rotation_bins", []), "{:g}-{:g} deg")
    return conditions | {"all": [*drawn, *named]} | mostly(items, [*drawn, *named])


def _binned(values: list[float], chosen: list[int], edges: Sequence[float], title: str) -> dict[str, list[int]]:
    """Return the ``chosen`` items of each bin, by the title of the bin."""
    if not edges:
        return {}
    numbers = bin_number([values[n] for n in chosen], edges).tolist()
    return {
        title.format(*ends): [n for n, number in zip(chosen, numbers) if number == i]
        for i, ends in enumerate(pairwise(edges))
    }


def _infinite(column: list[float | None], rows: list[int]) -> list[float]:
    return [inf if column[n] is None else column[n] for n in rows]
