"""Read a feature map at continuous pixel positions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_features(feature_map: Tensor, uv: Tensor, extent: tuple[float, float]) -> Tensor:
    """Interpolate features bilinearly at pixel positions and L2-normalise them.

    Args:
        feature_map: (h, w, c); the cell in row r and column q is centred at pixel ((q + 0.5) W / w, (r + 0.5) H / h).
        uv: (m, 2), pixels; (0, 0) is the top-left corner of the top-left pixel.
        extent: (H, W), pixels, that the map covers.

    Returns:
        (m, c), float32, L2-normalised. Beyond the outermost cell centres the border value is repeated.
    """
    grid = sampling_grid(uv, extent)[None, None]
    maps = feature_map.permute(2, 0, 1)[None].float()
    sampled = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    return F.normalize(sampled[0, :, 0].T, dim=1)


def sampling_grid(uv: Tensor, extent: tuple[float, float]) -> Tensor:
    """Convert pixel positions (..., 2) to the convention of PyTorch's ``grid_sample``: -1 to 1 over the extent."""
    height, width = extent
    return 2 * uv.to(torch.float32) / torch.tensor([width, height], dtype=torch.float32) - 1
