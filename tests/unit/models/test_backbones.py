"""Backbones of transformers, compared with the forward pass of that library."""

import json
import math
import pickle
import re
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import (
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    ResNetConfig,
    ViTConfig,
)

from loco.errors import ConfigError, DataError
from loco.models.backbones import KNOWN, build_backbone
from loco.models.pretrained import load

SMALL = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
CONFIGS = {
    "vit": (ViTConfig, {**SMALL, "image_size": 32, "patch_size": 8, "intermediate_size": 40}),
    "dinov2": (Dinov2Config, {**SMALL, "image_size": 42, "patch_size": 14}),
    "dinov2_with_registers": (
        Dinov2WithRegistersConfig,
        {**SMALL, "image_size": 42, "patch_size": 14, "num_register_tokens": 4},
    ),
    "dinov3_vit": (
        DINOv3ViTConfig,
        {**SMALL, "image_size": 32, "patch_size": 16, "num_register_tokens": 3, "intermediate_size": 40}
        | {"pos_embed_rescale": 2.0},
    ),
    "resnet": (
        ResNetConfig,
        {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 2, 1, 1], "layer_type": "basic"},
    ),
}
VITS = [kind for kind in CONFIGS if kind != "resnet"]
EXTRA = {"vit": 1, "dinov2": 1, "dinov2_with_registers": 5, "dinov3_vit": 4}
MEAN, STD = torch.tensor([0.2, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.1, 0.3, 0.7]).view(3, 1, 1)


