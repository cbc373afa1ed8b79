"""Read features that another program computed (``model: {name: features}``): one map per image, by its name.

The maps of a scene are in an HDF5 file with one dataset per image, or in a folder with one ``.npy`` file per image
(:func:`loco.weights.computed_files`). No content is executed and no other file is read: pickled arrays, links in HDF5
files, and arrays that are stored in other files are refused.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from loco.errors import DataError
from loco.files import open_regular

_REMEDY = "write one array (h, w, c) of floating-point numbers per image, named like the image"


class ComputedFeatures:
    """Reader of the maps of a scene; a context manager that closes the file."""

    def __init__(self, path: Path, scene: str) -> None:
        """
        Args:
            path: HDF5 file (``.h5``), or folder of ``.npy`` files.
            scene: name of the scene, for messages.

        Raises:
            DataError: the file does not exist or is not a readable HDF5 file.
        """
        self.path, self.scene = path, scene
        self._file: h5py.File | None = None
        if path.is_dir():
            return
        try:
            with open_regular(path, scene):
                pass
            self._file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise DataError(
                f"the file cannot be read as HDF5: {error}",
                file=path,
                scene=scene,
                expected="an HDF5 file, or a folder of .npy files",
                remedy="correct the path, or write the features again",
            ) from error

    def __enter__(self) -> ComputedFeatures:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, name: str, grid: tuple[int, int]) -> NDArray[np.float32]:
        """Return the map (h, w, c) of an image.

        Args:
            name: name of the image.
            grid: required (h, w): one feature per patch of the frame.

        Raises:
            DataError: the image has no map, or the map has another shape, is not floating-point, or is not finite.
        """
        try:
            values = self._from_folder(name) if self._file is None else self._from_file(self._file, name)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unfit(name, f"cannot be read: {error}") from error
        if values.dtype not in (np.float16, np.float32, np.float64) or values.ndim != 3:
            raise self._unfit(name, f"has {values.dtype} values of shape {values.shape}")
        if values.shape[:2] != grid:
            raise DataError(
                f"the map of image {name!r} does not have one feature per patch of the frame",
                file=self.path,
                scene=self.scene,
                expected=f"{grid[0]} x {grid[1]} features, by the size of the frames and `stride`",
                found=f"{values.shape[0]} x {values.shape[1]} features",
                remedy="set `stride` to that of the features, or compute them on images of the size of the frames",
            )
        found = np.asarray(values, np.float32)
        if not np.isfinite(found).all():
            raise self._unfit(name, "is not finite")
        return found

    def _from_folder(self, name: str) -> NDArray[np.floating]:
        file = (self.path / f"{name}.npy").resolve()
        if not file.is_relative_to(self.path.resolve()):
            raise ValueError("its name leads out of the folder")
        if not file.exists():
            raise ValueError(f"there is no {file.name}")
        with open_regular(file, self.scene) as opened:
            return np.lib.format.read_array(opened, allow_pickle=False)

    def _from_file(self, file: h5py.File, name: str) -> NDArray[np.floating]:
        group: h5py.Group = file
        parts = name.split("/")
        for number, part in enumerate(parts):
            if not isinstance(group, h5py.Group) or part not in group:
                raise ValueError(f"there is no dataset {name!r}")
            if not isinstance(group.get(part, getlink=True), h5py.HardLink):
                raise ValueError(f"{'/'.join(parts[: number + 1])!r} is a link")
            group = group[part]
        if not isinstance(group, h5py.Dataset):
            raise ValueError(f"{name!r} is not a dataset")
        if group.is_virtual or group.external:
            raise ValueError(f"{name!r} is stored in another file")
        return group[()]

    def _unfit(self, name: str, problem: str) -> DataError:
        return DataError(
            f"the map of image {name!r} {problem}",
            file=self.path,
            scene=self.scene,
            expected=_REMEDY[len("write ") :],
            remedy=_REMEDY,
        )
