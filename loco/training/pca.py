"""Principal components of feature maps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from loco.errors import ConfigError

RELATIVE = (
    1e-7  # variances below this fraction of the largest are rounding errors: features are stored in half precision
)


def components(maps: Iterable[Tensor], count: int, whiten: bool) -> tuple[Tensor, Tensor, float]:
    """Return the principal components of the cells of feature maps, as a linear layer; sums are in double precision.

    Args:
        maps: batches of feature maps, (b, c, h, w) each.
        count: number of components, in descending order of variance.
        whiten: whether to divide each component by its standard deviation.

    Returns:
        Weight (count, c), float64; bias (count,), float64; and the fraction of the variance that the components
        explain. ``weight @ x + bias`` has mean zero over all cells x, and the weight of each component that is largest
        in absolute value is positive.

    Raises:
        ConfigError: ``count`` is larger than the rank of the features, up to rounding in half precision.
    """
    number, total, products = 0, torch.zeros(()), torch.zeros(())
    for part in maps:
        cells = part.double().permute(1, 0, 2, 3).flatten(1)
        number += cells.shape[1]
        total, products = total + cells.sum(dim=1), products + cells @ cells.T
    mean = total / number
    variance, vectors = torch.linalg.eigh(products / number - torch.outer(mean, mean))
    variance, vectors = variance.flip(0).clamp(min=0), vectors.flip(1).T
    rank = int((variance > RELATIVE * variance[0]).sum())
    if count > rank:
        raise ConfigError(
            f"the features have rank {rank}, fewer than the {count} requested principal components; lower `dim` of the "
            "head, or use more images"
        )
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    weight = (vectors * largest.sign())[:count]
    if whiten:
        weight = weight / variance[:count, None].sqrt()
    return weight, -weight @ mean, float(variance[:count].sum() / variance.sum())
