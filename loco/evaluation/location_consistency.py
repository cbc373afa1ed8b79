"""Location consistency (LoCo): whether patches of nearby 3D points have similar features, in any image.

For a query patch, other patches of the scene within a radius are ranked by cosine similarity. If those within distance
t count as positives, the ranking has an average precision AP(t); the score of the query is the mean of AP(t) over t
from the nearest sample's distance to the radius. The chance level is not zero: it depends on the distribution of the
samples' distances.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import ceil
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor
from tqdm import tqdm

from loco.evaluation.intervals import Item
from loco.evaluation.result import EvaluatedScene, Evaluation, Sample, append
from loco.evaluation.training_surfaces import SURFACES, training_surfaces
from loco.geometry.patches import patch_centres
from loco.geometry.sampling import sample_features


class Condition(NamedTuple):
    """Ranked samples: patches within a ``radius`` (metres), drawn by ``weights``, possibly from the query image too."""

    radius: float
    weights: str
    query_image: bool = True

    @property
    def name(self) -> str:
        """The name of the condition in tables."""
        return f"{self.radius:g} m, {self.weights.replace('_', ' ')}" + ("" if self.query_image else ", other images")


# Patches of one 3D point coincide up to about the footprint of a patch: below this distance, 1 / d^2 is constant.
NEAREST = 0.1  # metres
BLOCK = 2**21  # samples held in memory at a time
HELD = 2**30  # bytes of features of a scene held in memory at a time
QUERY_IMAGE = {"include": [True], "exclude": [False], "both": [True, False]}  # values of `samples_of_query_image`
ALL = "all"  # surfaces
COLUMNS = ("scene", "image", "radius", "weights", "query_image", "surface", "ap", "n_queries")

logger = logging.getLogger(__name__)


class Rows(Protocol):
    """L2-normalised features of the patches of a scene; ``rows[indices]`` returns those of some patches, (m, c)."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: NDArray[np.int64]) -> Tensor: ...


def evaluate(scenes: Iterable[EvaluatedScene], settings: Mapping[str, Any], seed: int = 0) -> Evaluation:
    """Compute the mean average precision of feature similarity as a predictor of proximity in the scene.

    Args:
        scenes: test scenes, read one at a time.
        settings: ``radii`` (metres), ``weights`` (``uniform`` or ``inverse_square``: a sample at distance d is drawn
            with weight 1 or 1 / d^2), ``queries_per_scene``, ``samples_per_query`` (None: all). Optional:
            ``samples_of_query_image``, whether patches of the query's own image are ranked (``include``, the default;
            ``exclude``; or ``both``, as separate conditions); ``seen_by_training`` and its keys
            (:mod:`loco.evaluation.training_surfaces`).
        seed: seed of all draws.

    Returns:
        A row "mAP" for every radius and weighting ("2 m, uniform"; without samples of the own image "2 m, uniform,
        other images"): mean over queries; the items of its interval are the query images. With ``seen_by_training:
        report``, also the means over the queries on surfaces that training images show ("2 m, uniform, seen") and on
        other surfaces.
        Items: one per condition and query image. ``ap`` is the mean over its ``n_queries`` queries, on all surfaces or
            on those that ``surface`` names.
    """
    items: dict[str, list[Any]] = {name: [] for name in _columns(settings)}
    for scene in tqdm(scenes, desc="location consistency", unit="scene"):
        points, image = _points(scene)
        features = StoredRows(scene, image)
        queries, precisions = query_precisions(features, points, image, settings, scene.rng(seed))
        names = scene.frames.names
        for surface, of_surface in _query_surfaces(scene, queries, settings).items():
            for condition, ap in precisions.items():
                for i in np.unique(image[queries]):
                    of_image = ap[of_surface & (image[queries] == i) & np.isfinite(ap)]
                    if len(of_image):
                        row = scene.frames.scene, names[i], *condition, surface, float(of_image.mean()), len(of_image)
                        append(items, [entry for name, entry in zip(COLUMNS, row) if name in items])
    return Evaluation([sample.row() for sample in samples(items, settings)], items)


def _columns(settings: Mapping[str, Any]) -> list[str]:
    """Return the column names of the items; columns that depend on an option exist only with that option."""
    options = {"query_image": len(_query_image(settings)) > 1, "surface": settings.get("seen_by_training") == "report"}
    return [name for name in COLUMNS if options.get(name, True)]


