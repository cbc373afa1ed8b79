"""What the ranking losses share: their inputs, the classes of pairs, and the smooth average precision.

Patches i and j of one scene, at distance r = |p_i - p_j|, form a *positive* pair if r <= rho, a *negative* pair if
rho < r <= kappa, and take no part beyond. A pair's score is s = f_i . f_j. With sigma(x) = 1 / (1 + exp(-x / tau)), the
smooth average precision of a positive pair a is (LoCo, NeurIPS 2024, eq. 2)

    AP(a) = (1 + R_P(a)) / (1 + R_P(a) + c R_N(a)),
    R_P(a) = sum over the other positives b of w_b sigma(s_b - s_a),
    R_N(a) = sum over negatives g of sigma(s_g - s_a).

The loss is 1 minus the mean AP over the positive pairs, weighted by w_a, between 0 and 1. The weight w is 1 for pairs
across images. Positives within one image, neighbours that look alike whatever the features, weigh less or nothing. The
ratio c makes up for a batch whose share of negatives is not that of the scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Patches(NamedTuple):
    """The patches that can form pairs."""

    features: Tensor  # (m, d) float32 or float64
    points: Tensor  # (m, 3) float32, metres
    scene_ids: Tensor  # (m,) int64
    image_ids: Tensor  # (m,) int64; positive pairs of equal numbers weigh `same_image`


class Scale(NamedTuple):
    """Radii of the positive and of the negative pairs, metres."""

    rho: float
    kappa: float


class RankingLoss(torch.nn.Module):
    """Base of the ranking losses: a radius for positives, one for negatives, a temperature."""

    takes_several_scales = False

    def __init__(
        self,
        rho: float | Sequence[float],
        kappa: float | Sequence[float],
        tau: float,
        same_image: float = 0.0,
        ratio: float = 1.0,
    ) -> None:
        """
        Args:
            rho: pairs up to this distance are positive, metres. Several radii, with as many ``kappa``, are several
                scales: the loss is the mean of theirs.
            kappa: pairs beyond this distance are ignored, metres.
            tau: temperature of the sigmoid, in units of similarity.
            same_image: weight of the positive pairs within one image, 0 (left out) to 1.
            ratio: factor c of the negatives.

        Raises:
            ValueError: not 0 < rho < kappa, or another option out of its range.
        """
        super().__init__()
        self.scales = _scales(rho, kappa)
        if len(self.scales) > 1 and not self.takes_several_scales:
            raise ValueError(f"{type(self).__name__} takes one scale: rho and kappa must be numbers")
        if not tau > 0:
            raise ValueError(f"the temperature tau must be positive, found {tau}")
        if not 0 <= same_image <= 1:
            raise ValueError(f"the weight same_image must lie in [0, 1], found {same_image}")
        if not ratio > 0:
            raise ValueError(f"the ratio must be positive, found {ratio}")
        self.rho, self.kappa, self.tau, self.same_image, self.ratio = rho, kappa, tau, same_image, ratio

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
            features: (n, d), unit rows. In half precision they are widened: the loss computes in float32, or float64,
                under autocast too. The gradient has their own type.
            points: (n, 3), metres, world frame of their scene.
            scene_ids: (n,) integers; patches of different scenes never form pairs. One scene if None.
            valid: (n,) bool; patches without a 3D point form no pairs. All valid if None.
            image_ids: (n,) integers, different for different images of all scenes: see ``same_image``. Every patch is
                its own image if None.

        Returns:
            The loss, a scalar; and a log: ``positives`` and ``negatives`` (numbers of pairs of
            any weight but 0, summed over the scales), ``mean_ap``; of several scales also ``mean_ap_<rho>``. Without a
            positive pair there is nothing to rank: a scale takes no part in the mean, and if there is no other the loss
            is 0, with zero gradient. Its ``mean_ap`` is NaN.

        Raises:
            ValueError: the shapes do not fit together.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self.loss(select(features, points, scene_ids, valid, image_ids))

    def loss(self, patches: Patches) -> tuple[Tensor, dict[str, float]]:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"rho={self.rho}, kappa={self.kappa}, tau={self.tau}, same_image={self.same_image}, ratio={self.ratio}"


def _scales(rho: float | Sequence[float], kappa: float | Sequence[float]) -> list[Scale]:
    rhos, kappas = (list(radius) if isinstance(radius, Sequence) else [radius] for radius in (rho, kappa))
    if len(rhos) != len(kappas) or not rhos or len(set(rhos)) < len(rhos):
        raise ValueError(f"each scale must have its own rho and a kappa, found rho = {rho}, kappa = {kappa}")
    for near, far in zip(rhos, kappas):
        if not 0 < near < far:
            raise ValueError(f"the radii must satisfy 0 < rho < kappa, found rho = {near}, kappa = {far}")
    return [Scale(*radii) for radii in zip(rhos, kappas)]


def select(
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
    if features.dtype != torch.float64:
        features = features.float()
    keep = slice(None) if valid is None else valid.bool()
    return Patches(features[keep], points[keep], scene_ids[keep], image_ids[keep])


def nothing_to_rank(features: Tensor, negatives: int) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch without positive pairs: 0, with zero gradient."""
    return features.sum() * 0.0, {"positives": 0, "negatives": negatives, "mean_ap": float("nan")}


def mean_of_scales(
    scales: list[Scale], mean_ap: Tensor, positives: Tensor, negatives: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Loss and log of a batch from the mean AP and the numbers of pairs of each scale, (K,) each.

    A scale without positive pairs takes no part; one has some.
    """
    ranked = positives > 0
    mean = mean_ap[ranked].mean()
    log = {"positives": int(positives.sum()), "negatives": int(negatives.sum()), "mean_ap": mean.item()}
    if len(scales) > 1:
        each = mean_ap.detach().masked_fill(~ranked, float("nan")).tolist()
        log |= {f"mean_ap_{scale.rho:g}": value for scale, value in zip(scales, each)}
    return 1 - mean, log
