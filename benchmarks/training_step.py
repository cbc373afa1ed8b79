"""Images per second, waiting time and memory of training steps on random images or random stored features.

A step consists of loading, transfer, colour augmentation, network, exact loss, backward pass and optimiser.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import Dinov2Config

from loco.training.data import Batch
from loco.training.jitter import draw_factors
from loco.training.module import RankingModule, peak_memory
from loco.training.precision import HALF, matmul_precision

DIM, BLOCKS, HEADS, STRIDE = 384, 12, 6, 14  # as in ViT-S/14 of DINOv2
AMOUNT = {"brightness": 0.3, "contrast": 0.3, "colour": 0.1}
LOSS = {"name": "exact", "rho": 0.2, "kappa": 5.0, "tau": 0.05}


class MadeUp(IterableDataset):
    """Batches of random images, or of random stored features, whose patches are on the walls of a room."""

    def __init__(self, images: int, size: int, patches: int, stored: bool) -> None:
        self.images, self.size, self.patches, self.stored = images, size, patches, stored

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng(0)
        side = self.size // STRIDE
        while True:
            points = 5 * torch.from_numpy(rng.random((self.images, side, side, 3), dtype=np.float32))
            points[..., 0].round_()
            use = np.zeros((self.images, side * side), dtype=bool)
            use[:, : self.patches] = True
            use = torch.from_numpy(rng.permuted(use, axis=1)).view(self.images, side, side)
            image = torch.arange(self.images)
            pixels = encoded = factors = None
            if self.stored:
                encoded = torch.from_numpy(rng.standard_normal((self.images, DIM, side, side), dtype=np.float32)).half()
            else:
                shape = (self.images, self.size, self.size, 3)
                pixels = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
                factors = torch.stack([draw_factors(AMOUNT, rng) for _ in range(self.images)])
            yield Batch(
                pixels, points, use, torch.zeros_like(image), image, encoded, factors, use.flatten().nonzero()[:, 0]
            )


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return images per second, the fraction of time spent waiting for batches, and the peak memory (GB)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        config = Dinov2Config(
            hidden_size=DIM, num_hidden_layers=options.blocks, num_attention_heads=HEADS, patch_size=STRIDE
        )
        config.save_pretrained(folder)
        module = RankingModule({"model": _model(options, folder), "train": _settings(options)}, 0, [], Path(folder))
    module.to(device).train()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4)
    scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "float16")
    dataset = MadeUp(options.images, options.size, options.patches, options.model == "stored")
    loader = iter(DataLoader(dataset, None, num_workers=options.workers, pin_memory=device.type == "cuda"))
    waited, began = 0.0, time.perf_counter()
    for step in range(-options.warmup, options.steps):
        if step == 0:
            _wait_for(device)
            waited, began = 0.0, time.perf_counter()
        start = time.perf_counter()
        batch = next(loader)
        waited += time.perf_counter() - start
        batch = Batch(*(None if part is None else part.to(device, non_blocking=True) for part in batch))
        with torch.autocast(device.type, module.half, enabled=module.half is not None):
            loss = module.training_step(batch, step)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()
        module._parts.clear()
    _wait_for(device)
    seconds = time.perf_counter() - began
    return {
        "images/s": options.steps * options.images / seconds,
        "loading": waited / seconds,
        "GB": peak_memory() / 1e9,
    }


def _model(options: argparse.Namespace, folder: str) -> Mapping[str, Any]:
    train = "none" if options.model == "stored" else {"lora": {"rank": 8, "last": options.blocks}}
    return {
        "name": "backbone",
        "backbone": {"name": "transformers", "path": folder, "pretrained": False},
        "stride": STRIDE,
        "train": train,
        "head": {"name": "residual_mlp", "hidden": DIM},
    }


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    settings: dict[str, Any] = {"loss": LOSS, "precision": options.precision, "compile": options.compile}
    settings |= {"checkpoint_activations": options.checkpoint, "grad_cache": options.grad_cache}
    return settings | {"steps": options.steps, "validate_every": options.steps}


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", choices=["vit", "stored"], default="vit", help="ViT-S/14 with LoRA, or a head on stored features"
    )
    parser.add_argument("--images", type=int, default=32, help="number of images per batch (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of an image, pixels (default: %(default)s)")
    parser.add_argument("--patches", type=int, default=200, help="patches per image in the loss (default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="transformer blocks (default: %(default)s)")
    parser.add_argument("--precision", choices=["float32", *HALF], default="float32")
    parser.add_argument("--matmul", choices=["highest", "high", "medium"], default="highest")
    parser.add_argument("--workers", type=int, default=0, help="processes that load batches (default: %(default)s)")
    parser.add_argument("--grad-cache", type=int, help="images that pass through the network together")
    parser.add_argument("--checkpoint", action="store_true", help="activation checkpointing")
    parser.add_argument("--compile", action="store_true", help="torch.compile of the network")
    parser.add_argument("--steps", type=int, default=20, help="number of measured steps (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=5, help="number of steps before them (default: %(default)s)")
    options = parser.parse_args()
    with matmul_precision(options.matmul):
        found = measure(options)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"| device | model | precision | {' | '.join(found)} |\n|---|---|---|--:|--:|--:|")
    numbers = f"{found['images/s']:.1f} | {100 * found['loading']:.1f} % | {found['GB']:.2f}"
    print(f"| {name} | {options.model} | {options.precision} | {numbers} |")


if __name__ == "__main__":
    main()
