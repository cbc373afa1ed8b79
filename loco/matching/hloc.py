"""Keypoints and matches in the HDF5 files of hloc (github.com/cvg/Hierarchical-Localization, version 1.5).

- Features: one group per image, named by its path, with ``keypoints`` (n, 2) float32, ``descriptors`` (d, n) float16,
  and ``image_size`` (width, height). hloc puts the centre of the first pixel at 0, this project at 0.5.
- Matches: a group ``first/second`` per pair, where ``/`` in names is replaced by ``-``, with two arrays over the
  keypoints of the first image: ``matches0`` (n,), the index of the matched keypoint of the second image, or -1; and
  ``matching_scores0`` (n,) float16, the cosine similarity of the match, or 0.
- Pairs: a text file with the names of two images per line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loco.errors import DataError
from loco.evaluation.neighbours import mutual_neighbours
from loco.matching.keypoints import Keypoints
from loco.storage import atomic_path

FEATURES, MATCHES, PAIRS = "features.h5", "matches.h5", "pairs.txt"
_SHIFT = 0.5  # position of the centre of the first pixel in this project, in hloc 0
_HELD = 32  # images whose descriptors are kept in memory


def write_features(images: Iterable[tuple[str, Keypoints, tuple[int, int]]], out: Path) -> None:
    """Write the keypoints of images to a features file.

    Args:
        images: name, keypoints, and size (height, width) in pixels of each image; consumed one at a time.
        out: the file; it replaces an existing one.
    """
    with atomic_path(out) as temporary, h5py.File(temporary, "w") as file:
        for name, keypoints, (height, width) in images:
            group = file.create_group(name)
            group["keypoints"] = keypoints.positions - np.float32(_SHIFT)
            group["descriptors"] = keypoints.descriptors.T.astype(np.float16)
            group["image_size"] = np.array([width, height])


def read_positions(features: Path, name: str) -> NDArray[np.float32]:
    """Return the keypoint positions of an image (n, 2), pixels, the centre of the first pixel at 0.5.

    Raises:
        DataError: the file is not in the format of hloc or lacks the image.
    """
    with _opened(features) as file:
        keypoints = _dataset(file, features, name, "keypoints")
        if keypoints.ndim != 2 or keypoints.shape[1] < 2 or keypoints.dtype.kind != "f":
            raise DataError(
                f"the keypoints of image {name} are not positions in pixels",
                file=features,
                expected="floating-point numbers of shape (n, 2), or with more columns",
                found=f"{keypoints.dtype} of shape {keypoints.shape}",
                remedy="write the file again with `extract_features` of hloc",
            )
        return keypoints[:, :2].astype(np.float32) + np.float32(_SHIFT)


def read_size(features: Path, name: str) -> tuple[int, int]:
    """Return the size (height, width) of an image, pixels.

    Raises:
        DataError: as :func:`read_positions`.
    """
    with _opened(features) as file:
        width, height = map(int, _dataset(file, features, name, "image_size")[:2])
        return height, width


def write_matches(features: Path, pairs: Sequence[tuple[str, str]], out: Path) -> None:
    """Write the mutual nearest neighbours between the keypoints of pairs of images, and the list of pairs beside them.

    Args:
        features: file of :func:`write_features` with all images.
        pairs: names of the two images of each pair.
        out: file of the matches; the list is :data:`PAIRS` in the same folder.
    """
    with h5py.File(features) as source, atomic_path(out) as temporary, h5py.File(temporary, "w") as file:

        @lru_cache(_HELD)  # consecutive pairs share images
        def descriptors(name: str) -> Tensor:
            return torch.from_numpy(source[name]["descriptors"][:].T.astype(np.float32))

        for first, second in pairs:
            of_first, of_second = descriptors(first), descriptors(second)
            rows, columns = mutual_neighbours(of_first, of_second)
            matches = np.full(len(of_first), -1, np.int32)
            scores = np.zeros(len(of_first), np.float16)
            matches[rows] = columns
            scores[rows] = (of_first[rows] * of_second[columns]).sum(dim=1).numpy()
            group = file.create_group(_group_of(first, second))
            group["matches0"], group["matching_scores0"] = matches, scores
    with atomic_path(out.with_name(PAIRS)) as temporary:
        temporary.write_text("".join(f"{first} {second}\n" for first, second in pairs))


def read_matches(matches: Path, pairs: Sequence[tuple[str, str]]) -> Iterator[NDArray[np.uint32]]:
    """Yield the matches (m, 2) of each pair: indices of keypoints of the first and of the second image.

    Raises:
        DataError: the file is not in the format of hloc or lacks a pair.
    """
    with _opened(matches) as file:
        for first, second in pairs:
            partner = _dataset(file, matches, _group_of(first, second), "matches0")[:]
            rows = np.flatnonzero(partner >= 0)
            yield np.stack([rows, partner[rows]], axis=1).astype(np.uint32)


def _group_of(first: str, second: str) -> str:
    return f"{first.replace('/', '-')}/{second.replace('/', '-')}"


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path)
    except OSError as error:
        raise DataError(
            "the file is not a readable HDF5 file",
            file=path,
            expected="a file in the format of hloc",
            found=error,
            remedy="write the file again, or pass another one",
        ) from error


def _dataset(file: h5py.File, path: Path, group: str, name: str) -> h5py.Dataset:
    found = file.get(f"{group}/{name}")
    if not isinstance(found, h5py.Dataset):
        raise DataError(
            f"the file has no dataset {name!r} of {group!r}",
            file=path,
            expected=f"a group {group!r} with a dataset {name!r}, in the format of hloc",
            found=f"{len(file)} group(s)" + (f", the first of which is {next(iter(file))!r}" if len(file) else ""),
            remedy="write the file again for these images; images are named by their paths in their common folder",
        )
    return found
