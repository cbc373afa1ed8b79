"""Confidence intervals against closed forms, explicit resampling, and simulated scores with a known mean."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import t as student

from benchmarks.coverage import KINDS, ONE_SEED, SEEDS, Effects, Trials, coverage
from loco.evaluation.intervals import FEWEST_SCENES, LEVELS, Design, Item

INF = float("inf")


def scenes_of(count: int, each: int = 1) -> list[Item]:
    """Return items, each of which has images of its own."""
    return [Item(f"s{scene}", (f"i{k}",)) for scene in range(count) for k in range(each)]


def half_width(values: np.ndarray) -> float:
    """Student's interval of a mean of independent values."""
    return student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))


def test_new_scenes_are_students_interval_of_the_means_of_scenes() -> None:
    values = np.random.default_rng(0).normal(size=(9, 5))
    found = Design(scenes_of(9, 5)).interval(values.ravel(), "scenes")
    assert found[:2] == pytest.approx(values.mean() + half_width(values.mean(axis=1)) * np.array([-1, 1]))
    statistic = values.mean() / (values.mean(axis=1).std(ddof=1) / 3)
    assert found.p == pytest.approx(2 * student.sf(abs(statistic), 8))


def test_new_images_keep_the_scenes() -> None:
    """Compare with the variance of a stratified mean: differences between scenes do not widen the interval."""
    values = np.random.default_rng(1).normal(size=(4, 6)) + 100 * np.arange(4)[:, None]
    found = Design(scenes_of(4, 6)).interval(values.ravel(), "images")
    error = np.sqrt((values.var(axis=1, ddof=1) / 6).sum()) / 4
    assert found.high - found.low == pytest.approx(2 * student.ppf(0.975, 20) * error)


def test_the_standard_error_is_that_of_a_cluster_bootstrap() -> None:
    """Scenes of unequal size are resampled as a whole with replacement, explicitly."""
    rng = np.random.default_rng(2)
    scene = np.repeat(np.arange(40), rng.integers(5, 15, size=40))
    values = rng.normal(size=40)[scene] + rng.normal(size=len(scene))
    members = [values[scene == s] for s in range(40)]
    means = [np.concatenate([members[s] for s in rng.integers(40, size=40)]).mean() for _ in range(4000)]
    found = Design([Item(str(s), part=(n,)) for n, s in enumerate(scene)]).interval(values, "scenes")
    error = np.std(means) * np.sqrt(40 / 39)
    assert (found.high - found.low) / (2 * student.ppf(0.975, 39)) == pytest.approx(error, rel=0.05)


def test_both_images_of_a_pair_count() -> None:
    """All pairs of 30 images with additive effects: mean and standard error are twice those of the images."""
    effect = np.random.default_rng(3).normal(size=30)
    a, b = np.triu_indices(30, 1)
    design = Design([Item("s", (str(i), str(j))) for i, j in zip(a, b)])
    found = design.interval(effect[a] + effect[b], "images")
    assert (found.high - found.low) / 2 == pytest.approx(2 * half_width(effect), rel=0.03)
    assert found.high - found.low > 3 * np.diff(design.interval(effect[a] + effect[b], "items")[:2])[0]


def test_seeds_are_crossed_with_scenes() -> None:
    """Compare with a two-way analysis of variance, by the sums of squares of the textbook."""
    values = np.random.default_rng(4).normal(size=(5, 8)) + np.random.default_rng(5).normal(size=(5, 1))
    rows, columns, centre = values.mean(axis=1), values.mean(axis=0), values.mean()
    inner = ((values - rows[:, None] - columns + centre) ** 2).sum() / (4 * 7)
    parts = {"scenes": 5 * columns.var(ddof=1), "seeds": 8 * rows.var(ddof=1), "both": inner}
    assert parts["seeds"] > parts["both"]
    variance = (parts["scenes"] + parts["seeds"] - parts["both"]) / 40
    freedom = (40 * variance) ** 2 / (parts["scenes"] ** 2 / 7 + parts["seeds"] ** 2 / 4 + inner**2 / 28)
    found = Design(scenes_of(8)).interval(values, "scenes")
    assert (found.high - found.low) / 2 == pytest.approx(student.ppf(0.975, freedom) * np.sqrt(variance))


def test_seeds_that_agree_change_nothing() -> None:
    values = np.random.default_rng(6).normal(size=12)
    design = Design(scenes_of(12))
    assert design.interval([values] * 3) == pytest.approx(design.interval(values))


def test_medians_are_bounded_by_order_statistics() -> None:
    """101 items in separate scenes: the fraction below the median has a standard error of about 1 / (2 sqrt(101))."""
    found = Design(scenes_of(101)).interval(np.arange(101.0), "scenes", "median")
    half = student.ppf(0.975, 100) * 0.5 / np.sqrt(101) * 101
    assert found[:2] == pytest.approx((50 - half, 50 + half), abs=1.1)
    shifted = Design(scenes_of(101)).interval(np.exp(np.arange(101.0) / 9), "scenes", "median")
    assert shifted[:2] == pytest.approx(np.exp(np.array(found[:2]) / 9))  # independent of the scale


