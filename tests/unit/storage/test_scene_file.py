import h5py
import numpy as np
import pytest

from loco.errors import DataError
from loco.storage import Correspondences, Features, Frames, frames_identity

N, H, W = 3, 8, 10


def write_frames(path, names=("a", "b", "c"), seed=0):
    rng = np.random.default_rng(seed)
    intrinsics, poses = rng.normal(size=(N, 3, 3)), rng.normal(size=(N, 4, 4))
    with Frames.create(path, "houses", "house00", {"n": N, "h": H, "w": W}, {"dropped": {}}) as file:
        file["name"][:] = list(names)
        file["intrinsics"][:], file["pose"][:] = intrinsics, poses
        file["rgb"][:] = rng.integers(0, 255, size=(N, H, W, 3))
        file["depth"][:] = rng.uniform(1, 5, size=(N, H, W))
        file.attrs["frames_id"] = frames_identity(names, intrinsics, poses, (H, W))
    return path


def write_features(path, frames_id, n=N):
    with Features.create(path, "houses", "house00", {"n": n, "h": 2, "w": 3, "c": 4}) as file:
        file["features"][:] = 0.5
        file.attrs["frames_id"] = frames_id
    return path


def test_what_is_written_is_read(tmp_path):
    with Frames(write_frames(tmp_path / "f.h5")) as frames:
        assert (len(frames), frames.size, frames.names) == (N, (H, W), ["a", "b", "c"])
        assert (frames.dataset, frames.scene, frames.facts) == ("houses", "house00", {"dropped": {}})
        rng = np.random.default_rng(0)
        np.testing.assert_array_equal(frames["intrinsics"][:], rng.normal(size=(N, 3, 3)))
        assert frames["rgb"].dtype == np.uint8
        assert frames["rgb"].chunks == (1, H, W, 3)  # one frame is read by itself


def test_equal_content_gives_equal_bytes(tmp_path):
    assert write_frames(tmp_path / "a.h5").read_bytes() == write_frames(tmp_path / "b.h5").read_bytes()


def test_files_of_other_frames_are_not_combined(tmp_path):
    with Frames(write_frames(tmp_path / "f.h5")) as frames:
        with Features(write_features(tmp_path / "good.h5", frames.frames_id)) as features:
            features.require_frames(frames)
        with Frames(write_frames(tmp_path / "g.h5", names=("a", "b", "x"))) as other:
            of_other = write_features(tmp_path / "bad.h5", other.frames_id)
        with Features(of_other) as features, pytest.raises(DataError, match=r"other frames.*\n.*bad.h5\n.*house00"):
            features.require_frames(frames)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(b""), "cannot be opened"),
        (lambda p: p.write_bytes(p.read_bytes()[:500]), "cannot be opened"),
        (lambda p: h5py.File(p, "w").close(), "another format or version"),
        (lambda p: h5py.File(p, "a").attrs.update(version=99), "another format or version"),
    ],
)
def test_broken_files_are_named(tmp_path, damage, message):
    path = write_frames(tmp_path / "f.h5")
    damage(path)
    with pytest.raises(DataError, match=message) as caught:
        Frames(path)
    assert "f.h5" in str(caught.value)


def test_arrays_must_agree_in_size(tmp_path):
    path = write_frames(tmp_path / "f.h5")
    with h5py.File(path, "a") as file:
        file["depth"].resize(N - 1, axis=0)
    with pytest.raises(DataError, match="`depth` has the wrong shape"):
        Frames(path)


def test_correspondences_know_their_grid(tmp_path):
    with Correspondences.create(tmp_path / "c.h5", "houses", "a", {"n": 2, "h": 3, "w": 5}, {"stride": 4}) as file:
        file.attrs["frames_id"] = "x"
    with Correspondences(tmp_path / "c.h5") as correspondences:
        assert correspondences.grid == (3, 5)
        assert correspondences.facts["stride"] == 4
