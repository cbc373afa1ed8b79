"""CPU seconds per training step of several experiments that differ in the loss, for comparisons at equal time.

All experiments take their steps in turn, on the same batches of stored features and on one thread. A step consists of
drawing the batch, head, loss, backward pass and optimiser. The input files are those of a run of the workflow, which
are read without their records:

    python -m benchmarks.step_time --config config/office.yaml config/losses_office.yaml --split office \\
        --experiments head_query head_batch head_sampled head_info_nce head_sup_con head_triplet
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.loss_variants import descend, open_run, patch_features, similarity_loss
from loco.losses import build_loss
from loco.models.build import build_extractor
from loco.training.data import Batch, Batches
from loco.training.optimiser import build_optimiser, set_rates
from loco.training.phases import phases_of

WARM_STEPS = 5  # not measured


class Training:
    """The training of an experiment, one step at a time."""

    def __init__(self, experiment: Mapping[str, Any]) -> None:
        self.extractor = build_extractor(experiment["model"], 0).train()
        (self.phase,) = phases_of(experiment["train"])
        self.optimiser = build_optimiser(self.extractor, [self.phase])
        self.criterion = build_loss(**self.phase.first_loss(), seed=0, normalise=False)
        self.seconds: list[float] = []

    def step(self, number: int, batch: Batch) -> None:
        """Take a step, and append its CPU seconds to ``seconds``."""
        began = time.process_time()
        set_rates(self.optimiser, self.phase, number)
        loss = similarity_loss(self.criterion, batch, patch_features(self.extractor, batch))
        descend(self.extractor, self.optimiser, self.phase, loss)
        self.seconds.append(time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", nargs="+", required=True, help="configuration files of the run")
    parser.add_argument("--experiments", nargs="+", required=True, help="with `cache: true` and equal `train.batch`")
    parser.add_argument("--split", required=True, help="split whose training scenes are used")
    parser.add_argument("--steps", type=int, default=30, help="number of measured steps (default: %(default)s)")
    options = parser.parse_args()
    options.experiment = options.experiments[0]
    torch.set_num_threads(1)
    plan, first, scenes = open_run(options)
    experiments = {name: plan.config["experiments"][name] for name in options.experiments}
    for name, experiment in experiments.items():
        if experiment["train"]["batch"] != first["train"]["batch"]:
            parser.error(
                f"the experiments `{options.experiment}` and `{name}` have different batches: set equal `train.batch`"
            )
    trainings = {name: Training(experiment) for name, experiment in experiments.items()}
    batches, drawing = Batches(scenes, first["train"]["batch"], None, 0, with_images=False), []
    for number in range(WARM_STEPS + options.steps):
        began = time.process_time()
        batch = batches.draw(number)
        drawing.append(time.process_time() - began)
        for training in trainings.values():
            training.step(number, batch)
    draw = statistics.median(drawing[WARM_STEPS:])
    seconds = {name: draw + statistics.median(each.seconds[WARM_STEPS:]) for name, each in trainings.items()}
    print("| experiment | CPU s per step | relative to the first |\n| :-- | --: | --: |")
    for name, one in seconds.items():
        print(f"| {name} | {one:.3f} | {one / seconds[options.experiment]:.2f} |")


if __name__ == "__main__":
    main()
