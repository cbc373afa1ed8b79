"""Feature maps of the views of a figure: similarity to a query patch, and colours by PCA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from loco.geometry.cameras import pixel_centres
from loco.geometry.sampling import sample_features
from loco.results.pictures.selection import Query, View
from loco.storage import Features

Floats = NDArray[np.floating]


class FeatureMap(NamedTuple):
    """Features of an image (h, w, c), float32, and the area that they cover, (height, width) in pixels."""

    cells: Floats
    extent: tuple[int, int]


def feature_maps(features: Features, views: Sequence[View]) -> list[FeatureMap]:
    """Return the feature maps of ``views`` at their native resolution."""
    return [FeatureMap(features["features"][view.index].astype(np.float32), features.extent) for view in views]


def similarities(maps: Sequence[FeatureMap], views: Sequence[View], query: Query) -> list[Floats]:
    """Return the cosine similarity of every pixel to the query patch, (H, W) per view, from bilinear features."""
    first, extent = maps[0]
    target = sample_features(torch.from_numpy(first), torch.from_numpy(query.uv[:1]), extent)[0]
    heat = []
    for (cells, extent), view in zip(maps, views, strict=True):
        pixels = torch.from_numpy(pixel_centres(*view.size)).reshape(-1, 2)
        heat.append((sample_features(torch.from_numpy(cells), pixels, extent) @ target).reshape(view.size).numpy())
    return heat


def joint_pca(maps: Sequence[Floats]) -> list[Floats]:
    """Return the colours of feature maps by one PCA over all their cells, so that equal features have equal colours.

    The three leading components become red, green and blue, each scaled between its 1st and 99th percentile. The
    sign of a component is that of its third moment, so the colours do not depend on the basis of the feature space.

    Args:
        maps: maps (h, w, c) with equal c.

    Returns:
        Colours (h, w, 3) of each map, in [0, 1].
    """
    cells = np.concatenate([m.reshape(-1, m.shape[-1]) for m in maps]).astype(np.float64)
    cells -= cells.mean(axis=0)
    _, axes = np.linalg.eigh(cells.T @ cells)
    components = cells @ axes[:, :-4:-1]
    components *= np.where((components**3).sum(axis=0) < 0, -1, 1)
    low, high = np.percentile(components, [1, 99], axis=0)
    colours = np.clip((components - low) / np.maximum(high - low, 1e-6), 0, 1)
    ends = np.cumsum([m.shape[0] * m.shape[1] for m in maps])[:-1]
    return [part.reshape(*m.shape[:2], 3) for part, m in zip(np.split(colours, ends), maps)]
