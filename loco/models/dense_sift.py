"""Dense SIFT, a classical baseline: an upright descriptor of fixed size at every cell (OpenCV)."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from loco.errors import ConfigError
from loco.models.options import MAX_STRIDE, require_sizes
from loco.models.parts import Encoder, Encoding

# OpenCV rounds the position of a keypoint to a pixel of its octave. In the octave of the image itself, the centre of a
# cell with an even side would be moved by half a pixel; in the octave of the doubled image (-1, encoded by OpenCV as
# 255), it is a pixel.
_DOUBLED_OCTAVE = 255


class DenseSIFT(Encoder):
    """SIFT descriptors (Lowe, IJCV 2004) on a grid, in the RootSIFT form of Arandjelovic and Zisserman (CVPR 2012).

    Nothing is trained. RootSIFT compares descriptors with the Hellinger kernel, which outperforms the linear one.
    """

    dim = 128

    def __init__(self, stride: int = 4, keypoint_size: float = 12.0) -> None:
        """
        Args:
            stride: pixels between descriptors.
            keypoint_size: diameter of OpenCV's keypoints, pixels; the descriptor covers six times this diameter.

        Raises:
            ConfigError: ``stride`` is not an integer from 1 to 1024, or ``keypoint_size`` is not a positive number.
        """
        super().__init__()
        require_sizes("dense_sift", MAX_STRIDE, stride=stride)
        if not (isinstance(keypoint_size, int | float) and 0 < keypoint_size < math.inf):
            raise ConfigError(f"dense_sift: `keypoint_size` must be a positive number, found {keypoint_size!r}")
        self.stride, self.keypoint_size = stride, keypoint_size
        self._sift = cv2.SIFT_create()

    def forward(self, images: Tensor) -> Encoding:
        maps = [self._describe(image) for image in (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()]
        return Encoding(torch.from_numpy(np.stack(maps)).permute(0, 3, 1, 2).to(images.device))

    def _describe(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        rows, columns = height // self.stride, width // self.stride
        # OpenCV places pixel centres at integers: subtract 0.5 from our cell centre (q + 0.5) * stride.
        keypoints = [
            cv2.KeyPoint(
                (q + 0.5) * self.stride - 0.5,
                (r + 0.5) * self.stride - 0.5,
                self.keypoint_size,
                0.0,
                1.0,
                _DOUBLED_OCTAVE,
            )
            for r in range(rows)
            for q in range(columns)
        ]
        described, descriptors = self._sift.compute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), keypoints)
        if len(described) != len(keypoints):
            raise RuntimeError(f"OpenCV returned descriptors for {len(described)} of {len(keypoints)} keypoints")
        normalised = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-7)
        return np.sqrt(normalised).reshape(rows, columns, self.dim)
