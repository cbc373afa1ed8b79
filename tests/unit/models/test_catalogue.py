"""The catalogue of models agrees with the models as they are built."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import loco
from loco.errors import ConfigError
from loco.models import build_extractor, save_extractor
from loco.models.catalogue import BACKBONES, COMPUTED, MODELS, is_deterministic, modules_of, parts_of, stride_of
from loco.models.heads import HEADS
from tests.unit.models.test_croco import published as published_croco
from tests.unit.models.test_published import published_head, published_transformer

PACKAGE = Path(loco.__file__).parent
CNN = {"name": "compact_cnn", "dim": 8, "widths": [8, 8], "blocks": 1}
SIFT = {"name": "dense_sift", "stride": 8, "keypoint_size": 4}
POOL = """
import torch

class Pool(torch.nn.AvgPool2d):
    dim, stride = 3, 8

    def __init__(self):
        super().__init__(8)
"""


@pytest.fixture(scope="module")
def files(tiny, tmp_path_factory):
    """Return paths of a CroCo encoder, an ONNX encoder, a stored model and a published one."""
    folder = tmp_path_factory.mktemp("files")
    torch.save(published_croco("RoPE100"), folder / "croco.pth")
    pool = onnx.helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[8, 8], strides=[8, 8])
    sides = [1, 3, "height", "width"], [1, 3, "rows", "columns"]
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in zip("xy", sides))
    model = onnx.helper.make_model(
        onnx.helper.make_graph([pool], "pool", [x], [y]), opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, folder / "pool.onnx")
    save_extractor(build_extractor(CNN, seed=4), CNN, folder / "model.safetensors")
    head = {f"trainable_head.{key}": value for key, value in published_head().items()}
    transformer = {f"dino_model.{key}": value for key, value in published_transformer(tiny["vit"], 2).items()}
    torch.save({"model": head | transformer}, folder / "locus.pth")
    (folder / "pool_of_catalogue.py").write_text(POOL)
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def models(tiny, files):
    """Name -> configuration of a small model: all kinds, backbones and heads."""
    vit = {"name": "backbone", "backbone": tiny["vit"], "stride": 8}
    found = {
        "compact_cnn": CNN,
        "dense_sift": SIFT,
        "transformers": vit,
        "croco": {"name": "backbone", "backbone": {"name": "croco", "path": str(files / "croco.pth")}, "stride": 8},
        "onnx": {
            "name": "backbone",
            "backbone": {"name": "onnx", "path": str(files / "pool.onnx"), "native_stride": 8},
            "stride": 8,
        },
        "random_weights": {**vit, "backbone": {**tiny["vit"], "pretrained": False}},
        "last": {**vit, "train": {"last": 1}},
        "lora": {**vit, "train": {"lora": {"rank": 2, "last": 2}}},
        "residual_cnn": {**vit, "head": {"name": "residual_cnn", "widths": [4, 4, 4]}},
        "residual_cnn_published": {**vit, "head": {"name": "residual_cnn", "widths": [4, 4, 4], "aligned": False}},
        "residual_mlp": {**vit, "head": {"name": "residual_mlp", "hidden": 4, "context": True}},
        "residual_mlp_no_dim": {**vit, "head": {"name": "residual_mlp", "hidden": 4, "dim": None}},
        "residual_mlp_dim": {**vit, "head": {"name": "residual_mlp", "hidden": 4, "dim": 16}},
        "linear": {**vit, "head": {"name": "linear", "dim": 5}},
        "locus": {**vit, "head": {"name": "locus", "dim": 5, "width": 8}},
        "python": {"name": "python", "class": "pool_of_catalogue.Pool", "stride": 8},
        "pretrained": {"name": "pretrained", "path": str(files), "stride": 4},
        "published": {
            "name": "published",
            "weights": "locus",
            "path": str(files / "locus.pth"),
            "stride": 8,
            "backbone": {key: tiny["vit"][key] for key in ("name", "path")},
        },
    }
    found["concat"] = {"name": "concat", "models": [SIFT, vit], "stride": 8}
    found["concat_random"] = {"name": "concat", "models": [SIFT, found["linear"]], "stride": 8}
    found["concat_nested"] = {"name": "concat", "models": [found["concat_random"], SIFT], "stride": 8}
    return found


def test_all_kinds_are_tested(models):
    parts = [part for model in models.values() for part in parts_of(model)]
    assert {model["name"] for model in models.values()} == MODELS.keys() - {COMPUTED}  # which is not a network
    backbones = BACKBONES.keys() - {"timm"}  # its package is optional
    assert {part["backbone"]["name"] for part in parts if part["name"] == "backbone"} == backbones
    assert {part["head"]["name"] for part in parts if "head" in part} == HEADS.keys()


def test_deterministic_models_are_those_whose_features_are_the_same_for_two_seeds(models):
    image = np.random.default_rng(0).integers(0, 255, (61, 75, 3), np.uint8)
    for name, model in models.items():
        first, second = (build_extractor(model, seed).extract(image) for seed in (0, 1))
        assert first.isfinite().all()
        assert is_deterministic(model) == torch.equal(first, second), name
    assert {is_deterministic(model) for model in models.values()} == {True, False}


def test_the_stride_is_that_of_the_extractor(models):
    assert {name: stride_of(model) for name, model in models.items()} == {
        name: build_extractor(model).stride for name, model in models.items()
    }


def test_parts_are_the_members_at_any_depth(models):
    assert list(parts_of(models["concat_nested"])) == [SIFT, models["linear"], SIFT]
    assert list(parts_of(CNN)) == [CNN]


def test_the_modules_are_those_that_building_imports(models):
    """Every module that building a model adds to ``sys.modules`` is listed, or imported by a listed one."""
    kinds = ("compact_cnn", "dense_sift", "transformers", "croco", "onnx", "pretrained", "published", "concat")
    program = (
        "import json, os, sys; import loco.models.build\n"
        "print(json.dumps(sorted(sys.modules)), flush=True)\n"
        "for model in json.loads(sys.argv[1]):\n"
        "    if os.fork() == 0:\n"  # each is built in a process that has built no model before
        "        loco.models.build.build_extractor(model)\n"
        "        print(json.dumps(sorted(sys.modules)), flush=True)\n"
        "        os._exit(0)\n"
        "    assert os.wait()[1] == 0"
    )
    run = [sys.executable, "-c", program, json.dumps([models[name] for name in kinds])]
    printed = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    before, *each = map(json.loads, printed.splitlines())
    for name, after in zip(kinds, each, strict=True):
        modules = modules_of(models[name])
        assert modules == sorted(set(modules))
        listed = closure({f"loco.models.{module}" for module in modules})
        added = {module for module in set(after) - set(before) if module.startswith("loco.models.")}
        missing = {f"loco.models.{module}" for module in modules} - set(after)
        assert added
        assert added <= listed, name
        if name != "pretrained":  # its list contains all modules that a model file can require
            assert not missing, name


def test_a_pretrained_model_may_require_what_any_stored_model_requires(models):
    stored = [model for name, model in models.items() if model["name"] not in ("pretrained", "published", "python")]
    for model in stored:
        assert set(modules_of(model)) < set(modules_of(models["pretrained"]))


def test_unknown_names_are_refused():
    for model, problem in (
        ({"name": "resnet"}, "unknown model 'resnet'"),
        ({"name": "backbone", "backbone": {"name": "nothing"}}, "unknown kind of backbone 'nothing'"),
    ):
        with pytest.raises(ConfigError, match=problem):
            modules_of(model)


def test_planning_imports_neither_torch_nor_a_model():
    program = (
        "import sys; from loco.models.catalogue import is_deterministic, modules_of, stride_of\n"
        "model = {'name': 'concat', 'models': [{'name': 'compact_cnn'}, {'name': 'dense_sift', 'stride': 4}]}\n"
        "modules_of(model), is_deterministic(model), stride_of(model['models'][0])\n"
        "print(*sorted(sys.modules))"
    )
    found = set(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    )
    assert not found & {"torch", "numpy", "cv2", "transformers"}
    assert {name for name in found if name.startswith("loco")} == {
        "loco", "loco.errors", "loco.extras", "loco.models", "loco.models.catalogue",
    }  # fmt: skip


def test_no_module_of_the_package_imports_itself_by_way_of_others():
    edges = {name: imports(name) & MODULES for name in MODULES}
    assert any(edges.values())
    for name in MODULES:
        reached, waiting = set(), [*edges[name]]
        while waiting:
            module = waiting.pop()
            if module not in reached:
                reached.add(module)
                waiting += edges[module]
        assert name not in reached


MODULES = frozenset(f"loco.models.{path.stem}" for path in (PACKAGE / "models").glob("*.py") if path.stem != "__init__")


def imports(module: str) -> set[str]:
    """Return the modules of this project that a module imports, also in functions and for type checking."""
    path = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        path = path.with_suffix("") / "__init__.py"
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.split(".")[0] == "loco" and is_module(name)}


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def closure(modules: set[str]) -> set[str]:
    """Return the modules, and all modules of this project that they import directly or indirectly."""
    reached, waiting = set(), [*modules]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += imports(module)
    return reached
