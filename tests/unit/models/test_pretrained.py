"""Models by path and by name, and exported models: what is loaded is what was saved."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model

import loco
from loco.errors import ConfigError, DataError
from loco.evaluation.result import Evaluation, Row
from loco.fingerprints import file_fingerprint
from loco.models import backbones_of, build_extractor, save_extractor
from loco.models.pretrained import from_pretrained, save_pretrained
from loco.results.metrics import write_metrics

COMPACT = {"name": "compact_cnn", "dim": 8}
FACTS = {"seed": 3, "loss": {"name": "exact", "rho": 0.2}}


def _images(n: int = 1) -> np.ndarray:
    return np.random.default_rng([2]).integers(0, 255, (n, 30, 42, 3), np.uint8)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "model.safetensors"
    save_extractor(build_extractor(COMPACT, 5), COMPACT, path, FACTS)
    return path


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    config = Dinov2Config(hidden_size=12, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Dinov2Model(config).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def test_a_model_is_loaded_by_its_file_and_by_its_folder(trained: Path) -> None:
    expected = build_extractor(COMPACT, 5).extract(_images())
    for name in (trained, str(trained), trained.parent, str(trained.parent)):
        model = loco.load(name)
        assert not model.training
        assert torch.equal(model.extract(_images()), expected)
        assert (model.config, model.facts) == (COMPACT, FACTS)


def test_importing_loco_is_light(trained: Path) -> None:
    code = f"import sys, loco; assert 'torch' not in sys.modules; print(loco.load({str(trained)!r}).dim)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "8\n"
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = loco.laod


def test_a_folder_of_transformers_is_its_frozen_last_layer(hub_folder: Path) -> None:
    model = loco.load(hub_folder)
    assert (model.dim, model.stride, model.trainable_parameters) == (12, 14, 0)
    images = np.concatenate([_images(), _images()], axis=1)[:, :28, :28]
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    with torch.inference_mode():
        tokens = Dinov2Model.from_pretrained(hub_folder).eval()((pixels - mean) / std).last_hidden_state[0, 1:]
    expected = torch.nn.functional.normalize(tokens, dim=1).T.reshape(12, 2, 2)
    torch.testing.assert_close(model.extract(images)[0], expected, atol=1e-5, rtol=0)


def test_what_is_given_away_comes_back(trained: Path, tmp_path: Path) -> None:
    model = loco.load(trained)
    metrics = tmp_path / "seed3.json"
    run = {"benchmark": "location_consistency", "split": "houses", "experiment": "exact", "seed": 3}
    rows = [Row("mAP", "2 m, uniform", 0.4321, 0.4, 0.5, 9)]
    write_metrics(metrics, **run, settings={}, evaluation=Evaluation(rows, {}))
    loco.save_pretrained(model, tmp_path / "public", [metrics])
    again = from_pretrained(tmp_path / "public")
    assert torch.equal(again.extract(_images()), model.extract(_images()))
    assert (again.config, again.facts) == (COMPACT, FACTS)
    card = (tmp_path / "public" / "README.md").read_text()
    assert card.startswith("---\n")
    assert "\n# public\n" in card
    assert r"| mAP | 43.2 \[40.0, 50.0\] |" in card
    assert "| loss.rho | 0.2 |" in card
    assert file_fingerprint(tmp_path / "public" / "model.safetensors") in card


def test_facts_of_an_extractor_of_no_file_are_given(tmp_path: Path) -> None:
    extractor = build_extractor(COMPACT)
    save_pretrained(extractor, tmp_path, facts={"seed": 7})
    again = loco.load(tmp_path)
    assert again.facts == {"seed": 7}
    assert torch.equal(again.extract(_images()), extractor.extract(_images()))


def test_a_card_names_the_terms_of_known_backbones(tmp_path: Path) -> None:
    extractor = build_extractor(COMPACT)
    inner = {"name": "backbone", "backbone": {"name": "transformers", "path": "dinov3_vits16"}}
    extractor.config = {**COMPACT, "models": [inner, {"path": "resnet50"}, {"path": "resnet50"}, {"path": "mine"}]}
    save_pretrained(extractor, tmp_path)
    terms = r"to the licence of the backbone: Apache-2.0 of resnet50, DINOv3 (gated) of dinov3\_vits16."
    assert terms in (tmp_path / "README.md").read_text()


def test_what_is_no_model_is_named(trained: Path, tmp_path: Path) -> None:
    whole = trained.read_bytes()
    (tmp_path / "empty").mkdir()
    trained.write_bytes(whole[: len(whole) // 2])
    for name, says in {
        "dino_vits9": "the model 'dino_vits9' does not exist(.|\n)*did you mean `dino_vits8`",
        "dinov2_vits15": "did you mean `dinov2_vits14`",
        str(tmp_path / "empty"): r"the folder contains no model file(.|\n)*model\.safetensors",
        str(trained): r"cannot be read as a model(.|\n)*model\.safetensors",
        str(trained.parent): "cannot be read as a model",
    }.items():
        with pytest.raises(DataError, match=says):
            loco.load(name)
    for metadata in (None, {"loco-model": "{"}, {"loco-model": '{"model": 3}'}):
        save_file({"a": torch.zeros(1)}, trained, metadata)
        with pytest.raises(DataError, match=r"not a model of this project|cannot be read as a model"):
            loco.load(trained)
    torch.save({"a": torch.zeros(1)}, trained)
    with pytest.raises(DataError, match="cannot be read as a model"):
        loco.load(trained)


@pytest.fixture
def adapted(hub_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a model with a backbone in the folder `weights/vit`, relative to where it was trained."""
    place = tmp_path / "training"
    shutil.copytree(hub_folder, place / "weights" / "vit")
    monkeypatch.chdir(place)
    backbone = {"name": "transformers", "path": "weights/vit"}
    config = {"name": "backbone", "backbone": backbone, "stride": 14, "head": {"name": "linear", "dim": 5}}
    path = place / "run" / "model.safetensors"
    save_extractor(build_extractor(config, 1), config, path, FACTS)
    return path


