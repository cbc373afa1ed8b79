"""Time and memory of the positive pairs of a large dataset in all processes of a training run.

The current form, index files that all processes map, is compared with the former one, a k-d tree in each rank.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from loco.steps.pairs import index_scene
from loco.storage import Correspondences, Frames
from loco.training.pair_bank import PairBank
from loco.training.scene_files import SceneFiles

RADIUS, AREA = 0.2, 2300.0  # metres; surface of a scene in square metres, as of a house of Matterport3D
IMAGES, GRID = 2160, (19, 23)  # images of a scene; rows and columns of patches of an image, at stride 14
BATCH = 64  # images per batch


class FormerPairs:
    """The pairs of a scene by the former code: a k-d tree and counts, in the memory of each rank."""

    def __init__(self, points: NDArray, images: NDArray, radius: float) -> None:
        self.tree, self.images, self.radius = cKDTree(points), images.astype(np.int32), radius
        ends = np.searchsorted(images, np.arange(images.max() + 1), side="right")
        counts = [self._count(part) for part in np.split(points, ends[:-1])]
        self.last = np.cumsum(np.concatenate(counts), dtype=np.int64)

    def _count(self, own: NDArray) -> NDArray[np.int64]:
        near = self.tree.query_ball_point(own, self.radius, return_length=True)
        within = cKDTree(own).query_ball_point(own, self.radius * (1 + 1e-9), return_length=True)
        return np.maximum(near - within, 0)


def memory() -> dict[str, float]:
    """Return the memory of this process in MB: ``private``, ``anonymous``, and ``pss`` (its fraction of shared pages
    included).
    """
    text = Path("/proc/self/smaps_rollup").read_text()
    found = {name: int(size) / 1024 for name, size in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
    return {
        "private": found["Private_Clean"] + found["Private_Dirty"],
        "pss": found["Pss"],
        "anonymous": found["Anonymous"],
    }


def write_scene(folder: Path) -> tuple[SceneFiles, NDArray, NDArray]:
    """Write a synthetic scene, whose images each show some square metres of a surface, as in an indoor scene.

    Returns:
        The files of the scene, the points of all patches (m, 3), metres, and the image of each patch (m,).
    """
    rng = np.random.default_rng(0)
    side = np.sqrt(AREA)
    places, extents = rng.uniform(0, side, (IMAGES, 1, 2)), rng.lognormal(0.3, 0.5, (IMAGES, 1, 1))
    plane = places + extents * rng.uniform(-1, 1, (IMAGES, GRID[0] * GRID[1], 2))
    points = np.concatenate([plane, np.zeros((*plane.shape[:2], 1))], axis=2).astype(np.float32)
    frames, correspondences = folder / "frames.h5", folder / "correspondences.h5"
    with Frames.create(frames, "made-up", "scene", {"n": IMAGES, "h": 1, "w": 1}) as file:
        file.frames_id, file.facts["names"] = "scene", [str(i) for i in range(IMAGES)]
    sizes = {"n": IMAGES, "h": GRID[0], "w": GRID[1]}
    with Correspondences.create(correspondences, "made-up", "scene", sizes, frames_id="scene") as file:
        file["points"][:], file["valid"][:] = points.reshape(IMAGES, *GRID, 3), True
    return SceneFiles(frames, correspondences), points.reshape(-1, 3), np.repeat(np.arange(IMAGES), len(plane[0]))


def measure_former(points: NDArray, images: NDArray) -> tuple[float, float]:
    """Return the CPU seconds and the growth of the memory in MB of the former code for one scene."""
    before, start = memory()["anonymous"], time.process_time()
    pairs = FormerPairs(points, images, RADIUS)
    seconds, mb = time.process_time() - start, memory()["anonymous"] - before
    assert len(pairs.last) == len(points)
    return seconds, mb


def rank(folder: Path, workers: int, batches: int) -> None:
    """Run one rank: open the indices, fork workers that draw batches, and print the time and memory of each process."""
    files = [
        SceneFiles(folder / "frames.h5", folder / "correspondences.h5", pairs_path=path)
        for path in sorted(folder.glob("pairs*.h5"))
    ]
    before, start = memory(), time.process_time()
    bank = PairBank(files, RADIUS, BATCH, "size", seed=0)
    opening = time.process_time() - start
    readers = []
    for worker in range(workers):
        read, write = os.pipe()
        if os.fork() == 0:
            own, start = memory()["anonymous"], time.process_time()
            for step in range(batches):
                bank.draw(step * workers + worker)
            drawing = (time.process_time() - start) / batches
            found = {**memory(), "added": memory()["anonymous"] - own, "ms": drawing * 1e3}
            os.write(write, json.dumps(found).encode())
            os._exit(0)
        os.close(write)
        readers.append(read)
    found = []
    for read in readers:
        found.append(json.loads(os.read(read, 1 << 16)))
        os.wait()
    own = {"opening": opening, "added": memory()["anonymous"] - before["anonymous"], **memory()}
    print(json.dumps({"rank": own, "workers": found}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=59, help="number of scenes (default: %(default)s)")
    parser.add_argument("--ranks", type=int, default=8, help="number of ranks (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=4, help="number of workers per rank (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=20, help="batches drawn per worker (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # for a rank
    options = parser.parse_args()
    if options.folder:
        rank(options.folder, options.workers, options.batches)
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        scene, points, images = write_scene(folder)
        patches = len(points) * options.scenes
        start = time.process_time()
        index_scene(scene.correspondences_path, folder / "pairs000.h5", RADIUS)
        building = time.process_time() - start
        pairs = SceneFiles(scene.frames_path, scene.correspondences_path, pairs_path=folder / "pairs000.h5").pair_index
        partners = pairs.bounds[-1] / len(points)
        for number in range(1, options.scenes):  # copies of the file, so that no pages are shared
            shutil.copyfile(folder / "pairs000.h5", folder / f"pairs{number:03}.h5")
        size = sum(path.stat().st_size for path in folder.glob("pairs*.h5")) / 1e9
        seconds, mb = measure_former(points, images)
        command = [sys.executable, "-m", "benchmarks.pair_index", "--folder", name]
        command += ["--workers", str(options.workers), "--batches", str(options.batches)]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(options.ranks)]
        found = [json.loads(process.communicate()[0]) for process in running]
    ranks, workers = [one["rank"] for one in found], [worker for one in found for worker in one["workers"]]
    everyone = [*ranks, *workers]
    print(f"{options.scenes} scenes, {patches:,} patches, {partners:.0f} partners per patch; {options.ranks} ranks x")
    print(f"{options.workers} workers. Before: measured on one scene and multiplied by {options.scenes}.\n")
    print("| | before | after |\n| :-- | --: | --: |")
    print(f"| once, in the workflow, CPU min (one scene, extrapolated) | | {building * options.scenes / 60:.1f} |")
    print(f"| index on the disk, GB | | {size:.2f} |")
    opening = max(one["opening"] for one in ranks)
    print(f"| at every start, in every rank, CPU s | {seconds * options.scenes:.0f} | {opening:.2f} |")
    added = max(one["added"] for one in ranks)
    print(f"| memory of each rank for the pairs, MB | {mb * options.scenes:.0f} | {added:.0f} |")
    more = max(one["added"] for one in workers)
    print(f"| growth in each worker after drawing, MB | | {more:.0f} |")
    total = sum(one["added"] for one in everyone)
    print(f"| sum over all processes, MB | {mb * options.scenes * options.ranks:.0f} | {total:.0f} |")
    print(f"| PSS of all processes with their libraries, MB | | {sum(one['pss'] for one in everyone):.0f} |")
    print(f"| CPU ms of drawing {BATCH} images | | {np.median([one['ms'] for one in workers]):.1f} |")


if __name__ == "__main__":
    main()
