"""The optimiser of a training: weight decay and learning rate of each part of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from loco.errors import ConfigError
from loco.models.backbones import Backbone
from loco.models.extractor import Extractor
from loco.models.parts import Head
from loco.training.phases import Phase

PARTS = ("backbone", "lora", "head")


def build_optimiser(extractor: Extractor, phases: Sequence[Phase]) -> torch.optim.AdamW:
    """Return AdamW over the groups of :func:`parameter_groups`.

    The caller must set the learning rates and weight decays by :func:`set_rates` before every step.

    Raises:
        ConfigError: a phase has a factor for a part of which nothing is trained, or ``layer_decay`` although no
            transformer block is trained.
    """
    by_layer = any("layer_decay" in phase.optimiser for phase in phases)
    groups = parameter_groups(extractor, by_layer)
    parts = {group["part"] for group in groups}
    for phase in phases:
        for part in phase.optimiser.get("lr_factors", {}):
            if part not in parts:
                raise ConfigError(
                    f"`optimiser.lr_factors.{part}` of phase {phase.number} has no effect, because no parameter of "
                    f"this part of the model is trained; remove it (trained parts: {', '.join(sorted(parts))})"
                )
    if by_layer and not any(group["depth"] for group in groups):
        raise ConfigError("`optimiser.layer_decay` has no effect, because no transformer block is trained; remove it")
    return torch.optim.AdamW(groups)


def parameter_groups(extractor: Extractor, by_layer: bool = False) -> list[dict[str, Any]]:
    """Divide the trained parameters of an extractor into groups: each parameter is in exactly one.

    Args:
        extractor: the network.
        by_layer: distinguish the layers of transformer backbones.

    Returns:
        Groups for ``torch.optim`` with ``params``, ``part`` (one of :data:`PARTS`), ``decays`` (see :func:`decays`) and
        ``depth``: 0 for heads and for what follows the last transformer block of a backbone, 1 for that block, and so
        on to n for the first of n blocks that are run and n + 1 for what precedes it. All depths are 0 without
        ``by_layer``.
    """
    parts, depths = _parts(extractor), _depths(extractor) if by_layer else {}
    groups: dict[tuple[str, int, bool], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module in extractor.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                key = parts.get(parameter, "backbone"), depths.get(parameter, 0), decays(module, name)
                groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "part": part, "depth": depth, "decays": decayed}
        for (part, depth, decayed), parameters in groups.items()
    ]


def decays(module: nn.Module, name: str) -> bool:
    """Return whether weight decay applies to a parameter of a module: to weights that multiply features.

    These are the weights of linear and convolutional layers. Biases, scales of norms and layers, class tokens,
    registers, and position embeddings do not decay.
    """
    parameter = module.get_parameter(name)
    return parameter.ndim >= 2 and name.endswith("weight") and not isinstance(module, nn.Embedding)


def set_rates(optimiser: torch.optim.Optimizer, phase: Phase, step: int) -> None:
    """Set the learning rate and the weight decay of all groups to those of a step of the training.

    The learning rate of a group is that of the phase at this step, multiplied by the factor of its part (1 unless
    ``lr_factors`` has one) and by ``layer_decay`` to the power of its depth (as in BEiT; Bao et al., ICLR 2022).
    """
    settings, lr = phase.optimiser, phase.lr(step)
    factors, decay = settings.get("lr_factors", {}), settings.get("layer_decay", 1.0)
    for group in optimiser.param_groups:
        group["lr"] = lr * factors.get(group["part"], 1.0) * decay ** group["depth"]
        group["weight_decay"] = settings["weight_decay"] if group["decays"] else 0.0


def _parts(extractor: Extractor) -> dict[nn.Parameter, str]:
    """Return the part of each parameter of heads and low-rank adapters; the others belong to the backbone."""
    heads = [module for module in extractor.modules() if isinstance(module, Head)]
    parts = {parameter: "head" for head in heads for parameter in head.parameters()}
    # The name of these layers in peft.
    lora = {parameter: "lora" for name, parameter in extractor.named_parameters() if ".lora_" in name}
    return parts | lora


def _depths(extractor: Extractor) -> dict[nn.Parameter, int]:
    """Return the depth of each parameter of transformer backbones in or before a block."""
    depths: dict[nn.Parameter, int] = {}
    for backbone in (module for module in extractor.modules() if isinstance(module, Backbone) and module.blocks):
        layers = [backbone.embedding, *([block] for block in backbone.blocks)]
        for depth, modules in enumerate(reversed(layers), 1):
            depths |= {parameter: depth for module in modules for parameter in module.parameters()}
    return depths
