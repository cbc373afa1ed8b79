"""Landmark retrieval, and place recognition by landmarks, as in LoCUS (Kloepfer, Campbell, Henriques, ICCV 2023).

A landmark is a patch of an image and represents its 3D point. Its views are the patches of the other images of the
scene that lie within a radius of this point. All patches of the other images are ranked by the similarity of their
features to that of the landmark, and the score of a landmark is the average precision of its views. The score also
measures how suitable the patch is as a landmark. Patches of the landmark's own image are left out, because neighbouring
patches look similar for any features. Images from the same camera position (of one panorama) differ from the landmark's
image by a homography only, and can be left out as well.

The best landmarks are then selected by that score. To avoid scoring landmarks on the data by which they were selected,
the images are halved at random: landmarks are selected on either half and scored on the other.

LoCUS published no code for its place recognition. Here, images are ranked by their patch most similar to the landmark,
and the images with at least one view of it should come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from scipy.special import digamma
from torch import Tensor
from tqdm import tqdm

from loco.evaluation.intervals import Item
from loco.evaluation.result import EvaluatedScene, Evaluation, Sample
from loco.geometry.patches import patch_centres
from loco.geometry.sampling import sample_features

BLOCK = 2**25  # similarities held at a time: 200 MB with their masks
METRICS = {"AP of views": "views", "AP of images": "images"}


def evaluate(scenes: Iterable[EvaluatedScene], settings: Mapping[str, Any], seed: int = 0) -> Evaluation:
    """Compute the average precision of landmark retrieval.

    Args:
        scenes: test scenes, read one at a time.
        settings: ``landmarks``, the number drawn per scene; ``rho``, the distance within which patches are views, and
            ``kappa``, the distance beyond which patches are not ranked (None: all are ranked), metres;
            ``min_baseline``, the distance between camera centres, metres, below which other images are left out, as
            the landmark's own image is; ``selected_fraction``, the fraction of landmarks that are selected.
        seed: seed of all draws.

    Returns:
        Rows "AP of views" and "AP of images" (which ranks all images, for any ``kappa``), means over landmarks. "all
        landmarks" are ranked among all other images. "by halves" is for the landmarks with views in both halves of the
        images; their score is the mean of the scores in both halves. "best 25 % by halves" is for the selected ones.
        Items: the landmarks drawn. A landmark that no other image shows has ``n_views`` 0 and None as scores, and is in
        no row; a scene of one image has only such landmarks.
    """
    names = ("scene", "image", "row", "column", "n_views", "n_images", *map(_column, METRICS.values()))
    names += tuple(_column(ranked, half) for ranked in METRICS.values() for half in (0, 1))
    items: dict[str, list[Any]] = {name: [] for name in names}
    for scene in tqdm(scenes, desc="landmark retrieval", unit="scene"):
        valid, images = scene.correspondences["valid"][:], scene.frames.names
        rng = scene.rng(seed)
        drawn = draw_landmarks(valid, settings["landmarks"], rng)
        half = rng.permutation(len(images)) % 2
        blocks = np.array_split(drawn, ceil(len(drawn) * valid.sum() / BLOCK) or 1)
        for block in tqdm(blocks, desc="landmarks", unit="block", delay=2, mininterval=1, leave=False):
            for (i, *patch), scores in zip(block.tolist(), _scores(scene, block, valid, half, settings)):
                row = dict(zip(items, (scene.frames.scene, images[i], *patch))) | scores
                for name, column in items.items():
                    column.append(row[name])
    return Evaluation([sample.row() for sample in samples(items, settings)], items)


def draw_landmarks(valid: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw patches (count, 3), as (image, row, column): a random image with valid patches, then one of its patches.

    ``valid`` (n, h, w) marks the patches with a known 3D point. If there is none, nothing is drawn.
    """
    patches = [np.argwhere(valid_of_image) for valid_of_image in valid]
    shown = [i for i in range(len(valid)) if len(patches[i])]
    images = rng.choice(shown, count) if shown else []
    return np.array([(i, *rng.choice(patches[i])) for i in images], dtype=np.int64).reshape(-1, 3)


