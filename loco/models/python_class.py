"""An extractor that is a class of the user's own code (``model: {name: python}``), which is trusted and run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from loco.errors import ConfigError
from loco.models.extractor import Extractor
from loco.models.options import require_sizes
from loco.models.parts import Encoder, Encoding
from loco.own_code import class_problem, module_of, search_path, source_file

_SIZES = {"dim": None, "stride": None, "cells": 1}  # attribute of a class -> default; None if it is required


def python_class(
    stride: int, options: Mapping[str, Any] | None = None, files: Sequence[str] = (), **name: Any
) -> Extractor:
    """Build an extractor from a class of another package, which is imported.

    Args:
        stride: pixels of the image per feature. If it differs from that of the class, images are resized accordingly.
        options: keyword arguments of the class.
        files: files that the class reads, which the workflow watches; not used here.
        name: ``class``, the class as ``package.module.Class``: see :class:`PythonEncoder`.

    Raises:
        ConfigError: there is no such class, or it does not meet the requirements of :class:`PythonEncoder`.
    """
    if name.keys() != {"class"}:
        raise ConfigError(
            f"model 'python' requires `class`, the class as module.Class; found: {', '.join(name) or '-'}"
        )
    return Extractor(PythonEncoder(_load(name["class"])(**options or {}), name["class"]), stride=stride)


class PythonEncoder(Encoder):
    """The network of a user's class, frozen.

    The class is a ``torch.nn.Module`` with the attributes ``dim`` (channels) and ``stride`` (pixels per feature). Its
    ``forward`` receives images (b, 3, H, W), float32 RGB colours in [0, 1], with H and W multiples of ``stride``, and
    returns maps (b, dim, H / stride, W / stride), or an :class:`loco.models.parts.Encoding`. It may have ``cells`` and
    ``token_dim``, as an :class:`loco.models.parts.Encoder`.
    """

    def __init__(self, network: Any, name: str) -> None:
        """
        Args:
            network: an instance of the class.
            name: name of the class, for messages.

        Raises:
            ConfigError: it is not a ``torch.nn.Module``, or an attribute is missing or not a positive integer.
        """
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ConfigError(f"the class {name} must be a subclass of torch.nn.Module")
        dim, stride, cells = (getattr(network, size, default) for size, default in _SIZES.items())
        require_sizes(f"the class {name}", dim=dim, stride=stride, cells=cells)
        self.network, self.name = network.eval().requires_grad_(False), name
        self.dim, self.stride, self.cells = dim, stride, cells
        self.token_dim = getattr(network, "token_dim", 0)

    def forward(self, images: Tensor) -> Encoding:
        found = self.network(images)
        encoding = Encoding(found) if isinstance(found, Tensor) else Encoding(*found)
        expected = (len(images), self.dim, images.shape[2] // self.stride, images.shape[3] // self.stride)
        if tuple(encoding.maps.shape) != expected:
            raise ConfigError(
                f"the class {self.name} returned maps of shape {tuple(encoding.maps.shape)} for images of shape "
                f"{tuple(images.shape)}, expected {expected} by its `dim` and `stride`"
            )
        return encoding


def _load(name: str) -> Any:
    """Import a class. Modules are searched as during planning, so that the fingerprint describes the code that runs."""
    if problem := class_problem(name):
        raise ConfigError(problem)
    sys.path[:] = list(dict.fromkeys(search_path()))
    module = importlib.import_module(module_of(name))
    expected, found = source_file(name), getattr(module, "__file__", None)
    if expected is None or found is None or Path(found).resolve() != expected.resolve():
        raise ConfigError(
            f"the module of {name} is {found}, expected {expected}; rename it: another module with this name was "
            "imported first"
        )
    built = getattr(module, name.rpartition(".")[2], None)
    if not isinstance(built, type):
        raise ConfigError(f"the module {module.__name__} ({expected}) has no class {name.rpartition('.')[2]!r}")
    return built
