"""The motion between two cameras that most matches agree to, with depth (rigid) and without (essential).

:mod:`loco.evaluation.relative_pose` states the methods and their sources.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from loco.geometry.alignment import robust_rigid_fit

LEAST_ESSENTIAL = 5  # matches that determine an essential matrix
CONFIDENCE = 0.99999  # that a better essential matrix was not missed, before the search ends early; SuperGlue's
FAR = 1e9  # baselines; OpenCV takes points farther than 50 for none

Motion = tuple[NDArray[np.float64], int]  # (4, 4), x_b = R x_a + t, and how many matches agree to it


def rigid_motion(
    a: NDArray,
    b: NDArray,
    distance: float,
    iterations: int,
    rng: np.random.Generator,
    weights: NDArray[np.floating] | None = None,
) -> Motion | None:
    """The motion that takes points ``a`` (m, 3) to ``b`` (m, 3), each in its camera's frame, metres; None if none does.

    ``distance``, metres: nearer to its place than this, a point agrees. ``weights`` (m,) of the matches, positive.
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
    """The motion from camera A to camera B that matched pixels tell, its translation of length 1.

    Args:
        uv_a: (m, 2), pixels of A.
        uv_b: (m, 2), pixels of B.
        k_a: (3, 3), intrinsics of A.
        k_b: (3, 3), intrinsics of B.
        pixels: nearer to its epipolar line than this, a match agrees.
        iterations: samples to draw at most.
        rng: of the draws.
        weights: (m,), of the matches: those of greater weight are drawn first. Drawn alike if None.

    Returns:
        The motion, with the points before both cameras; None if there are fewer than five matches, or none is found.
    """
    if len(uv_a) < LEAST_ESSENTIAL:
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
