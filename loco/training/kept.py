"""Weights that a training keeps beside the present ones: their running mean, and those that did best so far."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


class Kept:
    """The state is numbers and tensors alone, so that it can be saved with the training."""

    def __init__(self, network: nn.Module, decay: float | None, keep_best: bool) -> None:
        """
        Args:
            network: whose trained weights are kept.
            decay: share of the mean that stays at each step (exponential moving average); None for no mean.
            keep_best: whether the weights of the best value are kept, or only that value.
        """
        self.decay, self.keep_best = decay, keep_best
        self.average = clone(trained_weights(network)) if decay else {}
        self.best: Weights = {}
        self.best_value = -math.inf
        self.best_step = 0

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Take the weights of one more step into the mean. Numbers that are not trained are taken as they are."""
        for name, value in trained_weights(network).items() if self.decay else ():
            mean = self.average[name]
            if mean.is_floating_point():
                mean.lerp_(value.to(mean), 1 - self.decay)
            else:
                mean.copy_(value)

    @contextmanager
    def averaged(self, network: nn.Module) -> Iterator[None]:
        """Within, the network has the mean weights, if there are any."""
        if not self.average:
            yield
            return
        present = clone(trained_weights(network))
        set_weights(network, self.average)
        try:
            yield
        finally:
            set_weights(network, present)

    def judge(self, network: nn.Module, value: float, step: int) -> None:
        """Keep ``value``, of step ``step``, if it is the best so far, and the weights where they are wanted."""
        if value > self.best_value:
            self.best_value, self.best_step = value, step
            self.best = clone(trained_weights(network)) if self.keep_best else {}


def trained_weights(network: nn.Module) -> Weights:
    """The weights that are trained, and the buffers that belong to the state, by name; not copied."""
    return without_frozen(network, network.state_dict())


def without_frozen(network: nn.Module, state: Weights) -> Weights:
    """The entries of a network's ``state`` that are not frozen parameters."""
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in state.items() if name not in frozen}


def set_weights(network: nn.Module, weights: Weights) -> None:
    """Give a network other trained weights."""
    network.load_state_dict(weights, strict=False)


def clone(weights: Weights) -> Weights:
    return {name: value.detach().clone() for name, value in weights.items()}
