from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from loco.losses import ExactSmoothAP
from loco.training.data import Batches
from loco.training.module import RankingModule
from loco.training.precision import matmul_precision
from loco.training.scene_files import open_scenes
from loco.training.validation import ValidationScene
from tests.unit.training.tiny_vit import tiny_vit


def step(experiment, walls, tmp_path, **changes):
    module = RankingModule({**experiment, "train": experiment["train"] | changes}, 0, [], tmp_path)
    seen = []
    criterion = module.criterion.forward
    module.criterion.forward = lambda features, *a, **k: (seen.append(features), criterion(features, *a, **k))[1]
    drawn = Batches(open_scenes(walls[:2]), experiment["train"]["batch"], experiment["train"]["augment"], 0).draw(0)
    half = module.half is not None
    with torch.autocast("cpu", module.half, enabled=half):
        loss = module.training_step(drawn, 0)
    loss.backward()
    return seen[0], loss.item(), module


@pytest.mark.parametrize(("loss", "kind"), [("exact", torch.bfloat16), ("dense", torch.float32)])
def test_losses_with_a_path_in_half_precision_receive_it(experiment, walls, tmp_path, loss, kind):
    experiment["train"]["loss"]["name"] = loss
    features, value, module = step(experiment, walls, tmp_path, precision="bfloat16")
    single, expected, _ = step(experiment, walls, tmp_path)
    assert features.dtype == kind
    assert single.dtype == torch.float32
    assert value == pytest.approx(expected, abs=3e-3)
    assert all(parameter.grad.dtype == torch.float32 for parameter in module.extractor.parameters())


def test_rounded_features_change_the_loss_by_less_than_the_documentation_states():
    rng = torch.Generator().manual_seed(0)
    points = torch.rand(600, 3, generator=rng)
    features = normalize(torch.randn(600, 64, generator=rng), dim=1)
    criterion = ExactSmoothAP(0.1, 1.0, 0.05, normalise=False)
    for kind, most, similarity in ((torch.bfloat16, 1e-3, 8e-3), (torch.float16, 1e-3, 1e-3)):
        rounded = features.to(kind)
        assert abs(criterion(rounded, points)[0] - criterion(features, points)[0]) < most
        assert (rounded.float() @ rounded.float().T - features @ features.T).abs().max() < similarity


def test_matmul_precision_is_restored():
    before = torch.get_float32_matmul_precision()
    with matmul_precision("high"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_validation_runs_in_the_precision_of_the_training(walls):
    kinds, network = [], tiny_vit()
    network.encoder.patches.register_forward_hook(lambda _, __, out: kinds.append(out.dtype))
    (scene,) = open_scenes(walls[:1])
    single, half = (ValidationScene(scene, kind).mean_ap(network) for kind in (torch.float32, torch.bfloat16))
    assert set(kinds[: len(kinds) // 2]) == {torch.float32}
    assert set(kinds[len(kinds) // 2 :]) == {torch.bfloat16}
    assert half == pytest.approx(single, abs=0.02)


def test_the_network_is_compiled_and_the_loss_is_not(experiment, walls, tmp_path, monkeypatch):
    compiled = []

    def compile_eagerly(function):
        compiled.append(function)
        return compile_(function, backend="eager")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", compile_eagerly)
    monkeypatch.setattr("loco.training.module.build_extractor", lambda *_: tiny_vit())
    _, plain, module = step(experiment, walls, tmp_path)
    _, value, other = step(experiment, walls, tmp_path, compile=True)
    assert compiled == [other.extractor.forward]
    assert value == pytest.approx(plain, abs=1e-6)
    assert list(other.state_dict()) == list(module.state_dict())
