"""Correspondences between two photographs from their features: search, CSV output and visualisation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from loco.errors import DataError
from loco.evaluation.pixel_search import RESOLUTION, two_nearest
from loco.geometry.cameras import pixel_centres
from loco.geometry.patches import extent_of, patch_centres
from loco.results.plots.style import WIDTH
from loco.storage import atomic_path

BLOCK = 1024  # patches compared with all others at a time
GAP = 0.02  # between two photographs, as a fraction of their width


@dataclass(frozen=True)
class Matches:
    """Correspondences, best first.

    ``a`` and ``b`` (k, 2) pixels (u, v) of the two images; ``similarity`` (k,) cosine of the two patches; ``ratio``
    (k,) 1 - D1 / D2, D1 and D2 being the cosine distances of A's patch to the nearest and the second nearest of B.
    """

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    similarity: NDArray[np.float64]
    ratio: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.a)

    def scaled(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> Matches:
        """Return the matches in rescaled images; ``a`` and ``b`` are the scale factors (vertical, horizontal)."""
        return replace(self, a=self.a * a[::-1], b=self.b * b[::-1])


def find_matches(
    map_a: Tensor, map_b: Tensor, sizes: tuple[tuple[int, int], tuple[int, int]], stride: int, count: int
) -> Matches:
    """Find distinctive mutual nearest neighbours among the patches of two images, distributed over the first.

    A is divided into about ``count`` squares, and in each the match with the highest ratio score is selected, as in
    :mod:`loco.evaluation.pixel_correspondence`, but over patches. The position in A is the centre of the patch. The
    position in B is the pixel with the most similar feature, found by the search of the benchmark, if it is more
    similar than the matched patch and lies in or next to it; otherwise it is the centre of the matched patch. Patches
    whose centres lie outside the image are left out.

    Args:
        map_a: L2-normalised features (c, h, w) of A; cell (r, q) is centred at pixel ((q + 0.5) stride, (r + 0.5)
            stride).
        map_b: L2-normalised features of B.
        sizes: (height, width) of A and of B, pixels.
        stride: pixels per side of a cell.
        count: maximum number of matches.

    Raises:
        DataError: an image has fewer than two patches.
    """
    (cells_a, centres_a), (cells_b, centres_b) = (
        _inner_cells(m, size, stride) for m, size in zip((map_a, map_b), sizes)
    )
    similarity, nearest, backward = _nearest(cells_a, cells_b)
    mutual = torch.nonzero(backward[nearest] == torch.arange(len(cells_a)))[:, 0]
    distance = (1 - similarity[mutual]).clamp(min=RESOLUTION)
    ratio = 1 - distance[:, 0] / distance[:, 1]
    best = torch.argsort(ratio, descending=True, stable=True)
    best = best[_first_of_squares(centres_a[mutual[best].numpy()], sizes[0], count)]
    chosen = mutual[best]
    return Matches(
        a=centres_a[chosen.numpy()],
        b=_refine(cells_a[chosen], map_b, similarity[chosen, 0], centres_b[nearest[chosen].numpy()], sizes[1], stride),
        similarity=similarity[chosen, 0].double().numpy(),
        ratio=ratio[best].double().numpy(),
    )


def write_matches(matches: Matches, path: str | Path) -> None:
    """Write correspondences as CSV, one line per match: ``u_a, v_a, u_b, v_b`` in pixels, similarity, ratio."""
    columns = {"u_a": matches.a[:, 0], "v_a": matches.a[:, 1], "u_b": matches.b[:, 0], "v_b": matches.b[:, 1]}
    table = pd.DataFrame(columns | {"similarity": matches.similarity, "ratio": matches.ratio})
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")


def draw_matches(images: tuple[NDArray[np.uint8], NDArray[np.uint8]], matches: Matches, path: str | Path) -> None:
    """Draw two photographs (H, W, 3) side by side with the correspondences of their pixels, as PNG.

    The hue of a match encodes its direction from the centre of the first photograph.
    """
    (height, width), (height_b, width_b) = (image.shape[:2] for image in images)
    shift = width + GAP * (width + width_b)
    tall, wide = max(height, height_b), shift + width_b
    from_centre = matches.a - np.array([width, height]) / 2
    hue = np.arctan2(from_centre[:, 1], from_centre[:, 0]) / (2 * np.pi) + 0.5
    colours = matplotlib.colormaps["hsv"](hue)
    figure = Figure(figsize=(WIDTH, WIDTH * tall / wide), dpi=250)
    axes = figure.add_axes((0, 0, 1, 1))
    for image, left in zip(images, (0, shift)):
        axes.imshow(image, extent=(left, left + image.shape[1], image.shape[0], 0))
    ends = matches.b + np.array([shift, 0])
    axes.add_collection(LineCollection(np.stack([matches.a, ends], axis=1), colors=colours, linewidths=0.7))
    for points in (matches.a, ends):
        axes.scatter(*points.T, s=8, c=colours, edgecolors="black", linewidths=0.3, zorder=3)
    axes.set(xlim=(0, wide), ylim=(tall, 0))
    axes.axis("off")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _inner_cells(feature_map: Tensor, size: tuple[int, int], stride: int) -> tuple[Tensor, NDArray[np.float64]]:
    """Return the features (m, c) and centres (m, 2) of the cells whose centres lie in the image."""
    grid = feature_map.shape[1], feature_map.shape[2]
    centres = patch_centres(grid, extent_of(grid, stride))
    inside = (centres < size[::-1]).all(axis=-1)
    if inside.sum() < 2:
        raise DataError(
            "an image is too small for matching",
            expected=f"at least two patches of {stride} x {stride} pixels",
            found=f"{size[0]} x {size[1]} pixels",
            remedy="use larger images, or raise --max-size",
        )
    return _cells(feature_map)[torch.from_numpy(inside)], centres[inside]


def _first_of_squares(uv: NDArray[np.float64], size: tuple[int, int], count: int) -> NDArray[np.integer]:
    """Return the indices of the first position in each square of an image, at most ``count``."""
    side = np.sqrt(size[0] * size[1] / count)
    _, first = np.unique((uv / side).astype(int), axis=0, return_index=True)
    return np.sort(first)[:count]


def _refine(
    features: Tensor,
    feature_map: Tensor,
    similarity: Tensor,
    centres: NDArray[np.float64],
    size: tuple[int, int],
    stride: int,
) -> NDArray[np.float64]:
    """Return the pixels (k, 2) of an image that are most similar to ``features`` (k, c).

    A pixel must be near the patch at ``centres`` and have a higher similarity than its ``similarity``; otherwise the
    centre is returned.
    """
    extent = extent_of((feature_map.shape[1], feature_map.shape[2]), stride)
    highest, pixel = two_nearest(features, _cells(feature_map), size, extent)
    pixels = pixel_centres(*size).reshape(-1, 2)[pixel[:, 0].numpy()]
    better = (highest[:, 0] > similarity + RESOLUTION).numpy()
    near = (np.abs(pixels - centres) <= 1.5 * stride).all(axis=-1)
    return np.where((better & near)[:, None], pixels, centres)


def _cells(feature_map: Tensor) -> Tensor:
    """Convert a map (c, h, w) on any device and in any precision to (h, w, c) on the CPU."""
    return feature_map.float().cpu().permute(1, 2, 0)


def _nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two largest similarities (m, 2) of each row of ``a``, and the nearest rows of ``a`` and of ``b``."""
    similarity, nearest = [], []
    best, backward = torch.full((len(b),), -torch.inf), torch.zeros(len(b), dtype=torch.long)
    for start in range(0, len(a), BLOCK):
        block = a[start : start + BLOCK] @ b.T
        top = block.topk(2, dim=1)
        similarity.append(top.values)
        nearest.append(top.indices[:, 0])
        values, rows = block.max(dim=0)
        better = values > best
        best[better], backward[better] = values[better], rows[better] + start
    return torch.cat(similarity), torch.cat(nearest), backward
