"""Agreement of depth images: on a room in closed form, compared with a point-by-point computation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loco.geometry.cameras import backproject, project
from loco.geometry.consistency import TOLERANCE, Sightings, Views
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
    """Two frames; each point is compared with the closed-form depth that the other camera has along its ray."""
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
                    shifted[:2, 2] += 0.5 - u, 0.5 - v  # so that this ray passes through the centre of pixel 0
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
    poses[1, 2, 3] = 0.05  # the wall is stated to be nearer than it is: 5 cm at 3 m
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
    """Intrinsics are scaled as in the files: the principal point keeps its distance from the bottom, scaled."""
    scaled = K.copy()
    scaled[:2] *= 1.25
    scaled[1, 2] = SIZE[0] - 1.25 * (SIZE[0] - K[1, 2])
    wrong = Views(DEPTHS, [scaled] * len(POSES), rows_from_bottom=True)
    assert wrong.agreement(POSES).consistency < 0.8
    assert wrong.agreement(POSES, zoom=0.8).net == pytest.approx(views.agreement(POSES).net, abs=1e-6)


def sightings(points: np.ndarray, noise: float = 0.0, seed: int = 0) -> Sightings:
    """Return which of the points (t, 3) each frame shows, and at which pixel, with an error of ``noise`` pixels."""
    rng = np.random.default_rng(seed)
    uv, point, frame = [], [], []
    for k, pose in enumerate(POSES):
        at, z = project(points, K, pose)
        inside = (z > 0) & (at >= 0).all(axis=1) & (at < SIZE[::-1]).all(axis=1)
        uv.append(at[inside] + rng.normal(scale=noise, size=(inside.sum(), 2)) if noise else at[inside])
        point.append(np.flatnonzero(inside))
        frame.append(np.full(inside.sum(), k))
    intrinsics, tolerance = np.tile(K, (len(POSES), 1, 1)), np.full(len(POSES), 2.0)
    return Sightings(points, *map(np.concatenate, (uv, point, frame)), intrinsics, tolerance)


POINTS = np.random.default_rng(1).uniform(-1.5, 1.5, (200, 3))


def test_the_counts_of_sightings_are_those_of_pairs_of_frames_compared_one_by_one():
    found = sightings(POINTS, noise=1.5)
    shown = [dict(zip(found.point[found.frame == k], found.uv[found.frame == k])) for k in range(len(POSES))]

    def agrees(frame: int, point: int) -> bool:
        at, z = project(POINTS[point], K, POSES[frame])
        return bool(z > 0 and np.linalg.norm(at - shown[frame][point]) <= 2)

    agree, contradict = np.zeros((2, len(POSES), len(POSES)))
    for a in range(len(POSES)):
        for b in set(range(len(POSES))) - {a}:
            for point in set(shown[a]) & set(shown[b]):
                both = agrees(a, point) and agrees(b, point)
                agree[a, b], contradict[a, b] = agree[a, b] + both, contradict[a, b] + (not both)
    agreement = found.agreement(POSES)
    assert 0.2 < agree.sum() / (agree + contradict).sum() < 0.8
    assert agreement.consistency == pytest.approx(agree.sum() / (agree + contradict).sum(), abs=1e-12)
    shares = [agree[k].max() / max(len(shown[k]), 1) for k in range(len(POSES))]
    assert agreement.overlap == pytest.approx(np.median(shares), abs=1e-12)
    assert agreement.pairs == ((agree + contradict) > 0).sum()
    assert np.isnan(agreement.error)


def test_sightings_are_scaled_as_their_files():
    exact = sightings(POINTS)
    assert exact.agreement(POSES).consistency == 1
    assert exact.agreement(np.linalg.inv(POSES)).consistency < 0.5
    large = replace(exact, points=5 * POINTS)
    assert large.agreement(POSES).consistency < 0.5
    assert large.agreement(POSES, scale=0.2).consistency == 1
    resized = replace(exact, intrinsics=exact.intrinsics * np.array([[1.25], [1.25], [1.0]]))
    assert resized.agreement(POSES).consistency < 0.5
    assert resized.agreement(POSES, zoom=0.8).consistency == 1
