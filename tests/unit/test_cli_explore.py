"""The command ``loco explore``."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from loco.cli import main
from loco.models import build_extractor, save_extractor
from loco.storage import Features, Frames
from tests.unit.conftest import write_wall


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with two scenes and the features of two experiments, one of them at two checkpoints."""
    folder = tmp_path_factory.mktemp("run") / "results"
    for scene in ("north", "south"):
        frames, correspondences = write_wall(folder, scene, seed=len(scene))
        for source, part in ((frames, "frames/walls"), (correspondences, "correspondences/walls/stride4")):
            (folder / part).mkdir(parents=True, exist_ok=True)
            shutil.move(source, folder / part / f"{scene}.h5")
        with Frames(folder / f"frames/walls/{scene}.h5") as file:
            maps = file["rgb"][:].reshape(len(file), 8, 4, 12, 4, 3).mean(axis=(2, 4)) / 255
            for k, checkpoint in enumerate(("a/seed0", "b/seed0", "b/seed1")):
                path = folder / "features" / checkpoint / "walls" / f"{scene}.h5"
                path.parent.mkdir(parents=True, exist_ok=True)
                full = np.concatenate([maps, np.full_like(maps[..., :1], k + 0.1)], axis=-1)
                sizes = dict(zip("nhwc", full.shape))
                with Features.create(
                    path, "walls", scene, sizes, {"extent": file.size}, frames_id=file.content_id
                ) as written:
                    written["features"][:] = full / np.linalg.norm(full, axis=-1, keepdims=True)
    return folder


def header(page: Path) -> dict:
    """What a page states about its data."""
    return json.loads(re.search(r'id="header">(.*?)</script>', page.read_text(), re.DOTALL)[1])


def explore(*arguments: object) -> int:
    return main(["explore", *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    assert explore(*arguments) == 2
    return capsys.readouterr().err


def test_one_page_of_one_scene(results, tmp_path, capsys) -> None:
    out = tmp_path / "page.html"
    assert explore(results, "--scene", "north", "--views", 4, "--out", out) == 0
    assert re.fullmatch(r".*page.html: 0\.\d MB, 4 of 10 views, a, b/seed0, b/seed1\n", capsys.readouterr().out)
    assert header(out)["title"] == "walls / north"
    assert [extractor["title"] for extractor in header(out)["extractors"]] == ["a", "b/seed0", "b/seed1"]
    assert len(header(out)["views"]) == 4
    assert str(results.parent) not in out.read_text()


def test_a_page_of_every_scene(results, tmp_path) -> None:
    assert explore(results, "--experiments", "a", "--out", tmp_path) == 0
    assert sorted(path.name for path in (tmp_path / "walls").iterdir()) == ["north.html", "south.html"]


def test_files_of_features_in_their_order(results, tmp_path) -> None:
    files = [results / f"features/{name}/walls/south.h5" for name in ("b/seed1", "a/seed0")]
    assert explore(*files, "--out", tmp_path / "page.html") == 0
    assert [extractor["name"] for extractor in header(tmp_path / "page.html")["extractors"]] == ["b", "a"]


def test_points_of_the_patch_of_a_page(results, tmp_path, capsys) -> None:
    options = ["--scene", "north", "--experiments", "b", "a", "--ply", tmp_path / "ply", "--at", 2, 5]
    assert explore(results, *options, "--out", tmp_path / "page.html") == 0
    assert {path.name for path in (tmp_path / "ply/north").iterdir()} == {"a.ply", "b-seed0.ply", "b-seed1.ply"}
    assert "similarity to patch 5 of view 2" in capsys.readouterr().out
    assert b"comment quality is the similarity to patch 5" in (tmp_path / "ply/north/a.ply").read_bytes()[:4000]


def test_photographs_without_geometry(tmp_path, capsys) -> None:
    model = tmp_path / "models" / "mine"
    config = {"name": "compact_cnn", "dim": 8}
    save_extractor(build_extractor(config, 0), config, model / "model.safetensors")
    images = []
    for k in range(5):
        images.append(tmp_path / f"photo{k}.png")
        images[-1].write_bytes(cv2.imencode(".png", np.full((40 + k, 60, 3), 50 * k, np.uint8))[1].tobytes())
    out = tmp_path / "page.html"
    assert explore("--images", *images, "--model", model, "--views", 3, "--max-size", 30, "--out", out) == 0
    assert "3 of 5 views, mine" in capsys.readouterr().out
    assert [view["name"] for view in header(out)["views"]] == ["photo0.png", "photo2.png", "photo4.png"]
    assert [view["size"] for view in header(out)["views"]] == [[30, 20], [30, 21], [30, 22]]
    assert header(out)["geometry"] is None
    assert str(tmp_path) not in out.read_text()


def test_what_cannot_be_explored_is_refused(results, tmp_path, capsys) -> None:
    page = tmp_path / "page.html"
    assert "2 scenes (north, south): pass --scene" in refused(capsys, results, "--out", page)
    assert "no features of scene west" in refused(capsys, results, "--scene", "west", "--out", page)
    said = refused(capsys, results, "--scene", "north", "--experiments", "c", "--out", page)
    assert "no features of c: correct --experiments; the experiments with features of this scene are a, b" in said
    assert "contains no features" in refused(capsys, tmp_path, "--out", page)
    assert "is not a feature file" in refused(capsys, results / "frames/walls/north.h5", "--out", page)
    assert "pass either" in refused(capsys, "--out", page)
    assert "--images requires --model" in refused(capsys, "--images", "a.jpg", "--out", page)
    options = [results, "--scene", "north", "--experiments", "a", "--out", page, "--ply", tmp_path]
    assert "VIEW must be from 0 to 9, found 10" in refused(capsys, *options, "--at", 10, 0)
    assert "PATCH must be from 0 to 95 for view 1, found 96" in refused(capsys, *options, "--at", 1, 96)


def test_options_without_effect_and_missing_paths_are_refused(results, tmp_path, capsys) -> None:
    page = tmp_path / "page.html"
    images = ("--images", "a.jpg", "--model", "m", "--out", page)
    for option in (("--ply", tmp_path), ("--at", 0, 1), ("--scene", "north"), ("--experiments", "a")):
        assert f"{option[0]} has no effect with --images" in refused(capsys, *images, *option)
    assert "--model has no effect with results" in refused(capsys, results, "--model", "m", "--out", page)
    assert "--max-size has no effect with results" in refused(capsys, results, "--max-size", 64, "--out", page)
    assert "--at selects the patch of --ply" in refused(capsys, results, "--at", 0, 1, "--out", page)
    assert "nowhere does not exist" in refused(capsys, tmp_path / "nowhere", "--out", page)
    assert "the scenes are north, south" in refused(capsys, results, "--scene", "west", "--out", page)
    said = refused(capsys, results, "--scene", "south", "--experiments", "c", "--out", page)
    assert "scene south has no features of c" in said  # not the first scene
    assert not page.exists()
