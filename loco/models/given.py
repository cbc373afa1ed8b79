"""Extractors that are loaded from files: models of this project, and the published weights of LoCo and LoCUS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loco.errors import ConfigError
from loco.models.extractor import Extractor
from loco.models.published import load_published
from loco.models.stored import load
from loco.weights import model_file


def pretrained(path: str, stride: int) -> Extractor:
    """A model of this project.

    Args:
        path: its file, or the folder of a training or of :func:`loco.models.pretrained.save_pretrained`.
        stride: pixels a feature, as the model has it.

    Raises:
        ConfigError: it has another stride.
        DataError: there is no such model, or it is broken (:func:`loco.models.load`).
    """
    return _of_stride(load(model_file(path)), stride, path)


def published(weights: str, path: str, stride: int, backbone: Mapping[str, Any] | None = None) -> Extractor:
    """Published weights of LoCo or LoCUS (:func:`loco.models.published.load_published`).

    Args:
        weights: ``loco`` or ``locus``.
        path: the published file.
        stride: pixels a feature: the patches of its vision transformer.
        backbone: for :func:`loco.models.backbones.build_backbone`; the one of the hub that fits unless given.

    Raises:
        ConfigError: it has another stride, or the backbone cannot be built.
        DataError: the file is broken, or holds other weights.
    """
    return _of_stride(load_published(weights, path, backbone), stride, path)


def _of_stride(extractor: Extractor, stride: int, path: str) -> Extractor:
    if extractor.stride != stride:
        raise ConfigError(
            f"the model {path} has a stride of {extractor.stride}, not {stride}; set `model.stride` to it"
        )
    return extractor.requires_grad_(False)
