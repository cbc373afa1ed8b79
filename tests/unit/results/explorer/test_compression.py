"""Codes of features: their similarities, and what is stated about them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from loco.results.explorer.compression import CHANNELS, compress, similarities


def features(channels: int, rank: int, count: int = 300, mean: float = 3.0) -> np.ndarray:
    """L2-normalised features with a large mean, in a random subspace."""
    rng = np.random.default_rng(channels)
    scale = 0.9 ** np.arange(rank)
    found = (rng.normal(size=(count, rank)) * scale) @ rng.normal(size=(rank, channels)) + mean
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


VIEW = np.repeat(np.arange(6), 50)


@pytest.mark.parametrize(("channels", "rank"), [(6, 6), (48, 48), (384, 40)])
def test_similarities_are_within_the_stated_bound(channels: int, rank: int) -> None:
    full = features(channels, rank)
    codes, fidelity = compress(full, VIEW)
    exact = full.astype(np.float64) @ full.T.astype(np.float64)
    error = np.abs(similarities(codes, np.arange(len(full))) - exact)
    assert error.max() <= fidelity.rounding + 1e-6  # single precision of the features
    assert fidelity.rounding < 0.1
    assert error.max() > fidelity.rounding / 50  # the bound is one that can be reached, not merely large
    assert codes.codes.shape == (300, min(channels, CHANNELS))
    assert fidelity.channels == channels
    assert 0.99 < fidelity.variance < 1


def test_dropped_channels_reduce_the_retained_variance() -> None:
    """White noise in 512 channels: 128 of them keep the variance of the leading eigenvalues, and no more."""
    rng = np.random.default_rng(1)
    full = rng.normal(size=(4000, 512))
    full = (full / np.linalg.norm(full, axis=1, keepdims=True)).astype(np.float32)
    _, fidelity = compress(full, np.repeat(np.arange(4), 1000))
    eigenvalues = np.linalg.eigvalsh(np.cov(full.T.astype(np.float64)))[::-1]
    assert fidelity.variance == pytest.approx(eigenvalues[:CHANNELS].sum() / eigenvalues.sum(), abs=0.002)
    assert fidelity.rank_correlation < 0.9
    assert fidelity.same_match < 0.9


def test_agreement_is_that_of_the_patches_of_other_views() -> None:
    full = features(300, 300, mean=0.5)
    codes, fidelity = compress(full, VIEW)
    approximate = similarities(codes, np.arange(300))
    chosen = np.random.default_rng([0]).permutation(300)[:100]
    correlations, same = [], []
    for i in chosen:
        others = VIEW[i] != VIEW
        correlations.append(spearmanr(full[others] @ full[i], approximate[i][others]).statistic)
        same += [
            np.argmax(full[v == VIEW] @ full[i]) == np.argmax(approximate[i][v == VIEW])
            for v in range(6)
            if v != VIEW[i]
        ]
    assert fidelity.rank_correlation == pytest.approx(np.mean(correlations))
    assert fidelity.same_match == pytest.approx(np.mean(same))


def test_equal_features_have_equal_similarities() -> None:
    codes, fidelity = compress(np.tile(features(5, 5)[:1], (300, 1)), VIEW)
    assert np.ptp(similarities(codes, np.array([7]))) == 0
    assert similarities(codes, np.array([7]))[0, 0] == pytest.approx(1, abs=1e-5)
    assert fidelity.variance == 1


def test_a_single_view_agrees_with_itself() -> None:
    _, fidelity = compress(features(8, 8), np.zeros(300, int))
    assert (fidelity.rank_correlation, fidelity.same_match) == (1, 1)