def make(kind: str):
    """Return a random model of transformers in which every parameter has an effect: none is left at zero or one."""
    config_class, settings = CONFIGS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = transformers.AutoModel.from_config(config_class(**settings)).eval()
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and "running_var" not in name:
                tensor.add_(0.2 * torch.randn_like(tensor))
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """kind -> (model of transformers, folder in which it is saved)."""
    made = {}
    for kind in CONFIGS:
        folder = tmp_path_factory.mktemp(kind)
        model = make(kind)
        model.save_pretrained(folder)
        colours = {"image_mean": MEAN.flatten().tolist(), "image_std": STD.flatten().tolist()}
        (folder / "preprocessor_config.json").write_text(json.dumps(colours))
        made[kind] = (model, folder)
    return made


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Use an empty cache, without network access."""

    def refuse(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build(folder, **options):
    return build_backbone({"name": "transformers", "path": str(folder), **options})


def images(stride: int, height: int = 3, width: int = 5) -> torch.Tensor:
    return torch.rand(2, 3, height * stride, width * stride, generator=torch.Generator().manual_seed(0))


def reference(model, x):
    extra = {"interpolate_pos_encoding": True} if model.config.model_type == "vit" else {}
    with torch.no_grad():
        return model((x - MEAN) / STD, output_hidden_states=True, **extra)


@pytest.mark.parametrize("kind", VITS)
@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (3, 3), (1, 2)])
def test_the_last_layer_is_that_of_transformers_without_the_extra_tokens(models, kind, shape):
    model, folder = models[kind]
    backbone = build(folder)
    x = images(backbone.stride, *shape)
    expected = reference(model, x).last_hidden_state
    assert expected.shape[1] == shape[0] * shape[1] + EXTRA[kind]
    found = backbone(x).maps
    assert found.shape == (2, backbone.dim, *shape)
    for r in range(shape[0]):  # in reading order, cell by cell
        for q in range(shape[1]):
            token = expected[:, EXTRA[kind] + r * shape[1] + q]
            torch.testing.assert_close(found[:, :, r, q], token, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", VITS)
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_layer_k_is_hidden_state_k_and_nothing_beyond_is_kept(models, kind, layer):
    model, folder = models[kind]
    backbone = build(folder, layer=layer, norm=False)
    x = images(backbone.stride)
    expected = reference(model, x).hidden_states[layer][:, EXTRA[kind] :]
    torch.testing.assert_close(backbone(x).maps.flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-5)
    assert len(backbone.blocks) == layer
    per_block = sum(p.numel() for p in build(folder, layer=1).blocks.parameters())
    assert sum(p.numel() for p in backbone.blocks.parameters()) == layer * per_block
    parts = {id(p) for module in (*backbone.embedding, *backbone.blocks) for p in module.parameters()}
    assert parts == {id(p) for p in backbone.parameters()}  # without the last norm there is nothing else to compare


@pytest.mark.parametrize("kind", VITS)
def test_norm_is_that_of_the_model_and_by_default_of_the_last_layer_alone(models, kind):
    model, folder = models[kind]
    x = images(build(folder).stride)
    norm = model.norm if kind == "dinov3_vit" else model.layernorm
    expected = norm(reference(model, x).hidden_states[2])[:, EXTRA[kind] :].transpose(1, 2)
    torch.testing.assert_close(build(folder, layer=2, norm=True)(x).maps.flatten(2), expected, atol=1e-5, rtol=1e-5)
    default, without = (build(folder, layer=2, **options)(x).maps for options in ({}, {"norm": False}))
    torch.testing.assert_close(default, without, atol=0, rtol=0)
    torch.testing.assert_close(build(folder)(x).maps, build(folder, layer=3, norm=True)(x).maps, atol=0, rtol=0)
    assert not torch.allclose(build(folder)(x).maps, build(folder, norm=False)(x).maps, atol=1e-2)


@pytest.mark.parametrize("kind", VITS)
@pytest.mark.parametrize(("facet", "name"), [("query", "query"), ("key", "key"), ("value", "value")])
@pytest.mark.parametrize("layer", [1, 3])
def test_facets_are_the_projections_of_the_attention(models, kind, facet, name, layer):
    """Compute the reference in double precision from the weights in the file and the tokens that enter the block."""
    model, folder = models[kind]
    weights = {key: value.double() for key, value in load_file(folder / "model.safetensors").items()}
    ending = {"dinov3_vit": f"attention.{name[0]}_proj"}.get(kind, f"attention.attention.{name}")
    block_norm = "layernorm_before" if kind == "vit" else "norm1"
    # The only key of the file that ends with this part of the block, after any prefix.
    part = lambda end: next(v for k, v in weights.items() if k.endswith(f"layer.{layer - 1}.{end}"))  # noqa: E731
    backbone = build(folder, layer=layer, facet=facet)
    x = images(backbone.stride)
    tokens = reference(model, x).hidden_states[layer - 1].double()[:, EXTRA[kind] :]
    eps = model.config.layer_norm_eps
    tokens = F.layer_norm(tokens, (24,), part(f"{block_norm}.weight"), part(f"{block_norm}.bias"), eps)
    bias = 0 if (kind, facet) == ("dinov3_vit", "key") else part(f"{ending}.bias")
    expected = tokens @ part(f"{ending}.weight").T + bias
    torch.testing.assert_close(backbone(x).maps.flatten(2).transpose(1, 2).double(), expected, atol=1e-5, rtol=1e-5)
    assert backbone.dim == 24
    assert len(backbone.blocks) == layer
    assert {name for name, _ in backbone.blocks[-1].named_children()} == {"norm", "projection"}


@pytest.mark.parametrize("layer", [1, 2, 3, 4])
def test_resnet_stages(models, layer):
    model, folder = models["resnet"]
    backbone = build(folder, layer=layer)
    assert backbone.stride == 2 ** (layer + 1)
    assert not backbone.blocks
    x = images(backbone.stride, 3, 4)
    half = backbone.stride // 2
    padded = F.pad(x, (half, 0, half, 0), mode="replicate")
    with torch.no_grad():
        states = model((padded - MEAN) / STD, output_hidden_states=True).hidden_states
    expected = states[layer][:, :, 1:, 1:]
    assert expected.shape[2:] == (3, 4)
    torch.testing.assert_close(backbone(x).maps, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_cell_of_a_resnet_looks_at_its_own_patch(models, layer):
    """With positive filters of even size, the mean position of the pixels that affect a cell is its patch centre."""
    backbone = build(models["resnet"][1], layer=layer, pretrained=False)
    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    backbone.mean.zero_()
    backbone.std.fill_(1)
    x = images(backbone.stride, 12, 12).requires_grad_()
    backbone(x).maps[:, :, 6, 7].sum().backward()
    weight = x.grad.sum(dim=(0, 1))
    place = torch.arange(len(weight)) + 0.5
    row, column = (weight.sum(1) @ place / weight.sum()).item(), (weight.sum(0) @ place / weight.sum()).item()
    # Known to half a pixel; the maximum over 3 x 3 pixels of noise selects a random position.
    assert row == pytest.approx(6.5 * backbone.stride, abs=1.0)
    assert column == pytest.approx(7.5 * backbone.stride, abs=1.0)


def test_colours_default_to_imagenet(models, tmp_path):
    model, folder = models["dinov2"]
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    x = images(14)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        expected = model((x - mean) / std).last_hidden_state[:, 1:].transpose(1, 2)
    torch.testing.assert_close(build(tmp_path)(x).maps.flatten(2), expected, atol=1e-5, rtol=1e-5)
    given = build(tmp_path, mean=[0.5, 0.4, 0.3], std=[0.5, 0.25, 2.0])
    with torch.no_grad():
        x_given = (x - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.25, 2.0]).view(3, 1, 1)
        expected = model(x_given).last_hidden_state[:, 1:].transpose(1, 2)
    torch.testing.assert_close(given(x).maps.flatten(2), expected, atol=1e-5, rtol=1e-5)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    with torch.no_grad():
        expected = model(x).last_hidden_state[:, 1:].transpose(1, 2)
    torch.testing.assert_close(build(tmp_path)(x).maps.flatten(2), expected, atol=1e-5, rtol=1e-5)
    (tmp_path / "preprocessor_config.json").write_text('{"image_std": [1, 0, 1]}')
    with pytest.raises(DataError, match="three positive standard deviations and a positive rescale_factor"):
        build(tmp_path)


@pytest.mark.parametrize("kind", VITS)
def test_training_mode_draws_nothing_and_reaches_every_weight(models, kind):
    """No random positions, and no weight without a gradient (which would stop training on several ranks)."""
    for options in ({}, {"facet": "value", "layer": 2}):
        backbone = build(models[kind][1], **options)
        x = images(backbone.stride)
        evaluated = backbone(x).maps
        torch.testing.assert_close(backbone.train()(x).maps, evaluated, atol=0, rtol=0)
        (evaluated * torch.randn_like(evaluated)).sum().backward()
        assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_half_precision_files_are_read_as_single(tmp_path):
    make("dinov2").half().save_pretrained(tmp_path)
    backbone = build(tmp_path)
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    halved = make("dinov2").half().float()
    x = images(14)
    with torch.no_grad():
        expected = halved((x - backbone.mean) / backbone.std).last_hidden_state[:, 1:].transpose(1, 2)
    torch.testing.assert_close(backbone(x).maps.flatten(2), expected, atol=1e-5, rtol=1e-5)


def test_random_weights_need_the_configuration_alone(models, tmp_path):
    (tmp_path / "config.json").write_text((models["vit"][1] / "config.json").read_text())
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = build(tmp_path, pretrained=False)
        torch.manual_seed(3)
        again = build(tmp_path, pretrained=False)
    x = images(8)
    torch.testing.assert_close(first(x).maps, again(x).maps, atol=0, rtol=0)
    assert first(x).maps.std() > 0.1
    with pytest.raises(DataError, match="contains no weights as safetensors"):
        build(tmp_path)


def test_sides_must_be_whole_patches(models):
    backbone = build(models["dinov2"][1])
    for shape in [(1, 3, 28, 30), (1, 1, 28, 28), (3, 28, 28)]:
        with pytest.raises(ValueError, match="multiples of 14"):
            backbone(torch.zeros(shape))


def test_known_names_fit_their_hub_names():
    for name, known in KNOWN.items():
        if name == "resnet50":
            assert (known.stride, known.dim) == (32, 2048)
            continue
        size, stride = re.fullmatch(r"[a-z0-9]+_(?:vit)?([a-z]+|so400m)(\d+)(?:_reg)?", name).groups()
        assert int(stride) == known.stride
        assert known.dim == {"s": 384, "b": 768, "l": 1024, "so400m": 1152, "h": 1280, "g": 1536}[size]
        assert ("registers" in known.hub) == name.endswith("_reg")


# Mistakes of users.


def test_wrong_options(models):
    folder = models["vit"][1]
    for options, message in [
        ({"layer": 0}, "no layer 0: its layers are 1 to 3"),
        ({"layer": 4}, "no layer 4"),
        ({"facet": "keys"}, "unknown facet 'keys'; expected one of: token, query, key, value"),
        ({"facet": "key", "norm": True}, "`norm` applies to tokens"),
        ({"blocks": 3}, "has unknown or missing options"),
    ]:
        with pytest.raises(ConfigError, match=message):
            build(folder, **options)
    for options, message in [
        ({"facet": "key"}, "`facet`: this model has no facets"),
        ({"norm": True}, "`norm`: this model has no final normalisation"),
        ({"concat_class_token": True}, "`concat_class_token`: this model has no class token"),
    ]:
        with pytest.raises(ConfigError, match=message):
            build(models["resnet"][1], **options)
    with pytest.raises(ConfigError, match="no layer 5: its layers are 1 to 4"):
        build(models["resnet"][1], layer=5)
    with pytest.raises(ConfigError, match="croco, onnx, timm, transformers"):
        build_backbone({"name": "mmseg", "path": "x"})
    with pytest.raises(ConfigError, match="path"):
        build_backbone({"name": "transformers"})


def test_unsupported_or_broken_configurations(models, tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=r"'bert' is not supported; supported are: aimv2, .*resnet.*vit"):
        build(tmp_path)
    for text in ("{", "[]", '{"model_type": "dinov2", "hidden_size": "many"}'):
        file.write_text(text)
        with pytest.raises((DataError, ConfigError), match=r"config\.json"):
            build(tmp_path)


def test_truncated_weights(models, tmp_path):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((models["vit"][1] / file).read_bytes())
    weights = tmp_path / "model.safetensors"
    for size in (0, 5, 100, weights.stat().st_size - 1):
        weights.write_bytes((models["vit"][1] / "model.safetensors").read_bytes()[:size])
        with pytest.raises(DataError, match="weights cannot be read"):
            build(tmp_path)


def test_weights_of_another_model(models, tmp_path):
    config = (models["dinov2"][1] / "config.json").read_text()
    weights = load_file(models["dinov2"][1] / "model.safetensors")
    (tmp_path / "config.json").write_text(config)
    lacking = {key: value for key, value in weights.items() if "layer.1.mlp" not in key}
    save_file(lacking, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="another model: 4 of the required weights are missing"):
        build(tmp_path)
    (tmp_path / "config.json").write_text(config.replace('"hidden_size": 24', '"hidden_size": 48'))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError):
        build(tmp_path)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


def test_pickles_are_never_opened(models, tmp_path):
    (tmp_path / "config.json").write_text((models["vit"][1] / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"pickles are not read(.|\n)*found: pytorch_model\.bin(.|\n)*save_file"):
        build(tmp_path)
    save_command = str(_error(tmp_path)).partition('python -c "')[2].partition('"')[0]
    torch.save(make("vit").state_dict(), tmp_path / "pytorch_model.bin")
    subprocess.run([sys.executable, "-c", save_command], cwd=tmp_path, check=True)
    x = images(8)
    with torch.no_grad():
        expected = make("vit")((x - 0.5) / 0.5, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    torch.testing.assert_close(build(tmp_path)(x).maps.flatten(2), expected.transpose(1, 2), atol=1e-5, rtol=1e-5)
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="weights cannot be read"):
        build(tmp_path)


def _error(folder):
    with pytest.raises(DataError) as caught:
        build(folder)
    return caught.value


def test_code_in_a_folder_is_not_run(models, tmp_path):
    settings = json.loads((models["vit"][1] / "config.json").read_text())
    settings["auto_map"] = {"AutoModel": "trap.Trap", "AutoConfig": "trap.Trap"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "trap.py").write_text("raise SystemExit('the trap was run')")
    (tmp_path / "model.safetensors").write_bytes((models["vit"][1] / "model.safetensors").read_bytes())
    x = images(8)
    assert build(tmp_path)(x).maps.shape == (2, 24, 3, 5)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("missing/folder/here", "correct its path"),
        ("weights/dino", "write a model on the hub as hub:owner/name"),
        ("facebook/dino-vits8", "write a model on the hub as hub:owner/name"),
        ("../nowhere", "correct its path"),
        ("dinov2_vits13", "did you mean `dinov2_vits14`?"),
    ],
)
def test_a_path_that_is_missing_is_never_asked_for_on_the_hub(path, says, monkeypatch):
    monkeypatch.setattr("loco.models.hub.snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(DataError) as caught:
        build(path)
    assert f"backbone {path!r} is not a folder" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("stated", [False, True])
@pytest.mark.parametrize("path", ["dino_vits8", "hub:nobody/nothing"])
def test_neither_here_nor_on_the_hub(offline, path, stated, monkeypatch):
    """Without a network; ``HF_HUB_OFFLINE=1`` states it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", stated)
    with pytest.raises(DataError) as caught:
        build(path)
    name = KNOWN[path].hub if path in KNOWN else "nobody/nothing"
    assert f"backbone {name!r} is not in the cache" in str(caught.value)
    assert f"hf download {name}" in str(caught.value)


