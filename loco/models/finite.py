"""Check that weights are finite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from loco.errors import DataError


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
            "contains weights that are not finite",
            file=file,
            found=f"NaN or infinity in {', '.join(broken[:5])}" + (f" and {len(broken) - 5} more" * (len(broken) > 5)),
            remedy="fetch or copy the file again; if a training wrote it, train again",
        )
