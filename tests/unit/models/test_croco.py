"""CroCo's encoder, compared with a plain implementation of the network in double precision."""

import argparse
import math
import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from loco.errors import ConfigError, DataError
from loco.models.backbones import build_backbone

DIM, HEADS, DEPTH, PATCH, HIDDEN = 16, 2, 3, 8, 20
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def published(positions: str, side: int = 4) -> dict:
    """Write a tiny file in the published form, including the decoder; every weight has an effect."""
    draw = torch.Generator().manual_seed(2)

    def random(*shape):
        return 0.3 * torch.randn(*shape, generator=draw)

    weights = {"patch_embed.proj.weight": random(DIM, 3, PATCH, PATCH), "patch_embed.proj.bias": random(DIM)}
    for block in [f"enc_blocks.{k}" for k in range(DEPTH)] + ["dec_blocks.0"]:
        shapes = {
            "attn.qkv": (3 * DIM, DIM),
            "attn.proj": (DIM, DIM),
            "mlp.fc1": (HIDDEN, DIM),
            "mlp.fc2": (DIM, HIDDEN),
        }
        for part, shape in shapes.items():
            weights |= {f"{block}.{part}.weight": random(*shape), f"{block}.{part}.bias": random(shape[0])}
        for part in ("norm1", "norm2"):
            weights |= {f"{block}.{part}.weight": 1 + random(DIM), f"{block}.{part}.bias": random(DIM)}
    weights |= {"enc_norm.weight": 1 + random(DIM), "enc_norm.bias": random(DIM), "mask_token": random(1, 1, 8)}
    weights |= {"decoder_embed.weight": random(8, DIM), "prediction_head.bias": random(192)}
    if positions == "cosine":
        weights["enc_pos_embed"] = torch.from_numpy(sines(side, side)).float()
        weights["dec_pos_embed"] = random(side * side, 8)
    kwargs = {"enc_embed_dim": DIM, "enc_depth": DEPTH, "enc_num_heads": HEADS, "pos_embed": positions, "img_size": 32}
    return {"croco_kwargs": kwargs, "model": weights}


