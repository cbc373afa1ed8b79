"""Variants of the ranking loss on stored features: a head is trained with each, and evaluated on the test scenes.

This script tests ideas before they are implemented in the library, such as a radius in patch footprints. Every variant
is computed by autograd over (queries, patches) matrices of a batch, and uses the model, batches, optimiser and number
of steps of an experiment. The input files are those of a run of the workflow, which are read without their records:

    snakemake --configfile config/office.yaml config/losses_office.yaml --cores N ablation_search
    python -m benchmarks.loss_variants --config config/office.yaml config/losses_office.yaml --experiment head_query \\
        --split choice

The experiment needs `cache: true`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize
from torch.optim import Optimizer

from loco import paths
from loco.config import load, read_files
from loco.evaluation.result import EvaluatedScene, Row
from loco.losses import RankingLoss, build_loss
from loco.models.build import build_extractor
from loco.models.stored import save_extractor
from loco.plan import Plan
from loco.steps.extract import extract_scene
from loco.training.data import Batch, Batches
from loco.training.optimiser import build_optimiser, set_rates
from loco.training.phases import Phase, phases_of
from loco.training.scene_files import SceneFiles, open_scenes

QUERIES, POSITIVES = 512, 4_000  # drawn per batch: query patches, and positive pairs that are ranked
KAPPA, TAU = 5.0, 0.05


@dataclass(frozen=True)
class Pairs:
    """Pairs of the drawn queries with all patches of a batch, (q, n) each.

    Attributes:
        scores: similarities of the trained features.
        frozen: similarities of the frozen features.
        distance: distances of the points of the two patches, metres.
        elsewhere: whether the two patches are of different images.
        footprint: side length of the surface that a patch shows, metres; the larger of those of the two patches.
    """

    scores: Tensor
    frozen: Tensor
    distance: Tensor
    elsewhere: Tensor
    footprint: Tensor


Loss = Callable[[Pairs], Tensor]


def per_query(
    pairs: Pairs, rho: Tensor | float, tau: float = TAU, trust: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return 1 minus the mean over the queries of their AP.

    Args:
        pairs: pairs of the queries.
        rho: radius of the positives, metres; a number, or (q, n), one per pair.
        tau: temperature.
        trust: returns the weights of the queries in the mean, from their detached APs; None for equal weights.
    """
    positive = (pairs.distance <= rho) & pairs.elsewhere
    negative = (pairs.distance > rho) & (pairs.distance <= KAPPA)
    query, other = _drawn(positive)
    own = pairs.scores[query, other, None]
    rank = torch.sigmoid((pairs.scores[query] - own) / tau)
    r_p = (rank * positive[query]).sum(dim=1) - 0.5
    r_n = (rank * negative[query]).sum(dim=1)
    ap, ranked = _mean_by_query((1 + r_p) / (1 + r_p + r_n), query, len(positive))
    weight = ranked.to(ap) if trust is None else trust(ap.detach()) * ranked
    return 1 - (weight * ap).sum() / weight.sum()


def per_query_of_radii(pairs: Pairs, radii: Mapping[float, tuple[float, float]]) -> Tensor:
    """Return the weighted mean of the losses of several radii; ``radii`` maps a radius to weight and temperature."""
    losses = [weight * per_query(pairs, rho, tau) for rho, (weight, tau) in radii.items()]
    return torch.stack(losses).sum() / sum(weight for weight, _ in radii.values())


def in_footprints(pairs: Pairs, patches: float) -> Tensor:
    """Return the loss with a radius in patch footprints, at least 3 cm, the noise of depth and poses."""
    return per_query(pairs, (patches * pairs.footprint).clamp(min=0.03))


def nearest_first(pairs: Pairs, rho: float) -> Tensor:
    """Return the loss with graded relevance: a positive should rank above all patches farther from the query."""
    query, other = _drawn((pairs.distance <= rho) & pairs.elsewhere)
    own, distance = pairs.scores[query, other, None], pairs.distance[query, other, None]
    rank = torch.sigmoid((pairs.scores[query] - own) / TAU)
    counted = pairs.elsewhere[query] | (pairs.distance[query] > rho)
    nearer = (pairs.distance[query] <= distance) & counted
    farther = (pairs.distance[query] > distance) & counted & (pairs.distance[query] <= KAPPA)
    r_p, r_n = (rank * nearer).sum(dim=1) - 0.5, (rank * farther).sum(dim=1)
    ap, ranked = _mean_by_query((1 + r_p) / (1 + r_p + r_n), query, len(pairs.scores))
    return 1 - ap[ranked].mean()


def distilled(pairs: Pairs, loss: Loss, weight: float, temperature: float = 0.1) -> Tensor:
    """Return ``loss`` plus ``weight`` times a distillation term.

    The term is the divergence of the softmax of the similarities to the patches of other images, of the trained from
    the frozen features, averaged over the queries.
    """
    target, trained = (
        log_softmax(scores.masked_fill(~pairs.elsewhere, -torch.inf) / temperature, dim=1)
        for scores in (pairs.frozen, pairs.scores)
    )
    divergence = torch.where(pairs.elsewhere, target.exp() * (target - trained), 0.0).sum(dim=1).mean()
    return loss(pairs) + weight * divergence


