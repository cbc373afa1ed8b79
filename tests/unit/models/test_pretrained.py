"""Models by path and by name, and models given away: what is loaded is what was saved."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

import loco
from loco.errors import DataError
from loco.evaluation.result import Evaluation, Row
from loco.models import build_extractor, save_extractor
from loco.models.pretrained import from_pretrained, save_pretrained
from loco.provenance import file_fingerprint
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
    write_metrics(metrics, **run, settings={}, passport={}, evaluation=Evaluation(rows, {}))
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
    terms = r"under those of the backbone: Apache-2.0 of resnet50, DINOv3 (gated) of dinov3\_vits16."
    assert terms in (tmp_path / "README.md").read_text()


def test_what_is_no_model_is_named(trained: Path, tmp_path: Path) -> None:
    whole = trained.read_bytes()
    (tmp_path / "empty").mkdir()
    trained.write_bytes(whole[: len(whole) // 2])
    for name, says in {
        "dino_vits9": "no model 'dino_vits9'(.|\n)*dino_vits8",
        str(tmp_path / "empty"): "no model",
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
