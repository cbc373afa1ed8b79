"""The patches of a batch, the common input of the ranking losses."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Patches(NamedTuple):
    """The patches that can form pairs."""

    features: Tensor  # (m, d)
    points: Tensor  # (m, 3), metres
    scene_ids: Tensor  # (m,) int64
    image_ids: Tensor  # (m,) int64; positive pairs within one image have the weight `same_image`