def average_precision(scores: ArrayLike, positive: ArrayLike) -> float | None:
    """Return the average precision of a ranking: the mean, over the positives, of the precision at their ranks.

    Items with equal scores are averaged over all their orders (McSherry and Najork 2008). Consider t items with the
    same score, p of which are positive, and let C items, P of which are positive, have larger scores. The k-th of the t
    items is positive in p / t of all orders, and is then preceded by (k - 1) B of the other p - 1 positives on average,
    where B = (p - 1) / (t - 1), or 0 for t = 1. The t items therefore add

        p / t sum_{k=1..t} (P + 1 + (k - 1) B) / (C + k)
            = p / t [B t + (P + 1 - B (C + 1)) (digamma(C + t + 1) - digamma(C + 1))]

    to the sum of the precisions, which is divided by the number of positives.

    Args:
        scores: (n,), larger is better.
        positive: (n,), bool.

    Returns:
        A value in (0, 1]; None if there are no positives.
    """
    scores, positive = np.asarray(scores), np.asarray(positive, dtype=bool)
    level, p = np.unique(scores[positive], return_counts=True)
    if len(level) == 0:
        return None
    ordered = np.sort(scores)
    t = np.searchsorted(ordered, level, "right") - np.searchsorted(ordered, level, "left")
    above = len(ordered) - np.searchsorted(ordered, level, "right")
    positives_above = p.sum() - np.cumsum(p)
    step = (p - 1) / np.maximum(t - 1, 1)
    harmonic = digamma(above + t + 1) - digamma(above + 1)
    return float(np.sum(p / t * (step * t + (positives_above + 1 - step * (above + 1)) * harmonic)) / p.sum())


