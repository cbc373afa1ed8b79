"""The selection of image pairs."""

import pytest
import torch
from torch.nn.functional import normalize

from loco.matching.pairs import select_pairs


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_exhaustive_is_every_pair_once(count):
    pairs = select_pairs("exhaustive", torch.eye(5)[:count], neighbours=1)
    assert len(set(pairs)) == len(pairs) == count * (count - 1) // 2
    assert all(i < j for i, j in pairs)


def test_sequential_are_the_images_that_follow():
    assert select_pairs("sequential", torch.eye(4), neighbours=2) == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]


def test_retrieval_are_the_most_similar_images_without_repetitions():
    angle = torch.tensor([0.0, 0.1, 1.5, 1.55, 3.0])
    descriptors = normalize(torch.stack([angle.cos(), angle.sin()], dim=1), dim=1)
    assert select_pairs("retrieval", descriptors, neighbours=1) == [(0, 1), (2, 3), (3, 4)]


@pytest.mark.parametrize("selection", ["sequential", "retrieval"])
def test_more_neighbours_than_images_are_all_pairs(selection):
    assert select_pairs(selection, torch.eye(3), neighbours=9) == [(0, 1), (0, 2), (1, 2)]
