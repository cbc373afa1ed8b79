"""Images per second and core that the data loader of training reads, with the former and the current code.

The first table compares layouts of the colours in a file, the second one selections of patches and samplers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar
from unittest import mock

import cv2
import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from loco.simulate.house import build_house, scene_seed
from loco.simulate.panoramas import camera_intrinsics, choose_panoramas, shots
from loco.simulate.render import Renderer
from loco.simulate.sensor import develop, expose
from loco.steps.correspondence import correspond_scene
from loco.steps.pairs import index_scene
from loco.storage import Correspondences, Frames
from loco.storage.scene_file import Array
from loco.training import patch_selection
from loco.training.data import Batches
from loco.training.jitter import colours, draw_factors
from loco.training.scene_files import SceneFiles

SIZE, PATCHES, RADIUS = (256, 320), 400, 0.2
REPEATED = 4  # copies of each image in the file, so that not all images fit into the cache of HDF5
JITTER = {"brightness": 0.3, "contrast": 0.3, "colour": 0.1}
GOAL = 250  # images per second and core, for a GPU that processes 2,000 images per second and has eight cores


class GzippedFrames(Frames):
    """Frames in the former layout: colours compressed with gzip."""

    arrays: ClassVar = {**Frames.arrays, "rgb": Array("uint8", ("n", "h", "w", 3), frames="compressed")}


class GzippedCorrespondences(Correspondences):
    """Correspondences in the former layout: points and validity compressed."""

    arrays: ClassVar = {
        **Correspondences.arrays,
        "points": Array("float32", ("n", "h", "w", 3), frames="compressed"),
        "valid": Array("bool", ("n", "h", "w"), frames="compressed"),
    }


def simulate(panoramas: int) -> dict[str, Any]:
    """Return the arrays of the frames of a simulated scene; its photographs are compressed as JPEG, like downloads."""
    house = build_house(scene_seed(0, "benchmark"), {"rooms": 3, "repetition": 0.3})
    renderer, rng = Renderer(house), np.random.default_rng(0)
    cameras = camera_intrinsics(SIZE, rng)
    arrays: dict[str, list] = {name: [] for name in ("rgb", "depth", "intrinsics", "pose")}
    for panorama in choose_panoramas(house, renderer.scene, panoramas, rng):
        exposure = expose(renderer.brightness(panorama.position), rng)
        for shot in shots(panorama):
            view = renderer.render(cameras[shot.camera], shot.pose, SIZE)
            coded = cv2.imencode(".jpg", develop(view, exposure, rng), [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
            arrays["rgb"].append(cv2.imdecode(coded, cv2.IMREAD_COLOR))
            arrays["depth"].append(view.depth)
            arrays["intrinsics"].append(cameras[shot.camera])
            arrays["pose"].append(shot.pose)
    return {name: np.concatenate([values] * REPEATED) for name, values in arrays.items()}


def write(
    folder: Path, arrays: dict[str, Any], stride: int, kinds: tuple[type[Frames], type[Correspondences]]
) -> SceneFiles:
    """Write the files of a scene in the layout of these classes, and return them."""
    frames, correspondences, pairs = (folder / f"{kind}{stride}.h5" for kind in ("frames", "correspondences", "pairs"))
    n = len(arrays["rgb"])
    with kinds[0].create(frames, "houses", "house", {"n": n, "h": SIZE[0], "w": SIZE[1]}) as file:
        for name, values in arrays.items():
            file[name][:] = values
        file["source"][:] = Frames.SOURCES.index("sensor")
        file.facts["names"] = [str(i) for i in range(n)]
    with redirect_stderr(StringIO()), mock.patch("loco.steps.correspondence.Correspondences", kinds[1]):
        correspond_scene(frames, correspondences, {"stride": stride, "overlap_tolerance": 0.05})
        index_scene(correspondences, pairs, RADIUS)
    return SceneFiles(frames, correspondences, pairs_path=pairs)


def layouts(rgb: NDArray[np.uint8], folder: Path) -> Iterator[tuple[str, float, float]]:
    """Return name, bytes per pixel and ms per image of formats for colours."""
    for name, options in {
        "gzip 1, shuffle": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
        "LZF": {"compression": "lzf"},
        "LZF, shuffle": {"compression": "lzf", "shuffle": True},
        "uncompressed": {},
    }.items():
        with h5py.File(folder / "layout.h5", "w", libver="latest") as file:
            file.create_dataset("rgb", data=rgb, chunks=(1, *rgb.shape[1:]), fletcher32=True, **options)
        with h5py.File(folder / "layout.h5", "r") as file:
            stored = file["rgb"]
            yield name, stored.id.get_storage_size() / rgb[..., 0].size, milliseconds(lambda i, s=stored: s[i % len(s)])
    for name, suffix, options in (
        ("PNG 1 (lossless)", ".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]),
        ("JPEG 95 (lossy)", ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]),
    ):
        coded = [cv2.imencode(suffix, image, options)[1] for image in rgb]
        size = sum(map(len, coded)) / rgb[..., 0].size
        yield name, size, milliseconds(lambda i, c=coded: cv2.imdecode(c[i % len(c)], cv2.IMREAD_COLOR))


def milliseconds(call: Callable[[int], object], seconds: float = 0.5) -> float:
    """Return the CPU milliseconds of one call: the minimum of three rounds, because other programs may be running."""
    call(0)
    rounds = []
    for _ in range(3):
        start, k = time.process_time(), 0
        while time.process_time() - start < seconds / 3:
            call(k)
            k += 1
        rounds.append((time.process_time() - start) / k)
    return min(rounds) * 1e3


def farthest(points: NDArray, count: int) -> NDArray[np.int64]:
    """Select patches for coverage by the former code: one pass over all points per patch."""
    axes = np.ascontiguousarray(points.T)
    chosen = np.zeros(count, dtype=np.int64)
    distance = np.full(len(points), np.inf)
    for k in range(1, count):
        last = chosen[k - 1]
        distance = np.minimum(distance, np.sum((axes - axes[:, [last]]) ** 2, axis=0))
        distance[last] = -1
        chosen[k] = np.argmax(distance)
    return chosen


def areas(points: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the areas of patches by the former code, with vectors along the last axis; the values are equal."""

    def steps(axis: int) -> NDArray:
        moved, seen = (np.moveaxis(array, axis, 0) for array in (points.astype(np.float64), valid))
        both = seen[1:] & seen[:-1]
        step = np.where(both[..., None], np.diff(moved, axis=0), 0)
        length = np.where(both, np.linalg.norm(step, axis=-1), np.inf)
        sides = np.stack([np.pad(step, [(1, 0), (0, 0), (0, 0)]), np.pad(step, [(0, 1), (0, 0), (0, 0)])])
        lengths = np.stack([np.pad(length, [s, (0, 0)], constant_values=np.inf) for s in ((1, 0), (0, 1))])
        keep = np.isfinite(lengths) & (lengths <= 2.0 * lengths.min(axis=0))
        mean = np.sum(keep[..., None] * sides, axis=0) / np.maximum(keep.sum(axis=0), 1)[..., None]
        return np.moveaxis(mean, 0, axis)

    across, down = steps(1), steps(0)
    width, height = (np.linalg.norm(step, axis=-1) for step in (across, down))
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    area = np.minimum(np.linalg.norm(np.cross(across, down), axis=-1), 10.0 * shorter**2)
    area = np.where(shorter > 0, area, longer**2)
    known = valid & (longer > 0)
    area[~known] = np.median(area[known]) if known.any() else 0
    return np.maximum(area, 1e-12)


