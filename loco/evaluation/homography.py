"""Matching on planes: estimate the homography between two images from dense features, as on HPatches.

The keypoints are the cells of the feature map. Mutual nearest neighbours by cosine similarity between images A and B
are matches, without further filters. There are two measures:

- Mean matching accuracy (Mikolajczyk and Schmid 2005; D2-Net, Dusmanu et al., CVPR 2019): the fraction of a pair's
  matches whose point in B lies within t pixels of the point in A transformed by the true homography, averaged over
  pairs.
- Accuracy of the homography (SuperPoint, DeTone et al., 2018): a homography is estimated from the matches (MAGSAC,
  Barath et al., CVPR 2020). Its error e is the mean distance in B between the corners of A transformed by the estimate
  and by the true homography. The area under the curve of the fraction of pairs with an error below x, for x from 0 to
  t, divided by t, is exactly the mean of max(0, 1 - e / t).

Pixels are those of the raw images, from which the frames of equal size are made. Keypoints form a grid: with cells of
side s, the true position is up to s / 2 from the nearest cell centre in each direction, so the stride bounds the
accuracies at smaller thresholds for any features. ``upsample`` matches a finer grid of interpolated features
instead, ``refine`` moves the matched position in B within its cell (:mod:`loco.evaluation.refinement`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from loco.errors import DataError
from loco.evaluation.intervals import Item
from loco.evaluation.neighbours import mutual_neighbours
from loco.evaluation.refinement import refined_offsets
from loco.evaluation.result import EvaluatedScene, Evaluation, Sample, append
from loco.geometry.patches import patch_centres
from loco.geometry.sampling import sample_features

MIN_MATCHES = 4  # number of matches that determine a homography


class Keypoints(NamedTuple):
    """Keypoints of an image.

    ``features`` (m, c), L2-normalised rows; ``places``, positions (m, 2), raw pixels; ``size`` (rows, columns) of their
    grid, with m cells in row-major order; ``cell`` (2, 2), maps an offset in cells (u, v) to one in raw pixels.
    """

    features: Tensor
    places: NDArray[np.float64]
    size: tuple[int, int]
    cell: NDArray[np.float64]


def evaluate(scenes: Iterable[EvaluatedScene], settings: Mapping[str, Any], seed: int = 0) -> Evaluation:
    """Compute the matching accuracy and the homography error of all pairs.

    Args:
        scenes: test scenes with homographies as ground truth, read one at a time.
        settings: ``thresholds`` of the matches and ``corner_thresholds`` of the homography (raw pixels), ``upsample``
            (keypoints along each side of a cell, default 1), ``ransac_threshold`` (raw pixels);
            ``refine`` and its keys (:mod:`loco.evaluation.refinement`, default ``none``).
        seed: seed of MAGSAC and of the order of ties.

    Returns:
        Rows for "all" pairs, and for those in which the "illumination" or the "viewpoint" changes, if any: "MMA@3px"
        for each of ``thresholds``; "AUC@3px" for each of ``corner_thresholds``; "corner error", the median, px;
        "matched", the fraction of the keypoints of A that have a match. Items: the pairs. A pair without matches has
        accuracies of 0; ``corner_error`` is None if no homography was found, which counts as infinite.

    Raises:
        DataError: a scene has no homographies, or lacks images to which its homographies refer.
    """
    columns = ["scene", "change", "a", "b", "n_matches", "matched", *map(_mma, settings["thresholds"]), "corner_error"]
    items: dict[str, list[Any]] = {name: [] for name in columns}
    for scene in tqdm(scenes, desc="homography", unit="scene"):
        truth, places = _pairs(scene)
        keypoints: dict[int, Keypoints] = {}
        for number, (pair, (a, b)) in enumerate(zip(truth["pairs"], places)):
            for i in {a, b} - keypoints.keys():
                keypoints[i] = keypoints_of(scene, i, settings.get("upsample", 1))
            numbers = _evaluate_pair(
                scene, (a, b), keypoints, np.array(pair["homography"]), settings, scene.rng(seed, number)
            )
            row = (scene.frames.scene, truth.get("change"), pair["a"], pair["b"], *numbers)
            append(items, row)
    return Evaluation([sample.row() for sample in samples(items, settings)], items)


def samples(items: Mapping[str, list[Any]], settings: Mapping[str, Any]) -> list[Sample]:
    """Return the scores that each row of :func:`evaluate` summarises, computed from the items of all pairs."""
    changes = [change for change in ("illumination", "viewpoint") if change in items["change"]]
    pairs = [Item(scene, (a, b)) for scene, a, b in zip(items["scene"], items["a"], items["b"])]
    errors = [np.inf if error is None else error for error in items["corner_error"]]
    scores = {_mma(threshold): items[_mma(threshold)] for threshold in settings["thresholds"]}
    scores |= {f"AUC@{t:g}px": [max(0.0, 1 - error / t) for error in errors] for t in settings["corner_thresholds"]}
    scores |= {"corner error": errors, "matched": items["matched"]}
    found = []
    for (metric, values), condition in product(scores.items(), ["all", *changes]):
        chosen = [i for i, change in enumerate(items["change"]) if condition in ("all", change)]
        kind: dict[str, Any] = {"statistic": "median", "unit": "px"} if metric == "corner error" else {}
        found.append(Sample(metric, condition, [pairs[i] for i in chosen], [values[i] for i in chosen], **kind))
    return found


def _pairs(scene: EvaluatedScene) -> tuple[Mapping[str, Any], list[tuple[int, int]]]:
    """Return the ground truth of a scene, and the two frame numbers of each of its pairs."""
    truth = scene.ground_truth or {}
    if not truth.get("pairs") or not all("homography" in pair for pair in truth["pairs"]):
        raise DataError(
            "the scene has no homographies",
            file=scene.frames.path,
            scene=scene.frames.scene,
            expected="a dataset of the format `hpatches`",
            found=f"{sum('homography' in pair for pair in truth.get('pairs') or [])} of "
            f"{len(truth.get('pairs') or [])} image pairs with a homography",
            remedy="remove the scene from the split, or remove `homography` from `run.benchmarks`",
        )
    numbers = {name: i for i, name in enumerate(scene.frames.names)}
    missing = sorted({pair[end] for pair in truth["pairs"] for end in "ab"} - numbers.keys())
    if missing:
        raise DataError(
            "the file lacks images to which its homographies refer",
            file=scene.frames.path,
            scene=scene.frames.scene,
            found=f"no frame {', '.join(missing)} among {', '.join(numbers)}",
            remedy="prepare all images: set `frames.every: 1`",
        )
    return truth, [(numbers[pair["a"]], numbers[pair["b"]]) for pair in truth["pairs"]]


def keypoints_of(scene: EvaluatedScene, image: int, upsample: int = 1) -> Keypoints:
    """Return the keypoints of an image, ``upsample``^2 per cell.

    Cells whose centres lie outside the image (if the map covers more than the image) are left out.
    """
    cells = torch.from_numpy(scene.features.map(image))
    extent, (height, width) = scene.features.extent, scene.frames.size
    grid = cells.shape[0] * upsample, cells.shape[1] * upsample
    uv = patch_centres(grid, extent)
    inside = (uv[..., 0] < width) & (uv[..., 1] < height)
    size = int(inside[:, 0].sum()), int(inside[0].sum())
    uv = uv[inside]
    to_raw = np.linalg.inv(scene.frames["intrinsics"][image])
    cell = to_raw[:2, :2] @ np.diag([extent[1] / grid[1], extent[0] / grid[0]])
    return Keypoints(sample_features(cells, torch.from_numpy(uv), extent), transfer(to_raw, uv), size, cell)


def _evaluate_pair(
    scene: EvaluatedScene,
    images: tuple[int, int],
    keypoints: Mapping[int, Keypoints],
    homography: NDArray[np.float64],
    settings: Mapping[str, Any],
    rng: np.random.Generator,
) -> list[int | float | None]:
    """Return a pair's number of matches, its fraction of matched keypoints, its accuracies and its corner error."""
    a, b = (keypoints[i] for i in images)
    # Shuffled, because the first of equal features is chosen, which would be correct if the camera does not move.
    order_a, order_b = rng.permutation(len(a.places)), rng.permutation(len(b.places))
    in_a, in_b = mutual_neighbours(a.features[order_a], b.features[order_b])
    in_a, in_b = order_a[in_a], order_b[in_b]
    offsets = refined_offsets(a.features[in_a], in_b, b.size, b.features.__getitem__, settings)
    places_a, places_b = a.places[in_a], b.places[in_b] + offsets @ b.cell.T
    errors = np.linalg.norm(transfer(homography, places_a) - places_b, axis=1)
    accuracies = [float(np.mean(errors <= t)) if len(errors) else 0.0 for t in settings["thresholds"]]
    estimate = estimate_homography(places_a, places_b, settings["ransac_threshold"], rng)
    size = _raw_size(scene, images[0])
    error = np.inf if estimate is None else corner_error(estimate, homography, size)
    return [len(in_a), len(in_a) / len(a.places), *accuracies, error if np.isfinite(error) else None]


