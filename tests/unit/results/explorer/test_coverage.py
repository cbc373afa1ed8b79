"""The choice of views by coverage."""

from __future__ import annotations

import numpy as np

from loco.results.explorer.coverage import CELLS, choose_by_coverage


def wall(pieces: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 1, 100, 3) of images of pieces [first, end) of a wall that is 100 cubes long."""
    points = np.zeros((len(pieces), 1, 100, 3))
    points[..., 0] = np.arange(100) * 100 / CELLS
    valid = np.zeros(points.shape[:3], bool)
    for i, (first, end) in enumerate(pieces):
        valid[i, 0, first:end] = True
    return points, valid


def apart(count: int) -> np.ndarray:
    return np.arange(count)[:, None] * np.array([[0.0, 5.0, 0.0]])


def test_images_that_show_the_most_are_chosen() -> None:
    points, valid = wall([(0, 10), (0, 60), (50, 100), (90, 100)])
    chosen = choose_by_coverage(points, valid, apart(4), 2, 0.1)
    assert chosen.images == [1, 2]
    assert chosen.coverage == 1


def test_coverage_is_the_shown_fraction_of_the_surface() -> None:
    points, valid = wall([(0, 30), (30, 100)])
    # Of 100 points, 98 are in the 48 cubes between the percentiles; the images share none.
    chosen = choose_by_coverage(points, valid, apart(2), 1, 0.1)
    assert chosen.images == [1]
    assert abs(chosen.coverage - 0.7) < 0.03


def test_a_place_counts_from_three_positions_and_no_more() -> None:
    points, valid = wall([(0, 80), (0, 80), (0, 80), (0, 80), (80, 90)])
    assert choose_by_coverage(points, valid, apart(5), 3, 0.1).images == [0, 1, 2]
    assert choose_by_coverage(points, valid, apart(5), 4, 0.1).images == [0, 1, 2, 4]


def test_images_from_one_position_count_once() -> None:
    points, valid = wall([(0, 80), (0, 80), (0, 40)])
    centres = apart(3)
    centres[1] = centres[0] + 0.05
    assert choose_by_coverage(points, valid, centres, 2, 0.1).images == [0, 2]


def test_all_images_of_a_small_scene_are_chosen() -> None:
    points, valid = wall([(0, 10), (0, 10)])
    assert choose_by_coverage(points, valid, apart(2), 20, 0.1).images == [0, 1]
    assert choose_by_coverage(points[:1], valid[:1], apart(1), 20, 0.1).images == [0]
