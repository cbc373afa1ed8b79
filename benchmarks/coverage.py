"""Coverage of 95 % confidence intervals on simulated scores of image pairs whose true mean is known.

    python -m benchmarks.coverage --scenes 3 6 12 --trials 1000

A score is the sum of normally distributed effects of the scene, of both images, of the pair, and of the seed, and of
the interactions of the seed with the scene and with the pair. ``fraction`` maps scores to a skewed distribution on
(0, 1), and ``median`` maps them to errors, the largest of which are infinite. For comparison, a percentile bootstrap
draws clusters of the same level with replacement: pairs, images (the weight of a pair is the product of the counts of
its images) or scenes; seeds are drawn as well.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from loco.evaluation.intervals import FRACTION, LEVELS, Design, Item, Level

KINDS = ("mean", "weighted mean", "difference", "fraction", "median", "median difference")
OFFSET = -1.5  # added to scores before they are mapped to fractions, so that some fractions are near 0


class Effects(NamedTuple):
    """Variances of the effects on the score of a pair."""

    scene: float
    image: float  # sum over both images
    pair: float
    seed: float = 0.0
    seed_scene: float = 0.0
    seed_pair: float = 0.0


ONE_SEED = Effects(0.3, 0.3, 0.4)
SEEDS = Effects(0.2, 0.2, 0.2, 0.05, 0.05, 0.3)


class Trials:
    """Repeated draws of the scores of a dataset of fixed size."""

    def __init__(self, scenes: int, images: int, pairs: int, effects: Effects, seeds: int = 1, seed: int = 0) -> None:
        """
        Args:
            scenes: number of scenes.
            images, pairs: numbers of images and of pairs per scene.
            effects: variances of the effects.
            seeds: number of seeds.
            seed: seed of the draws.
        """
        self.effects, self.seeds, self.images = effects, seeds, images
        self.rng = np.random.default_rng([seed, scenes, seeds])
        all_pairs = np.stack(np.triu_indices(images, 1))
        self.all = all_pairs
        self.pairs = np.concatenate([self.rng.permutation(all_pairs, axis=1)[:, :pairs] for _ in range(scenes)], axis=1)
        self.scene = np.repeat(np.arange(scenes), self.pairs.shape[1] // scenes)
        self.items = [Item(str(s), (str(a), str(b))) for s, a, b in zip(self.scene, *self.pairs)]
        self.weights = self.rng.gamma(2.0, size=len(self.items))

    def draw(self, level: Level) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Draw scores, a sample of the population of new scenes, new images of the scenes, or new pairs of the images.

        With ``level="items"``, the pairs are drawn from all pairs of the images, with replacement.

        Returns:
            Scores of each seed and pair, (s, m); the means of the n normal distributions of which the population of
            each scene is a mixture, (scenes, n); and the variance of each of these distributions.
        """
        rng, effects, scenes = self.rng, self.effects, int(self.scene[-1]) + 1
        shape = scenes, self.images
        of_scene, of_image = _normal(rng, effects.scene, scenes), _normal(rng, effects.image / 2, shape)
        a, b = self.all[:, rng.integers(self.all.shape[1], size=len(self.items))] if level == "items" else self.pairs
        scores = of_scene[self.scene] + of_image[self.scene, a] + of_image[self.scene, b]
        scores = scores + _normal(rng, effects.pair, len(self.items)) + _normal(rng, effects.seed, (self.seeds, 1))
        scores = scores + _normal(rng, effects.seed_scene, (self.seeds, scenes))[:, self.scene]
        scores = scores + _normal(rng, effects.seed_pair, (self.seeds, len(self.items)))
        around = effects.pair + effects.seed + effects.seed_scene + effects.seed_pair
        if level == "items":
            return scores, of_scene[:, None] + of_image[:, self.all[0]] + of_image[:, self.all[1]], around
        if level == "images":
            return scores, of_scene[:, None], around + effects.image
        return scores, np.zeros((scenes, 1)), around + effects.image + effects.scene


def _normal(rng: np.random.Generator, variance: float, shape: int | tuple[int, ...]) -> NDArray[np.float64]:
    return np.sqrt(variance) * rng.normal(size=shape)


