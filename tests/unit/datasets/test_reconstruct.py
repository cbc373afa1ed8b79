import logging
import shutil
from pathlib import Path

import cv2
import numpy as np
import open3d as o3d
import pycolmap
import pytest

from loco.datasets import check_scene, open_scene
from loco.datasets.reconstruct import reconstruct
from loco.errors import DataError
from loco.simulate.photographs import photograph, room, sideways
from loco.simulate.render import Renderer

IMAGES = 14


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return room("room")


@pytest.fixture(scope="module")
def poses(renderer) -> np.ndarray:
    return sideways(renderer, IMAGES)


@pytest.fixture(scope="module")
def photographs(renderer, poses, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    photograph(renderer, poses, (256, 320), folder)
    return folder


def test_neighbours_are_matched_only_in_an_unambiguous_order(tmp_path):
    """COLMAP sorts names as text: 1, 10, 2."""
    for k in range(1, 12):
        (tmp_path / "walk" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "walk" / "a" / f"{k}.jpg").touch()
    with pytest.raises(
        DataError, match=r"number 2 is 2.jpg in natural order[\s\S]*10.jpg in lexicographic[\s\S]*rename"
    ):
        reconstruct(tmp_path / "walk", tmp_path / "out", {"matcher": "sequential"}, threads=1)


def aligned(points: np.ndarray, onto: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Map ``points`` and ``others`` by the similarity that best aligns ``points`` with ``onto`` (Umeyama 1991)."""
    middle, target = points.mean(axis=0), onto.mean(axis=0)
    u, s, vt = np.linalg.svd((onto - target).T @ (points - middle))
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    turn = u @ flip @ vt
    scale = np.trace(np.diag(s) @ flip) / np.sum((points - middle) ** 2)
    return tuple(scale * (each - middle) @ turn.T + target for each in (points, others))


def test_a_room_is_reconstructed_from_photographs_alone(photographs, poses, renderer, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="loco"):
        reconstruct(photographs, tmp_path / "room", {"matcher": "exhaustive"}, threads=2)
    assert "extracted features of 14 photographs" in caplog.text
    assert check_scene("colmap", tmp_path, "room", "all")["ok"]
    scene = open_scene("colmap", tmp_path, "room")
    frames = list(scene.frames(scene.names("all")))
    assert len(frames) + len(scene.skipped) == IMAGES
    assert len(frames) >= IMAGES - 2
    true = np.array([poses[int(frame.name[:2]), :3, 3] for frame in frames])
    centres, points = aligned(np.array([frame.pose[:3, 3] for frame in frames]), true, scene.tracks())
    distance = np.linalg.norm(centres - true, axis=1)
    assert np.median(distance) < 0.03
    assert distance.max() < 0.08
    # Its points lie on the surfaces of the room.
    nearest = renderer.scene.compute_distance(o3d.core.Tensor(points.astype(np.float32))).numpy()
    assert len(points) > 200
    assert np.median(nearest) < 0.06


def test_the_same_model_every_time_whatever_the_threads(photographs, tmp_path):
    # Several runs: with more than one thread, the mapper returns one of a few models, at random.
    runs = {"a": 1, "b": 2, "c": 2, "d": 4}
    for name, threads in runs.items():
        settings = {"matcher": "exhaustive", "images": str(photographs)}
        reconstruct(photographs, tmp_path / name, settings, threads)
    files = [path.relative_to(tmp_path / "a") for path in sorted((tmp_path / "a").rglob("*")) if path.is_file()]
    assert len(files) == IMAGES + 5
    for file in files:
        assert len({(tmp_path / name / file).read_bytes() for name in runs}) == 1
    assert {path.name for path in tmp_path.iterdir()} == set(runs)


def test_neighbours_in_the_order_of_names_are_matched(photographs, tmp_path):
    reconstruct(photographs, tmp_path / "room", {"matcher": "sequential"}, threads=2)
    assert len(open_scene("colmap", tmp_path, "room").names("all")) >= IMAGES - 2


def too_few(folder, photographs):
    for name in ("00.jpg", "01.jpg"):
        shutil.copy(photographs / name, folder)


def nothing_in_common(folder, photographs):
    for k in range(4):
        noise = np.random.default_rng(k).integers(0, 255, (120, 160, 3), np.uint8)
        cv2.imwrite(str(folder / f"{k}.png"), noise)


def no_image(folder, photographs):
    shutil.copytree(photographs, folder, dirs_exist_ok=True)
    (folder / "broken.jpg").write_bytes(b"no image")


def another_size(folder, photographs):
    shutil.copytree(photographs, folder, dirs_exist_ok=True)
    cv2.imwrite(str(folder / "other.jpg"), np.zeros((100, 100, 3), np.uint8))


@pytest.mark.parametrize(
    ("fill", "problem"),
    [
        (too_few, "too few photographs"),
        (nothing_in_common, "no model could be reconstructed"),
        (no_image, "cannot be used \\(1 of \\d+\\): broken.jpg"),
        (another_size, "cannot be used \\(1 of \\d+\\): other.jpg"),
    ],
)
def test_what_cannot_be_reconstructed_is_said_and_leaves_nothing(fill, problem, photographs, tmp_path):
    folder, results = tmp_path / "photographs", tmp_path / "results"
    folder.mkdir()
    fill(folder, photographs)
    with pytest.raises(DataError, match=problem) as caught:
        reconstruct(folder, results / "room", {"matcher": "exhaustive"}, threads=1)
    assert "what to do" in str(caught.value)
    assert not results.exists() or list(results.iterdir()) == []


def test_a_model_of_too_few_photographs_is_none(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(pycolmap, "incremental_mapping", lambda *_, **__: {0: pycolmap.Reconstruction()})
    with pytest.raises(DataError, match="no model could be reconstructed"):
        reconstruct(photographs, tmp_path / "room", {"matcher": "sequential"}, threads=1)


def test_photographs_of_two_sizes_may_come_from_two_cameras(photographs, tmp_path):
    folder = shutil.copytree(photographs, tmp_path / "photographs")
    for k in range(0, IMAGES, 2):
        image = cv2.imread(str(folder / f"{k:02d}.jpg"))
        cv2.imwrite(str(folder / f"{k:02d}.jpg"), cv2.resize(image, (300, 240), interpolation=cv2.INTER_AREA))
    reconstruct(folder, tmp_path / "room", {"matcher": "exhaustive", "single_camera": False}, threads=2)
    assert check_scene("colmap", tmp_path, "room", "all")["ok"]
    scene = open_scene("colmap", tmp_path, "room")
    sizes = {frame.rgb.shape[:2] for frame in scene.frames(scene.names("all"))}
    assert sizes == {(256, 320), (240, 300)}
