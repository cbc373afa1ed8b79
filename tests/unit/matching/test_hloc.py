"""The files of hloc: layout, pixel convention, and reading them back."""

import h5py
import numpy as np
import pytest

from loco.errors import DataError
from loco.matching import hloc
from loco.matching.keypoints import Keypoints


@pytest.fixture
def folder(tmp_path):
    """Write features of two images, one of them in a subfolder, whose keypoints match in reverse order."""
    descriptors = np.eye(4, dtype=np.float32)
    positions = np.array([[0.5, 0.5], [4.0, 8.0], [79.5, 59.5], [10.25, 20.75]], np.float32)
    images = [
        ("a.jpg", Keypoints(positions, descriptors), (60, 80)),
        ("sub/b.jpg", Keypoints(positions[::-1], descriptors[::-1]), (60, 80)),
    ]
    hloc.write_features(iter(images), tmp_path / hloc.FEATURES)
    hloc.write_matches(tmp_path / hloc.FEATURES, [("a.jpg", "sub/b.jpg")], tmp_path / hloc.MATCHES)
    return tmp_path


def test_features_have_the_layout_of_hloc(folder):
    with h5py.File(folder / hloc.FEATURES) as file:
        group = file["sub/b.jpg"]
        assert group["keypoints"][-1].tolist() == [0, 0]  # hloc: the centre of the first pixel is at 0
        assert group["keypoints"].dtype == np.float32
        assert group["descriptors"].shape == (4, 4)
        assert group["descriptors"][:, 0].tolist() == [0, 0, 0, 1]  # (d, n)
        assert group["descriptors"].dtype == np.float16
        assert group["image_size"][:].tolist() == [80, 60]  # (width, height)


def test_matches_have_the_layout_of_hloc(folder):
    with h5py.File(folder / hloc.MATCHES) as file:
        group = file["a.jpg/sub-b.jpg"]
        assert group["matches0"][:].tolist() == [3, 2, 1, 0]
        assert group["matching_scores0"][:].tolist() == [1, 1, 1, 1]
    assert (folder / hloc.PAIRS).read_text() == "a.jpg sub/b.jpg\n"


def test_what_is_written_is_read(folder):
    assert hloc.read_positions(folder / hloc.FEATURES, "a.jpg")[:2].tolist() == [[0.5, 0.5], [4.0, 8.0]]
    assert hloc.read_size(folder / hloc.FEATURES, "a.jpg") == (60, 80)
    (matches,) = hloc.read_matches(folder / hloc.MATCHES, [("a.jpg", "sub/b.jpg")])
    assert matches.tolist() == [[0, 3], [1, 2], [2, 1], [3, 0]]


def test_keypoints_without_a_mutual_neighbour_are_not_matched(tmp_path):
    one, other = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[[0, 0]]
    positions = np.zeros((3, 2), np.float32)
    images = [("a", Keypoints(positions, one), (9, 9)), ("b", Keypoints(positions[:2], other), (9, 9))]
    hloc.write_features(iter(images), tmp_path / hloc.FEATURES)
    hloc.write_matches(tmp_path / hloc.FEATURES, [("a", "b")], tmp_path / hloc.MATCHES)
    (matches,) = hloc.read_matches(tmp_path / hloc.MATCHES, [("a", "b")])
    assert matches.tolist() == [[0, 0]]


def test_an_image_without_keypoints_has_no_matches(tmp_path):
    some, none = np.eye(3, dtype=np.float32), np.empty((0, 3), np.float32)
    images = [(name, Keypoints(rows[:, :2], rows), (9, 9)) for name, rows in (("a", some), ("b", none), ("c", some))]
    hloc.write_features(iter(images), tmp_path / hloc.FEATURES)
    pairs = [("a", "b"), ("b", "c"), ("a", "c")]
    hloc.write_matches(tmp_path / hloc.FEATURES, pairs, tmp_path / hloc.MATCHES)
    assert [len(matches) for matches in hloc.read_matches(tmp_path / hloc.MATCHES, pairs)] == [0, 0, 3]


def test_a_failure_leaves_no_file(tmp_path):
    def broken():
        yield "a", Keypoints(np.zeros((1, 2), np.float32), np.ones((1, 3), np.float32)), (9, 9)
        raise DataError("an image is damaged")

    with pytest.raises(DataError):
        hloc.write_features(broken(), tmp_path / hloc.FEATURES)
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_refused(folder):
    features = folder / hloc.FEATURES
    with pytest.raises(DataError, match=r"no dataset 'keypoints' of 'c.jpg'[\s\S]*the first of which is 'a.jpg'"):
        hloc.read_positions(features, "c.jpg")
    with h5py.File(features, "r+") as file:
        del file["a.jpg/keypoints"]
        file["a.jpg/keypoints"] = np.arange(6)
    with pytest.raises(DataError, match="not positions in pixels"):
        hloc.read_positions(features, "a.jpg")
    features.write_bytes(features.read_bytes()[:100])
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        hloc.read_positions(features, "a.jpg")
