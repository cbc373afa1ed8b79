"""Robust estimation of the motion between two cameras from matches, with depth (rigid) and without (essential).

:mod:`loco.evaluation.relative_pose` states the methods and their sources.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from loco.geometry.alignment import robust_rigid_fit

MIN_ESSENTIAL = 5  # number of matches that determine an essential matrix
CONFIDENCE = 0.99999  # confidence at which the search for an essential matrix ends early, as in SuperGlue
FAR = 1e9  # distance, in baselines, beyond which triangulated points are rejected; OpenCV's default is 50

Motion = tuple[NDArray[np.float64], int]  # (4, 4), x_b = R x_a + t, and the number of inliers


def rigid_motion(
    a: NDArray,
    b: NDArray,
    distance: float,
    iterations: int,
    rng: np.random.Generator,
    weights: NDArray[np.floating] | None = None,
) -> Motion | None:
    """Estimate the rigid motion from points ``a`` to ``b``, (m, 3), each in its camera frame, metres; None on failure.

    See :func:`loco.geometry.alignment.robust_rigid_fit` for the arguments.
    """
    found = robust_rigid_fit(a, b, distance, iterations, rng, weights)
    return found and (found[0], int(found[1].sum()))


def essential_motion(
    uv_a: NDArray[np.floating],
    uv_b: NDArray[np.floating],
    k_a: NDArray[np.floating],
    k_b: NDArray[np.floating],
    pixels: float,
    iterations: int,
    rng: np.random.Generator,
    weights: NDArray[np.floating] | None = None,
) -> Motion | None:
    """Estimate the motion from camera A to camera B from matched pixels, with a translation of length 1.

    Args:
        uv_a: (m, 2), pixels of A.
        uv_b: (m, 2), pixels of B.
        k_a: (3, 3), intrinsics of A.
        k_b: (3, 3), intrinsics of B.
        pixels: distance of a match from its epipolar line below which it is an inlier, pixels.
        iterations: maximum number of random samples.
        rng: random number generator.
        weights: (m,), weights of the matches; matches of greater weight are drawn first. None for uniform draws.

    Returns:
        Of the four motions of the essential matrix, the one for which most points lie in front of both cameras, and the
        number of inliers; None if there are fewer than five matches, or if the estimation fails.
    """
    if len(uv_a) < MIN_ESSENTIAL:
        return None
    search = cv2.UsacParams()
    search.score, search.loMethod = cv2.SCORE_METHOD_MAGSAC, cv2.LOCAL_OPTIM_SIGMA
    search.confidence, search.threshold, search.maxIterations = CONFIDENCE, pixels, iterations
    search.randomGeneratorState = int(rng.integers(2**31))
    if weights is not None:
        order = np.argsort(-weights, kind="stable")
        uv_a, uv_b, search.sampler = uv_a[order], uv_b[order], cv2.SAMPLING_PROSAC
    undistorted = np.zeros(4)
    essential, agree = cv2.findEssentialMat(uv_a, uv_b, k_a, k_b, undistorted, undistorted, search)
    if essential is None or essential.shape != (3, 3):
        return None
    count = int(np.count_nonzero(agree))
    rays_a, rays_b = ((uv - k[:2, 2]) @ np.linalg.inv(k[:2, :2]).T for uv, k in ((uv_a, k_a), (uv_b, k_b)))
    before, rotation, translation, *_ = cv2.recoverPose(
        essential, rays_a, rays_b, np.eye(3), distanceThresh=FAR, mask=agree
    )
    if before == 0:
        return None
    return np.vstack([np.hstack([rotation, translation]), [0, 0, 0, 1]]), count
