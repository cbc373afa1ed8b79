"""What the ranking losses share: their options, the classes of pairs, and the smooth average precision.

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

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

from loco.losses.inputs import Selection, require_unit_rows, select, unit_rows, wide_type
from loco.losses.log import Log
from loco.losses.patches import Patches
from loco.losses.processes import Group, gather_patches

Ranking: TypeAlias = Literal["batch", "query"]


class Scale(NamedTuple):
    """Radii of the positive and of the negative pairs, metres; ``kappa`` may be infinite."""

    rho: float
    kappa: float


class RankingLoss(torch.nn.Module):
    """Base of the ranking losses: a radius for positives, one for negatives, a temperature."""

    takes_several_scales = False
    takes_half = False  # on a GPU; else features of half precision are widened for it
    takes_tau = True  # whether there is a temperature
    takes_transforms = False  # those of torch.func, but for vmap; and derivatives in forward mode
    smallest_tau = 0.0  # what the loss can compute in memory

    rho: float | list[float]  # lists if they were passed as such
    kappa: float | list[float]

    def __init__(
        self,
        rho: float | Sequence[float],
        kappa: float | Sequence[float | None] | None,
        tau: float | None,
        same_image: float = 0.0,
        ratio: float = 1.0,
        group: Group = None,
        normalise: bool = True,
    ) -> None:
        """
        Args:
            rho: pairs up to this distance are positive, metres. Several radii, with as many ``kappa``, are several
                scales: the loss is the mean of theirs.
            kappa: pairs beyond this distance are ignored, metres; infinity or None: all pairs of a scene count.
            tau: temperature of the sigmoid, in units of similarity; :class:`~loco.losses.ExactSmoothAP` has a smallest
                one, :data:`loco.losses.histograms.SMALLEST_TAU`.
                None for a loss without a temperature.
            same_image: weight of the positive pairs within one image, 0 (left out) to 1.
            ratio: factor c of the negatives.
            group: processes whose patches form one batch, each calling the loss with its own
                (:mod:`loco.losses.processes`); None for this process alone.
            normalise: divide the features by their lengths; the gradient is that of the features as they were passed.
                If false, the loss requires rows of unit length, and uses them as they are.

        Raises:
            ValueError: not 0 < rho < kappa, or another option out of its range.
        """
        super().__init__()
        self.scales = _scales(rho, kappa)
        if len(self.scales) > 1 and not self.takes_several_scales:
            raise ValueError(f"{type(self).__name__} takes one scale: rho and kappa must be numbers")
        if not 0 <= same_image <= 1:
            raise ValueError(f"the weight same_image must lie in [0, 1], found {same_image}")
        if not 0 < ratio < math.inf:
            raise ValueError(f"the ratio must be positive and finite, found {ratio}")
        radii = [[scale.rho for scale in self.scales], [scale.kappa for scale in self.scales]]
        as_lists = isinstance(rho, Sequence) and self.takes_several_scales
        self.rho, self.kappa = radii if as_lists else (radius for (radius,) in radii)
        self.same_image, self.ratio = same_image, ratio
        self.group, self.normalise = group, normalise
        if self.takes_tau:
            self.tau = tau

    @property
    def tau(self) -> float:
        """The temperature. It may be changed between two calls (not between a call and its backward pass)."""
        return self._tau

    @tau.setter
    def tau(self, tau: float | None) -> None:
        if not self.takes_tau:
            raise AttributeError(f"{type(self).__name__} has no temperature")
        if tau is None or not 0 < tau < math.inf:
            raise ValueError(f"the temperature tau must be positive and finite, found {tau}")
        if tau < self.smallest_tau:
            raise ValueError(
                f"the temperature tau of {type(self).__name__} must be at least {self.smallest_tau:g}, found {tau}: "
                "its tables grow with 1 / tau"
            )
        self._tau = tau

    @torch.compiler.disable  # it is matrix products and table look-ups, whose number depends on the points
    def forward(
        self,
        features: Tensor,
        points: Tensor,
        scene_ids: Tensor | None = None,
        valid: Tensor | None = None,
        image_ids: Tensor | None = None,
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Loss of a batch of patches.

        A batch is a list of patches, or feature maps as a network returns them. Both give the same loss.

        Args:
            features: (n, d), or maps (b, d, h, w). Their length does not matter, unless ``normalise`` is false. Half
                precision is widened: the loss computes in float32, or float64, under autocast too. The gradient has
                their own type.
            points: (n, 3), or (b, h, w, 3); metres, world frame of their scene; floating-point numbers or integers.
                They are constants: no gradient is computed for them. A patch with a coordinate that is not finite
                forms no pairs.
            scene_ids: (n,), or (b, h, w), or one per map (b,), integers; patches of different scenes never form pairs.
                One scene if None.
            valid: (n,) or (b, h, w), bool, or 0 and 1; patches without a 3D point form no pairs. All valid if None.
            image_ids: (n,), (b, h, w) or (b,), integers, different for different images of all scenes and processes:
                see ``same_image``. Every patch is its own image if None, those of a map too.

        Returns:
            The loss, a scalar; and a log: ``positives`` and ``negatives`` (numbers of pairs of
            any weight but 0, summed over the scales), ``mean_ap``; of several scales also ``mean_ap_<rho>``. Without a
            positive pair there is nothing to rank: a scale takes no part in the mean, and if there is no other the loss
            is 0, with zero gradient. Its ``mean_ap`` is NaN. (A loss on a GPU may return the log as a
            :class:`loco.losses.log.Log`, which waits for a number when it is looked up.) If a feature of a patch that
            could form pairs is not finite, the loss and its gradient are NaN, so a ``GradScaler`` skips the step. All
            are of the whole batch of a group.

        Raises:
            ValueError: the shapes or types do not fit together; rows that are not of unit length with
                ``normalise=False``.
            RuntimeError: ``torch.func.vmap``; another transform of ``torch.func`` or a derivative in forward mode of a
                loss that supports none.
        """
        self._require_no_transform(features)
        with torch.autocast(features.device.type, enabled=False):
            patches, is_finite, _, _ = self._batch(features, points, scene_ids, valid, image_ids)
            return self.loss(patches) if is_finite else self._not_finite(patches)

    def _batch(
        self, features: Tensor, points: Tensor, scene_ids: Tensor | None, valid: Tensor | None, image_ids: Tensor | None
    ) -> tuple[Patches, bool, Selection, slice]:
        """The patches of the whole batch, whether their features are finite, this process's, and where these are."""
        selection = select(features, points, scene_ids, valid, image_ids, self.group)
        patches, mine = gather_patches(selection.patches, self.group)
        rows, narrow = patches.features, self.takes_half and features.is_cuda
        if self.normalise:
            rows, is_finite = unit_rows(rows.to(wide_type(rows)))
        else:
            is_finite = require_unit_rows(rows)
        rows = rows.to(features.dtype if narrow else wide_type(features))
        return patches._replace(features=rows), is_finite, selection, mine

    def _not_finite(self, patches: Patches) -> tuple[Tensor, Mapping[str, float]]:
        """A loss that is NaN, and so is its gradient; the pairs are counted as they are."""
        with torch.no_grad():
            _, log = self.loss(patches._replace(features=torch.zeros_like(patches.features)))
        log = {key: math.nan if key.startswith("mean_ap") else number for key, number in log.items()}
        return patches.features.sum(dtype=wide_type(patches.features)) * math.nan, log

    def _require_no_transform(self, features: Tensor) -> None:
        if _is_batched(features):
            raise RuntimeError(
                f"{type(self).__name__} cannot be transformed by torch.func.vmap: how many pairs there are depends on "
                "the values. Call it once for each batch"
            )
        is_transformed = torch._C._are_functorch_transforms_active() or (
            forward_ad._current_level >= 0 and forward_ad.unpack_dual(features).tangent is not None
        )
        if is_transformed and not self.takes_transforms:
            raise RuntimeError(
                f"{type(self).__name__} cannot be transformed by torch.func (grad, hessian, jacfwd) and has no "
                "derivatives in forward mode: it has first derivatives by torch.autograd alone. Call backward() or "
                "torch.autograd.grad"
            )

    def loss(self, patches: Patches) -> tuple[Tensor, Mapping[str, float]]:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"rho={self.rho}, kappa={self.kappa}, tau={self.tau}, same_image={self.same_image}, ratio={self.ratio}"


