"""Memory of place recognition with as many images as in LoCo's benchmark on Matterport3D.

Features, of 768 channels, are read image by image, and VLADs are stored as float16. The features are simulated when
they are read. Images have few patches, because otherwise the benchmark would take hours; the size of the stored
descriptor of an image does not depend on the number of patches.
"""

from __future__ import annotations

import argparse
import resource
import time
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray

from loco.evaluation.place_recognition import evaluate

DATABASE, QUERIES = 8637, 2194
CHANNELS, CLUSTERS = 768, 128
PUBLISHED = 32 * 40 * CHANNELS * 4  # bytes per image that the published form stores: all patches in single precision


class SimulatedMaps:
    """Feature maps (side, side, CHANNELS): image i and image ``database`` + i show place i, with different noise."""

    def __init__(self, database: int, side: int) -> None:
        self.database, self.side = database, side

    def map(self, image: int) -> NDArray[np.float16]:
        place, own = (np.random.default_rng(key) for key in ([0, image % self.database], [1, image]))
        shape = self.side, self.side, CHANNELS
        features = place.standard_normal(shape, np.float32) + 0.5 * own.standard_normal(shape, np.float32)
        return (features / np.linalg.norm(features, axis=-1, keepdims=True)).astype(np.float16)


def simulated_scene(database: int, queries: int, side: int) -> SimpleNamespace:
    """Return an object with the attributes of an evaluated scene that the benchmark uses."""
    names = [f"image{i}" for i in range(database + queries)]
    truth = {"database": names[:database], "queries": names[database:], "positives": [[i] for i in range(queries)]}
    return SimpleNamespace(
        frames=SimpleNamespace(dataset="simulated", scene="places", names=names, path="simulated"),
        features=SimulatedMaps(database, side),
        ground_truth=truth,
        rng=lambda seed, *key: np.random.default_rng([seed, *key]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--images",
        type=int,
        nargs=2,
        default=[DATABASE, QUERIES],
        help="numbers of database images and of queries (default: %(default)s)",
    )
    parser.add_argument("--side", type=int, default=8, help="patches per side of an image (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vlad = {"name": "vlad", "clusters": CLUSTERS, "assignment": "hard", "vocabulary": "dataset", "samples": 20_000}
    scene = simulated_scene(*options.images, options.side)
    start = time.process_time()
    (row,) = evaluate([scene], {"descriptors": [vlad], "ks": [1]}).rows
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    kept, published = sum(options.images) * CHANNELS * CLUSTERS * 2, options.images[0] * PUBLISHED
    assert row.value > 0.99
    print(
        "| database | queries | numbers per VLAD | all VLADs, GB | peak, GB | all patches of the database, GB | CPU s |"
    )
    print("|---|---|---|---|---|---|---|")
    numbers = f"{options.images[0]} | {options.images[1]} | {CHANNELS * CLUSTERS}"
    print(f"| {numbers} | {kept / 1e9:.2f} | {peak / 1e9:.2f} | {published / 1e9:.1f} (computed) | {seconds:.0f} |")


if __name__ == "__main__":
    main()
