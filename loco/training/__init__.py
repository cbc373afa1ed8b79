"""Train a feature extractor with a ranking loss over posed images."""

from loco.training.run import train

__all__ = ["train"]
