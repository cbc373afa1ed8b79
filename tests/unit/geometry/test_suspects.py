"""Common mistakes, made on purpose in a room in closed form, are named; correct recordings raise no suspicion."""

from __future__ import annotations

import numpy as np
import pytest

from loco.geometry.consistency import Views
from loco.geometry.suspects import MIN_CONSISTENCY, OPENGL, Diagnosis, diagnose
from tests.unit.geometry.rooms import SIZE, K, depth_of, walk

COUNT = 16
POSES = walk(COUNT)
DEPTHS = [depth_of(pose) for pose in POSES]


def diagnosed(poses=POSES, depths=DEPTHS, intrinsics=K) -> Diagnosis:
    views = Views(depths, [intrinsics] * len(depths))
    return diagnose(views, poses, lambda numbers: poses[numbers % len(poses)], np.arange(len(poses)))


@pytest.mark.parametrize(
    ("fault", "poses"),
    [
        ("inverse", np.linalg.inv(POSES)),
        ("axes", POSES @ OPENGL),
        ("inverse and axes", np.linalg.inv(POSES @ OPENGL)),
        ("reversed", POSES[::-1]),
        ("shift", np.roll(POSES, 1, axis=0)),
        ("unknown", POSES[np.random.default_rng(3).permutation(COUNT)]),
    ],
)
def test_faults_of_poses(fault, poses):
    found = diagnosed(np.ascontiguousarray(poses))
    assert found.fault == fault
    if fault == "unknown":
        assert found.found.consistency < MIN_CONSISTENCY
        assert found.repaired is None
    else:
        assert found.repaired.consistency > 0.99
        assert found.amount == 1


@pytest.mark.parametrize("factor", [5.0, 0.2, 1000.0, 0.001])
def test_faults_of_the_unit_of_depth(factor):
    found = diagnosed(depths=[factor * depth for depth in DEPTHS])
    assert found.fault == "depth"
    assert found.amount == pytest.approx(1 / factor)


@pytest.mark.parametrize("factor", [4 / 3, 0.75, 2.0, 0.8, 1.42])
def test_intrinsics_of_images_of_another_size(factor):
    found = diagnosed(intrinsics=K * [[factor], [factor], [1]])
    assert found.fault == "intrinsics"
    assert found.amount == pytest.approx(1 / factor, rel=0.06)


@pytest.mark.parametrize("factor", [4 / 3, 0.8])
def test_focal_lengths_alone(factor):
    found = diagnosed(intrinsics=K * [[factor, 1, 1], [1, factor, 1], [1, 1, 1]])
    assert found.fault in ("focal", "intrinsics")  # the principal point hardly matters if frames overlap little
    assert found.repaired.consistency > 0.9


def test_no_false_alarm_for_noise_or_few_frames():
    rng = np.random.default_rng(0)
    noisy = [depth * (1 + 0.01 * rng.normal(size=SIZE)) for depth in DEPTHS]
    assert diagnosed(depths=noisy).fault is None
    drift = POSES.copy()
    drift[:, :3, 3] += np.cumsum(rng.normal(scale=0.004, size=(COUNT, 3)), axis=0)
    assert diagnosed(drift, noisy).fault is None
    assert diagnosed(POSES[:2], DEPTHS[:2]).fault is None


def test_a_camera_that_only_turns_does_not_tell_the_unit():
    still = POSES.copy()
    still[:, :3, 3] = 0.1
    depths = [depth_of(pose) for pose in still]
    assert diagnosed(still, depths).fault is None
    assert diagnosed(still, [5 * depth for depth in depths]).fault is None  # nothing contradicts the recording


def test_frames_that_do_not_overlap_are_not_judged():
    back = np.stack([np.eye(4), np.diag([-1.0, 1, -1, 1])])
    assert diagnosed(back, [depth_of(pose) for pose in back]).fault is None
