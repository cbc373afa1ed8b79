"""What the ranking losses share: their inputs, the classes of pairs, and the smooth average precision.

Patches i and j of one scene, at distance r = |p_i - p_j|, form a *positive* pair if r <= rho, a *negative* pair if
rho < r <= kappa, and take no part beyond. Positives within one image, neighbours that look alike whatever the features,
can be left out. A pair's score is s = f_i . f_j. With sigma(x) = 1 / (1 + exp(-x / tau)), the
smooth average precision of a positive pair a is (LoCo, NeurIPS 2024, eq. 2)

    AP(a) = (1 + R_P(a)) / (1 + R_P(a) + R_N(a)),
    R_P(a) = sum over the other positives b of sigma(s_b - s_a),   R_N(a) = sum over negatives g of sigma(s_g - s_a).

The loss is 1 minus the mean AP over the positive pairs, between 0 and 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Patches(NamedTuple):
    """The patches that can form pairs."""

    features: Tensor  # (m, d)
    points: Tensor  # (m, 3) float32, metres
    scene_ids: Tensor  # (m,) int64
    image_ids: Tensor  # (m,) int64; patches of equal numbers form no positive pair


class RankingLoss(torch.nn.Module):
    """Base of the ranking losses: a radius for positives, one for negatives, a temperature."""

    def __init__(self, rho: float, kappa: float, tau: float) -> None:
        """
        Args:
            rho: pairs up to this distance are positive, metres.
            kappa: pairs beyond this distance are ignored, metres.
            tau: temperature of the sigmoid, in units of similarity.

        Raises:
            ValueError: not 0 < rho < kappa, or not tau > 0.
        """
        super().__init__()
        if not 0 < rho < kappa:
            raise ValueError(f"the radii must satisfy 0 < rho < kappa, found rho = {rho}, kappa = {kappa}")
        if not tau > 0:
            raise ValueError(f"the temperature tau must be positive, found {tau}")
        self.rho, self.kappa, self.tau = rho, kappa, tau

    def forward(
        self,
        features: Tensor,
        points: Tensor,
        scene_ids: Tensor | None = None,
        valid: Tensor | None = None,
        image_ids: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch of patches.

        Args:
            features: (n, d), unit rows.
            points: (n, 3), metres, world frame of their scene.
            scene_ids: (n,) integers; patches of different scenes never form pairs. One scene if None.
            valid: (n,) bool; patches without a 3D point form no pairs. All valid if None.
            image_ids: (n,) integers, different for different images of all scenes; patches of one image then form no
                positive pair. All patches may if None.

        Returns:
            The loss, a scalar; and a log: ``positives`` and ``negatives`` (numbers of pairs), ``mean_ap``. Without a
            positive pair there is nothing to rank: the loss is 0, with zero gradient, and ``mean_ap`` is NaN.

        Raises:
            ValueError: the shapes do not fit together.
        """
        return self.loss(_select(features, points, scene_ids, valid, image_ids))

    def loss(self, patches: Patches) -> tuple[Tensor, dict[str, float]]:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"rho={self.rho}, kappa={self.kappa}, tau={self.tau}"


def _select(
    features: Tensor, points: Tensor, scene_ids: Tensor | None, valid: Tensor | None, image_ids: Tensor | None
) -> Patches:
    """Check the inputs of a ranking loss and keep the valid patches."""
    n, device = len(features), features.device
    shapes = {
        "features (n, d)": features.ndim == 2,
        "points (n, 3)": points.shape == (n, 3),
        "scene_ids (n,)": scene_ids is None or scene_ids.shape == (n,),
        "valid (n,)": valid is None or valid.shape == (n,),
        "image_ids (n,)": image_ids is None or image_ids.shape == (n,),
    }
    if wrong := [name for name, right in shapes.items() if not right]:
        names = (name.split()[0] for name in shapes)
        given = zip(names, (features, points, scene_ids, valid, image_ids))
        found = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in given if tensor is not None)
        raise ValueError(f"wrong shape of {', '.join(wrong)}; found {found}")
    if scene_ids is None:
        scene_ids = torch.zeros(n, dtype=torch.int64, device=device)
    if image_ids is None:
        image_ids = torch.arange(n, device=device)
    keep = slice(None) if valid is None else valid.bool()
    return Patches(features[keep], points[keep], scene_ids[keep], image_ids[keep])


def nothing_to_rank(features: Tensor, negatives: int) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch without positive pairs: 0, with zero gradient."""
    return features.sum() * 0.0, {"positives": 0, "negatives": negatives, "mean_ap": float("nan")}
