"""The Triton kernels against the plain operations, in Triton's interpreter, which needs no GPU."""

import importlib
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loco.losses import DenseSmoothAP, ExactSmoothAP
from tests.unit.losses.batches import KAPPA, RHO, patches, value_and_gradient

pytest.importorskip("triton", reason="the kernels need Triton")

SCALES = {"rho": [0.2, 0.5], "kappa": [0.5, 1.5]}


@pytest.fixture(scope="module")
def interpreted():
    """Return the module of the kernels, interpreted on the CPU; how they run is decided when they are imported."""
    sys.modules.pop("loco.losses.kernels", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        yield importlib.import_module("loco.losses.kernels")
    sys.modules.pop("loco.losses.kernels")


class Fused(ExactSmoothAP):
    """Return the exact loss with the kernels instead of the plain operations."""

    kernels = None

    def engine(self, features):
        return self.kernels


@settings(deadline=None, max_examples=15)
@given(
    n=st.integers(2, 150),
    scenes=st.integers(1, 2),
    same_image=st.sampled_from([0.0, 0.4, 1.0]),
    scales=st.sampled_from([{"rho": RHO, "kappa": KAPPA}, SCALES]),
    tile=st.sampled_from([33, 64]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_kernels_do_what_the_plain_operations_do(interpreted, n, scenes, same_image, scales, tile, dtype, seed):
    Fused.kernels = interpreted
    features, *rest = patches(n, scenes=scenes, seed=seed, dtype=torch.float32)
    batch = (features.to(dtype), *rest)
    options = {**scales, "tau": 0.05, "same_image": same_image}
    fused, plain = Fused(**options, tile=tile), ExactSmoothAP(**options, tile=tile)
    loss, gradient, log = value_and_gradient(fused, *batch)
    truth, true_gradient, true_log = value_and_gradient(plain, *batch)
    assert loss.item() == pytest.approx(truth.item(), abs=1e-6)
    assert log == pytest.approx(true_log, abs=1e-6, nan_ok=True)
    eps = torch.finfo(dtype).eps
    assert (gradient.float() - true_gradient.float()).norm() <= max(1e-5, eps) * true_gradient.float().norm() + 1e-9
    torch.testing.assert_close(
        fused.patch_precision(*batch), plain.patch_precision(*batch), atol=1e-5, rtol=0, equal_nan=True
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_exact_on_a_gpu_agrees_with_dense(dtype):
    features, points, *rest = patches(700, scenes=2)
    features = features.to(dtype)
    truth, true_gradient, true_log = value_and_gradient(
        DenseSmoothAP(RHO, KAPPA, 0.05), features.double(), points, *rest
    )
    batch = [tensor.cuda() for tensor in (features, points.float(), *rest)]
    for tile in (64, None):
        criterion = ExactSmoothAP(RHO, KAPPA, 0.05, tile=tile)
        loss, gradient, log = value_and_gradient(criterion, *batch)
        again, same_gradient, _ = value_and_gradient(criterion, *batch)
        assert loss.item() == pytest.approx(truth.item(), abs=1e-5)
        assert (log["positives"], log["negatives"]) == (true_log["positives"], true_log["negatives"])
        allowed = max(1e-4, torch.finfo(dtype).eps) * true_gradient.norm()
        assert (gradient.cpu().double() - true_gradient).norm() <= allowed
        assert again == loss
        assert torch.equal(gradient, same_gradient)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_kernels_meet_no_feature_or_point_that_is_not_finite(interpreted, value):
    Fused.kernels = interpreted
    features, points, *_ = patches(70, dtype=torch.float32)
    fused, plain = (kind(RHO, float("inf"), 0.05, tile=33) for kind in (Fused, ExactSmoothAP))
    points[9] = value
    loss, _, log = value_and_gradient(fused, features, points)
    truth, _, true_log = value_and_gradient(plain, features, points)
    assert loss.item() == pytest.approx(truth.item(), abs=1e-6)
    assert log == pytest.approx(true_log, abs=1e-6)
    assert log["positives"] + log["negatives"] == 69 * 68 // 2
    features[3, 0] = value
    loss, gradient, log = value_and_gradient(fused, features, points)
    assert loss.isnan()
    assert gradient[torch.arange(70) != 9].isnan().all()
    assert (log["positives"], log["negatives"]) == (true_log["positives"], true_log["negatives"])
