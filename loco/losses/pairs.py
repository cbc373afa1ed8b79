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

from loco.losses.patches import Patches
from loco.losses.processes import Group, gather_patches, place


class Scale(NamedTuple):
    """Radii of the positive and of the negative pairs, metres."""

    rho: float
    kappa: float


class RankingLoss(torch.nn.Module):
    """Base of the ranking losses: a radius for positives, one for negatives, a temperature."""

    takes_several_scales = False
    takes_half = False  # else features of half precision are widened for it

    def __init__(
        self,
        rho: float | Sequence[float],
        kappa: float | Sequence[float],
        tau: float,
        same_image: float = 0.0,
        ratio: float = 1.0,
        group: Group = None,
    ) -> None:
        """
        Args:
            rho: pairs up to this distance are positive, metres. Several radii, with as many ``kappa``, are several
                scales: the loss is the mean of theirs.
            kappa: pairs beyond this distance are ignored, metres.
            tau: temperature of the sigmoid, in units of similarity.
            same_image: weight of the positive pairs within one image, 0 (left out) to 1.
            ratio: factor c of the negatives.
            group: processes whose patches form one batch, each calling the loss with its own
                (:mod:`loco.losses.processes`); None for this process alone.

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
        self.group = group

    @torch.compiler.disable  # it is matrix products and table look-ups, whose number depends on the points
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
            features: (n, d), unit rows. Half precision is widened: the loss computes in float32, or float64, under
                autocast too. The gradient has their own type.
            points: (n, 3), metres, world frame of their scene.
            scene_ids: (n,) integers; patches of different scenes never form pairs. One scene if None.
            valid: (n,) bool; patches without a 3D point form no pairs. All valid if None.
            image_ids: (n,) integers, different for different images of all scenes and processes: see ``same_image``.
                Every patch is its own image if None.

        Returns:
            The loss, a scalar; and a log: ``positives`` and ``negatives`` (numbers of pairs of
            any weight but 0, summed over the scales), ``mean_ap``; of several scales also ``mean_ap_<rho>``. Without a
            positive pair there is nothing to rank: a scale takes no part in the mean, and if there is no other the loss
            is 0, with zero gradient. Its ``mean_ap`` is NaN. All are of the whole batch of a group.

        Raises:
            ValueError: the shapes do not fit together.
        """
        with torch.autocast(features.device.type, enabled=False):
            patches, _ = self._batch(features, points, scene_ids, valid, image_ids)
            return self.loss(patches)

    def _batch(self, features: Tensor, points: Tensor, *rest: Tensor | None) -> tuple[Patches, slice]:
        """The patches of the whole batch, and which of them are this process's."""
        patches, mine = gather_patches(select(features, points, *rest, self.group), self.group)
        if not self.takes_half:
            patches = patches._replace(features=patches.features.to(wide_type(features)))
        return patches, mine

    def loss(self, patches: Patches) -> tuple[Tensor, dict[str, float]]:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"rho={self.rho}, kappa={self.kappa}, tau={self.tau}, same_image={self.same_image}, ratio={self.ratio}"


class AllPairsLoss(RankingLoss):
    """A ranking loss that ranks every positive pair, and so can tell how well each patch is recognised."""

    takes_several_scales = True

    @torch.no_grad()
    def patch_precision(
        self,
        features: Tensor,
        points: Tensor,
        scene_ids: Tensor | None = None,
        valid: Tensor | None = None,
        image_ids: Tensor | None = None,
    ) -> Tensor:
        """Mean AP over the positive pairs of each patch, of all scales, weighted as in the loss.

        LoCUS (ICCV 2023) takes the patches that do best for landmarks. Arguments as of a call. Returns (n,), NaN for a
        patch without a positive pair.
        """
        with torch.autocast(features.device.type, enabled=False):
            patches, mine = self._batch(features, points, scene_ids, valid, image_ids)
            precision = self.precision(patches)[mine]
        if valid is None:
            return precision
        return precision.new_full((len(features),), float("nan")).masked_scatter_(valid.bool(), precision)

    def precision(self, patches: Patches) -> Tensor:
        raise NotImplementedError


def _scales(rho: float | Sequence[float], kappa: float | Sequence[float]) -> list[Scale]:
    rhos, kappas = (list(radius) if isinstance(radius, Sequence) else [radius] for radius in (rho, kappa))
    if len(rhos) != len(kappas) or not rhos or len(set(rhos)) < len(rhos):
        raise ValueError(f"each scale must have its own rho and a kappa, found rho = {rho}, kappa = {kappa}")
    for near, far in zip(rhos, kappas):
        if not 0 < near < far:
            raise ValueError(f"the radii must satisfy 0 < rho < kappa, found rho = {near}, kappa = {far}")
    return [Scale(*radii) for radii in zip(rhos, kappas)]


def select(
    features: Tensor,
    points: Tensor,
    scene_ids: Tensor | None,
    valid: Tensor | None,
    image_ids: Tensor | None,
    group: Group = None,
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
        process, _ = place(group)
        image_ids = torch.arange(n, device=device) + (process << 40)
    keep = slice(None) if valid is None else valid.bool()
    return Patches(features[keep], points[keep], scene_ids[keep], image_ids[keep])


def wide_type(features: Tensor) -> torch.dtype:
    """Float32, or float64 as it is."""
    return torch.promote_types(features.dtype, torch.float32)


def nothing_to_rank(features: Tensor, negatives: int) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch without positive pairs: 0, with zero gradient."""
    return features.sum(dtype=wide_type(features)) * 0.0, {
        "positives": 0,
        "negatives": negatives,
        "mean_ap": float("nan"),
    }


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
