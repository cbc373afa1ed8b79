"""Batch normalisation of a batch that is distributed over several ranks, compared with the same batch on one rank."""

import pytest
import torch
from torch import nn

from loco.models.shared_norm import SharedBatchNorm2d, share_batch_norms
from tests.unit.processes import run_together

SHARES = [3, 1, 2]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return 50 + torch.randn(6, 5, 4, 3, generator=rng), torch.randn(6, 5, 4, 3, generator=rng)


def normalised(norm: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_()
    out = norm(x)
    (out * weight).sum().backward()
    return {"out": out.detach(), "grad": x.grad, **norm.state_dict()}


def work(process: int) -> dict[str, torch.Tensor]:
    return normalised(SharedBatchNorm2d(5), *(part.split(SHARES)[process] for part in batch()))


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    return run_together(work, len(SHARES), tmp_path_factory.mktemp("norm"))


def test_statistics_are_those_of_all_processes(shares):
    alone = normalised(nn.BatchNorm2d(5), *batch())
    for name in ("out", "grad"):
        torch.testing.assert_close(torch.cat([share[name] for share in shares]), alone[name], atol=1e-4, rtol=1e-4)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        for share in shares:
            torch.testing.assert_close(share[name], alone[name])


def test_in_one_process_it_is_batch_norm():
    for norm in (SharedBatchNorm2d(5), SharedBatchNorm2d(5).eval()):
        plain = nn.BatchNorm2d(5).train(norm.training)
        one, other = normalised(norm, *batch()), normalised(plain, *batch())
        for name, value in other.items():
            assert torch.equal(one[name], value)


def test_all_batch_norms_of_a_network_are_shared():
    network = nn.Sequential(nn.BatchNorm2d(5), nn.Sequential(nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5, affine=False)))
    before = dict(network.state_dict())
    share_batch_norms(network)
    assert [type(module) for module in (network[0], network[1][1])] == [SharedBatchNorm2d] * 2
    assert network.state_dict().keys() == before.keys()
    one, other = (normalised(module, *batch()) for module in (network[0], nn.BatchNorm2d(5)))
    assert torch.equal(one["out"], other["out"])
