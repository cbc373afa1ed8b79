"""The exact ranking loss against the dense one: weights, several scales, precisions, AP of each patch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from loco.losses import LOSSES, DenseSmoothAP, ExactSmoothAP, InfoNCE, build_loss
from tests.unit.losses.batches import KAPPA, RHO, patches, temperature, value_and_gradient

SCALES = {"rho": [0.2, 0.5, 0.3], "kappa": [0.5, 1.5, 0.8]}  # 0.5 m is both a rho and a kappa


def assert_agree(exact, dense, tau):
    (loss, gradient, log), (dense_loss, dense_gradient, dense_log) = exact, dense
    assert loss.item() == pytest.approx(dense_loss.item(), abs=1e-5)
    assert log == pytest.approx(dense_log, abs=1e-5, nan_ok=True)
    # Relative to the largest gradient that the loss can have at this tau, because the true gradient may vanish.
    scale = max(dense_gradient.norm().item(), 1e-3 / tau)
    assert (gradient - dense_gradient).norm().item() <= 1e-4 * scale


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(2, 120),
    scenes=st.integers(1, 3),
    tau=st.sampled_from([0.005, 0.02, 0.5]),
    same_image=st.sampled_from([0.0, 0.4, 1.0]),
    ratio=st.sampled_from([0.3, 1.0, 7.0]),
    scales=st.sampled_from([{"rho": RHO, "kappa": KAPPA}, SCALES]),
    tile=st.sampled_from([7, 64, 512]),
    seed=st.integers(0, 1000),
)
def test_exact_agrees_with_dense_in_every_option(n, scenes, tau, same_image, ratio, scales, tile, seed):
    batch = patches(n, scenes=scenes, seed=seed)
    options = {**scales, "tau": tau, "same_image": same_image, "ratio": ratio}
    exact, dense = ExactSmoothAP(**options, tile=tile), DenseSmoothAP(**options)
    assert_agree(value_and_gradient(exact, *batch), value_and_gradient(dense, *batch), tau)
    precision, truth = exact.patch_precision(*batch), dense.patch_precision(*batch)
    torch.testing.assert_close(precision, truth, atol=1e-4, rtol=0, equal_nan=True)


def test_weights_by_definition():
    features, points, scenes, valid, images = patches(60, scenes=2)
    tau, same_image, ratio = 0.1, 0.4, 3.0
    pairs = [(i, j) for i in range(60) for j in range(i) if scenes[i] == scenes[j] and valid[i] and valid[j]]
    score = {(i, j): float(features[i] @ features[j]) for i, j in pairs}
    distance = {(i, j): math.dist(points[i], points[j]) for i, j in pairs}
    weight = {(i, j): same_image if images[i] == images[j] else 1.0 for i, j in pairs if distance[i, j] <= RHO}
    negative = [pair for pair in pairs if RHO < distance[pair] <= KAPPA]

    def sigma(x: float) -> float:
        return 1 / (1 + math.exp(-x / tau))

    total = 0.0
    of_patch = {}
    for a in weight:
        r_p = sum(weight[b] * sigma(score[b] - score[a]) for b in weight if b != a)
        r_n = ratio * sum(sigma(score[g] - score[a]) for g in negative)
        ap = (1 + r_p) / (1 + r_p + r_n)
        total += weight[a] * ap
        for k in a:
            of_patch.setdefault(k, []).append((weight[a], ap))
    criterion = DenseSmoothAP(RHO, KAPPA, tau, same_image=same_image, ratio=ratio)
    loss, log = criterion(features, points, scenes, valid, images)
    assert loss.item() == pytest.approx(1 - total / sum(weight.values()), abs=1e-12)
    assert (log["positives"], log["negatives"]) == (len(weight), len(negative))
    assert 0 < sum(w < 1 for w in weight.values()) < len(weight)
    precision = criterion.patch_precision(features, points, scenes, valid, images)
    assert {k for k in range(60) if not precision[k].isnan()} == set(of_patch)
    for k, each in of_patch.items():
        assert precision[k].item() == pytest.approx(sum(w * ap for w, ap in each) / sum(w for w, _ in each))


@pytest.mark.parametrize("name", ["dense", "exact"])
def test_several_scales_are_the_mean_of_each(name):
    batch = patches(80, scenes=2)
    loss, gradient, log = value_and_gradient(build_loss(name, **SCALES, tau=0.05), *batch)
    each = [
        value_and_gradient(build_loss(name, rho=rho, kappa=kappa, tau=0.05), *batch)
        for rho, kappa in zip(*SCALES.values())
    ]
    assert loss.item() == pytest.approx(sum(one[0].item() for one in each) / 3)
    torch.testing.assert_close(gradient, sum(one[1] for one in each) / 3)
    assert [log[f"mean_ap_{rho}"] for rho in SCALES["rho"]] == pytest.approx([one[2]["mean_ap"] for one in each])
    assert log["negatives"] == sum(one[2]["negatives"] for one in each)


@pytest.mark.parametrize("name", ["dense", "exact"])
def test_a_scale_without_positives_takes_no_part(name):
    side = torch.arange(5.0)
    points = torch.cartesian_prod(side, side, side[:1])  # a grid of 1 m: no neighbour within 0.5 m
    features = normalize(torch.randn(25, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1)
    wide = value_and_gradient(build_loss(name, rho=1.1, kappa=3, tau=0.1), features, points)
    both = value_and_gradient(build_loss(name, rho=[0.5, 1.1], kappa=[3, 3], tau=0.1), features, points)
    assert both[0].item() == pytest.approx(wide[0].item())
    torch.testing.assert_close(both[1], wide[1])
    assert math.isnan(both[2]["mean_ap_0.5"])
    assert both[2]["mean_ap_1.1"] == pytest.approx(wide[2]["mean_ap"])


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_features_in_half_precision_are_computed_wide(name, dtype):
    features, points, *_ = patches(80)
    features = features.to(dtype)
    half, wide = (build_loss(name, rho=RHO, kappa=KAPPA, **temperature(name, 0.05)) for _ in range(2))
    half_loss, half_gradient, _ = value_and_gradient(half, features, points)
    loss, gradient, _ = value_and_gradient(wide, features.float(), points)
    assert half_loss.dtype == torch.float32
    assert half_loss.item() == pytest.approx(loss.item(), rel=1e-6)
    assert half_gradient.dtype == dtype
    # No more than the rounding of the result, half a unit in the last place.
    assert (half_gradient.float() - gradient).norm() < torch.finfo(dtype).eps / 2 * gradient.norm()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_autocast_changes_nothing(name):
    features, points, *_ = patches(80)
    features = features.float()
    plain, criterion = (build_loss(name, rho=RHO, kappa=KAPPA, **temperature(name, 0.05)) for _ in range(2))
    loss, gradient, _ = value_and_gradient(plain, features, points)
    leaf = features.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast_loss, _ = criterion(leaf, points)
    cast_loss.backward()
    # Threads may add in another order; bfloat16 would differ by a hundredth.
    assert cast_loss.item() == pytest.approx(loss.item(), rel=1e-6)
    assert (leaf.grad - gradient).norm() < 1e-5 * gradient.norm()


def test_exact_computes_wide_where_the_whole_step_is_under_autocast():
    features, points, *_ = patches(80)
    criterion = ExactSmoothAP(RHO, KAPPA, 0.05)
    loss, gradient, _ = value_and_gradient(criterion, features.float(), points)
    precision = criterion.patch_precision(features.float(), points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = value_and_gradient(criterion, features.float(), points)
        cast_precision = criterion.patch_precision(features.float(), points)
    assert cast[0].item() == pytest.approx(loss.item(), rel=1e-6)
    assert (cast[1] - gradient).norm() < 1e-5 * gradient.norm()
    torch.testing.assert_close(cast_precision, precision, atol=1e-7, rtol=1e-6, equal_nan=True)


EVERYTHING = {"anchors": 10**6, "max_positives": 10**6, "max_negatives": 10**6, "saturation": 0.0}
# Linear binning makes the exact loss slightly rough, so steps are wide relative to a bin and small relative to tau.
ROUGH = {"eps": 0.004, "atol": 1e-5, "rtol": 2e-3}


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("exact", {**SCALES, "same_image": 0.4, "ratio": 2.0}, ROUGH),
        ("dense", {**SCALES, "same_image": 0.4, "ratio": 2.0}, {}),
        ("dense", {"rho": RHO, "kappa": KAPPA, "self_term": True}, {}),
        ("sampled", {"rho": RHO, "kappa": KAPPA, "ratio": 2.0, **EVERYTHING}, {}),
        ("info_nce", {"rho": RHO, "kappa": KAPPA, "beta": 0.5}, {}),
        ("sup_con", {"rho": RHO, "kappa": KAPPA, "beta": 0.5}, {}),
    ],
)
def test_gradient_by_finite_differences(name, options, steps):
    features, points, *rest = patches(30, 1, seed=4)

    def loss(features):
        return build_loss(name, tau=0.5, **options)(features, points, *rest)[0]  # a new one repeats the draws

    assert loss(features) > 0.1
    assert torch.autograd.gradcheck(loss, features.requires_grad_(), **steps)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_compiled_training_step_has_the_same_loss_and_gradient(name):
    features, points, *rest = patches(60)
    torch.manual_seed(0)
    network = torch.nn.Linear(features.shape[1], 8).double()

    def step(criterion):
        return criterion(normalize(network(features), dim=1), points, *rest)

    found = []
    for run in (step, torch.compile(step, backend="aot_eager")):
        network.zero_grad()
        loss, log = run(build_loss(name, rho=RHO, kappa=KAPPA, **temperature(name, 0.1)))
        loss.backward()
        found.append((loss.item(), network.weight.grad, log))
    (loss, gradient, log), (compiled_loss, compiled_gradient, compiled_log) = found
    assert compiled_loss == pytest.approx(loss, abs=1e-12)
    torch.testing.assert_close(compiled_gradient, gradient)
    assert compiled_log == pytest.approx(log, nan_ok=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": [0.1, 0.2]}, "a rho and a kappa"),
        ({"rho": [0.1, 0.2], "kappa": [1.0]}, "a rho and a kappa"),
        ({"rho": [], "kappa": []}, "a rho and a kappa"),
        ({"rho": [0.1, 0.1], "kappa": [1.0, 2.0]}, "a rho and a kappa"),
        ({"rho": [0.1, 2.0], "kappa": [1.0, 1.5]}, "0 < rho < kappa"),
        ({"same_image": -0.1}, "same_image"),
        ({"same_image": 1.1}, "same_image"),
        ({"ratio": 0.0}, "ratio"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExactSmoothAP(**{"rho": 0.2, "kappa": 1.0, "tau": 0.1} | options)


def test_a_loss_of_one_scale_refuses_several():
    with pytest.raises(ValueError, match="InfoNCE supports a single scale"):
        InfoNCE(rho=[0.1, 0.2], kappa=[1.0, 2.0], tau=0.1)
