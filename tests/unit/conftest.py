"""Fixtures of several packages: a simulated house in a raw layout, and a tiny scene of known geometry."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from loco.geometry.raycast import pixel_directions
from loco.simulate import simulate_scene
from loco.steps.correspondence import correspond_scene
from loco.storage import Frames

HOUSE = {"seed": 3, "rooms": 1, "panoramas": 1, "image": {"height": 64, "width": 80}, "repetition": 0.5}
SIZE, COUNT = (32, 48), 10
K = np.array([[40.0, 0, 24], [0, 40.0, 16], [0, 0, 1]])


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """Return a folder with the scene `house`: a tiny house in the layout of Matterport3D."""
    raw = tmp_path_factory.mktemp("raw")
    simulate_scene("matterport3d", raw / "house", "house", HOUSE)
    return raw


@pytest.fixture
def raw(pristine, tmp_path):
    """Return a copy of the raw folder with the scene `house`, which a test may damage."""
    return shutil.copytree(pristine, tmp_path / "raw")


def write_wall(folder: Path, scene: str, seed: int) -> tuple[Path, Path]:
    """Return frames and correspondences of a textured wall 2 m in front of a camera that moves sideways."""
    rng = np.random.default_rng(seed)
    waves, phases = rng.normal(size=(3, 6, 2)) * 6, rng.uniform(0, 6, size=(3, 6))
    poses = np.tile(np.eye(4), (COUNT, 1, 1))
    poses[:, 0, 3] = np.linspace(0, 1.5, COUNT)
    frames_path, correspondences_path = folder / f"{scene}.frames.h5", folder / f"{scene}.correspondences.h5"
    names = [f"image{i}" for i in range(COUNT)]
    with Frames.create(frames_path, "walls", scene, {"n": COUNT, "h": SIZE[0], "w": SIZE[1]}) as file:
        for i, pose in enumerate(poses):
            place = 2 * pixel_directions(K, pose, SIZE)[..., :2] + pose[:2, 3]
            colour = np.stack([np.sin(place @ w.T + p).sum(axis=-1) for w, p in zip(waves, phases)], axis=-1)
            file["rgb"][i] = np.clip(128 + 30 * colour, 0, 255)
            file["depth"][i] = 2.0
        file["source"][:] = 1
        file.facts["names"] = names
        file["pose"][:], file["intrinsics"][:] = poses, np.tile(K, (COUNT, 1, 1))
    correspond_scene(frames_path, correspondences_path, {"stride": 4, "overlap_tolerance": 0.05})
    return frames_path, correspondences_path


@pytest.fixture(scope="session")
def walls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walls")
    return [write_wall(folder, f"wall{seed}", seed) for seed in range(3)]
