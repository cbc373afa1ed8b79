"""SIFT keypoints (Lowe, IJCV 2004) with RootSIFT descriptors, the classical reference of relative pose.

Features on a grid are bounded by its stride; keypoints are found to a fraction of a pixel, where the image has texture.
Their matches pass Lowe's ratio test, 0.8 as in section 7.1 of his paper.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RATIO, MOST = 0.8, 2000  # defaults: of the distances to the nearest and second nearest; keypoints of an image
DIM = 128


def detect(rgb: NDArray[np.uint8], most: int = MOST) -> tuple[NDArray[np.float64], Tensor]:
    """Detect and describe the keypoints of an image.

    Args:
        rgb: (h, w, 3).
        most: keypoints to keep, those of the highest contrast.

    Returns:
        Positions (m, 2), pixels (the centre of the first pixel is at 0.5), and RootSIFT descriptors (m, 128) of unit
        length (Arandjelovic and Zisserman, CVPR 2012).
    """
    # Without the precise upscaling, all positions are off by a quarter of a pixel in both directions.
    sift = cv2.SIFT_create(nfeatures=most, enable_precise_upscale=True)
    found, descriptors = sift.detectAndCompute(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), None)
    if not found:
        return np.empty((0, 2)), torch.empty(0, DIM)
    share = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-7)
    return np.array([keypoint.pt for keypoint in found]) + 0.5, torch.from_numpy(np.sqrt(share))


def least_score(ratio: float) -> float:
    """Score 1 - D1 / D2 of cosine distances that a match reaches if it passes the ratio test.

    Of unit vectors the Euclidean distance is sqrt(2 D), so a ratio of Euclidean distances is the root of D1 / D2.
    """
    return 1 - ratio**2
