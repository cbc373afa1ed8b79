import errno

import h5py
import numpy as np
import pytest

from loco.errors import DataError
from loco.records import Recipe, new_record
from loco.storage import Correspondences, Features, Frames
from loco.storage.scene_file import Array

N, H, W = 3, 8, 10


def write_frames(path, names=("a", "b", "c"), seed=0, record=None):
    rng = np.random.default_rng(seed)
    intrinsics, poses = rng.normal(size=(N, 3, 3)), rng.normal(size=(N, 4, 4))
    with Frames.create(path, "houses", "house00", {"n": N, "h": H, "w": W}, {"dropped": {}}, record=record) as file:
        file.facts["names"] = list(names)
        file["intrinsics"][:], file["pose"][:] = intrinsics, poses
        file["rgb"][:] = rng.integers(0, 255, size=(N, H, W, 3))
        file["depth"][:] = rng.uniform(1, 5, size=(N, H, W))
    return path


def write_features(path, frames_id, n=N):
    with Features.create(path, "houses", "house00", {"n": n, "h": 2, "w": 3, "c": 4}) as file:
        file["features"][:] = 0.5
        file.frames_id = frames_id
    return path


def test_what_is_written_is_read(tmp_path):
    with Frames(write_frames(tmp_path / "f.h5")) as frames:
        assert (len(frames), frames.size, frames.names) == (N, (H, W), ["a", "b", "c"])
        assert (frames.dataset, frames.scene, frames.facts["dropped"]) == ("houses", "house00", {})
        rng = np.random.default_rng(0)
        np.testing.assert_array_equal(frames["intrinsics"][:], rng.normal(size=(N, 3, 3)))
        assert frames["rgb"].dtype == np.uint8


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
        (lambda p: p.write_bytes(b""), "has no content id"),
        (lambda p: p.write_bytes(p.read_bytes()[:500]), "cannot be read"),
        (lambda p: p.write_bytes(p.read_bytes()[:-5]), "cannot be read"),
        (lambda p: h5py.File(p, "w").close(), "has no content id"),
        (lambda p: p.unlink(), "cannot be read: FileNotFoundError"),
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
        file.frames_id = "x"
    with Correspondences(tmp_path / "c.h5") as correspondences:
        assert correspondences.grid == (3, 5)
        assert correspondences.facts["stride"] == 4


@pytest.mark.parametrize("kind", [Frames, Features])
def test_a_single_bit_never_changes_what_is_read(tmp_path, kind):
    """If any bit of a file flips, the file is refused when it is opened or read, or all its contents are unchanged."""
    path = tmp_path / "f.h5"
    write_frames(path) if kind is Frames else write_features(path, 64 * "a")
    expected = contents(kind, path)
    data, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    refused = 0
    for bit in rng.choice(8 * len(data), 600, replace=False):
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        data[bit // 8] ^= 1 << bit % 8
        found = contents(kind, path)
        refused += found is None
        for name in expected if found else ():
            np.testing.assert_array_equal(found[name], expected[name], err_msg=f"bit {bit}")
    assert refused > 300


def contents(kind, path):
    """Return the contents of a file; None if it is refused by name."""
    try:
        with kind(path) as file:
            rest = {"facts": str(file.facts), "record": str(file.record), "place": (file.dataset, file.scene)}
            return (
                {name: file[name][:] for name in kind.arrays}
                | rest
                | {"frames": file.frames_id if kind is Features else ""}
            )
    except DataError as error:
        return None if "f.h5" in str(error) else pytest.fail(f"the file is not named: {error}")


@pytest.mark.parametrize("name", ["pose", "intrinsics"])
def test_cameras_must_be_finite(tmp_path, name):
    with Frames.create(tmp_path / "f.h5", "houses", "house00", {"n": 1, "h": H, "w": W}) as file:
        file.facts["names"] = ["a"]
        file["pose"][:], file["intrinsics"][:] = np.eye(4), np.eye(3)
        file[name][0, 0, 0] = np.nan
    with pytest.raises(DataError, match=f"`{name}` is not finite"):
        Frames(tmp_path / "f.h5")


def test_element_types_are_checked(tmp_path, monkeypatch):
    """Depth in whole millimetres would be read as metres."""
    millimetres = {**Frames.arrays, "depth": Array("int32", ("n", "h", "w"), frames="compressed")}
    with monkeypatch.context() as patch:
        patch.setattr(Frames, "arrays", millimetres)
        write_frames(tmp_path / "f.h5")
    with pytest.raises(DataError, match=r"`depth` has the wrong element type[\s\S]*float32[\s\S]*int32"):
        Frames(tmp_path / "f.h5")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "grant your user read permission"),
        (OSError(errno.EMFILE, "Too many open files"), "raise the limit of open files"),
        (OSError(errno.ENOLCK, "No locks available"), "locks"),
        (OSError(errno.EIO, "Input/output error"), "check the disk"),
        (OSError("Unable to open file (unable to lock file, errno = 37, error message = 'No locks')"), "locks"),
    ],
)
def test_deleting_a_file_is_advised_only_where_the_file_is_bad(tmp_path, monkeypatch, error, advice):
    path = write_frames(tmp_path / "f.h5")

    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(h5py, "File", fail)
    with pytest.raises(DataError, match=advice) as caught:
        Frames(path)
    assert "delete" not in str(caught.value)


