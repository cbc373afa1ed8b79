"""Figures of a scene's labels: photos, and the object and category of each pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy import ndimage

from loco.datasets.labels import MPCAT40, STUFF
from loco.results.plots.style import COLOURS, WIDTH, new_figure
from loco.storage import Frames, Labels

SHOWN = 0.002  # an object counts as shown in a frame from this fraction of its pixels on
NAMED = 0.045  # a region is named if a circle of this radius, as a fraction of the image width, fits into it
THINGS = tuple(name for name in MPCAT40 if name not in STUFF)


def choose_frames(labels: Labels, n: int) -> list[int]:
    """Select at most ``n`` frames that together show many objects.

    Frames are selected greedily: the next one shows the most objects that are not yet shown. If no frame shows any, all
    objects are counted as not shown again. The indices are returned in ascending order.
    """
    instances = labels["instance"]
    shows = [_shown(instances[k]) for k in range(len(instances))]
    chosen: list[int] = []
    seen: set[int] = set()
    while len(chosen) < min(n, len(shows)):
        rest = [k for k in range(len(shows)) if k not in chosen]
        best = max(rest, key=lambda k: (len(shows[k] - seen), -k))
        if not shows[best] - seen and seen:
            seen = set()
            continue
        seen |= shows[best]
        chosen.append(best)
    return sorted(chosen)


def label_views(frames: Frames, labels: Labels, stem: str | Path, n: int = 4) -> None:
    """Draw rows of photos, instance maps and semantic maps of ``n`` frames.

    The figure does not rely on hue alone: objects are outlined, and categories are named in the map and in the legend.
    Things have colours of a colour-blind-safe palette, stuff is grey.

    Args:
        frames: the scene's frames.
        labels: labels of these frames.
        stem: path of the figure without suffix.
        n: number of frames.
    """
    labels.require_frames(frames)
    chosen = choose_frames(labels, n)
    instance = np.stack([labels["instance"][k] for k in chosen])
    semantic = np.stack([labels["semantic"][k] for k in chosen])
    colours, legend = category_colours(), np.unique(semantic)
    height, width = frames.size
    tall = (WIDTH - 0.3) / len(chosen) * height / width
    with new_figure(stem, WIDTH, 3 * tall + 0.2 + 0.13 * -(-len(legend) // 7)) as figure:
        figure.get_layout_engine().set(hspace=0, wspace=0, w_pad=0.02, h_pad=0.02)
        rows = figure.subplots(3, len(chosen), squeeze=False)
        for axes, title in zip(rows[:, 0], ("photo", "instances", "categories")):
            axes.set_ylabel(title)
        pictures = zip(
            [frames["rgb"][k] for k in chosen],
            _outlined(instance_colours(instance)[instance], instance),
            _outlined(colours[semantic], semantic),
        )
        for column, row in zip(rows.T, pictures):
            for axes, picture in zip(column, row):
                axes.imshow(picture, interpolation="none")
                axes.set(xticks=[], yticks=[])
                axes.grid(visible=False)
                axes.spines[:].set_visible(False)
        for axes, categories in zip(rows[2], semantic):
            _name_regions(axes, categories)
        handles = [Patch(fc=colours[k], ec="black", lw=0.4, label=MPCAT40[k].replace("_", " ")) for k in legend]
        figure.legend(handles=handles, loc="outside lower center", ncols=7, fontsize=6, handlelength=1.2)


def category_colours() -> NDArray[np.float64]:
    """Return the colours (42, 3) of the categories in all figures: void white, stuff grey, things coloured."""
    shades = palette(len(THINGS))
    # Adjacent stuff (wall, floor, ceiling) differs much in brightness: 11 and 15 have no common divisor.
    greys = 0.92 - 0.5 * (11 * np.arange(len(STUFF) - 1) % (len(STUFF) - 1)) / (len(STUFF) - 2)
    of = dict(zip(THINGS, shades)) | {name: [g] * 3 for name, g in zip(STUFF[1:], greys)}
    return np.array([of.get(name, [1.0] * 3) for name in MPCAT40])


def palette(n: int) -> NDArray[np.float64]:
    """Return ``n`` colours (n, 3): the hues of all figures, then darker and lighter shades of them."""
    hues = np.array([to_rgb(colour) for colour in COLOURS[:-1]])
    towards = [
        (0.0, 0.0),
        (0.45, 1.0),
        (0.45, 0.0),
        (0.72, 1.0),
        (0.7, 0.0),
    ]  # fraction, to black (0) or white (1)
    shades = np.concatenate([hues + share * (end - hues) for share, end in towards])
    return shades[np.arange(n) % len(shades)]


def instance_colours(instance: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return colours of objects such that objects that touch in an image differ, as far as the colours suffice.

    Args:
        instance: (n, h, w), object numbers, -1 = none.

    Returns:
        (objects + 1, 3), to be indexed by ``instance``; the last colour, of -1, is white.
    """
    colours = palette(30)
    taken: dict[int, int] = {}
    touching = _touching(instance)
    numbers, areas = np.unique(instance[instance >= 0], return_counts=True)
    used = np.zeros(len(colours), int)
    for number in numbers[np.argsort(-areas, kind="stable")].tolist():
        near = {taken[other] for other in touching.get(number, ()) if other in taken}
        taken[number] = min(range(len(colours)), key=lambda c: (c in near, used[c], c))
        used[taken[number]] += 1
    result = np.ones((max(taken, default=-1) + 2, 3))
    result[list(taken)] = colours[list(taken.values())]
    return result


