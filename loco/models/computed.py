"""Features that another program computed have no network: the extraction step reads them."""

from __future__ import annotations

from typing import NoReturn

from loco.errors import ConfigError


def no_network(path: str, stride: int) -> NoReturn:
    """Refuse to build an extractor from ``{name: features}``.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        f"the features in {path} were computed by another program: there is no network to run; use another model"
    )
