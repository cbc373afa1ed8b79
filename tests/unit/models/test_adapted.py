import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoModel

from loco.errors import ConfigError, DataError
from loco.models import build_extractor, describe, load, save_extractor
from loco.models.backbones import Backbone, build_backbone
from loco.models.parts import Encoding
from tests.unit.models.conftest import write_model

MLP = {"name": "residual_mlp", "hidden": 8}
LORA = {"lora": {"rank": 2, "last": 2}}


class Pooling(Backbone):
    """Return the mean colours of patches: nothing is trained, and there are no blocks."""

    dim = 3

    def __init__(self, stride: int) -> None:
        super().__init__(mean=(0, 0, 0), std=(1, 1, 1))
        self.stride = stride

    def forward(self, images):
        return Encoding(F.avg_pool2d(self.normalised(images), self.stride))


@pytest.fixture
def pooling(monkeypatch):
    monkeypatch.setattr("loco.models.adapted.build_backbone", lambda config: Pooling(config["stride"]))


def images(height=48, width=40, n=2):
    return np.random.default_rng(0).integers(0, 255, (n, height, width, 3), np.uint8)


def tensors(*sizes):
    return torch.from_numpy(images(*sizes)).permute(0, 3, 1, 2).float() / 255


def model(backbone, **settings):
    return {"name": "backbone", "backbone": backbone, "stride": 8, **settings}


def shaken(extractor):
    """Return the extractor with every trained weight changed, and a step of its batch norms."""
    torch.manual_seed(5)
    extractor.train()(tensors())
    with torch.no_grad():
        for parameter in extractor.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return extractor.eval()


@pytest.mark.parametrize(("patch", "stride"), [(14, 14), (14, 8), (14, 28), (8, 12)])
def test_a_feature_is_of_the_pixels_around_its_centre(pooling, patch, stride):
    """If the colour is the position, the mean of a patch is its centre, for any size to which the image was resized."""
    rows, columns = 6, 7
    extractor = build_extractor(model({"stride": patch}, stride=stride))
    y, x = torch.meshgrid(torch.arange(rows * stride) + 0.5, torch.arange(columns * stride) + 0.5, indexing="ij")
    maps = extractor.raw(torch.stack([y, x, torch.ones_like(x)])[None])[0]
    inner = slice(1, -1)  # at the border, no pixels beyond the image are available for the interpolation
    centres = (torch.arange(rows) + 0.5) * stride
    torch.testing.assert_close(maps[0, inner, inner], centres[inner, None].expand(-1, columns - 2), atol=1e-2, rtol=0)
    centres = (torch.arange(columns) + 0.5) * stride
    torch.testing.assert_close(maps[1, inner, inner], centres[None, inner].expand(rows - 2, -1), atol=1e-2, rtol=0)


def test_patterns_finer_than_the_shrunk_image_leave_no_trace(pooling):
    """Waves of 2.5 pixels, reduced by 2.5, would have the same phase at each pixel."""
    waves = torch.cos(2 * torch.pi / 2.5 * (torch.arange(120) + 0.5)).expand(1, 3, 120, 120)
    maps = build_extractor(model({"stride": 8}, stride=20)).raw(waves)
    assert maps[:, :, :, 1:-1].abs().max() < 0.02  # 0.5 with plain sampling


def test_the_backbone_as_it_is_gives_its_own_unit_features(tiny):
    extractor = build_extractor(model(tiny["vit"]))
    features = extractor.extract(images(43, 38))  # 6 x 5 patches, of which the last ones are extended
    padded = F.pad(tensors(43, 38), (0, 2, 0, 5), mode="replicate")
    torch.testing.assert_close(features, F.normalize(build_backbone(tiny["vit"])(padded).maps, dim=1))
    assert (extractor.dim, extractor.trainable_parameters, extractor.frozen_encoder) == (16, 0, True)


@pytest.mark.parametrize(
    ("train", "trained"),
    [
        ("none", []),
        ({"last": 1}, ["blocks.2.", "norm."]),
        ({"last": 3}, ["blocks.0.", "blocks.1.", "blocks.2.", "norm."]),
        ("all", ["embeddings.", "blocks.0.", "blocks.1.", "blocks.2.", "norm."]),
    ],
)
def test_exactly_what_is_named_is_trained(tiny, train, trained):
    config = model({**tiny["dinov2"], "norm": True}, train=train, stride=14)
    extractor = build_extractor(config)
    before = {key: value.clone() for key, value in extractor.state_dict().items()}
    extractor.train()
    for name, module in extractor.encoder.named_modules():
        if list(module.parameters()) and name:
            within = any(name.startswith(part.rstrip(".")) for part in trained)
            assert module.training == (within or (name == "blocks" and bool(trained))), name
    parameters = [p for p in extractor.parameters() if p.requires_grad]
    if parameters:
        extractor.raw(tensors(42, 56)).square().sum().backward()
        torch.optim.SGD(parameters, lr=1e-3).step()
    moved = {key for key, value in extractor.state_dict().items() if not torch.equal(value, before[key])}
    assert all(p.grad is None for p in extractor.parameters() if not p.requires_grad)
    wanted = {key for key in before if any(key.startswith(f"encoder.{part}") for part in trained)}
    # The bias of the keys shifts all scores of a query equally, so it gets no gradient.
    assert {key for key in wanted - moved if not key.endswith("k_proj.bias")} == set()
    assert moved <= wanted
    assert extractor.frozen_encoder == (train == "none")