def _query_surfaces(
    scene: EvaluatedScene, queries: NDArray[np.integer], settings: Mapping[str, Any]
) -> dict[str, NDArray[np.bool_]]:
    """Return the mask over queries (q,), indices of valid patches, of each surface: all, seen or unseen in training."""
    surfaces = training_surfaces(scene, settings) or {}
    valid = scene.correspondences["valid"][:]
    return {ALL: np.ones(len(queries), bool)} | {name: mask[valid][queries] for name, mask in surfaces.items()}


def query_precisions(
    features: Rows,
    points: NDArray[np.floating],
    image: NDArray[np.integer],
    settings: Mapping[str, Any],
    rng: np.random.Generator,
) -> tuple[NDArray[np.integer], dict[Condition, NDArray[np.float64]]]:
    """Score random query patches of a scene.

    At most :data:`HELD` bytes of features are requested at a time, so the memory depends neither on the size of the
    scene nor on the number of channels, unless one query alone needs more.

    Query patches are drawn by image, then by patch. The samples of a query are drawn without replacement among all
    other patches within the radius, those of its own image included unless the condition leaves them out. The draws
    depend on ``rng``, ``points`` and ``image`` only.

    Args:
        features: (n, c), L2-normalised, one row per patch, in memory (a tensor) or on disk (:class:`StoredRows`).
        points: (n, 3), world frame, metres.
        image: (n,), number of the image of each patch.
        settings: as for :func:`evaluate`.
        rng: random number generator.

    Returns:
        The indices (q,) of the query patches, and their scores (q,) by condition; NaN if no other patch is within the
        radius.
    """
    conditions = _conditions(settings)
    query_rng, *sample_rngs = rng.spawn(1 + len(conditions))
    queries = _draw_queries(image, settings["queries_per_scene"], query_rng)
    count = settings["samples_per_query"] or len(points)
    scores: dict[Condition, list[NDArray]] = {condition: [] for condition in conditions}
    complete = dict.fromkeys(conditions, 0)  # queries all of whose neighbours are ranked
    blocks = np.array_split(queries, ceil(len(queries) * min(count, len(points)) / BLOCK) or 1)
    for block in tqdm(blocks, desc="queries", unit="block", delay=2, mininterval=1, leave=False):
        drawn = [_draw_samples(points, image, query, conditions, count, sample_rngs) for query in block]
        padded = [_padded(samples) for samples in zip(*drawn)]
        similarities = _similarities(features, block, [indices for indices, _ in padded])
        for condition, sample_rng, (_, distances), found in zip(conditions, sample_rngs, padded, similarities):
            scores[condition].append(mean_average_precision(distances, found, condition.radius, sample_rng))
            complete[condition] += int((np.isfinite(distances).sum(axis=1) < count).sum())
    if settings["samples_per_query"]:
        _warn_of_weights_without_effect(complete, len(queries), count)
    return queries, {condition: np.concatenate(parts or [np.empty(0)]) for condition, parts in scores.items()}


def mean_average_precision(
    distances: NDArray[np.floating],
    similarities: NDArray[np.floating],
    radius: float,
    rng: np.random.Generator | None = None,
) -> NDArray[np.float64]:
    """Return the average precision averaged over the distance thresholds up to ``radius``.

    Sort the samples by distance and let r_i be the rank of sample i by similarity. With the k nearest samples as
    positives,

        AP_k = S_k / k,    S_k = sum_{i <= k} #{j <= k: r_j <= r_i} / r_i,

    which holds for thresholds from d_k to d_(k+1), the last one up to the radius. Sample k adds to S

        (1 + #{j < k: r_j < r_k}) / r_k + sum_{i < k, r_i > r_k} 1 / r_i,

    which is computed for all k in O(n log n).

    Args:
        distances: (q, n), metres; samples of each of q queries. Samples beyond the radius are never positives. Pad
            short rows with infinite distance and similarity -inf.
        similarities: (q, n).
        radius: largest threshold, metres.
        rng: random number generator that orders equal similarities, so that ties score at chance level; seeded with 0
            if None.

    Returns:
        (q,), in (0, 1]; NaN for a query without a sample within the radius.
    """
    q, n = distances.shape
    if n == 0:
        return np.full(q, np.nan)
    rng = np.random.default_rng(0) if rng is None else rng
    by_distance = np.argsort(distances, axis=1, kind="stable")
    by_similarity = np.lexsort((rng.random((q, n)), -similarities), axis=1)
    rank = np.empty((q, n), dtype=np.int64)
    np.put_along_axis(rank, by_similarity, np.arange(n)[None], axis=1)
    precision = np.cumsum(_growth(np.take_along_axis(rank, by_distance, axis=1)), axis=1) / np.arange(1, n + 1)
    thresholds = np.minimum(np.take_along_axis(distances, by_distance, axis=1), radius).astype(np.float64)
    spans = np.diff(thresholds, axis=1, append=radius)
    length = radius - thresholds[:, 0]
    return np.divide((precision * spans).sum(axis=1), length, out=np.full(q, np.nan), where=length > 0)


