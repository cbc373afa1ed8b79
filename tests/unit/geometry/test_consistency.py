"""Agreement of depth images: on a room in closed form, against points that are compared one by one."""

from __future__ import annotations

import numpy as np
import pytest

from loco.geometry.cameras import backproject, project
from loco.geometry.consistency import TOLERANCE, Views
from tests.unit.geometry.rooms import SIZE, K, depth_of, walk

POSES = walk(16)
DEPTHS = [depth_of(pose) for pose in POSES]


@pytest.fixture(scope="module")
def views() -> Views:
    return Views(DEPTHS, [K] * len(POSES))


def test_a_correct_recording_agrees(views):
    found = views.agreement(POSES)
    assert found.consistency > 0.995
    assert found.error < 0.01
    assert 0.3 < found.overlap < 1
    assert found.pairs > 2 * len(POSES)


def test_the_counts_are_those_of_points_compared_one_by_one():
    """Two frames, each point looked up in the closed form of what the other camera sees along its ray."""
    a, b = POSES[0], POSES[1]
    step = max(1, SIZE[0] // 10)
    agree = contradict = points = 0
    for pose, other in ((a, b), (b, a)):
        depth = depth_of(pose)
        for row in range(step // 2, SIZE[0], step):
            for column in range(step // 2, SIZE[1], step):
                points += 1
                point = backproject(np.array([column + 0.5, row + 0.5]), depth[row, column], K, pose)
                (u, v), z = project(point, K, other)
                if z > 0 and 0.5 <= u <= SIZE[1] - 0.5 and 0.5 <= v <= SIZE[0] - 0.5:
                    shifted = K.copy()
                    shifted[:2, 2] += 0.5 - u, 0.5 - v  # so that this ray goes through the centre of pixel 0
                    gap = z / depth_of(other, shifted, (1, 1))[0, 0] - 1
                    agree, contradict = agree + (abs(gap) <= TOLERANCE), contradict + (gap < -TOLERANCE)
    found = Views([depth_of(a), depth_of(b)], [K, K]).agreement(np.array([a, b]))
    assert agree > 50
    assert found.consistency == pytest.approx(agree / (agree + contradict), abs=0.02)
    assert found.overlap == pytest.approx(agree / points, abs=0.06)  # positions on depth edges are left out


def test_the_unit_of_length_has_no_effect(views):
    small = POSES.copy()
    small[:, :3, 3] /= 1000
    found, same = views.agreement(small, scale=1e-3), views.agreement(POSES)
    assert (found.consistency, found.overlap, found.pairs) == (same.consistency, same.overlap, same.pairs)
    assert found.error == pytest.approx(same.error / 1000)


def test_a_move_of_the_world_has_no_effect(views):
    moved = POSES[3] @ POSES
    assert views.agreement(moved).net == pytest.approx(views.agreement(POSES).net, abs=1e-6)


def test_an_error_along_the_axis_is_measured():
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, 2, 3] = 0.05  # stated to be nearer to the wall, which looks as far: 5 cm of 3 m
    found = Views([np.full(SIZE, 3.0)] * 2, [K] * 2).agreement(poses)
    assert found.error == pytest.approx(0.05, abs=1e-6)
    assert found.consistency == 1


def test_holes_and_frames_that_see_nothing_of_each_other():
    back = np.diag([-1.0, 1, -1, 1])
    depth = depth_of(np.eye(4))
    depth[::2] = np.nan
    found = Views([depth, np.zeros(SIZE)], [K, K]).agreement(np.array([np.eye(4), back]))
    assert (found.pairs, found.consistency, found.overlap) == (0, 0, 0)
    assert np.isnan(found.error)


def test_rows_that_are_counted_from_the_bottom(views):
    """Intrinsics scaled as the files state them: the principal point keeps its distance from the bottom, scaled."""
    scaled = K.copy()
    scaled[:2] *= 1.25
    scaled[1, 2] = SIZE[0] - 1.25 * (SIZE[0] - K[1, 2])
    wrong = Views(DEPTHS, [scaled] * len(POSES), rows_from_bottom=True)
    assert wrong.agreement(POSES).consistency < 0.8
    assert wrong.agreement(POSES, zoom=0.8).net == pytest.approx(views.agreement(POSES).net, abs=1e-6)