def _shown(instance: NDArray[np.integer]) -> set[int]:
    numbers, pixels = np.unique(instance, return_counts=True)
    return set(numbers[(pixels >= SHOWN * instance.size) & (numbers >= 0)].tolist())


def _touching(maps: NDArray[np.integer]) -> dict[int, set[int]]:
    """Return the numbers that are adjacent to each number in maps (n, h, w)."""
    sides = [np.stack([maps[:, 1:], maps[:, :-1]], -1), np.stack([maps[:, :, 1:], maps[:, :, :-1]], -1)]
    pairs = np.unique(np.concatenate([side.reshape(-1, 2) for side in sides]), axis=0)
    touching: dict[int, set[int]] = {}
    for one, other in pairs[pairs[:, 0] != pairs[:, 1]].tolist():
        touching.setdefault(one, set()).add(other)
        touching.setdefault(other, set()).add(one)
    return touching


def _outlined(pictures: NDArray[np.floating], maps: NDArray[np.integer]) -> NDArray[np.float64]:
    """Draw black lines, one pixel wide, on pictures (n, h, w, 3) along the borders of regions of the maps (n, h, w)."""
    edge = np.zeros(maps.shape, bool)
    edge[:, 1:] |= maps[:, 1:] != maps[:, :-1]
    edge[:, :, 1:] |= maps[:, :, 1:] != maps[:, :, :-1]
    return np.where(edge[..., None], 0.0, pictures)


def _name_regions(axes: Axes, categories: NDArray[np.integer]) -> None:
    """Write the names of large regions where the regions are widest."""
    for category in np.unique(categories[categories > 0]):
        regions, count = ndimage.label(categories == category)
        # Padded with zeros, so that the border of the image bounds regions too.
        room = ndimage.distance_transform_edt(np.pad(regions > 0, 1))[1:-1, 1:-1]
        for v, u in ndimage.maximum_position(room, regions, range(1, count + 1)):
            if room[v, u] >= NAMED * categories.shape[1]:
                halo = [withStroke(linewidth=1.4, foreground="white")]
                side = u / categories.shape[1]  # near the left or right border, the text is aligned to it
                align = "left" if side < 0.1 else "right" if side > 0.9 else "center"
                name = MPCAT40[category].replace("_", " ")
                axes.text(u, v, name, ha=align, va="center", fontsize=5, path_effects=halo)
