"""Simulated scenes: furnished houses, rendered and written in the raw layouts of real datasets.

The modules build on each other in this order: ``shapes`` and ``materials`` are used by ``furniture`` and
``structure``; a floor ``plan`` is built and furnished (``furnish``) as a ``house``, lit (``lighting``) and rendered
(``render``) from ``panoramas`` or by a ``handheld`` camera; ``sensor`` adds the noise of a real scanner; a writer
(``raw_...``) stores the result in the layout of a dataset. Only writers depend on layouts. To add a layout, write a
module in this package and add one line to ``catalogue``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from loco.extras import named_extras
from loco.simulate.catalogue import WRITERS


def simulate_scene(format: str, directory: Path, scene: str, settings: Mapping[str, Any]) -> None:
    """Build a scene, render its images and write it in the raw layout of a dataset.

    Args:
        format: raw layout, a key of :data:`loco.simulate.catalogue.WRITERS`.
        directory: output folder, created if missing. Files are written atomically.
        scene: name of the scene; together with ``settings["seed"]`` it determines the content.
        settings: ``datasets.<name>.simulate`` of the configuration.

    Raises:
        ConfigError: a package of an extra that the writer requires is not installed.
    """
    with named_extras():
        module = import_module(f"{__name__}.{WRITERS[format]}")
    module.SIMULATE[format](Path(directory), scene, settings)
