"""A tiny simulated house in the raw Matterport3D layout."""

import shutil

import pytest

from loco.datasets.synthetic import simulate_scene

SETTINGS = {"seed": 3, "rooms": 1, "panoramas": 1, "image": {"height": 64, "width": 80}, "repetition": 0.5}


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    raw = tmp_path_factory.mktemp("raw")
    simulate_scene("matterport3d", raw / "house", "house", SETTINGS)
    return raw


@pytest.fixture
def raw(pristine, tmp_path):
    """A copy of the raw folder that a test may damage; it holds the scene `house`."""
    return shutil.copytree(pristine, tmp_path / "raw")