def test_a_model_is_told_where_its_backbone_is(
    adapted: Path, hub_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = loco.load(adapted).extract(_images())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"weights/vit[\s\S]*`--backbone`"):
        loco.load(adapted)
    assert torch.equal(loco.load(adapted, backbone=hub_folder).extract(_images()), expected)
    weights = load_file(hub_folder / "model.safetensors")
    save_file({key: value + 1e-3 for key, value in weights.items()}, hub_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="another backbone"):
        loco.load(adapted, backbone=hub_folder)


def test_a_backbone_is_given_away_with_the_model(
    adapted: Path, hub_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loco.load(adapted)
    both = build_extractor({"name": "concat", "models": [model.config, model.config], "stride": 14})
    save_pretrained(model, tmp_path / "alone")
    save_pretrained(model, tmp_path / "whole", with_backbone=True)
    save_pretrained(both, tmp_path / "both", with_backbone=True)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("training")
    (digest,) = backbones_of(model, model.config).values()
    for name, path in (("alone", "weights/vit"), ("whole", "backbone-vit")):
        assert f"backbone {path} (SHA-256 of its weights: `{digest}`)" in (tmp_path / name / "README.md").read_text()
    shutil.move("whole", "elsewhere")
    assert torch.equal(loco.load("elsewhere").extract(_images()), model.extract(_images()))
    assert torch.equal(loco.load("both").extract(_images()), both.extract(_images()))
    with pytest.raises(DataError, match="weights/vit"):
        loco.load("alone")
    assert torch.equal(loco.load("alone", backbone=hub_folder).extract(_images()), model.extract(_images()))


def test_a_backbone_is_not_given_to_a_model_without_one(trained: Path, hub_folder: Path) -> None:
    for model in (trained, hub_folder):
        with pytest.raises(ConfigError, match=r"no backbone|itself a backbone"):
            loco.load(model, backbone=hub_folder)


def test_a_concat_of_given_models_needs_them_no_more(trained: Path) -> None:
    given = {"name": "pretrained", "path": str(trained), "stride": 4}
    model = build_extractor({"name": "concat", "models": [given, COMPACT], "stride": 4}, seed=2)
    save_pretrained(model, trained.parent.parent / "both")
    trained.unlink()
    assert torch.equal(loco.load(trained.parent.parent / "both").extract(_images()), model.extract(_images()))


def test_a_readme_of_others_is_left_alone(trained: Path, tmp_path: Path) -> None:
    model = loco.load(trained)
    save_pretrained(model, tmp_path / "mine")
    save_pretrained(model, tmp_path / "mine")  # a card of this project is replaced
    (tmp_path / "mine" / "README.md").write_text("my notes")
    with pytest.raises(DataError, match=r"not a model card[\s\S]*README.md"):
        save_pretrained(model, tmp_path / "mine")
    assert (tmp_path / "mine" / "README.md").read_text() == "my notes"


def test_the_explorer_page_is_copied_and_linked(tmp_path):
    extractor = build_extractor({"name": "compact_cnn", "dim": 8}, 0)
    page = tmp_path / "house09.html"
    with pytest.raises(DataError, match="explorer page does not exist"):
        save_pretrained(extractor, tmp_path / "public", explorer=page)
    page.write_text("a page")
    save_pretrained(extractor, tmp_path / "public", explorer=page)
    assert (tmp_path / "public/explorer.html").read_text() == "a page"
    assert "[explorer.html](explorer.html)" in (tmp_path / "public/README.md").read_text()
    save_pretrained(extractor, tmp_path / "plain")
    assert "explorer" not in (tmp_path / "plain/README.md").read_text()


def test_an_hdf5_file_is_named_as_one(tmp_path: Path) -> None:
    for name, header in (("foreign.h5", 0), ("own.h5", 512)):  # files of this project begin with text
        with h5py.File(tmp_path / name, "w", userblock_size=header) as file:
            file["features"] = np.zeros(3)
        with pytest.raises(DataError, match="is an HDF5 file") as caught:
            loco.load(tmp_path / name)
        assert name in str(caught.value)
