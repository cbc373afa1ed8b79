"""Inputs in the forms that users pass: every loss finds the same pairs and features as for float64 rows."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from loco.losses import DenseSmoothAP, ExactSmoothAP, build_loss
from loco.losses.histograms import SMALLEST_TAU
from loco.losses.inputs import normalise_rows, require_normalised_rows
from tests.unit.losses.batches import KAPPA, RHO, patches, value_and_gradient

NAMES = ["dense", "exact", "info_nce", "sampled"]  # over all pairs of a batch
EVERYTHING = {"anchors": 10**6, "max_positives": 10**6, "max_negatives": 10**6, "saturation": 0.0}


def loss(name, **options):
    defaults = {"rho": RHO, "kappa": KAPPA, "tau": 0.05} | (EVERYTHING if name == "sampled" else {})
    return build_loss(name, **{**defaults, **options})


def counts(log):
    return log["positives"], log["negatives"]


def brute_force(points, rho=RHO, kappa=KAPPA):
    """Return the numbers of positive and negative pairs of points (n, 3), each patch in a separate image."""
    points = np.asarray(points, dtype=np.float64)
    pairs = [math.dist(a, b) for k, a in enumerate(points) for b in points[:k]]
    return sum(r <= rho for r in pairs), sum(rho < r <= kappa for r in pairs)


# Points -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rows", [[7], [0, 3, 8, 9, 79], list(range(1, 80))])
def test_points_that_are_not_finite_form_no_pairs(name, value, rows):
    features, points, *_ = patches(80)
    valid = torch.ones(80, dtype=torch.bool)
    valid[rows] = False
    expected = value_and_gradient(loss(name), features, points, None, valid)
    points[rows, torch.arange(len(rows)) % 3] = value
    features[rows] = math.nan  # features of patches without a point have no effect
    found = value_and_gradient(loss(name), features, points)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert found[2] == pytest.approx(expected[2], nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64", "int32", "int64", "uint8", "array"])
def test_points_of_any_type(name, kind):
    features, points, *_ = patches(100)
    scale = 10 if "int" in kind else 1  # decimetres
    typed = (points * scale).float().numpy() if kind == "array" else (points * scale).to(getattr(torch, kind))
    _, log = loss(name, rho=RHO * scale, kappa=KAPPA * scale)(features, typed)
    both = 2 if name == "info_nce" else 1  # InfoNCE counts a pair for each of its patches
    exact = torch.as_tensor(typed).double()
    assert counts(log) == tuple(both * count for count in brute_force(exact, RHO * scale, KAPPA * scale))


@pytest.mark.parametrize("name", NAMES)
def test_points_are_constants(name):
    features, points, *_ = patches(80)
    expected = value_and_gradient(loss(name), features, points)
    leaf = points.clone().requires_grad_()
    found = value_and_gradient(loss(name), features, leaf * 1)
    assert torch.equal(found[1], expected[1])
    assert leaf.grad is None


# Layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("per_image", [False, True])
def test_feature_maps_are_rows_in_another_layout(name, per_image):
    b, h, w = 4, 5, 6
    features, points, _, valid, _ = patches(b * h * w)
    scenes, images = torch.tensor([3, 3, 3, 8]), torch.arange(4)
    rows = (ids.repeat_interleave(h * w) for ids in (scenes, images))
    expected = value_and_gradient(loss(name), features, points, next(rows), valid, next(rows))
    maps = features.view(b, h, w, -1).permute(0, 3, 1, 2)
    ids = [scenes, images] if per_image else [x[:, None, None].expand(b, h, w) for x in (scenes, images)]
    found = value_and_gradient(loss(name), maps, points.view(b, h, w, 3), ids[0], valid.view(b, h, w), ids[1])
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1].permute(0, 2, 3, 1).flatten(0, 2), expected[1])
    assert found[2] == pytest.approx(expected[2], nan_ok=True)
    alone = value_and_gradient(loss(name), maps, points.view(b, h, w, 3))
    assert counts(alone[2]) == counts(value_and_gradient(loss(name), features, points)[2])


@pytest.mark.parametrize("name", ["dense", "exact"])
def test_patch_precision_has_the_layout_of_the_inputs(name):
    features, points, _, valid, _ = patches(60)
    points[5] = math.nan
    valid[5] = True
    rows = loss(name).patch_precision(features, points, valid=valid)
    maps = features.view(2, 5, 6, -1).permute(0, 3, 1, 2)
    found = loss(name).patch_precision(maps, points.view(2, 5, 6, 3), valid=valid.view(2, 5, 6))
    torch.testing.assert_close(found.flatten(), rows, equal_nan=True)
    assert found.shape == (2, 5, 6)
    assert rows[~valid].isnan().all()
    assert rows[5].isnan()
    assert 10 < rows.isfinite().sum() < 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(2, 3, 4, 4)}, r"points \(b, h, w, 3\).*found features \(2, 5, 4, 4\), points"),
        ({"points": torch.zeros(32, 3)}, r"points \(b, h, w, 3\)"),
        ({"valid": torch.ones(2, 1, 4, 4)}, r"valid \(b, h, w\)"),
        ({"scene_ids": torch.zeros(3)}, r"scene_ids \(b, h, w\) or \(b,\)"),
        ({"features": torch.zeros(2, 16, 5)}, r"the shape \(n, d\) or \(b, d, h, w\)"),
        ({"features": torch.zeros(2, 5, 4, 4, dtype=torch.int64)}, "floating-point type, found torch.int64"),
        ({"points": torch.zeros(2, 4, 4, 3, dtype=torch.bool)}, "points must be real numbers"),
        ({"scene_ids": torch.tensor([0.0, 0.5])}, "scene_ids must be integers"),
        ({"image_ids": torch.tensor([0.0, math.nan])}, "image_ids must be integers"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, message):
    inputs = {"features": torch.zeros(2, 5, 4, 4), "points": torch.zeros(2, 4, 4, 3)} | change
    with pytest.raises(ValueError, match=message):
        ExactSmoothAP(RHO, KAPPA, 0.1)(**inputs)


@pytest.mark.parametrize("name", NAMES)
def test_features_that_are_no_tensor_are_refused(name):
    features, points, *_ = patches(20)
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor, found numpy\.ndarray; convert them"):
        loss(name)(features.numpy(), points.numpy())
    torch.testing.assert_close(loss(name)(features, points.numpy())[0], loss(name)(features, points)[0])


# Lengths of the rows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1.05, 3.0, 1e-6, 1e12])
def test_rows_of_any_length_are_normalised(name, scale):
    features, points, *rest = patches(80)
    lengths = scale * (0.5 + torch.rand(80, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    leaf = (features * lengths).requires_grad_()
    value, log = loss(name, normalise=False)(normalize(leaf, dim=1), points, *rest)
    value.backward()
    found = value_and_gradient(loss(name), features * lengths, points, *rest)
    assert found[0].item() == pytest.approx(value.item(), abs=1e-12)
    torch.testing.assert_close(found[1], leaf.grad, rtol=1e-6, atol=1e-12 / scale)
    assert found[2] == pytest.approx(log, nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_zeros_is_similar_to_none(name):
    features, points, *_ = patches(60)
    features[[3, 4]] = 0
    value, gradient, _ = value_and_gradient(loss(name), features, points)
    assert value.isfinite()
    assert (gradient[[3, 4]] == 0).all()
    assert gradient.isfinite().all()
    assert gradient.norm() > 0
    assert torch.equal(value, loss(name, normalise=False)(normalise_rows(features)[0], points)[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [0.5, 0.999, 1.001, 2.0])
def test_rows_of_other_lengths_are_refused_on_request(name, length):
    features, points, *_ = patches(60)
    features[17] *= length
    with pytest.raises(ValueError, match=f"found a row with norm {length:g}: apply torch.nn.functional.normalize"):
        loss(name, normalise=False)(features, points)
    points[17] = math.nan  # a patch that forms no pair may have any feature
    loss(name, normalise=False)(features, points)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_rows_that_are_unit_up_to_the_rounding_of_their_type_are_accepted(dtype):
    rng = torch.Generator().manual_seed(0)
    for d in (1, 2, 3, 64, 1000):
        assert require_normalised_rows(normalize(torch.randn(200, d, generator=rng), dim=1).to(dtype))
    assert require_normalised_rows(torch.full((1, 3), 1 / math.sqrt(3)).to(dtype))


@pytest.mark.parametrize("name", ["dense", "info_nce", "sampled"])
def test_gradient_of_rows_that_are_not_unit(name):
    features, points, *rest = patches(25, 1, seed=4)
    features = (features * torch.linspace(0.3, 4, 25, dtype=torch.float64)[:, None]).requires_grad_()
    criterion = loss(name, tau=0.5)

    def value(features):
        criterion.load_state_dict({key: torch.zeros_like(x) for key, x in criterion.state_dict().items()})
        return criterion(features, points, *rest)[0]

    assert torch.autograd.gradcheck(value, features)


# Features that are not finite -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("rows", [[4], slice(None)])
def test_features_that_are_not_finite_give_a_loss_that_is_not_a_number(name, value, normalise, rows):
    features, points, *rest = patches(60)
    _, _, log = value_and_gradient(loss(name), features, points, *rest)
    assert rest[1][4]
    features[rows, 0] = value
    found = value_and_gradient(loss(name, normalise=normalise), features, points, *rest)
    assert found[0].isnan()
    assert found[1][rest[1]].isnan().all()
    assert (found[1][~rest[1]] == 0).all()
    assert counts(found[2]) == counts(log)
    assert math.isnan(found[2]["mean_ap"])


@pytest.mark.parametrize("name", NAMES)
def test_a_patch_without_pairs_is_no_exception(name):
    features, points, *_ = patches(60)
    points[0] = 1000.0
    features[0] = math.nan
    assert loss(name)(features, points)[0].isnan()


@pytest.mark.parametrize("name", NAMES)
def test_an_overflow_in_half_precision_leaves_out_the_step(name):
    torch.manual_seed(0)
    inputs, points = torch.randn(60, 8), torch.rand(60, 3)
    inputs[0] = 1e6
    network = torch.nn.Linear(8, 16)
    before = network.weight.clone()
    optimiser, scaler = torch.optim.SGD(network.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=256.0)
    for expected in (128.0, 128.0):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.float16):
            value, _ = loss(name)(network(inputs), points)
        scaler.scale(value).backward()
        scaler.step(optimiser)
        scaler.update()
        assert scaler.get_scale() == expected
        assert torch.equal(network.weight, before) == (inputs[0, 0] == 1e6)
        inputs[0] = 1.0


@pytest.mark.parametrize("name", ["dense", "exact"])
def test_precision_of_features_that_are_not_finite(name):
    features, points, *_ = patches(40)
    features[3] = math.inf
    assert loss(name).patch_precision(features, points).isnan().all()


# All pairs of a scene ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kappa", [math.inf, None, 1e200, 1e300])
def test_without_an_outer_radius_all_pairs_of_a_scene_count(name, kappa):
    batch = patches(90, scenes=2)
    expected = value_and_gradient(loss(name, kappa=1e6), *batch)
    found = value_and_gradient(loss(name, kappa=kappa), *batch)
    assert found[0].item() == pytest.approx(expected[0].item(), abs=1e-9)
    torch.testing.assert_close(found[1], expected[1], atol=1e-9, rtol=1e-6)
    assert found[2] == pytest.approx(expected[2], nan_ok=True)
    _, _, scenes, valid, _ = batch
    sizes = [int((valid & (scenes == scene)).sum()) for scene in (0, 1)]
    everything = sum(n * (n - 1) // 2 for n in sizes)
    positives = brute_force_same_scene(batch)
    assert found[2]["negatives"] == (2 if name == "info_nce" else 1) * (everything - positives)


def brute_force_same_scene(batch):
    """Pairs of one scene within RHO, including those of one image: they are no negatives."""
    _, points, scenes, valid, _ = batch
    return sum(brute_force(points[valid & (scenes == scene)])[0] for scene in (0, 1))


@pytest.mark.parametrize("tile", [7, 512])
def test_exact_without_an_outer_radius_at_several_scales(tile):
    batch = patches(90, scenes=2)
    options = {"rho": [0.2, 0.5], "kappa": [1.0, math.inf], "tau": 0.05, "same_image": 0.4}
    exact, dense = ExactSmoothAP(**options, tile=tile), DenseSmoothAP(**options)
    found, expected = value_and_gradient(exact, *batch), value_and_gradient(dense, *batch)
    assert counts(found[2]) == counts(expected[2])
    assert found[0].item() == pytest.approx(expected[0].item(), abs=1e-5)
    assert (found[1] - expected[1]).norm() <= 1e-4 * expected[1].norm()


@pytest.mark.parametrize("options", [{"rho": math.inf, "kappa": math.inf}, {"kappa": math.nan}, {"tau": math.inf}])
def test_other_options_must_be_finite(options):
    with pytest.raises(ValueError, match="must"):
        ExactSmoothAP(**{"rho": 0.2, "kappa": 1.0, "tau": 0.1} | options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, 0.5, -1, 2])
def test_validity_that_is_no_boolean_is_refused(name, value):
    features, points, *_ = patches(20)
    valid = torch.ones(20)
    valid[3] = value
    with pytest.raises(ValueError, match="valid must be booleans, or 0 and 1"):
        loss(name)(features, points, valid=valid)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int64])
def test_validity_in_numbers(dtype):
    features, points, *_ = patches(20)
    valid = torch.arange(20) % 3 > 0
    expected = loss("dense")(features, points, valid=valid)
    assert loss("dense")(features, points, valid=valid.to(dtype)) == expected


@pytest.mark.parametrize("name", ["landmarks", *NAMES])
def test_radii_in_lists_of_one(name):
    features, points, _, _, images = patches(60)
    expected = loss(name, rho=0.3, kappa=1.0)(features, points, image_ids=images)
    found = loss(name, rho=(0.3,), kappa=(1.0,))(features, points, image_ids=images)
    assert torch.equal(found[0], expected[0])


def test_a_temperature_whose_tables_do_not_fit_in_memory_is_refused():
    with pytest.raises(ValueError, match=r"tau of ExactSmoothAP must be at least 0\.0001, found 1e-08"):
        loss("exact", tau=1e-8)
    criterion = loss("exact", tau=SMALLEST_TAU)
    with pytest.raises(ValueError, match="must be at least"):
        criterion.tau = SMALLEST_TAU / 2
    assert loss("dense", tau=1e-8).tau == 1e-8
