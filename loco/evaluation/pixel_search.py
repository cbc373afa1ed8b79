"""Search for the pixels of an image with the most similar features, and selection of the best matches.

:mod:`loco.evaluation.pixel_correspondence` scores these matches. The search is exact: inner products are computed with
the few cells of a feature map, then interpolated to the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from loco.geometry.cameras import pixel_centres
from loco.geometry.sampling import sample_features, sampling_grid

RESOLUTION = 1e-6  # resolution of cosines in float32; smaller cosine distances are raised to it
Extent = tuple[float, float]
BLOCK = 64  # pixels matched at a time: their similarities stay in the cache (5 MB at 128 x 160)


class Neighbours(NamedTuple):
    """The two most similar pixels in B of each point of A. The points are in random order.

    ``point`` (m,), indices of the points; ``distance`` (m, 2), cosine distances of the two pixels, smaller first;
    ``pixel`` (m, 2), row-major indices of these pixels; ``size`` (height, width) of B.
    """

    point: NDArray[np.integer]
    distance: Tensor
    pixel: Tensor
    size: tuple[int, int]

    @property
    def places(self) -> NDArray[np.float64]:
        """Return the centres (u, v) of both pixels, (m, 2, 2), the most similar first."""
        return pixel_centres(*self.size).reshape(-1, 2)[self.pixel.numpy()]


# Scores of matches, higher is better: LoCo's three filters. If the second best pixel lies far from the best, as on a
# repeated pattern, the match is ambiguous; so LoCo's release keeps the matches with the smallest such distance.
FILTERS: dict[str, Callable[[Neighbours], Tensor]] = {
    "ratio": lambda found: 1 - found.distance[:, 0] / found.distance[:, 1],
    "similarity": lambda found: -found.distance[:, 0],
    "pixel_distance": lambda found: -torch.from_numpy(np.linalg.norm(np.diff(found.places, axis=1)[:, 0], axis=1)),
}


def nearest_pixels(
    map_a: Tensor,
    map_b: Tensor,
    uv: NDArray[np.floating],
    size: tuple[int, int],
    rng: np.random.Generator,
    extent: Extent | None = None,
    candidates: NDArray[np.bool_] | None = None,
) -> Neighbours:
    """Return the two pixels of B that are most similar to each pixel of A, the input of all filters.

    Args:
        map_a: feature map (h, w, c) of A.
        map_b: feature map of B.
        uv: (m, 2), pixels of A; at least one.
        size: (height, width) of both images.
        rng: random number generator that shuffles the pixels of A, so that ties are later broken at random.
        extent: (height, width), pixels, of the area covered by the maps; None for that of the images.
        candidates: (height, width), mask of the pixels of B that may be matched, at least two; None for all.
    """
    shuffled = rng.permutation(len(uv))
    queries = sample_features(map_a, torch.from_numpy(uv[shuffled]), extent or size)
    similarity, pixel = two_nearest(queries, map_b, size, extent, candidates)
    return Neighbours(shuffled, (1 - similarity).clamp(min=RESOLUTION), pixel, size)


def best_matches(found: Neighbours, filter: str, count: int, among: NDArray[np.bool_] | None = None) -> NDArray:
    """Return the rows (k,) of ``found`` with the best matches, best first; k is at most ``count``.

    Args:
        found: neighbours of points of A.
        filter: a name of :data:`FILTERS`.
        count: number of matches to keep.
        among: (m,), mask of the points to select from; None for all.
    """
    order = torch.argsort(FILTERS[filter](found), descending=True, stable=True).numpy()
    if among is not None:
        order = order[among[found.point[order]]]
    return order[:count]


def two_nearest(
    features: Tensor,
    feature_map: Tensor,
    size: tuple[int, int],
    extent: Extent | None = None,
    candidates: NDArray[np.bool_] | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the two most similar pixels of an image exactly.

    A pixel's feature is sum_i w_i b_i / |sum_i w_i b_i| over its four neighbours b_i on the map (bilinear). The inner
    product is linear, so it is computed with the few cells of the map and interpolated to the pixels: the cost per
    pixel does not grow with the number of channels.

    Args:
        features: (m, c), L2-normalised rows; at least one.
        feature_map: (h, w, c).
        size: (height, width) of the image.
        extent: (height, width), pixels, of the area covered by the map; None for the image.
        candidates: (height, width), mask of the searched pixels, at least two; None for all.

    Returns:
        Cosine similarities (m, 2), larger first, and the row-major indices (m, 2) of these pixels.
    """
    h, w, c = feature_map.shape
    height, width = size
    extent = extent or size
    cells = feature_map.float()
    norm = _to_pixels(cells, size, extent).norm(dim=2, keepdim=True).clamp(min=1e-12)
    barred = None if candidates is None or candidates.all() else ~torch.from_numpy(candidates)[..., None]
    # Allocated once: small results between large blocks would fragment the memory.
    similarity, nearest = torch.empty(len(features), 2), torch.empty(len(features), 2, dtype=torch.int64)
    for block, highest, numbers in zip(features.split(BLOCK), similarity.split(BLOCK), nearest.split(BLOCK)):
        similarities = _to_pixels((cells.reshape(-1, c) @ block.T).view(h, w, -1), size, extent)
        similarities /= norm  # (height, width, m)
        if barred is not None:
            similarities.masked_fill_(barred, -torch.inf)
        # The two best pixels lie in the two best rows.
        rows = similarities.amax(dim=1).topk(min(2, height), dim=0).indices
        pixels = similarities[rows, :, torch.arange(len(block))].permute(1, 0, 2).flatten(1)
        best = pixels.topk(2, dim=1)
        highest[:] = best.values
        numbers[:] = rows.T.gather(1, best.indices // width) * width + best.indices % width
    return similarity, nearest


def _to_pixels(cells: Tensor, size: tuple[int, int], extent: Extent) -> Tensor:
    """Interpolate a map (h, w, k) at the pixel centres, (height, width, k).

    The interpolation is that of :func:`sample_features`, but the result is not L2-normalised.
    """
    channels_last = cells[None].permute(0, 3, 1, 2)  # with these strides, PyTorch makes no copy
    if all(float(side).is_integer() for side in extent):
        whole = [int(side) for side in extent]
        pixels = F.interpolate(channels_last, whole, mode="bilinear", align_corners=False)
    else:  # several times slower
        places = sampling_grid(torch.from_numpy(pixel_centres(*size)), extent)[None]
        pixels = F.grid_sample(channels_last, places, padding_mode="border", align_corners=False)
    return pixels[0, :, : size[0], : size[1]].permute(1, 2, 0)