@pytest.mark.parametrize("stated", [False, True])
def test_what_is_cached_needs_no_network(offline, models, monkeypatch, stated):
    """The layout of the hub's cache: a reference names the commit, whose snapshot contains the files."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", stated)
    model, folder = models["dinov2"]
    place = offline / "models--facebook--dinov2-small"
    snapshot = place / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123456789abcdef")
    for file in folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    x = images(14)
    expected = reference(model, x).last_hidden_state[:, 1:].transpose(1, 2)

    def trip(*_, **__):
        raise SystemExit("the network was tried")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", trip)
        torch.testing.assert_close(build("dinov2_vits14")(x).maps.flatten(2), expected, atol=1e-5, rtol=1e-5)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"contains no weights(.|\n)*hf download"):
        build("dinov2_vits14")


def test_a_licence_that_was_not_accepted(monkeypatch):
    def refuse(name, local_files_only, **_):
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        raise GatedRepoError.__new__(GatedRepoError)  # its own constructor requires the response of the server

    monkeypatch.setattr("loco.models.hub.snapshot_download", refuse)
    with pytest.raises(DataError, match=r"accepting its licence(.|\n)*dinov3-vits16-pretrain-lvd1689m.*hf auth login"):
        build("dinov3_vits16")


@pytest.mark.parametrize(("path", "name"), [("dinov2_vits14", "facebook/dinov2-small"), ("hub:mine/net", "mine/net")])
def test_a_model_of_the_hub_is_fetched_whatever_folders_are_here(models, tmp_path, monkeypatch, path, name):
    asked = []

    def fetch(name, revision, **_):
        asked.append((name, revision))
        return str(models["dinov2"][1])

    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr("loco.models.hub.snapshot_download", fetch)
    build(path)
    build(path, revision="0123abc")
    assert asked == [(name, None), (name, "0123abc")]


def test_a_folder_has_no_revision(models):
    with pytest.raises(ConfigError, match="remove `revision`"):
        build(models["vit"][1], revision="main")


def folder_with(models, kind, tmp_path, **settings):
    shutil.copytree(models[kind][1], tmp_path / kind)
    file = tmp_path / kind / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return tmp_path / kind


@pytest.mark.parametrize("kind", VITS)
@pytest.mark.parametrize("form", [lambda p: [p, p], lambda p: [p]])
def test_a_patch_size_may_be_a_list(models, tmp_path, kind, form):
    patch = models[kind][0].config.patch_size
    x = images(patch)
    listed = build(folder_with(models, kind, tmp_path, patch_size=form(patch)))
    assert listed.stride == patch
    assert torch.equal(listed(x).maps, build(models[kind][1])(x).maps)


@pytest.mark.parametrize("patch", [[8, 16], [], "8", [8.0, 8.0], 0])
def test_other_patch_sizes_are_refused(models, tmp_path, patch):
    with pytest.raises((ConfigError, DataError), match=r"patch_size(.|\n)*config\.json|config\.json: `patch_size`"):
        build(folder_with(models, "vit", tmp_path, patch_size=patch))


def test_quantised_weights_are_refused(models, tmp_path):
    settings = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    with pytest.raises(ConfigError, match=r"config\.json: quantised weights are not supported; use the folder of the"):
        build(folder_with(models, "dinov2", tmp_path, **settings))


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_another_image_size_is_named(models, tmp_path, kind):
    size = 2 * models[kind][0].config.image_size
    with pytest.raises(DataError) as caught:
        build(folder_with(models, kind, tmp_path, image_size=size))
    cells = (size // models[kind][0].config.patch_size) ** 2 + 1
    assert f"embeddings.position_embeddings (1, {cells}, " in str(caught.value)
    assert "set `image_size` in config.json" in str(caught.value)


def test_weights_of_other_shapes_are_named(models, tmp_path):
    with pytest.raises(DataError, match=r"have other shapes(.|\n)*mlp(.|\n)*belong together"):
        build(folder_with(models, "vit", tmp_path, intermediate_size=24))


def test_an_adapter_alone_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    for make in (build, load):
        with pytest.raises(DataError, match=r"an adapter of peft without its base model; merge"):
            make(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_rescale": True, "rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.25] * 3},
        {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [63.75] * 3},
        {"do_rescale": False, "rescale_factor": 7.0, "image_mean": [100.0, 110, 120], "image_std": [50.0, 60, 70]},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [0.5] * 3},
        {"rescale_factor": 1 / 127.5, "do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
    ],
)
def test_colours_are_scaled_as_the_preprocessor_says(models, tmp_path, settings):
    folder = folder_with(models, "dinov2", tmp_path)
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text()) | settings
    file.write_text(json.dumps(settings))
    pixels = np.random.default_rng(0).integers(0, 256, (14, 28, 3)).astype(np.float64)
    if settings.get("do_rescale", True):
        pixels = pixels * settings.get("rescale_factor", 1 / 255)
    expected = pixels
    if settings.get("do_normalize", True):
        expected = (pixels - settings["image_mean"]) / settings["image_std"]
    raw = np.random.default_rng(0).integers(0, 256, (14, 28, 3))
    found = build(folder).normalised(torch.from_numpy(raw).permute(2, 0, 1)[None] / 255)
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_flip_channel_order": True},
        {"rescale_offset": True},
        {"rescale_factor": 0},
        {"rescale_factor": -1.0},
        {"rescale_factor": "a"},
        {"rescale_factor": math.nan},
        {"image_mean": [0.5, math.nan, 0.5]},
        {"image_std": [0.5, 0.5, math.inf]},
        {"image_std": [math.nan, 0.5, 0.5]},
        {"image_mean": [0.5] * 4, "image_std": [0.5] * 4},
        {"image_mean": 0.5, "image_std": 0.5},
        {"image_processor": [1]},
    ],
)
def test_other_preprocessors_are_refused(models, tmp_path, settings):
    folder = folder_with(models, "vit", tmp_path)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises((ConfigError, DataError), match="preprocessor_config"):
        build(folder)


def dino_positions(table, rows, columns, offset=0.1):
    """DINO's interpolation in float64: bicubic (a = -0.75), cell r at (r + 0.5) n / (rows + offset) - 0.5 of n."""
    n = math.isqrt(table.shape[1] - 1)
    grid = table[0, 1:].double().numpy().reshape(n, n, -1)

    def weight(x):
        x, a = abs(x), -0.75
        return (a + 2) * x**3 - (a + 3) * x**2 + 1 if x <= 1 else a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    def matrix(count):
        out = np.zeros((count, n))
        for row in range(count):
            place = (row + 0.5) * n / (count + offset) - 0.5
            for near in range(math.floor(place) - 1, math.floor(place) + 3):
                out[row, min(max(near, 0), n - 1)] += weight(place - near)
        return out

    return np.einsum("ri,qj,ijc->rqc", matrix(rows), matrix(columns), grid)


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
@pytest.mark.parametrize("shape", [(5, 7), (2, 3), None])
def test_positions_are_interpolated_as_in_the_code_of_dino(models, kind, shape):
    model, folder = models[kind]
    backbone, plain = build(folder, interpolate_offset=0.1), build(folder)
    table = model.embeddings.position_embeddings.detach()
    n = math.isqrt(table.shape[1] - 1)
    x = images(backbone.stride, *(shape or (n, n)))
    if shape is None:  # the grid of the pretraining: nothing to interpolate
        assert torch.equal(backbone(x).maps, plain(x).maps)
        return
    patches = model.embeddings.patch_embeddings((x - MEAN) / STD).detach()
    extra = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    found = backbone.embeddings(backbone.normalised(x), **extra)[:, 1:] - patches
    expected = dino_positions(table, *shape).reshape(1, shape[0] * shape[1], -1)
    np.testing.assert_allclose(found.detach().numpy(), np.broadcast_to(expected, found.shape), atol=1e-5)
    difference = (backbone(x).maps - plain(x).maps).norm() / plain(x).maps.norm()
    assert 1e-4 < difference < 0.2


