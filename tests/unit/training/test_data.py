import itertools

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch.utils.data import DataLoader

from loco.errors import DataError
from loco.geometry.cameras import project
from loco.steps.pairs import index_scene
from loco.training.data import Batch, Batches, connected_group
from loco.training.scene_files import SceneFiles, open_scenes

BATCH = {"scenes": 2, "images_per_scene": 3, "min_overlap": 0.3, "min_baseline": 0.0, "patches_per_image": 40}


AUGMENT = {"brightness": 0.2, "contrast": 0.2, "colour": 0.1}


def assert_equal(one: Batch, other: Batch) -> None:
    for a, b in zip(one, other):
        assert (a is None and b is None) or torch.equal(a, b)


def test_images_come_with_their_own_points(walls):
    """The points of each image of a batch are projected to the centres of its own patches only."""
    scenes = open_scenes(walls)
    for step in range(3):
        batch = Batches(scenes, BATCH, None, seed=0).draw(step)
        for image, points, number in zip(batch.images, batch.points.numpy(), batch.scene.tolist()):
            rgb = scenes[number].frames["rgb"][:]
            (index,) = np.flatnonzero((rgb == image.numpy()).all(axis=(1, 2, 3)))
            uv, _ = project(points, scenes[number].frames["intrinsics"][index], scenes[number].frames["pose"][index])
            np.testing.assert_allclose(uv[0, 0], [2, 2], atol=1e-4)
            np.testing.assert_allclose(uv[-1, -1], [46, 30], atol=1e-4)


def test_a_batch_depends_on_seed_and_step_alone(walls):
    first = Batches(open_scenes(walls), BATCH, AUGMENT, seed=1)
    resumed = iter(Batches(open_scenes(walls), BATCH, first.augment, seed=1, start=5))
    assert_equal(first.draw(5), next(resumed))
    assert not torch.equal(first.draw(5).images, first.draw(6).images)
    assert len(first.draw(5).jitter.unique(dim=0)) == 6  # each image has its own


def test_workers_and_processes_give_the_batches_of_one(walls):
    alone = Batches(open_scenes(walls), BATCH, AUGMENT, seed=1, start=2)
    loader = iter(DataLoader(Batches(open_scenes(walls), BATCH, AUGMENT, seed=1, start=2), None, num_workers=2))
    for batch in itertools.islice(alone, 4):
        assert_equal(next(loader), batch)
    whole = alone.draw(7)
    assert whole.image.tolist() == list(range(6))
    parts = [Batches(open_scenes(walls), BATCH, AUGMENT, seed=1, rank=k, world_size=4).draw(7) for k in range(4)]
    assert [part.image.tolist() for part in parts] == [[0, 1], [2, 3], [4], [5]]
    for part in parts:
        own = Batch(*(None if column is None else column[part.image] for column in whole._replace(rows=None)))
        assert_equal(part, own._replace(rows=own.use.flatten().nonzero()[:, 0]))


def test_images_are_left_unread_where_they_are_not_looked_at(walls):
    scenes = open_scenes(walls)
    seen = Batches(scenes, BATCH, None, seed=1).draw(3)
    assert_equal(Batches(scenes, BATCH, None, seed=1, with_images=False).draw(3), seen._replace(images=None))


def test_batches_of_positive_pairs(walls, tmp_path):
    files = [(*paths, None, tmp_path / f"pairs{k}.h5") for k, paths in enumerate(walls)]
    for _, correspondences, _, pairs in files:
        index_scene(correspondences, pairs, 0.05)
    settings = {"radius": 0.05, "images": 4, "scenes_by": "equal", "patches_per_image": 20, "patches_by": "coverage"}
    batch = Batches(open_scenes(files), settings, None, seed=0).draw(0)
    assert len(batch.images) == 4
    assert batch.use.sum(dim=(1, 2)).tolist() == [20] * 4
    points = batch.points.flatten(1, 2)
    for scene in batch.scene.unique():  # every image has a positive pair with another image
        of_scene = points[batch.scene == scene]
        near = torch.cdist(of_scene.flatten(0, 1), of_scene.flatten(0, 1)) <= 0.05
        images = near.view(len(of_scene), points.shape[1], len(of_scene), points.shape[1]).any(dim=(1, 3))
        assert (images.sum(dim=1) > 1).all()


def test_patches_are_thinned_per_image(walls):
    batch = Batches(open_scenes(walls), BATCH, None, seed=0).draw(0)
    assert batch.use.shape == (6, 8, 12)
    assert batch.use.sum(dim=(1, 2)).tolist() == [40] * 6
    everything = Batches(open_scenes(walls), {**BATCH, "patches_per_image": None}, None, seed=0).draw(0)
    assert everything.use.all()


def test_groups_hang_together():
    pairs = np.zeros((8, 8), dtype=bool)
    for a, b in [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7)]:
        pairs[a, b] = pairs[b, a] = True
    for seed in range(20):
        group = connected_group(csr_array(pairs), 4, np.random.default_rng(seed))
        assert len(set(group)) == 4
        assert max(group) < 4 or min(group) >= 4
    assert len(connected_group(csr_array(pairs), 20, np.random.default_rng(0))) == 8  # no more than exist
    assert sorted(connected_group(csr_array((3, 3), dtype=bool), 3, np.random.default_rng(0))) == [0, 1, 2]


def test_files_that_do_not_belong_together_are_refused(walls):
    mixed = [(walls[0][0], walls[1][1])]
    with pytest.raises(DataError, match="another scene"):
        open_scenes(mixed)


def test_a_batch_that_is_too_small_for_the_processes_is_refused(walls):
    batches = Batches(open_scenes(walls[:1]), BATCH, None, seed=0, rank=0, world_size=4)
    with pytest.raises(DataError, match=r"fewer images than there are ranks[\s\S]*found: +3"):
        batches.draw(0)


@pytest.mark.parametrize("change", [{"min_baseline": 99.5}, {"min_overlap": 0.999}])
def test_settings_that_no_two_images_meet_are_refused(walls, change):
    (value,) = change.values()
    with pytest.raises(DataError, match=rf"{value}[\s\S]*30 images in 3 scenes[\s\S]*`train.batch.min_overlap` or"):
        Batches(open_scenes(walls), BATCH | change, None, seed=0)


def test_a_single_scene_without_such_images_is_counted_in_the_singular(walls):
    with pytest.raises(DataError, match="found: 10 images in 1 scene, without"):
        Batches(open_scenes(walls[:1]), BATCH | {"min_baseline": 99.5}, None, seed=0)


def test_scenes_without_pairs_beside_others_are_stated(walls, caplog, monkeypatch):
    scenes, none = open_scenes(walls), csr_array((3, 3), dtype=bool)
    pairs = SceneFiles.pairs
    monkeypatch.setattr(
        SceneFiles, "pairs", lambda scene, *limits: none if scene is scenes[1] else pairs(scene, *limits)
    )
    Batches(scenes, BATCH, None, seed=0)
    wanted = "overlap by at least 0.3 and were taken at least 0 m apart"
    assert f"in 1 of 3 training scenes (wall1), no two images {wanted}" in caplog.text
