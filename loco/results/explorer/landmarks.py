"""The landmarks of a page: patches that other views see, with their scores, and the one at which the page opens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from loco.evaluation.landmark_retrieval import average_precision
from loco.results.explorer.compression import Codes, similarities
from loco.results.explorer.content import MIN_BASELINE, RHO, Geometry, Landmarks

COUNT = 400  # maximum number of landmarks
SEEN = 2  # minimum number of other views that see a landmark
BLOCK = 50  # number of landmarks that are scored at a time


def find_landmarks(
    geometry: Geometry, view: NDArray[np.int64], extractors: Sequence[Codes], seed: int = 0
) -> Landmarks | None:
    """Draw patches that at least :data:`SEEN` other views see, and score them by every extractor.

    Args:
        geometry: geometry of the page.
        view: (p,), index of the view of each patch.
        extractors: compressed features of the page for each extractor.
        seed: seed for drawing the landmarks.

    Returns:
        At most :data:`COUNT` landmarks; None if no patch is seen by enough views.
    """
    centres = geometry.poses[:, :3, 3]
    apart = cdist(centres, centres) >= MIN_BASELINE  # (n, n)
    seen_by = geometry.visible & apart[view] & geometry.valid[:, None]
    candidates = np.flatnonzero(seen_by.sum(axis=1) >= SEEN)
    drawn = np.sort(np.random.default_rng([seed]).permutation(candidates)[:COUNT])
    if not len(drawn):
        return None
    scores = [_scores(geometry, view, apart, seen_by, features, drawn) for features in extractors]
    precision, found = (np.array(part) for part in zip(*scores))
    seen = seen_by[drawn].sum(axis=1)
    scored = np.isfinite(precision[0])  # NaN if no patch of another view is within RHO
    if not scored.any():
        return None
    precision, found = precision[:, scored], found[:, scored]
    return Landmarks(drawn[scored], precision, found, seen[scored], _start(precision, found))


def _scores(
    geometry: Geometry,
    view: NDArray[np.int64],
    apart: NDArray[np.bool_],
    seen_by: NDArray[np.bool_],
    features: Codes,
    drawn: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the average precision (NaN without positives) and the number of correct matches of each landmark."""
    precision, found = np.full(len(drawn), np.nan), np.zeros(len(drawn), np.int64)
    for start in range(0, len(drawn), BLOCK):
        block = drawn[start : start + BLOCK]
        distance = cdist(geometry.points[block], geometry.points)
        for k, similarity in enumerate(similarities(features, block)):
            ranked = geometry.valid & apart[view[block[k]]][view]
            near = distance[k] < RHO
            score = average_precision(similarity[ranked], near[ranked])
            precision[start + k] = np.nan if score is None else score
            for other in np.flatnonzero(seen_by[block[k]]):
                patches = np.flatnonzero(ranked & (view == other))
                found[start + k] += near[patches[similarity[patches].argmax()]]
    return precision, found


def _start(precision: NDArray[np.float64], found: NDArray[np.int64]) -> int:
    """Return the landmark at which the first extractor leads the second by the largest number of correct matches.

    Ties are broken by the larger difference in average precision. With a single extractor, it is the landmark with the
    most correct matches; ties are broken by the lower average precision.
    """
    if len(found) > 1:
        return int(np.lexsort((precision[0] - precision[1], found[0] - found[1]))[-1])
    return int(np.lexsort((-precision[0], found[0]))[-1])
