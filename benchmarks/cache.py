"""Images per second of training on stored features of a frozen backbone, and with features computed in each step."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import Dinov2Config, Dinov2Model

from loco.steps.correspondence import correspond_scene
from loco.steps.encode import encode_scene
from loco.storage import Frames
from loco.training.data import Batches
from loco.training.module import RankingModule
from loco.training.scene_files import open_scenes

SIZE, COUNT = (126, 168), 48
BATCH = {"scenes": 1, "images_per_scene": 8, "min_overlap": 0.3, "min_baseline": 0.0, "patches_per_image": None}
TRAIN = {
    "loss": {"name": "exact", "rho": 0.2, "kappa": 5.0, "tau": 0.05},
    "steps": 1,
    "batch": BATCH,
    "optimiser": {"lr": 1e-3, "weight_decay": 0.0, "warmup_steps": 0, "clip": 1.0},
}


def write_wall(path: Path) -> None:
    """Write frames of a wall at a distance of 2 m from a camera that moves sideways; the colours are noise."""
    rng = np.random.default_rng(0)
    intrinsics = np.tile(np.array([[140.0, 0, 84], [0, 140, 63], [0, 0, 1]]), (COUNT, 1, 1))
    poses = np.tile(np.eye(4), (COUNT, 1, 1))
    poses[:, 0, 3] = np.linspace(0, 3, COUNT)
    names = [f"image{i:02}" for i in range(COUNT)]
    with Frames.create(path, "walls", "wall", {"n": COUNT, "h": SIZE[0], "w": SIZE[1]}) as file:
        file["rgb"][:] = rng.integers(0, 256, (COUNT, *SIZE, 3), np.uint8)
        file["depth"][:], file["source"][:] = 2.0, Frames.SOURCES.index("sensor")
        file.facts["names"] = names
        file["intrinsics"][:], file["pose"][:] = intrinsics, poses


def run(model: Mapping[str, Any], files: list[Path], steps: int, out: Path) -> tuple[float, float, list[float]]:
    """Take a warm-up step and ``steps`` timed steps.

    Returns:
        Images per second and the fraction of time spent loading, both of the timed steps, and the losses of all steps.
    """
    module = RankingModule({"model": model, "train": TRAIN}, 0, [], out)
    scenes = open_scenes([files])
    batches = Batches(scenes, BATCH, None, 0, with_images=len(files) < 3 or module.extractor.needs_images)
    optimiser = module.configure_optimizers()["optimizer"]
    loading, losses, began = 0.0, [], 0.0
    for step in range(steps + 1):
        if step == 1:
            loading, began = 0.0, time.perf_counter()
        start = time.perf_counter()
        batch = batches.draw(step)
        loading += time.perf_counter() - start
        loss = module.training_step(batch, step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    seconds = time.perf_counter() - began
    return steps * BATCH["images_per_scene"] / seconds, loading / seconds, losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10, help="number of timed steps of each form (default: 10)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        # The size of DINOv2 S/14 with random weights, because the cost of a step does not depend on their values.
        config = Dinov2Config(
            hidden_size=384, num_hidden_layers=12, num_attention_heads=6, patch_size=14, image_size=518
        )
        Dinov2Model(config).save_pretrained(folder / "vit")
        backbone = {"name": "transformers", "path": str(folder / "vit")}
        head = {"name": "residual_mlp", "hidden": 256}
        model = {"name": "backbone", "backbone": backbone, "stride": 14, "head": head}
        frames, correspondences, encoded = (folder / f"{kind}.h5" for kind in ("frames", "correspondences", "encoded"))
        write_wall(frames)
        correspond_scene(frames, correspondences, {"stride": 14, "overlap_tolerance": 0.05})
        encode_scene(model, frames, encoded)
        computed = run(model, [frames, correspondences], arguments.steps, folder)
        stored = run(model, [frames, correspondences, encoded], arguments.steps, folder)
    print("| features of the backbone | images per second | fraction of time spent loading |\n| :-- | --: | --: |")
    for title, (rate, loading, _) in (("computed at each step", computed), ("stored", stored)):
        print(f"| {title} | {rate:.1f} | {100 * loading:.0f} % |")
    apart = np.abs(np.subtract(computed[2], stored[2])).max()
    print(f"\n{stored[0] / computed[0]:.1f} times the images per second; losses differ by at most {apart:.1e}")


if __name__ == "__main__":
    main()
