import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from loco.errors import DataError
from loco.steps.pairs import index_scene
from loco.storage import Correspondences, PairIndex
from loco.storage.content_id import verify_content_id

ARRAYS = ("points", "image", "place", "count", "cell", "start")
RADIUS = 0.2


@pytest.fixture(scope="module")
def written(walls, tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "wall0.h5"
    index_scene(walls[0][1], path, RADIUS)
    return path


@pytest.fixture
def index(written, tmp_path):
    """Return a copy of an index that a test may damage."""
    path = tmp_path / written.name
    path.write_bytes(written.read_bytes())
    return path


def test_the_index_counts_all_pairs_of_a_scene(walls, written):
    with Correspondences(walls[0][1]) as file, PairIndex(written) as index:
        valid = file["valid"][:]
        points, images = file["points"][:][valid].astype(np.float64), np.nonzero(valid)[0]
        near = (np.linalg.norm(points[:, None] - points[None], axis=-1) <= RADIUS) & (images[:, None] != images)
        assert near.any()
        np.testing.assert_array_equal(index["count"][:], near.sum(axis=1))
        np.testing.assert_array_equal(np.diff(index.first), valid.sum(axis=(1, 2)))
        np.testing.assert_array_equal(np.diff(index.bounds), [near[images == i].sum() for i in range(len(valid))])
        assert (index.frames_id, index.scene) == (file.frames_id, file.scene)
    verify_content_id(written)


def test_mapped_arrays_are_those_of_the_file_and_outlive_it(written):
    with PairIndex(written) as index:
        stored, mapped = {name: index[name][:] for name in ARRAYS}, dict(zip(ARRAYS, index.patches))
    for name in ARRAYS:
        np.testing.assert_array_equal(mapped[name], stored[name])
        assert mapped[name].flags.aligned
        assert not mapped[name].flags.writeable


def test_processes_share_the_pages_of_an_index(tmp_path):
    # 64 MB of points: a process that maps and reads them allocates no more memory.
    sizes = {"bounds": 2, "m": 1 << 22, "c": 0, "starts": 1}
    facts = {"radius": 1.0, "grid_origin": [0, 0, 0]}
    path = tmp_path / "large.h5"
    with PairIndex.create(path, "d", "s", sizes, facts) as file:
        file["first"][:] = [0, 1 << 22]
        file["points"][:] = np.ones((1 << 22, 3), np.float32)
        file["start"][:] = 0
        for name in ("image", "place", "count"):
            file[name][:] = np.ones(1 << 22, np.uint32)
    program = (
        "import re, sys\nfrom loco.storage import PairIndex\n"
        "def own(): return int(re.search(r'Anonymous: +(\\d+)', open('/proc/self/smaps_rollup').read())[1])\n"
        "file = PairIndex(sys.argv[1])\nbefore = own()\n"
        "assert sum(float(array.max()) for array in file.patches[:4]) == 4\nprint(own() - before)"
    )
    if not os.path.exists("/proc/self/smaps_rollup"):
        pytest.skip("needs Linux")
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8 << 10  # kB


def test_a_scene_without_valid_patches_has_an_empty_index(walls, tmp_path):
    sizes = {"n": 2, "h": 2, "w": 2}
    with Correspondences.create(tmp_path / "c.h5", "d", "s", sizes, frames_id="x") as file:
        file["points"][:], file["valid"][:] = np.nan, False
    index_scene(tmp_path / "c.h5", tmp_path / "p.h5", RADIUS)
    with PairIndex(tmp_path / "p.h5") as index:
        assert index.bounds.tolist() == index.first.tolist() == [0, 0, 0]
        assert [len(array) for array in index.patches] == [0, 0, 0, 0, 0, 1]


def test_points_that_are_not_finite_are_refused(tmp_path):
    with Correspondences.create(tmp_path / "c.h5", "d", "s", {"n": 1, "h": 1, "w": 2}, frames_id="x") as file:
        file["points"][:], file["valid"][:] = np.inf, True
    with pytest.raises(DataError, match="not finite"):
        index_scene(tmp_path / "c.h5", tmp_path / "p.h5", RADIUS)
    assert not (tmp_path / "p.h5").exists()


def replaced(name, make):
    """Return a change of a file that replaces one of its arrays by another one."""

    def change(path):
        with h5py.File(path, "r+") as file:
            old = file[name][:]
            del file[name]
            make(file, name, old)

    return change


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5000])


REFUSED = {
    "chunked": replaced("points", lambda f, name, old: f.create_dataset(name, data=old, chunks=True)),
    "compressed": replaced("points", lambda f, name, old: f.create_dataset(name, data=old, compression="gzip")),
    "of another type": replaced("count", lambda f, name, old: f.create_dataset(name, data=old.astype("int64"))),
    "of another byte order": replaced("cell", lambda f, name, old: f.create_dataset(name, data=old.astype(">i8"))),
    "shorter": replaced("place", lambda f, name, old: f.create_dataset(name, data=old[1:])),
    "without its last start": replaced("start", lambda f, name, old: f.create_dataset(name, data=old[:-1])),
    "never written": replaced("points", lambda f, name, old: f.create_dataset(name, (len(old), 3), "f4")),
    "too large": replaced("points", lambda f, name, old: f.create_dataset(name, (1 << 40, 3), "f4")),
    "in another file": replaced("image", lambda f, name, old: f.create_dataset(name, old.shape, "u4", external="x")),
    "bounds that fall": replaced("bounds", lambda f, name, old: f.create_dataset(name, data=old[::-1])),
    "cut off": truncate,
}  # fmt: skip


@pytest.mark.parametrize("change", REFUSED)
def test_damaged_and_foreign_files_are_refused_when_opened(index, change):
    REFUSED[change](index)
    with pytest.raises(DataError, match=r"wall0.h5(.|\n)*what to do"):
        PairIndex(index)


def test_files_of_other_kinds_are_refused(walls):
    with pytest.raises(DataError, match="expected: loco-pairs version 1"):
        PairIndex(walls[0][1])
