"""Checks that weights are usable: dense, of floating-point types, no larger than their storage in the file, finite.

:func:`finite_features` checks the features that a network computes with its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loco.errors import DataError

if TYPE_CHECKING:
    from loco.models.extractor import Extractor

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_COUNTER = "num_batches_tracked"  # integer buffer of batch norms
_ORIGINAL = "use the file of the original weights published by their authors"


def require_finite(weights: Mapping[str, Tensor], file: str | Path) -> None:
    """Check that all weights that were read from a file are finite.

    Args:
        weights: name -> tensor.
        file: for the error message.

    Raises:
        DataError: names the file and the tensors with NaN or infinite values.
    """
    broken = [name for name, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise DataError(
            "the file contains weights that are not finite",
            file=file,
            found=f"NaN or infinity in {', '.join(broken[:5])}" + (f" and {len(broken) - 5} more" * (len(broken) > 5)),
            remedy="download or copy the file again; if a training run wrote it, train again",
        )


def finite_features(extractor: Extractor, rgb: NDArray[np.uint8], file: str | Path) -> Tensor:
    """Return the features (c, h, w) of an image (H, W, 3). Even with finite weights, activations can overflow.

    Args:
        extractor: the model.
        rgb: the image.
        file: file of the image, for the error message.

    Raises:
        DataError: a feature is NaN or infinite.
    """
    features = extractor.extract(rgb)[0]
    if not features.isfinite().all():
        raise DataError(
            "the features of this image are not finite: the weights of the model are invalid",
            file=file,
            remedy="use another model, or train it again",
        )
    return features


def require_dense(weights: Mapping[Any, Any], file: str | Path) -> None:
    """Check that the content of a checkpoint is a mapping from names to dense floating-point tensors on the CPU.

    The counters of batch norms may be integers. A tensor must not have more values than its storage: a tensor that
    repeats a single stored value would take almost no space in the file, and any amount of memory when it is used.

    Args:
        weights: name -> tensor.
        file: for the error message.

    Raises:
        DataError: names the file and the first weight that is invalid.
    """
    for name, tensor in weights.items():
        if not isinstance(name, str):
            raise DataError(
                "the file has names of weights that are not strings",
                file=file,
                expected="names such as 'layers.0.weight'",
                found=f"the key {name!r:.100} ({type(name).__name__})",
                remedy=_ORIGINAL,
            )
        if problem := _problem(name, tensor):
            raise DataError(
                f"the file contains the unsupported weight `{name}`",
                file=file,
                expected="a dense floating-point tensor (float16, bfloat16, float32 or float64) on the CPU",
                found=problem,
                remedy=_ORIGINAL,
            )


def _problem(name: str, tensor: Any) -> str | None:
    """Return the problem of a weight; None if there is none."""
    if not isinstance(tensor, Tensor):
        return f"an object that is not a tensor ({type(tensor).__name__})"
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        return f"a sparse tensor ({tensor.layout})"
    if tensor.device.type != "cpu":
        return f"a tensor on the device {tensor.device}, without values"
    if tensor.is_quantized:
        return f"a quantised tensor ({tensor.dtype})"
    is_counter = name.endswith(_COUNTER) and tensor.dtype in (torch.int64, torch.int32)
    if tensor.dtype not in _FLOATS and not is_counter:
        return f"a tensor of {tensor.dtype}"
    stored = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.itemsize > stored:
        return f"a tensor of shape {tuple(tensor.shape)} with only {stored} bytes of storage"
    return None