def test_a_file_named_as_another_scene_is_refused_where_a_recipe_is_expected(tmp_path):
    recipe = Recipe("frames", "c0de", {})
    path = write_frames(
        tmp_path / "house01.h5", record=new_record(recipe, {"dataset": "houses", "scene": "house00"}, {})
    )
    with pytest.raises(DataError, match=r"house01[\s\S]*house00"):
        Frames(path, recipe)
    Frames(path.rename(tmp_path / "house00.h5"), recipe).close()


def test_values_that_were_edited_in_place_are_noticed(tmp_path):
    """As written by h5py: the checksums match the new values."""
    path = write_frames(tmp_path / "f.h5")
    with h5py.File(path, "r+") as file:
        file["pose"][1, 0, 3] += 0.5
    with pytest.raises(DataError, match="`pose` was changed after the file was written"):
        Frames(path)


def with_frames(path):
    with Frames.create(path, "d", "s", {"n": 2, "h": 4, "w": 4}, {"names": ["a", "b"]}) as file:
        for name in ("rgb", "depth", "source", "pose", "intrinsics"):
            file[name][...] = np.ones(file[name].shape, file[name].dataset.dtype)
    return path


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage", "virtual", "group", "absurd"])
def test_data_of_other_files_and_absurd_sizes_are_refused(tmp_path, kind):
    """Refused before anything is read, because another file could be any file of the user."""
    path = with_frames(tmp_path / "a.h5")
    (tmp_path / "secret").write_bytes(bytes(96))
    with h5py.File(path, "r+") as file:
        del file["rgb"]
        shape = (2, 4, 4, 3)
        match kind:
            case "external link":
                file["rgb"] = h5py.ExternalLink(str(with_frames(tmp_path / "b.h5")), "rgb")
            case "soft link":
                file["rgb"] = h5py.SoftLink("/depth")
            case "external storage":
                file.create_dataset("rgb", shape, "u1", external=[(str(tmp_path / "secret"), 0, 96)])
            case "virtual":
                layout = h5py.VirtualLayout(shape, "u1")
                layout[:] = h5py.VirtualSource(str(tmp_path / "a.h5"), "depth", shape)
                file.create_virtual_dataset("rgb", layout)
            case "group":
                file.create_group("rgb")
            case "absurd":
                file.create_dataset("rgb", (2, 40_000, 40_000, 3), "u1", chunks=(1, 100, 100, 3), compression="gzip")
    with pytest.raises(DataError, match=r"link|not an array in this file|too large"):
        Frames(path)
