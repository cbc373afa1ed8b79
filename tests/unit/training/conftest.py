"""A tiny posed scene of known geometry, in the files that training reads."""

from pathlib import Path

import numpy as np
import pytest

from loco.geometry.correspond import correspond_scene
from loco.geometry.raycast import pixel_directions
from loco.storage import Frames, frames_identity

SIZE, COUNT = (32, 48), 10
K = np.array([[40.0, 0, 24], [0, 40.0, 16], [0, 0, 1]])


def write_wall(folder: Path, scene: str, seed: int) -> tuple[Path, Path]:
    """A textured wall 2 m ahead, seen by a camera that moves sideways; its frames and correspondences."""
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
        file["name"][:], file["pose"][:], file["intrinsics"][:] = names, poses, np.tile(K, (COUNT, 1, 1))
        file.attrs["frames_id"] = frames_identity(names, np.tile(K, (COUNT, 1, 1)), poses, SIZE)
    correspond_scene(frames_path, correspondences_path, {"stride": 4, "overlap_tolerance": 0.05})
    return frames_path, correspondences_path


@pytest.fixture(scope="session")
def walls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walls")
    return [write_wall(folder, f"wall{seed}", seed) for seed in range(3)]


@pytest.fixture
def experiment():
    return {
        "model": {"name": "compact_cnn", "dim": 16, "widths": [8, 16, 16, 16], "blocks": 1},
        "train": {
            "loss": {"name": "exact", "rho": 0.05, "kappa": 1.0, "tau": 0.05},
            "steps": 6,
            "batch": {
                "scenes": 2,
                "images_per_scene": 3,
                "min_overlap": 0.3,
                "min_baseline": 0.0,
                "patches_per_image": 40,
            },
            "optimiser": {"lr": 2e-3, "weight_decay": 0.01, "warmup_steps": 1, "clip": 1.0},
            "augment": {"brightness": 0.2, "contrast": 0.2, "colour": 0.1},
            "validate_every": 3,
            "save_every": 2,
        },
    }