def coverage(trials: Trials, level: Level, kind: str, count: int, resamples: int = 0) -> tuple[float, float]:
    """Return the fractions of ``count`` intervals that contain the truth, for the library and the percentile bootstrap.

    The fraction of the bootstrap is NaN if ``resamples`` is 0, and for medians.
    """
    design = Design(trials.items, trials.weights if kind == "weighted mean" else None)
    weights = trials.weights if kind == "weighted mean" else np.ones(len(trials.items))
    statistic, hits, others = "median" if kind.startswith("median") else "mean", 0, 0
    for _ in range(count):
        scores, means, variance = trials.draw(level)
        if kind.endswith("difference"):
            other, its_means, _ = trials.draw(level)
            scores, means, variance = scores - other, means - its_means, 2 * variance
        bounds = -np.inf, np.inf
        in_scene = np.bincount(trials.scene, weights)
        truth = in_scene @ means.mean(axis=1) / in_scene.sum()
        if kind == "fraction":
            scores, bounds = ndtr(scores + OFFSET), FRACTION
            truth = ndtr((means + OFFSET) / np.sqrt(1 + variance)).mean()
        elif kind == "median":
            truth = np.exp(_median(means, variance))
            scores, bounds = np.where(scores > 1, np.inf, np.exp(scores)), (0.0, np.inf)
        elif kind == "median difference":
            truth = _median(means, variance)
        found = design.interval(scores, level, statistic, bounds)
        hits += found.low <= truth <= found.high
        if resamples and statistic == "mean":
            low, high = percentile_bootstrap(trials, scores, weights, level, resamples)
            others += low <= truth <= high
    return hits / count, others / count if resamples and statistic == "mean" else np.nan


def _median(means: NDArray[np.float64], variance: float) -> float:
    """Return the median of a mixture of normal distributions with equal variance."""
    return brentq(lambda x: ndtr((x - means) / np.sqrt(variance)).mean() - 0.5, -10, 10)


def percentile_bootstrap(
    trials: Trials, scores: NDArray, weights: NDArray, level: Level, resamples: int
) -> tuple[float, float]:
    """Return the bounds of the percentile bootstrap: clusters of a level and seeds are drawn with replacement."""
    rng, scenes = trials.rng, int(trials.scene[-1]) + 1

    def counts(n: int) -> NDArray[np.int64]:
        return rng.multinomial(n, np.full(n, 1 / n), size=resamples)

    mean = (counts(trials.seeds) @ scores) / trials.seeds  # (resamples, m)
    drawn = np.empty(mean.shape)
    if level == "scenes":
        drawn = counts(scenes)[:, trials.scene]
    for s in range(scenes) if level != "scenes" else ():
        own = trials.scene == s
        of_image = counts(trials.images) if level == "images" else None
        a, b = trials.pairs[:, own]
        drawn[:, own] = counts(int(own.sum())) if of_image is None else of_image[:, a] * of_image[:, b]
    totals = (drawn * weights).sum(axis=1)
    means = (mean * drawn * weights).sum(axis=1)[totals > 0] / totals[totals > 0]
    return tuple(np.quantile(means, [0.025, 0.975]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scenes", type=int, nargs="+", default=[3, 6, 12], help="numbers of scenes")
    parser.add_argument("--trials", type=int, default=1000, help="number of intervals per entry of the table")
    parser.add_argument("--resamples", type=int, default=300, help="number of resamples of the percentile bootstrap")
    options = parser.parse_args()
    print(f"| scenes | seeds | new | {' | '.join(KINDS)} | percentile bootstrap of means |")
    print("| --: | --: | :-- |" + " --: |" * (len(KINDS) + 1))
    for scenes, (seeds, effects), level in product(options.scenes, ((1, ONE_SEED), (5, SEEDS)), LEVELS):
        trials = Trials(scenes, 10, 17, effects, seeds)
        found = [coverage(trials, level, kind, options.trials)[0] for kind in KINDS]
        found.append(coverage(trials, level, "mean", options.trials, options.resamples)[1])
        name = "pairs" if level == "items" else level
        print(f"| {scenes} | {seeds} | {name} | {' | '.join(f'{100 * value:.1f}' for value in found)} |", flush=True)


if __name__ == "__main__":
    main()
