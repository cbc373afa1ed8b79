"""Landmark retrieval, and place recognition by landmarks, in LoCUS's sense (Kloepfer, Campbell, Henriques, ICCV 2023).

A landmark is a patch of an image, and stands for its place, a 3D point. Its views are the patches of the scene's other
images that lie within a radius of it. All patches of the other images are ranked by the similarity of their features
to the landmark's, and the average precision of its views is its score, which also says how good a landmark it makes.
Patches of its own image are left out: its neighbours there look like it whatever the features. So can be those of other
images from the same camera position, as of one panorama, which differ from its own by a homography.

Then the best landmarks are chosen by that score. So that none is scored by what it was chosen by, the images are halved
at random: landmarks are chosen on either half and scored on the other.

LoCUS published no code for its place recognition; here it is this: images are ranked by their patch most similar to the
landmark, and the images that show it, with at least one view, should come first.
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

BLOCK = 2**25  # similarities held at a time: 200 MB with what is known of them
METRICS = {"AP of views": "views", "AP of images": "images"}


def evaluate(scenes: Iterable[EvaluatedScene], settings: Mapping[str, Any], seed: int = 0) -> Evaluation:
    """Average precision at finding landmarks again.

    Args:
        scenes: test scenes; each is read when its turn comes.
        settings: ``landmarks`` to draw a scene; ``rho``, patches nearer than this are views, and ``kappa``, patches
            beyond are not ranked, metres (None: all are); ``min_baseline``, images taken nearer than this to a
            landmark's own are left out, as that is, metres; ``chosen``, the share of landmarks that is chosen.
        seed: of all draws.

    Returns:
        Rows "AP of views" and "AP of images" (all images count there, whatever ``kappa``), means over landmarks:
        of "all landmarks", among all other images; of those with views in both halves of the images "by halves", mean
        of both halves; and of the "best 25 % by halves". Items: the landmarks drawn. One that no other image shows has
        0 ``n_views``, None as scores, and is in no row; a scene of one image has only such.
    """
    names = ("scene", "image", "row", "column", "n_views", "n_images", *map(_column, METRICS.values()))
    names += tuple(_column(ranked, half) for ranked in METRICS.values() for half in (0, 1))
    items: dict[str, list[Any]] = {name: [] for name in names}
    for scene in tqdm(scenes, desc="landmark retrieval", unit="scene"):
        valid, images = scene.correspondences["valid"][:], scene.frames.names
        rng = scene.rng(seed)
        drawn = draw_landmarks(valid, settings["landmarks"], rng)
        half = rng.permutation(len(images)) % 2
        for block in np.array_split(drawn, ceil(len(drawn) * valid.sum() / BLOCK) or 1):
            for (i, *patch), scores in zip(block.tolist(), _scores(scene, block, valid, half, settings)):
                row = dict(zip(items, (scene.frames.scene, images[i], *patch))) | scores
                for name, column in items.items():
                    column.append(row[name])
    return Evaluation([sample.row() for sample in samples(items, settings)], items)


def draw_landmarks(valid: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Patches (count, 3), as (image, row, column): an image at random among all that have any, then one of its patches.

    ``valid`` (n, h, w) says which patches show a known place. Where none does, none is drawn.
    """
    patches = [np.argwhere(valid_of_image) for valid_of_image in valid]
    shown = [i for i in range(len(valid)) if len(patches[i])]
    images = rng.choice(shown, count) if shown else []
    return np.array([(i, *rng.choice(patches[i])) for i in images], dtype=np.int64).reshape(-1, 3)


