"""Weight paths are resolved by their names and by existing files, without loading anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loco.models.backbones import KNOWN
from loco.weights import SHORT_NAMES, hub_name, is_product, model_file, weights_problem


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty working directory, which is also the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*files: str) -> None:
    for file in map(Path, files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_a_model_is_named_by_its_file_or_its_folder(here: Path) -> None:
    (here / "my.model").mkdir()
    for path in ("my.model", "yet/to/be/made", "experiment.2/seed0"):
        assert model_file(here / path) == here / path / "model.safetensors"
    for path in ("a.safetensors", "yet/to/be/made/b.safetensors"):
        assert model_file(here / path) == here / path
    assert model_file("~/run") == here / "run" / "model.safetensors"
    assert model_file("~no_such_user/run") == Path("~no_such_user/run/model.safetensors")


@pytest.mark.parametrize("name", ["facebook/dino-vits8", "a/b.c", "owner/dinov2-base-v1.5", "0x1/_a"])
def test_names_of_the_hub(name: str) -> None:
    assert hub_name(f"hub:{name}") == name
    assert weights_problem("transformers", f"hub:{name}") is None
    assert hub_name(name) is None
    assert weights_problem("transformers", name).endswith(f"for a model on the Hugging Face hub, write `hub:{name}`")


@pytest.mark.parametrize(
    "name", ["dino_vits8", "./vit", "../vit", "~/vit", "/vit", "a/b/c", "a/", "", "a b/c", "a/b\n", "a/..", "hub:a/b"]
)
def test_what_is_no_name_of_the_hub(name: str) -> None:
    assert hub_name(f"hub:{name}") is None
    assert "expected hub:owner/name" in (weights_problem("transformers", f"hub:{name}") or "")


@pytest.mark.parametrize("kind", ["folder", "file", "broken link", "nothing"])
def test_a_name_of_the_hub_does_not_depend_on_what_is_here(kind: str) -> None:
    if kind == "folder":
        touch("mine/dino/config.json", "mine/dino/model.safetensors", "facebook/dino-vits8/config.json")
    elif kind == "file":
        touch("mine")
    elif kind == "broken link":
        Path("mine").symlink_to("nowhere")
    assert hub_name("hub:mine/dino") == "mine/dino"
    assert (weights_problem("transformers", "mine/dino") is None) == (kind == "folder")
    assert weights_problem("transformers", "dino_vits8") is None


def test_an_adapter_alone_is_no_model() -> None:
    touch("tuned/adapter_config.json", "tuned/adapter_model.safetensors")
    assert "an adapter of peft without its base model" in (weights_problem("transformers", "tuned") or "")
    touch("tuned/config.json", "tuned/model.safetensors")
    assert weights_problem("transformers", "tuned") is None


def test_products_of_the_workflow_are_below_results(here: Path) -> None:
    for path in ("results/a", "./results/a/b.safetensors", here / "results/x", "weights/../results/x", "~/results/x"):
        assert is_product(path), path
    for path in ("results", "results/../weights/x", "weights/results/x", "/results/x", "results2/x"):
        assert not is_product(path), path


def test_short_names_are_those_of_the_backbones() -> None:
    assert set(SHORT_NAMES) == set(KNOWN)
    for name in SHORT_NAMES:
        assert weights_problem("transformers", name) is None


@pytest.mark.parametrize(
    ("kind", "path", "expected"),
    [
        ("transformers", "dino_vitb9", "did you mean the backbone `dino_vitb8`?"),
        ("transformers", "weights/dino", "the folder weights/dino does not exist (searched in "),
        ("transformers", "./vit", "the folder ./vit does not exist (searched in "),
        ("transformers", "/no/such/vit", "the folder /no/such/vit does not exist; correct the path"),
        ("transformers", "mine/dinu", "the folder mine/dinu does not exist"),
        ("transformers", "mine/dino/config.json", "mine/dino/config.json is not a folder"),
        ("transformers", "mine/empty", "the folder mine/empty has no config.json"),
        ("transformers", "mine/plan", "the folder mine/plan has no weights"),
        ("croco", "mine/croco.pth", "the file mine/croco.pth does not exist"),
        ("croco", "owner/croco", "the file owner/croco does not exist"),
        ("croco", "mine/dino", "mine/dino is a folder; a file is expected"),
        ("onnx", "net.onnx", "the file net.onnx does not exist"),
        ("onnx", "~/mine/net.ort", "`~` is not expanded in ~/mine/net.ort; write "),
        ("published", "data/weights/loco.ckpt", "the file data/weights/loco.ckpt does not exist"),
        ("pretrained", "models/run", "the model file models/run/model.safetensors does not exist"),
        ("pretrained", "models/typo.safetensors", "the model file models/typo.safetensors does not exist"),
        ("pretrained", "mine/dino\0", "the model file"),
    ],
)
def test_weights_that_are_not_there(kind: str, path: str, expected: str) -> None:
    touch("mine/dino/config.json", "mine/dino/model.safetensors", "mine/plan/config.json", "mine/net.ort")
    Path("mine/empty").mkdir()
    assert expected in (weights_problem(kind, path) or "nothing")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("transformers", "mine/dino"),
        ("transformers", "~/mine/dino"),
        ("transformers", "hub:facebook/dino-vits8"),
        ("transformers", "results/exported/vit"),
        ("croco", "mine/croco.pth"),
        ("croco", "results/made/croco.pth"),
        ("onnx", "net"),
        ("published", "mine/croco.pth"),
        ("pretrained", "mine/dino"),
        ("pretrained", "~/mine/dino/model.safetensors"),
        ("pretrained", "results/train/tiny/quick/seed0"),
        ("pretrained", "./results/train/tiny/quick/seed0/model.safetensors"),
    ],
)
def test_weights_that_nothing_stands_against(kind: str, path: str) -> None:
    touch("mine/dino/config.json", "mine/dino/model.safetensors", "mine/croco.pth", "net")
    assert weights_problem(kind, path) is None


def test_random_weights_need_a_configuration_alone() -> None:
    touch("plan/config.json")
    assert weights_problem("transformers", "plan", pretrained=False) is None
    assert "has no weights" in (weights_problem("transformers", "plan") or "")


def test_a_folder_with_a_short_name_is_ambiguous() -> None:
    touch("dino_vits8/config.json", "dino_vits8/model.safetensors")
    assert "write ./dino_vits8 for the folder" in (weights_problem("transformers", "dino_vits8") or "")
    assert weights_problem("transformers", "./dino_vits8") is None


def test_the_rules_ask_without_torch() -> None:
    code = "import sys, loco.weights, loco.config; assert not {'torch', 'open3d'} & sys.modules.keys()"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
