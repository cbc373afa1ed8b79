"""Three implementations of the loss, compared with the definition, written as loops, and with each other."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from loco.losses import DenseSmoothAP, ExactSmoothAP, SampledSmoothAP, build_loss
from tests.unit.losses.batches import KAPPA, RHO, patches, temperature, value_and_gradient


def by_definition(features, points, scenes, valid, images, tau, self_term=False) -> float:
    """Compute LoCo eq. 2 by plain loops."""
    n = len(features)
    pairs = [(i, j) for i in range(n) for j in range(i) if scenes[i] == scenes[j] and valid[i] and valid[j]]
    distance = {(i, j): math.dist(points[i], points[j]) for i, j in pairs}
    score = {(i, j): float(features[i] @ features[j]) for i, j in pairs}
    positive = [(i, j) for i, j in pairs if distance[i, j] <= RHO and images[i] != images[j]]
    negative = [p for p in pairs if RHO < distance[p] <= KAPPA]

    def sigma(x: float) -> float:
        return 1 / (1 + math.exp(-x / tau))

    total = 0.0
    for a in positive:
        r_p = sum(sigma(score[b] - score[a]) for b in positive if self_term or b != a)
        r_n = sum(sigma(score[g] - score[a]) for g in negative)
        total += (1 + r_p) / (1 + r_p + r_n)
    return 1 - total / len(positive)


@pytest.mark.parametrize("self_term", [False, True])
def test_dense_is_the_definition(self_term):
    batch = patches(60, scenes=2)
    loss, log = DenseSmoothAP(RHO, KAPPA, 0.1, self_term=self_term)(*batch)
    assert loss.item() == pytest.approx(by_definition(*batch, 0.1, self_term), abs=1e-12)
    assert log["mean_ap"] == pytest.approx(1 - loss.item())
    assert log["positives"] >= 5


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(2, 150),
    d=st.integers(1, 40),
    scenes=st.integers(1, 3),
    tau=st.sampled_from([0.005, 0.01, 0.05, 0.5]),
    tile=st.sampled_from([7, 64, 512]),
    seed=st.integers(0, 1000),
)
def test_exact_agrees_with_dense(n, d, scenes, tau, tile, seed):
    batch = patches(n, d, scenes, seed)
    dense, dense_gradient, dense_log = value_and_gradient(DenseSmoothAP(RHO, KAPPA, tau), *batch)
    exact, exact_gradient, exact_log = value_and_gradient(ExactSmoothAP(RHO, KAPPA, tau, tile=tile), *batch)
    assert exact.item() == pytest.approx(dense.item(), abs=1e-5)
    assert {k: v for k, v in exact_log.items() if k != "mean_ap"} == {
        k: v for k, v in dense_log.items() if k != "mean_ap"
    }
    # Relative to the largest gradient that the loss can have at this tau, because the true gradient may vanish.
    scale = max(dense_gradient.norm().item(), 1e-3 / tau)
    assert (exact_gradient - dense_gradient).norm().item() <= 1e-4 * scale


def test_exact_in_single_precision():
    batch = patches(400, 32, 2)
    dense, dense_gradient, _ = value_and_gradient(DenseSmoothAP(RHO, KAPPA, 0.02), *batch)
    single = (batch[0].float(), batch[1].float(), *batch[2:])
    exact, exact_gradient, _ = value_and_gradient(ExactSmoothAP(RHO, KAPPA, 0.02), *single)
    assert exact.item() == pytest.approx(dense.item(), abs=1e-5)
    assert (exact_gradient - dense_gradient).norm() <= 1e-4 * dense_gradient.norm()


def test_exact_counts_pairs_at_the_radii_far_from_the_origin():
    # A grid of 0.1 m, 50 m from the origin: many distances are within micrometres of a radius of 0.25 m or 0.75 m.
    side = torch.arange(6) * 0.1
    points = torch.cartesian_prod(side, side, side[:2]) + 50
    features = normalize(torch.randn(len(points), 8, generator=torch.Generator().manual_seed(0)), dim=1)
    _, log = ExactSmoothAP(0.25, 0.75, 0.1)(features, points)
    distance = torch.pdist(points.double())
    assert log["positives"] == int((distance <= 0.25).sum())
    assert log["negatives"] == int(((distance > 0.25) & (distance <= 0.75)).sum())


def test_exact_with_ties_and_coincident_points():
    features, points, *rest = patches(60)
    features, points = features[torch.arange(60) // 3], points[torch.arange(60) // 3]
    dense, dense_gradient, _ = value_and_gradient(DenseSmoothAP(RHO, KAPPA, 0.05), features, points, *rest)
    exact, exact_gradient, _ = value_and_gradient(ExactSmoothAP(RHO, KAPPA, 0.05), features, points, *rest)
    assert exact.item() == pytest.approx(dense.item(), abs=1e-5)
    assert (exact_gradient - dense_gradient).norm() <= 1e-4 * dense_gradient.norm()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dense", {}),
        ("exact", {}),
        ("sampled", {}),
        ("info_nce", {}),
        ("sup_con", {}),
        ("triplet", {}),
        ("exact", {"ranking": "query", "queries": 3}),
        ("dense", {"ranking": "query"}),
        ("exact", {"ranking": "query"}),
    ],
)
@pytest.mark.parametrize("case", ["no patch", "one patch", "far apart", "none valid", "different scenes"])
def test_nothing_to_rank_is_a_zero_loss_with_zero_gradient(name, options, case):
    n = {"no patch": 0, "one patch": 1}.get(case, 5)
    features = normalize(torch.randn(n, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    points = torch.arange(n)[:, None] * torch.ones(n, 3) * (50 if case == "far apart" else 0.01)
    scenes = torch.arange(n) if case == "different scenes" else None
    valid = torch.zeros(n, dtype=torch.bool) if case == "none valid" else None
    loss, gradient, log = value_and_gradient(
        build_loss(name, rho=RHO, kappa=KAPPA, **temperature(name, 0.1), **options), features, points, scenes, valid
    )
    assert loss == 0
    assert (gradient == 0).all()
    assert log["positives"] == 0
    assert math.isnan(log["mean_ap"])


@pytest.mark.parametrize("name", ["dense", "exact", "sampled", "info_nce", "sup_con", "triplet"])
def test_patches_of_one_image_form_no_positive_pair(name):
    features, points, *_ = patches(50)
    criterion = build_loss(name, rho=RHO, kappa=KAPPA, **temperature(name, 0.1))
    _, everything = criterion(features, points)
    _, one_image = criterion(features, points, image_ids=torch.zeros(50, dtype=torch.int64))
    assert (one_image["positives"], one_image["negatives"]) == (0, everything["negatives"])
    assert everything["positives"] > 0


@pytest.mark.parametrize("name", ["dense", "exact", "sampled"])
def test_without_negatives_the_ranking_is_perfect(name):
    features, points, *_ = patches(6)
    loss, _ = build_loss(name, rho=50, kappa=60, tau=0.1)(features, points)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_sampled_with_everything_drawn_is_dense():
    batch = patches(80, scenes=2)
    everything = {"anchors": 10**6, "max_positives": 10**6, "max_negatives": 10**6, "pool": 10**7, "saturation": 0.0}
    dense, dense_gradient, _ = value_and_gradient(DenseSmoothAP(RHO, KAPPA, 0.05, ratio=3.0), *batch)
    sampled, gradient, _ = value_and_gradient(SampledSmoothAP(RHO, KAPPA, 0.05, ratio=3.0, **everything), *batch)
    assert sampled.item() == pytest.approx(dense.item(), abs=1e-9)
    torch.testing.assert_close(gradient, dense_gradient, atol=1e-9, rtol=1e-6)


def test_sampled_is_centred_on_dense():
    batch = patches(200, scenes=2, seed=3)
    dense, _ = DenseSmoothAP(RHO, KAPPA, 0.05)(*batch)
    # The loss is a ratio, so its mean over draws is biased by the order of 1 / (number of drawn pairs).
    criterion = SampledSmoothAP(RHO, KAPPA, 0.05, anchors=64, max_positives=60, max_negatives=300, pool=2000)
    draws = np.array([criterion(*batch)[0].item() for _ in range(150)])
    error = draws.std(ddof=1) / math.sqrt(len(draws))
    assert abs(draws.mean() - dense.item()) < 3 * error + 5e-4
    assert draws.std() > 0


def test_sampled_draws_follow_the_seed_and_the_saved_state():
    batch, options = patches(100), {"anchors": 8, "max_positives": 10, "max_negatives": 20}
    one, two = (SampledSmoothAP(RHO, KAPPA, 0.05, **options, seed=1) for _ in range(2))
    first, second = one(*batch)[0], one(*batch)[0]
    assert first != second
    assert two(*batch)[0] == first
    three = SampledSmoothAP(RHO, KAPPA, 0.05, **options, seed=1)
    three.load_state_dict(two.state_dict())
    assert three(*batch)[0] == second


def test_saturation_bound_is_the_published_one():
    assert SampledSmoothAP(0.2, 0.5, 0.01).delta == pytest.approx(0.0760, abs=5e-5)


def test_info_nce_draws_its_queries_from_the_saved_state():
    batch = patches(100)
    one, two = (build_loss("info_nce", rho=RHO, kappa=KAPPA, tau=0.1, queries=8) for _ in range(2))
    first, second = one(*batch)[0], one(*batch)[0]
    assert first != second
    assert two(*batch)[0] == first
    assert two(*batch)[0] == second


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(4, 3)}, r"points \(n, 3\)"),
        ({"features": torch.zeros(5)}, r"the shape \(n, d\)"),
        ({"scene_ids": torch.zeros(4)}, r"scene_ids \(n,\)"),
        ({"valid": torch.zeros(5, 1)}, r"valid \(n,\)"),
        ({"image_ids": torch.zeros(6)}, r"image_ids \(n,\)"),
    ],
)
def test_wrong_shapes_are_refused(change, message):
    inputs = {"features": torch.zeros(5, 2), "points": torch.zeros(5, 3)} | change
    with pytest.raises(ValueError, match=message):
        ExactSmoothAP(RHO, KAPPA, 0.1)(**inputs)


@pytest.mark.parametrize("options", [{"rho": 1, "kappa": 0.5}, {"rho": 0}, {"tau": 0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="must"):
        ExactSmoothAP(**{"rho": 0.2, "kappa": 1.0, "tau": 0.1} | options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("exact", {}),
        ("dense", {}),
        ("landmarks", {"landmarks": 16}),
        ("info_nce", {"queries": 32}),
        ("sampled", {"anchors": 16, "max_positives": 32, "max_negatives": 64, "saturation": 0.1}),
    ],
)
def test_a_changed_temperature_is_that_of_a_new_loss(name, options):
    batch = patches(120)
    changed, new = (build_loss(name, rho=RHO, kappa=KAPPA, tau=tau, **options) for tau in (0.3, 0.02))
    before = changed(*batch)[0]
    changed = build_loss(name, rho=RHO, kappa=KAPPA, tau=0.3, **options)  # repeats the draws of its first call
    changed.tau = 0.02
    (found, slope, _), (expected, expected_slope, _) = (value_and_gradient(loss, *batch) for loss in (changed, new))
    assert found == expected != before
    assert torch.equal(slope, expected_slope)
    with pytest.raises(ValueError, match="tau must be positive and finite, found 0"):
        changed.tau = 0.0