@pytest.mark.parametrize("kind", ["dinov2_with_registers", "dinov3_vit", "resnet"])
def test_other_models_have_no_such_positions(models, kind):
    with pytest.raises(ConfigError, match="interpolate_offset"):
        build(models[kind][1], interpolate_offset=0.1)


@pytest.mark.parametrize("kind", VITS)
def test_the_class_token_is_put_before_each_patch(models, kind):
    plain, joined = build(models[kind][1]), build(models[kind][1], concat_class_token=True)
    x = images(plain.stride)
    maps, token = plain(x)
    found = joined(x).maps
    assert joined.dim == found.shape[1] == 2 * plain.dim
    assert torch.equal(found[:, plain.dim :], maps)
    assert (found[:, : plain.dim] == token[:, :, None, None]).all()


def test_a_facet_has_no_class_token_to_put_before_it(models):
    with pytest.raises(ConfigError, match="concat_class_token"):
        build(models["vit"][1], facet="value", concat_class_token=True)


@pytest.mark.parametrize("name", ["processor_config.json", "preprocessor_config.json"])
def test_settings_of_the_inputs_may_be_nested(models, tmp_path, name):
    folder = folder_with(models, "vit", tmp_path)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3}))
    (folder / name).write_text(json.dumps({"image_processor": {"image_mean": [0.3] * 3, "image_std": [0.7] * 3}}))
    backbone = build(folder)
    assert backbone.mean.flatten().tolist() == pytest.approx([0.3] * 3)
    assert backbone.std.flatten().tolist() == pytest.approx([0.7] * 3)


