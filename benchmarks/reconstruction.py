"""Structure from motion with matches of this library and with COLMAP's SIFT: registered images, and errors of poses.

COLMAP's mapper is the same in all cases, with one camera whose focal length it estimates; only keypoints, descriptors
and matches differ. All pairs of images are matched. Camera centres are compared after a similarity transform, estimated
by RANSAC, and rotations after the rotation that aligns them best. The images are every k-th frame of a recording with
poses (the format `posed_rgbd`: color/ and poses.txt), or photographs of a simulated room, taken along one wall.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pycolmap
from numpy.typing import NDArray

from loco.cli import main as loco
from loco.datasets.colmap import MIN_IMAGES
from loco.datasets.reconstruct import reconstruct
from loco.errors import DataError
from loco.simulate.photographs import simulate_photographs

SIZE = (240, 320)  # of the photographs of simulated rooms, pixels
TOLERANCE = 0.1  # inlier threshold of the alignment by RANSAC, metres

Poses: TypeAlias = Mapping[str, NDArray[np.float64]]  # image name -> camera-to-world, 4 x 4, metres


def recorded(folder: Path, every: int, out: Path) -> Poses:
    """Copy every k-th image of a recording to ``out``, and return the poses."""
    images = sorted((folder / "color").iterdir())
    poses = np.loadtxt(folder / "poses.txt").reshape(-1, 4, 4)
    for image in images[::every]:
        (out / image.name).write_bytes(image.read_bytes())
    return {image.name: pose for image, pose in list(zip(images, poses, strict=True))[::every]}


def simulated(scene: str, images: int, out: Path) -> Poses:
    """Write photographs of a simulated room to ``out``, and return the poses."""
    poses = simulate_photographs(out, scene, images, SIZE)
    return dict(zip(sorted(file.name for file in out.iterdir()), poses, strict=True))


def models(
    images: Path, methods: Sequence[str], keypoints: int
) -> Iterator[tuple[str, pycolmap.Reconstruction | None]]:
    """Yield the name and the largest reconstruction of each method, first of SIFT; None if there is no reconstruction.

    Args:
        images: folder of the images.
        methods: ``DETECTOR=MODEL`` each.
        keypoints: maximum number of keypoints per image with the detector ``sift``.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            reconstruct(images, Path(folder, "scene"), {"matcher": "exhaustive"}, threads=1)
            yield "SIFT", pycolmap.Reconstruction(Path(folder, "scene/sparse/0"))
        except DataError:
            yield "SIFT", None
    for method in methods:
        detector, _, model = method.partition("=")
        with tempfile.TemporaryDirectory() as folder:
            command = ["match", str(images), "--model", model, "--format", "colmap", "--out", folder]
            limit = ["--max-keypoints", str(keypoints)] if detector == "sift" else []
            if loco([*command, "--keypoints", detector, *limit]):
                raise SystemExit(1)
            options = pycolmap.IncrementalPipelineOptions(num_threads=1, random_seed=0, min_model_size=MIN_IMAGES)
            Path(folder, "models").mkdir()
            found = pycolmap.incremental_mapping(
                Path(folder, "database.db"), images, Path(folder, "models"), options
            ).values()
            yield f"{detector}, {model}", max(found, key=pycolmap.Reconstruction.num_reg_images, default=None)


def errors(model: pycolmap.Reconstruction, poses: Poses) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the errors of the registered images after alignment: centres in metres, rotations in degrees, (n,) each.

    Rotations are aligned separately, by the rotation nearest to all their differences, because centres near a line do
    not determine the rotation around it.
    """
    images = list(model.images.values())
    true = np.array([poses[image.name] for image in images])
    options = pycolmap.RANSACOptions(max_error=TOLERANCE, random_seed=0)
    names = [image.name for image in images]
    similarity = pycolmap.align_reconstruction_to_locations(model, names, true[:, :3, 3], 3, options)
    if similarity is None:
        moved = np.full(len(images), np.inf)
    else:
        centres = np.array([similarity * image.projection_center() for image in images])
        moved = np.linalg.norm(centres - true[:, :3, 3], axis=1)
    turned = np.array([image.cam_from_world().rotation.matrix().T for image in images])
    differences = true[:, :3, :3] @ turned.transpose(0, 2, 1)
    u, _, vt = np.linalg.svd(differences.sum(axis=0))
    nearest = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    cosine = (np.trace(nearest.T @ differences, axis1=1, axis2=2) - 1) / 2
    return moved, np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def report(scene: str, images: Path, poses: Poses, options: argparse.Namespace) -> None:
    """Print a row of the table for each method."""
    for method, model in models(images, options.methods, options.keypoints):
        if model is None:
            print(f"| {scene} | {method} | 0 of {len(poses)} | | | |", flush=True)
            continue
        moved, turned = errors(model, poses)
        near = int(((moved < TOLERANCE) & (turned < 5)).sum())
        print(
            f"| {scene} | {method} | {len(moved)} of {len(poses)} | {near} | {100 * np.median(moved):.1f} | "
            f"{np.median(turned):.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="DETECTOR=MODEL", help="patches=MODEL or sift=MODEL")
    parser.add_argument("--recording", type=Path, help="folder of a recording, with color/ and poses.txt")
    parser.add_argument(
        "--every", type=int, default=10, help="use every k-th frame of the recording (default: %(default)s)"
    )
    parser.add_argument("--rooms", nargs="*", default=[], metavar="NAME", help="names of simulated rooms")
    parser.add_argument("--images", type=int, default=24, help="photographs per simulated room (default: %(default)s)")
    parser.add_argument(
        "--keypoints", type=int, default=2048, help="maximum SIFT keypoints per image (default: %(default)s)"
    )
    options = parser.parse_args()
    print("| scene | matches | registered | within 10 cm and 5 degrees | median, cm | median, degrees |")
    print("| :-- | :-- | --: | --: | --: | --: |")
    with tempfile.TemporaryDirectory() as folder:
        if options.recording:
            images = Path(folder, "recording")
            images.mkdir()
            report("recording", images, recorded(options.recording, options.every, images), options)
        for room in options.rooms:
            images = Path(folder, room)
            report(room, images, simulated(room, options.images, images), options)


if __name__ == "__main__":
    main()
