"""SIFT keypoints (Lowe, IJCV 2004) with RootSIFT descriptors, the classical baseline for relative pose.

The accuracy of dense features is bounded by their stride; keypoints are localised with sub-pixel accuracy where the
image has texture. Matches must pass Lowe's ratio test, 0.8 as in section 7.1 of the paper.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RATIO, MAX_KEYPOINTS = 0.8, 2000  # defaults: largest ratio of the two smallest distances; keypoints per image
DIM = 128


def detect(rgb: NDArray[np.uint8], max_keypoints: int = MAX_KEYPOINTS) -> tuple[NDArray[np.float64], Tensor]:
    """Detect and describe the keypoints of an image.

    Args:
        rgb: (h, w, 3).
        max_keypoints: maximum number of keypoints; those of the highest contrast are kept.

    Returns:
        Positions (m, 2), pixels (the centre of the first pixel is at 0.5), and L2-normalised RootSIFT descriptors (m,
        128) (Arandjelovic and Zisserman, CVPR 2012).
    """
    # Without precise upscaling, all positions are off by a quarter of a pixel in both directions.
    sift = cv2.SIFT_create(nfeatures=max_keypoints, enable_precise_upscale=True)
    found, descriptors = sift.detectAndCompute(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), None)
    if not found:
        return np.empty((0, 2)), torch.empty(0, DIM)
    normalised = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-7)
    return np.array([keypoint.pt for keypoint in found]) + 0.5, torch.from_numpy(np.sqrt(normalised))


def min_score(ratio: float) -> float:
    """Return the minimum score 1 - D1 / D2, with cosine distances D, of a match that passes the ratio test.

    The Euclidean distance of L2-normalised vectors is sqrt(2 D), so a ratio of Euclidean distances is the root of D1 /
    D2.
    """
    return 1 - ratio**2
