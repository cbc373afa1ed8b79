"""Geometric augmentation against closed forms: a textured wall, and points of a sparse model."""

import itertools

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from loco.errors import ConfigError
from loco.geometry.cameras import project
from loco.geometry.patches import patch_centres
from loco.steps.correspondence import correspond_scene
from loco.storage import Frames
from loco.training.augment import GeometricAugmentation, View, colour_augmentation
from loco.training.data import Batches
from loco.training.scene_files import SceneFiles, open_scenes

SIZE, STRIDE = (32, 48), 4
BATCH = {"scenes": 2, "images_per_scene": 3, "min_overlap": 0.3, "min_baseline": 0.0, "patches_per_image": 40}
COLOUR = {"brightness": 0.2, "contrast": 0.2, "colour": 0.1}
ALL = {"flip": 0.5, "scale": [0.6, 1.7], "sizes": [[32, 32], [24, 40], [48, 64]]}


def views(settings, count=60, frame=SIZE):
    augmentation, rng = GeometricAugmentation(settings, 0), np.random.default_rng(0)
    return [augmentation.draw(frame, augmentation.size(k) or frame, rng) for k in range(count)]


def test_without_room_to_draw_the_image_and_its_points_are_those_of_the_frame(walls):
    (scene,) = open_scenes(walls[:1])
    augmentation = GeometricAugmentation({"crop": True}, 0)
    for frame in range(3):
        rgb, points, valid = augmentation.load(scene, frame, None, np.random.default_rng(frame))
        assert np.array_equal(rgb, scene.frames["rgb"][frame])
        assert np.array_equal(points, scene.correspondences["points"][frame])
        assert np.array_equal(valid, scene.correspondences["valid"][frame])


