"""Largest errors of the exact losses in float64, compared with the definition, over many small random batches."""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from torch.nn.functional import normalize

from loco.losses import DenseSmoothAP, ExactSmoothAP

RHO, KAPPA = 0.5, 10.0
LARGE = 0.01  # relative errors are computed for gradients with a norm of at least this fraction of 1 / tau


def batch(generator: torch.Generator, n: int, spread: float) -> tuple[Tensor, Tensor]:
    """Return features (n, 4), whose similarities differ by about ``spread``, and points (n, 3) in two groups."""
    direction = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    points = torch.zeros(n, 3, dtype=torch.float64)
    points[n // 2 + 1 :, 0] = 1.0
    return normalize(normalize(direction, dim=1) + spread**0.5 * noise, dim=1), points


def value_and_gradient(criterion: torch.nn.Module, features: Tensor, points: Tensor) -> tuple[float, Tensor]:
    leaf = features.clone().requires_grad_()
    loss, _ = criterion(leaf, points)
    loss.backward()
    return loss.item(), leaf.grad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=500, help="batches per number of patches (default: %(default)s)")
    parser.add_argument(
        "--patches", type=int, nargs="+", default=[3, 4, 8, 32], help="numbers of patches per batch", metavar="N"
    )
    parser.add_argument("--tau", type=float, default=0.01, help="temperature (default: %(default)s)")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    print("| ranking | n | batches | loss | gradient, relative | large gradients |\n|---|---|---|---|---|---|")
    for ranking in ("batch", "query"):
        losses = [kind(RHO, KAPPA, options.tau, ranking=ranking) for kind in (ExactSmoothAP, DenseSmoothAP)]
        for n in options.patches:
            worst, worst_gradient, large = 0.0, 0.0, 0
            for k in range(options.batches):
                inputs = batch(generator, n, options.tau * 4.0 ** (k % 5 - 2))
                (loss, gradient), (truth, true_gradient) = (value_and_gradient(each, *inputs) for each in losses)
                worst = max(worst, abs(loss - truth))
                if true_gradient.norm() >= LARGE / options.tau:
                    error = (gradient - true_gradient).norm() / true_gradient.norm()
                    worst_gradient, large = max(worst_gradient, error.item()), large + 1
            print(f"| {ranking} | {n} | {options.batches} | {worst:.1e} | {worst_gradient:.1e} | {large} |", flush=True)


if __name__ == "__main__":
    main()
