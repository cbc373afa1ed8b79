from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from loco.geometry.alignment import rigid_fit, robust_rigid_fit


def random_motion(rng):
    motion = np.eye(4)
    motion[:3, :3] = Rotation.random(random_state=rng.integers(2**31)).as_matrix()
    motion[:3, 3] = rng.normal(size=3) * 3
    return motion


def moved(points, motion):
    return points @ motion[:3, :3].T + motion[:3, 3]


@settings(deadline=None, max_examples=50)
@given(st.integers(3, 20), st.floats(-2, 2), st.integers(0, 2**32 - 1))
def test_exact_points_give_the_motion(m, magnitude, seed):
    rng = np.random.default_rng(seed)
    motion, points = random_motion(rng), 10**magnitude * rng.normal(size=(m, 3))
    np.testing.assert_allclose(rigid_fit(points, moved(points, motion)), motion, atol=1e-7)


def test_points_of_a_plane_suffice():
    rng = np.random.default_rng(0)
    motion, points = random_motion(rng), rng.normal(size=(30, 3)) * [1, 1, 0]
    np.testing.assert_allclose(rigid_fit(points, moved(points, motion)), motion, atol=1e-12)


@pytest.mark.parametrize("flat", [1, 0])
def test_it_is_never_a_reflection(flat):
    points = np.random.default_rng(0).normal(size=(20, 3)) * [1, 1, flat]
    mirrored = points * [1, 1, -1]
    rotation = rigid_fit(points, mirrored)[:3, :3]
    assert np.linalg.det(rotation) == pytest.approx(1)
    expected, _ = Rotation.align_vectors(mirrored - mirrored.mean(axis=0), points - points.mean(axis=0))
    np.testing.assert_allclose(rotation, expected.as_matrix(), atol=1e-9)


def test_noisy_points_give_the_least_squares():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(5, 40, 3))
    noisy = np.stack([moved(p, random_motion(rng)) for p in points]) + 0.3 * rng.normal(size=points.shape)
    for motion, a, b in zip(rigid_fit(points, noisy), points, noisy):
        expected, _ = Rotation.align_vectors(b - b.mean(axis=0), a - a.mean(axis=0))
        np.testing.assert_allclose(motion[:3, :3], expected.as_matrix(), atol=1e-9)
        np.testing.assert_allclose(moved(a.mean(axis=0), motion), b.mean(axis=0), atol=1e-12)


def test_weights_give_the_weighted_least_squares():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(5, 40, 3))
    noisy = np.stack([moved(p, random_motion(rng)) for p in points]) + 0.3 * rng.normal(size=points.shape)
    weights = rng.exponential(size=(5, 40))
    found = rigid_fit(points, noisy, weights)
    for motion, a, b, w in zip(found, points, noisy, weights):
        middle_a, middle_b = (np.average(side, axis=0, weights=w) for side in (a, b))
        expected, _ = Rotation.align_vectors(b - middle_b, a - middle_a, weights=w)
        np.testing.assert_allclose(motion[:3, :3], expected.as_matrix(), atol=1e-9)
        np.testing.assert_allclose(moved(middle_a, motion), middle_b, atol=1e-12)
    np.testing.assert_allclose(rigid_fit(points, noisy, 1e6 * weights), found, atol=1e-12)
    np.testing.assert_allclose(rigid_fit(points, noisy, np.full((5, 40), 0.3)), rigid_fit(points, noisy), atol=1e-12)


def test_points_of_weight_zero_do_not_count():
    rng = np.random.default_rng(2)
    motion, a = random_motion(rng), rng.normal(size=(20, 3))
    b = moved(a, motion)
    b[10:] = rng.normal(size=(10, 3))
    np.testing.assert_allclose(rigid_fit(a, b, (np.arange(20) < 10) * 2.0), motion, atol=1e-12)


