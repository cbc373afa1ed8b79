import math
import subprocess
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch.nn import functional as F

from loco.errors import ConfigError, DataError
from loco.models import load, save_extractor
from loco.models.backbones import build_backbone
from loco.models.croco import load_croco
from loco.models.published import load_published, read_weights

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
WIDTHS = (3, 4, 4, 6, 6, 16)
SIDE = {"vit": 48, "dinov2": 42}  # images whose grid is that of the pretraining
PATCH = {"vit": 8, "dinov2": 14}
NAMES = [  # parts of a block: the name in transformers, and the published name
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("norm1", "norm1"),
    ("norm2", "norm2"),
    ("attention.o_proj", "attn.proj"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
]


@pytest.fixture(scope="session")
def tiny(tiny):
    return {kind: {key: config[key] for key in ("name", "path")} for kind, config in tiny.items()}


def images(side):
    return np.random.default_rng(0).integers(0, 255, (2, side, side, 3), np.uint8)


def published_transformer(backbone, blocks):
    """Return the weights of the tiny backbone under the names of DINO's code."""
    own = build_backbone(backbone).state_dict()
    weights = {
        "cls_token": own["embeddings.cls_token"],
        "pos_embed": own["embeddings.position_embeddings"],
        "mask_token": torch.zeros(1, 16),
        "norm.weight": torch.randn(16),
        "norm.bias": torch.randn(16),
    }
    for kind in ("weight", "bias"):
        weights[f"patch_embed.proj.{kind}"] = own[f"embeddings.patch_embeddings.projection.{kind}"]
        for n in range(blocks):
            for ours, theirs in NAMES:
                if f"blocks.{n}.{ours}.{kind}" in own:
                    weights[f"blocks.{n}.{theirs}.{kind}"] = own[f"blocks.{n}.{ours}.{kind}"]
            qkv = [own[f"blocks.{n}.attention.{part}_proj.{kind}"] for part in "qkv"]
            weights[f"blocks.{n}.attn.qkv.{kind}"] = torch.cat(qkv)
    for n in range(blocks):
        for scale in "12":
            if f"blocks.{n}.layer_scale{scale}.lambda1" in own:
                weights[f"blocks.{n}.ls{scale}.gamma"] = own[f"blocks.{n}.layer_scale{scale}.lambda1"]
    return weights


def published_cnn():
    """LoCo's residual network, whose modules are in one list, and so are numbered consecutively."""
    torch.manual_seed(0)
    weights, number, before = {}, 0, 3
    for layer, after in enumerate(WIDTHS):
        weights[f"{number}.weight"] = torch.randn(after, before, 5, 5) / math.sqrt(25 * before)
        weights[f"{number}.bias"] = torch.randn(after)
        weights |= {f"{number + 1}.weight": torch.rand(after) + 0.5, f"{number + 1}.bias": torch.randn(after)}
        weights |= {
            f"{number + 1}.running_mean": torch.randn(after),
            f"{number + 1}.running_var": torch.rand(after) + 1,
        }
        weights[f"{number + 1}.num_batches_tracked"] = torch.tensor(7)
        if layer < 3:
            taps = torch.tensor([1.0, 3, 3, 1])
            weights[f"{number + 3}.filt"] = (torch.outer(taps, taps) / 64).expand(after, 1, 4, 4).clone()
        number, before = number + (4 if layer < 3 else 3), after
    return weights


def published_head(width=8, dim=5):
    torch.manual_seed(0)
    sizes = {"0": (width, 16), "3": (dim, width)}
    for block in "12":
        sizes |= {f"{block}.attn.qkv": (3 * width, width), f"{block}.attn.proj": (width, width)}
        sizes |= {f"{block}.mlp.fc1": (4 * width, width), f"{block}.mlp.fc2": (width, 4 * width)}
    weights = {}
    for name, size in sizes.items():
        weights |= {f"{name}.weight": torch.randn(size) / 2, f"{name}.bias": torch.randn(size[0])}
    for name in ("1.norm1", "1.norm2", "2.norm1", "2.norm2"):
        weights |= {f"{name}.weight": torch.rand(width) + 0.5, f"{name}.bias": torch.randn(width)}
    return weights


def transformer_by_hand(w, x, patch, blocks, heads=2, scale=None):
    """Return tokens (b, 1 + n, c) after some blocks, from published weights only."""
    x = F.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=patch).flatten(2).mT
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], dim=1) + w["pos_embed"]
    for n in range(blocks):
        x = block_by_hand({k.removeprefix(f"blocks.{n}."): v for k, v in w.items()}, x, heads, scale, 1e-6)
    return x