def test_colours_that_are_not_stated_are_reported_once(models, tmp_path, caplog):
    folder = folder_with(models, "vit", tmp_path)
    (folder / "preprocessor_config.json").unlink()
    build(folder, mean=[0.5] * 3, std=[0.5] * 3)
    assert not caplog.records
    for _ in range(2):
        build(folder)
    assert [record.message.count("has no preprocessor_config.json") for record in caplog.records] == [1]


def rewritten(models, kind, folder, change, **settings):
    """Return a folder with changed weights, and the settings of config.json."""
    folder = folder_with(models, kind, folder, **settings)
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", VITS)
def test_blocks_beyond_those_of_the_configuration_are_refused(models, tmp_path, kind):
    fewer = {"num_hidden_layers": 2, "out_features": None, "out_indices": None}
    folder = folder_with(models, kind, tmp_path, **fewer)
    with pytest.raises(DataError, match=r"do not belong to the network(.|\n)*layer(s?)\.2\."):
        build(folder)


def test_biases_that_the_configuration_lacks_are_refused(models, tmp_path):
    with pytest.raises(DataError, match=r"do not belong to the network(.|\n)*bias"):
        build(folder_with(models, "vit", tmp_path, qkv_bias=False))


@pytest.mark.parametrize(
    "name", ["embeddings.register_tokens", "layers.9.weight", "vit.encoder.layer.9.x", "blocks.0.x"]
)
def test_unknown_weights_of_a_network_are_refused(models, tmp_path, name):
    with pytest.raises(DataError, match="do not belong to the network"):
        build(rewritten(models, "vit", tmp_path, lambda w: {**w, name: torch.zeros(3)}))


