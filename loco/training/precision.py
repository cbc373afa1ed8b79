"""The precision of a training: dtypes of network and features, and the precision of float32 matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

LIGHTNING = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}  # `train.precision` -> Lightning
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Set the precision of float32 matrix products within this context.

    Args:
        name: argument of :func:`torch.set_float32_matmul_precision`: ``highest`` (float32), ``high`` (TF32 on GPUs) or
            ``medium`` (bfloat16 if that is faster).
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