def block_by_hand(w, x, heads, scale, eps):
    def linear(name, y):
        return y @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, y):
        return F.layer_norm(y, y.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    q, k, v = linear("attn.qkv", norm("norm1", x)).chunk(3, dim=-1)
    mixed = []
    for q1, k1, v1 in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1)):
        mixed.append(((scale or q1.shape[-1] ** -0.5) * q1 @ k1.mT).softmax(-1) @ v1)
    x = x + w.get("ls1.gamma", 1) * linear("attn.proj", torch.cat(mixed, -1))
    return x + w.get("ls2.gamma", 1) * linear("mlp.fc2", F.gelu(linear("mlp.fc1", norm("norm2", x))))


def cnn_by_hand(w, x, rows, columns, patch):
    number = 0
    for layer in range(len(WIDTHS)):
        dilation = 1 if layer < 3 else 2
        x = F.pad(x, [2 * dilation] * 4, mode="reflect")
        x = F.conv2d(x, w[f"{number}.weight"], w[f"{number}.bias"], dilation=dilation)
        norm = [w[f"{number + 1}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        x = F.batch_norm(x, *norm)
        if layer < len(WIDTHS) - 1:
            x = x.relu()
        if layer < 3:
            x = F.conv2d(F.pad(x, (1, 2, 1, 2), mode="reflect"), w[f"{number + 3}.filt"], stride=2, groups=x.shape[1])
        number += 4 if layer < 3 else 3
    out = torch.empty(len(x), x.shape[1], rows, columns)
    for r in range(rows):
        # Cell i was taken to be centred at pixel 8 i, where the centre of the first pixel is 0.
        for q in range(columns):
            v, u = (((i + 0.5) * patch - 0.5) / 8 for i in (r, q))
            v, u = min(v, x.shape[2] - 1), min(u, x.shape[3] - 1)
            top, left = int(v), int(u)
            below, right = min(top + 1, x.shape[2] - 1), min(left + 1, x.shape[3] - 1)
            out[:, :, r, q] = (1 - v + top) * ((1 - u + left) * x[:, :, top, left] + (u - left) * x[:, :, top, right])
            out[:, :, r, q] += (v - top) * ((1 - u + left) * x[:, :, below, left] + (u - left) * x[:, :, below, right])
    return out


def loco_weights(tiny, kind):
    weights = {f"layers.{key}": value for key, value in published_cnn().items()}
    return weights | {f"pretrained_model.{k}": v for k, v in published_transformer(tiny[kind], 3).items()}


def locus_weights(tiny, blocks=2):
    weights = {f"trainable_head.{key}": value for key, value in published_head().items()}
    return weights | {f"dino_model.{k}": v for k, v in published_transformer(tiny["vit"], blocks).items()}


def locus_by_hand(weights, batch, blocks=2):
    transformer = {k.removeprefix("dino_model."): v for k, v in weights.items()}
    head = {k.removeprefix("trainable_head."): v for k, v in weights.items()}
    x = transformer_by_hand(transformer, batch, 8, blocks)
    x = x @ head["0.weight"].T + head["0.bias"]
    for n in "12":
        x = block_by_hand({k.removeprefix(f"{n}."): v for k, v in head.items()}, x, 4, 0.125, 1e-5)
    return (x @ head["3.weight"].T + head["3.bias"])[:, 1:].mT.unflatten(2, (6, 6))


def normalised(side):
    return (torch.from_numpy(images(side)).permute(0, 3, 1, 2) / 255 - MEAN) / STD


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"state_dict": {f"model.{k}": v for k, v in w.items()}, "epoch": 3, "loops": {}},
        lambda w: {"state_dict": {f"model.module.{k}": v for k, v in w.items()}},
        lambda w: {"model_state_dict": w},
        lambda w: {"model": w},
        lambda w: w,
    ],
)
def test_loco_gives_what_the_published_code_computes(tiny, tmp_path, kind, wrap):
    weights, side, patch = loco_weights(tiny, kind), SIDE[kind], PATCH[kind]
    torch.save(wrap(weights), tmp_path / "loco.ckpt")
    extractor = load_published("loco", tmp_path / "loco.ckpt", tiny[kind])
    cells = side // patch
    tokens = transformer_by_hand(
        {k.removeprefix("pretrained_model."): v for k, v in weights.items()}, normalised(side), patch, 3
    )
    residual = cnn_by_hand(published_cnn(), normalised(side), cells, cells, patch)
    wanted = tokens[:, 1:].mT.unflatten(2, (cells, cells)) + residual
    found = extractor.raw(torch.from_numpy(images(side)).permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert residual.std() > 0.1


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_bare_weights_of_the_residual_network_go_on_the_given_backbone(tiny, tmp_path, kind):
    torch.save(published_cnn(), tmp_path / "bare.pth")
    torch.save(loco_weights(tiny, kind), tmp_path / "whole.pth")
    bare, whole = (load_published("loco", tmp_path / name, tiny[kind]) for name in ("bare.pth", "whole.pth"))
    assert torch.equal(bare.extract(images(56)), whole.extract(images(56)))


def test_locus_gives_what_the_published_code_computes(tiny, tmp_path):
    weights = locus_weights(tiny)
    torch.save({"model": weights}, tmp_path / "locus.pth")
    extractor = load_published("locus", tmp_path / "locus.pth", tiny["vit"])
    wanted = F.normalize(locus_by_hand(weights, normalised(48)), dim=1)
    torch.testing.assert_close(extractor.extract(images(48)), wanted, atol=1e-4, rtol=1e-4)
    assert extractor.trainable_parameters == sum(p.numel() for p in extractor.head.parameters())


@pytest.mark.parametrize("first", [0, 1])
def test_blocks_that_locus_tuned_come_from_the_file_and_are_kept(tiny, tmp_path, first):
    weights = locus_weights(tiny)
    weights[f"dino_model.blocks.{first}.mlp.fc1.weight"] += 0.1 * torch.randn(32, 16)
    torch.save({"model": weights}, tmp_path / "locus.pth")
    extractor = load_published("locus", tmp_path / "locus.pth", tiny["vit"])
    wanted = F.normalize(locus_by_hand(weights, normalised(48)), dim=1)
    torch.testing.assert_close(extractor.extract(images(48)), wanted, atol=1e-4, rtol=1e-4)
    assert extractor.config["train"] == {"last": 2 - first}
    save_extractor(extractor, extractor.config, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert torch.equal(again.extract(images(48)), extractor.extract(images(48)))


def foreign(monkeypatch, name, **members):
    """A class as another program defines it; its module is removed when the patch is undone."""
    module, _, short = name.rpartition(".")
    made = type(short, (), {"__module__": module, **members})
    for number in range(1, name.count(".") + 1):
        package = ".".join(name.split(".")[:number])
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    setattr(sys.modules[module], short, made)
    return made


def test_checkpoints_with_the_settings_of_their_training_are_read_without_its_code(tiny, tmp_path, monkeypatch):
    profiler = foreign(monkeypatch, "src.profiler.PassThroughProfiler")()
    settings = foreign(monkeypatch, "omegaconf.base.Container", __init__=lambda self, *_: None)
    settings.__reduce__ = lambda self: (settings, ({"lr": 1e-3}, [profiler]), {"_content": profiler})
    content = {
        "state_dict": {f"model.{k}": v for k, v in loco_weights(tiny, "vit").items()},
        "hyper_parameters": {"config": settings(), "kind": dict, "defaults": defaultdict(dict)},
        "profiler": profiler,
    }
    torch.save(content, tmp_path / "loco.ckpt")
    monkeypatch.undo()
    assert "omegaconf.base" not in sys.modules
    extractor = load_published("loco", tmp_path / "loco.ckpt", tiny["vit"])
    assert torch.equal(extractor.state_dict()["head.layers.0.weight"], published_cnn()["0.weight"])


def hydra_config(monkeypatch):
    """A configuration as omegaconf pickles it after `hydra.main` has resolved `${now:...}`: nodes with a state."""
    node = foreign(monkeypatch, "omegaconf.nodes.AnyNode")
    config = foreign(monkeypatch, "omegaconf.dictconfig.DictConfig")
    metadata = foreign(monkeypatch, "omegaconf.base.ContainerMetadata")
    root, leaf, facts = config(), node(), metadata()
    cache = defaultdict(dict, {"now": {"%Y-%m-%d": "2024-05-01", "%H": "12"}, "env": {"USER": "me"}})
    vars(facts).update(ref_type=Any, object_type=dict, key=None, flags={}, resolver_cache=cache, element_type=Any)
    vars(leaf).update(_metadata=facts, _parent=root, _val=0.2)
    vars(root).update(_metadata=facts, _parent=None, _content={"rho": leaf})
    return root


def subclass(monkeypatch, name, base, *arguments):
    made = foreign(monkeypatch, name)
    made = type(made.__name__, (base,), {"__module__": made.__module__})
    setattr(sys.modules[made.__module__], made.__name__, made)
    return made(*arguments)


BESIDE = {
    "hydra": hydra_config,
    "nested defaultdicts": lambda _: defaultdict(list, {"a": defaultdict(dict, {"b": {1: 2}}), "c": [3]}),
    "ordered": lambda _: OrderedDict(a=OrderedDict(b=1), c=Counter("aab")),
    "deque and sets": lambda _: [deque([1, 2], maxlen=3), {1, 2}, frozenset("ab"), b"bytes", 1j],
    "yacs": lambda m: subclass(m, "yacs.config.CfgNode", dict, {"MODEL": {"RHO": 0.2}}),
    "a mapping of Lightning": lambda m: subclass(m, "lightning.fabric.utilities.data.AttributeDict", dict, {"lr": 1.0}),
    "an ordered one of its own": lambda m: subclass(m, "src.utils.SettingsDict", OrderedDict, {"lr": 1.0}),
    "types": lambda _: {"optional": Optional[int], "key": dict[str, int], "date": date(2024, 5, 1)},  # noqa: UP045
    "paths as keys": lambda _: {Path("a/b"): 1},
    "numbers of NumPy": lambda _: {"best": np.float64(0.3), "type": np.dtype("f4")},
}


@pytest.mark.parametrize("beside", BESIDE)
def test_containers_beside_the_weights_are_read_without_their_code(tmp_path, monkeypatch, beside):
    weights = OrderedDict({"model.layers.0.weight": torch.ones(2, 2), "model.module.layers.1.bias": torch.zeros(3)})
    settings = {"config": BESIDE[beside](monkeypatch)}
    torch.save({"state_dict": weights, "hyper_parameters": settings, "epoch": 3}, tmp_path / "loco.ckpt")
    monkeypatch.undo()
    found = read_weights(tmp_path / "loco.ckpt")
    assert {name: value.tolist() for name, value in found.items()} == {
        "layers.0.weight": [[1, 1], [1, 1]],
        "layers.1.bias": [0, 0, 0],
    }
    assert not {"omegaconf", "yacs", "src"} & sys.modules.keys()


@pytest.mark.parametrize("prefix", ["model.", "model.module."])
def test_a_checkpoint_with_a_configuration_of_hydra_is_an_extractor(tiny, tmp_path, monkeypatch, prefix):
    weights = {prefix + key: value for key, value in loco_weights(tiny, "vit").items()}
    torch.save({"state_dict": weights, "hyper_parameters": {"config": hydra_config(monkeypatch)}}, tmp_path / "l.ckpt")
    torch.save(loco_weights(tiny, "vit"), tmp_path / "bare.pth")
    monkeypatch.undo()
    found, bare = (load_published("loco", tmp_path / name, tiny["vit"]) for name in ("l.ckpt", "bare.pth"))
    assert torch.equal(found.extract(images(48)), bare.extract(images(48)))


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (subprocess.check_call, (["touch", str(self.path)],))


def test_what_a_container_holds_is_never_called(tmp_path):
    trap = tmp_path / "sprung"
    held = defaultdict(dict, {"now": deque([Trap(trap)])})
    torch.save({"state_dict": published_cnn(), "hyper_parameters": held}, tmp_path / "evil.ckpt")
    with pytest.raises(DataError, match="check_call"):
        load_published("loco", tmp_path / "evil.ckpt")
    assert not trap.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_not_opened(tmp_path, zipped):
    trap = tmp_path / "sprung"
    torch.save(
        {"state_dict": published_cnn(), "more": Trap(trap)},
        tmp_path / "evil.ckpt",
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(DataError, match="check_call") as caught:
        load_published("loco", tmp_path / "evil.ckpt")
    assert "weights_only" not in str(caught.value)
    assert not trap.exists()


@pytest.mark.parametrize("size", [0, 10, 300, 5000])
def test_truncated_files_are_refused(tiny, tmp_path, size):
    torch.save(published_cnn(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:size])
    with pytest.raises(DataError, match=r"cut\.pth"):
        load_published("loco", tmp_path / "cut.pth", tiny["vit"])
    with pytest.raises(DataError, match=r"none\.pth"):
        load_published("loco", tmp_path / "none.pth", tiny["vit"])


def without(weights, *keys):
    return {key: value for key, value in weights.items() if key not in keys}


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda w: without(w, "layers.0.bias"), r"lacking: head\.layers\.0\.bias"),
        (lambda w: {**w, "layers.40.bias": torch.zeros(3)}, r"unknown: head\.layers\.40\.bias"),
        (
            lambda w: {**w, "layers.1.bias": torch.zeros(9)},
            r"of another shape: head\.layers\.1\.bias \(9,\) for \(3,\)",
        ),
        (lambda w: {**w, "decoder.bias": torch.zeros(9)}, r"another model(.|\n)*decoder\.bias"),
        # Only a prefix of the name is a wrapper.
        (lambda w: {k.replace("pretrained_model.", "dino_model."): v for k, v in w.items()}, r"dino_model\.blocks"),
        (lambda w: {**w, "layers.3.filt": torch.ones(3, 1, 4, 4) / 16}, "blur filter"),
        (lambda w: {k: v for k, v in w.items() if not k.startswith("layers.")}, r"no layers\.\*"),
        (
            lambda w: {k: v for k, v in w.items() if k.startswith("layers.") and ".filt" in k},
            "not contain the residual network",
        ),
        (lambda w: without(w, "pretrained_model.patch_embed.proj.weight"), "patch_embed"),
        (lambda w: {**w, "pretrained_model.pos_embed": w["pretrained_model.pos_embed"] + 1}, "another backbone"),
        (lambda w: {**w, "pretrained_model.blocks.2.norm1.bias": torch.ones(16)}, "another backbone"),
        (
            lambda w: {k: v for k, v in w.items() if "blocks.9" not in k} | {"epoch": 3},
            "the file contains no weights",
        ),
        (lambda w: {"state_dict": [1, 2]}, "the file contains no weights"),
    ],
)
def test_files_that_do_not_fit_are_refused(tiny, tmp_path, damage, problem):
    torch.save(damage(loco_weights(tiny, "vit")), tmp_path / "loco.ckpt")
    with pytest.raises(DataError, match=problem) as error:
        load_published("loco", tmp_path / "loco.ckpt", tiny["vit"])
    assert "loco.ckpt" in str(error.value)


