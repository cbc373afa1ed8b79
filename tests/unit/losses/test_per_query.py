"""The ranking per query against its definition in loops, and the exact form of it against the dense one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loco.losses import DenseSmoothAP, ExactSmoothAP
from tests.unit.losses.batches import KAPPA, RHO, patches, value_and_gradient

ONE = {"rho": RHO, "kappa": KAPPA}
SCALES = {"rho": [0.2, 0.5, 0.3], "kappa": [0.5, 1.5, 0.8], "weights": [1.0, 0.3, 0.2]}


def assert_agree(options: dict, *batch: torch.Tensor, tile: int | None = None) -> None:
    exact, dense = ExactSmoothAP(**options, ranking="query", tile=tile), DenseSmoothAP(**options, ranking="query")
    (loss, gradient, log), (true_loss, true_gradient, true_log) = (
        value_and_gradient(criterion, *batch) for criterion in (exact, dense)
    )
    assert loss.item() == pytest.approx(true_loss.item(), abs=1e-5)
    assert log == pytest.approx(true_log, abs=1e-5, nan_ok=True)
    # Relative to the largest gradient that the loss can have at this tau, where the true one may vanish.
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
