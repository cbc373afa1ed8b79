"""Time of inpainting a depth image: a solve over the missing pixels compared with one over the whole image."""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from loco.geometry.inpaint import inpaint_depth
from loco.simulate.handheld import Walk

MIN_VARIANCE = 2.2e-6
MAX_HOLES = 0.2  # largest fraction of missing pixels; frames with more are dropped
REPEATS = 3


def solve_whole_image(depth: NDArray[np.floating], rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Solve the colourisation of Levin et al. (2004) as published, with one unknown and one equation per pixel.

    The equation of a missing pixel sets it to the weighted mean of its neighbours; that of a known pixel, to its depth.
    """
    height, width = depth.shape
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(float)
    held = np.pad(gray, 1, constant_values=np.nan)
    offsets = [(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    around = np.stack([held[dy : dy + height, dx : dx + width] for dy, dx in offsets])
    squared = (around - gray) ** 2
    variance = 0.6 * np.nanvar(np.concatenate([around, gray[None]]), axis=0)
    variance = np.maximum(np.maximum(variance, -np.nanmin(squared, axis=0) / np.log(0.01)), MIN_VARIANCE)
    weights = np.nan_to_num(np.exp(-squared / variance))
    weights *= (depth <= 0) / weights.sum(axis=0)

    pixel = np.arange(height * width).reshape(height, width)
    numbers = np.pad(pixel, 1)
    neighbour = np.stack([numbers[dy : dy + height, dx : dx + width] for dy, dx in offsets])
    use = weights > 0
    rows = np.concatenate([pixel.ravel(), np.broadcast_to(pixel, use.shape)[use]])
    columns = np.concatenate([pixel.ravel(), neighbour[use]])
    values = np.concatenate([np.ones(pixel.size), -weights[use]])
    system = coo_array((values, (rows, columns)), shape=(pixel.size, pixel.size)).tocsc()
    return spsolve(system, depth.astype(float).ravel()).reshape(depth.shape).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--images", type=int, default=12, help="number of frames of the simulated trajectory (default: %(default)s)"
    )
    settings = {"seed": 0, "rooms": 2, "repetition": 0.3, "image": {"height": 256, "width": 320}}
    settings["images"] = parser.parse_args().images
    print("| frame | holes | whole image, ms | missing pixels, ms | ratio |\n|---|---|---|---|---|")
    totals = np.zeros(2)
    for number, photo in enumerate(Walk("benchmark", settings).photos()):
        holes = np.mean(photo.depth == 0)
        if holes > MAX_HOLES:
            continue
        reference, whole_time = timed(solve_whole_image, photo.depth, photo.rgb)
        ours, our_time = timed(inpaint_depth, photo.depth, photo.rgb)
        np.testing.assert_allclose(ours, reference, rtol=1e-5)
        totals += whole_time, our_time
        print(row(f"{number} | {holes:.1%}", whole_time, our_time), flush=True)
    print(row("all | ", *totals))


def timed(fill: Callable, depth: NDArray, rgb: NDArray) -> tuple[NDArray, float]:
    """Return the result of a call, and the shortest time of several calls in seconds."""
    filled = fill(depth, rgb)
    return filled, min(timeit.repeat(lambda: fill(depth, rgb), number=1, repeat=REPEATS))


def row(name: str, whole: float, ours: float) -> str:
    return f"| {name} | {1e3 * whole:.1f} | {1e3 * ours:.1f} | {whole / ours:.1f} |"


if __name__ == "__main__":
    main()
