"""`loco match` and `loco extract` for hloc and COLMAP, in process."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pycolmap
import pytest

import loco
from loco.cli import main
from loco.models import build_extractor, save_extractor

COMPACT = {"name": "compact_cnn", "dim": 8, "widths": [8, 8, 8], "blocks": 1}
SIZE = (64, 96)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_extractor(build_extractor(COMPACT, 1), COMPACT, path, {})
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write four photographs of one texture, each shifted by 8 pixels, one of them in a subfolder."""
    noise = np.random.default_rng(4).integers(0, 255, (SIZE[0], SIZE[1] + 24, 3), np.uint8)
    texture = cv2.GaussianBlur(noise, (0, 0), 1.5)
    for k, name in enumerate(("a.png", "b.png", "c.png", "sub/d.png")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), texture[:, 8 * k : 8 * k + SIZE[1]])
    return tmp_path / "photos"


def test_extract_writes_patch_features_for_hloc(model: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["extract", str(folder), "--model", model, "--format", "hloc", "--out", str(out)]) == 0
    features = loco.load(model).extract(cv2.imread(str(folder / "sub/d.png"))[..., ::-1])[0]
    with h5py.File(out / "features.h5") as file:
        group = file["sub/d.png"]
        rows, columns = features.shape[1:]
        assert group["keypoints"].shape == (rows * columns, 2)
        assert group["keypoints"][0].tolist() == [1.5, 1.5]  # stride 4, first pixel at 0
        np.testing.assert_allclose(group["descriptors"][:], features.flatten(1), atol=2e-3)


def test_keypoints_of_a_scaled_photograph_are_in_pixels_of_its_file(model: str, folder: Path, tmp_path: Path) -> None:
    command = ["extract", str(folder / "a.png"), "--model", model, "--format", "hloc", "--max-size", "48"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    with h5py.File(tmp_path / "out/features.h5") as file:
        assert file["a.png/keypoints"][:2].tolist() == [[3.5, 3.5], [11.5, 3.5]]
        assert file["a.png/image_size"][:].tolist() == [96, 64]


def test_points_of_another_detector_are_used(model: str, folder: Path, tmp_path: Path) -> None:
    points = np.array([[10.0, 20.0], [33.3, 40.0]], np.float32)
    with h5py.File(tmp_path / "points.h5", "w") as file:
        file["a.png/keypoints"] = points
    command = ["extract", str(folder / "a.png"), "--model", model, "--format", "hloc", "--out", str(tmp_path / "out")]
    assert main([*command, "--keypoints", str(tmp_path / "points.h5")]) == 0
    with h5py.File(tmp_path / "out/features.h5") as file:
        np.testing.assert_allclose(file["a.png/keypoints"][:], points, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "pairs"),
    [
        (["--pairs", "exhaustive"], ["a b", "a c", "a d", "b c", "b d", "c d"]),
        (["--pairs", "sequential", "--neighbours", "1"], ["a b", "b c", "c d"]),
    ],
)
def test_match_writes_files_for_hloc(
    model: str, folder: Path, tmp_path: Path, options: list[str], pairs: list[str]
) -> None:
    out = tmp_path / "out"
    assert main(["match", str(folder), "--model", model, "--format", "hloc", "--out", str(out), *options]) == 0
    lines = (out / "pairs.txt").read_text().replace("sub/", "").replace(".png", "").splitlines()
    assert lines == pairs
    with h5py.File(out / "matches.h5") as file, h5py.File(out / "features.h5") as features:
        partner = file["a.png/b.png/matches0"][:]
        moved = features["a.png/keypoints"][:][partner >= 0] - features["b.png/keypoints"][:][partner[partner >= 0]]
    assert len(moved) > 50
    assert (np.median(moved, axis=0) == [8, 0]).all()


def test_match_writes_a_database_for_colmap(model: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["match", str(folder), "--model", model, "--format", "colmap", "--out", str(out)]) == 0
    with pycolmap.Database.open(out / "database.db") as database:
        assert {image.name for image in database.read_all_images()} == {"a.png", "b.png", "c.png", "sub/d.png"}
        assert database.num_cameras() == 1
        assert database.num_verified_image_pairs() == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "b.png", "c.png", "--out", "m.png"], "two images, found 3"),
        (
            ["a.png", "b.png", "--format", "hloc", "--out", "o", "--matches", "m.csv"],
            "--matches has no effect with --format hloc",
        ),
        (["a.png", "--format", "hloc", "--out", "o"], "at least two images"),
        (["a.png", "a.png", "--format", "hloc", "--out", "o"], "passed twice"),
        (["a.png", "b.png", "--format", "hloc", "--out", "o", "--keypoints", "orb"], "expected patches, sift or a"),
        (["empty", "--format", "hloc", "--out", "o"], "the folder contains no images"),
    ],
)
def test_mistakes_are_one_line(
    model: str, folder: Path, capsys: pytest.CaptureFixture, monkeypatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    assert main(["match", *arguments, "--model", model]) != 0
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("loco match: ")
    assert message in error
    assert not (folder / "o/matches.h5").exists()
