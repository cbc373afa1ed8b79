from __future__ import annotations

import numpy as np

from loco.evaluation.image_pairs import bin_number, pairs_of_dataset, round_robin


def test_bins_hold_their_lower_edges_and_the_last_its_upper_one():
    found = bin_number([0.05, 0.1, 0.29, 0.3, 0.99, 1.0], [0.1, 0.3, 1.0])
    np.testing.assert_array_equal(found, [-1, 0, 0, 1, 1, 1])
    assert bin_number(1.01, [0.1, 0.3, 1.0]) == 2
    assert bin_number([], [0, 1]).shape == (0,)


def test_decks_are_dealt_in_turn():
    assert list(round_robin(["abc", "", "d", "ef"])) == ["a", "d", "e", "b", "f", "c"]
    assert list(round_robin([])) == []


def test_pairs_of_a_dataset_are_given_by_number(make_scene):
    pose = np.diag([1.0, -1, -1, 1])
    truth = {"pairs": [{"a": "right", "b": "left", "pose_a_to_b": pose.tolist()}]}
    features, poses = np.ones((2, 2, 2, 1)), np.tile(np.eye(4), (2, 1, 1))
    ((a, b, a_to_b),) = pairs_of_dataset(make_scene(poses, features, names=["left", "right"], ground_truth=truth))
    assert (a, b) == (1, 0)
    np.testing.assert_array_equal(a_to_b, pose)
    assert pairs_of_dataset(make_scene(poses, features, scene="plain")) is None