def estimate_homography(
    places_a: NDArray[np.floating], places_b: NDArray[np.floating], threshold: float, rng: np.random.Generator
) -> NDArray[np.float64] | None:
    """Estimate the homography (3, 3) from points (k, 2) of A to those of B by OpenCV's MAGSAC; None on failure.

    Args:
        places_a: pixels.
        places_b: pixels.
        threshold: largest error of an inlier, pixels of B.
        rng: random number generator that seeds MAGSAC.
    """
    if len(places_a) < MIN_MATCHES:
        return None
    params = cv2.UsacParams()
    params.threshold, params.confidence, params.maxIterations = threshold, 0.9999, 10_000
    params.sampler, params.score = cv2.SAMPLING_UNIFORM, cv2.SCORE_METHOD_MAGSAC
    params.loMethod, params.loIterations, params.loSampleSize = cv2.LOCAL_OPTIM_SIGMA, 10, 50
    params.final_polisher, params.final_polisher_iterations = cv2.MAGSAC, 3
    params.randomGeneratorState = int(rng.integers(2**31))
    estimate, _ = cv2.findHomography(places_a.astype(np.float64), places_b.astype(np.float64), params)
    return estimate


def corner_error(estimate: NDArray[np.floating], truth: NDArray[np.floating], size: tuple[float, float]) -> float:
    """Return the mean distance, pixels of B, between the corners of A (height, width) transformed by both homographies.

    The result is infinite if the estimate maps a corner to infinity or beyond.
    """
    height, width = size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]])
    return float(np.linalg.norm(transfer(estimate, corners) - transfer(truth, corners), axis=1).mean())


def transfer(homography: NDArray[np.floating], uv: NDArray[np.floating]) -> NDArray[np.float64]:
    """Transform points (n, 2) by a homography (3, 3).

    Points on the line that is mapped to infinity, or on the far side of it from the origin, become infinite.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.column_stack([uv, np.ones(len(uv))]) @ (homography / homography[2, 2]).T
        return np.where(moved[:, 2:] > 0, moved[:, :2] / moved[:, 2:], np.inf)


def _raw_size(scene: EvaluatedScene, image: int) -> tuple[float, float]:
    """Return the (height, width) of the raw image of a frame."""
    intrinsics = scene.frames["intrinsics"][image]
    return scene.frames.size[0] / intrinsics[1, 1], scene.frames.size[1] / intrinsics[0, 0]


def _mma(threshold: float) -> str:
    return f"MMA@{threshold:g}px"
