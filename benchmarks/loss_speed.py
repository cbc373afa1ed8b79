"""Time, peak memory and product rate of losses over all pairs on one device; ``python -m benchmarks.losses --device``.

Each row of the CSV states its device, versions, date and commit, and rows are only appended, so that runs on several
machines can be compared. The rate of a bare matrix product is measured next to each row.
"""

from __future__ import annotations

import csv
import datetime
import math
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

from benchmarks import losses
from loco.losses import ExactSmoothAP, InfoNCE
from loco.losses.tiled import TiledPairs

WARM_UP, RUNS = 3, 20
ROWS = 1024  # rows of the pair matrix that the sigmoid loss stores at a time
LOSSES = ("exact", "exact, plain", "InfoNCE of all", "sigmoid", "siglip-kernel", "pytorch-metric-learning")
COLUMNS = (
    "date", "commit", "device", "driver", "torch", "triton", "loss", "n", "d", "kappa", "dtype", "median_s", "p20_s",
    "p80_s", "runs", "peak_mb", "product_tflops", "left_out",
)  # fmt: skip


class PlainExact(ExactSmoothAP):
    """The exact loss by PyTorch operations, on any device."""

    def pairs(self, patches: Any) -> TiledPairs:
        return self.tiled_pairs(patches)


def forward(loss: str, features: Tensor, points: Tensor, kappa: float) -> Callable[[], Tensor]:
    """Return a function that computes a loss of :data:`LOSSES` for these features (n, d) and points (n, 3)."""
    if loss == "sigmoid":
        return lambda: sigmoid_loss(features, points)
    if loss == "siglip-kernel":
        from siglip_kernel import fused_siglip_loss

        # The positives of this loss are the pairs (i, i). Which pairs are positive does not affect the time.
        log_scale, bias = (torch.tensor(value, device=features.device) for value in (math.log(10.0), -10.0))
        return lambda: fused_siglip_loss(features, features, log_scale, bias)
    if loss == "pytorch-metric-learning":
        from pytorch_metric_learning.losses import SupConLoss

        cells = ((points - points.amin(dim=0)) / losses.RHO).long()  # positives are the patches of a cell
        labels = cells[:, 0] + 1000 * cells[:, 1] + 1000_000 * cells[:, 2]
        published = SupConLoss(temperature=0.07)
        return lambda: published(features, labels)
    options: dict[str, Any] = {"rho": losses.RHO, "kappa": kappa, "normalise": False}
    criterion = {
        "exact": lambda: ExactSmoothAP(tau=losses.TAU, **options),
        "exact, plain": lambda: PlainExact(tau=losses.TAU, **options),
        "InfoNCE of all": lambda: InfoNCE(tau=0.07, queries=None, **options),
    }[loss]()
    return lambda: criterion(features, points)[0]


def sigmoid_loss(features: Tensor, points: Tensor, scale: float = 10.0, bias: float = -10.0) -> Tensor:
    """Return the sigmoid loss of all pairs (Zhai et al., ICCV 2023, initial scale and bias), in linear memory."""

    def of_rows(rows: slice) -> Tensor:
        near = torch.cdist(points[rows], points, compute_mode="donot_use_mm_for_euclid_dist") <= losses.RHO
        logits = scale * (features[rows] @ features.T).float() + bias
        return softplus(torch.where(near, -logits, logits)).sum()

    parts = [slice(k, k + ROWS) for k in range(0, len(features), ROWS)]
    return torch.stack([checkpoint(of_rows, rows, use_reentrant=False) for rows in parts]).sum() / len(features)


def measure(loss: str, features: Tensor, points: Tensor, kappa: float, runs: int) -> dict[str, Any]:
    """Measure a loss with its backward pass.

    Returns:
        Quantiles of the seconds, peak memory beyond the inputs (MB) and rate of bare matrix products (TFLOP/s), by the
        names in :data:`COLUMNS`; or ``left_out``, the reason why it was not measured.
    """
    device = features.device.type
    if loss == "siglip-kernel" and not (device == "cuda" and find_spec("siglip_kernel")):
        return {"left_out": "requires a CUDA GPU and the package siglip-kernel: pip install siglip-kernel"}
    features = features.clone().requires_grad_()
    run = forward(loss, features, points, kappa)
    times: list[float] = []
    try:
        for k in range(WARM_UP + runs):
            features.grad = None
            if k == WARM_UP:
                before = losses.fresh_peak(device)
            start = losses.clock(device)
            run().backward()
            times.append(losses.clock(device) - start)
    except torch.OutOfMemoryError:
        return {"left_out": "out of memory"}
    p20, median, p80 = (statistics.quantiles(times[WARM_UP:], n=10)[k] for k in (1, 4, 7))
    seconds = losses.time_products(features.detach(), device)
    rate = 6 * len(features) ** 2 * features.shape[1] / seconds / 1e12
    peak = (losses.peak(device) - before) / 1e6
    return {"median_s": median, "p20_s": p20, "p80_s": p80, "runs": runs, "peak_mb": peak, "product_tflops": rate}


def machine(device: str) -> dict[str, str]:
    """Return the device, its driver, the versions of the packages, the date and the commit."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    is_gpu = device == "cuda"
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": subprocess.check_output(["git", "describe", "--always", "--dirty"], text=True).strip(),
        "device": torch.cuda.get_device_name() if is_gpu else platform.machine(),
        "driver": subprocess.check_output(query, text=True).splitlines()[0] if is_gpu else "",
        "torch": torch.__version__,
        "triton": next((d.version for d in metadata.distributions(name="triton")), ""),
    }


def rows(
    device: str, names: list[str], patches: list[int], dims: list[int], kappas: list[float], dtype: str, runs: int
) -> Iterator[dict[str, Any]]:
    about = machine(device)
    for n in patches:
        for d in dims:
            features, points = losses.simulate(n, d)
            inputs = features.to(device, getattr(torch, dtype)), points.to(device)
            for kappa in kappas:
                for loss in names:
                    what = {"loss": loss, "n": n, "d": d, "kappa": kappa, "dtype": dtype}
                    yield about | what | measure(loss, *inputs, kappa, runs)


def append(row: dict[str, Any], path: Path) -> None:
    """Append a row to a CSV file, which gets a header if it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def plot(path: Path) -> None:
    """Plot the medians of a CSV file over the number of patches as SVG, beside the file.

    There is one panel per device, dtype, dimension and kappa.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with path.open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["median_s"]]
    panels = sorted({(row["device"], row["dtype"], int(row["d"]), float(row["kappa"])) for row in found})
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.5 * len(panels), 4), squeeze=False)
    for (device, dtype, d, kappa), axis in zip(panels, axes[0]):
        for colour, loss in enumerate(LOSSES):
            line = {
                int(row["n"]): [float(row[key]) for key in ("median_s", "p20_s", "p80_s")]
                for row in found  # the last row of a size replaces earlier ones
                if (row["device"], row["dtype"], int(row["d"]), float(row["kappa"])) == (device, dtype, d, kappa)
                and row["loss"] == loss
            }
            if line:
                n, (median, p20, p80) = sorted(line), zip(*(line[key] for key in sorted(line)))
                axis.plot(n, median, marker=".", color=f"C{colour}", label=loss)
                axis.fill_between(n, p20, p80, color=f"C{colour}", alpha=0.2)
        axis.set(title=f"{device}\n{dtype}, d {d}, kappa {kappa:g} m", xscale="log", yscale="log", xlabel="patches")
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("seconds, forward and backward")
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".svg"))
    pyplot.close(figure)
