"""A user's own extractor through the real workflow, without a change to the project: a class, and computed features."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest

from loco.storage import Features, Frames
from tests.workflow.conftest import edit

CLASS = '''
from torch import nn

WEIGHT = 1.0  # of the mean colour


class MeanColours(nn.Module):
    """Mean colours of cells, and the product of red and green."""

    def __init__(self, cell):
        super().__init__()
        self.stride, self.dim, self.pool = cell, 4, nn.AvgPool2d(cell)

    def forward(self, images):
        means = self.pool(images)
        return nn.functional.pad(WEIGHT * means, (0, 0, 0, 0, 0, 1)) + 0.1
'''
NAMES = ("mine", "from_npy", "from_h5")


def mean_colours(rgb: np.ndarray) -> np.ndarray:
    """The class above in NumPy: (h, w, 3) uint8 -> (h / 4, w / 4, 4)."""
    height, width = rgb.shape[:2]
    means = (rgb.astype(np.float64) / 255).reshape(height // 4, 4, width // 4, 4, 3).mean(axis=(1, 3))
    return np.concatenate([means, np.zeros((*means.shape[:2], 1))], axis=2) + 0.1


@pytest.fixture(scope="module")
def world(finished, tmp_path_factory):
    world = finished.clone(tmp_path_factory.mktemp("own"))
    (world.directory / "my_extractor.py").write_text(CLASS)
    (world.directory / "npy/tiny/cedar").mkdir(parents=True)
    (world.directory / "h5/tiny").mkdir(parents=True)
    with (
        Frames(world.directory / "results/frames/tiny/cedar.h5") as frames,
        h5py.File(world.directory / "h5/tiny/cedar.h5", "w") as file,
    ):
        for number, name in enumerate(frames.names):
            features = mean_colours(frames["rgb"][number]).astype(np.float32)
            np.save(world.directory / f"npy/tiny/cedar/{name}.npy", features)
            file[name] = features
    models = {
        "mine": {"name": "python", "class": "my_extractor.MeanColours", "stride": 4, "options": {"cell": 4}},
        "from_npy": {"name": "features", "path": "npy", "stride": 4},
        "from_h5": {"name": "features", "path": "h5", "stride": 4},
    }
    experiments = {name: {"title": name, "model": model} for name, model in models.items()}
    world.overlay({"experiments": experiments, "run": {"experiments": list(experiments)}})
    world.run("tables")
    return world


def test_all_three_have_the_same_features_and_scores(world):
    for name in NAMES:
        with (
            Features(world.directory / f"results/features/{name}/deterministic/tiny/cedar.h5") as found,
            Frames(world.directory / "results/frames/tiny/cedar.h5") as frames,
        ):
            expected = mean_colours(frames["rgb"][0])
            norm = np.linalg.norm(expected, axis=2)
            np.testing.assert_allclose(found.map(0), expected / norm[:, :, None], atol=1e-3)
            np.testing.assert_allclose(found["norm"][0], norm, rtol=1e-3)
            assert found.extent == (48, 64)
    table = pd.read_csv(world.directory / "results/tables/pixel_correspondence.csv")
    scores = [table[table["experiment"] == name]["value"].to_numpy() for name in NAMES]
    assert len(scores[0]) > 0
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], atol=1e-6)


def test_a_change_of_the_class_runs_its_extraction_again_and_a_comment_does_not(world):
    assert not world.plan("tables")
    file = world.directory / "my_extractor.py"
    edit(file, "# of the mean colour", "# another comment")
    assert not world.plan("tables")
    edit(file, "WEIGHT = 1.0", "WEIGHT = 2.0")
    plan = world.plan("tables")
    edit(file, "WEIGHT = 2.0", "WEIGHT = 1.0")
    assert (plan["extract"], plan["evaluate"], plan["frames"]) == (1, 2, 0)


def test_features_that_were_computed_again_are_read_again(world):
    (file,) = sorted((world.directory / "npy/tiny/cedar").glob("*.npy"))[:1]
    before, times = file.read_bytes(), file.stat()
    np.save(file, np.load(file)[::-1])
    plan = world.plan("tables")
    file.write_bytes(before)
    assert (plan["extract"], plan["evaluate"]) == (1, 2)
    assert times.st_size == file.stat().st_size


def test_an_image_without_features_is_named(world):
    (file,) = sorted((world.directory / "npy/tiny/cedar").glob("*.npy"))[:1]
    moved = file.rename(world.directory / file.name)
    try:
        said = world.refuse("results/features/from_npy/deterministic/tiny/cedar.h5")
    finally:
        moved.rename(file)
    assert f"there is no {file.name}" in said


def test_a_class_that_does_not_exist_is_named_before_anything_runs(world):
    world.overlay({"experiments": {"mine": {"model": {"class": "my_extractors.MeanColours"}}}})
    try:
        said = world.refuse("--dry-run", "tables")
    finally:
        world.configs.pop()
    assert "experiments.mine.model.class: the module 'my_extractors' does not exist" in said
