"""Features that another program computed."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from loco.errors import ConfigError, DataError
from loco.models import build_extractor
from loco.storage.computed_features import ComputedFeatures
from loco.weights import computed_files

GRID = (3, 4)
MAPS = {name: np.random.default_rng(number).random((*GRID, 5)) for number, name in enumerate(["a", "b.jpg", "c/d"])}


def write(folder: Path, kind: str, maps: dict, dtype=np.float32) -> Path:
    """The maps of a scene as .npy files or as an HDF5 file; returns its path."""
    if kind == "npy":
        for name, values in maps.items():
            file = folder / "data/scene" / f"{name}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, values.astype(dtype) if dtype else values)
        return folder / "data/scene"
    (folder / "data").mkdir()
    with h5py.File(folder / "data/scene.h5", "w") as file:
        for name, values in maps.items():
            file[name] = values.astype(dtype) if dtype else values
    return folder / "data/scene.h5"


@pytest.mark.parametrize("kind", ["npy", "h5"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_maps_are_read_by_the_name_of_the_image(tmp_path, kind, dtype):
    path = write(tmp_path, kind, MAPS, dtype)
    with ComputedFeatures(path, "scene") as features:
        for name in ("c/d", "a", "b.jpg"):
            found = features.read(name, GRID)
            np.testing.assert_array_equal(found, MAPS[name].astype(dtype).astype(np.float32))
            assert found.dtype == np.float32


@pytest.mark.parametrize("kind", ["npy", "h5"])
@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros((4, 3, 5)), r"expected: 3 x 4 features(.|\n)*found: 4 x 3(.|\n)*set `stride`"),
        (np.zeros((3, 4)), r"has float64 values of shape \(3, 4\)"),
        (np.zeros((3, 4, 5), np.int32), "has int32 values"),
        (np.full((3, 4, 5), np.nan), "is not finite"),
        (np.full((3, 4, 5), 1e300), "is not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_maps_that_do_not_fit_are_refused(tmp_path, kind, values, says):
    path = write(tmp_path, kind, {"a": values}, None)
    with ComputedFeatures(path, "scene") as features, pytest.raises(DataError, match=says) as caught:
        features.read("a", GRID)
    assert "image 'a'" in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["npy", "h5"])
@pytest.mark.parametrize("name", ["b", "a/b", "c", "../scene/x"])
def test_an_image_without_a_map_is_named(tmp_path, kind, name):
    path = write(tmp_path, kind, MAPS)
    with ComputedFeatures(path, "scene") as features, pytest.raises(DataError, match=r"there is no|is not a dataset"):
        features.read(name, GRID)


def test_names_do_not_lead_out_of_the_folder(tmp_path):
    path = write(tmp_path, "npy", MAPS)
    np.save(tmp_path / "data/secret.npy", MAPS["a"])
    (path / "link.npy").symlink_to(tmp_path / "data/secret.npy")
    with ComputedFeatures(path, "scene") as features:
        for name in ("../secret", "link", str(tmp_path / "data/secret")):
            with pytest.raises(DataError, match="leads out of the folder"):
                features.read(name, GRID)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


def test_pickles_are_not_run(tmp_path):
    path = write(tmp_path, "npy", MAPS)
    np.save(path / "object.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    (path / "pickle.npy").write_bytes(pickle.dumps(Bomb()))
    with ComputedFeatures(path, "scene") as features:
        for name in ("object", "pickle"):
            with pytest.raises(DataError, match="cannot be read"):
                features.read(name, GRID)


def test_what_is_in_other_files_is_not_read(tmp_path):
    path = write(tmp_path, "h5", MAPS)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["a"] = MAPS["a"]
    MAPS["a"].tofile(tmp_path / "raw")
    with h5py.File(path, "a") as file:
        file["external"] = h5py.ExternalLink(tmp_path / "other.h5", "a")
        file["soft"] = h5py.SoftLink("/a")
        file.create_dataset("outside", (*GRID, 5), "f8", external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)])
        layout = h5py.VirtualLayout((*GRID, 5), "f8")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "a", (*GRID, 5))
        file.create_virtual_dataset("virtual", layout)
    with ComputedFeatures(path, "scene") as features:
        for name, says in [("external", "is a link"), ("soft", "is a link")] + [
            (name, "is stored in another file") for name in ("outside", "virtual")
        ]:
            with pytest.raises(DataError, match=says):
                features.read(name, GRID)


def test_a_file_that_is_not_hdf5_is_refused(tmp_path):
    (tmp_path / "scene.h5").write_bytes(b"no")
    for path in (tmp_path / "scene.h5", tmp_path / "none.h5"):
        with pytest.raises(DataError, match="cannot be read as HDF5"):
            ComputedFeatures(path, "scene")


def test_files_of_a_scene(tmp_path):
    assert computed_files(tmp_path, "data", "scene") == [tmp_path / "data/scene.h5"]
    folder = write(tmp_path, "npy", MAPS)
    (folder / "._a.npy").write_bytes(b"")
    names = ["a.npy", "b.jpg.npy", "c/d.npy"]
    assert computed_files(tmp_path, "data", "scene") == [folder / name for name in names]
    (tmp_path / "data/scene.h5").touch()
    assert computed_files(tmp_path, "data", "scene") == [tmp_path / "data/scene.h5"]


def test_there_is_no_network_to_build():
    with pytest.raises(ConfigError, match="there is no network to run"):
        build_extractor({"name": "features", "path": "somewhere", "stride": 4})
