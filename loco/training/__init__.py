"""Train a feature extractor with a ranking loss over posed images."""

from typing import Any

from loco.extras import named_extras

__all__ = ["train"]


def __getattr__(name: str) -> Any:
    # Imported on use: the command line lists saved states without importing PyTorch.
    if name == "train":
        with named_extras():
            from loco.training.run import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
