"""The ranking per query against its definition as loops, and its exact implementation against the dense one."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from loco.losses import DenseSmoothAP, ExactSmoothAP, exact
from loco.losses.inputs import select
from tests.unit.losses.batches import KAPPA, RHO, patches, value_and_gradient

ONE = {"rho": RHO, "kappa": KAPPA}
SCALES = {"rho": [0.2, 0.5, 0.3], "kappa": [0.5, 1.5, 0.8], "weights": [1.0, 0.3, 0.2]}


def dense_over(queries: torch.Tensor, options: dict, batch: tuple) -> tuple[torch.Tensor, torch.Tensor]:
    """Return loss and gradient of the dense implementation for some queries, among patches that can form pairs."""
    features = batch[0].clone().requires_grad_()
    dense = DenseSmoothAP(**options, ranking="query")
    ranked = dense._rank(select(normalize(features, dim=1), *batch[1:]).patches, dense.scales[0])
    weight = ranked.weight * torch.isin(ranked.patches[0], queries)
    loss = 1 - (weight * ranked.ap).sum() / weight.sum()
    loss.backward()
    return loss.detach(), features.grad


def assert_agree(options: dict, *batch: torch.Tensor, tile: int | None = None) -> None:
    exact, dense = ExactSmoothAP(**options, ranking="query", tile=tile), DenseSmoothAP(**options, ranking="query")
    (loss, gradient, log), (true_loss, true_gradient, true_log) = (
        value_and_gradient(criterion, *batch) for criterion in (exact, dense)
    )
    assert loss.item() == pytest.approx(true_loss.item(), abs=1e-5)
    assert log == pytest.approx(true_log, abs=1e-5, nan_ok=True)
    # Relative to the largest gradient that the loss can have at this tau, because the true gradient may vanish.
    scale = max(true_gradient.norm().item(), 1e-3 / options["tau"])
    assert (gradient - true_gradient).norm().item() <= 1e-4 * scale
    precision, truth = exact.patch_precision(*batch), dense.patch_precision(*batch)
    torch.testing.assert_close(precision, truth, atol=1e-5, rtol=0, equal_nan=True)


def test_dense_is_the_definition():
    features, points, scenes, valid, images = patches(50, scenes=2)
    tau, same_image, ratio, own = 0.1, 0.4, 3.0, []
    for i in range(50):
        others = [j for j in range(50) if j != i and valid[i] and valid[j] and scenes[i] == scenes[j]]
        distance = {j: math.dist(points[i], points[j]) for j in others}
        score = {j: float(features[i] @ features[j]) for j in others}
        weight = {j: same_image if images[i] == images[j] else 1.0 for j in others if distance[j] <= RHO}
        negative = [j for j in others if RHO < distance[j] <= KAPPA]
        total = 0.0
        for a in weight:
            r_p = sum(weight[b] / (1 + math.exp((score[a] - score[b]) / tau)) for b in weight if b != a)
            r_n = ratio * sum(1 / (1 + math.exp((score[a] - score[g]) / tau)) for g in negative)
            total += weight[a] * (1 + r_p) / (1 + r_p + r_n)
        if weight:
            own.append((i, total / sum(weight.values()), len(weight), len(negative)))
    patch, ap, positives, negatives = zip(*own)
    assert len(own) > 12
    criterion = DenseSmoothAP(RHO, KAPPA, tau, same_image=same_image, ratio=ratio, ranking="query")
    loss, log = criterion(features, points, scenes, valid, images)
    assert loss.item() == pytest.approx(1 - sum(ap) / len(ap), abs=1e-12)
    assert (log["positives"], log["negatives"]) == (sum(positives), sum(negatives))
    precision = criterion.patch_precision(features, points, scenes, valid, images)
    assert {k for k in range(50) if not precision[k].isnan()} == set(patch)
    assert precision[list(patch)].tolist() == pytest.approx(ap)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(0, 60),
    scenes=st.integers(1, 3),
    tau=st.sampled_from([0.005, 0.02, 0.5]),
    same_image=st.sampled_from([0.0, 0.4, 1.0]),
    ratio=st.sampled_from([0.3, 1.0, 7.0]),
    scales=st.sampled_from([ONE, SCALES, {"rho": 0.4, "kappa": None}]),
    tile=st.sampled_from([7, 64]),
    seed=st.integers(0, 1000),
)
def test_exact_agrees_with_dense_in_every_option(n, scenes, tau, same_image, ratio, scales, tile, seed):
    options = {**scales, "tau": tau, "same_image": same_image, "ratio": ratio}
    assert_agree(options, *patches(n, scenes=scenes, seed=seed), tile=tile)


def test_ties_and_coincident_points():
    features, points, *rest = patches(45)
    thrice = torch.arange(45) // 3
    assert_agree({**ONE, "tau": 0.05}, features[thrice], points[thrice], *rest)


@pytest.mark.parametrize("ranking", ["batch", "query"])
def test_weights_of_scales_are_not_rounded(ranking):
    batch = patches(60)
    scales = [DenseSmoothAP(*radii, 0.1, ranking=ranking) for radii in zip(SCALES["rho"], SCALES["kappa"])]
    each = [value_and_gradient(scale, *batch) for scale in scales]
    loss, gradient, _ = value_and_gradient(DenseSmoothAP(**SCALES, tau=0.1, ranking=ranking), *batch)
    weights = [weight / sum(SCALES["weights"]) for weight in SCALES["weights"]]
    assert loss.item() == pytest.approx(sum(w * one.item() for w, (one, *_) in zip(weights, each)), abs=1e-12)
    expected = sum(w * one for w, (_, one, _) in zip(weights, each))
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("queries", [20, 60])
def test_drawn_queries_are_ranked_against_all_their_pairs(monkeypatch, queries):
    batch, options = patches(120, scenes=2), {**ONE, "tau": 0.05, "same_image": 0.4, "ratio": 2.0}
    drawn, draw = [], exact.sample_rows
    monkeypatch.setattr(exact, "sample_rows", lambda *arguments: drawn.append(draw(*arguments)) or drawn[-1])
    criterion = ExactSmoothAP(**options, ranking="query", queries=queries, tile=32)
    found = [value_and_gradient(criterion, *batch) for _ in range(3)]
    assert len({loss.item() for loss, *_ in found}) == 3
    for rows, (loss, gradient, _) in zip(drawn, found):
        assert len(rows.unique()) == queries
        true_loss, true_gradient = dense_over(rows, options, batch)
        assert loss.item() == pytest.approx(true_loss.item(), abs=1e-5)
        assert (gradient - true_gradient).norm() <= 1e-4 * true_gradient.norm()


def test_the_mean_over_all_draws_is_the_loss_of_all_queries(monkeypatch):
    features, points, *_ = patches(7)
    batch, options = (features, points / 4), {"rho": 0.5, "kappa": 1.0, "tau": 0.1, "ranking": "query"}
    loss, gradient, _ = value_and_gradient(ExactSmoothAP(**options), *batch)
    assert not ExactSmoothAP(**options).patch_precision(*batch).isnan().any()  # every patch is a query
    draws = [torch.tensor(rows) for rows in itertools.combinations(range(7), 3)]
    remaining = iter(draws)
    monkeypatch.setattr(exact, "sample_rows", lambda *_: next(remaining))
    criterion = ExactSmoothAP(**options, queries=3)
    losses, gradients, _ = zip(*(value_and_gradient(criterion, *batch) for _ in draws))
    assert torch.stack(losses).mean().item() == pytest.approx(loss.item(), abs=1e-12)
    torch.testing.assert_close(torch.stack(gradients).mean(dim=0), gradient)


def test_as_many_queries_as_patches_are_all_queries():
    batch = patches(120, scenes=2)
    every, drawn = (ExactSmoothAP(**SCALES, tau=0.05, ranking="query", queries=q) for q in (None, 120))
    (loss, gradient, log), (drawn_loss, drawn_gradient, drawn_log) = (
        value_and_gradient(criterion, *batch) for criterion in (every, drawn)
    )
    assert drawn_loss == loss
    assert torch.equal(drawn_gradient, gradient)
    assert drawn_log == log
    precision, of_all = (criterion.patch_precision(*batch) for criterion in (drawn, every))
    torch.testing.assert_close(precision, of_all, equal_nan=True)


@pytest.mark.parametrize(("ranking", "queries"), [("batch", 5), ("query", 0)])
def test_queries_that_cannot_be_drawn_are_refused(ranking, queries):
    with pytest.raises(ValueError, match="queries must be at least 1, with ranking='query'"):
        ExactSmoothAP(**ONE, tau=0.1, ranking=ranking, queries=queries)


BOUND = 3.5e-5  # of the error of an average precision, derived in docs/losses.md


@pytest.mark.parametrize("tau", [0.02, 0.1, 0.6])
def test_error_of_one_positive_and_one_negative_is_below_its_bound(tau):
    count, rng = 400, torch.Generator().manual_seed(0)
    own = 1.8 * torch.rand(count, generator=rng, dtype=torch.float64) - 0.9
    other = (own + tau * torch.randn(count, generator=rng, dtype=torch.float64)).clamp(-1, 1)
    scores = torch.stack([torch.ones_like(own), own, other], dim=1)  # of the query, its positive and its negative
    features = torch.stack([scores, (1 - scores**2).sqrt()], dim=2).flatten(0, 1)
    points = torch.tensor([[0.0, 0, 0], [0.2, 0, 0], [-0.6, 0, 0]]).repeat(count, 1)
    scenes = torch.arange(count).repeat_interleave(3)
    found = ExactSmoothAP(RHO, KAPPA, tau, ranking="query", normalise=False).patch_precision(features, points, scenes)
    truth = 1 / (1 + torch.sigmoid((other - own) / tau))
    error = (found[::3] - truth).abs().max().item()
    assert 1e-9 < error < BOUND


@pytest.mark.parametrize("tau", [0.01, 0.05, 0.3])
def test_error_of_every_query_is_below_its_bound(tau):
    for seed in range(5):
        batch = patches(150, seed=seed)
        exact_precision, dense_precision = (
            kind(RHO, KAPPA, tau, same_image=0.4, ratio=3.0, ranking="query").patch_precision(*batch)
            for kind in (ExactSmoothAP, DenseSmoothAP)
        )
        ranked = ~dense_precision.isnan()
        assert ranked.sum() > 90
        assert (exact_precision - dense_precision)[ranked].abs().max() < BOUND


@settings(deadline=None, max_examples=20)
@given(n=st.integers(2, 60), seed=st.integers(0, 1000), tile=st.sampled_from([7, 64]))
def test_patches_may_come_in_any_order(n, seed, tile):
    batch = patches(n, scenes=2, seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    criterion = ExactSmoothAP(**SCALES, tau=0.05, ranking="query", tile=tile)
    loss, gradient, log = value_and_gradient(criterion, *batch)
    permuted, permuted_gradient, permuted_log = value_and_gradient(criterion, *(part[order] for part in batch))
    assert permuted.item() == pytest.approx(loss.item(), abs=1e-6)  # the nodes of a block may change
    torch.testing.assert_close(permuted_gradient, gradient[order], atol=1e-5, rtol=1e-4)
    assert permuted_log == pytest.approx(log, abs=1e-6, nan_ok=True)


def test_without_negatives_every_query_is_perfect():
    features, points, *rest = patches(40, scenes=2)
    criterion = ExactSmoothAP(50, 60, 0.1, ranking="query")
    loss, gradient, log = value_and_gradient(criterion, features, points, *rest)
    assert log["negatives"] == 0
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert gradient.abs().max() < 1e-6