def sines(height: int, width: int) -> np.ndarray:
    """Return embeddings (height * width, DIM): sines, then cosines of the column, then of the row, as in MAE."""
    cells = []
    for r in range(height):
        for q in range(width):
            angles = [[place / 10000 ** (i / (DIM // 4)) for i in range(DIM // 4)] for place in (q, r)]
            cells.append([f(a) for axis in angles for f in (math.sin, math.cos) for a in axis])
    return np.array(cells)


def plain(content: dict, image: np.ndarray, layer: int, norm: bool, base: float | None) -> np.ndarray:
    """Return tokens (cells, DIM) of one image (3, H, W), without PyTorch; positions rotate complex numbers."""
    w = {key: value.double().numpy() for key, value in content["model"].items()}

    def normalised(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def turned(x, places):
        """Compute one head (cells, DIM / HEADS): rows rotate its first half, columns its second half."""
        parts = []
        for half, place in zip(np.split(x, 2, axis=1), places.T):
            quarter = half.shape[1] // 2
            z = half[:, :quarter] + 1j * half[:, quarter:]
            z = z * np.exp(1j * place[:, None] / base ** (np.arange(quarter) / quarter))
            parts += [z.real, z.imag]
        return np.concatenate(parts, axis=1)

    image = (image - MEAN[:, None, None]) / STD[:, None, None]
    height, width = image.shape[1] // PATCH, image.shape[2] // PATCH
    places = np.array([(r, q) for r in range(height) for q in range(width)])
    patches = [image[:, r * PATCH : (r + 1) * PATCH, q * PATCH : (q + 1) * PATCH] for r, q in places]
    x = np.stack([(w["patch_embed.proj.weight"] * p).sum((1, 2, 3)) + w["patch_embed.proj.bias"] for p in patches])
    if base is None:
        x = x + sines(height, width)
    for k in range(layer):
        block = f"enc_blocks.{k}"
        query, key, value = np.split(linear(normalised(x, f"{block}.norm1"), f"{block}.attn.qkv"), 3, axis=1)
        out = []
        for head in range(HEADS):
            part = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
            q, k_, v = query[:, part], key[:, part], value[:, part]
            if base is not None:
                q, k_ = turned(q, places), turned(k_, places)
            scores = np.exp(q @ k_.T / math.sqrt(DIM // HEADS))
            out.append(scores / scores.sum(1, keepdims=True) @ v)
        x = x + linear(np.concatenate(out, axis=1), f"{block}.attn.proj")
        inner = linear(normalised(x, f"{block}.norm2"), f"{block}.mlp.fc1")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = x + linear(inner, f"{block}.mlp.fc2")
    return normalised(x, "enc_norm") if norm else x


def build(path, **options):
    return build_backbone({"name": "croco", "path": str(path), **options})


def images(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height * PATCH, width * PATCH, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def file(tmp_path):
    torch.save(published("RoPE100"), tmp_path / "croco.pth")
    return tmp_path / "croco.pth"


@pytest.mark.parametrize(
    ("positions", "base", "grid"),
    [("RoPE100", 100.0, (4, 4)), ("RoPE100", 100.0, (3, 7)), ("RoPE10", 10.0, (5, 2)), ("cosine", None, (4, 4))],
)
@pytest.mark.parametrize(("layer", "norm"), [(None, None), (1, None), (2, True), (3, False)])
def test_tokens_are_those_of_the_plain_network(tmp_path, positions, base, grid, layer, norm):
    content = published(positions)
    torch.save(content, tmp_path / "croco.pth")
    backbone = build(tmp_path / "croco.pth", layer=layer, norm=norm)
    assert (backbone.dim, backbone.stride, len(backbone.blocks)) == (DIM, PATCH, layer or DEPTH)
    x = images(*grid)
    found = backbone(x).maps
    assert found.shape == (2, DIM, *grid)
    use_norm = layer is None if norm is None else norm
    for image, features in zip(x, found):
        expected = plain(content, image.double().numpy(), layer or DEPTH, use_norm, base)
        np.testing.assert_allclose(features.flatten(1).T.detach().numpy(), expected, atol=3e-5, rtol=1e-4)


def test_sines_are_interpolated_at_other_sizes(tmp_path):
    """A file with bicubically resized sines for the grid 3 x 7 would give the same features."""
    content = published("cosine")
    torch.save(content, tmp_path / "croco.pth")
    backbone = build(tmp_path / "croco.pth", layer=1)
    grid = torch.from_numpy(sines(4, 4)).float().T.reshape(1, DIM, 4, 4)
    resized = F.interpolate(grid, (3, 7), mode="bicubic", align_corners=False)[0].flatten(1).T
    assert not torch.allclose(resized, torch.from_numpy(sines(3, 7)).float(), atol=0.1)
    x = images(3, 7)
    tokens = backbone.patches((x - backbone.mean) / backbone.std).flatten(2).transpose(1, 2) + resized
    expected = backbone.blocks[0](tokens, None).transpose(1, 2)
    torch.testing.assert_close(backbone(x).maps.flatten(2), expected, atol=1e-5, rtol=1e-5)


def test_rotation_tells_only_where_patches_are_to_each_other(file):
    """In an image of equal patches except two, their features depend on the offset between them only."""
    backbone = build(file, layer=1)
    patch = torch.rand(3, PATCH, PATCH, generator=torch.Generator().manual_seed(3))

    def distinct(*places):
        x = torch.full((1, 3, 6 * PATCH, 6 * PATCH), 0.5)
        for r, q in places:
            x[0, :, r * PATCH : (r + 1) * PATCH, q * PATCH : (q + 1) * PATCH] = patch
        return backbone(x).maps[0]

    here, there = distinct((1, 1))[:, 1, 1], distinct((4, 3))[:, 4, 3]
    near, far = distinct((1, 1), (1, 2))[:, 1, 1], distinct((1, 1), (5, 5))[:, 1, 1]
    assert (near - far).abs().max() > 1e-3
    # Not exact: the other patches have other offsets from the two positions.
    assert (here - there).abs().max() < (near - far).abs().max()


def test_only_what_is_used_is_stored_and_trained(file):
    backbone = build(file, layer=2)
    block = 3 * DIM * DIM + 3 * DIM + DIM * DIM + DIM + 2 * DIM * HIDDEN + HIDDEN + DIM + 4 * DIM
    assert sum(p.numel() for p in backbone.parameters()) == DIM * 3 * PATCH**2 + DIM + 2 * block
    backbone.train()(images(3, 3)).maps.square().sum().backward()
    assert all(p.grad is not None and p.requires_grad for p in backbone.parameters())
    parts = {id(p) for module in (*backbone.embedding, *backbone.blocks) for p in module.parameters()}
    assert parts == {id(p) for p in backbone.parameters()}


def test_half_precision_becomes_single(tmp_path):
    content = published("RoPE100")
    content["model"] = {key: value.half() for key, value in content["model"].items()}
    torch.save(content, tmp_path / "croco.pth")
    assert {p.dtype for p in build(tmp_path / "croco.pth").parameters()} == {torch.float32}


def test_settings_of_a_run_are_allowed(tmp_path):
    torch.save(published("RoPE100") | {"args": argparse.Namespace(lr=1e-4)}, tmp_path / "croco.pth")
    assert build(tmp_path / "croco.pth").dim == DIM


# Mistakes of users.


@pytest.mark.parametrize("layer", [0, 4])
def test_wrong_layer(file, layer):
    with pytest.raises(ConfigError, match=f"no layer {layer}: its layers are 1 to 3"):
        build(file, layer=layer)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


def test_a_pickle_that_would_run_code(tmp_path):
    torch.save({"croco_kwargs": Bomb(), "model": {}}, tmp_path / "bomb.pth")
    with pytest.raises(DataError, match=r"could execute code(.|\n)*found: .*_Fail") as caught:
        build(tmp_path / "bomb.pth")
    assert "weights_only" not in str(caught.value)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError):
        build(tmp_path / "plain.pth")


def test_missing_and_truncated_files(file):
    with pytest.raises(DataError, match="does not exist"):
        build(file.with_name("other.pth"))
    whole = file.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 10):
        file.write_bytes(whole[:size])
        with pytest.raises(DataError, match="cannot be read"):
            build(file)


def broken(**changes):
    content = published("RoPE100")
    return {**content, "model": {**content["model"], **changes}}


@pytest.mark.parametrize(
    "content",
    [
        published("RoPE100")["model"],
        [1, 2],
        {"croco_kwargs": {}, "model": {}},
        {**published("RoPE100"), "croco_kwargs": {"pos_embed": "learnt", "enc_num_heads": 2}},
        {**published("RoPE100"), "croco_kwargs": {"pos_embed": "RoPE100", "enc_num_heads": 3}},
        {**published("RoPE100"), "croco_kwargs": {"pos_embed": "RoPE100", "enc_num_heads": 0}},
        {**published("RoPE100"), "croco_kwargs": {"pos_embed": "cosine", "enc_num_heads": 2}},
        broken(**{"enc_blocks.1.attn.qkv.weight": torch.zeros(3, 3)}),
        broken(**{"enc_blocks.1.attn.qkv.weight": "text"}),
        broken(**{"enc_blocks.0.mlp.fc1.weight": torch.zeros(1, 1)}),
    ],
)
def test_files_of_other_networks(tmp_path, content):
    torch.save(content, tmp_path / "croco.pth")
    with pytest.raises(DataError, match=r"does not contain an encoder of CroCo|the unsupported weight"):
        build(tmp_path / "croco.pth")
