"""The command ``loco match``, and ``loco extract --format hloc``: keypoints and matches for other tools."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loco.cli_images import (
    Photo,
    load_model,
    model_option,
    positive,
    read_photo,
    refuse_options,
    require_files,
    require_folder,
    require_other_files,
    size_option,
)
from loco.errors import ConfigError, DataError, counted
from loco.matching import DETECTORS, SELECTIONS

if TYPE_CHECKING:
    from torch import Tensor

    from loco.matching.keypoints import Keypoints
    from loco.models.extractor import Extractor

FORMATS = ("png", "hloc", "colmap")
WITHOUT_EFFECT = {  # format of `loco match` -> options that have no effect with it
    "png": ("pairs", "neighbours", "several_cameras"),
    "hloc": ("count", "matches", "several_cameras"),
    "colmap": ("count", "matches"),
}
_PICTURE_SIZE = 640  # pixels of the longer side of images that are matched for a picture


def match_options(add: Callable[..., Any]) -> None:
    add(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="two images; with --format hloc or colmap, any number of images, or a folder of images",
    )
    model_option(add)
    add("--out", required=True, type=Path, metavar="PATH", help="output image (png), or folder (hloc, colmap)")
    add(
        "--format",
        choices=FORMATS,
        default="png",
        help="png: a picture of the matches; hloc: features.h5, matches.h5 and pairs.txt; colmap: in addition "
        "database.db with verified matches (default: png)",
    )
    add(
        "--count", type=positive, default=100, metavar="N", help="maximum number of matches in a picture (default: 100)"
    )
    add(
        "--matches",
        type=Path,
        metavar="CSV",
        help="also write the matches of a picture as CSV, in pixels of the image files as stored (EXIF orientation is "
        "ignored)",
    )
    add(
        "--pairs",
        choices=SELECTIONS,
        default="exhaustive",
        help="pairs to match: exhaustive, all pairs (default); sequential, each image with the next N images; "
        "retrieval, each image with the N most similar images (N: --neighbours)",
    )
    add(
        "--neighbours",
        type=positive,
        default=20,
        metavar="N",
        help="number of images with which each image is matched, with --pairs sequential or retrieval (default: 20)",
    )
    keypoint_options(add, "hloc or colmap")
    add(
        "--several-cameras",
        action="store_true",
        help="the images were taken by several cameras or lens settings; by default, all share one camera (colmap)",
    )
    size_option(add, None, "; for png: 640")


def keypoint_options(add: Callable[..., Any], formats: str) -> None:
    add(
        "--keypoints",
        default="patches",
        metavar="WHICH",
        help=f"keypoints, with --format {formats}: patches (their centres), sift, or a features file of hloc with the "
        "keypoints of any other detector (default: patches)",
    )
    add(
        "--max-keypoints",
        type=positive,
        default=4096,
        metavar="N",
        help="maximum number of SIFT keypoints per image, with --keypoints sift (default: 4096)",
    )


def refuse_keypoint_options(arguments: argparse.Namespace) -> None:
    """Refuse the keypoint options for formats without keypoints: features of patches, and pictures of matches."""
    refuse_options(arguments, ["keypoints", "max_keypoints"], f"--format {arguments.format}")


def match(arguments: argparse.Namespace) -> None:
    refuse_options(arguments, WITHOUT_EFFECT[arguments.format], f"--format {arguments.format}")
    if arguments.format == "png":
        refuse_keypoint_options(arguments)
        _match_picture(arguments)
    else:
        _match_folder(arguments)


def write_hloc(arguments: argparse.Namespace) -> None:
    """Write the keypoints and descriptors of images to ``features.h5`` in the output folder."""
    from loco.matching import hloc

    root, names = _named(arguments.images)
    out = arguments.out / hloc.FEATURES
    _write_features(arguments, root, names, out)
    print(f"features of {counted(len(names), 'image')}, named by their paths in {root}, written to {out}")


def _match_picture(arguments: argparse.Namespace) -> None:
    from loco.models.finite import finite_features
    from loco.results.pictures.matches import draw_matches, find_matches, write_matches

    if arguments.out.suffix.lower() != ".png":
        raise ConfigError(f"the output is written as PNG; --out must end in .png, found {arguments.out}")
    if len(arguments.images) != 2:
        raise ConfigError(
            f"a picture shows the matches of two images, found {len(arguments.images)}; pass two, or --format hloc or "
            "colmap"
        )
    require_files(arguments.images)
    require_other_files([arguments.out, *([arguments.matches] if arguments.matches else [])], arguments.images)
    a, b = photos = [read_photo(path, arguments.max_size or _PICTURE_SIZE) for path in arguments.images]
    model = load_model(arguments.model, arguments.backbone, arguments.upsample)
    of_a, of_b = (finite_features(model, photo.rgb, path) for photo, path in zip(photos, arguments.images))
    matches = find_matches(of_a, of_b, (a.rgb.shape[:2], b.rgb.shape[:2]), model.stride, arguments.count)
    draw_matches((a.rgb, b.rgb), matches, arguments.out)
    if arguments.matches:
        write_matches(matches.scaled(a.scale, b.scale), arguments.matches)
    print(f"{len(matches)} matches written to {arguments.out}")


def _match_folder(arguments: argparse.Namespace) -> None:
    import torch

    from loco.matching import hloc
    from loco.matching.pairs import select_pairs

    require_folder(arguments.out, "--out")
    if arguments.pairs == "exhaustive":
        refuse_options(arguments, ["neighbours"], "--pairs exhaustive")
    root, names = _named(arguments.images)
    if len(names) < 2:
        raise ConfigError(f"expected at least two images to match, found {len(names)}; pass more images, or a folder")
    out = arguments.out
    descriptors = torch.stack(_write_features(arguments, root, names, out / hloc.FEATURES))
    chosen = select_pairs(arguments.pairs, descriptors, arguments.neighbours)
    pairs = [(names[i], names[j]) for i, j in chosen]
    hloc.write_matches(out / hloc.FEATURES, pairs, out / hloc.MATCHES)
    print(f"matches of {len(pairs)} pairs of {len(names)} images, named by their paths in {root}, written to {out}")
    if arguments.format == "colmap":
        from loco.matching.colmap_database import write_database

        database = out / "database.db"
        inliers = write_database(root, names, pairs, out, database, not arguments.several_cameras)
        print(f"{inliers} matches agree with the two-view geometry of their pair: {database}")
        print(f"next: colmap mapper --database_path {database} --image_path {root} --output_path FOLDER")


def _named(paths: Sequence[Path]) -> tuple[Path, list[str]]:
    """Return the common folder of images, and their paths relative to it, by which hloc and COLMAP identify them."""
    from loco.datasets.colmap import photographs

    if len(paths) == 1 and paths[0].is_dir():
        files, root = photographs(paths[0]), Path(os.path.normpath(paths[0]))
        if not files:
            raise DataError("the folder contains no images", file=root, remedy="pass a folder of images")
    else:
        require_files(paths)
        files, root = list(paths), Path(os.path.commonpath([path.absolute().parent for path in paths]))
    names = [os.path.relpath(file.absolute(), root.absolute()).replace(os.sep, "/") for file in files]
    if len(set(names)) < len(names):
        raise ConfigError("an image was passed twice; pass each image once")
    return root, names


def _write_features(arguments: argparse.Namespace, root: Path, names: Sequence[str], out: Path) -> list[Tensor]:
    """Write the keypoints of images, and return the global descriptor of each image."""
    if arguments.keypoints != "sift":
        refuse_options(arguments, ["max_keypoints"], f"--keypoints {arguments.keypoints}")
    from tqdm import tqdm

    from loco.matching import hloc
    from loco.matching.keypoints import global_descriptor
    from loco.models.finite import finite_features

    model = load_model(arguments.model, arguments.backbone, arguments.upsample)
    descriptors = []

    def described() -> Iterator[tuple[str, Keypoints, tuple[int, int]]]:
        for name in tqdm(names, unit="image"):
            photo = read_photo(root / name, arguments.max_size)
            features = finite_features(model, photo.rgb, root / name)
            descriptors.append(global_descriptor(features))
            size = tuple(np.round(photo.scale * photo.rgb.shape[:2]).astype(int).tolist())
            yield name, _keypoints(arguments, model, photo, features, name), size

    hloc.write_features(described(), out)
    return descriptors


def _keypoints(arguments: argparse.Namespace, model: Extractor, photo: Photo, features: Tensor, name: str) -> Keypoints:
    """Return the keypoints of a photograph, in pixels of its file."""
    from loco.matching import hloc
    from loco.matching.keypoints import describe, detect

    scale: NDArray[np.float64] = photo.scale[::-1]  # (horizontal, vertical)
    if arguments.keypoints in DETECTORS:
        positions = detect(photo.rgb, arguments.keypoints, model.stride, arguments.max_keypoints)
    elif (file := Path(arguments.keypoints)).is_file():
        positions = hloc.read_positions(file, name) / scale
    else:
        raise ConfigError(
            f"--keypoints: expected {', '.join(DETECTORS)} or a features file of hloc, found {arguments.keypoints!r}"
        )
    found = describe(features, positions, model.stride)
    return found._replace(positions=(found.positions * scale).astype(np.float32))
