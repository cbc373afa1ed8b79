"""Gradients of estimates of the ranking loss: cosine similarity with the exact gradient, and time.

The gradient is taken with respect to the parameters of a head on stored features, as in training. For batches of
several sizes, each estimate is compared

- with the exact gradient of the same batch, which measures the noise of the estimate alone;
- with the mean of the exact gradients of the other batches, which measures how well one step follows the direction on
  which all batches agree. If the exact gradient of the batch has nearly the same cosine with this mean, the noise of
  the estimate does not matter.

``sampled`` estimates the loss of one list of all pairs (``ranking="batch"``); drawn queries estimate the loss with
``ranking="query"``. The input files are those of a run of the workflow, which are read without their records:

    python -m benchmarks.gradient_study --config config/office.yaml config/losses_office.yaml --experiment head_query \\
        --split office
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from benchmarks.loss_variants import open_run, patch_features, similarity_loss
from loco.losses import RankingLoss, build_loss
from loco.models.build import build_extractor
from loco.training.data import Batch, Batches
from loco.training.optimiser import build_optimiser, set_rates
from loco.training.phases import phases_of

PAIRS = {"rho": 0.1, "kappa": 5.0, "tau": 0.05}
ONE_LIST = {"name": "exact", **PAIRS}
PER_QUERY = {"name": "exact", "ranking": "query", **PAIRS}
CAPS = {"max_positives": 6000, "max_negatives": 30000}  # as in LoCo's release
ESTIMATES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # name -> (estimate, exact loss)
    "one list": (ONE_LIST, ONE_LIST),
    "sampled, 16 anchors": ({"name": "sampled", "anchors": 16, **CAPS, **PAIRS}, ONE_LIST),
    "sampled, 64 anchors": ({"name": "sampled", "anchors": 64, **CAPS, **PAIRS}, ONE_LIST),
    "per query": (PER_QUERY, PER_QUERY),
    "per query, 64 queries": ({**PER_QUERY, "queries": 64}, PER_QUERY),
    "per query, 256 queries": ({**PER_QUERY, "queries": 256}, PER_QUERY),
    "per query, 1,024 queries": ({**PER_QUERY, "queries": 1024}, PER_QUERY),
}
WARM_STEPS = 30  # training steps before the comparison: at the start, the gradients of all batches are similar


def gradient(extractor: nn.Module, batch: Batch, criterion: RankingLoss) -> tuple[Tensor, float]:
    """Return the gradient of the loss of a batch with respect to all trained parameters, (p,), and the CPU seconds of
    the loss and its backward pass to the features.
    """
    features = patch_features(extractor, batch)
    leaf = features.detach().requires_grad_()
    began = time.process_time()
    similarity_loss(criterion, batch, leaf).backward()
    seconds = time.process_time() - began
    parameters = [parameter for parameter in extractor.parameters() if parameter.requires_grad]
    parts = torch.autograd.grad(features, parameters, leaf.grad)
    return torch.cat([part.flatten() for part in parts]), seconds


def study(extractor: nn.Module, batches: Sequence[Batch], draws: int) -> dict[str, tuple[float, float, float]]:
    """Compare the gradients of all estimates.

    Returns:
        For each estimate, the mean cosine with the exact gradient of the same batch, the mean cosine with the mean
        exact gradient of the other batches, and the mean CPU seconds.
    """
    exact = {
        str(of): [gradient(extractor, batch, build_loss(**of, normalise=False)) for batch in batches]
        for of in (ONE_LIST, PER_QUERY)
    }
    found = {}
    for name, (loss, of) in ESTIMATES.items():
        same, other, seconds = [], [], []
        gradients = torch.stack([vector for vector, _ in exact[str(of)]])
        for number, batch in enumerate(batches):
            mean_of_others = gradients[torch.arange(len(batches)) != number].mean(dim=0)
            for draw in range(1 if loss == of else draws):
                estimate, cost = gradient(extractor, batch, build_loss(**loss, seed=draw, normalise=False))
                same.append(cosine_similarity(estimate, gradients[number], dim=0).item())
                other.append(cosine_similarity(estimate, mean_of_others, dim=0).item())
                seconds.append(cost)
        found[name] = tuple(float(torch.tensor(values).mean()) for values in (same, other, seconds))
    return found


def warmed(experiment: Mapping[str, Any], batches: Batches) -> nn.Module:
    """Return the model of an experiment after :data:`WARM_STEPS` steps of its training."""
    extractor = build_extractor(experiment["model"], 0).train()
    phase = phases_of(experiment["train"])[0]
    optimiser = build_optimiser(extractor, [phase])
    criterion = build_loss(**phase.first_loss(), normalise=False)
    for step in range(WARM_STEPS):
        set_rates(optimiser, phase, step)
        batch = batches.draw(step)
        features = patch_features(extractor, batch)
        optimiser.zero_grad()
        similarity_loss(criterion, batch, features).backward()
        optimiser.step()
    return extractor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", nargs="+", required=True, help="configuration files of the run")
    parser.add_argument("--experiment", required=True, help="an experiment with `cache: true`")
    parser.add_argument("--split", required=True, help="split whose training scenes are used")
    parser.add_argument("--patches", type=int, nargs="+", default=[100, 200, 400, 800], help="patches per image")
    parser.add_argument("--batches", type=int, default=8, help="number of batches per size (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=2, help="number of draws of each estimate per batch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    _, experiment, scenes = open_run(options)
    extractor = warmed(experiment, Batches(scenes, experiment["train"]["batch"], None, 0, with_images=False))
    columns = ["patches", "estimate", "cosine with exact", "with other batches", "CPU s", "CPU s / exact"]
    print(f"| {' | '.join(columns)} |\n| --: | :-- | --: | --: | --: | --: |")
    for patches in options.patches:
        settings = {**experiment["train"]["batch"], "patches_per_image": patches}
        source = Batches(scenes, settings, None, 1, with_images=False)
        batches = [source.draw(step) for step in range(options.batches)]
        found = study(extractor, batches, options.draws)
        size = round(sum(len(batch.rows) for batch in batches) / len(batches))
        for name, (same, other, seconds) in found.items():
            exact = found["one list" if ESTIMATES[name][1] is ONE_LIST else "per query"][2]
            print(
                f"| {size:,} | {name} | {same:.3f} | {other:.3f} | {seconds:.3f} | {seconds / exact:.2f} |", flush=True
            )


if __name__ == "__main__":
    main()
