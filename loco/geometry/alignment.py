"""Rigid motion between two sets of matched points, of which many may be outliers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_POINTS = 3  # number of points that determine a motion
BLOCK = 2**18  # residuals that are computed at once
REFINEMENTS = 20  # upper bound; a few iterations usually suffice
LINE = 1e-3  # below this ratio of the spread across a line to the spread along it, the rotation is undetermined


def rigid_fit(
    a: NDArray[np.floating], b: NDArray[np.floating], weights: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Return the rigid motion that maps points ``a`` to points ``b`` in the (weighted) least-squares sense.

    Implements Kabsch (1976); like Umeyama (1991), it never returns a reflection. If the points are collinear, the
    solution is not unique and one of the solutions is returned.

    Args:
        a: (..., m, 3), metres.
        b: (..., m, 3), the target of each point, metres.
        weights: (..., m), weights of the squared residuals: non-negative, with a positive sum; their scale has no
            effect. Equal if None.

    Returns:
        (..., 4, 4), b = R a + t.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    point_weights = None if weights is None else (weights / weights.sum(axis=-1, keepdims=True))[..., None]
    centroid_a, centroid_b = _centroid(a, point_weights), _centroid(b, point_weights)
    from_centroid = a - centroid_a if point_weights is None else point_weights * (a - centroid_a)
    u, _, vt = np.linalg.svd(np.swapaxes(b - centroid_b, -1, -2) @ from_centroid)
    u[..., :, 2] *= np.sign(np.linalg.det(u @ vt))[..., None]
    motion = np.zeros((*a.shape[:-2], 4, 4))
    motion[..., :3, :3] = u @ vt
    motion[..., :3, 3:] = np.swapaxes(centroid_b - centroid_a @ np.swapaxes(u @ vt, -1, -2), -1, -2)
    motion[..., 3, 3] = 1
    return motion


def _centroid(points: NDArray[Any], point_weights: NDArray[Any] | None) -> NDArray[np.float64]:
    """Return the mean (..., 1, 3) of points (..., m, 3), weighted by ``point_weights`` (..., m, 1) of sum 1."""
    if point_weights is None:
        return points.mean(axis=-2, keepdims=True)
    return (point_weights * points).sum(axis=-2, keepdims=True)


def robust_rigid_fit(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    distance: float,
    iterations: int,
    rng: np.random.Generator,
    weights: NDArray[np.floating] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """Estimate the rigid motion with the largest consensus among the points.

    Motions are proposed by triples of points drawn at random (RANSAC, Fischler and Bolles 1981) and rated by the sum
    of squared residuals, each truncated at ``distance``^2 (MSAC, Torr and Zisserman 2000). The best motion is refitted
    to its inliers, the points whose residual is below ``distance``, until the set of inliers no longer changes.

    With ``weights``, points are drawn in proportion to them, and they weight the sum and the fits (as El Banani et al.,
    "UnsupervisedR&R", CVPR 2021, section 3.3). Whether a point is an inlier does not depend on its weight.

    Args:
        a: (m, 3), metres.
        b: (m, 3), the match of each point, metres.
        distance: residual below which a point is an inlier, metres.
        iterations: number of triples to draw.
        rng: generator of the draws.
        weights: (m,), positive; their scale has no effect. Equal if None.

    Returns:
        The motion (4, 4), b = R a + t, and the mask of inliers (m,). None if there are fewer than three inliers, or if
        the inliers are collinear, so that they do not determine a motion.
    """
    if len(a) < MIN_POINTS:
        return None
    triples = _draw(len(a), iterations, rng, weights)
    motions = rigid_fit(a[triples], b[triples])
    blocks = np.array_split(motions, -(-iterations * len(a) // BLOCK))
    costs = [_cost(np.minimum(_residuals(block, a, b), distance) ** 2, weights) for block in blocks]
    motion = motions[np.argmin(np.concatenate(costs))]
    agreeing = np.zeros(len(a), dtype=bool)
    for _ in range(REFINEMENTS):
        before, agreeing = agreeing, _residuals(motion, a, b) < distance
        if agreeing.sum() < MIN_POINTS or _on_a_line(a[agreeing]):
            return None
        if np.array_equal(before, agreeing):
            break
        motion = rigid_fit(a[agreeing], b[agreeing], None if weights is None else weights[agreeing])
    return motion, agreeing


def _draw(m: int, iterations: int, rng: np.random.Generator, weights: NDArray[Any] | None) -> NDArray[np.integer]:
    """Draw point indices (iterations, 3). Repeated points in a triple are allowed: such a triple only fits badly."""
    if weights is None:
        return rng.integers(m, size=(iterations, MIN_POINTS))
    return rng.choice(m, size=(iterations, MIN_POINTS), p=weights / weights.sum())


def _cost(squares: NDArray[Any], weights: NDArray[Any] | None) -> NDArray[np.float64]:
    """Return the (weighted) sums (...,) of squared residuals (..., m)."""
    return np.sum(squares, axis=-1) if weights is None else squares @ (weights / weights.sum())


def _residuals(motions: NDArray[Any], a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Return the distances (..., m) between the points ``a`` (m, 3), moved by motions (..., 4, 4), and ``b`` (m, 3)."""
    moved = a @ np.swapaxes(motions[..., :3, :3], -1, -2) + motions[..., None, :3, 3]
    return np.linalg.norm(moved - b, axis=-1)


def _on_a_line(points: NDArray[Any]) -> bool:
    along, across, _ = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return across <= LINE * along