def _is_batched(features: Tensor) -> bool:
    """Whether ``torch.func.vmap`` made these features, at any level of several transforms."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(features):
        if functorch.is_batchedtensor(features):
            return True
        features = functorch.get_unwrapped(features)
    return False


class AllPairsLoss(RankingLoss):
    """A ranking loss that ranks every positive pair, and so can tell how well each patch is recognised."""

    takes_several_scales = True

    def __init__(
        self,
        rho: float | Sequence[float],
        kappa: float | Sequence[float | None] | None,
        *options: Any,
        ranking: Ranking = "batch",
        weights: Sequence[float] | None = None,
        **named_options: Any,
    ) -> None:
        """
        Args:
            rho, kappa, options, named_options: as in the base class.
            ranking: what a positive pair is ranked among. ``batch``: all pairs of the batch. ``query``: the pairs of
                one of its patches, once for each of the two; the loss is 1 minus the mean over the patches that have
                a positive, the queries, of the mean AP of their positives, weighted by w.
            weights: of the scales in the mean, one positive number for each; equal if None.

        Raises:
            ValueError: as in the base class; an unknown ranking, or weights that are not as many as the scales.
        """
        super().__init__(rho, kappa, *options, **named_options)
        if ranking not in get_args(Ranking):
            raise ValueError(f"the ranking must be one of {', '.join(get_args(Ranking))}, found {ranking!r}")
        self.ranking = ranking
        weights = [1.0] * len(self.scales) if weights is None else list(weights)
        if len(weights) != len(self.scales) or not all(0 < weight < math.inf for weight in weights):
            raise ValueError(
                f"weights must be a positive number for each of {len(self.scales)} scales, found {weights}"
            )
        self.weights = weights

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

        LoCUS (ICCV 2023) takes the patches that do best for landmarks. Arguments as of a call. Returns (n,), or
        (b, h, w) for maps; NaN for a patch without a positive pair, and for all if a feature is not finite.
        """
        self._require_no_transform(features)
        with torch.autocast(features.device.type, enabled=False):
            patches, is_finite, selection, mine = self._batch(features, points, scene_ids, valid, image_ids)
            rows = patches.features
            precision = self.precision(patches) if is_finite else rows.new_full(rows.shape[:1], math.nan)
        return selection.scatter(precision.to(wide_type(rows))[mine])

    def precision(self, patches: Patches) -> Tensor:
        raise NotImplementedError


