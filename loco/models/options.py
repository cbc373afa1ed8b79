"""Checks of configuration values before a network is built from them.

The schema of the workflow validates its own configuration only; the configuration in a model file may contain anything.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from loco.errors import ConfigError

MAX_PARAMETERS = 10**9  # 4 GB in single precision; the largest network here has about a tenth
MAX_STRIDE = 1024  # pixels

T = TypeVar("T")
N = TypeVar("N", bound=nn.Module)


def construct(what: str, constructor: Callable[..., T], options: Mapping[str, Any], **fixed: Any) -> T:
    """Call a constructor with the options of a configuration.

    Args:
        what: name of the part of the configuration, for the error message.
        constructor: a class or function.
        options: its keyword arguments, from the configuration.
        fixed: further keyword arguments.

    Raises:
        ConfigError: unknown or missing options.
    """
    signature = inspect.signature(constructor)
    try:
        signature.bind(**fixed, **options)
    except TypeError as error:
        catch_all = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
        names = [
            name for name, each in signature.parameters.items() if name not in fixed and each.kind not in catch_all
        ]
        accepted = ", ".join(names) or "none"
        raise ConfigError(f"{what} has unknown or missing options: {error}; accepted options: {accepted}") from error
    return constructor(**fixed, **options)


def construct_network(what: str, constructor: Callable[..., N], options: Mapping[str, Any], **fixed: Any) -> N:
    """Call the constructor of a network like :func:`construct`, after determining its size without allocating it.

    For this, the constructor is first called on the meta device, where tensors have shapes but no data.

    Raises:
        ConfigError: unknown or missing options, or more than :data:`MAX_PARAMETERS` parameters.
    """
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in construct(what, constructor, options, **fixed).parameters())
    if count > MAX_PARAMETERS:
        raise ConfigError(
            f"{what} would have {count} parameters with these options; at most {MAX_PARAMETERS} are supported"
        )
    return constructor(**fixed, **options)


def require_sizes(what: str, maximum: int = 10**6, **sizes: object) -> None:
    """Check that sizes are integers from 1 to ``maximum``.

    Raises:
        ConfigError: states the name and value of the first size that is not.
    """
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= maximum:
            raise ConfigError(f"{what}: `{name}` must be an integer from 1 to {maximum}, found {size!r}")
