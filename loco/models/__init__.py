"""Feature extractors, which are built by name and saved to and loaded from files."""

from importlib import import_module
from typing import Any

_API = {
    "Extractor": "extractor",
    "backbones_of": "stored",
    "build_extractor": "build",
    "describe": "stored",
    "load": "stored",
    "load_weights": "stored",
    "read_content": "stored",
    "save_extractor": "stored",
}
__all__ = list(_API)


def __getattr__(name: str) -> Any:
    # Imported on use, so that `loco.models.catalogue` can be imported without PyTorch. Modules of this package import
    # from each other directly, not from here: a workflow step is rerun when a module that it imports changes.
    if name in _API:
        return getattr(import_module(f"loco.models.{_API[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
