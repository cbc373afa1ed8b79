"""Frozen backbones of timm (PyTorch Image Models; Wightman, 2019), from the Hugging Face hub or from a local folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from loco.errors import ConfigError, DataError
from loco.models.backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone, check_layer
from loco.models.finite import require_finite
from loco.models.hub import find_folder
from loco.models.model_folder import read_json
from loco.models.parts import Encoding
from loco.weights import WEIGHTS


def load_timm(
    path: str,
    layer: int | None = None,
    norm: bool | None = None,
    pretrained: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    revision: str | None = None,
) -> TimmBackbone:
    """Load a backbone in timm's format: a folder with ``config.json``, which names the architecture, and weights.

    Args:
        path: a name on the hub (``hub:timm/...``), or a folder.
        layer: block, or stage of a network in stages, whose output is used, counted from 1; None for the last.
        norm: whether to apply the network's last normalisation, if it has one; None for the last layer only.
        pretrained: False for random weights, which requires ``config.json`` only.
        mean, std: mean and standard deviation that normalise the three colours in [0, 1]; None for those of the model.
        revision: branch, tag or commit of a model on the hub; None for its main branch.

    Raises:
        ConfigError: there is no such layer, or timm provides no intermediate layers of this architecture.
        DataError: the folder is missing or not in timm's format, or the weights are damaged or of another network.
    """
    folder = find_folder(path, revision, pretrained)
    name, colours = _describe(folder)
    network = _build(name)
    if not hasattr(network, "forward_intermediates"):
        raise ConfigError(f"timm provides no intermediate layers of {name}; use another backbone")
    if pretrained:
        _load(network, folder / WEIGHTS, name)
    return TimmBackbone(network, layer, norm, mean or colours["mean"], std or colours["std"])


class TimmBackbone(Backbone):
    """A layer of a network of timm. It cannot be trained."""

    trainable = False

    def __init__(
        self,
        network: nn.Module,
        layer: int | None = None,
        norm: bool | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        """See :func:`load_timm`. The layers of ``network`` after the requested one are removed."""
        super().__init__(mean, std)
        layers: Any = network.feature_info  # a dict per layer
        layer = check_layer(layer, len(layers), f"this model ({type(network).__name__})")
        self._layer, self._norm = layer - 1, layer == len(layers) if norm is None else norm
        self.dim, self.stride = layers[self._layer]["num_chs"], layers[self._layer]["reduction"]
        prune: Any = network.prune_intermediate_layers
        prune([self._layer], prune_norm=not self._norm)
        self.network = network.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> Encoding:
        run: Any = self.network.forward_intermediates
        maps = run(self.normalised(images), [self._layer], norm=self._norm, output_fmt="NCHW", intermediates_only=True)
        return Encoding(maps[-1])


def _describe(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of the architecture, and ``mean`` and ``std`` of the colours of its inputs."""
    file = folder / "config.json"
    try:
        settings = read_json(file)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the configuration of the backbone cannot be read: {error}",
            file=file,
            found=str(error),
            remedy="use a folder in timm's format, with a `config.json`",
        ) from error
    name, pretraining = settings.get("architecture"), settings.get("pretrained_cfg")
    if not (isinstance(name, str) and timm.is_model(name)):
        raise DataError(
            "this folder is not a model in timm's format",
            file=file,
            expected="`architecture`, the name of a network of timm",
            found=repr(name),
            remedy="use `name: transformers` for a model of transformers, or a newer timm",
        )
    if settings.get("model_args"):
        raise DataError(
            f"this model of timm is not the standard {name}: changed architectures are not supported",
            file=file,
            expected="no `model_args`",
            found=settings["model_args"],
            remedy="use a model of timm without `model_args`",
        )
    colours = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    if isinstance(pretraining, Mapping):
        colours |= {key: pretraining[key] for key in colours if key in pretraining}
    for values in colours.values():
        if not (isinstance(values, Sequence) and len(values) == 3 and all(isinstance(v, int | float) for v in values)):
            raise DataError(
                "`mean` or `std` in `pretrained_cfg` is invalid",
                file=file,
                expected="3 numbers",
                found=values,
                remedy="download the file again, or correct it",
            )
    return name, colours


def _build(name: str) -> nn.Module:
    """Build a network for images of any size. Only vision transformers have, and need, an option for that."""
    try:
        return timm.create_model(name, num_classes=0, dynamic_img_size=True)
    except TypeError:
        return timm.create_model(name, num_classes=0)


def _load(network: nn.Module, file: Path, name: str) -> None:
    """Load the weights of a file, except those of its classifier."""
    remedy = f"download the files of {name} again"
    try:
        weights = load_file(file)
        missing, _ = network.load_state_dict(weights, strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError("the weights do not belong to this network", file=file, found=error, remedy=remedy) from error
    if missing:
        raise DataError(
            f"{len(missing)} of the weights of the network are missing in the file",
            file=file,
            expected=", ".join(missing[:5]),
            remedy=remedy,
        )
    require_finite(weights, file)
