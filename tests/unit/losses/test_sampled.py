"""The sampled loss: its draws and factors, compared with explicit pairs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from loco.losses import DenseSmoothAP, SampledSmoothAP
from loco.losses.patches import Patches
from loco.losses.sampled import Pairs, _split_count, draw_pools

RHO, KAPPA, TAU = 0.3, 1.0, 0.05
EVERYTHING = {"anchors": 10**6, "max_positives": 10**6, "max_negatives": 10**6, "pool": 10**7, "saturation": 0.0}


def scattered(n: int, scenes: int = 1, seed: int = 0) -> Patches:
    """Return patches in a box of 2 x 2 x 1 m; the scores of positive and negative pairs overlap."""
    rng = torch.Generator().manual_seed(seed)
    points = torch.rand(n, 3, generator=rng, dtype=torch.float64) * torch.tensor([2, 2, 1], dtype=torch.float64)
    features = normalize(torch.cat([points, torch.randn(n, 8, generator=rng, dtype=torch.float64)], dim=1), dim=1)
    return Patches(features, points, torch.randint(scenes, (n,), generator=rng), torch.arange(n))


def call(criterion, patches: Patches):
    features = patches.features.clone().requires_grad_()
    loss, log = criterion(features, patches.points, patches.scene_ids, None, patches.image_ids)
    loss.backward()
    return loss.detach(), features.grad, log


def listed(patches: Patches, low: float, high: float) -> set[tuple[int, int]]:
    """Return the pairs (i < j) of one scene with low < distance <= high."""
    p, s = patches.points, patches.scene_ids
    every = ((i, j) for j in range(len(p)) for i in range(j))
    return {(i, j) for i, j in every if s[i] == s[j] and low < math.dist(p[i], p[j]) <= high}


def as_set(pairs: torch.Tensor) -> set[tuple[int, int]]:
    return {tuple(sorted(pair)) for pair in pairs.tolist()}


def within(draws: np.ndarray, truth: float, errors: float = 4) -> bool:
    """Return whether the mean of independent draws is within a few standard errors of the truth."""
    return abs(draws.mean() - truth) < errors * draws.std(ddof=1) / math.sqrt(len(draws))


@pytest.mark.parametrize("pool", [20, 10**6])  # 20 negatives are found by rejection sampling
def test_pools_are_samples_of_the_pairs(pool):
    patches = scattered(120, scenes=2)
    pairs = draw_pools(patches, RHO, KAPPA, pool, np.random.default_rng(0))
    everything = listed(patches, -1, RHO), listed(patches, RHO, KAPPA)
    assert (pairs.n_positive, pairs.n_negative) == tuple(len(each) for each in everything)
    for drawn, every in zip((pairs.positive, pairs.negative), everything):
        assert as_set(drawn) <= every
        assert len(as_set(drawn)) == len(drawn) == min(pool, len(every))


@pytest.mark.parametrize("pool", [40, 10**6])
def test_pools_favour_no_pair(pool):
    patches = scattered(40)
    every = sorted(listed(patches, RHO, KAPPA))
    times = dict.fromkeys(every, 0)
    rng = np.random.default_rng(0)
    rounds, share = 400, min(pool, len(every)) / len(every)
    for _ in range(rounds):
        for pair in as_set(draw_pools(patches, RHO, KAPPA, pool, rng).negative):
            times[pair] += 1
    expected, sd = rounds * share, math.sqrt(rounds * share * (1 - share))
    assert max(abs(count - expected) for count in times.values()) <= 5 * sd


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 60), scenes=st.integers(1, 3), copies=st.integers(1, 3), seed=st.integers(0, 1000))
def test_with_everything_drawn_it_is_dense(n, scenes, copies, seed):
    patches = Patches(*(each.repeat(copies, *[1] * (each.ndim - 1)) for each in scattered(n, scenes, seed)))
    patches = patches._replace(image_ids=torch.arange(n * copies))  # copies are ties at distance 0
    dense, dense_gradient, dense_log = call(DenseSmoothAP(RHO, KAPPA, TAU), patches)
    loss, gradient, log = call(SampledSmoothAP(RHO, KAPPA, TAU, **EVERYTHING), patches)
    assert loss.item() == pytest.approx(dense.item(), abs=1e-9)
    torch.testing.assert_close(gradient, dense_gradient, atol=1e-9, rtol=1e-6)
    assert (log["positives"], log["negatives"]) == (dense_log["positives"], dense_log["negatives"])


def test_loss_and_gradient_of_few_anchors_are_unbiased():
    patches = scattered(80)
    dense, dense_gradient, _ = call(DenseSmoothAP(RHO, KAPPA, TAU), patches)
    criterion = SampledSmoothAP(RHO, KAPPA, TAU, **EVERYTHING | {"anchors": 4})
    losses, gradients, _ = zip(*(call(criterion, patches) for _ in range(400)))
    assert within(np.array(losses), dense.item())
    assert np.std(losses) > 0
    along = torch.stack(gradients).flatten(1) @ normalize(dense_gradient.flatten(), dim=0)
    assert within(along.numpy(), dense_gradient.norm().item())


def test_ranks_are_unbiased():
    patches = scattered(80)
    criterion = SampledSmoothAP(RHO, KAPPA, TAU, 5, max_positives=15, max_negatives=25, pool=60, saturation=1e-6)

    def scores(pairs) -> torch.Tensor:
        i, j = torch.as_tensor(pairs).unbind(dim=1)
        return (patches.features[i] * patches.features[j]).sum(dim=1)

    every = [scores(sorted(listed(patches, *bounds))) for bounds in ((-1, RHO), (RHO, KAPPA))]
    assert min(len(each) for each in every) > criterion.pool
    errors, above, drawn = [], 0, 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        pairs = draw_pools(patches, RHO, KAPPA, criterion.pool, rng)
        pools = scores(pairs.positive), scores(pairs.negative)
        draws = criterion.draw(*pools, pairs, rng)
        s_a = pools[0][draws.anchors, None]
        estimates = (
            rivals.rank(pool[rivals.pairs] - s_a, TAU) for rivals, pool in zip((draws.positive, draws.negative), pools)
        )
        truth = [torch.sigmoid((each - s_a) / TAU).sum(dim=1) for each in every]
        truth[0] -= 0.5  # the anchor itself
        errors.append([(estimate - true).mean().item() for estimate, true in zip(estimates, truth)])
        above += int(draws.positive.above.sum())
        drawn += int((draws.negative.is_drawn.sum(dim=1) == 25).sum())
    assert above > 0
    assert drawn > 0
    for side in np.array(errors).T:
        assert within(side, 0)


@pytest.mark.parametrize(
    ("corrections", "scale", "above"),
    # 101 positives, 7 in the pool: 6 other positives of the anchor, 4 of them in range, 2 drawn, 1 above.
    [("unbiased", 100 / 6 * 4 / 2, 100 / 6), ("published", 100 / 5 * 3 / 2, 100 / 5)],
)
def test_corrections(corrections, scale, above):
    criterion = SampledSmoothAP(RHO, KAPPA, 0.01, 1, max_positives=2, max_negatives=3, corrections=corrections)
    assert criterion.delta == pytest.approx(0.0760, abs=5e-5)

    class FirstIsAnchor:
        permutation = staticmethod(np.arange)
        integers = staticmethod(lambda _: 0)

    s_p = torch.tensor([0.5, 0.5, 0.52, 0.45, 0.56, 0.7, 0.1])
    s_n = torch.tensor([0.5, 0.5, 0.48, 0.54, 0.9, 0.0])
    none = torch.empty(0, 2, dtype=torch.int64)
    draws = criterion.draw(s_p, s_n, Pairs(none, none, 101, 60), FirstIsAnchor())
    assert draws.anchors.tolist() == [0]
    assert draws.positive.is_drawn.all()
    assert set(draws.positive.pairs[0].tolist()) < {1, 2, 3, 4}
    assert draws.positive.scale.item() == pytest.approx(scale)
    assert draws.positive.above.item() == pytest.approx(above)
    # For the negatives, which do not contain the anchor, both forms agree: 4 of 6 in range, 3 drawn, 1 above.
    assert draws.negative.scale.item() == pytest.approx(60 / 6 * 4 / 3)
    assert draws.negative.above.item() == pytest.approx(60 / 6)


@pytest.mark.parametrize("corrections", ["unbiased", "published"])
def test_a_single_positive_is_ranked_among_the_negatives(corrections):
    features = normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.3]], dtype=torch.float64), dim=1)
    points = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0.6, 0, 0]], dtype=torch.float64)
    loss, log = SampledSmoothAP(RHO, KAPPA, TAU, corrections=corrections, saturation=0)(features, points)
    s = features @ features.T
    rank = sum(1 / (1 + math.exp((s[0, 1] - s[k, 2]) / TAU)) for k in (0, 1))
    assert (log["positives"], log["negatives"]) == (1, 2)
    assert loss.item() == pytest.approx(1 - 1 / (1 + rank), abs=1e-9)


def test_half_precision_features_are_summed_in_single():
    patches = scattered(60)
    half = patches._replace(features=patches.features.bfloat16(), points=patches.points.float())
    single = half._replace(features=half.features.float())
    criterion = {"anchors": 10, "seed": 3}
    loss, gradient, _ = call(SampledSmoothAP(RHO, KAPPA, TAU, **criterion), half)
    same, same_gradient, _ = call(SampledSmoothAP(RHO, KAPPA, TAU, **criterion), single)
    assert loss.item() == pytest.approx(same.item(), abs=1e-6)
    torch.testing.assert_close(gradient, same_gradient.bfloat16())


def test_unknown_corrections_are_refused():
    with pytest.raises(ValueError, match="'unbiased' or 'published'"):
        SampledSmoothAP(RHO, KAPPA, TAU, corrections="biased")


@pytest.mark.parametrize("counts", [[5, 0, 30, 15], [3_000_000_000, 0, 1_000_000_000, 8_000_000_000]])
def test_pools_of_scenes_follow_their_numbers_of_pairs(counts):
    counts, rng = np.array(counts), np.random.default_rng(0)
    draws = np.array([_split_count(counts, 20, rng) for _ in range(2000)])
    assert (draws.sum(axis=1) == 20).all()
    assert (draws <= counts).all()
    share = counts / counts.sum()
    # Of a multivariate hypergeometric distribution.
    variance = 20 * share * (1 - share) * (counts.sum() - 20) / (counts.sum() - 1)
    np.testing.assert_allclose(draws.mean(axis=0), 20 * share, atol=4 * np.sqrt(variance.max() / 2000))
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=0.15)
    np.testing.assert_array_equal(_split_count(counts[:1], int(counts[0]), rng), counts[:1])
