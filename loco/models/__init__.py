"""Feature extractors: built by name, saved to and loaded from files."""

from __future__ import annotations

from loco.models.build import MODELS, build_extractor
from loco.models.extractor import FeatureExtractor
from loco.models.stored import backbones_of, describe, load, load_weights, read_content, save_extractor

__all__ = [
    "MODELS",
    "FeatureExtractor",
    "backbones_of",
    "build_extractor",
    "describe",
    "load",
    "load_weights",
    "read_content",
    "save_extractor",
]
