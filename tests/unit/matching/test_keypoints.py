"""Keypoints: their positions, and the features at them."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from loco.matching.keypoints import describe, detect, global_descriptor


def test_patches_are_keypoints_at_their_centres_within_the_image():
    positions = detect(np.zeros((20, 30, 3), np.uint8), "patches", stride=8, max_keypoints=1)
    # 3 x 4 patches; the centre of the last row, at 20, and of the last column, at 28: only the latter is inside.
    assert positions.tolist() == [[u, v] for v in (4, 12) for u in (4, 12, 20, 28)]


def test_a_keypoint_at_a_patch_centre_has_the_feature_of_the_patch():
    feature_map = normalize(torch.randn(5, 3, 4), dim=0)
    positions = np.array([[4.0, 4.0], [28.0, 12.0]])
    found = describe(feature_map, positions, stride=8)
    np.testing.assert_allclose(found.descriptors, feature_map[:, [0, 1], [0, 3]].T, atol=1e-6)
    assert found.positions.dtype == np.float32
    assert found.positions.tolist() == positions.tolist()


def test_between_patches_features_are_interpolated():
    feature_map = torch.zeros(2, 1, 2)
    feature_map[0, 0, 0] = feature_map[1, 0, 1] = 1
    found = describe(feature_map, np.array([[6.0, 4.0]]), stride=8)  # a quarter of the way
    expected = np.array([0.75, 0.25]) / np.hypot(0.75, 0.25)
    np.testing.assert_allclose(found.descriptors[0], expected, atol=1e-6)


def test_sift_finds_a_corner_once():
    image = np.zeros((60, 80, 3), np.uint8)
    image[20:40, 30:50] = 255
    positions = detect(image, "sift", stride=4, max_keypoints=100)
    assert len(positions) == len(np.unique(positions, axis=0)) > 0
    corners = np.array([[30, 20], [50, 20], [30, 40], [50, 40]])
    assert np.linalg.norm(positions[:, None] - corners, axis=2).min(axis=0).max() < 4


def test_similar_images_have_similar_global_descriptors():
    torch.manual_seed(0)
    first = normalize(torch.randn(16, 6, 8), dim=0)
    near, far = normalize(first + 0.1 * torch.randn(16, 6, 8), dim=0), normalize(torch.randn(16, 6, 8), dim=0)
    of_first, of_near, of_far = map(global_descriptor, (first, near, far))
    assert of_first @ of_near > of_first @ of_far
    assert of_first.norm() == pytest.approx(1)
