"""Gradient caching: train on batches whose activations do not fit into memory (GradCache: Gao et al., RepL4NLP 2021).

A loss over all pairs needs the features of the whole batch, but not its activations:

1. features are computed in chunks of images, without a graph;
2. the loss of all features gives the derivative with respect to each feature;
3. every chunk is recomputed with a graph, and its part of that derivative is propagated to the parameters.

The gradient is that of one pass over the chunks, up to the order of sums. The memory is that of the activations of one
chunk, of all features, and of one more gradient of the trained parameters. The network runs twice forward and once
backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from loco.errors import ConfigError

Encode = Callable[[slice], Tensor]  # images of a batch -> their features, (n, ...)


def cached_features(
    encode: Encode, images: int, chunk: int, parameters: Sequence[Tensor], device: torch.device
) -> Tensor:
    """Return the features of a batch, which hold no activations and whose gradient reaches the parameters.

    The second pass repeats the first one: it runs under the same autocast and draws the same random numbers (dropout,
    stochastic depth). Each parameter gets its gradient once, as from an ordinary backward pass, so ``GradScaler``,
    accumulation over batches and ``DistributedDataParallel`` need no special treatment.

    Args:
        encode: returns the features of a slice of the images; must depend on nothing that changes until the backward
            pass, and treat images independently of each other (:func:`require_independent_images`).
        images: number of images of the batch.
        chunk: number of images that pass through the network together.
        parameters: trained parameters that ``encode`` uses.
        device: device of the network.

    Returns:
        Features of all images, concatenated along the first axis.
    """
    parts = [slice(start, min(start + chunk, images)) for start in range(0, images, chunk)]
    return _Cached.apply(encode, parts, device, *parameters)


def require_independent_images(network: nn.Module) -> None:
    """Check that a network treats the images of a batch independently, as gradient caching requires.

    Raises:
        ConfigError: it has batch norms in training mode.
    """
    norms = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
    ]
    if norms:
        raise ConfigError(
            f"`train.grad_cache`: the network has trained batch normalisations ({', '.join(norms[:3])}), which are "
            "not supported: their statistics would be those of a chunk instead of the batch, and running statistics "
            "would be updated twice per step; remove `grad_cache`, or use a model without batch normalisation, such as "
            "a `backbone` with the head `residual_mlp`, `locus` or `linear`"
        )


class _Cached(torch.autograd.Function):
    """Features in chunks. In the backward pass, each chunk is computed again and differentiated with respect to the
    parameters.
    """

    @staticmethod
    def forward(ctx: Any, encode: Encode, parts: list[slice], device: torch.device, *parameters: Tensor) -> Tensor:
        ctx.encode, ctx.parts, ctx.parameters, ctx.conditions = encode, parts, parameters, []
        features = []
        for part in parts:
            ctx.conditions.append(_Conditions.now(device))
            features.append(encode(part))
        torch.clear_autocast_cache()  # it contains weights that were converted without a graph
        return torch.cat(features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        total: list[Tensor | None] = [None] * len(ctx.parameters)
        for part, conditions in zip(ctx.parts, ctx.conditions):
            with torch.enable_grad(), conditions.restored():
                features = ctx.encode(part)
            found = torch.autograd.grad(features, ctx.parameters, gradient[part], allow_unused=True)
            del features
            total = [old if new is None else new if old is None else old + new for old, new in zip(total, found)]
        return None, None, None, *total


class _Conditions:
    """The state on which a pass depends in addition to inputs and weights: random states and autocast."""

    def __init__(self, device: torch.device, states: tuple[Tensor, ...], autocast: dict[str, Any]) -> None:
        self.device, self.states, self.autocast = device, states, autocast

    @classmethod
    def now(cls, device: torch.device) -> Self:
        states = (torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else []))
        kind = device.type
        return cls(
            device, states, {"enabled": torch.is_autocast_enabled(kind), "dtype": torch.get_autocast_dtype(kind)}
        )

    @contextmanager
    def restored(self) -> Iterator[None]:
        gpus = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus), torch.autocast(self.device.type, **self.autocast):
            torch.set_rng_state(self.states[0])
            for gpu, state in zip(gpus, self.states[1:]):
                torch.cuda.set_rng_state(state, gpu)
            yield