def average_precision(scores: ArrayLike, positive: ArrayLike) -> float | None:
    """Average precision of a ranking: the mean, over the positives, of the precision at their ranks.

    Equal scores count as their mean over all orders. Take t of them, p of them positive, below C others with P
    positives. Whatever stands k-th among them is a positive in p / t of all orders, and then has on average
    (k - 1)(p - 1) / (t - 1) of them before it (McSherry and Najork 2008). So they add

        p / t sum_{k=1..t} (P + 1 + (k - 1) B) / (C + k),    B = (p - 1) / (t - 1),
            = p / t [B t + (P + 1 - B (C + 1)) (digamma(C + t + 1) - digamma(C + 1))].

    Args:
        scores: (n,), larger is better.
        positive: (n,), bool.

    Returns:
        In (0, 1]; None without a positive.
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
    """The scores of landmarks (l, 3), one after the other, and how many views and images they have."""
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
    """Landmarks (l, 3) with all valid patches, (l, m) each: cosine similarity, whether a view, whether ranked at all.

    Features are read at the centres of the correspondence grid whatever their own, so that all extractors answer for
    the same places, image by image.
    """
    kappa = np.inf if settings["kappa"] is None else settings["kappa"]
    features, places = _landmarks(scene, landmarks)
    ends = np.cumsum(valid.sum(axis=(1, 2)))
    shape = len(landmarks), int(ends[-1])
    similarity = np.empty(shape, np.float32)
    view, ranked = np.empty(shape, bool), np.empty(shape, bool)
    for i, part in enumerate(map(slice, np.r_[0, ends[:-1]], ends)):
        of_image, points = _patches(scene, i, valid[i])
        # Equal features must tie exactly, in whatever order the products were summed.
        similarity[:, part] = (features @ of_image.T).numpy().round(6)
        distance = cdist(places, points)
        view[:, part], ranked[:, part] = distance < settings["rho"], distance < kappa
    return similarity, view, ranked


def _landmarks(scene: EvaluatedScene, landmarks: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.float32]]:
    """Features (l, c) and places (l, 3) of patches (l, 3)."""
    features = torch.empty(len(landmarks), scene.features["features"].shape[-1])
    places = np.empty((len(landmarks), 3), np.float32)
    for i in np.unique(landmarks[:, 0]):
        mine = np.flatnonzero(landmarks[:, 0] == i)
        features[mine], places[mine] = _patches(scene, i, tuple(landmarks[mine, 1:].T))
    return features, places


def _patches(
    scene: EvaluatedScene, i: int, wanted: NDArray[np.bool_] | tuple[NDArray, NDArray]
) -> tuple[Tensor, NDArray[np.float32]]:
    """Features (m, c) and places (m, 3), world frame, metres, of patches of an image: a mask, or rows and columns."""
    centres = patch_centres(scene.correspondences.grid, scene.correspondences.extent)[wanted]
    feature_map = torch.from_numpy(scene.features.map(i))
    features = sample_features(feature_map, torch.from_numpy(centres), scene.features.extent)
    return features, scene.correspondences["points"][i][wanted]


def samples(items: Mapping[str, list[Any]], settings: Mapping[str, Any]) -> list[Sample]:
    """The scores of landmarks that each row of :func:`evaluate` is the mean of, from its items.

    Which landmarks are the best depends on the features. So that extractors can be compared item by item, the item of a
    chosen landmark is its place among the best of its scene, and belongs to no particular image.
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
        best = list(_chosen(items, both, ranked, settings["chosen"]))
        condition = f"best {100 * settings['chosen']:g} % by halves"
        found.append(Sample(metric, condition, [key for key, _ in best], [score for _, score in best]))
    return found


def _chosen(
    items: Mapping[str, list[Any]], landmarks: list[int], ranked: str, share: float
) -> Iterator[tuple[Item, float]]:
    """For the k-th best landmark of each scene, its item and its score, mean of both ways of choosing.

    Landmarks are chosen by the average precision of their views on one half of the images, and scored on the other.
    """
    for scene in dict.fromkeys(items["scene"]):
        mine = [n for n in landmarks if items["scene"][n] == scene]
        by_views, scores = (
            np.array([[items[_column(what, half)][n] for n in mine] for half in (0, 1)]) for what in ("views", ranked)
        )
        best = np.argsort(-by_views, axis=1, kind="stable")
        scores = np.take_along_axis(scores[::-1], best, axis=1).mean(axis=0)
        for k, score in enumerate(scores[: max(1, round(share * len(mine)))].tolist()):
            yield Item(scene, part=(k,)), score


def _column(ranked: str, half: int | None = None) -> str:
    """Name of the column of the average precision of ``ranked``, "views" or "images": in all images, or in one half."""
    return f"ap_{ranked}" if half is None else f"ap_{ranked}_{half}"
