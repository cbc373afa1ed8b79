import numpy as np
import pytest
from scipy.sparse import triu

from loco.geometry import image_pairs
from loco.geometry.image_pairs import mutual_overlap, overlapping_pairs

OVERLAP = np.array([[1, 0.2, 0.3, 0.2], [0.1, 1, 0, 0], [0.5, 0, 1, 0], [0.2, 0, 0, 1]])


def test_mutual_overlap_is_the_mean_of_both_directions():
    np.testing.assert_allclose(mutual_overlap(OVERLAP)[0], [1, 0.15, 0.4, 0.2])


@pytest.mark.parametrize(("min_baseline", "expected"), [(0.0, {(0, 2), (0, 3)}), (1.5, {(0, 3)}), (4.0, set())])
def test_images_must_see_enough_of_each_other_from_different_places(min_baseline, expected):
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 0, 3] = [0, 1, 1, 2]
    pairs = overlapping_pairs(poses, OVERLAP, 0.2, min_baseline).toarray()
    assert {(a, b) for a, b in np.argwhere(pairs).tolist() if a < b} == expected
    np.testing.assert_array_equal(pairs, pairs.T)
    assert not pairs.diagonal().any()


@pytest.mark.parametrize("block", [1, 30, 64, 1 << 20])
def test_pairs_are_found_some_rows_at_a_time(monkeypatch, block):
    rng = np.random.default_rng(0)
    n = 21
    overlap = rng.random((n, n)).astype(np.float32)
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, :3, 3] = rng.normal(size=(n, 3))
    mutual, baseline = (overlap + overlap.T) / 2, np.linalg.norm(poses[:, None, :3, 3] - poses[None, :, :3, 3], axis=-1)
    expected = (mutual >= 0.5) & (baseline >= 1.0) & ~np.eye(n, dtype=bool)
    monkeypatch.setattr(image_pairs, "_BLOCK", block)
    found = overlapping_pairs(poses, overlap, 0.5, 1.0)
    np.testing.assert_array_equal(found.toarray(), expected)
    assert found.has_sorted_indices
    assert found.data.nbytes + found.indices.nbytes + found.indptr.nbytes <= 9 * expected.sum() + 8 * (n + 1)
    for order, rows in zip(triu(found).nonzero(), np.nonzero(np.triu(expected))):
        np.testing.assert_array_equal(order, rows)  # the order in which benchmarks draw from them


def test_a_scene_without_images_has_no_pairs():
    assert overlapping_pairs(np.empty((0, 4, 4)), np.empty((0, 0)), 0.1, 0.0).shape == (0, 0)
