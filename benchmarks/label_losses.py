"""Time, peak memory and agreement of the exact loss for labels and of the SmoothAPLoss of pytorch-metric-learning.

The memory of the latter is cubic in the number of embeddings. Every measurement therefore runs in a separate process
with limited memory; the table has no numbers for a loss that exceeds the limit. A batch of n embeddings has sqrt(n)
classes of sqrt(n) members, because SmoothAPLoss of version 2.9.0 is correct only if the number of classes equals the
number of members of each class. pytorch-metric-learning is not a dependency: without it, only the loss of this project
is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from loco.losses import LabelSmoothAP

DIM, TAU = 128, 0.01
LOSSES = ("ours", "pytorch-metric-learning")


def batch(n: int) -> tuple[Tensor, Tensor]:
    """Return embeddings (n, DIM) around the centres of their classes, and labels (n,)."""
    generator = torch.Generator().manual_seed(0)
    side = math.isqrt(n)
    labels = torch.arange(side).repeat_interleave(side)
    centres = torch.randn(side, DIM, generator=generator)
    return centres[labels] + 1.5 * torch.randn(side * side, DIM, generator=generator), labels


def measure(loss: str, n: int, gigabytes: float) -> dict[str, Any]:
    """Measure one call of a loss with its backward pass, on one thread.

    Returns:
        CPU seconds (``s``), growth of the peak memory (``mb``), the loss, and the gradient of the first embeddings.
    """
    torch.set_num_threads(1)
    if loss == "ours":
        criterion: Any = LabelSmoothAP(TAU, self_match=True)
    else:
        from pytorch_metric_learning.losses import SmoothAPLoss

        criterion = SmoothAPLoss(TAU)
    embeddings, labels = batch(n)
    criterion(batch(16)[0].requires_grad_(), batch(16)[1]).backward()  # the first call loads libraries
    embeddings.requires_grad_()
    resource.setrlimit(resource.RLIMIT_AS, (int(gigabytes * 1e9),) * 2)
    before, began = _peak_mb(), time.process_time()
    value = criterion(embeddings, labels)
    value.backward()
    seconds = time.process_time() - began
    slopes = embeddings.grad.double()
    return {"s": seconds, "mb": _peak_mb() - before, "loss": value.item(), "gradient": slopes[:3].flatten().tolist()}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def in_process(loss: str, n: int, gigabytes: float) -> dict[str, Any] | None:
    """Measure in a new process; return None if the limit of its memory is exceeded."""
    command = [sys.executable, "-m", "benchmarks.label_losses", "--measure", loss, "--sizes", str(n)]
    done = subprocess.run([*command, "--gigabytes", str(gigabytes)], capture_output=True, text=True)
    if done.returncode and "allocate" not in done.stderr and "MemoryError" not in done.stderr:
        raise RuntimeError(done.stderr)
    return None if done.returncode else json.loads(done.stdout)


def row(n: int, gigabytes: float) -> str:
    """Return a row of the table."""
    ours = in_process(LOSSES[0], n, gigabytes)
    theirs = in_process(LOSSES[1], n, gigabytes) if find_spec("pytorch_metric_learning") else None
    cells = [f"{math.isqrt(n) ** 2:,}"]
    for found in (ours, theirs):
        cells += [f"{found['s']:.2f}", f"{found['mb']:,.0f}"] if found else ["-", "-"]
    if ours and theirs:
        slopes, true = (torch.tensor(found["gradient"]) for found in (ours, theirs))
        cells += [f"{abs(ours['loss'] - theirs['loss']):.1e}", f"{(slopes - true).norm() / true.norm():.1e}"]
    else:
        cells += ["", ""]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[256, 625, 1024, 4096, 40804], help="numbers of embeddings"
    )
    parser.add_argument(
        "--gigabytes", type=float, default=16.0, help="limit of the address space per process (default: %(default)s)"
    )
    parser.add_argument("--measure", choices=LOSSES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.sizes[0], options.gigabytes)))
        return
    print("| n | ours, CPU s | MB | pytorch-metric-learning, CPU s | MB | difference of the loss | of the gradient |")
    print("| --: | --: | --: | --: | --: | --: | --: |")
    for n in options.sizes:
        print(row(n, options.gigabytes), flush=True)


if __name__ == "__main__":
    main()
