"""Size of an explorer page, the time to open it, and the time from a click to all maps and points on the screen.

The page is shown by a headless browser, which renders in software. It measures its clicks itself, from the selection of
a patch to the next frame after the views are drawn and the graphics library has finished.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.overlap import GRID, SIZE, TOLERANCE, simulate
from loco.geometry.cameras import project
from loco.geometry.patches import sample_depth
from loco.results.explorer.content import Content, Geometry, PageView
from loco.results.explorer.landmarks import find_landmarks
from loco.results.explorer.page import write_page
from loco.results.explorer.scene import page_extractor
from tests.browser import Page, browser_path


def scene(views: int, extractors: int, channels: int) -> Content:
    """Return the content of a page of a simulated house; features are random waves of the 3D position, with noise."""
    points, valid, depth, intrinsics, poses = simulate(views, rooms=2)
    flat = points.reshape(-1, 3)
    visible = np.stack([_sees(flat, *camera) for camera in zip(depth, intrinsics, poses)], axis=1)
    geometry = Geometry(
        np.where(valid.reshape(-1, 1), flat, 0).astype(np.float32),
        valid.ravel(),
        visible & valid.reshape(-1, 1),
        intrinsics,
        poses,
    )
    view, rng = np.repeat(np.arange(views), GRID[0] * GRID[1]), np.random.default_rng(0)
    found = []
    for k in range(extractors):
        waves, phases = rng.normal(scale=1.0 + k, size=(3, channels)), rng.uniform(0, 2 * np.pi, channels)
        features = np.cos(flat @ waves + phases) + 0.3 * rng.normal(size=(len(flat), channels))
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        found.append(page_extractor(f"e{k}", f"extractor {k}", features.astype(np.float32), view))
    landmarks = find_landmarks(geometry, view, [one.codes for one in found])
    area = (0.0, 0.0, float(SIZE[1]), float(SIZE[0]))
    shown = [PageView(k, f"view{k}", _photograph(one), GRID, area) for k, one in enumerate(depth)]
    return Content("simulated house", shown, found, geometry, landmarks, views, 1.0)


def _sees(points: NDArray, depth: NDArray, intrinsics: NDArray, pose: NDArray) -> NDArray[np.bool_]:
    uv, z = project(points, intrinsics, pose)
    known, _ = sample_depth(depth, np.where((z > 0)[:, None], uv, -1.0))
    return (known > 0) & (np.abs(known - z) <= TOLERANCE)


def _photograph(depth: NDArray) -> NDArray[np.uint8]:
    grey = np.clip(60 * depth, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def measure(page: Path, clicks: int) -> tuple[float, list[float]]:
    """Return the seconds to open a page, and the milliseconds of each click."""
    with tempfile.TemporaryDirectory() as profile, Page.open(Path(profile)) as browser:
        browser.resize(1280, 720)
        start = time.perf_counter()
        browser.goto(page.as_uri())
        browser.wait("window.explorer")
        opened = time.perf_counter() - start
        browser.run("explorer.measure(5)")  # the first clicks compile the scripts
        return opened, browser.run(f"explorer.measure({clicks})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, help="pages to measure; default: one of a simulated house")
    parser.add_argument("--views", type=int, default=20, help="views of the simulated house (default: %(default)s)")
    parser.add_argument("--extractors", type=int, default=3, help="number of extractors (default: %(default)s)")
    parser.add_argument("--channels", type=int, default=384, help="channels of the features (default: %(default)s)")
    parser.add_argument("--clicks", type=int, default=20, help="number of measured clicks (default: %(default)s)")
    options = parser.parse_args()
    print("| page | MB | opened, s | click, ms: median | least | most |\n|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        pages = options.pages
        if not pages:
            pages = [Path(folder) / "simulated.html"]
            write_page(scene(options.views, options.extractors, options.channels), pages[0])
        for page in pages:
            size = f"{page.stat().st_size / 1e6:.1f}"
            if browser_path() is None:
                print(f"| {page.name} | {size} | no browser | | | |")
                continue
            opened, times = measure(page.resolve(), options.clicks)
            median = f"{np.median(times):.0f}"
            print(f"| {page.name} | {size} | {opened:.1f} | {median} | {min(times):.0f} | {max(times):.0f} |")


if __name__ == "__main__":
    main()