@pytest.mark.parametrize("last", [1, 2, 3])
@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_lora_changes_every_linear_layer_of_exactly_the_last_blocks(tiny, kind, last):
    extractor = build_extractor(model(tiny[kind], train={"lora": {"rank": 2, "last": last}}))
    linear = [name for name, m in build_backbone(tiny[kind]).named_modules() if isinstance(m, torch.nn.Linear)]
    wanted = {name for name in linear if int(name.split(".")[1]) >= 3 - last}
    assert len(wanted) == 6 * last
    names = [name for name, p in extractor.encoder.named_parameters() if p.requires_grad]
    assert {name.partition(".lora_")[0] for name in names} == wanted
    assert len(names) == 2 * len(wanted)
    assert not extractor.frozen_encoder


@pytest.mark.parametrize(("rslora", "scale"), [(False, 6 / 4), (True, 6 / math.sqrt(4))])
def test_lora_starts_at_the_backbone_and_adds_its_product(tiny, rslora, scale):
    config = model(tiny["vit"], train={"lora": {"rank": 4, "last": 2, "rslora": rslora, "alpha": 6}})
    extractor, plain = build_extractor(config), build_backbone(tiny["vit"])
    torch.testing.assert_close(extractor.raw(tensors()), plain(tensors()).maps)
    shaken(extractor)
    for name, module in extractor.encoder.named_modules():
        if hasattr(module, "base_layer"):
            product = module.lora_B["default"].weight @ module.lora_A["default"].weight
            plain.get_submodule(name).weight.data += scale * product
    torch.testing.assert_close(extractor.raw(tensors()), plain(tensors()).maps, atol=1e-4, rtol=1e-4)


def test_a_frozen_encoder_may_be_kept_and_decoded_later(tiny):
    extractor = shaken(build_extractor(model(tiny["vit"], head={"name": "residual_cnn", "widths": [4, 4, 4, 4, 4]})))
    assert extractor.needs_images
    encoded = extractor.encode(tensors())
    assert not encoded.maps.requires_grad
    torch.testing.assert_close(extractor.decode(encoded, tensors()), extractor.raw(tensors()))
    extractor = shaken(build_extractor(model(tiny["vit"], head=MLP)))
    kept = extractor.encode(tensors()).maps.half()
    assert not extractor.needs_images
    torch.testing.assert_close(extractor.raw(None, kept), extractor.raw(tensors()), atol=1e-2, rtol=1e-2)
    assert extractor.raw(None, kept).requires_grad


def test_the_head_of_locus_may_take_the_class_token(tiny):
    config = model(tiny["vit"], head={"name": "locus", "class_token": True})
    extractor = build_extractor(config)
    encoded = extractor.encode(tensors(48, 48))
    inputs = (tensors(48, 48) - extractor.encoder.mean) / extractor.encoder.std
    truth = AutoModel.from_pretrained(tiny["vit"]["path"])(inputs, output_hidden_states=True).hidden_states[3]
    torch.testing.assert_close(encoded.maps.flatten(2).transpose(1, 2), truth[:, 1:])
    torch.testing.assert_close(encoded.token, truth[:, 0])
    assert extractor.extract(images()).shape == (2, 64, 6, 5)
    assert not extractor.frozen_encoder
    assert build_extractor(model(tiny["vit"], head={"name": "locus"})).frozen_encoder


@pytest.mark.parametrize("head", [None, MLP, {"name": "locus", "class_token": True}])
def test_the_class_token_comes_with_the_features(tiny, head):
    extractor = build_extractor(model(tiny["vit"], head=head)).eval()
    with torch.no_grad():
        features, token = extractor.with_class_token(tensors(45, 48))
        torch.testing.assert_close(features, extractor.raw(tensors(45, 48)))
        torch.testing.assert_close(F.normalize(features, dim=1), extractor(tensors(45, 48)))
        padded = F.pad(tensors(45, 48), (0, 0, 0, 3), mode="replicate")
        inputs = (padded - extractor.encoder.mean) / extractor.encoder.std
        truth = AutoModel.from_pretrained(tiny["vit"]["path"])(inputs, output_hidden_states=True).hidden_states[3][:, 0]
    torch.testing.assert_close(token, truth)