def test_failures_are_infinite_and_the_median_bears_them() -> None:
    design, values = Design(scenes_of(8)), np.array([[1.0, 2, 3, 4, 5, INF, INF, INF]])
    assert design.value(values, "median") == 4.5
    low, high, _ = design.interval(values, "scenes", "median", (0.0, INF))
    assert (low, high) == (1.0, INF)
    assert Design(scenes_of(3)).interval([1.0, 2.0, 3.0], "scenes", "median", (0.0, INF))[:2] == (0.0, INF)


def test_a_median_of_differences_excludes_zero_where_its_p_value_is_small() -> None:
    rng = np.random.default_rng(7)
    for shift in np.linspace(0, 1, 12):
        found = Design(scenes_of(60)).interval(rng.normal(shift, 1, size=60), "scenes", "median")
        if abs(found.p - 0.05) > 0.03:
            assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_fractions_stay_fractions() -> None:
    """Symmetric in the log-odds, by the delta method."""
    values = np.array([0.95, 1.0, 0.6])
    found, mean = Design(scenes_of(3)).interval(values, "scenes", bounds=(0.0, 1.0)), values.mean()
    half = half_width(values) / (mean * (1 - mean))
    assert logit(found[:2]) == pytest.approx([logit(mean) - half, logit(mean) + half])
    assert 0 < found.low < found.high < 1
    assert Design(scenes_of(3)).interval([1.0, 1.0, 1.0], "scenes", bounds=(0.0, 1.0))[:2] == (1.0, 1.0)


def test_equal_values_are_certain_and_zero_is_not_different_from_zero() -> None:
    design = Design(scenes_of(7, 3))
    assert design.interval(np.full(21, 0.1)) == pytest.approx((0.1, 0.1, 0.0), abs=1e-12)
    assert design.interval(np.zeros(21)) == (0.0, 0.0, 1.0)


def test_the_widest_population_that_the_items_support() -> None:
    assert Design(scenes_of(FEWEST_SCENES, 2)).level == "scenes"
    assert Design(scenes_of(FEWEST_SCENES - 1, 2)).level == "images"
    assert Design([Item("a", part=(k,)) for k in range(9)]).level == "items"
    assert Design([Item("a"), Item("b"), Item("c")]).level == "scenes"  # each item is a scene


def test_images_that_all_pairs_share_cannot_be_left_out() -> None:
    """All pairs of the only scene share one reference image, so nothing shows how much reference images vary."""
    star = Design([Item("a", ("1", str(k))) for k in range(2, 7)])
    assert star.interval(np.arange(5.0), "images") is None
    assert star.level == "items"
    several = Design([Item(scene, ("1", str(k))) for scene in "abc" for k in range(2, 7)])
    assert several.interval(np.arange(15.0), "images") is not None


def test_too_few_items_have_no_interval() -> None:
    assert Design([]).value(np.empty((1, 0))) is None
    assert Design([]).interval([]) is None
    assert Design(scenes_of(1)).interval([0.25]) is None
    assert Design(scenes_of(1)).value(np.array([[0.25]])) == 0.25
    assert Design(scenes_of(9)).interval([float("nan")] * 9) is None


@pytest.mark.parametrize(("count", "noise"), [(400, 0.022), pytest.param(4000, 0.0, marks=pytest.mark.long)])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("seeds", "effects"), [(1, ONE_SEED), (5, SEEDS)])
def test_intervals_cover_the_truth_of_12_scenes(
    level: str, seeds: int, effects: Effects, count: int, noise: float
) -> None:
    """Intervals of every kind cover 93 to 97 %, with a tolerance of two standard errors for few trials."""
    trials = Trials(12, 10, 17, effects, seeds)
    found = {kind: coverage(trials, level, kind, count)[0] for kind in KINDS}
    assert all(0.93 - noise <= fraction <= 0.97 + noise for fraction in found.values()), found


def test_a_percentile_bootstrap_does_not() -> None:
    """The bootstrap of images, by products of counts, is too wide; that of few scenes is too narrow."""
    trials = Trials(12, 10, 17, Effects(0.0, 0.0, 1.0))
    assert coverage(trials, "images", "mean", 200, 100)[1] > 0.97
    assert coverage(Trials(3, 10, 17, ONE_SEED), "scenes", "mean", 200, 100)[1] < 0.85


@pytest.mark.parametrize("kind", ["mean", "median"])
def test_three_scenes_are_few(kind: str) -> None:
    """Student's quantile with two degrees of freedom keeps the coverage; the interval is three times as wide."""
    few, many = (Trials(scenes, 10, 17, ONE_SEED) for scenes in (3, 12))
    assert 0.93 <= coverage(few, "scenes", kind, 500)[0] <= 1.0
    widths = {}
    for name, trials in (("few", few), ("many", many)):
        found = [Design(trials.items).interval(trials.draw("scenes")[0], "scenes") for _ in range(100)]
        widths[name] = np.mean([interval.high - interval.low for interval in found])
    assert widths["few"] > 3 * widths["many"]
