"""Detection rates and false alarms of the geometric self-check of raw scenes.

Simulated scenes are written in every format with depth, their raw files are damaged, and the scenes are checked.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from loco.datasets import check_scene
from loco.simulate import simulate_scene
from loco.simulate.raw_scannet import export_scannet
from loco.simulate.rewrite import reorder_poses, reverse_axes, rewrite_depth, rewrite_intrinsics, rewrite_poses

WALK = {"rooms": 2, "repetition": 0.5, "images": 24, "image": {"height": 48, "width": 64}}
SETTINGS: dict[str, dict[str, Any]] = {
    "posed_rgbd": WALK,
    "seven_scenes": WALK,
    "tum_rgbd": WALK,
    "scannet": WALK,
    "colmap": WALK,
    "matterport3d": {"rooms": 2, "repetition": 0.5, "panoramas": 2, "image": {"height": 48, "width": 60}},
}
Damage = Callable[[str, Path, str], None]
# The second message is reported if only the principal point reveals that the intrinsics are wrong.
RESIZED = re.compile("the intrinsics appear|belongs? to images of another size")
INVERTED = re.compile("poses appear to be (world-to-camera|camera-to-world)")  # the poses of COLMAP are world-to-camera
# Fault -> expected message of the check (None: no message), and the function that causes it.
FAULTS: dict[str, tuple[str | re.Pattern[str] | None, Damage]] = {
    "none": (None, lambda *_: None),
    "inverted poses": (INVERTED, lambda f, path, scene: rewrite_poses(f, path, scene, np.linalg.inv)),
    "OpenGL axes": ("camera axes", reverse_axes),
    "depth x 5": (re.compile("appears? to be 5 times too large"), lambda f, path, scene: rewrite_depth(f, path, 5.0)),
    "depth / 5": (re.compile("appears? to be 5 times too small"), lambda f, path, scene: rewrite_depth(f, path, 0.2)),
    "shuffled poses": (
        "shuffled",
        lambda *scene: reorder_poses(*scene, np.random.default_rng(0).permutation),
    ),
    "shifted poses": (
        "shifted against",
        lambda *scene: reorder_poses(*scene, lambda n: np.roll(np.arange(n), 1)),
    ),
    "K x 1.25": (RESIZED, lambda f, path, scene: rewrite_intrinsics(f, path, 1.25)),
    "K / 1.25": (RESIZED, lambda f, path, scene: rewrite_intrinsics(f, path, 0.8)),
}


def problems_of(format: str, source: Path, scene: str, damage: Damage) -> list[str]:
    """Return the problems that the check reports for a damaged copy of a scene."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder)
        shutil.copytree(source / scene, raw / scene)
        damage(format, raw / scene, scene)
        return check_scene(format, raw, scene, "sample")["problems"]


def write_scene(format: str, folder: Path, scene: str, seed: int) -> None:
    simulate_scene(format, folder / scene, scene, SETTINGS[format] | {"seed": seed})
    if format == "scannet":  # an export stores poses as text
        export_scannet(folder / scene / f"{scene}.sens", folder / scene)
        (folder / scene / f"{scene}.sens").unlink()


def measure(format: str, folder: Path, scenes: list[str], faults: list[str]) -> None:
    """Print one row per fault, from the checks of damaged copies of the scenes in ``folder``."""
    for fault in faults:
        name, damage = FAULTS[fault]
        begin = time.process_time()
        found = [problems_of(format, folder, scene, damage) for scene in scenes]
        seconds = (time.process_time() - begin) / len(scenes)
        reported = sum(map(bool, found))
        right = sum(bool(re.search(name, "".join(texts))) if name else not texts for texts in found)
        n = len(scenes)
        print(f"| {format} | {fault} | {reported} of {n} | {right} of {n} | {seconds:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=20, help="number of scenes per format (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first scene (default: %(default)s)")
    parser.add_argument("--formats", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--faults", nargs="+", default=list(FAULTS), choices=FAULTS)
    parser.add_argument(
        "--recording", type=Path, help="folder of a posed_rgbd recording to damage instead of simulated scenes"
    )
    arguments = parser.parse_args()
    print("| format | fault | reported | with the correct fault | CPU seconds per check |\n|---|---|--:|--:|--:|")
    with contextlib.redirect_stderr(io.StringIO()):
        if recording := arguments.recording:
            measure("posed_rgbd", recording.parent, [recording.name], arguments.faults)
            return
        for format in arguments.formats:
            with tempfile.TemporaryDirectory() as folder:
                scenes = [f"scene{k}" for k in range(arguments.scenes)]
                for seed, scene in enumerate(scenes, arguments.first_seed):
                    write_scene(format, Path(folder), scene, seed)
                measure(format, Path(folder), scenes, arguments.faults)


if __name__ == "__main__":
    main()
