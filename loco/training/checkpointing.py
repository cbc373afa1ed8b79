"""Activation checkpointing: store only the input of a transformer block, and recompute its activations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from loco.errors import ConfigError
from loco.models.backbones import Backbone


def checkpoint_blocks(network: nn.Module) -> int:
    """Checkpoint the trained transformer blocks of all backbones of a network.

    These are all blocks from the first one with a trained parameter on; the backward pass does not reach earlier
    blocks. Neither the features and their gradient (also with dropout) nor the names of the weights change.

    Returns:
        The number of checkpointed blocks.

    Raises:
        ConfigError: there is no such block.
    """
    found = 0
    for backbone in (module for module in network.modules() if isinstance(module, Backbone)):
        trained = [any(p.requires_grad for p in block.parameters()) for block in backbone.blocks]
        for block in backbone.blocks[trained.index(True) :] if any(trained) else ():
            block.forward = partial(_checkpointed, block.forward)
            found += 1
    if not found:
        raise ConfigError(
            "`train.checkpoint_activations`: the model has no trained transformer block; remove the key, or "
            "train a `backbone` (`model.train`)"
        )
    return found


def _checkpointed(forward: Callable[..., Tensor], *inputs: Any, **options: Any) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    return checkpoint(forward, *inputs, use_reentrant=False, **options)
