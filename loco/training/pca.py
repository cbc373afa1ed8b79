"""Principal components of feature maps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from loco.errors import ConfigError

RELATIVE = 1e-7  # a variance below this share of the largest is rounding: features are stored in half precision


def components(maps: Iterable[Tensor], count: int, whiten: bool) -> tuple[Tensor, Tensor, float]:
    """Principal components of the cells of maps, as a linear layer, from sums in double precision.

    Args:
        maps: (b, c, h, w) each.
        count: how many, those of the largest variance first.
        whiten: divide each by its standard deviation.

    Returns:
        Weight (count, c) and bias (count,): ``weight @ x + bias`` has mean zero over all cells x. Each component's
        largest weight is positive. And the share of the variance that the components hold.

    Raises:
        ConfigError: more components are asked for than the cells vary in, beyond rounding in half precision.
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
        raise ConfigError(f"the features vary in {rank} directions, which have no {count} principal components")
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    weight = (vectors * largest.sign())[:count]
    if whiten:
        weight = weight / variance[:count, None].sqrt()
    return weight, -weight @ mean, float(variance[:count].sum() / variance.sum())
