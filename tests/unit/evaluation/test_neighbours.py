from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from loco.evaluation import neighbours
from loco.evaluation.neighbours import mutual_neighbours


@pytest.mark.parametrize("block", [7, 1000])
def test_mutual_neighbours_against_brute_force(monkeypatch, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    a, b = (np.random.default_rng(count).normal(size=(count, 6)) for count in (40, 33))
    a, b = (features / np.linalg.norm(features, axis=1, keepdims=True) for features in (a, b))
    table = a @ b.T
    expected = [(i, j) for i in range(40) for j in range(33) if table[i, j] == table[i].max() == table[:, j].max()]
    found = mutual_neighbours(torch.from_numpy(a).float(), torch.from_numpy(b).float())
    assert list(zip(*(rows.tolist() for rows in found))) == expected
    assert 5 < len(expected) < 33


def test_of_equal_ones_the_first_is_the_neighbour(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 2)
    same = torch.ones(5, 1)
    assert_array_equal(mutual_neighbours(same, same), [[0], [0]])
