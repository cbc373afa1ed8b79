"""Time and peak memory of scoring a linear probe patch by patch, compared with storing the logits of all pixels.

``python -m benchmarks.linear_probe`` (Linux) scores the same probe on the same images in two new processes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import BinaryAveragePrecision

from loco.evaluation.linear_probe import Contents, average_precision, score_probe

SIZE, GRID, CHANNELS, CLASSES = (256, 320), (32, 40), 768, 600
BATCH = 4  # images whose logits the form `all pixels` upsamples together (32 in the published code)


def probe() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(CHANNELS, CLASSES)


def image(i: int) -> tuple[Tensor, Tensor]:
    """Return features (32, 40, 768), half precision, and a class map (256, 320) of about 40 classes in rectangles."""
    rng = np.random.default_rng(i)
    classes = rng.choice(CLASSES, 40)[rng.integers(0, 40, (16, 20))].repeat(16, axis=0).repeat(16, axis=1)
    classes = torch.from_numpy(np.roll(classes, 3, axis=(0, 1)).copy())  # so that patches at borders show two classes
    at_centres = classes[4::8, 4::8]
    noise = torch.randn(*GRID, CHANNELS, generator=torch.Generator().manual_seed(i))
    return (10 * F.normalize(noise + 10 * probe().weight.detach()[at_centres], dim=2)).half(), classes


def patch_by_patch(count: int) -> tuple[np.ndarray, ...]:
    """Score with the library: return TP, FP and FN of each class (pixels), the APs, and the bounds of their errors."""
    row, column = np.arange(SIZE[0]) * GRID[0] // SIZE[0], np.arange(SIZE[1]) * GRID[1] // SIZE[1]
    patch_of = row[:, None] * GRID[1] + column

    def images() -> Iterator[tuple[Tensor, Contents]]:
        for i in range(count):
            features, classes = image(i)
            pairs, pixels = np.unique(patch_of * CLASSES + classes.numpy(), return_counts=True)
            yield features.flatten(0, 1), Contents(*np.divmod(pairs, CLASSES), pixels)

    tally = score_probe(probe(), images())
    ap, error = np.array(
        [average_precision(p, t) if p.any() else (np.nan, 0) for p, t in zip(tally.positive, tally.total)]
    ).T
    return tally.right, tally.predicted - tally.right, tally.actual - tally.right, ap, error


@torch.inference_mode()
def all_pixels(count: int) -> tuple[np.ndarray, ...]:
    """Score as published: the logits of all images are upsampled to pixels, and all pixels are ranked for each class.

    Returns:
        TP, FP and FN of each class (pixels), and the APs.
    """
    layer = probe()
    images = [image(i) for i in range(count)]
    logits = torch.stack([layer(features.float()).permute(2, 0, 1) for features, _ in images])
    truth = torch.stack([classes for _, classes in images])
    counts = torch.zeros(3, CLASSES, dtype=torch.int64)
    probability = []
    for some, wanted in zip(logits.split(BATCH), truth.split(BATCH)):
        pixels = F.interpolate(some, SIZE, mode="nearest").softmax(dim=1)
        best = pixels.argmax(dim=1)
        for c in range(CLASSES):
            guessed, there = best == c, wanted == c
            counts[:, c] += torch.stack([(guessed & there).sum(), (guessed & ~there).sum(), (~guessed & there).sum()])
        probability.append(pixels)
    ap = np.full(CLASSES, np.nan)
    for c in np.unique(truth.numpy()).tolist():
        metric = BinaryAveragePrecision()
        for some, wanted in zip(probability, truth.split(BATCH)):
            metric.update(some[:, c].flatten(), (wanted == c).long().flatten())
        ap[c] = float(metric.compute())
    return *counts.numpy(), ap


FORMS = {"all pixels": all_pixels, "patch by patch": patch_by_patch}


def peak() -> float:
    """Return the peak memory of this process, MB; ``ru_maxrss`` would include the memory of the parent process."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1000


def measure(form: str, count: int, out: Path) -> None:
    """Print the seconds and the growth of the peak memory in MB of one form, and write its results to ``out``."""
    torch.set_num_threads(1)
    image(0)
    before, began = peak(), perf_counter()
    numbers = FORMS[form](count)
    print(perf_counter() - began, peak() - before)
    np.savez(out, *numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8, help="number of images (default: 8)")
    parser.add_argument("--form", choices=FORMS, help="measure only this form, in this process (requires --out)")
    parser.add_argument("--out", type=Path, help="file to which the results of --form are written")
    arguments = parser.parse_args()
    if arguments.form:
        measure(arguments.form, arguments.images, arguments.out)
        return
    found, spent = {}, {}
    with TemporaryDirectory() as folder:
        for form in FORMS:
            out = Path(folder, "numbers.npz")
            command = [sys.executable, "-m", "benchmarks.linear_probe", "--form", form, "--out", str(out)]
            command += ["--images", str(arguments.images)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            spent[form] = [float(number) for number in printed.split()]
            with np.load(out) as numbers:
                found[form] = list(numbers.values())
    plain, lean = found.values()
    for name, *counts in zip(("TP", "FP", "FN"), plain, lean):
        assert np.abs(np.subtract(*counts)).sum() <= 1e-4 * plain[0].sum(), name  # near ties may fall either way
    differences, bounds = np.abs(lean[3] - plain[3]), lean[4]
    assert np.all((differences <= bounds + 1e-5) | np.isnan(plain[3]))
    print("| form | seconds | peak memory, MB |\n| :-- | --: | --: |")
    for form, (seconds, megabytes) in spent.items():
        print(f"| {form} | {seconds:.1f} | {megabytes:.0f} |")
    times, sizes = (np.divide(*numbers) for numbers in zip(*spent.values()))
    print(f"\n{times:.1f} times as fast, with 1/{sizes:.1f} of the memory")
    print(f"mAP {np.nanmean(plain[3]):.4f} and {np.nanmean(lean[3]):.4f};", end=" ")
    bound = bounds[~np.isnan(plain[3])].mean()
    print(f"the mean difference of AP is {np.nanmean(differences):.1e}; the stated bound is {bound:.1e}")


if __name__ == "__main__":
    main()