def _scores(
    scene: EvaluatedScene,
    landmarks: NDArray[np.int64],
    valid: NDArray[np.bool_],
    half: NDArray[np.int64],
    settings: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """Yield the scores of landmarks (l, 3) in their order, and their numbers of views and images."""
    similarity, view, ranked = _compare(scene, landmarks, valid, settings)
    cameras = scene.frames["pose"][:, :3, 3]
    image = np.nonzero(valid)[0]
    shows_any, first = np.unique(image, return_index=True)  # images, and their first patches
    for own, s, v, r in zip(landmarks[:, 0], similarity, view, ranked):
        elsewhere = np.linalg.norm(cameras - cameras[own], axis=1) >= settings["min_baseline"]
        elsewhere[own] = False
        r &= elsewhere[image]
        best, shows = np.maximum.reduceat(s, first), np.logical_or.reduceat(v, first)
        others = elsewhere[shows_any]
        scores: dict[str, float] = {"n_views": int((v & r).sum()), "n_images": int((shows & others).sum())}
        for part in (None, 0, 1):
            inside = np.ones_like(half, dtype=bool) if part is None else half == part
            patches, images = r & inside[image], others & inside[shows_any]
            scores[_column("views", part)] = average_precision(s[patches], v[patches])
            scores[_column("images", part)] = average_precision(best[images], shows[images])
        yield scores


def _compare(
    scene: EvaluatedScene, landmarks: NDArray[np.int64], valid: NDArray[np.bool_], settings: Mapping[str, Any]
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Compare landmarks (l, 3) with all valid patches.

    Returns three matrices (l, m): the cosine similarities, whether a patch is a view, and whether it is ranked.

    Features are read at the centres of the correspondence grid, for any grid of features, so that all extractors are
    evaluated at the same positions. Images are read one at a time.
    """
    kappa = np.inf if settings["kappa"] is None else settings["kappa"]
    features, places = _landmarks(scene, landmarks)
    ends = np.cumsum(valid.sum(axis=(1, 2)))
    shape = len(landmarks), int(ends[-1])
    similarity = np.empty(shape, np.float32)
    view, ranked = np.empty(shape, bool), np.empty(shape, bool)
    for i, part in enumerate(map(slice, np.r_[0, ends[:-1]], ends)):
        of_image, points = _patches(scene, i, valid[i])
        # Equal features must tie exactly, for any order in which the products were summed.
        similarity[:, part] = (features @ of_image.T).numpy().round(6)
        distance = cdist(places, points)
        view[:, part], ranked[:, part] = distance < settings["rho"], distance < kappa
    return similarity, view, ranked


def _landmarks(scene: EvaluatedScene, landmarks: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.float32]]:
    """Return the features (l, c) and 3D points (l, 3) of patches (l, 3)."""
    features = torch.empty(len(landmarks), scene.features["features"].shape[-1])
    places = np.empty((len(landmarks), 3), np.float32)
    for i in np.unique(landmarks[:, 0]):
        of_image = np.flatnonzero(landmarks[:, 0] == i)
        features[of_image], places[of_image] = _patches(scene, i, tuple(landmarks[of_image, 1:].T))
    return features, places


def _patches(
    scene: EvaluatedScene, i: int, wanted: NDArray[np.bool_] | tuple[NDArray, NDArray]
) -> tuple[Tensor, NDArray[np.float32]]:
    """Return the features (m, c) and 3D points (m, 3; world frame, metres) of the patches ``wanted`` of image ``i``.

    ``wanted`` is a mask over the grid, or the rows and columns of the patches.
    """
    centres = patch_centres(scene.correspondences.grid, scene.correspondences.extent)[wanted]
    feature_map = torch.from_numpy(scene.features.map(i))
    features = sample_features(feature_map, torch.from_numpy(centres), scene.features.extent)
    return features, scene.correspondences["points"][i][wanted]


def samples(items: Mapping[str, list[Any]], settings: Mapping[str, Any]) -> list[Sample]:
    """Return the scores that each row of :func:`evaluate` averages, computed from the items of all landmarks.

    Which landmarks are the best depends on the features. To allow paired comparisons of extractors, the item of a
    selected landmark is its rank among the best landmarks of its scene, without an image.
    """
    columns = (items[name] for name in ("scene", "image", "row", "column"))
    drawn = [Item(scene, (image,), tuple(patch)) for scene, image, *patch in zip(*columns)]
    seen = [n for n in range(len(drawn)) if items["n_views"][n]]
    both = [n for n in seen if all(items[_column("views", half)][n] is not None for half in (0, 1))]
    found = []
    for metric, ranked in METRICS.items():
        scores = items[_column(ranked)]
        found.append(Sample(metric, "all landmarks", [drawn[n] for n in seen], [scores[n] for n in seen]))
        halves = [[items[_column(ranked, half)][n] for half in (0, 1)] for n in both]
        found.append(Sample(metric, "by halves", [drawn[n] for n in both], [sum(pair) / 2 for pair in halves]))
        best = list(_chosen(items, both, ranked, settings["selected_fraction"]))
        condition = f"best {100 * settings['selected_fraction']:g} % by halves"
        found.append(Sample(metric, condition, [key for key, _ in best], [score for _, score in best]))
    return found


def _chosen(
    items: Mapping[str, list[Any]], landmarks: list[int], ranked: str, fraction: float
) -> Iterator[tuple[Item, float]]:
    """Yield the item and the score of the k-th best landmark of each scene, averaged over both selections.

    Landmarks are selected by the average precision of their views on one half of the images, and scored on the other.
    """
    for scene in dict.fromkeys(items["scene"]):
        of_scene = [n for n in landmarks if items["scene"][n] == scene]
        by_views, scores = (
            np.array([[items[_column(what, half)][n] for n in of_scene] for half in (0, 1)])
            for what in ("views", ranked)
        )
        best = np.argsort(-by_views, axis=1, kind="stable")
        scores = np.take_along_axis(scores[::-1], best, axis=1).mean(axis=0)
        for k, score in enumerate(scores[: max(1, round(fraction * len(of_scene)))].tolist()):
            yield Item(scene, part=(k,)), score


def _column(ranked: str, half: int | None = None) -> str:
    """Return the column name of the average precision of ``ranked``, "views" or "images", in all images or one half."""
    return f"ap_{ranked}" if half is None else f"ap_{ranked}_{half}"
