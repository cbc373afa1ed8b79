"""The origin of a scene's local coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from loco.geometry.origin import FAR, local_origin, single_step

CENTRES = np.random.default_rng(0).uniform(-3, 3, (50, 3))


@pytest.mark.parametrize("shift", [np.zeros(3), [900.0, -900, 0]])
def test_scenes_near_zero_keep_their_coordinates(shift):
    assert not local_origin(CENTRES + shift).any()
    assert not local_origin(np.empty((0, 3))).any()


@pytest.mark.parametrize("shift", [[5e5, 5.4e6, 512.3], [4e6, -2e5, 4.9e6], [0, 0, -1200]])
def test_far_scenes_get_an_origin_of_few_digits_near_them(shift):
    origin = local_origin(CENTRES + shift)
    assert np.abs(origin - shift).max() < 20
    assert np.array_equal(origin, np.round(origin, -1))  # whole tens of metres
    assert single_step(20) < 1e-5


def test_one_lost_camera_does_not_move_the_origin():
    lost = np.concatenate([CENTRES, [[1e9, 0, 0]]])
    assert not local_origin(lost).any()
    assert np.abs(local_origin(np.add(lost, [5e5, 0, 0])) - [5e5, 0, 0]).max() < 20


def test_models_of_unknown_unit_are_compared_with_their_own_extent():
    small = 1e-3 * CENTRES + [2 * FAR * 3e-3, 0, 0]  # six units away, for cameras that span 0.006 units
    assert not local_origin(small).any()
    assert np.abs(local_origin(small, metric=False) - small.mean(axis=0)).max() < 0.01


def test_the_step_of_single_precision():
    for value in (0.3, 1e3, 5.4e6):
        assert single_step(value) == np.nextafter(np.float32(value), np.float32(np.inf)) - np.float32(value)
