"""Simulated photographs of a plane: the written homographies state where every point is seen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from loco.simulate import simulate_scene

SIZE = (96, 128)
SETTINGS = {"seed": 1, "rooms": 1, "repetition": 0.3, "image": {"height": SIZE[0], "width": SIZE[1]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planes")
    for scene in ("v_elm", "i_oak"):
        simulate_scene("hpatches", folder / scene, scene, SETTINGS)
    return folder


def _read(folder, scene):
    images = [cv2.imread(str(folder / scene / f"{k}.ppm")) for k in range(1, 7)]
    return images, [np.loadtxt(folder / scene / f"H_1_{k}") for k in range(2, 7)]


def test_the_homographies_align_the_views(folder):
    (first, *others), homographies = _read(folder, "v_elm")
    assert first.shape == (*SIZE, 3)
    for image, homography in zip(others, homographies):
        back = np.linalg.inv(homography)  # OpenCV counts pixel centres from 0, as the files do
        seen = cv2.warpPerspective(np.ones(SIZE, np.uint8), back, SIZE[::-1]) > 0
        assert seen.mean() > 0.5
        error, shifted = (
            np.abs(cv2.warpPerspective(image, move @ back, SIZE[::-1]).astype(float) - first)[seen].mean()
            for move in (np.eye(3), np.array([[1, 0, 2.0], [0, 1, 0], [0, 0, 1]]))
        )
        assert error < 8  # of 255; the views are sharp where they are near
        assert shifted > 1.5 * error


def test_views_turn_away_more_and_more(folder):
    _, homographies = _read(folder, "v_elm")
    corners = np.array([[0, 0, 1], [128, 0, 1], [0, 96, 1], [128, 96, 1.0]])
    depths = [corners @ h.T[:, 2] / h[2, 2] for h in homographies]
    spread = [depth.max() / depth.min() for depth in depths]  # how much nearer one corner is than another
    assert spread[-1] > spread[0] > 1.01


def test_light_changes_and_the_view_does_not(folder):
    (first, *others), homographies = _read(folder, "i_oak")
    assert all(np.array_equal(homography, np.eye(3)) for homography in homographies)
    for image in others:
        assert np.abs(image.astype(float) - first).mean() > 8
        assert np.corrcoef(image.mean(axis=2).ravel(), first.mean(axis=2).ravel())[0, 1] > 0.7


def test_a_sequence_is_the_same_each_time(folder, tmp_path):
    simulate_scene("hpatches", tmp_path / "v_elm", "v_elm", SETTINGS)
    for file in sorted((folder / "v_elm").iterdir()):
        assert (tmp_path / "v_elm" / file.name).read_bytes() == file.read_bytes()