def test_what_has_no_class_token_gives_an_empty_one(pooling):
    features, token = build_extractor(model({"stride": 8})).with_class_token(tensors())
    assert features.shape == (2, 3, 6, 5)
    assert token.shape == (2, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"train": "none", "head": {"name": "residual_cnn", "widths": [4, 4, 4, 4, 4]}},
        {"train": {"last": 1}, "head": MLP},
        {"train": LORA},
        {"train": "all"},
    ],
)
def test_a_file_holds_what_was_trained_and_gives_the_same_features(tiny, tmp_path, settings):
    config = model(tiny["vit"], **settings)
    extractor = shaken(build_extractor(config, seed=3))
    path = tmp_path / "model.safetensors"
    save_extractor(extractor, config, path, {"seed": 3})
    again = load(path)
    assert torch.equal(again.extract(images()), extractor.extract(images()))
    assert again.config == config

    weights = load_file(path)
    frozen = {f"encoder.{n}" for n, p in extractor.encoder.named_parameters() if not p.requires_grad}
    assert weights.keys() == extractor.state_dict().keys() - frozen
    sizes = describe(again)
    assert sizes["stored"] == sum(tensor.numel() for tensor in weights.values())
    assert sizes["trainable"] == sum(p.numel() for p in extractor.parameters() if p.requires_grad)
    assert sizes["parameters"] == sizes["trainable"] + sum(extractor.state_dict()[key].numel() for key in frozen)


def test_random_backbones_are_stored_whole(tiny, tmp_path):
    config = model({**tiny["vit"], "pretrained": False}, head=MLP)
    extractor = build_extractor(config, seed=3)
    save_extractor(extractor, config, tmp_path / "model.safetensors")
    assert load_file(tmp_path / "model.safetensors").keys() == extractor.state_dict().keys()
    assert torch.equal(load(tmp_path / "model.safetensors").extract(images()), extractor.extract(images()))


@pytest.mark.parametrize("train", ["none", {"last": 1}, LORA])
def test_another_backbone_under_the_same_name_is_noticed(tiny, tmp_path, train):
    folder = tmp_path / "backbone"
    AutoModel.from_pretrained(tiny["vit"]["path"]).save_pretrained(folder)
    config = model({**tiny["vit"], "path": str(folder)}, train=train, head=MLP)
    path = tmp_path / "model.safetensors"
    save_extractor(build_extractor(config), config, path)
    load(path)
    weights = load_file(folder / "model.safetensors")
    weights[next(key for key in weights if "layer.0." in key or "layers.0." in key)][0] += 1e-3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="another backbone") as error:
        load(path)
    assert str(folder) in str(error.value)


def test_a_network_of_an_onnx_file_is_known_by_the_file(pooling, tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"one")
    config = model({"stride": 8, "path": str(tmp_path / "net.onnx")}, head=MLP)
    path = tmp_path / "model.safetensors"
    save_extractor(build_extractor(config), config, path)
    load(path)
    (tmp_path / "net.onnx").write_bytes(b"two")
    with pytest.raises(DataError, match="another backbone"):
        load(path)


def test_files_that_do_not_fit_are_refused(tiny, tmp_path):
    config = model(tiny["vit"], head=MLP)
    path = tmp_path / "model.safetensors"
    save_extractor(build_extractor(config), config, path)
    with safe_open(path, framework="pt") as file:
        metadata, weights = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    cases = {
        "missing: head.norm.weight": {k: v for k, v in weights.items() if k != "head.norm.weight"},
        "unknown: head.more": {**weights, "head.more": torch.zeros(1)},
        r"head.norm.weight: float32 \(5,\) instead of float32 \(16,\)": {**weights, "head.norm.weight": torch.zeros(5)},
        r"head.norm.weight: float16 \(16,\) instead of float32 \(16,\)": {
            **weights,
            "head.norm.weight": weights["head.norm.weight"].half(),
        },
    }
    for problem, content in cases.items():
        write_model(path, json.loads(metadata["loco-model"]), content)
        with pytest.raises(DataError, match=f"weights of another model(.|\n)*{problem}"):
            load(path)
    for broken in ("{", json.dumps({"facts": {}})):
        save_file(weights, path, {"loco-model": broken})
        with pytest.raises(DataError, match="cannot be read as a model"):
            load(path)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"train": {"last": 4}}, "last 4 blocks .* has 3"),
        ({"train": {"lora": {"rank": 2, "last": 0}}}, "last 0 blocks"),
        ({"train": {"lora": {"last": 1}}}, "has unknown or missing options: .*rank"),
        ({"train": "some"}, "none, all"),
        ({"heads": {}}, "has unknown or missing options: .*heads"),
    ],
)
def test_what_cannot_be_trained_is_refused(tiny, settings, problem):
    with pytest.raises(ConfigError, match=problem):
        build_extractor(model(tiny["vit"], **settings))


def test_backbones_without_weights_or_blocks_are_not_trained(pooling):
    with pytest.raises(ConfigError, match="cannot be trained"):
        build_extractor(model({"stride": 8}, train="all"))
    with pytest.raises(ConfigError, match="no class token"):
        build_extractor(model({"stride": 8, "name": "onnx"}, head={"name": "locus", "class_token": True}))
