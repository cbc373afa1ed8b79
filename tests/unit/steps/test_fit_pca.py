"""Principal components against a singular value decomposition in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loco.errors import ConfigError
from loco.steps.fit_pca import fit_pca
from loco.training.pca import components


def cells(n: int, seed: int = 0) -> torch.Tensor:
    """Return (n, 6, 5, 4) maps, correlated, with a mean far from zero."""
    rng = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, 5, 4, 6, generator=rng) @ torch.randn(6, 6, generator=rng)
    return (mixed + 10 * torch.randn(6, generator=rng)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("count", [1, 3, 6])
def test_components_are_the_singular_vectors(count, whiten):
    maps = cells(12)
    weight, bias, share = components(maps.split(5), count, whiten)
    flat = maps.permute(0, 2, 3, 1).reshape(-1, 6).double().numpy()
    centred = flat - flat.mean(axis=0)
    _, scale, vectors = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ vectors[:count].T
    if whiten:
        expected /= expected.std(axis=0)
    found = (torch.from_numpy(flat) @ weight.T + bias).numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-8)
    assert share == pytest.approx((scale[:count] ** 2).sum() / (scale**2).sum())
    assert (weight.gather(1, weight.abs().argmax(dim=1, keepdim=True)) > 0).all()


def test_directions_of_rounding_are_no_components():
    flat = cells(12)
    flat[:, 4:] = flat[:, :2]
    components(flat.split(5), 4, True)
    with pytest.raises(ConfigError, match="have rank 4, fewer than the 5"):
        components(flat.half().split(5), 5, True)
    with pytest.raises(ConfigError, match="have rank 0"):
        components([torch.ones(2, 3, 4, 4)], 1, False)


def test_only_a_linear_head_takes_them(tmp_path):
    with pytest.raises(ConfigError, match="head `linear`"):
        fit_pca({"name": "compact_cnn", "dim": 8}, [], tmp_path / "model.safetensors")
