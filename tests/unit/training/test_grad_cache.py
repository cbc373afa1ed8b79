"""Gradient caching against the backward pass over all chunks at once."""

from __future__ import annotations

import pytest
import torch
from torch import distributed, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel

from loco.errors import ConfigError
from loco.losses import ExactSmoothAP
from loco.models.extractor import Extractor
from loco.training.data import Batches
from loco.training.grad_cache import cached_features, require_independent_images
from loco.training.module import RankingModule
from loco.training.scene_files import open_scenes
from tests.unit.processes import run_together
from tests.unit.training.tiny_vit import TinyViT, tiny_vit

CPU = torch.device("cpu")


def batch(count, dtype=torch.float64):
    rng = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, 16, 24, generator=rng).to(dtype), torch.rand(count, 4, 6, 3, generator=rng)


def direct(network, images, chunk, _parameters):
    return torch.cat([network(part) for part in images.split(chunk)])


def cached(network, images, chunk, parameters):
    return cached_features(lambda part: network(images[part]), len(images), chunk, parameters, CPU)


def gradients(form, network, images, points, chunk, scale=1.0):
    parameters = list(network.parameters())
    network.zero_grad()
    torch.manual_seed(7)
    features = form(network, images, chunk, parameters)
    loss, _ = ExactSmoothAP(0.2, 1.0, 0.1, normalise=False)(features, points)
    (scale * loss).backward()
    after = torch.rand(1)
    return loss.item(), torch.cat([parameter.grad.flatten() for parameter in parameters]), after


@pytest.mark.parametrize("drop", [0.0, 0.3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_gradient_is_that_of_one_pass(drop, dtype, tolerance):
    network, (images, points) = tiny_vit(drop=drop).to(dtype), batch(5, dtype)
    if dtype == torch.float64:  # `Extractor` returns float32 maps: encoder and head only, in double precision
        network = nn.Sequential(network.encoder, Maps())
    loss, expected, after = gradients(direct, network, images, points, 2)
    found_loss, found, found_after = gradients(cached, network, images, points, 2)
    assert found_loss == loss
    assert expected.norm() > 1e-3
    assert (found - expected).norm() <= tolerance * expected.norm()
    assert torch.equal(after, found_after)  # the second pass does not change the random state
    if not drop:  # then chunks make no difference
        _, whole, _ = gradients(direct, network, images, points, 5)
        assert (found - whole).norm() <= tolerance * whole.norm()


class Maps(nn.Module):
    def forward(self, encoding):
        return nn.functional.normalize(encoding.maps, dim=1)


def test_gradients_add_up_and_take_the_scale_of_the_loss():
    network, (images, points) = tiny_vit(), batch(4, torch.float32)
    _, once, _ = gradients(cached, network, images, points, 2)
    _, scaled, _ = gradients(cached, network, images, points, 2, scale=1024.0)
    torch.testing.assert_close(scaled, 1024 * once)
    parameters = list(network.parameters())
    cached(network, images, 2, parameters)[:, 0].sum().backward()  # added to existing gradients
    other = torch.cat([parameter.grad.flatten() for parameter in parameters]) - scaled
    network.zero_grad()
    direct(network, images, 2, parameters)[:, 0].sum().backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in parameters])
    torch.testing.assert_close(other, expected, atol=1e-4 * scaled.norm().item(), rtol=0)


