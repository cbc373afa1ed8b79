"""Validation and conversion of the inputs of all ranking losses: layouts, dtypes, patches that form pairs, norms."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed import ReduceOp
from torch.nn.functional import pad

from loco.losses.distributed import Group, all_reduce, rank_and_world_size
from loco.losses.patches import Patches

MIN_NORM = 1e-12  # rows with a smaller norm count as zero, as in torch.nn.functional.normalize
_NORM_TOLERANCE = 1e-4  # in addition to the rounding of the dtype; scores stay inside the grid of the exact loss


class Selection(NamedTuple):
    """The patches of this rank that can form pairs, and their positions in the inputs."""

    patches: Patches
    mask: Tensor  # (n,) bool, over the n rows, or the n = b h w cells
    shape: torch.Size  # (n,), or (b, h, w) of feature maps

    def scatter(self, values: Tensor) -> Tensor:
        """Return ``values`` (m,) of the patches in the layout of the inputs, with NaN elsewhere."""
        everywhere = values.new_full(self.mask.shape, torch.nan)
        return everywhere.masked_scatter_(self.mask, values).view(self.shape)


def select(
    features: Tensor,
    points: Tensor,
    scene_ids: Tensor | None = None,
    valid: Tensor | None = None,
    image_ids: Tensor | None = None,
    group: Group = None,
) -> Selection:
    """Check the inputs of a ranking loss and select the patches that can form pairs.

    These are the valid patches with finite points. Points are converted to float32 at least, and integers to float64.

    Args:
        features, points, scene_ids, valid, image_ids: as for :meth:`loco.losses.RankingLoss.forward`.
        group: ranks whose patches form one batch.

    Returns:
        The selection; features keep their values and dtype.

    Raises:
        ValueError: the shapes do not match; features have no floating-point dtype, points are complex or boolean, ids
            are not integers, ``valid`` has values other than 0 and 1.
    """
    named = {"points": points, "scene_ids": scene_ids, "valid": valid, "image_ids": image_ids}
    tensors = {name: torch.as_tensor(x, device=features.device) for name, x in named.items() if x is not None}
    shape = _checked_shape(features, tensors)
    if not features.is_floating_point():
        raise ValueError(f"features must have a floating-point type, found {features.dtype}")
    if features.ndim == 4:
        features = features.permute(0, 2, 3, 1).flatten(0, 2)
    n, (rank, _) = len(features), rank_and_world_size(group)
    patches = Patches(
        features,
        _widened(tensors["points"]).reshape(n, 3),
        _ids("scene_ids", tensors.get("scene_ids", torch.zeros(shape, device=features.device)), shape),
        _ids("image_ids", tensors.get("image_ids", torch.arange(n, device=features.device).view(shape)), shape),
    )
    if "image_ids" not in tensors:
        patches = patches._replace(image_ids=patches.image_ids + (rank << 40))
    mask = patches.points.isfinite().all(dim=1)
    if "valid" in tensors:
        mask = mask & _booleans("valid", tensors["valid"]).flatten()
    if not mask.all():
        patches = Patches(*(part[mask] for part in patches))
    return Selection(patches, mask, shape)


def _checked_shape(features: Tensor, others: dict[str, Tensor]) -> torch.Size:
    """Return the shape of the patches, (n,) or (b, h, w)."""
    if features.ndim not in (2, 4):
        raise ValueError(f"features must have the shape (n, d) or (b, d, h, w), found {tuple(features.shape)}")
    is_map = features.ndim == 4
    shape = torch.Size((features.shape[0], *features.shape[2:])) if is_map else features.shape[:1]
    layout = "b, h, w" if is_map else "n"
    one = f"({layout})" if is_map else f"({layout},)"
    allowed: dict[str, tuple[list[tuple[int, ...]], str]] = {
        "points": ([(*shape, 3)], f"points ({layout}, 3)"),
        "valid": ([shape], f"valid {one}"),
    }
    for name in ("scene_ids", "image_ids"):
        allowed[name] = ([shape, shape[:1]], f"{name} {one} or (b,)" if is_map else f"{name} {one}")
    wrong = [allowed[name][1] for name, tensor in others.items() if tensor.shape not in allowed[name][0]]
    if wrong:
        found = ", ".join(f"{name} {tuple(x.shape)}" for name, x in {"features": features, **others}.items())
        layouts = "features (b, d, h, w)" if is_map else "features (n, d)"
        raise ValueError(f"wrong shapes: expected {layouts} with {', '.join(wrong)}; found {found}")
    return shape


def _widened(points: Tensor) -> Tensor:
    if points.is_complex() or points.dtype == torch.bool:
        raise ValueError(f"points must be real numbers, found {points.dtype}")
    if not points.is_floating_point() or points.dtype == torch.float64:
        return points.detach().double()
    return points.detach().float()


def _booleans(name: str, values: Tensor) -> Tensor:
    """Convert booleans, or numbers that are 0 or 1, to booleans."""
    if values.dtype == torch.bool:
        return values
    if not ((values == 0) | (values == 1)).all():
        raise ValueError(f"{name} must be booleans, or 0 and 1; found {values.dtype} with other values, or NaN")
    return values.bool()


def _ids(name: str, ids: Tensor, shape: torch.Size) -> Tensor:
    """Return one int64 id per patch, (n,), from ids per patch or per image."""
    integers = ids.long()
    if ids.is_complex() or (ids.is_floating_point() and not (integers == ids).all()):
        raise ValueError(f"{name} must be integers; found {ids.dtype} with other values")
    return integers.view(-1, *[1] * (len(shape) - ids.ndim), *ids.shape[1:]).expand(shape).flatten()


def normalise_rows(features: Tensor, group: Group = None) -> tuple[Tensor, bool]:
    """L2-normalise the rows of a matrix, differentiably.

    Args:
        features: (n, d), float32 or float64.
        group: ranks that each pass a part of the rows; None if all rows are passed.

    Returns:
        The L2-normalised rows (n, d), and whether all, on all ranks, are finite. A row of zeros (norm below
        :data:`MIN_NORM`) stays zero, with similarity 0 to every row and gradient 0.
    """
    norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    is_finite = all_reduce(norm.isfinite().all().int(), group, ReduceOp.MIN)
    return features / norm.masked_fill(norm < MIN_NORM, torch.inf), bool(is_finite)


def require_normalised_rows(features: Tensor, group: Group = None) -> bool:
    """Check that rows are L2-normalised, as by :func:`torch.nn.functional.normalize`: with norm 1, or zero.

    Norms may differ from 1 by 1e-4, in addition to the rounding of the dtype (bfloat16: 0.004).

    Args:
        features: (n, d), of any floating-point dtype.
        group: ranks that each pass a part of the rows; all ranks raise the error if a row of any rank has another norm.
            None if all rows are passed.

    Returns:
        Whether all rows, on all ranks, are finite; no error is raised for rows that are not.

    Raises:
        ValueError: a row has another norm.
    """
    norm = torch.linalg.vector_norm(features.detach(), dim=1, dtype=wide_type(features))
    # The padding is an entry without a deviation, because the maximum of no rows is not defined.
    off = pad((norm - 1).masked_fill_(norm == 0, 0).nan_to_num(0, 0, 0), (0, 1))
    numbers = torch.stack([off.max(), -off.min(), norm.isfinite().logical_not().any().to(off)])
    too_long, too_short, not_finite = all_reduce(numbers, group, ReduceOp.MAX).tolist()  # one synchronisation
    tolerance = _NORM_TOLERANCE + torch.finfo(features.dtype).eps / 2
    if max(too_long, too_short) > tolerance:
        found = 1 + too_long if too_long > too_short else 1 - too_short
        raise ValueError(
            f"with normalise=False, the rows of the features must have an L2 norm of 1 within {tolerance:.1g}; found "
            f"a row with norm {found:.6g}: apply torch.nn.functional.normalize, or set normalise=True"
        )
    return not not_finite


def wide_type(features: Tensor) -> torch.dtype:
    """Return the dtype in which losses compute: float32, or float64 for float64."""
    return torch.promote_types(features.dtype, torch.float32)