@contextmanager
def former_code() -> Iterator[None]:
    """Replace the selection of patches of the library by the former code within this context."""
    with (
        mock.patch.object(patch_selection, "_farthest", farthest),
        mock.patch.object(patch_selection, "patch_areas", areas),
    ):
        yield


def rate(scene: SceneFiles, sampler: str, patches_by: str) -> float:
    """Return the number of images per second of CPU time of one thread."""
    drawn = {"scenes": 1, "images_per_scene": 16, "min_overlap": 0.1, "min_baseline": 0.1}
    if sampler == "pairs":
        drawn = {"radius": RADIUS, "images": 16, "scenes_by": "equal"}
    batch = {**drawn, "patches_per_image": None if patches_by == "all" else PATCHES, "patches_by": patches_by}
    batches = Batches([scene], batch, JITTER, 0)
    return 16e3 / milliseconds(batches.draw, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--panoramas", type=int, default=2, help="panoramas of 18 images each (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with TemporaryDirectory() as name:
        folder = Path(name)
        arrays = simulate(options.panoramas)
        print("| colours of an image of 256 x 320 | bytes per pixel | ms per image |\n| :-- | --: | --: |")
        for layout, size, ms in layouts(arrays["rgb"], folder):
            print(f"| {layout} | {size:.2f} | {ms:.2f} |")
        rgb, factors = torch.from_numpy(arrays["rgb"][:1]), draw_factors(JITTER, np.random.default_rng(0))[None]
        colour_ms = milliseconds(lambda _: colours(rgb, factors))
        print(
            f"\nconversion to float and changes of colour (before: in the loader; after: on the device): "
            f"{colour_ms:.2f} ms per image\n"
        )
        print("| stride | patches per image | batches from | patches_by | before | after |")
        print("| --: | --: | :-- | :-- | --: | --: |")
        for stride in (14, 4):
            (folder / "before").mkdir(exist_ok=True)
            before = write(folder / "before", arrays, stride, (GzippedFrames, GzippedCorrespondences))
            after = write(folder, arrays, stride, (Frames, Correspondences))
            patches = int(after.correspondences["valid"][:].sum(axis=(1, 2)).mean())
            for sampler in ("overlaps", "pairs"):
                for patches_by in ("all", "image", "space", "coverage"):
                    with former_code():
                        old = 1 / (1 / rate(before, sampler, patches_by) + colour_ms / 1e3)
                    new = rate(after, sampler, patches_by)
                    row = f"| {stride} | {patches} | {sampler} | {patches_by} | {old:.0f} | {new:.0f} |"
                    print(row, flush=True)


if __name__ == "__main__":
    main()
