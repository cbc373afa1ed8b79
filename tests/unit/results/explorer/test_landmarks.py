"""The landmarks of a page: the views that see them, their scores, and the one at which the page opens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from loco.results.explorer.compression import similarities
from loco.results.explorer.content import MIN_BASELINE, RHO
from loco.results.explorer.landmarks import SEEN, find_landmarks


def brute_force_ap(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean precision at the ranks of the positives; there are no equal scores."""
    ranked = positive[np.argsort(-scores)]
    return float(np.mean([ranked[: k + 1].mean() for k in np.flatnonzero(ranked)]))


def test_scores_are_those_of_brute_force(content) -> None:
    geometry, view = content.geometry, content.view_of_patch
    landmarks = find_landmarks(geometry, view, [extractor.codes for extractor in content.extractors])
    centres = geometry.poses[:, :3, 3]
    apart = np.linalg.norm(centres[:, None] - centres, axis=-1) >= MIN_BASELINE
    for k in range(0, len(landmarks.patch), 40):
        patch = landmarks.patch[k]
        distance = np.linalg.norm(geometry.points.astype(float) - geometry.points[patch].astype(float), axis=1)
        ranked = geometry.valid & (view != view[patch])
        sees = [v for v in range(len(content.views)) if geometry.visible[patch, v] and apart[view[patch], v]]
        assert landmarks.seen[k] == len(sees) >= SEEN
        for e, extractor in enumerate(content.extractors):
            similarity = similarities(extractor.codes, np.array([patch]))[0]
            assert abs(landmarks.precision[e, k] - brute_force_ap(similarity[ranked], distance[ranked] < RHO)) < 1e-9
            matches = [max(np.flatnonzero(geometry.valid & (view == v)), key=lambda p: similarity[p]) for v in sees]
            assert landmarks.found[e, k] == sum(distance[match] < RHO for match in matches)


def test_page_opens_where_the_extractors_differ_most(content) -> None:
    landmarks = content.landmarks
    better = landmarks.found[0] - landmarks.found[1]
    assert better[landmarks.start] == better.max() >= 2
    equal = better == better.max()
    gain = landmarks.precision[0] - landmarks.precision[1]
    assert gain[landmarks.start] == gain[equal].max()


def test_single_extractor_opens_where_it_finds_the_most(content) -> None:
    landmarks = find_landmarks(content.geometry, content.view_of_patch, [content.extractors[1].codes])
    assert landmarks.found[0, landmarks.start] == landmarks.found.max()


def test_without_a_place_seen_from_elsewhere_there_are_none(content) -> None:
    poses = content.geometry.poses.copy()
    poses[:, :3, 3] = poses[0, :3, 3]
    geometry = replace(content.geometry, poses=poses)
    assert find_landmarks(geometry, content.view_of_patch, [content.extractors[0].codes]) is None