def test_the_second_pass_runs_under_the_autocast_of_the_first():
    network, (images, _) = tiny_vit(), batch(4, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        features = cached(network, images, 2, list(network.parameters()))
        plain = direct(network, images, 2, None)
    assert torch.equal(features, plain)
    weights = torch.rand(features.shape, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad((weights * features).sum(), list(network.parameters()))  # outside autocast
    expected = torch.autograd.grad((weights * plain).sum(), list(network.parameters()))
    for one, other in zip(found, expected):
        assert (one - other).norm() <= 0.02 * other.norm()
    with torch.autocast("cpu", enabled=False):
        single = torch.autograd.grad((weights * direct(network, images, 2, None)).sum(), list(network.parameters()))
    assert any((one - other).norm() > 1e-3 * other.norm() for one, other in zip(found, single))


class Live:
    """Count the bytes of activations that are held for a backward pass at one time."""

    def __init__(self):
        self.now = self.most = 0

    def pack(self, tensor):
        return Held(self, tensor)

    def hooks(self):
        return saved_tensors_hooks(self.pack, lambda held: held.tensor)


class Held:
    def __init__(self, live, tensor):
        self.live, self.tensor = live, tensor
        live.now += tensor.nbytes
        live.most = max(live.most, live.now)

    def __del__(self):
        self.live.now -= self.tensor.nbytes


def test_activations_do_not_grow_with_the_batch():
    network = tiny_vit()
    most = {}
    for form in (direct, cached):
        for count in (4, 16):
            images, live = batch(count, torch.float32)[0], Live()
            with live.hooks():
                form(network, images, 2, list(network.parameters()))[:, 0].sum().backward()
            most[form, count] = live.most
    assert most[direct, 16] > 3.5 * most[direct, 4]
    # In addition to the activations of two images, only the graph of the sum.
    assert most[cached, 16] <= 1.05 * most[cached, 4]
    assert most[cached, 4] < 0.7 * most[direct, 4]


class Step(nn.Module):
    """Wrap a module as Lightning does: its forward pass is the training step."""

    def __init__(self, network, form, chunk):
        super().__init__()
        self.network, self.form, self.chunk = network, form, chunk

    def forward(self, images, points):
        group = distributed.group.WORLD if distributed.is_initialized() else None
        features = self.form(self.network, images, self.chunk, list(self.network.parameters()))
        return ExactSmoothAP(0.2, 1.0, 0.1, normalise=False, group=group)(features, points)[0]


def gradient_of(step, images, points):
    step.zero_grad()
    loss = step(images, points)
    loss.backward()
    return loss.item(), torch.cat([parameter.grad.flatten() for parameter in step.parameters()])


def in_double():
    """Return a network and a batch of five images."""
    network = tiny_vit(drop=0.0).double()
    return nn.Sequential(network.encoder, Maps()), *batch(5)


def rank(process: int) -> list:
    """Return loss and gradient of two steps on one of two ranks, which has three images or two."""
    network, *images_and_points = in_double()
    share = [part.split([3, 2])[process] for part in images_and_points]
    step = DistributedDataParallel(Step(network, cached, 1))
    return [gradient_of(step, *share) for _ in range(2)]


def test_two_processes_have_the_gradient_of_one_without_caching(tmp_path):
    network, *images_and_points = in_double()
    loss, expected = gradient_of(Step(network, direct, 5), *images_and_points)
    assert expected.norm() > 1e-3
    for steps in run_together(rank, 2, tmp_path):
        for found_loss, found in steps:  # in a second step, the gradients of the first are cleared
            assert found_loss == pytest.approx(loss, abs=1e-12)
            assert (found - expected).norm() <= 1e-10 * expected.norm()


def test_a_training_step_has_the_same_gradient(experiment, walls, tmp_path, monkeypatch):
    monkeypatch.setattr("loco.training.module.build_extractor", lambda *_: tiny_vit(drop=0.0))
    drawn = Batches(open_scenes(walls[:2]), experiment["train"]["batch"], experiment["train"]["augment"], 0).draw(0)
    found = []
    for chunk in (None, 1, 4):
        experiment["train"]["grad_cache"] = chunk
        module = RankingModule(experiment, 0, [], tmp_path)
        module.training_step(drawn, 0).backward()
        found.append(torch.cat([parameter.grad.flatten() for parameter in module.extractor.parameters()]))
    for other in found[1:]:
        assert (other - found[0]).norm() <= 1e-5 * found[0].norm()


def test_batch_norms_that_are_trained_are_refused(experiment, tmp_path):
    experiment["train"]["grad_cache"] = 2
    with pytest.raises(ConfigError, match=r"trained batch normalisations \(encoder.*remove `grad_cache`"):
        RankingModule(experiment, 0, [], tmp_path)
    frozen = TinyViT()
    frozen.blocks.append(nn.BatchNorm1d(3).requires_grad_(False))
    require_independent_images(Extractor(frozen))  # a frozen encoder stays in evaluation mode
