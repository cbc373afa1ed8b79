"""Where weights lie, told by their paths."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loco.weights import is_hub_name, model_file


def test_a_model_is_named_by_its_file_or_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.model").mkdir()
    for path in ("my.model", "yet/to/be/made", "experiment.2/seed0"):
        assert model_file(tmp_path / path) == tmp_path / path / "model.safetensors"
    for path in ("a.safetensors", "yet/to/be/made/b.safetensors"):
        assert model_file(tmp_path / path) == tmp_path / path
    assert model_file("~/run") == tmp_path / "run" / "model.safetensors"


@pytest.mark.parametrize("path", ["facebook/dino-vits8", "a/b.c"])
def test_names_of_the_hub(path: str) -> None:
    assert is_hub_name(path)


@pytest.mark.parametrize("path", ["dino_vits8", "./vit", "../vit", "~/vit", "/vit", "a/b/c", "a/", ""])
def test_what_is_no_name_of_the_hub(path: str) -> None:
    assert not is_hub_name(path)


def test_the_rules_ask_without_torch() -> None:
    code = "import sys, loco.weights; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