@pytest.mark.parametrize("scale", [1, 1e-9, 1e9])
def test_exact_points_give_the_motion_whatever_their_weights(scale):
    rng = np.random.default_rng(3)
    motion, a, weights = random_motion(rng), rng.normal(size=(50, 3)), rng.exponential(size=50)
    found, agreeing = robust_rigid_fit(a, moved(a, motion), 0.1, 50, np.random.default_rng(0), scale * weights)
    np.testing.assert_allclose(found, motion, atol=1e-9)
    assert agreeing.all()


def test_informative_weights_give_better_motions():
    """Weights by the inverse square of known standard deviations are those of maximum likelihood.

    They reduce the error of the rotation; equal weights give the unweighted fit.
    """
    errors = {name: [] for name in ("none", "equal", "informative")}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        motion, a, spread = random_motion(rng), rng.uniform(-1, 1, (100, 3)), rng.choice([0.005, 0.05], 100)
        b = moved(a, motion) + spread[:, None] * rng.normal(size=(100, 3))
        for name, weights in (("none", None), ("equal", np.full(100, 0.7)), ("informative", spread**-2.0)):
            found, _ = robust_rigid_fit(a, b, 0.3, 100, np.random.default_rng(seed), weights)
            errors[name].append(np.linalg.norm(found[:3, :3] - motion[:3, :3]))
    means = {name: np.mean(column) for name, column in errors.items()}
    assert means["informative"] < 0.35 * means["none"]
    assert means["equal"] == pytest.approx(means["none"], rel=0.01)


def test_points_of_greater_weight_are_drawn_more_often():
    """20 of 400 matches are right: one of 8000 uniform triples has only these, every second one drawn by weight."""
    rng = np.random.default_rng(4)
    motion, a = random_motion(rng), rng.uniform(-3, 3, (400, 3))
    b = moved(rng.uniform(-3, 3, (400, 3)), motion)
    b[:20] = moved(a[:20], motion)
    weights = np.where(np.arange(400) < 20, 1, 0.01)
    found, agreeing = robust_rigid_fit(a, b, 0.05, 50, np.random.default_rng(0), weights)
    np.testing.assert_allclose(found, motion, atol=0.05)
    assert agreeing[:20].all()
    alone = robust_rigid_fit(a, b, 0.05, 50, np.random.default_rng(0))
    assert alone is None or alone[1][:20].sum() < 10


@pytest.mark.parametrize("seed", range(5))
def test_six_in_ten_wrong_matches_change_nothing(seed):
    rng = np.random.default_rng(seed)
    motion, a = random_motion(rng), rng.uniform(-3, 3, (200, 3))
    b = moved(a, motion)
    wrong = rng.permutation(200) < 120
    b[wrong] = moved(rng.uniform(-3, 3, (120, 3)), motion)
    b[~wrong] += rng.uniform(-0.005, 0.005, (80, 3))
    right = np.linalg.norm(moved(a, motion) - b, axis=1) < 0.05
    found, agreeing = robust_rigid_fit(a, b, 0.05, 500, np.random.default_rng(0))
    np.testing.assert_allclose(found, rigid_fit(a[right], b[right]), atol=1e-9)
    np.testing.assert_array_equal(agreeing, right)
    again, _ = robust_rigid_fit(a, b, 0.05, 500, np.random.default_rng(0))
    np.testing.assert_array_equal(found, again)


def test_too_little_determines_no_motion():
    rng = np.random.default_rng(0)
    points, line = rng.normal(size=(50, 3)), rng.normal(size=(50, 1)) * [1.0, 2, 3] + 1
    assert robust_rigid_fit(points[:2], points[:2], 0.1, 100, rng) is None
    assert robust_rigid_fit(line, line, 0.1, 100, rng) is None
    assert robust_rigid_fit(np.tile(points[:1], (50, 1)), points, 1e-6, 100, rng) is None
    assert robust_rigid_fit(points, rng.normal(size=(50, 3)), 1e-6, 100, rng) is None
    np.testing.assert_allclose(robust_rigid_fit(points[:3], points[:3], 0.1, 100, rng)[0], np.eye(4), atol=1e-12)
