"""Batches of patches for the tests of the losses."""

import torch
from torch.nn.functional import normalize

from loco.losses import LOSSES

RHO, KAPPA = 0.3, 1.0


def patches(n: int, d: int = 16, scenes: int = 1, seed: int = 0, dtype=torch.float64):
    """Return features that depend on points in a box of 3 x 2 x 1 m, points, scenes, valid patches, and images."""
    rng = torch.Generator().manual_seed(seed)
    points = torch.rand(n, 3, generator=rng, dtype=dtype) * torch.tensor([3, 2, 1], dtype=dtype)
    noise = torch.randn(n, d, generator=rng, dtype=dtype)
    features = normalize(torch.cat([points, noise], dim=1), dim=1)
    image_ids = torch.randint(4, (n,), generator=rng)
    return features, points, torch.randint(scenes, (n,), generator=rng), torch.rand(n, generator=rng) > 0.1, image_ids


def temperature(name: str, tau: float) -> dict[str, float]:
    """Return the temperature as an option of a loss, if it has one."""
    return {"tau": tau} if LOSSES[name].takes_tau else {}


def value_and_gradient(criterion, features, *rest):
    features = features.clone().requires_grad_()
    loss, log = criterion(features, *rest)
    loss.backward()
    return loss.detach(), features.grad, dict(log)
