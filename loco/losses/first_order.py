"""Errors for second derivatives of custom functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

_REFUSAL = (
    "the gradient of this ranking loss cannot be differentiated: second derivatives (gradient penalties, Hessians) are "
    "implemented only in a single process (group=None), for DenseSmoothAP, LandmarkSmoothAP, and for InfoNCE, SupCon "
    "and TripletLoss with drawn queries (queries=N)"
)


def first_order(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """Decorate the ``backward`` of a custom function whose gradient cannot be differentiated.

    The gradient can be computed with ``create_graph=True``; an error is raised when it is differentiated again.
    PyTorch's ``once_differentiable`` raises one only if the incoming gradient requires a gradient, and otherwise treats
    the gradient as a constant, although it depends on the saved tensors.

    Args:
        backward: returns the gradient of the first input, and None for the others. One of the saved tensors must depend
            on this input, unless the function is linear.

    Returns:
        The decorated method. A second derivative raises a RuntimeError.
    """

    @wraps(backward)
    def once(ctx: Any, *incoming: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            gradient, *others = backward(ctx, *incoming)
        if torch.is_grad_enabled():
            gradient = _Refused.apply(gradient, *ctx.saved_tensors, *incoming)
        return gradient, *others

    return once


class _Refused(torch.autograd.Function):
    """A gradient, as a function of its inputs, that cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *_: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, ...]:
        raise RuntimeError(_REFUSAL)
