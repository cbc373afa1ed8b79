"""Reranking of retrieved images by the matches of their patches.

Patches are matched by cosine similarity, and the matches are scored. Positions are those of the cells on the feature
maps, (x, y) = (column, row), so that distances and tolerances are in patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Grid = tuple[int, int]  # rows, columns
Positions = NDArray[np.float64]  # (k, 2): x, y

REPROJECTION = 1.5  # patches; reprojection error of an inlier of a homography (Patch-NetVLAD)
MATCHING = {
    "mutual": "mutual",
    "approximate": "mutual within {tolerance:g}",
    "neighbourhood": "neighbours within {tolerance:g}",
    "ratio": "ratio {ratio:g}",
}
SCORES = {
    "count": "count",
    "rapid_spatial": "rapid spatial",
    "rapid_spatial_2d": "rapid spatial 2D",
    "ransac": "RANSAC",
}


def rerank_name(settings: Mapping[str, Any]) -> str:
    """Return the name of an entry of ``rerank`` in tables: "mutual + RANSAC", "ratio 0.8 + count"."""
    matching = MATCHING[settings["matching"]].format(**settings)
    if settings.get("strict"):
        matching = matching.replace("within ", "within less than ")
    both = ", both directions" if settings.get("both_directions") else ""
    return f"{matching} + {SCORES[settings['score']]}{both}"


def match_scores(query: Tensor, candidate: Tensor, reranks: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the scores of a pair of images, one for each of ``reranks``; higher is better.

    Args:
        query: feature map (h, w, c), L2-normalised.
        candidate: likewise, of a database image.
        reranks: entries of ``rerank``: ``matching`` (with ``tolerance`` or ``ratio``) and ``score``. With
            ``both_directions`` the score from the candidate to the query is added, as in LoCo's release.
    """
    grids = (query.shape[0], query.shape[1]), (candidate.shape[0], candidate.shape[1])
    similarities = query.flatten(0, 1) @ candidate.flatten(0, 1).T
    scores = []
    for settings in reranks:
        found = score(*match(similarities, *grids, settings), grids[0], settings["score"])
        if settings.get("both_directions"):
            found += score(*match(similarities.T, *grids[::-1], settings), grids[1], settings["score"])
        scores.append(found)
    return scores


def match(similarities: Tensor, grid: Grid, other: Grid, settings: Mapping[str, Any]) -> tuple[Positions, Positions]:
    """Match each patch to its nearest neighbour in the other image, and keep the matches that pass a test.

    - ``mutual``: the nearest neighbour of the match is the patch itself.
    - ``approximate``: the nearest neighbour of the match is within ``tolerance`` patches of the patch, or nearer than
      that if ``strict``.
    - ``neighbourhood``: the matches of the patch's up to 8 neighbours are on average nearer than ``tolerance`` patches
      to the match of the patch.
    - ``ratio``: the match is nearer than ``ratio`` times the second nearest, in Euclidean distance (Lowe 2004); if the
      other image has a single patch, nothing passes.

    Args:
        similarities: cosines (m, n) of the patches of two images.
        grid: grid of the first image, m = rows x columns.
        other: grid of the second image.
        settings: ``matching`` and its keys.

    Returns:
        Positions (k, 2) in the first image, and in the second.
    """
    nearest = similarities.argmax(dim=1).numpy()
    own, theirs = positions(grid), positions(other)[nearest]
    match settings["matching"]:
        case "mutual" | "approximate":
            back = own[similarities.argmax(dim=0).numpy()[nearest]]
            off, tolerance = np.linalg.norm(back - own, axis=1), settings.get("tolerance", 0)
            passed = off < tolerance if settings.get("strict") else off <= tolerance
        case "neighbourhood":
            passed = neighbour_distance(theirs, grid) < settings["tolerance"]
        case "ratio":
            passed = _passes_ratio(similarities, settings["ratio"])
    return own[passed], theirs[passed]


def positions(grid: Grid) -> Positions:
    """Return the x and y of each cell, (rows x columns, 2), in row-major order."""
    y, x = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    return np.stack([x, y], axis=1).astype(np.float64)


def neighbour_distance(matched: Positions, grid: Grid) -> NDArray[np.float64]:
    """Return the mean distance (m,) from a patch's match to its neighbours' matches; infinite without neighbours."""
    rows, columns = grid
    padded = np.pad(matched.reshape(rows, columns, 2), ((1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    shifts = [(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    around = np.stack([padded[dy : dy + rows, dx : dx + columns] for dy, dx in shifts])
    distance = np.linalg.norm(around - padded[1:-1, 1:-1], axis=-1)
    count = np.isfinite(distance).sum(axis=0)
    return np.where(count > 0, np.nansum(distance, axis=0) / np.maximum(count, 1), np.inf).ravel()


def _passes_ratio(similarities: Tensor, ratio: float) -> NDArray[np.bool_]:
    if similarities.shape[1] < 2:
        return np.zeros(len(similarities), dtype=bool)
    distance = (2 - 2 * similarities.topk(2, dim=1).values).clamp(min=0).sqrt()
    return (distance[:, 0] < ratio * distance[:, 1]).numpy()


def score(own: Positions, theirs: Positions, grid: Grid, name: str) -> float:
    """Return the score of matches from ``own`` (k, 2) on a map of ``grid`` to ``theirs`` (k, 2); 0 without matches."""
    match name:
        case "count":
            return float(len(own))
        case "ransac":
            return float(homography_inliers(own, theirs))
        case _:
            return rapid_spatial(own, theirs, grid, axis_wise=name == "rapid_spatial")


def rapid_spatial(own: Positions, theirs: Positions, grid: Grid, axis_wise: bool) -> float:
    """Return the rapid spatial score (Hausler et al. 2021, Patch-NetVLAD, section 3.4, with the anchors of its code).

    For each match, the deviation of its displacement from the mean displacement is subtracted from the largest possible
    deviation and squared; the sum over the matches is divided by the number of patches. Deviations are measured per
    axis, with the columns and rows of the grid as the largest ones, or in the plane, with the diagonal as the largest
    one. (In the paper's formula, the largest deviation is that of the matches, and an image would score 0 with itself.)
    Larger deviations contribute nothing.
    """
    if len(own) == 0:
        return 0.0
    displacement = theirs - own
    stray = np.abs(displacement - displacement.mean(axis=0))
    room = np.array(grid[::-1], dtype=np.float64)
    if not axis_wise:
        stray, room = np.linalg.norm(stray, axis=1), np.array(diagonal(grid))
    return float((np.maximum(room - stray, 0) ** 2).sum() / (grid[0] * grid[1]))


def diagonal(grid: Grid) -> float:
    """Return the diagonal of a grid, in patches."""
    return float(np.hypot(*grid))


def homography_inliers(own: Positions, theirs: Positions) -> int:
    """Return the number of inliers of a homography estimated by RANSAC; 0 for fewer than four matches."""
    if len(own) < 4:
        return 0
    _, inliers = cv2.findHomography(own, theirs, cv2.RANSAC, REPROJECTION)
    return 0 if inliers is None else int(np.count_nonzero(inliers))