WEIGHTED = {0.1: (1.0, TAU), 0.4: (0.3, TAU), 1.2: (0.2, TAU)}
VARIANTS: dict[str, Loss] = {
    "query, 0.1, 0.4, 1.2 m, tau 0.05, 0.1, 0.2": partial(
        per_query_of_radii, radii={0.1: (1.0, 0.05), 0.4: (0.3, 0.1), 1.2: (0.2, 0.2)}
    ),
    "query, 1 footprint": partial(in_footprints, patches=1.0),
    "query, 2 footprints": partial(in_footprints, patches=2.0),
    "query, nearest first within 0.1 m": partial(nearest_first, rho=0.1),
    "query, nearest first within 0.4 m": partial(nearest_first, rho=0.4),
    "query, 0.1 m, weighted by AP": partial(per_query, rho=0.1, trust=lambda ap: ap),
    "query, 0.1 m, weighted by 1 - AP": partial(per_query, rho=0.1, trust=lambda ap: 1 - ap),
    "query, 0.1 m, distillation 0.1": partial(distilled, loss=partial(per_query, rho=0.1), weight=0.1),
    "query, 0.1 m, distillation 0.5": partial(distilled, loss=partial(per_query, rho=0.1), weight=0.5),
    "query, three radii, distillation 0.1": partial(
        distilled, loss=partial(per_query_of_radii, radii=WEIGHTED), weight=0.1
    ),
}
_QUERY = {"name": "exact", "ranking": "query", "kappa": KAPPA}
LIBRARY: dict[str, dict[str, Any]] = {  # losses of the library, as baselines
    "global, 0.1 m": {"name": "exact", "rho": 0.1, "kappa": KAPPA, "tau": TAU},
    "global, 0.2 m, tau 0.03": {"name": "exact", "rho": 0.2, "kappa": KAPPA, "tau": 0.03},
    "query, 0.1 m": {**_QUERY, "rho": 0.1, "tau": TAU},
    "query, 0.05 m": {**_QUERY, "rho": 0.05, "tau": TAU},
    "query, 0.1 m, tau 0.1": {**_QUERY, "rho": 0.1, "tau": 0.1},
    "query, 0.1 m, tau 0.03": {**_QUERY, "rho": 0.1, "tau": 0.03},
    "query, 0.1, 0.4, 1.2 m, weights 1, 0.3, 0.2": {
        **_QUERY,
        "rho": [*WEIGHTED],
        "kappa": [KAPPA] * len(WEIGHTED),
        "weights": [weight for weight, _ in WEIGHTED.values()],
        "tau": TAU,
    },
    "InfoNCE, 0.1 m": {"name": "info_nce", "rho": 0.1, "kappa": KAPPA, "tau": 0.07, "queries": QUERIES},
    "SupCon, 0.1 m": {"name": "sup_con", "rho": 0.1, "kappa": KAPPA, "tau": 0.07, "queries": QUERIES},
    "triplet, 0.1 m": {"name": "triplet", "rho": 0.1, "kappa": KAPPA, "queries": QUERIES},
    "query, 0.1 m, 512 queries": {**_QUERY, "rho": 0.1, "tau": TAU, "queries": QUERIES},
}


