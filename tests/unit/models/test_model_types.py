"""Every type of transformers model that is supported, on a tiny random network, against transformers' own output."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from loco.errors import ConfigError, DataError
from loco.models.adapted import set_trained
from loco.models.backbones import build_backbone
from loco.models.extractor import Extractor
from loco.models.model_folder import backbone_types
from loco.models.model_types import PARTS, TYPES, supported
from loco.training.checkpointing import checkpoint_blocks

VIT = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 40}
SMALL = {**VIT, "image_size": 32, "patch_size": 8}
STAGES = {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]}
SWIN = {"embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "image_size": [64, 64]}
SAM2 = {
    **{"hidden_size": 8, "num_attention_heads": 1, "image_size": [64, 64], "blocks_per_stage": [1, 1, 2, 1]},
    **{"embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 2, 2, 4]},
    **{"global_attention_blocks": [3], "window_size_per_stage": [4, 2, 4, 4]},
    "window_positional_embedding_background_size": [4, 4],
}
CONFIGS: dict[str, dict[str, Any]] = {
    "aimv2_vision_model": {**SMALL, "is_native": True},
    "beit": {**SMALL, "use_relative_position_bias": True, "use_mean_pooling": False},
    "clip_vision_model": SMALL,
    "convnext": STAGES,
    "convnextv2": STAGES,
    "deit": SMALL,
    "dinov2": SMALL,
    "dinov2_with_registers": {**SMALL, "num_register_tokens": 4},
    "dinov3_convnext": STAGES,
    "dinov3_vit": {**SMALL, "num_register_tokens": 3, "pos_embed_rescale": 2.0},
    "hiera": SWIN,
    "ijepa": SMALL,
    "metaclip_2_vision_model": SMALL,
    "pixio": SMALL,
    "radio": {**SMALL, "max_img_size": 64},
    "resnet": {**STAGES, "embedding_size": 8, "layer_type": "basic"},
    "sam2_hiera_det_model": SAM2,
    "sam3_vit_model": {**VIT, "image_size": 56, "pretrain_image_size": 42, "patch_size": 14, "window_size": 2}
    | {"global_attn_indexes": [2]},
    "sam_vision_model": {**VIT, "mlp_dim": 40, "output_channels": 16, "image_size": 64, "patch_size": 16}
    | {"global_attn_indexes": [1], "window_size": 3},
    "siglip2_vision_model": {**VIT, "num_patches": 16, "patch_size": 8},
    "siglip_vision_model": SMALL,
    "swinv2": {**SWIN, "image_size": 64, "window_size": 4},
    "tipsv2_vision_model": {**SMALL, "num_register_tokens": 1},
    "vit": SMALL,
    "vit_mae": {**SMALL, "mask_ratio": 0.75},
    "vit_msn": SMALL,
}
FIXED = {"sam3_vit_model": 56, "sam_vision_model": 64}  # pixels: other sizes are padded
# Tokens before those of the patches, by the documentation of transformers.
TOKENS = {"deit": 2, "dinov2_with_registers": 5, "dinov3_vit": 4, "pixio": 8, "radio": 10, "tipsv2_vision_model": 2}
TOKENS |= dict.fromkeys(["aimv2_vision_model", "ijepa", "siglip_vision_model", "siglip2_vision_model"], 0)
TOKENS |= dict.fromkeys(["sam3_vit_model", "sam_vision_model", "hiera", "swinv2"], 0)
HIERARCHIES = ["convnext", "convnextv2", "dinov3_convnext", "hiera", "resnet", "sam2_hiera_det_model", "swinv2"]
TRANSFORMERS = [kind for kind in CONFIGS if kind not in HIERARCHIES]
BLOCKS = [*TRANSFORMERS, "sam2_hiera_det_model"]  # low-rank adapters and `last` need transformer blocks
FACETS = [kind for kind in TRANSFORMERS if kind != "sam_vision_model"]  # its attention has one matrix for all three
STRIDES = {kind: CONFIGS[kind]["patch_size"] if kind in TRANSFORMERS else 32 for kind in CONFIGS}
MEAN, STD = torch.tensor([0.2, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.1, 0.3, 0.7]).view(3, 1, 1)
COLOURS = {"image_mean": MEAN.flatten().tolist(), "image_std": STD.flatten().tolist()}
INTERPOLATED = {"beit", "clip_vision_model", "deit", "hiera", "ijepa", "metaclip_2_vision_model", "siglip_vision_model"}
INTERPOLATED |= {"vit", "vit_mae", "vit_msn"}  # position embeddings are interpolated on request
# Where transformers saves the image encoder of a larger model.
PREFIXES = dict.fromkeys(["aimv2", "clip", "metaclip_2", "siglip", "siglip2"], "vision_model.") | {
    "sam": "",
    "tipsv2": "",
}
PREFIXES |= dict.fromkeys(["sam2", "sam2_video", "sam3"], "vision_encoder.backbone.")
PREFIXES |= dict.fromkeys(["sam2_vision_model", "sam3_vision_model"], "backbone.")
PREFIXES |= {"sam3_video": "detector_model.vision_encoder.backbone."}
NO_GRADIENT: dict[str, set[str]] = {}


def make(kind: str) -> Any:
    """A random model of transformers in which every parameter matters: none left at zero or one."""
    config = transformers.AutoConfig.for_model(kind, **CONFIGS[kind])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if kind == "metaclip_2_vision_model":
            model = transformers.MetaClip2VisionModel(config).eval()
        else:
            model = transformers.AutoModel.from_config(config).eval()
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not name.endswith(("running_var", "norm_std", "coords_table")):
                tensor.add_(0.2 * torch.randn_like(tensor))
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, tuple[Any, Any]]:
    """kind -> (model of transformers, folder that it was saved to)."""
    made = {}
    for kind in CONFIGS:
        folder = tmp_path_factory.mktemp(kind)
        model = make(kind)
        model.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(COLOURS))
        if kind == "vit_mae":
            model.config.mask_ratio = 0.0
        made[kind] = (model, folder)
    return made


def build(folder, **options):
    return build_backbone({"name": "transformers", "path": str(folder), **options})


def assert_near(found: Tensor, expected: Tensor) -> None:
    """Equal but for rounding in single precision, cell by cell."""
    assert found.shape == expected.shape
    error = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert error.max() < 1e-4


def images(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def run(kind: str, model: Any, x: Tensor, **options: Any) -> Any:
    """transformers' own output for images, with the arguments that its documentation states."""
    x = (x - MEAN) / STD
    if kind in FIXED:
        x = F.pad(x, (0, FIXED[kind] - x.shape[3], 0, FIXED[kind] - x.shape[2]))
    if kind == "siglip2_vision_model":
        rows, columns = x.shape[2] // 8, x.shape[3] // 8
        cells = [(slice(8 * r, 8 * r + 8), slice(8 * q, 8 * q + 8)) for r in range(rows) for q in range(columns)]
        patches = [torch.stack([image[:, r, q].permute(1, 2, 0).flatten() for r, q in cells]) for image in x]
        options |= {"pixel_attention_mask": torch.ones(len(x), len(cells))}
        options |= {"spatial_shapes": torch.tensor([[rows, columns]] * len(x))}
        x = torch.stack(patches)
    if kind in INTERPOLATED:
        options |= {"interpolate_pos_encoding": True}
    with torch.no_grad():
        return model(pixel_values=x, **options)