def test_heads_and_what_pretraining_needs_are_left_out(models, tmp_path):
    names = ("classifier.weight", "head.bias", "decoder.decoder_layers.0.weight", "embeddings.mask_token", "pooler.x")
    folder = rewritten(models, "vit", tmp_path, lambda w: w | {name: torch.zeros(3) for name in names})
    assert torch.equal(build(folder)(images(8)).maps, build(models["vit"][1])(images(8)).maps)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.int64, torch.float8_e4m3fn])
def test_weights_that_are_not_floating_point_are_refused(models, tmp_path, dtype):
    def change(weights):
        return {key: value.to(dtype) if "mlp" in key or "dense" in key else value for key, value in weights.items()}

    with pytest.raises(DataError, match="are not floating-point tensors"):
        build(rewritten(models, "vit", tmp_path, change))


@pytest.mark.parametrize(
    "settings",
    [{"hidden_act": "swish9"}, {"hidden_act": ["gelu"]}, {"num_hidden_layers": 10**7}, {"num_attention_heads": 0}],
)
def test_settings_that_describe_no_model_are_refused(models, tmp_path, settings):
    folder = folder_with(models, "vit", tmp_path, **settings)
    for pretrained in (True, False):
        with pytest.raises(DataError, match=r"config\.json"):
            build(folder, pretrained=pretrained)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "processor_config.json"])
@pytest.mark.parametrize("depth", [500, 100_000])
def test_nested_lists_are_refused_or_ignored(models, tmp_path, name, depth):
    folder = folder_with(models, "vit", tmp_path)
    (folder / name).write_text('{"model_type": "vit", "image_processor": ' + "[" * depth + "]" * depth + "}")
    with pytest.raises(DataError, match=name.replace(".", r"\.") + "|weights"):
        build(folder)


@pytest.mark.parametrize("settings", [{"hidden_size": 10**7}, {"image_size": 10**6}, {"intermediate_size": 10**9}])
def test_settings_that_would_take_all_memory_are_refused(models, tmp_path, settings):
    with pytest.raises(DataError, match=r"implies far more weights than the file contains|the model cannot be built"):
        build(folder_with(models, "vit", tmp_path, **settings))