def _drawn(positive: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of at most :data:`POSITIVES` random positive pairs, which are ranked."""
    query, other = positive.nonzero(as_tuple=True)
    if len(query) > POSITIVES:
        kept = torch.randperm(len(query))[:POSITIVES]
        query, other = query[kept], other[kept]
    return query, other


def _mean_by_query(values: Tensor, query: Tensor, queries: int) -> tuple[Tensor, Tensor]:
    """Return the mean of the values of each query (0 without values), and the mask of queries with values."""
    count = torch.bincount(query, minlength=queries)
    return torch.zeros(queries).index_add_(0, query, values) / count.clamp(min=1), count > 0


# Training and evaluation ----------------------------------------------------------------------------------------------


def train(experiment: Mapping[str, Any], batches: Batches, seed: int, variant: str) -> nn.Module:
    """Return the model of an experiment with one phase, trained with a variant and the settings of the experiment."""
    torch.manual_seed(seed)
    extractor = build_extractor(experiment["model"], seed).train()
    (phase,) = phases_of(experiment["train"])
    optimiser = build_optimiser(extractor, [phase])
    criterion = build_loss(**LIBRARY[variant], seed=seed, normalise=False) if variant in LIBRARY else None
    for step in range(phase.end):
        set_rates(optimiser, phase, step)
        batch = batches.draw(step)
        features = patch_features(extractor, batch)
        if criterion:
            loss = similarity_loss(criterion, batch, features)
        else:
            loss = VARIANTS[variant](_pairs(batches, batch, step, features))
        descend(extractor, optimiser, phase, loss)
    return extractor.eval()


def descend(extractor: nn.Module, optimiser: Optimizer, phase: Phase, loss: Tensor) -> None:
    """Take a step of the optimiser, with the clipping of the phase."""
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(extractor.parameters(), phase.optimiser["clip"])
    optimiser.step()


def patch_features(extractor: nn.Module, batch: Batch) -> Tensor:
    """Return the features (m, d) of the patches of a batch that enter the loss, from its stored encodings."""
    return extractor(None, batch.encoded).permute(0, 2, 3, 1).flatten(0, 2)[batch.rows]


def similarity_loss(criterion: RankingLoss, batch: Batch, features: Tensor) -> Tensor:
    """Return a loss of the library from the features (m, d) of the patches of a batch that enter the loss."""
    image = batch.rows // batch.use[0].numel()
    loss, _ = criterion(features, batch.points.flatten(0, 2)[batch.rows], batch.scene[image], image_ids=image)
    return loss


def _pairs(batches: Batches, batch: Batch, step: int, features: Tensor) -> Pairs:
    image = batch.rows // batch.use[0].numel()
    points = batch.points.flatten(0, 2)[batch.rows]
    frozen = normalize(batch.encoded.float().permute(0, 2, 3, 1).flatten(0, 2)[batch.rows], dim=1)
    query = torch.randperm(len(features))[:QUERIES]
    footprint = torch.from_numpy(_footprints(batches, batch, step)).flatten()[batch.rows]
    return Pairs(
        scores=features[query] @ features.T,
        frozen=frozen[query] @ frozen.T,
        distance=torch.cdist(points[query], points, compute_mode="donot_use_mm_for_euclid_dist"),
        elsewhere=image[query, None] != image,
        footprint=torch.maximum(footprint[query, None], footprint),
    )


def _footprints(batches: Batches, batch: Batch, step: int) -> np.ndarray:
    """Return the footprint of each patch (depth x side in pixels / focal length), (b, h, w) float32, metres."""
    sides = []
    for (number, frame), points in zip(batches.sampler.draw(step), batch.points.numpy(), strict=True):
        scene = batches.scenes[number]
        pose, intrinsics = scene.frames["pose"][frame], scene.frames["intrinsics"][frame]
        depth = (points - pose[:3, 3]) @ pose[:3, 2]
        stride = scene.frames.size[1] / points.shape[1]
        sides.append(np.abs(depth) * stride / intrinsics[0, 0])
    return np.asarray(sides, np.float32)


def evaluate(plan: Plan, options: argparse.Namespace, extractor: nn.Module) -> list[Row]:
    """Return the scores of a model in the benchmarks of the run, on the test scenes of ``options.split``."""
    model = plan.config["experiments"][options.experiment]["model"]
    encoder, rows = plan.encoder(options.experiment), []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.safetensors"
        save_extractor(extractor, extractor.config, weights, {})
        for benchmark in plan.run["benchmarks"]:
            tested = []
            places = plan.test_scenes(benchmark, options.split)
            files = plan.evaluated_scenes(benchmark, options.split, options.experiment, "trained")
            for (dataset, scene), (frames, correspondences, *_) in zip(places, files, strict=True):
                encoded = paths.ENCODED.format(encoder=encoder, dataset=dataset, scene=scene)
                features = Path(folder) / f"{dataset}-{scene}.h5"
                if not features.exists():
                    extract_scene(model, weights, Path(frames), features, 0, Path(encoded))
                tested.append(EvaluatedScene(Path(frames), Path(correspondences), features))
            found = import_module(f"loco.evaluation.{benchmark}").evaluate(tested, plan.config["benchmarks"][benchmark])
            rows += found.rows
    conditions = {row.condition for row in rows}
    return [row for row in rows if row.condition == "all" or row.metric == "mAP" or "all" not in conditions]


def open_run(options: argparse.Namespace) -> tuple[Plan, dict[str, Any], list[SceneFiles]]:
    """Return the plan of ``options.config``, the experiment, and the training scenes of ``options.split``."""
    root = Path(__file__).parents[1]
    plan = Plan(load(read_files(options.config, root), root), root)
    files = plan.train_inputs(options.split, options.experiment)
    scenes = open_scenes(list(zip(files["train_frames"], files["train_correspondences"], files["train_encoded"])))
    return plan, plan.config["experiments"][options.experiment], scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", nargs="+", required=True, help="configuration files of the run")
    parser.add_argument("--experiment", required=True, help="an experiment with `cache: true` and a single phase")
    parser.add_argument("--split", required=True, help="split for training and evaluation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: %(default)s")
    parser.add_argument("--variants", nargs="+", default=[*LIBRARY, *VARIANTS], help="default: all")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("loss_variants.jsonl"),
        help="file to which one line per trained head is appended (default: %(default)s)",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    plan, experiment, scenes = open_run(options)
    for seed in options.seeds:
        batches = Batches(scenes, experiment["train"]["batch"], None, seed, with_images=False)
        for variant in options.variants:
            began = time.process_time()
            extractor = train(experiment, batches, seed, variant)
            seconds = time.process_time() - began
            scores = {f"{row.metric}, {row.condition}": row.value for row in evaluate(plan, options, extractor)}
            line = json.dumps({"variant": variant, "seed": seed, "training_cpu_s": round(seconds, 1), **scores})
            print(line, flush=True)
            with options.out.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