def test_every_point_is_on_the_surface_and_projects_to_its_patch(walls):
    (scene,) = open_scenes(walls[:1])
    augmentation, rng = GeometricAugmentation(ALL, 0), np.random.default_rng(0)
    seen = 0
    for step in range(40):
        size, state = augmentation.size(step), rng.bit_generator.state
        rgb, points, valid = augmentation.load(scene, step % 10, size, rng)
        again = np.random.default_rng(0)
        again.bit_generator.state = state
        view = augmentation.draw(SIZE, size, again)
        assert rgb.shape == (*size, 3)
        assert points.shape[:2] == valid.shape == (size[0] // STRIDE, size[1] // STRIDE)
        centres = view.to_frame(patch_centres(valid.shape, size))
        inside = ((centres >= 0) & (centres < SIZE[::-1])).all(axis=-1)
        assert np.array_equal(valid, inside)  # a wall has no depth edges, and fills the frame
        np.testing.assert_allclose(points[valid][:, 2], 2.0, atol=1e-5)
        uv, _ = project(points[valid], scene.frames["intrinsics"][step % 10], scene.frames["pose"][step % 10])
        np.testing.assert_allclose(view.from_frame(uv), patch_centres(valid.shape, size)[valid], atol=0.01)
        seen += valid.sum()
    assert seen > 500


def test_pixels_move_with_their_points():
    """After the map, an image whose colours are its coordinates has the coordinates that the map gives."""
    v, u = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    rgb = np.stack([4 * u, 4 * v, np.zeros(SIZE)], axis=-1).astype(np.uint8)  # exact: 4 (k + 0.5) is an integer
    for view in views(ALL):
        image = view.image(rgb).astype(float)
        rows, columns = np.mgrid[: view.size[0], : view.size[1]] + 0.5
        frame = view.to_frame(np.stack([columns, rows], axis=-1))
        away = 1.0 * max(1, view.frame[0] / view.resized[0])  # from the border, where pixels are repeated
        inner = ((frame > away) & (frame < np.array(SIZE[::-1]) - away)).all(axis=-1)
        assert np.abs(image[..., :2] / 4 - frame)[inner].max() < 0.3  # of a pixel: colours are integers


def test_a_flip_mirrors_pixels_and_points(walls):
    (scene,) = open_scenes(walls[:1])
    plain = GeometricAugmentation({"flip": 0.0}, 0).load(scene, 4, None, np.random.default_rng(0))
    flipped = GeometricAugmentation({"flip": 1.0}, 0).load(scene, 4, None, np.random.default_rng(0))
    for one, other in zip(plain, flipped):
        np.testing.assert_allclose(one[:, ::-1], other, atol=1e-5)


def test_the_map_and_its_inverse():
    uv = np.random.default_rng(0).uniform(-10, 60, size=(50, 2))
    for view in views(ALL):
        np.testing.assert_allclose(view.from_frame(view.to_frame(uv)), uv, atol=1e-9)
    view = View(frame=(32, 48), resized=(64, 96), size=(20, 30), offset=(10, 6), flip=True)
    np.testing.assert_allclose(view.to_frame(np.array([0.0, 0.0])), [(30 + 6) / 2, 10 / 2])


def test_draws_cover_what_is_configured():
    drawn = views(ALL, 400)
    assert {view.size for view in drawn} == {(32, 32), (24, 40), (48, 64)}
    assert 0.4 < np.mean([view.flip for view in drawn]) < 0.6
    covers = [max(view.size[0] / SIZE[0], view.size[1] / SIZE[1]) for view in drawn]
    scales = np.array([view.resized[1] / SIZE[1] / cover for view, cover in zip(drawn, covers)])
    assert (scales > 0.58).all()
    assert (scales < 1.72).all()
    assert 0.4 < np.mean(scales < np.sqrt(0.6 * 1.7)) < 0.6  # uniform on a logarithmic axis
    for axis in range(2):
        room = np.array([view.resized[axis] - view.size[axis] for view in drawn])
        offset = np.array([view.offset[axis] for view in drawn])
        assert (np.abs(offset) <= np.abs(room)).all()
        assert (offset * room >= 0).all()  # inside the frame, or the frame is inside the image
        assert {0, 4} <= set(offset[room == 4]) or (room != 4).all()
    for view in views(ALL | {"crop": False}):
        assert all(abs(2 * o - (r - s)) <= 1 for o, r, s in zip(view.offset, view.resized, view.size))


def test_batches_depend_on_seed_and_step_alone(walls):
    augment = {**COLOUR, **ALL}
    alone = Batches(open_scenes(walls), BATCH, augment, seed=1)
    sizes = set()
    loader = iter(DataLoader(Batches(open_scenes(walls), BATCH, augment, seed=1), None, num_workers=2))
    for batch in itertools.islice(alone, 6):
        for one, other in zip(next(loader), batch):
            assert (one is None and other is None) or torch.equal(one, other)
        assert batch.points.shape[1:3] == (batch.images.shape[1] // STRIDE, batch.images.shape[2] // STRIDE)
        sizes.add(tuple(batch.images.shape[1:3]))
    assert len(sizes) > 1
    part = Batches(open_scenes(walls), BATCH, augment, seed=1, rank=1, world_size=2).draw(3)
    assert torch.equal(part.images, alone.draw(3).images[3:])


def test_colour_alone_draws_as_before(walls):
    batch = Batches(open_scenes(walls), BATCH, COLOUR, seed=1).draw(2)
    assert batch.images.shape[1:3] == SIZE
    assert colour_augmentation({"flip": 0.5}) is None
    assert colour_augmentation({"flip": 0.5, "contrast": 0.1}) == {"brightness": 0, "contrast": 0.1, "colour": 0}


@pytest.fixture(scope="module")
def sparse_scene(tmp_path_factory):
    """Return points of a wall 2 m away, observed by a camera that moves sideways."""
    folder, rng = tmp_path_factory.mktemp("sparse"), np.random.default_rng(0)
    k = np.array([[40.0, 0, 24], [0, 40.0, 16], [0, 0, 1]])
    tracks = np.concatenate([rng.uniform(-1.5, 2.5, size=(900, 2)), np.full((900, 1), 2.0)], axis=1)
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3] = np.linspace(0, 1, 5)
    observations = []
    for frame, pose in enumerate(poses):
        uv, _ = project(tracks, k, pose)
        seen = ((uv >= 0) & (uv < SIZE[::-1])).all(axis=1)
        observations += [(frame, number, uv[number]) for number in np.flatnonzero(seen)]
    frames, correspondences = folder / "points.frames.h5", folder / "points.correspondences.h5"
    sizes = {"n": 5, "h": SIZE[0], "w": SIZE[1], "t": len(tracks), "m": len(observations)}
    with Frames.create(frames, "sparse", "points", sizes) as file:
        file["rgb"][:] = np.zeros((5, *SIZE, 3), np.uint8)
        file["depth"][:] = np.zeros((5, *SIZE), np.float32)
        file["source"][:] = np.zeros((5, *SIZE), np.uint8)
        file.facts["names"] = [f"image{i}" for i in range(5)]
        file["pose"][:], file["intrinsics"][:], file["track"][:] = poses, np.tile(k, (5, 1, 1)), tracks
        for name, column in zip(("frame", "track", "uv"), zip(*observations)):
            file[f"observation_{name}"][:] = np.array(column)
    correspond_scene(frames, correspondences, {"stride": STRIDE, "overlap_tolerance": 0.05})
    return SceneFiles(frames, correspondences)


def test_points_of_a_sparse_model_move_along(sparse_scene):
    plain = GeometricAugmentation({"crop": True}, 0).load(sparse_scene, 2, None, np.random.default_rng(0))
    assert np.array_equal(plain[1], sparse_scene.correspondences["points"][2])
    assert np.array_equal(plain[2], sparse_scene.correspondences["valid"][2])
    assert plain[2].any()
    augmentation = GeometricAugmentation(ALL, 0)
    for step in range(20):
        size = augmentation.size(step)
        _, points, valid = augmentation.load(sparse_scene, 2, size, np.random.default_rng(step))
        view = augmentation.draw(SIZE, size, np.random.default_rng(step))
        uv, _ = project(points[valid], *(sparse_scene.frames[name][2] for name in ("intrinsics", "pose")))
        offset = view.from_frame(uv) - patch_centres(valid.shape, size)[valid]
        assert np.abs(offset).max() <= STRIDE / 2 + 1e-4  # within its own patch


def test_stored_features_are_refused(walls):
    scenes = [SceneFiles(*walls[0], encoded_path=walls[0][1])]
    with pytest.raises(ConfigError, match="stored features"):
        Batches(scenes, BATCH, {"flip": 0.5}, 0, with_images=False)


def test_shrinking_averages():
    rgb = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    view = View(frame=SIZE, resized=(16, 24), size=(16, 24), offset=(0, 0), flip=False)
    means = rgb.reshape(16, 2, 24, 2, 3).mean(axis=(1, 3))
    assert np.abs(view.image(rgb) - means).max() <= 1
    assert np.array_equal(view.image(rgb), cv2.resize(rgb, (24, 16), interpolation=cv2.INTER_AREA))
