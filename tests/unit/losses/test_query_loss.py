"""Losses with all patches as queries, in blocks of rows, against the same losses with as many drawn queries."""

import subprocess
import sys

import pytest
import torch

from loco.losses import DenseSmoothAP, build_loss, query_rows
from tests.unit.losses.batches import KAPPA, RHO, patches, temperature, value_and_gradient

CASES = {
    "info_nce": ("info_nce", {}),
    "info_nce with hard negatives": ("info_nce", {"beta": 0.5}),
    "sup_con": ("sup_con", {}),
    "sup_con with hard negatives": ("sup_con", {"beta": 0.5}),
    "triplet": ("triplet", {}),
    "triplet, semi-hard": ("triplet", {"mining": "semi_hard"}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kappa", [KAPPA, None])
@pytest.mark.parametrize("n", [0, 1, 2, 40, 1300])  # the last of several tiles
def test_all_queries_in_blocks(monkeypatch, case, kappa, n):
    monkeypatch.setattr(query_rows, "_PAIRS_AT_A_TIME", (1, 4000, 4000))
    name, options = CASES[case]
    batch = patches(n, scenes=2, seed=5)
    if n == 1300:
        batch = batch[0], batch[1] * 3, *batch[2:]
    options = {"rho": RHO, "kappa": kappa, **temperature(name, 0.1), **options}
    loss, gradient, log = value_and_gradient(build_loss(name, **options, queries=None), *batch)
    truth, true_gradient, true_log = value_and_gradient(build_loss(name, **options, queries=max(n, 1)), *batch)
    assert loss.item() == pytest.approx(truth.item(), abs=1e-10)
    torch.testing.assert_close(gradient, true_gradient, atol=1e-10, rtol=1e-8)
    assert log["positives"] == true_log["positives"]
    if n < 100:
        pairs = DenseSmoothAP(RHO, kappa, 0.1, ranking="query")(*batch)[1]
        assert [log["positives"], log["negatives"]] == [pairs["positives"], pairs["negatives"]]
    assert log["positives"] > 100 or n < 1300


def test_rows_are_permuted_with_the_patches():
    batch = patches(90, scenes=2)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    criterion = build_loss("info_nce", rho=RHO, kappa=KAPPA, tau=0.1, queries=None)
    loss, gradient, _ = value_and_gradient(criterion, *batch)
    permuted, permuted_gradient, _ = value_and_gradient(criterion, *(part[order] for part in batch))
    assert permuted.item() == pytest.approx(loss.item(), abs=1e-12)
    torch.testing.assert_close(permuted_gradient, gradient[order])


@pytest.mark.parametrize("name", ["info_nce", "sup_con", "triplet"])
def test_second_derivatives_of_all_queries_are_refused(name):
    features, *rest = patches(30)
    criterion = build_loss(name, rho=RHO, kappa=KAPPA, **temperature(name, 0.1), queries=None)
    features.requires_grad_()
    (gradient,) = torch.autograd.grad(criterion(features, *rest)[0], features, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated"):
        gradient.square().sum().backward()
    with pytest.raises(RuntimeError, match="cannot be transformed"):
        torch.func.grad(lambda x: criterion(x, *rest)[0])(features.detach())


@pytest.mark.parametrize(
    "options", [{"queries": 0}, {"positives": 0}, {"negatives": 0}, {"queries": None, "positives": 9}]
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"queries=None|must be at least 1"):
        build_loss("info_nce", rho=RHO, kappa=KAPPA, tau=0.1, **options)


MEMORY = """
import sys
import torch
from pathlib import Path
from benchmarks.losses import fresh_peak, peak, simulate
from loco.losses import build_loss

n, name, options = int(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
features, points = simulate(n, 64)
features.requires_grad_()
criterion = build_loss(name, rho=0.2, kappa=5.0, normalise=False, queries=None, **options)
features.grad = torch.ones_like(features)
before = fresh_peak("cpu")
features.grad = None
criterion(features, points)[0].backward()
print((peak("cpu") - before) / 1e6)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("info_nce", {"tau": 0.07}),
        ("sup_con", {"tau": 0.07}),
        ("triplet", {}),
        ("exact", {"tau": 0.05, "ranking": "query"}),
    ],
)
def test_memory_of_all_queries(name, options):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, "20480", name, repr(options)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 512  # MB; one matrix of 20,480 x 20,480 takes 1,678