def last_layer(kind: str, model: Any, x: Tensor) -> Tensor:
    """Maps (b, c, h, w) of the last layer by transformers' own output."""
    if kind == "resnet":  # cells are centred on their patches: see test_backbones.py
        found = run(kind, model, F.pad(x, (16, 0, 16, 0), mode="replicate"))
        return found.last_hidden_state[:, :, 1:, 1:]
    found = run(kind, model, x)
    return as_maps(kind, in_order(kind, found.last_hidden_state, found), x, STRIDES[kind])


def in_order(kind: str, tokens: Tensor, found: Any) -> Tensor:
    """A masked autoencoder returns its patches shuffled, and how to restore their order."""
    if kind != "vit_mae":
        return tokens
    places = found.ids_restore[:, :, None].expand(-1, -1, tokens.shape[2])
    return torch.cat([tokens[:, :1], tokens[:, 1:].gather(1, places)], dim=1)


def as_maps(kind: str, tokens: Tensor, x: Tensor, stride: int) -> Tensor:
    """Maps (b, c, h, w) of tokens (b, n, c) or (b, h, w, c), extra tokens and padding left out."""
    if (kind == "sam_vision_model" and tokens.shape[1] == 16) or kind.startswith(("convnext", "resnet")):
        return tokens[:, :, : x.shape[2] // stride, : x.shape[3] // stride]  # after its convolutions
    rows, columns = (FIXED.get(kind, side) // stride for side in x.shape[2:])
    if tokens.ndim == 3:
        extra = TOKENS.get(kind, 1)
        assert tokens.shape[1] == extra + rows * columns
        tokens = tokens[:, extra:].unflatten(1, (rows, columns))
    return tokens.permute(0, 3, 1, 2)[:, :, : x.shape[2] // stride, : x.shape[3] // stride]


def test_every_type_is_tested():
    assert CONFIGS.keys() == TYPES.keys()


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("cells", [(1, 1), (2, 2), (1, 2), (3, 2)])
def test_the_last_layer_is_that_of_transformers(models, kind, cells):
    model, folder = models[kind]
    backbone = build(folder)
    assert backbone.stride == STRIDES[kind]
    x = images(*(count * backbone.stride for count in cells))
    found = backbone(x)
    assert found.maps.shape == (2, backbone.dim, *cells)
    assert_near(found.maps, last_layer(kind, model, x))


@pytest.mark.parametrize("kind", CONFIGS)
def test_odd_sizes_are_padded_to_whole_patches_with_the_last_pixels(models, kind):
    model, folder = models[kind]
    extractor, stride = Extractor(build(folder)).eval(), STRIDES[kind]
    x = images(2 * stride - 3, stride + 1)
    padded = F.pad(x, (0, stride - 1, 0, 3), mode="replicate")
    with torch.no_grad():
        assert_near(extractor.raw(x), last_layer(kind, model, padded))


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_batch_gives_what_single_images_give(models, kind):
    backbone = build(models[kind][1])
    x = images(STRIDES[kind], 2 * STRIDES[kind])
    both = backbone(x)
    for number in range(2):
        alone = backbone(x[number : number + 1])
        assert_near(alone.maps, both.maps[number : number + 1])
        assert (alone.token is None) == (backbone.token_dim == 0)
        if alone.token is not None:
            assert_near(alone.token, both.token[number : number + 1])


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_size_of_earlier_images_does_not_matter(models, kind):
    backbone, stride = build(models[kind][1]), STRIDES[kind]
    x = images(2 * stride, 3 * stride)
    expected = backbone(x).maps
    backbone(images(stride, stride))
    torch.testing.assert_close(backbone(x).maps, expected, atol=0, rtol=0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_whole_network_moves_to_another_device(models, kind):
    """The device without values stands for any other: a tensor that stays behind fails in the forward pass."""
    backbone, stride = build(models[kind][1]).to("meta"), STRIDES[kind]
    assert {tensor.device.type for tensor in backbone._network[0].state_dict().values()} == {"meta"}
    maps = backbone(torch.zeros(2, 3, stride, 2 * stride, device="meta")).maps
    assert (maps.device.type, maps.shape) == ("meta", (2, backbone.dim, 1, 2))


@pytest.mark.parametrize("kind", BLOCKS)
def test_activation_checkpointing_changes_no_gradient(models, kind):
    """Blocks are called by transformers, so it must respect the replaced forward method."""
    gradients = []
    for checkpointed in (False, True):
        backbone = build(models[kind][1])
        if checkpointed:
            assert checkpoint_blocks(backbone) == len(backbone.blocks)
        backbone.train()(images(STRIDES[kind], 2 * STRIDES[kind])).maps.square().sum().backward()
        gradients.append({name: p.grad for name, p in backbone.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("way", ["autocast", "converted"])
def test_bfloat16_is_near_single_precision(models, kind, way):
    backbone = build(models[kind][1])
    x = images(2 * STRIDES[kind], STRIDES[kind])
    with torch.no_grad():
        expected = backbone(x).maps
        if way == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                found = backbone(x).maps
        else:
            found = backbone.bfloat16()(x.bfloat16()).maps
    assert F.cosine_similarity(found.float(), expected, dim=1).min() > 0.99


@pytest.mark.parametrize("kind", CONFIGS)
def test_all_weights_are_trained_and_training_mode_changes_nothing(models, kind):
    backbone = build(models[kind][1])
    set_trained(backbone, "all")
    x = images(STRIDES[kind], 2 * STRIDES[kind])
    evaluated = backbone(x)
    if kind != "resnet":  # its batch norms are those of the batch in training mode
        torch.testing.assert_close(backbone.train()(x).maps, evaluated.maps, atol=0, rtol=0)
    (evaluated.maps * torch.randn_like(evaluated.maps)).sum().backward()
    without = {name for name, parameter in backbone.named_parameters() if parameter.grad is None}
    assert without == NO_GRADIENT.get(kind, set())
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("kind", CONFIGS)
def test_low_rank_adapters_are_added_to_the_last_blocks(models, kind):
    backbone = build(models[kind][1])
    x = images(STRIDES[kind], 2 * STRIDES[kind])
    if kind not in BLOCKS:
        for train in ({"lora": {"rank": 2, "last": 1}}, {"last": 1}):
            with pytest.raises(ConfigError, match="this backbone has 0 transformer blocks"):
                set_trained(backbone, train)
        return
    expected, last = backbone(x).maps.detach(), len(backbone.blocks) - 1
    linear = [m for m in backbone.blocks[-1].modules() if isinstance(m, torch.nn.Linear)]
    set_trained(backbone, {"lora": {"rank": 2, "last": 1}})
    assert_near(backbone(x).maps, expected)
    trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * len(linear) >= 8
    assert all(name.startswith(f"blocks.{last}.") and ".lora_" in name for name in trained)
    backbone(x).maps.square().sum().backward()
    assert all(p.grad.norm() > 0 for name, p in trained.items() if ".lora_B." in name)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.1)
    assert not torch.allclose(backbone(x).maps, expected, atol=1e-3)


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_last_block_alone_can_be_trained(models, kind):
    backbone = build(models[kind][1])
    set_trained(backbone, {"last": 1})
    last = len(backbone.blocks) - 1
    trained = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert f"blocks.{last}" in {".".join(name.split(".")[:2]) for name in trained}
    assert all(name.startswith((f"blocks.{last}.", "norm.")) for name in trained)


@pytest.mark.parametrize("kind", TRANSFORMERS)
@pytest.mark.parametrize("layer", [1, 2])
def test_layer_k_of_a_transformer_is_hidden_state_k(models, kind, layer):
    model, folder = models[kind]
    backbone, stride = build(folder, layer=layer), STRIDES[kind]
    x = images(2 * stride, 3 * stride)
    found = run(kind, model, x, output_hidden_states=True)
    expected = as_maps(kind, in_order(kind, found.hidden_states[layer], found), x, stride)
    assert_near(backbone(x).maps, expected)
    assert len(backbone.blocks) == layer


@pytest.mark.parametrize("kind", [kind for kind in HIERARCHIES if kind != "resnet"])
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_layer_k_of_a_hierarchy_is_stage_k(models, kind, layer):
    model, folder = models[kind]
    if kind == "hiera":
        with pytest.raises(ConfigError, match=f"supports only its last layer, 4; found layer {layer}"):
            build(folder, layer=layer)
        return
    backbone, x = build(folder, layer=layer), images(64, 96)
    if kind == "swinv2":
        with torch.no_grad():
            tokens, size = model.embeddings((x - MEAN) / STD, interpolate_pos_encoding=True)
            options = {"output_hidden_states": True, "output_hidden_states_before_downsampling": True}
            expected = model.encoder(tokens, size, **options).reshaped_hidden_states[layer]
    else:
        number = {"sam2_hiera_det_model": [1, 2, 4]}.get(kind, [1, 2, 3])[layer - 1]
        expected = run(kind, model, x, output_hidden_states=True).hidden_states[number]
        expected = expected.permute(0, 3, 1, 2) if kind == "sam2_hiera_det_model" else expected
    assert backbone.stride == 2 ** (layer + 1)
    assert backbone.dim == expected.shape[1]
    assert_near(backbone(x).maps, expected)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("facet", ["query", "key", "value"])
def test_facets_are_the_projections_of_the_last_attention(models, kind, facet):
    model, folder = models[kind]
    if kind not in FACETS:
        with pytest.raises(ConfigError, match=r"`facet`: this model has no facets .* found the model type"):
            build(folder, facet=facet)
        return
    seen: list[Tensor] = []
    names = [name for name, _ in model.named_modules() if name.endswith(f"2.attention.{facet[0]}_proj")]
    names += [name for name, _ in model.named_modules() if name.endswith(f"2.self_attn.{facet[0]}_proj")]
    (name,) = names
    hook = model.get_submodule(name).register_forward_hook(lambda module, inputs, output: seen.append(output))
    stride = STRIDES[kind]
    x = images(2 * stride, 3 * stride)
    found = run(kind, model, x)
    hook.remove()
    expected = as_maps(kind, in_order(kind, seen[0], found), x, stride)
    backbone = build(folder, facet=facet)
    assert backbone.dim == expected.shape[1]
    assert_near(backbone(x).maps, expected)


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_the_class_token_is_that_of_transformers(models, kind):
    model, folder = models[kind]
    backbone, x = build(folder), images(32, 32) if kind not in FIXED else images(STRIDES[kind], STRIDES[kind])
    token = backbone(x).token
    if TOKENS.get(kind, 1) == 0:
        assert token is None
        with pytest.raises(ConfigError, match="`concat_class_token`: this model has no class token"):
            build(folder, concat_class_token=True)
        return
    found = run(kind, model, x)
    expected = found.pooler_output if kind == "pixio" else found.last_hidden_state[:, 0]
    assert_near(token, expected)
    assert backbone.token_dim == token.shape[1]


@pytest.mark.parametrize("kind", FIXED)
def test_images_above_a_fixed_size_are_refused(models, kind):
    backbone = build(models[kind][1])
    with pytest.raises(DataError, match="larger than the input of the network, which has a fixed size"):
        backbone(images(FIXED[kind] + backbone.stride, backbone.stride))


@pytest.mark.parametrize("kind", CONFIGS)
def test_all_weights_are_registered_and_follow_a_copy(models, kind):
    """The network shares its modules with the backbone: a copy must share its own, and a conversion reach them all."""
    original = build(models[kind][1])
    backbone = copy.deepcopy(original)
    x = images(STRIDES[kind], STRIDES[kind])
    torch.testing.assert_close(backbone(x).maps, original(x).maps, atol=0, rtol=0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()
    assert backbone(x).maps.abs().max() < 1e-6
    assert original(x).maps.abs().max() > 1e-2
    network = backbone.double()._network[0]
    assert {id(p) for p in network.parameters()} == {id(p) for p in backbone.parameters()}
    assert {p.dtype for p in [*network.parameters(), *network.buffers()] if p.is_floating_point()} == {torch.float64}


@pytest.mark.parametrize(
    ("kind", "renamed"),
    [
        ("vit", {"layers.": "blocks.", "layernorm.": "norm."}),
        ("dinov2", {"encoder.layer.": "blocks.", "layernorm.": "norm."}),
        ("dinov2_with_registers", {"encoder.layer.": "blocks.", "layernorm.": "norm."}),
        ("dinov3_vit", {"model.layer.": "blocks.", "norm.": "norm."}),
        ("resnet", {"encoder.stages.": "stages.", "embedder.": "embedder."}),
    ],
)
def test_names_of_weights_are_those_of_stored_models(models, kind, renamed):
    """Model files contain these names, and their digest of a backbone depends on them."""
    model, folder = models[kind]
    expected = set()
    for name in model.state_dict():
        start = next((start for start in renamed if name.startswith(start)), None)
        if start or (name.startswith("embeddings.") and not name.endswith("mask_token")):
            expected.add(renamed[start] + name.removeprefix(start) if start else name)
    assert set(build(folder).state_dict()) == expected


@pytest.mark.parametrize("kind", PARTS)
def test_the_image_encoder_of_a_larger_model_is_found(models, tmp_path, kind):
    part = PARTS[kind]
    model, folder = models[part.kind]
    settings = json.loads((folder / "config.json").read_text())
    for name in reversed(part.path):
        settings = {name: settings}
    (tmp_path / "config.json").write_text(json.dumps({**settings, "model_type": kind}))
    weights = load_file(folder / "model.safetensors")
    more = {"text_model.layers.0.weight": torch.zeros(2), "logit_scale": torch.zeros(1)}
    renamed = {f"{PREFIXES[kind]}{name}": value for name, value in weights.items()}
    save_file({**renamed, **more}, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(COLOURS))
    x = images(STRIDES[part.kind], STRIDES[part.kind])
    assert_near(build(tmp_path)(x).maps, last_layer(part.kind, model, x))


def test_clip_saved_whole_by_transformers(tmp_path):
    text = {**VIT, "vocab_size": 60, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    model = transformers.CLIPModel(
        transformers.CLIPConfig(vision_config=SMALL, text_config=text, projection_dim=8)
    ).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(COLOURS))
    x = images(16, 24)
    with torch.no_grad():
        expected = model.vision_model((x - MEAN) / STD, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
    assert_near(build(tmp_path)(x).maps.flatten(2).mT, expected)


def test_another_image_encoder_within_a_model_is_refused(models, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip", "vision_config": {"model_type": "hiera"}}')
    with pytest.raises(ConfigError, match=r"must have the type 'clip_vision_model', found 'hiera'"):
        build(tmp_path, pretrained=False)
    (tmp_path / "config.json").write_text('{"model_type": "sam2", "vision_config": {"backbone_config": 3}}')
    with pytest.raises(DataError, match="`backbone_config` must be an object"):
        build(tmp_path, pretrained=False)


SWIN_CONFIG = {"embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 4, "image_size": 64}


@pytest.fixture(scope="module")
def swin(tmp_path_factory):
    """A network of AutoBackbone that has no row, and its folder."""
    folder = tmp_path_factory.mktemp("swin")
    torch.manual_seed(0)
    model = transformers.SwinBackbone(transformers.SwinConfig(**SWIN_CONFIG, out_features=["stage1", "stage4"])).eval()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(COLOURS))
    return model, folder


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (32, 32)])
def test_other_types_are_run_by_autobackbone(swin, size):
    model, folder = swin
    x = images(*size)
    with torch.no_grad():
        stages = model((x - MEAN) / STD).feature_maps
    for options, expected, stride in (({"layer": 1}, stages[0], 4), ({}, stages[1], 32)):
        backbone = build(folder, **options)
        assert (backbone.stride, backbone.dim) == (stride, expected.shape[1])
        assert_near(backbone(x).maps, expected)


def test_norms_of_stages_that_a_checkpoint_lacks_have_no_scale(swin, tmp_path):
    """As transformers initialises them: checkpoints of classifiers do not contain them."""
    model = copy.deepcopy(swin[0])
    for norm in model.hidden_states_norms.values():
        torch.nn.init.ones_(norm.weight)
        torch.nn.init.zeros_(norm.bias)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(COLOURS))
    file = tmp_path / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "hidden_states_norms" not in k}, file, {"format": "pt"})
    x = images(64, 64)
    with torch.no_grad():
        assert_near(build(tmp_path)(x).maps, model((x - MEAN) / STD).feature_maps[1])


def test_other_types_are_frozen_and_have_no_options(swin):
    backbone = build(swin[1])
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    for train in ("all", {"last": 1}, {"lora": {"rank": 2, "last": 1}}):
        with pytest.raises(ConfigError, match="this backbone cannot be trained"):
            set_trained(backbone, train)
    for options in ({"facet": "key"}, {"norm": True}, {"interpolate_offset": 0.1}, {"concat_class_token": True}):
        with pytest.raises(ConfigError, match=r"found the model type 'swin'; remove"):
            build(swin[1], **options)
    with pytest.raises(ConfigError, match="no layer 5: its layers are 1 to 4"):
        build(swin[1], layer=5)


def test_the_table_of_the_documents_is_that_of_the_code():
    text = (Path(__file__).parents[3] / "docs/models.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.replace("`", "").strip("|").split("|")] for line in text.splitlines()]
    found = [row[:7] for row in rows if row[0] in TYPES]
    assert found == [[cell.replace("`", "") for cell in row] for row in supported()]
    assert all(kind in text for kind in backbone_types())
