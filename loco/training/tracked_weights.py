"""Weights stored during training in addition to the current ones: their moving average, and the best so far."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


class TrackedWeights:
    """Averaged and best weights, as numbers and tensors only, so that they can be saved with the training."""

    def __init__(self, network: nn.Module, decay: float | None, keep_best: bool) -> None:
        """
        Args:
            network: network whose trained weights are stored.
            decay: decay of the exponential moving average per step; None for no average.
            keep_best: whether to store the weights with the best validation score; otherwise only the score is stored.
        """
        self.decay, self.keep_best = decay, keep_best
        self.average = clone(trained_weights(network)) if decay else {}
        self.best: Weights = {}
        self.best_value = -math.inf
        self.best_step = 0

    @torch.no_grad()
    def update_average(self, network: nn.Module) -> None:
        """Update the moving average with the weights of a step. Buffers are copied without averaging."""
        for name, value in trained_weights(network).items() if self.decay else ():
            mean = self.average[name]
            if mean.is_floating_point():
                mean.lerp_(value.to(mean), 1 - self.decay)
            else:
                mean.copy_(value)

    @contextmanager
    def averaged(self, network: nn.Module) -> Iterator[None]:
        """Set the averaged weights, if any, within this context."""
        if not self.average:
            yield
            return
        present = clone(trained_weights(network))
        set_weights(network, self.average)
        try:
            yield
        finally:
            set_weights(network, present)

    def update_best(self, network: nn.Module, value: float, step: int) -> None:
        """Store ``value`` and ``step`` if the value is the highest so far, and the weights if ``keep_best``."""
        if value > self.best_value:
            self.best_value, self.best_step = value, step
            self.best = clone(trained_weights(network)) if self.keep_best else {}


def trained_weights(network: nn.Module) -> Weights:
    """Return the trained weights and the persistent buffers, by name, without copying."""
    return without_frozen(network, network.state_dict())


def without_frozen(network: nn.Module, state: Weights) -> Weights:
    """Return the entries of a network's ``state`` that are not frozen parameters."""
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in state.items() if name not in frozen}


def set_weights(network: nn.Module, weights: Weights) -> None:
    """Set the trained weights of a network."""
    network.load_state_dict(weights, strict=False)


def clone(weights: Weights) -> Weights:
    return {name: value.detach().clone() for name, value in weights.items()}
