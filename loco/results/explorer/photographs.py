"""Collect the content of a page from photographs without poses: similarities only, without 3D points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from loco.geometry.patches import extent_of
from loco.geometry.sampling import sample_features
from loco.models.extractor import Extractor
from loco.models.finite import finite_features
from loco.results.explorer.content import Content, PageView
from loco.results.explorer.scene import PATCHES, page_extractor


def photographs_content(
    title: str, photographs: Mapping[str, NDArray[np.uint8]], models: Mapping[str, Extractor], available: int
) -> Content:
    """Return the content of a page of photographs.

    The patches are squares whose side is the smallest stride of the models or, if there would be more than about
    :data:`loco.results.explorer.scene.PATCHES` patches per photograph, a multiple of it. The features of each model are
    sampled at the centres of the patches.

    Args:
        title: title of the page.
        photographs: name -> (h, w, 3) uint8, RGB; their sizes may differ.
        models: title -> extractor.
        available: number of photographs from which these were selected.

    Raises:
        DataError: a model returns features that are not finite.
    """
    stride = min(model.stride for model in models.values())
    views = [_view(k, name, rgb, stride) for k, (name, rgb) in enumerate(photographs.items())]
    view = np.repeat(np.arange(len(views)), [v.grid[0] * v.grid[1] for v in views])
    extractors = [
        page_extractor(f"model{k}", title, _features(model, views), view)
        for k, (title, model) in enumerate(models.items())
    ]
    return Content(title, views, extractors, None, None, available)


def _view(index: int, name: str, rgb: NDArray[np.uint8], stride: int) -> PageView:
    """Return a view whose grid of square patches covers the photograph."""
    height, width = rgb.shape[:2]
    side = stride * max(1, ceil(sqrt(height * width / PATCHES) / stride))
    grid = ceil(height / side), ceil(width / side)
    height, width = extent_of(grid, side)
    return PageView(index, name, rgb, grid, (0.0, 0.0, float(width), float(height)))


def _features(model: Extractor, views: Sequence[PageView]) -> NDArray[np.float32]:
    """Return the features (p, c) at the centres of the patches of all views."""
    found = []
    for view in views:
        cells = finite_features(model, view.rgb, view.name).permute(1, 2, 0).float().cpu()
        rows, columns = cells.shape[:2]
        centres = torch.tensor([view.centre(patch) for patch in range(view.grid[0] * view.grid[1])])
        found.append(sample_features(cells, centres, extent_of((rows, columns), model.stride)).numpy())
    return np.concatenate(found)
