"""Groups of parameters: every parameter is in exactly one, which ones decay, and the learning rate of each part."""

import pytest
import torch
from torch import nn

from loco.errors import ConfigError
from loco.models.adapted import set_trained
from loco.models.backbones import Backbone
from loco.models.build import build_extractor
from loco.models.extractor import Extractor
from loco.models.heads import build_head
from loco.models.transformer import Block
from loco.training.optimiser import build_optimiser, parameter_groups, set_rates
from loco.training.phases import phases_of

EXACT = {"name": "exact", "rho": 0.2, "kappa": 5.0, "tau": 0.05}
OPTIMISER = {"lr": 0.1, "weight_decay": 0.05, "warmup_steps": 0, "clip": 1.0, "schedule": "constant"}


class Toy(Backbone):
    """A transformer with all kinds of parameters."""

    stride, dim = 4, 8

    def __init__(self):
        super().__init__()
        self.embeddings = nn.Module()
        self.embeddings.projection = nn.Conv2d(3, 8, 4, stride=4)
        self.embeddings.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.embeddings.position_embeddings = nn.Parameter(torch.zeros(1, 5, 8))
        self.embeddings.table = nn.Embedding(4, 8)
        self.blocks = nn.ModuleList(Block(8, 2, 16) for _ in range(3))
        self.norm = nn.LayerNorm(8)

    @property
    def embedding(self):
        return [self.embeddings]


def toy(train="all"):
    backbone = Toy()
    set_trained(backbone, train)
    return Extractor(backbone, build_head({"name": "residual_mlp", "hidden": 16, "dim": 4, "context": True}, 8, 4))


def phases(*settings):
    return phases_of({"phases": [{"loss": EXACT, "steps": 10, "optimiser": OPTIMISER | one} for one in settings]})


def rates(extractor, **settings):
    """Return name -> (learning rate, weight decay) in the first step, for each trained parameter."""
    (phase,) = phases(settings)
    optimiser = build_optimiser(extractor, [phase])
    set_rates(optimiser, phase, 0)
    found = {p: (group["lr"], group["weight_decay"]) for group in optimiser.param_groups for p in group["params"]}
    return {name: found[p] for name, p in extractor.named_parameters() if p.requires_grad}


CONCAT = {
    "name": "concat",
    "models": [{"name": "compact_cnn", "dim": 8}, {"name": "compact_cnn", "dim": 16}],
    "stride": 4,
}


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize(
    "make",
    [toy, lambda: toy({"last": 1}), lambda: toy({"lora": {"rank": 2, "last": 2}}), lambda: build_extractor(CONCAT)],
)
def test_every_trained_parameter_is_in_exactly_one_group(make, by_layer):
    extractor = make()
    grouped = [id(p) for group in parameter_groups(extractor, by_layer) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in extractor.parameters() if p.requires_grad)


def test_shared_parameters_are_in_one_group():
    extractor = toy()
    extractor.encoder.blocks[1].mlp["fc1"].weight = extractor.encoder.blocks[0].mlp["fc1"].weight
    build_optimiser(extractor, phases({}))  # PyTorch refuses a parameter that is in two groups


def test_weights_that_multiply_features_decay_and_nothing_else():
    decayed = {name for name, (_, decay) in rates(toy()).items() if decay == 0.05}
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    expected = {f"encoder.blocks.{number}.{layer}.weight" for number in range(3) for layer in layers}
    expected |= {f"head.{layer}.weight" for layer in ("expand", "mix", "reduce", "shortcut")}
    assert decayed == expected | {"encoder.embeddings.projection.weight"}
    assert {decay for _, decay in rates(toy()).values()} == {0.0, 0.05}


def test_group_norms_and_biases_of_the_compact_network_do_not_decay():
    extractor = build_extractor({"name": "compact_cnn", "dim": 8})
    for name, (_, decay) in rates(extractor).items():
        assert decay == (0.05 if extractor.get_parameter(name).ndim == 4 else 0.0), name


def test_each_part_has_its_learning_rate():
    found = rates(toy({"lora": {"rank": 2, "last": 2}}), lr_factors={"head": 3.0, "lora": 0.5})
    assert {name: lr for name, (lr, _) in found.items()} == pytest.approx(
        {name: 0.1 * (3.0 if name.startswith("head.") else 0.5) for name in found}
    )
    assert {".lora_" in name for name in found} == {True, False}
    found = rates(toy(), lr_factors={"backbone": 0.0})
    assert {name: lr for name, (lr, _) in found.items()} == {
        name: 0.1 if name.startswith("head.") else 0.0 for name in found
    }


def test_layers_have_the_learning_rates_of_the_closed_form():
    found = {name: lr for name, (lr, _) in rates(toy(), layer_decay=0.5, lr_factors={"head": 2.0}).items()}
    depth = {"encoder.embeddings": 4, "encoder.blocks.0": 3, "encoder.blocks.1": 2, "encoder.blocks.2": 1}
    for name, lr in found.items():
        expected = 0.2 if name.startswith("head.") else 0.1
        for prefix, power in depth.items():
            expected *= 0.5**power if name.startswith(f"{prefix}.") else 1
        assert lr == pytest.approx(expected), name
    assert found["encoder.norm.weight"] == 0.1


def test_rates_follow_the_phase_and_the_step():
    extractor = build_extractor({"name": "compact_cnn", "dim": 8})
    first, second = phases({"schedule": "linear"}, {"lr": 0.5, "weight_decay": 0.2})
    optimiser = build_optimiser(extractor, [first, second])
    for phase, step, expected in ((first, 0, (0.1, 0.05)), (first, 5, (0.05, 0.05)), (second, 10, (0.5, 0.2))):
        set_rates(optimiser, phase, step)
        for group in optimiser.param_groups:
            assert group["lr"] == pytest.approx(expected[0])
            assert group["weight_decay"] == (expected[1] if group["decays"] else 0)


def test_settings_without_effect_are_refused():
    with pytest.raises(ConfigError, match=r"lr_factors.lora` of phase 2 has no effect[\s\S]*backbone, head"):
        build_optimiser(toy(), phases({}, {"lr_factors": {"lora": 0.5}}))
    with pytest.raises(ConfigError, match="layer_decay` has no effect"):
        build_optimiser(toy("none"), phases({"layer_decay": 0.5}))
