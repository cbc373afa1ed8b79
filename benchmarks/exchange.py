"""Peak memory and CPU time of a rank for both exchanges of the exact loss (``gather``, ``ring``), on CPU processes.

The patches of a simulated room are divided equally among the ranks, which communicate by gloo. Every measurement runs
in separate processes. Memory is the growth of the peak resident set of a rank beyond its features and their gradient,
the largest of all ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import distributed, multiprocessing

from benchmarks import losses
from loco.losses import ExactSmoothAP
from loco.losses.distributed import Exchange

EXCHANGES: tuple[Exchange, ...] = get_args(Exchange)


def measure(rank: int, world_size: int, exchange: Exchange, kappa: float, tile: int | None, folder: Path) -> None:
    """Write the numbers and the gradient of one rank to ``folder``, which contains the inputs of all ranks."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    features, points = (
        torch.from_numpy(np.array_split(np.load(folder / f"{name}.npy", mmap_mode="r"), world_size)[rank].copy())
        for name in ("features", "points")
    )
    options: dict[str, Any] = {"tile": tile, "exchange": exchange, "group": distributed.group.WORLD}
    criterion = ExactSmoothAP(losses.RHO, kappa, losses.TAU, normalise=False, **options)
    features.requires_grad_()
    features.grad = torch.ones_like(features)
    before = losses.fresh_peak("cpu")
    features.grad = None
    distributed.barrier()
    wall, start = time.perf_counter(), time.process_time()
    loss, _ = criterion(features, points)
    loss.backward()
    seconds = {"cpu_s": time.process_time() - start, "wall_s": time.perf_counter() - wall}
    row = {"mb": (losses.peak("cpu") - before) / 1e6, **seconds, "loss": loss.item()}
    (folder / f"{exchange}{rank}.json").write_text(json.dumps(row))
    np.save(folder / f"{exchange}{rank}.npy", features.grad.numpy())
    distributed.destroy_process_group()


def compare(n: int, dim: int, world_size: int, kappa: float, tile: int | None) -> list[dict[str, Any]]:
    """Return a row per exchange, with the differences of its loss and gradient from those of the first exchange."""
    rows, gradients = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, array in zip(("features", "points"), losses.simulate(n, dim)):
            np.save(folder / f"{part}.npy", array.numpy())
        for exchange in EXCHANGES:
            (folder / "meet").unlink(missing_ok=True)
            multiprocessing.start_processes(measure, (world_size, exchange, kappa, tile, folder), world_size)
            ranks = [json.loads((folder / f"{exchange}{rank}.json").read_text()) for rank in range(world_size)]
            gradients.append(np.concatenate([np.load(folder / f"{exchange}{rank}.npy") for rank in range(world_size)]))
            row = {"n": n, "d": dim, "kappa": kappa, "ranks": world_size, "exchange": exchange}
            row |= {"mb": max(rank["mb"] for rank in ranks), "cpu_s": sum(rank["cpu_s"] for rank in ranks)}
            rows.append(row | {"wall_s": max(rank["wall_s"] for rank in ranks), "loss": ranks[0]["loss"]})
    first = gradients[0]
    for row, gradient in zip(rows, gradients):
        row["loss_difference"] = abs(row["loss"] - rows[0]["loss"])
        row["gradient_difference"] = float(np.linalg.norm(gradient - first) / np.linalg.norm(first))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--patches", type=int, nargs="+", default=[20480, 40960], help="patches of all ranks", metavar="N"
    )
    parser.add_argument("--dim", type=int, default=768, help="dimension of the features", metavar="D")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4], help="numbers of ranks", metavar="W")
    parser.add_argument("--kappa", type=float, default=0.5, help="radius kappa, metres (default: %(default)s)")
    parser.add_argument("--tile", type=int, help="patches per side of a tile (default: that of the loss)", metavar="T")
    options = parser.parse_args()
    # For the processes of the ranks: glibc returns freed tensors to the system at once.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**20)
    print(
        "| n | d | kappa | ranks | exchange | MB per rank | CPU s of all ranks | s | loss differs by | gradient by |\n"
        "| --: | --: | --: | --: | :-- | --: | --: | --: | --: | --: |"
    )
    for n in options.patches:
        for world_size in options.ranks:
            for row in compare(n, options.dim, world_size, options.kappa, options.tile):
                print(
                    "| {n:,} | {d} | {kappa:g} | {ranks} | {exchange} | {mb:,.0f} | {cpu_s:.1f} | {wall_s:.1f} | "
                    "{loss_difference:.1e} | {gradient_difference:.1e} |".format(**row),
                    flush=True,
                )


if __name__ == "__main__":
    main()
