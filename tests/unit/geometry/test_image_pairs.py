import numpy as np
import pytest

from loco.geometry.image_pairs import mutual_overlap, overlapping_pairs

OVERLAP = np.array([[1, 0.2, 0.3, 0.2], [0.1, 1, 0, 0], [0.5, 0, 1, 0], [0.2, 0, 0, 1]])


def test_mutual_overlap_is_the_mean_of_both_directions():
    np.testing.assert_allclose(mutual_overlap(OVERLAP)[0], [1, 0.15, 0.4, 0.2])


@pytest.mark.parametrize(("min_baseline", "expected"), [(0.0, {(0, 2), (0, 3)}), (1.5, {(0, 3)}), (4.0, set())])
def test_images_must_see_enough_of_each_other_from_different_places(min_baseline, expected):
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 0, 3] = [0, 1, 1, 2]
    pairs = overlapping_pairs(poses, OVERLAP, 0.2, min_baseline)
    assert {(a, b) for a, b in np.argwhere(pairs).tolist() if a < b} == expected
    np.testing.assert_array_equal(pairs, pairs.T)
    assert not pairs.diagonal().any()
