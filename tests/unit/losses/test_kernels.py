"""The Triton kernels against the plain operations, in Triton's interpreter, which needs no GPU."""

import importlib
import sys
from contextlib import nullcontext

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from loco import losses
from loco.losses import DenseSmoothAP, ExactSmoothAP
from loco.losses.patches import Patches
from tests.unit.losses.batches import KAPPA, RHO, patches, value_and_gradient

pytest.importorskip("triton", reason="the kernels need Triton")

SCALES = {"rho": [0.2, 0.5], "kappa": [0.5, 1.5]}


@pytest.fixture(scope="module")
def interpreted():
    """Return the module of the kernels, interpreted on the CPU; how they run is decided when they are imported."""
    forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        yield importlib.import_module("loco.losses.kernels")
    forget()


def forget():
    """Let the next import of the kernels decide again how they run."""
    sys.modules.pop("loco.losses.kernels", None)
    vars(losses).pop("kernels", None)


class Fused(ExactSmoothAP):
    """The exact loss with the kernels, on blocks of 64 x 64 pairs."""

    kernels = None

    def pairs(self, patches):
        return self.kernels.FusedPairs(patches, self.classes, self.group, side=64)


@settings(deadline=None, max_examples=6)
@given(
    n=st.integers(1, 150),
    d=st.integers(1, 70),
    scenes=st.integers(1, 3),
    same_image=st.sampled_from([0.0, 0.4, 1.0]),
    scales=st.sampled_from([{"rho": RHO, "kappa": KAPPA}, {"rho": RHO, "kappa": 30.0}, SCALES]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 1000),
)
@example(n=150, d=16, scenes=2, same_image=0.4, scales=SCALES, dtype=torch.bfloat16, seed=0)
@example(n=128, d=64, scenes=1, same_image=0.0, scales={"rho": RHO, "kappa": None}, dtype=torch.float32, seed=1)
def test_kernels_do_what_the_plain_operations_do(interpreted, n, d, scenes, same_image, scales, dtype, seed):
    Fused.kernels = interpreted
    features, *rest = patches(n, d, scenes=scenes, seed=seed, dtype=torch.float32)
    assert_agree((features.to(dtype), *rest), **scales, tau=0.05, same_image=same_image)


def assert_agree(batch, **options):
    loss, gradient, log = value_and_gradient(Fused(**options), *batch)
    truth, true_gradient, true_log = value_and_gradient(ExactSmoothAP(**options), *batch)
    assert loss.item() == pytest.approx(truth.item(), abs=1e-6)
    assert log == pytest.approx(true_log, abs=1e-6, nan_ok=True)
    eps = torch.finfo(batch[0].dtype).eps
    assert (gradient.float() - true_gradient.float()).norm() <= max(1e-5, eps) * true_gradient.float().norm() + 1e-6


def test_kernels_on_collapsed_features_and_blocks_of_one_class(interpreted, monkeypatch):
    Fused.kernels = interpreted
    monkeypatch.setattr(interpreted, "PART", 2)  # several parts of the matrix, and several launches of the first pass
    monkeypatch.setattr(interpreted, "COLUMNS", 1)
    monkeypatch.setattr(interpreted, "_COUNTED", 64**2)
    features, points, *_ = patches(200, dtype=torch.float32)
    points = points * 0.01 + 5 * torch.arange(200)[:, None].div(64, rounding_mode="floor")  # four groups
    options = {"rho": 0.03, "kappa": 12.0, "tau": 0.05}
    assert_agree((features, points), **options)
    assert_agree((features[:1].expand(200, -1), points), **options)
    pairs = Fused(**options).pairs(Patches(features, points, *torch.zeros((2, 200), dtype=torch.int64)))
    assert (pairs.kinds[pairs.by_row.before[:, -1] > 1] >= 0).any()


def test_the_ranks_divide_the_blocks(interpreted, monkeypatch):
    features, points, *_ = patches(200, dtype=torch.float32)
    batch = Patches(features, points, torch.zeros(200, dtype=torch.int64), torch.arange(200))
    criterion = ExactSmoothAP(RHO, KAPPA, 0.05)
    (whole,) = histograms_of_ranks(interpreted, monkeypatch, batch, criterion, 1)
    parts = list(histograms_of_ranks(interpreted, monkeypatch, batch, criterion, 3))
    assert all(part.any() for part in parts)
    torch.testing.assert_close(sum(parts), whole, atol=1e-9, rtol=0)


def histograms_of_ranks(kernels, monkeypatch, batch, criterion, world_size):
    for rank in range(world_size):
        monkeypatch.setattr(kernels, "rank_and_world_size", lambda group, r=rank: (r, world_size))
        pairs = kernels.FusedPairs(batch, criterion.classes, side=64)
        yield pairs.histograms(batch.features[pairs.order], criterion.grid)


def test_both_passes_never_wait_for_a_gpu(interpreted, monkeypatch):
    """Tensors of the device `meta` have no values: to read one, or to need one for a size, is an error."""
    kernels = interpreted
    launched, copies = [], []
    monkeypatch.setattr(kernels.FusedPairs, "_launch", lambda self, kernel, *_, **__: launched.append(kernel.__name__))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which does not know this device
    monkeypatch.setattr(ExactSmoothAP, "pairs", lambda self, batch: kernels.FusedPairs(batch, self.classes))

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            out = function(*arguments, **(options or {}))
            if function is torch.ops.aten._to_copy.default and out.device != arguments[0].device:
                copies.append((options or {}).get("non_blocking", False))
            return out

    criterion = ExactSmoothAP(**SCALES, tau=0.05)
    n = 9000
    with Copies():
        features = torch.empty(n, 64, device="meta", dtype=torch.bfloat16, requires_grad=True)
        points, ids = torch.empty(n, 3, device="meta"), torch.empty(n, device="meta", dtype=torch.int64)
        loss, _ = criterion.loss(Patches(features, points, ids, ids))
        loss.backward()
        with pytest.raises(RuntimeError, match="meta"):
            loss.item()
    assert features.grad.shape == (n, 64)
    # 71 tiles: one launch of the first pass, and 3 + 2 + 1 parts of the upper triangle in the second pass.
    assert launched == ["_count"] + 6 * ["_look_up", "_multiply", "_multiply"]
    assert copies == [True] * len(copies) != []


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_not_finite_give_a_nan_loss(interpreted, value):
    Fused.kernels = interpreted
    features, points, *_ = patches(70, dtype=torch.float32)
    fused, plain = (kind(RHO, float("inf"), 0.05) for kind in (Fused, ExactSmoothAP))
    points[9] = value
    features[3, 0] = value
    loss, gradient, log = value_and_gradient(fused, features, points)
    _, _, true_log = value_and_gradient(plain, features, points)
    assert loss.isnan()
    assert gradient[torch.arange(70) != 9].isnan().all()
    assert (log["positives"], log["negatives"]) == (true_log["positives"], true_log["negatives"])
    assert log["positives"] + log["negatives"] == 69 * 68 // 2
    # The kernels themselves, without the check of the inputs.
    batch = Patches(features, torch.zeros(70, 3), torch.zeros(70, dtype=torch.int64), torch.arange(70))
    assert fused.loss(batch)[0].isnan()
    assert not fused.loss(batch._replace(features=features.nan_to_num(0, 0, 0)))[0].isnan()
