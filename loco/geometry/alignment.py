"""The rigid motion between two sets of points, of which many may be matched wrongly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST = 3  # points that determine a motion
BLOCK = 2**18  # residuals at a time
REFINEMENTS = 20  # at most; a few do
LINE = 1e-3  # points that spread less across a line, as a part of how they spread along it, leave a turn about it open


def rigid_fit(
    a: NDArray[np.floating], b: NDArray[np.floating], weights: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """The rigid motion that takes points ``a`` nearest to points ``b``, in the sense of (weighted) least squares.

    Kabsch (1976), and as Umeyama (1991) never a reflection. Where the points lie on a line, one of many.

    Args:
        a: (..., m, 3), metres.
        b: (..., m, 3), which each of them should come to.
        weights: (..., m), of the squared residuals, not negative, of a positive sum; their scale has no effect. Equal
            if None.

    Returns:
        (..., 4, 4), b = R a + t.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    share = None if weights is None else (weights / weights.sum(axis=-1, keepdims=True))[..., None]
    middle_a, middle_b = _centroid(a, share), _centroid(b, share)
    from_middle = a - middle_a if share is None else share * (a - middle_a)
    u, _, vt = np.linalg.svd(np.swapaxes(b - middle_b, -1, -2) @ from_middle)
    u[..., :, 2] *= np.sign(np.linalg.det(u @ vt))[..., None]
    motion = np.zeros((*a.shape[:-2], 4, 4))
    motion[..., :3, :3] = u @ vt
    motion[..., :3, 3:] = np.swapaxes(middle_b - middle_a @ np.swapaxes(u @ vt, -1, -2), -1, -2)
    motion[..., 3, 3] = 1
    return motion


def _centroid(points: NDArray[Any], share: NDArray[Any] | None) -> NDArray[np.float64]:
    """Mean (..., 1, 3) of points (..., m, 3), weighted by ``share`` (..., m, 1) of sum 1."""
    if share is None:
        return points.mean(axis=-2, keepdims=True)
    return (share * points).sum(axis=-2, keepdims=True)


def robust_rigid_fit(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    distance: float,
    iterations: int,
    rng: np.random.Generator,
    weights: NDArray[np.floating] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """The rigid motion that most points agree to.

    Motions are proposed by triples of points drawn at random (RANSAC, Fischler and Bolles 1981) and rated by the sum
    of squared residuals, each at most ``distance``^2 (MSAC, Torr and Zisserman 2000). The best is fitted anew to the
    points that it takes to within ``distance`` of their places, until these are the same.

    With ``weights``, points are drawn in proportion to them, and they weight the sum and the fits (as El Banani et al.,
    "UnsupervisedR&R", CVPR 2021, section 3.3, weight theirs). Which points agree does not depend on them.

    Args:
        a: (m, 3), metres.
        b: (m, 3), where each of them may be taken.
        distance: residual of a point that agrees, metres.
        iterations: triples to draw.
        rng: of the draws.
        weights: (m,), positive; their scale has no effect. Equal if None.

    Returns:
        The motion (4, 4), b = R a + t, and which points agree (m,). None where these are fewer than three or on a line,
        so that they determine none.
    """
    if len(a) < LEAST:
        return None
    triples = _draw(len(a), iterations, rng, weights)
    motions = rigid_fit(a[triples], b[triples])
    blocks = np.array_split(motions, -(-iterations * len(a) // BLOCK))
    costs = [_cost(np.minimum(_residuals(block, a, b), distance) ** 2, weights) for block in blocks]
    motion = motions[np.argmin(np.concatenate(costs))]
    agreeing = np.zeros(len(a), dtype=bool)
    for _ in range(REFINEMENTS):
        before, agreeing = agreeing, _residuals(motion, a, b) < distance
        if agreeing.sum() < LEAST or _on_a_line(a[agreeing]):
            return None
        if np.array_equal(before, agreeing):
            break
        motion = rigid_fit(a[agreeing], b[agreeing], None if weights is None else weights[agreeing])
    return motion, agreeing


def _draw(m: int, iterations: int, rng: np.random.Generator, weights: NDArray[Any] | None) -> NDArray[np.integer]:
    """Numbers of points (iterations, 3); a triple that repeats a point merely fits badly."""
    if weights is None:
        return rng.integers(m, size=(iterations, LEAST))
    return rng.choice(m, size=(iterations, LEAST), p=weights / weights.sum())


def _cost(squares: NDArray[Any], weights: NDArray[Any] | None) -> NDArray[np.float64]:
    """Sums (...,) of squared residuals (..., m)."""
    return np.sum(squares, axis=-1) if weights is None else squares @ (weights / weights.sum())


def _residuals(motions: NDArray[Any], a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Distances (..., m) from where motions (..., 4, 4) take points (m, 3) to where they should come."""
    moved = a @ np.swapaxes(motions[..., :3, :3], -1, -2) + motions[..., None, :3, 3]
    return np.linalg.norm(moved - b, axis=-1)


def _on_a_line(points: NDArray[Any]) -> bool:
    along, across, _ = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return across <= LINE * along
