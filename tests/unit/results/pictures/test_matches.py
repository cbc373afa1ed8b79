"""Correspondences of two photographs are mutual, distinctive, and drawn at their positions."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from loco.errors import DataError
from loco.results.pictures.matches import Matches, draw_matches, find_matches, write_matches

ALL = 10**6


def _random_maps(rows: int = 7, columns: int = 9, channels: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng([1])
    maps = torch.from_numpy(rng.normal(size=(2, channels, rows, columns)).astype(np.float32))
    return tuple(F.normalize(maps, dim=1))


def test_matches_are_the_mutual_nearest_neighbours() -> None:
    a, b = _random_maps()
    found = find_matches(a, b, ((28, 36), (28, 36)), 4, ALL)
    cells = [m.double().flatten(1).T.numpy() for m in (a, b)]
    similarity = cells[0] @ cells[1].T
    expected = {}
    for i, row in enumerate(similarity):
        j = int(row.argmax())
        if similarity[:, j].argmax() == i:
            first, second = sorted(1 - row)[:2]
            expected[i % 9 * 4 + 2, i // 9 * 4 + 2] = (j % 9 * 4 + 2, j // 9 * 4 + 2), row[j], 1 - first / second
    assert {tuple(uv) for uv in found.a} == set(expected)
    for uv, place, cosine, ratio in zip(found.a, found.b, found.similarity, found.ratio):
        centre, best, score = expected[tuple(uv)]
        assert np.abs(place - centre).max() <= 6  # the patch or one beside it
        assert cosine == pytest.approx(best, abs=1e-5)
        assert ratio == pytest.approx(score, abs=1e-4)
    assert (np.diff(found.ratio) <= 0).all()


def test_the_place_in_b_is_finer_than_a_patch() -> None:
    """Return features that rotate with the position, so the most similar pixel is known in closed form."""
    stride, shift = 8, 3.0
    u = (torch.arange(12) + 0.5) * stride
    v = (torch.arange(6) + 0.5) * stride

    def waves(moved: float) -> torch.Tensor:
        grid = torch.meshgrid(v / 60, (u - moved) / 60, indexing="ij")
        return F.normalize(torch.stack([part for x in grid for part in (x.cos(), x.sin())]), dim=0)

    found = find_matches(waves(0), waves(shift), ((48, 96), (48, 96)), stride, ALL)
    inner = (found.a > 8).all(axis=1) & (found.a[:, 0] < 80) & (found.a[:, 1] < 40)
    assert inner.sum() > 20
    error = found.b[inner] - found.a[inner] - [shift, 0]
    assert np.abs(error).max() <= 0.75  # centres of pixels; a patch would be up to 4 off


def test_matches_are_spread_over_the_first_image() -> None:
    a, _ = _random_maps(12, 12)
    found = find_matches(a, a, ((48, 48), (48, 48)), 4, 16)
    assert len(found) == 16
    assert len({tuple(square) for square in (found.a // 12).astype(int)}) == 16
    np.testing.assert_array_equal(found.a, found.b)


def test_images_may_differ_in_size_and_what_lies_beyond_them_is_left_out() -> None:
    a, _ = _random_maps(7, 9)
    found = find_matches(a, a[:, :5, :4], ((25, 33), (18, 16)), 4, ALL)
    # The centres of the seventh row (26) and the ninth column (34) of A, and of the fifth row (18) of B, are outside.
    assert len(found) == 4 * 4
    np.testing.assert_array_equal(found.a, found.b)
    # No, one, and one cell centre inside the image.
    for cells, size in (((1, 1), (1, 1)), ((1, 1), (4, 4)), ((1, 2), (4, 6))):
        with pytest.raises(DataError, match="too small"):
            find_matches(a, a[:, : cells[0], : cells[1]], ((28, 36), size), 4, 1)


def test_images_without_a_match_are_drawn_too(tmp_path: Path) -> None:
    nearest_of_none = F.normalize(torch.tensor([[[1.0, 1.0]], [[0.0, 0.1]]]), dim=0)
    a, b = torch.zeros(2, 1, 2), nearest_of_none
    a[0] = 1
    matches = find_matches(a, b, ((4, 8), (4, 8)), 4, 10)
    assert len(matches) <= 1
    empty = Matches(np.empty((0, 2)), np.empty((0, 2)), np.empty(0), np.empty(0))
    draw_matches((np.zeros((4, 8, 3), np.uint8),) * 2, empty, tmp_path / "empty.png")
    assert cv2.imread(str(tmp_path / "empty.png")) is not None


def test_the_list_is_in_pixels_of_the_files(tmp_path: Path) -> None:
    matches = Matches(np.array([[1.5, 2.5]]), np.array([[3.0, 4.0]]), np.array([0.9]), np.array([0.5]))
    write_matches(matches.scaled(np.array([2.0, 3.0]), np.array([10.0, 1.0])), tmp_path / "m.csv")
    line = pd.read_csv(tmp_path / "m.csv").iloc[0].to_dict()
    assert line == {"u_a": 4.5, "v_a": 5.0, "u_b": 3.0, "v_b": 40.0, "similarity": 0.9, "ratio": 0.5}


def test_the_picture_joins_the_two_places(tmp_path: Path) -> None:
    grey = np.full((100, 200, 3), 128, np.uint8), np.full((80, 100, 3), 128, np.uint8)
    matches = Matches(np.array([[50.0, 50.0]]), np.array([[60.0, 20.0]]), np.ones(1), np.ones(1))
    for name in ("one.png", "two.png"):
        draw_matches(grey, matches, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    picture = cv2.imread(str(tmp_path / "one.png")).astype(int)
    scale = picture.shape[1] / 306  # 200 + 2 % of 300 + 100
    assert picture.shape[0] / scale == pytest.approx(100, abs=1)
    coloured = np.argwhere(np.ptp(picture, axis=2) > 60)[:, ::-1] / scale
    ends = np.array([[50, 50], [206 + 60, 20]])
    for end in ends:
        assert np.linalg.norm(coloured - end, axis=1).min() < 1
    along = ends[1] - ends[0]
    distance = np.abs((coloured - ends[0]) @ [along[1], -along[0]]) / np.linalg.norm(along)
    assert distance.max() < 3
    blank = picture[int(scale * 90), int(scale * 250)]  # below the lower, second photograph
    assert (blank == 255).all()
