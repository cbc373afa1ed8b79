"""Common parts of the ranking losses: options, classes of pairs, and the smooth average precision.

Patches i and j of one scene, at distance r = |p_i - p_j|, form a *positive* pair if r <= rho, a *negative* pair if
rho < r <= kappa, and are ignored beyond. The score of a pair is s = f_i . f_j. With sigma(x) = 1 / (1 + exp(-x / tau)),
the smooth average precision of a positive pair a is (LoCo, NeurIPS 2024, eq. 2)

    AP(a) = (1 + R_P(a)) / (1 + R_P(a) + c R_N(a)),
    R_P(a) = sum over the other positives b of w_b sigma(s_b - s_a),
    R_N(a) = sum over negatives g of sigma(s_g - s_a).

The loss is 1 minus the mean AP over the positive pairs, weighted by w_a, between 0 and 1. The weight w is 1 for pairs
across images. Positives within one image are neighbours that look similar for any features, so their weight is smaller
or 0. The ratio c corrects for a batch whose proportion of negatives differs from that of the scenes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

from loco.losses.distributed import Exchange, Group, gather_patches
from loco.losses.inputs import Selection, normalise_rows, require_normalised_rows, select, wide_type
from loco.losses.log import Log
from loco.losses.patches import Patches

Ranking: TypeAlias = Literal["batch", "query"]


class Scale(NamedTuple):
    """Radii of the positive and of the negative pairs, metres; ``kappa`` may be infinite."""

    rho: float
    kappa: float


class RankingLoss(torch.nn.Module):
    """Base class of the ranking losses, with a radius for positives, one for negatives, and a temperature."""

    takes_several_scales = False  # whether rho and kappa may be lists of several values
    takes_half = False  # whether features on a GPU stay in half precision instead of being converted to float32
    takes_tau = True  # whether the loss has a temperature
    takes_transforms = False  # whether torch.func (except vmap) and forward-mode derivatives are supported
    smallest_tau = 0.0  # limited by the memory of the loss
    exchange: Exchange = "gather"  # how the ranks of a group exchange their features

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
            rho: pairs up to this distance are positive, metres. Several radii, with as many ``kappa``, define several
                scales: the loss is the mean over the scales.
            kappa: pairs beyond this distance are ignored, metres; infinity or None to include all pairs of a scene.
            tau: temperature of the sigmoid, in units of similarity; for :class:`~loco.losses.ExactSmoothAP` at least
                :data:`loco.losses.histograms.SMALLEST_TAU`. None for a loss without a temperature.
            same_image: weight of the positive pairs within one image, 0 (left out) to 1.
            ratio: factor c of the negatives.
            group: process group whose patches form one batch; each rank calls the loss with its patches
                (:mod:`loco.losses.distributed`). None for this process only.
            normalise: whether to L2-normalise the features; the gradient is with respect to the features as passed. If
                false, rows must be L2-normalised and are used without changes.

        Raises:
            ValueError: not 0 < rho < kappa, or another option out of its range.
        """
        super().__init__()
        self.scales = _scales(rho, kappa)
        if len(self.scales) > 1 and not self.takes_several_scales:
            raise ValueError(f"{type(self).__name__} supports a single scale: rho and kappa must be numbers")
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
        """The temperature. It can be changed between two calls, but not between a call and its backward pass."""
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

    @torch.compiler.disable  # matrix products and table lookups, whose number depends on the points
    def forward(
        self,
        features: Tensor,
        points: Tensor,
        scene_ids: Tensor | None = None,
        valid: Tensor | None = None,
        image_ids: Tensor | None = None,
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Return the loss of a batch of patches.

        A batch is a list of patches, or feature maps as returned by a network. Both give the same loss.

        Args:
            features: (n, d), or maps (b, d, h, w). Their norm does not matter, unless ``normalise`` is false. The loss
                computes in float32 or float64, also for half precision and under autocast. The gradient has the dtype
                of the features.
            points: (n, 3), or (b, h, w, 3); metres, world frame of their scene; floating-point numbers or integers.
                No gradient is computed for them. A patch with a coordinate that is not finite forms no pairs.
            scene_ids: (n,), or (b, h, w), or one per map (b,), integers; patches of different scenes never form pairs.
                None for one scene.
            valid: (n,) or (b, h, w), bool, or 0 and 1; patches without a 3D point form no pairs. None if all are valid.
            image_ids: (n,), (b, h, w) or (b,), integers, different for different images of all scenes and ranks: see
                ``same_image``. If None, every patch counts as a separate image, also within a map.

        Returns:
            The loss, a scalar; and a log: ``positives`` and ``negatives`` (numbers of pairs with non-zero weight,
            summed over the scales), ``mean_ap``; for several scales also ``mean_ap_<rho>``. A scale without positive
            pairs is left out of the mean; if there is no other scale, the loss is 0, with zero gradient. Its
            ``mean_ap`` is NaN. (A loss on a GPU may return the log as a :class:`loco.losses.log.Log`, which
            synchronises when a number is accessed.) If a feature of a patch that could form pairs is not finite, the
            loss and its gradient are NaN, so a ``GradScaler`` skips the step. All values refer to the whole batch of a
            group.

        Raises:
            TypeError: features are not a tensor.
            ValueError: the shapes or dtypes do not match; rows are not L2-normalised with ``normalise=False``.
            RuntimeError: ``torch.func.vmap`` is used; or another transform of ``torch.func``, or a forward-mode
                derivative, with a loss that does not support them.
        """
        self._require_plain_tensor(features)
        with torch.autocast(features.device.type, enabled=False):
            patches, is_finite, _, _ = self._batch(features, points, scene_ids, valid, image_ids)
            return self.loss(patches) if is_finite else self._not_finite(patches)

    def _batch(
        self, features: Tensor, points: Tensor, scene_ids: Tensor | None, valid: Tensor | None, image_ids: Tensor | None
    ) -> tuple[Patches, bool, Selection, slice]:
        """Check, gather and L2-normalise the inputs.

        Returns:
            The patches of the batch (with ``exchange="ring"``, of this rank only), with L2-normalised features; whether
            the features of all ranks are finite; the selection of this rank's patches from the inputs; and the slice of
            this rank's patches in the returned ones.
        """
        gathering, checking = (self.group, None) if self.exchange == "gather" else (None, self.group)
        selection = select(features, points, scene_ids, valid, image_ids, self.group)
        patches, local_rows = gather_patches(selection.patches, gathering)
        rows, narrow = patches.features, self.takes_half and features.is_cuda
        if self.normalise:
            rows, is_finite = normalise_rows(rows.to(wide_type(rows)), checking)
        else:
            is_finite = require_normalised_rows(rows, checking)
        rows = rows.to(features.dtype if narrow else wide_type(features))
        return patches._replace(features=rows), is_finite, selection, local_rows

    def _not_finite(self, patches: Patches) -> tuple[Tensor, Mapping[str, float]]:
        """Return a NaN loss with a NaN gradient; the pairs are counted as usual."""
        with torch.no_grad():
            _, log = self.loss(patches._replace(features=torch.zeros_like(patches.features)))
        log = {key: math.nan if key.startswith("mean_ap") else number for key, number in log.items()}
        return patches.features.sum(dtype=wide_type(patches.features)) * math.nan, log

    def _require_plain_tensor(self, features: Tensor) -> None:
        """Raise an error if features are not a tensor, or are transformed in a way that the loss does not support."""
        if not isinstance(features, Tensor):
            found = f"{type(features).__module__}.{type(features).__qualname__}"
            raise TypeError(f"features must be a torch.Tensor, found {found}; convert them with torch.as_tensor")
        if _is_batched(features):
            raise RuntimeError(
                f"{type(self).__name__} cannot be transformed by torch.func.vmap, because the number of pairs depends "
                "on the values; call it once for each batch"
            )
        is_transformed = torch._C._are_functorch_transforms_active() or (
            forward_ad._current_level >= 0 and forward_ad.unpack_dual(features).tangent is not None
        )
        if is_transformed and not self.takes_transforms:
            raise RuntimeError(
                f"{type(self).__name__} cannot be transformed by torch.func (grad, hessian, jacfwd) and has no "
                "forward-mode derivatives: only first derivatives by torch.autograd are implemented; call backward() "
                "or torch.autograd.grad"
            )

    def loss(self, patches: Patches) -> tuple[Tensor, Mapping[str, float]]:
        """Return the loss and the log (see :meth:`forward`) of patches with L2-normalised features."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"rho={self.rho}, kappa={self.kappa}, tau={self.tau}, same_image={self.same_image}, ratio={self.ratio}"


def _is_batched(features: Tensor) -> bool:
    """Return whether these features are batched by ``torch.func.vmap``, at any level of nested transforms."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(features):
        if functorch.is_batchedtensor(features):
            return True
        features = functorch.get_unwrapped(features)
    return False


class AllPairsLoss(RankingLoss):
    """Base class of losses that rank every positive pair, and can therefore measure the precision of each patch."""

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
            ranking: the pairs among which a positive pair is ranked. ``batch``: all pairs of the batch. ``query``: the
                pairs of one of its patches, once for each of the two; the loss is 1 minus the mean over the queries
                (the patches with a positive) of the mean AP of their positives, weighted by w.
            weights: one positive weight per scale for the mean; None for equal weights.

        Raises:
            ValueError: as in the base class; an unknown ranking, or a number of weights that differs from the number of
                scales.
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
        """Return the mean AP over the positive pairs of each patch, at all scales, weighted as in the loss.

        LoCUS (ICCV 2023) selects the patches of highest precision as landmarks. Arguments and errors are those of
        :meth:`forward`.

        Returns:
            (n,), or (b, h, w) for maps, float32 or float64, without a gradient. NaN for a patch without a positive
            pair, and for all patches if a feature is not finite.
        """
        self._require_plain_tensor(features)
        with torch.autocast(features.device.type, enabled=False):
            patches, is_finite, selection, local_rows = self._batch(features, points, scene_ids, valid, image_ids)
            rows = patches.features
            precision = self.precision(patches) if is_finite else rows.new_full(rows.shape[:1], math.nan)
        return selection.scatter(precision.to(wide_type(rows))[local_rows])

    def precision(self, patches: Patches) -> Tensor:
        """Return :meth:`patch_precision` (n,) of patches with L2-normalised features."""
        raise NotImplementedError


def _scales(rho: float | Sequence[float], kappa: float | Sequence[float | None] | None) -> list[Scale]:
    rhos = rho if isinstance(rho, Sequence) else [rho]
    kappas = [math.inf if far is None else far for far in (kappa if isinstance(kappa, Sequence) else [kappa])]
    if len(rhos) != len(kappas) or not rhos or len(set(rhos)) < len(rhos):
        raise ValueError(
            "each scale must have a rho and a kappa, and the values of rho must differ; "
            f"found rho = {rho}, kappa = {kappa}"
        )
    for near, far in zip(rhos, kappas):
        if not 0 < near < far:
            raise ValueError(f"the radii must satisfy 0 < rho < kappa, found rho = {near}, kappa = {far}")
    return [Scale(near, far) for near, far in zip(rhos, kappas)]


def nothing_to_rank(features: Tensor, negatives: int, scales: Sequence[Scale] = ()) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of a batch without positive pairs, 0 with zero gradient, and its log."""
    names = ["mean_ap", *(f"mean_ap_{scale.rho:g}" for scale in scales if len(scales) > 1)]
    log = {"positives": 0, "negatives": negatives, **dict.fromkeys(names, math.nan)}
    return features.sum(dtype=wide_type(features)) * 0.0, log


def mean_of_scales(
    scales: list[Scale], weights: Sequence[float], mean_ap: Tensor, positives: Tensor, negatives: Tensor
) -> tuple[Tensor, Log]:
    """Return the loss and the log of a batch from the weight, mean AP and numbers of pairs of each scale, (K,) each.

    Scales without positive pairs are left out; if no scale has any, the loss is 0, with zero gradient. The numbers of
    the log stay on the device, so nothing synchronises.
    """
    ranked = positives > 0
    # Multiply the weights one by one, because copying the list to a GPU would synchronise.
    weight = torch.stack([weight * part for weight, part in zip(weights, ranked.to(mean_ap))])
    total = weight.sum()
    mean = (weight * torch.where(ranked, mean_ap, 0.0)).sum() / total.masked_fill(total == 0, 1.0)
    log = {"positives": positives.sum(), "negatives": negatives.sum()}
    log |= {"mean_ap": mean.detach().masked_fill(total == 0, math.nan)}
    if len(scales) > 1:
        each = mean_ap.detach().masked_fill(~ranked, math.nan)
        log |= {f"mean_ap_{scale.rho:g}": value for scale, value in zip(scales, each)}
    return (1 - mean).masked_fill(total == 0, 0.0), Log(log)