def _scales(rho: float | Sequence[float], kappa: float | Sequence[float | None] | None) -> list[Scale]:
    rhos = rho if isinstance(rho, Sequence) else [rho]
    kappas = [math.inf if far is None else far for far in (kappa if isinstance(kappa, Sequence) else [kappa])]
    if len(rhos) != len(kappas) or not rhos or len(set(rhos)) < len(rhos):
        raise ValueError(f"each scale must have its own rho and a kappa, found rho = {rho}, kappa = {kappa}")
    for near, far in zip(rhos, kappas):
        if not 0 < near < far:
            raise ValueError(f"the radii must satisfy 0 < rho < kappa, found rho = {near}, kappa = {far}")
    return [Scale(near, far) for near, far in zip(rhos, kappas)]


def nothing_to_rank(features: Tensor, negatives: int, scales: Sequence[Scale] = ()) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch without positive pairs: 0, with zero gradient."""
    names = ["mean_ap", *(f"mean_ap_{scale.rho:g}" for scale in scales if len(scales) > 1)]
    log = {"positives": 0, "negatives": negatives, **dict.fromkeys(names, math.nan)}
    return features.sum(dtype=wide_type(features)) * 0.0, log


def mean_of_scales(
    scales: list[Scale], weights: Sequence[float], mean_ap: Tensor, positives: Tensor, negatives: Tensor
) -> tuple[Tensor, Log]:
    """Loss and log of a batch from the weights, the mean AP and the numbers of pairs of each scale, (K,) each.

    A scale without positive pairs takes no part; if none has any, the loss is 0, with zero gradient. Nothing waits for
    the device.
    """
    ranked = positives > 0
    # Multiplied one by one: a copy of the list to a GPU would wait for it.
    weight = torch.stack([weight * part for weight, part in zip(weights, ranked.to(mean_ap))])
    total = weight.sum()
    mean = (weight * torch.where(ranked, mean_ap, 0.0)).sum() / total.masked_fill(total == 0, 1.0)
    log = {"positives": positives.sum(), "negatives": negatives.sum()}
    log |= {"mean_ap": mean.detach().masked_fill(total == 0, math.nan)}
    if len(scales) > 1:
        each = mean_ap.detach().masked_fill(~ranked, math.nan)
        log |= {f"mean_ap_{scale.rho:g}": value for scale, value in zip(scales, each)}
    return (1 - mean).masked_fill(total == 0, 0.0), Log(log)
