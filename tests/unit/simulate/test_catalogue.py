"""The catalogue of writers and the dicts of their modules name the same formats."""

from __future__ import annotations

from importlib import import_module

from loco.datasets.catalogue import FORMATS
from loco.simulate.catalogue import WRITERS


def test_every_format_is_simulated_by_its_own_function() -> None:
    listed = {}
    for module in set(WRITERS.values()):
        listed |= dict.fromkeys(import_module(f"loco.simulate.{module}").SIMULATE, module)
    assert listed == WRITERS
    assert set(WRITERS) <= set(FORMATS)
    for format, module in WRITERS.items():
        function = import_module(f"loco.simulate.{module}").SIMULATE[format]
        assert function.__name__ == f"simulate_{format}"