def test_what_is_not_known_is_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match="unknown published weights 'croco'; expected one of: loco, locus"):
        load_published("croco", tmp_path / "x.pth")
    torch.save(loco_weights(tiny, "vit"), tmp_path / "loco.pth")
    with pytest.raises(DataError, match=r"no known backbone(.|\n)*16 channels, patch 8"):
        load_published("loco", tmp_path / "loco.pth")
    with pytest.raises(DataError, match=r"another model(.|\n)*layers\.0"):
        load_published("locus", tmp_path / "loco.pth", tiny["vit"])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (save({"a": torch.zeros(2)}), "a safetensors file"),
        (b"<!DOCTYPE html>\n<html><body>Not found", "a web page"),
        (b"\n <html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"404: Not Found", "a text file that begins with '404: Not Found'"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x00\x01\x02\x03", "bytes 00 01 02 03"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path, content, found):
    (tmp_path / "weights.ckpt").write_bytes(content)
    for read in (lambda file: load_published("loco", file), load_croco):
        with pytest.raises(DataError, match=rf"not a PyTorch checkpoint(.|\n)*found: {found}") as caught:
            read(tmp_path / "weights.ckpt")
        assert "weights_only" not in str(caught.value)


ODD = {
    "float8": (lambda: torch.ones(2).to(torch.float8_e4m3fn), "float8"),
    "sparse": (lambda: torch.ones(2, 2).to_sparse(), "sparse"),
    "compressed": (lambda: torch.ones(2, 2).to_sparse_csr(), "sparse"),
    "meta": (lambda: torch.ones(2, device="meta"), "meta"),
    "repeated": (lambda: torch.ones(1).expand(300_000_000), "only 4 bytes of storage"),
    "integers": (lambda: torch.ones(2, dtype=torch.int8), "int8"),
    "truths": (lambda: torch.ones(2, dtype=torch.bool), "bool"),
    "complex": (lambda: torch.ones(2, dtype=torch.complex64), "complex64"),
    "quantised": (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantised"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ODD)
def test_weights_that_are_no_dense_numbers_are_refused(tmp_path, name):
    make, found = ODD[name]
    torch.save({**published_cnn(), "layers.0.weight": make()}, tmp_path / "odd.ckpt")
    with pytest.raises(DataError, match=rf"layers\.0\.weight(.|\n)*odd\.ckpt(.|\n)*found: .*{found}"):
        load_published("loco", tmp_path / "odd.ckpt")
    torch.save({"croco_kwargs": {}, "model": {"enc_norm.weight": make()}}, tmp_path / "odd.ckpt")
    with pytest.raises(DataError, match=rf"enc_norm\.weight(.|\n)*odd\.ckpt(.|\n)*found: .*{found}"):
        load_croco(tmp_path / "odd.ckpt")


@pytest.mark.filterwarnings("ignore")
def test_nested_tensors_are_refused(tmp_path):
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    torch.save({**published_cnn(), "layers.0.weight": nested}, tmp_path / "odd.ckpt")
    with pytest.raises(DataError, match=r"odd\.ckpt"):
        load_published("loco", tmp_path / "odd.ckpt")


@pytest.mark.parametrize("key", [3, ("layers", 0), None, b"layers.0.weight"])
def test_names_that_are_no_text_are_refused(tmp_path, key):
    torch.save({"state_dict": {**published_cnn(), key: torch.ones(2)}}, tmp_path / "odd.ckpt")
    with pytest.raises(DataError, match=r"that are not strings(.|\n)*odd\.ckpt"):
        load_published("loco", tmp_path / "odd.ckpt")


@pytest.mark.parametrize("names", [("model.0.weight", "0.weight"), ("model.0.weight", "module.0.weight")])
def test_two_weights_of_one_name_are_refused(tmp_path, names):
    torch.save(dict.fromkeys(names, torch.ones(2)), tmp_path / "twice.ckpt")
    with pytest.raises(DataError, match=r"two weights for `0\.weight`(.|\n)*found: " + ", ".join(names)):
        read_weights(tmp_path / "twice.ckpt")


def test_weights_of_half_precision_are_widened(tiny, tmp_path):
    weights = {key: value.half().float() for key, value in published_cnn().items() if value.is_floating_point()}
    for name, values in {"half": {k: v.half() for k, v in weights.items()}, "single": weights}.items():
        torch.save(values, tmp_path / name)
    half, single = (read_weights(tmp_path / name) for name in ("half", "single"))
    assert all(torch.equal(half[key], single[key]) for key in single)


def test_layers_without_a_number_are_unknown(tiny, tmp_path):
    torch.save({**loco_weights(tiny, "vit"), "layers.first.weight": torch.ones(2)}, tmp_path / "loco.ckpt")
    with pytest.raises(DataError, match=r"another model(.|\n)*layers\.first\.weight"):
        load_published("loco", tmp_path / "loco.ckpt", tiny["vit"])
