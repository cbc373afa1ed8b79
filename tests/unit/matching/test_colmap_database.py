"""The database of COLMAP: keypoints in its convention, and a reconstruction from exact matches."""

import cv2
import numpy as np
import pycolmap
import pytest

from loco.errors import DataError
from loco.matching import hloc
from loco.matching.colmap_database import write_database
from loco.matching.keypoints import Keypoints

SIZE, FOCAL, COUNT = (120, 160), 150.0, 6


def rotations_and_centres():
    """Return world-to-camera rotations and camera centres on an arc around the points."""
    for angle in np.linspace(-0.5, 0.5, COUNT):
        turned = cv2.Rodrigues(np.array([0, -angle, 0]))[0]
        yield turned, turned.T @ np.array([0, 0, -4.0])


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Write blank images, and hloc files with the exact projections of 300 points; return names and pairs."""
    folder = tmp_path_factory.mktemp("scene")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (300, 3))
    codes = rng.normal(size=(300, 32)).astype(np.float32)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    images = []
    for k, (rotation, centre) in enumerate(rotations_and_centres()):
        in_camera = (points - centre) @ rotation.T
        positions = FOCAL * in_camera[:, :2] / in_camera[:, 2:] + [SIZE[1] / 2, SIZE[0] / 2]
        order = rng.permutation(len(points))
        images.append((f"{k}.png", Keypoints(positions[order].astype(np.float32), codes[order]), SIZE))
        cv2.imwrite(str(folder / f"images/{k}.png"), np.zeros((*SIZE, 3), np.uint8))
    hloc.write_features(iter(images), folder / hloc.FEATURES)
    names = [name for name, *_ in images]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    hloc.write_matches(folder / hloc.FEATURES, pairs, folder / hloc.MATCHES)
    return folder, names, pairs, {name: keypoints.positions for name, keypoints, _ in images}


@pytest.fixture(scope="module")
def database(scene):
    folder, names, pairs, _ = scene
    write_database(folder / "images", names, pairs, folder, folder / "database.db")
    return folder / "database.db"


def test_keypoints_and_matches_are_those_of_the_files(scene, database):
    _, names, pairs, positions = scene
    with pycolmap.Database.open(database) as opened:
        numbers = {image.name: image.image_id for image in opened.read_all_images()}
        assert sorted(numbers) == names
        for name in names:
            np.testing.assert_allclose(opened.read_keypoints(numbers[name])[:, :2], positions[name], atol=1e-4)
        first, second = (numbers[name] for name in pairs[0])
        assert len(opened.read_matches(first, second)) == 300
        assert opened.num_verified_image_pairs() == len(pairs)


def test_a_reconstruction_has_the_poses_of_the_cameras(scene, database, tmp_path):
    options = pycolmap.IncrementalPipelineOptions(num_threads=1, random_seed=0)
    found = pycolmap.incremental_mapping(database, scene[0] / "images", tmp_path, options)
    (model,) = found.values()
    assert model.num_reg_images() == COUNT
    centres = {image.name: image.projection_center() for image in model.images.values()}
    true = np.array([centre for _, centre in rotations_and_centres()])
    built = np.array([centres[f"{k}.png"] for k in range(COUNT)])
    # Up to a similarity: ratios of distances between cameras.
    ratio = [np.linalg.norm(c[None] - c[:, None], axis=2)[np.triu_indices(COUNT, 1)] for c in (built, true)]
    scale = ratio[0] / ratio[1]
    assert scale.std() / scale.mean() < 0.01
    assert model.compute_mean_reprojection_error() < 0.05


def test_an_image_of_another_size_is_refused(scene, tmp_path):
    folder, names, pairs, _ = scene
    (tmp_path / "images").mkdir()
    for name in names:
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((*SIZE[::-1], 3), np.uint8))
    with pytest.raises(DataError, match=r"does not have the size[\s\S]*160 x 120 pixels[\s\S]*120 x 160 pixels"):
        write_database(tmp_path / "images", names, pairs, folder, tmp_path / "database.db")
    assert not (tmp_path / "database.db").exists()


def test_a_file_that_is_no_image_is_refused(scene, tmp_path):
    folder, names, pairs, _ = scene
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"COLMAP cannot read image 0\.png"):
        write_database(tmp_path / "images", names, pairs, folder, tmp_path / "database.db")
