"""Extractors loaded from files: models of this project, and the published weights of LoCo and LoCUS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loco.errors import ConfigError
from loco.models.extractor import Extractor
from loco.models.published import load_published
from loco.models.stored import load
from loco.weights import model_file


def pretrained(path: str, stride: int) -> Extractor:
    """Load a model of this project.

    Args:
        path: the model file, or the folder of a training run or of :func:`loco.models.pretrained.save_pretrained`.
        stride: output stride in pixels; must be that of the model.

    Raises:
        ConfigError: the model has another stride.
        DataError: the model does not exist or is damaged (:func:`loco.models.load`).
    """
    return _of_stride(load(model_file(path)), stride, path)


def published(weights: str, path: str, stride: int, backbone: Mapping[str, Any] | None = None) -> Extractor:
    """Load published weights of LoCo or LoCUS (:func:`loco.models.published.load_published`).

    Args:
        weights: ``loco`` or ``locus``.
        path: the published file.
        stride: output stride in pixels, the patch size of the vision transformer.
        backbone: for :func:`loco.models.backbones.build_backbone`; None for the matching one on the hub.

    Raises:
        ConfigError: the model has another stride, or the backbone cannot be built.
        DataError: the file is damaged, or contains other weights.
    """
    return _of_stride(load_published(weights, path, backbone), stride, path)


def _of_stride(extractor: Extractor, stride: int, path: str) -> Extractor:
    if extractor.stride != stride:
        raise ConfigError(
            f"the model {path} has a stride of {extractor.stride}, not {stride}; set `model.stride: {extractor.stride}`"
        )
    return extractor.requires_grad_(False)
