from __future__ import annotations

import io
import os
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from loco.datasets import layouts
from loco.datasets.photographs import LARGEST_FILE, Listing, Photographs, images_of, other_files, read_array
from loco.errors import DataError


class Album(Photographs):
    """Write the photographs of a folder, without any metadata."""

    format = "album"
    remedy = "take them again"
    sources = staticmethod(layouts.fixed((), images=("images",), optional=("lost.png",)))

    @classmethod
    def listing(cls, folder: Path, scene: str) -> Listing:
        images = images_of(folder / "images", folder, scene)
        return Listing(
            {**images, "lost": folder / "lost.png"} if scene == "lost" else images, {"known": []}, {"ages": 3}
        )


def picture(seed: int, size=(6, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def write(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), image[:, :, ::-1])


@pytest.fixture
def raw(tmp_path) -> Path:
    """Return scenes `summer` and `lost` with images of different sizes, whose order is not the order of their names."""
    for scene in ("summer", "lost"):
        for k, name in enumerate(["2.png", "10.ppm", "more/1.PNG"]):
            write(tmp_path / scene / "images" / name, picture(k, (6 + k, 8)))
    return tmp_path


def test_images_keep_their_sizes_and_come_in_natural_order(raw):
    album = Album(raw, "summer")
    assert album.names("all") == album.names("horizontal") == ["images/2.png", "images/10.ppm", "images/more/1.PNG"]
    frames = list(album.frames(["images/10.ppm", "images/2.png"]))
    for frame, k in zip(frames, (1, 0), strict=True):
        assert_array_equal(frame.rgb, picture(k, (6 + k, 8)))
        assert_allclose(frame.intrinsics, np.eye(3))
        assert_allclose(frame.pose, np.eye(4))
        assert frame.depth is None
    assert album.ground_truth() == {"known": []}
    assert album.mesh() is album.tracks() is album.labelled_mesh() is None


def test_manifest(raw):
    manifest = Album.check(raw, "summer", "all")
    assert (manifest["ok"], manifest["images"], manifest["ages"]) == (True, 3, 3)
    [images] = manifest["files"]
    size = sum(file.stat().st_size for file in (raw / "summer").rglob("*.*"))
    assert (images["name"], images["files"], images["bytes"]) == ("images", 3, size)


def test_files_beside_the_images_are_named(raw):
    for name in ("notes.txt", "Thumbs.db"):
        (raw / "summer" / "images" / name).write_bytes(b"x")
    (raw / "summer" / "images" / ".hidden").write_bytes(b"x")
    assert other_files(raw / "summer" / "images") == ["notes.txt"]


def test_no_unreadable_image_goes_unsaid(raw):
    images = raw / "lost" / "images"
    (images / "2.png").write_bytes(b"")
    (images / "10.ppm").write_bytes(b"P6 8 6 255\n")
    problems = "\n".join(Album.check(raw, "lost", "all")["problems"])
    assert "images are missing (1 of 4): lost" in problems
    assert "images have 0 bytes (1 of 4): images/2.png" in problems
    assert "'10.ppm' cannot be decoded" in problems
    for name in ("images/2.png", "images/10.ppm", "lost"):
        with pytest.raises(DataError):
            list(Album(raw, "lost").frames([name]))


def test_missing_folders_and_empty_ones(raw):
    (raw / "autumn").mkdir()
    assert "images is missing" in Album.check(raw, "autumn", "all")["problems"][0]
    with pytest.raises(DataError, match=r"images is missing[\s\S]*take them again"):
        Album(raw, "autumn")
    (raw / "autumn" / "images").mkdir()
    assert "the folder contains no images" in Album.check(raw, "autumn", "all")["problems"][0]


# --- arrays of objects -----------------------------------------------------------------------------------------------


def ragged() -> np.ndarray:
    """Rows as in ground-truth files: a number, and a list, an array, NumPy integers or a single number."""
    rows = np.empty((4, 2), dtype=object)
    rows[:, 0] = [0, np.int64(1), 2.5, "x"]
    rows[:, 1] = [[1, 2, 300, 70000], np.array([4, 5], np.int32), [np.int64(6), np.uint8(7)], 8]
    return rows


@pytest.mark.parametrize("protocol", [3, 4])  # of NumPy before version 2, and since
def test_arrays_of_objects_are_read_as_numpy_reads_them(tmp_path, protocol):
    file = tmp_path / "gt.npy"
    file.write_bytes(npy(pickle.dumps(ragged(), protocol=protocol), (4, 2)))
    read, expected = read_array(file, "s"), np.load(file, allow_pickle=True)
    assert read.shape == expected.shape
    for found, wanted in zip(read.ravel(), expected.ravel(), strict=True):
        assert_array_equal(found, wanted)


def test_names_from_before_numpy_2(tmp_path):
    program = pickle.dumps(ragged(), protocol=3)
    assert b"numpy._core.multiarray" in program
    (tmp_path / "gt.npy").write_bytes(npy(program.replace(b"numpy._core", b"numpy.core"), (4, 2)))
    assert [np.size(row) for row in read_array(tmp_path / "gt.npy", "s")[:, 1]] == [4, 2, 2, 1]


def test_written_by_numpy_itself(tmp_path):
    np.save(tmp_path / "gt.npy", ragged(), allow_pickle=True)
    assert [np.size(row) for row in read_array(tmp_path / "gt.npy", "s")[:, 1]] == [4, 2, 2, 1]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i2", "?"])
def test_arrays_of_numbers_within_objects_and_alone(tmp_path, dtype, order):
    numbers = np.asarray(np.arange(6).reshape(2, 3), dtype=dtype, order=order)
    np.save(tmp_path / "numbers.npy", numbers)
    assert_array_equal(read_array(tmp_path / "numbers.npy", "s"), numbers)
    objects = np.empty(1, dtype=object)
    objects[0] = numbers
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    assert_array_equal(read_array(tmp_path / "objects.npy", "s")[0], numbers)


class Runs:
    """Create a file when it is unpickled."""

    def __init__(self, file: Path, call=os.system) -> None:
        self.call, self.arguments = call, (f"touch {file}",)

    def __reduce__(self):
        return self.call, self.arguments


def npy(program: bytes, shape=(1,)) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": shape})
    return header.getvalue() + program


def numpys(call: str, arguments: bytes) -> bytes:
    """Return a pickle that calls a function of NumPy."""
    return b"\x80\x04" + f"c{call}\n".encode() + arguments + b"R."


@pytest.mark.parametrize("call", [os.system, eval, exec])
def test_code_is_not_run(tmp_path, call):
    file, made = tmp_path / "gt.npy", tmp_path / "made"
    np.save(file, np.array([0, Runs(made, call)], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot be read[\s\S]*which no array of numbers requires"):
        read_array(file, "s")
    assert not made.exists()


def test_but_numpy_runs_it(tmp_path):
    """Check that unpickling creates the file; otherwise the previous test would show nothing."""
    np.save(tmp_path / "gt.npy", np.array([0, Runs(tmp_path / "made")], dtype=object), allow_pickle=True)
    np.load(tmp_path / "gt.npy", allow_pickle=True)
    assert (tmp_path / "made").exists()


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"cannot be read"),
        (b"no array", r"cannot be read[\s\S]*magic"),
        (npy(b""), r"cannot be read"),
        (npy(pickle.dumps([1, 2])), r"not the pickle of an array"),
        (npy(b"\x80\x04" + ARRAY + b"."), r"not the pickle of an array"),  # without content
        (npy(pickle.dumps(np.array([1, None, 2], dtype=object))), r"but the array has the shape \(3,\)"),
        (npy(pickle.dumps(np.array([{}], dtype=object))[:-20]), r"cannot be read"),
        (npy(pickle.dumps(np.array([np.datetime64("2020")], dtype=object))), r"unsupported type 'M8'"),
        (npy(pickle.dumps(np.array([np.dtype([("a", "i4")])], dtype=object))), r"unsupported type 'V4'"),
        (npy(numpys("numpy\nload", b"\x8c\x01x\x85")), r"refers to numpy.load"),
        (npy(numpys("numpy\nndarray", b"J\xff\xff\xff\x7f\x85")), r"not callable"),
        (npy(b"\x80\x04K\x01r\xff\xff\xff\xff."), r"under the number 4294967295"),  # 32 GB of memory
        (npy(b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"."), r"cannot be read"),  # a terabyte of bytes
        # It would change the function that is called for the next file.
        (npy(b"\x80\x04cnumpy\ndtype\nN}\x8c\x08__call__K\x01s\x86b."), r"AttributeError"),
    ],
)  # fmt: skip
def test_what_is_broken_or_sly_is_refused(tmp_path, content, message):
    file = tmp_path / "gt.npy"
    file.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_array(file, "s")
    assert re.search(message, str(error.value)), str(error.value)
    assert "gt.npy" in str(error.value)
    np.save(file, ragged(), allow_pickle=True)
    assert read_array(file, "s").shape == (4, 2)


def test_missing_and_huge_files(tmp_path):
    with pytest.raises(DataError, match="is missing"):
        read_array(tmp_path / "gt.npy", "s")
    with (tmp_path / "gt.npy").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(DataError, match=r"too large[\s\S]*67108865"):
        read_array(tmp_path / "gt.npy", "s")


def test_an_array_that_claims_a_terabyte(tmp_path):
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (400000000000,), }".ljust(117) + b"\n"
    (tmp_path / "gt.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    with pytest.raises(DataError, match="cannot be read"):
        read_array(tmp_path / "gt.npy", "s")
