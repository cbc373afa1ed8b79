"""Pixel correspondences for four settings from one search, compared with a direct implementation of the published one.

``python -m benchmarks.correspondences`` (Linux) evaluates image pairs of 120 x 160 pixels with 768 channels, as on
ScanNet: two filters, each with and without the points that are occluded in the other image. The direct implementation
stores the similarities of all pixels of A to all pixels of B, and computes them again for each setting. Times are CPU
times, so that other programs on the machine have little effect.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from time import process_time

import numpy as np
import torch
from numpy.typing import NDArray

from loco.evaluation import pixel_correspondence
from loco.evaluation.observed_points import is_visible, pixels_with_depth, reprojection_errors
from loco.evaluation.result import EvaluatedScene
from loco.geometry.cameras import backproject, pixel_centres, scale_intrinsics
from loco.geometry.sampling import sample_features
from loco.storage import Features, Frames

SIZE, STEP, CELLS, CHANNELS = (480, 640), 4, (30, 40), 768  # a ViT-B/16 on Probe3D's frames
SMALL = SIZE[0] // STEP, SIZE[1] // STEP
INTRINSICS = np.array([[577.0, 0, 320], [0, 577, 240], [0, 0, 1]])
WALL = 2.0  # metres
SETTINGS = {
    "rotation_bins": [0, 15, 30, 60, 180],
    "step": STEP,
    "thresholds": [10],
    "matches": 1000,
    "filters": ["ratio", "pixel_distance"],
    "occlusions": [False, True],
    "pairs_per_bin": 1,
    "min_overlap": 0.0,
    "min_baseline": 0.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1, help="number of image pairs (default: 1)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default: 1)")
    parser.add_argument("--run", nargs=2, metavar=("FORM", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.run:
        print(json.dumps(measured(*arguments.run)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_scene(Path(folder), arguments.pairs)
        # New processes, so that only the memory of the search is measured.
        command = [sys.executable, "-m", "benchmarks.correspondences", "--threads", str(arguments.threads), "--run"]
        runs = {
            form: json.loads(subprocess.run([*command, form, folder], check=True, capture_output=True).stdout)
            for form in ("plain", "shared")
        }
    print("| search | s per pair | memory, MB | recall@10px of the four settings, % |\n| :-- | --: | --: | :-- |")
    for title, (seconds, megabytes, recalls) in zip(("direct", "shared"), runs.values()):
        shown = ", ".join(f"{100 * recall:.1f}" for recall in recalls)
        print(f"| {title} | {seconds / arguments.pairs:.2f} | {megabytes:.0f} | {shown} |")
    (slow, large, _), (fast, little, _) = runs["plain"], runs["shared"]
    print(f"\n{slow / fast:.1f} times as fast, with 1/{large / little:.1f} of the memory")


def write_scene(folder: Path, pairs: int) -> None:
    """Write frames of pairs of images of a wall from different positions, and noisy features of the position on it."""
    rng = np.random.default_rng(0)
    waves = rng.normal(0, 3, (3, CHANNELS // 2))
    poses = np.tile(np.eye(4), (2 * pairs, 1, 1))
    poses[1::2, :2, 3] = rng.uniform(-0.5, 0.5, (pairs, 2))
    names = [f"image{k}" for k in range(2 * pairs)]
    matrices = np.linalg.inv(poses[1::2]) @ poses[::2]
    truth = [{"a": names[2 * k], "b": names[2 * k + 1], "pose_a_to_b": m.tolist()} for k, m in enumerate(matrices)]
    intrinsics = np.tile(INTRINSICS, (2 * pairs, 1, 1))
    sizes = {"n": 2 * pairs, "h": SIZE[0], "w": SIZE[1]}
    with Frames.create(folder / "frames.h5", "walls", "wall", sizes, {"ground_truth": {"pairs": truth}}) as file:
        file["depth"][:], file["source"][:] = WALL, Frames.SOURCES.index("sensor")
        file.facts["names"] = names
        file["intrinsics"][:], file["pose"][:] = intrinsics, poses
    sizes = {"n": 2 * pairs, "h": CELLS[0], "w": CELLS[1], "c": CHANNELS}
    centres = pixel_centres(*CELLS) * (SIZE[1] / CELLS[1])
    with Frames(folder / "frames.h5") as frames:
        frames_id = frames.content_id
    facts = {"extent": SIZE}
    with Features.create(folder / "features.h5", "walls", "wall", sizes, facts, frames_id=frames_id) as file:
        for k, pose in enumerate(poses):
            phase = backproject(centres, np.full(CELLS, WALL), INTRINSICS, pose) @ waves
            features = np.concatenate([np.cos(phase), np.sin(phase)], axis=-1) + rng.normal(0, 0.5, (*CELLS, CHANNELS))
            file["features"][k] = features / np.linalg.norm(features, axis=-1, keepdims=True)


def measured(form: str, folder: str) -> tuple[float, float, list[float]]:
    """Return CPU seconds, the growth of the memory in MB, and the mean recall of each setting."""
    with Frames(Path(folder) / "frames.h5") as frames, Features(Path(folder) / "features.h5") as features:
        scene = EvaluatedScene(frames.path, None, features.path)
        before, began = memory("VmRSS"), process_time()
        recalls = (plain if form == "plain" else shared)(scene)
        return process_time() - began, memory("VmHWM") - before, recalls


def shared(scene: EvaluatedScene) -> list[float]:
    """Return the mean recall of each setting by the benchmark of the library."""
    items = pixel_correspondence.evaluate([scene], SETTINGS).items
    return [float(np.mean(items[f"recall@10px{v.name}"])) for v in pixel_correspondence.variants(SETTINGS)]


def plain(scene: EvaluatedScene) -> list[float]:
    """Return the mean recall of each setting by the direct implementation, with a separate search per setting."""
    count = len(scene.ground_truth["pairs"])
    settings = product(SETTINGS["filters"], SETTINGS["occlusions"])
    return [float(np.mean([np.mean(errors < 10) for errors in plain_errors(scene, count, *each)])) for each in settings]


def plain_errors(scene: EvaluatedScene, count: int, filter: str, visible_only: bool) -> Iterator[NDArray]:
    frames, maps = scene.frames, scene.features["features"]
    k_small = scale_intrinsics(INTRINSICS, SIZE, SMALL)
    places = pixel_centres(*SMALL).reshape(-1, 2)
    for k in range(count):
        uv, z = (each.reshape(-1, *each.shape[2:]) for each in pixels_with_depth(frames["depth"][2 * k], STEP))
        pose_b = np.linalg.inv(scene.ground_truth["pairs"][k]["pose_a_to_b"])
        points = backproject(uv, z, k_small, np.eye(4))
        if visible_only:
            seen = is_visible(points, frames["depth"][2 * k + 1], INTRINSICS, pose_b, 0.05)
            uv, points = uv[seen], points[seen]
        a, b = (
            sample_features(torch.from_numpy(maps[2 * k + image]), torch.from_numpy(pixels), SMALL)
            for image, pixels in ((0, uv), (1, places))
        )
        similarity, nearest = (a @ b.T).topk(2, dim=1)
        if filter == "ratio":
            distance = (1 - similarity).clamp(min=1e-9)
            score = 1 - distance[:, 0] / distance[:, 1]
        else:
            score = -torch.from_numpy(np.linalg.norm(places[nearest[:, 0]] - places[nearest[:, 1]], axis=1))
        best = score.topk(min(SETTINGS["matches"], len(score))).indices
        yield reprojection_errors(points[best], places[nearest[best, 0]], k_small, pose_b)


def memory(entry: str) -> float:
    """Return a memory value of this process, MB: ``VmRSS``, its current memory, or ``VmHWM``, its peak."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(entry)) / 1000


if __name__ == "__main__":
    main()
