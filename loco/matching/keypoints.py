"""Keypoints of an image with descriptors from its feature map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loco.evaluation import sift_keypoints
from loco.evaluation.global_descriptors import gem
from loco.geometry.patches import extent_of, grid_size, patch_centres
from loco.geometry.sampling import sample_features


class Keypoints(NamedTuple):
    """Keypoints of an image.

    ``positions`` (n, 2) float32, pixels (u, v), the centre of the first pixel at 0.5; ``descriptors`` (n, c) float32,
    L2-normalised.
    """

    positions: NDArray[np.float32]
    descriptors: NDArray[np.float32]


def detect(rgb: NDArray[np.uint8], detector: str, stride: int, max_keypoints: int) -> NDArray[np.float64]:
    """Return the positions (n, 2) of the keypoints of an image, pixels.

    Args:
        rgb: (h, w, 3), the image.
        detector: one of :data:`loco.matching.DETECTORS`: ``patches``, the centres of all patches within the image, or
            ``sift``, the SIFT keypoints of OpenCV.
        stride: pixels per side of a patch.
        max_keypoints: maximum number of SIFT keypoints; those of the highest contrast are kept.
    """
    if detector == "sift":
        positions, _ = sift_keypoints.detect(rgb, max_keypoints)
        return np.unique(positions, axis=0)  # a position with several orientations has one descriptor here
    height, width = rgb.shape[:2]
    grid = grid_size((height, width), stride)
    centres = patch_centres(grid, extent_of(grid, stride)).reshape(-1, 2)
    return centres[(centres < (width, height)).all(axis=1)]


def describe(feature_map: Tensor, positions: NDArray[np.floating], stride: int) -> Keypoints:
    """Return keypoints with the features at their positions, interpolated bilinearly.

    Args:
        feature_map: (c, h, w), L2-normalised; cell (r, q) is centred at pixel ((q + 0.5) stride, (r + 0.5) stride).
        positions: (n, 2), pixels.
        stride: pixels per side of a cell.
    """
    extent = extent_of((feature_map.shape[1], feature_map.shape[2]), stride)
    uv = torch.from_numpy(positions).to(feature_map.device)
    descriptors = sample_features(feature_map.permute(1, 2, 0), uv, extent)
    return Keypoints(positions.astype(np.float32), descriptors.cpu().numpy())


def global_descriptor(feature_map: Tensor) -> Tensor:
    """Return the descriptor (c,) of an image for retrieval: the generalised mean of its patches with exponent 3.

    Args:
        feature_map: (c, h, w), L2-normalised.
    """
    return gem(feature_map.flatten(1).T.float().cpu(), exponent=3)