def _growth(rank: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return S_k - S_(k-1) of :func:`mean_average_precision`, (q, n), from ranks (q, n), 0 to n - 1 in each row.

    Every row is sorted by rank with a binary quicksort, from the highest bit to the lowest. Two samples are separated
    at the first bit in which their ranks differ. There, within their block, the earlier sample adds 1 / r to the later
    one, where r is the larger of their ranks. Rows are padded to a power of two, so all blocks of a pass have the same
    size and a partition is a reshape.
    """
    q, n = rank.shape
    size = 1 << (n - 1).bit_length()
    order = np.concatenate([rank, np.broadcast_to(np.arange(n, size), (q, size - n))], axis=1)
    growth = 1 / (order + 1.0)
    half = size // 2
    while half:
        order, growth = order.reshape(-1, 2 * half), growth.reshape(-1, 2 * half)
        high = (order & half) > 0
        inverse = 1 / (order + 1.0)
        lower_before = np.cumsum(~high, axis=1)
        higher_before = np.cumsum(high * inverse, axis=1)
        growth = growth + np.where(high, lower_before * inverse, higher_before)
        order, growth = (np.stack([a[~high].reshape(-1, half), a[high].reshape(-1, half)], 1) for a in (order, growth))
        half //= 2
    return np.take_along_axis(growth.reshape(q, size), rank, axis=1)


def _warn_of_weights_without_effect(complete: Mapping[Condition, int], queries: int, count: int) -> None:
    """Warn if most queries have fewer neighbours than samples, so that every weighting ranks the same patches."""
    for condition, number in complete.items():
        if condition.weights != "uniform" and number > queries / 2:
            logger.warning(
                "%d of %d queries have fewer than %d patches within %g m, all of which are ranked, so that the weights "
                "of the samples have no effect; lower `samples_per_query` of location_consistency, or `patches.stride`",
                *(number, queries, count, condition.radius),
            )


def _conditions(settings: Mapping[str, Any]) -> list[Condition]:
    """Return all conditions, first those with samples of the query image: their draws do not depend on the others."""
    found = product(_query_image(settings), settings["radii"], settings["weights"])
    return [Condition(radius, weights, query_image) for query_image, radius, weights in found]


def _query_image(settings: Mapping[str, Any]) -> list[bool]:
    return QUERY_IMAGE[settings.get("samples_of_query_image", "include")]


def samples(items: Mapping[str, list[Any]], settings: Mapping[str, Any]) -> list[Sample]:
    """Return the scores that each row of :func:`evaluate` averages, computed from the items of all query images."""
    count, conditions = len(items["scene"]), _conditions(settings)
    query_image = items.get("query_image", [conditions[0].query_image] * count)
    surface = items.get("surface", [ALL] * count)
    drawn = list(zip(map(Condition, items["radius"], items["weights"], query_image), surface))
    found = []
    for condition, name in product(conditions, [ALL, *(SURFACES if set(surface) - {ALL} else ())]):
        chosen = [n for n in range(count) if drawn[n] == (condition, name)]
        keys = [Item(items["scene"][n], (items["image"][n],)) for n in chosen]
        ap, sizes = ([items[column][n] for n in chosen] for column in ("ap", "n_queries"))
        found.append(Sample("mAP", condition.name + ("" if name == ALL else f", {name}"), keys, ap, sizes))
    return found


class StoredRows:
    """Features of the valid patches of a scene, read from its files when they are requested.

    Features are read at the centres of the correspondence grid, for any grid of features, so that all extractors are
    evaluated at the same positions. They have half precision, as in the files.
    """

    def __init__(self, scene: EvaluatedScene, image: NDArray[np.int64]) -> None:
        """
        Args:
            scene: the scene.
            image: (n,), number of the image of each valid patch, as :func:`_points` returns it: ascending.
        """
        self.scene, self.image = scene, image
        self.centres = torch.from_numpy(patch_centres(scene.correspondences.grid, scene.correspondences.extent))

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, indices: NDArray[np.int64]) -> Tensor:
        """Return the features (m, c) of patches, float16. Each image is read at most once."""
        images, of_image = np.unique(self.image[indices], return_inverse=True)
        rows: Tensor | None = None
        for number, i in enumerate(images):
            wanted = np.flatnonzero(of_image == number)
            features = self._image(int(i))[indices[wanted] - np.searchsorted(self.image, i)]
            rows = features.new_empty(len(indices), features.shape[1]) if rows is None else rows
            rows[torch.from_numpy(wanted)] = features
        return torch.empty(0, 1, dtype=torch.half) if rows is None else rows

    def _image(self, i: int) -> Tensor:
        """Return the features of all valid patches of an image, (p, c) float16."""
        scene = self.scene
        valid = torch.from_numpy(scene.correspondences["valid"][i])
        maps = torch.from_numpy(scene.features.map(i))
        return sample_features(maps, self.centres[valid], scene.features.extent).half()


def _points(scene: EvaluatedScene) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the valid patches of a scene in the order of the images: points (n, 3) and image numbers (n,)."""
    valid = scene.correspondences["valid"][:]
    points = [scene.correspondences["points"][i][good] for i, good in enumerate(valid)]
    return np.concatenate(points), np.nonzero(valid)[0]


def _draw_queries(image: NDArray[np.integer], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw patches (count,): a random image (with replacement), then one of its patches."""
    _, group, sizes = np.unique(image, return_inverse=True, return_counts=True)
    if len(sizes) == 0:
        return np.empty(0, dtype=np.int64)
    patches = np.argsort(group, kind="stable")
    first = np.cumsum(sizes) - sizes
    chosen = rng.integers(len(sizes), size=count)
    return patches[first[chosen] + rng.integers(sizes[chosen])]


def _draw_samples(
    points: NDArray[np.floating],
    image: NDArray[np.integer],
    query: int,
    conditions: list[Condition],
    count: int,
    rngs: list[np.random.Generator],
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Draw at most ``count`` samples of a query for each condition; return their indices and distances."""
    distance = cdist(points[query, None], points)[0]
    distance[query] = np.inf  # a query is not its own sample
    samples = []
    for (radius, weights, query_image), rng in zip(conditions, rngs):
        near = np.flatnonzero(distance <= radius)
        if not query_image:
            near = near[image[near] != image[query]]
        if len(near) > count:
            # Exponential race (Efraimidis & Spirakis 2006): the smallest values of Exp(1) / weight form a weighted
            # draw.
            finish = rng.standard_exponential(len(near))
            if weights == "inverse_square":
                finish *= np.maximum(distance[near], NEAREST) ** 2
            near = near[np.argpartition(finish, count)[:count]]
        samples.append((near, distance[near]))
    return samples


def _padded(samples: Iterable[tuple[NDArray, NDArray]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pad rows of unequal length to arrays (q, n), with index -1 and infinite distance for missing samples."""
    samples = list(samples)
    shape = len(samples), max((len(index) for index, _ in samples), default=0)
    indices, distances = np.full(shape, -1), np.full(shape, np.inf)
    for i, (index, distance) in enumerate(samples):
        indices[i, : len(index)], distances[i, : len(index)] = index, distance
    return indices, distances


def _similarities(
    features: Rows, queries: NDArray[np.int64], samples: Sequence[NDArray[np.int64]]
) -> list[NDArray[np.float32]]:
    """Return the cosine similarities (q, n) of queries and their samples of each condition; -inf for missing ones."""
    similarities = [np.full(indices.shape, -np.inf, dtype=np.float32) for indices in samples]
    for some in _groups(features, queries, sum(indices.shape[1] for indices in samples)):
        needed = np.unique(np.concatenate([queries[some], *(indices[some].ravel() for indices in samples)]))
        needed = needed[needed >= 0]
        held = features[needed]
        for found, indices in zip(similarities, samples):
            for row, query, index in zip(found[some], queries[some], indices[some]):
                index = np.searchsorted(needed, index[index >= 0])
                row[: len(index)] = (held[index].float() @ held[np.searchsorted(needed, query)].float()).numpy()
    # Equal features must tie exactly, for any order in which the products were summed.
    return [found.round(6) for found in similarities]


def _groups(features: Rows, queries: NDArray[np.int64], samples: int) -> Iterator[slice]:
    """Yield slices of the queries. The features of a slice and of its samples take at most :data:`HELD` bytes together.

    A slice has at least one query, even if its features take more. ``samples`` is the number of samples per query.
    """
    row = features[queries[:1]]
    rows = HELD // max(1, row.nbytes)
    size = len(queries) if len(features) <= rows else max(1, rows // (1 + samples))
    return (slice(start, start + size) for start in range(0, len(queries), max(1, size)))
