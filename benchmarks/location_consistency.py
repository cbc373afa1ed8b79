"""Time and memory of the location-consistency mAP of one batch of queries.

The implementation of the library, O(n log n) per query, is compared with a direct one, which compares all samples with
all thresholds at once.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from numpy.typing import NDArray

from loco.evaluation.location_consistency import mean_average_precision

RADIUS = 2.0


def written_out(distances: NDArray, similarities: NDArray, radius: float) -> NDArray:
    """Return the mAP (q,) by a direct implementation of the published definition.

    The distance of each sample is a threshold, at which the precision is averaged over the ranks of the positives. The
    samples, sorted by similarity, are compared with all thresholds at once, in arrays of q x n x n.
    """
    order = np.argsort(-similarities, axis=1)
    by_similarity = torch.from_numpy(np.take_along_axis(distances, order, axis=1)).float()
    thresholds = torch.from_numpy(np.sort(distances, axis=1)).float()
    positive = by_similarity[:, None] <= thresholds[:, :, None]  # (q, threshold, sample)
    found = positive.cumsum(dim=2)
    precision = found.float() / torch.arange(1, distances.shape[1] + 1)
    average = (precision * positive).sum(dim=2) / positive.sum(dim=2)
    ends = torch.cat([thresholds[:, 1:], torch.full((len(thresholds), 1), radius)], dim=1)
    return ((ends - thresholds) * average).sum(dim=1).numpy() / (radius - thresholds[:, 0].numpy())


def measure(form: str, queries: int, samples: int) -> dict[str, float | list[float]]:
    """Return the seconds, the growth of the peak memory (MB) and the scores of one form, measured in this process."""
    rng = np.random.default_rng(0)
    distances = RADIUS * np.sqrt(rng.random((queries, samples)))
    similarities = np.exp(-distances) + 0.3 * rng.standard_normal((queries, samples))
    run = {"written out": written_out, "sorted": mean_average_precision}[form]
    run(distances[:1, :10], similarities[:1, :10], RADIUS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    scores = run(distances, similarities, RADIUS)
    seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": seconds, "mb": grown, "scores": scores.tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=100, help="number of queries (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=1000, help="samples per query (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default: %(default)s)")
    parser.add_argument(
        "--form", choices=["written out", "sorted"], help="measure only this form, in this process, and print JSON"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.form:
        print(json.dumps(measure(options.form, options.queries, options.samples)))
        return
    found = {}
    for form in ("written out", "sorted"):  # in separate processes, because peak memory is measured per process
        command = [sys.executable, "-m", "benchmarks.location_consistency", *sys.argv[1:], "--form", form]
        found[form] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    apart = np.abs(np.subtract(found["written out"]["scores"], found["sorted"]["scores"])).max()
    print("| form | s | MB |\n|---|---|---|")
    for form, row in zip(("direct", "sorted"), found.values()):
        print(f"| {form} | {row['seconds']:.3f} | {row['mb']:.1f} |")
    seconds, memory = (found["written out"][key] / found["sorted"][key] for key in ("seconds", "mb"))
    print(f"\n{seconds:.0f} times as fast, with 1/{memory:.0f} of the memory; scores differ by at most {apart:.0e}")


if __name__ == "__main__":
    main()
