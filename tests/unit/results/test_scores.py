"""Numbers of tables, compared with numbers computed by hand, and by other methods."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace
from itertools import product
from math import inf
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_rel

from loco.errors import DataError
from loco.evaluation.catalogue import BENCHMARKS, Benchmark
from loco.evaluation.intervals import Item
from loco.evaluation.result import Sample
from loco.results.metrics import Metrics, samples_of
from loco.results.scores import holm
from loco.results.tables.differences import differences, write_differences
from loco.results.tables.summary import summarise, write_tables

Seed = int | None  # None: a deterministic extractor
TITLES = {"exact": "CNN, 50 % & more_", "sift": "a|b"}
NEAR, FAR = "0-15 deg", "15-30 deg"


def lines_with(text: str, *parts: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if all(part in line for part in parts)]


SETTINGS = {"rotation_bins": [0, 15, 30], "thresholds": [5]}


def matched(experiment: str, recalls: list[float | None], seed: Seed = 0, angles: tuple = (3, 8, 12, 20)) -> Metrics:
    items = {"scene": ["a"] * 4, "a": list("wxyz"), "b": list("WXYZ"), "angle": list(angles), "recall@5px": recalls}
    items["n_matches"] = [100] * 4
    path = Path(f"{experiment}{seed}.json")
    return Metrics(path, "pixel_correspondence", "houses", experiment, seed, SETTINGS, {}, [], items)


def test_differences_are_taken_item_by_item() -> None:
    """Scores vary widely but differ by a constant, so the interval of the difference has length zero."""
    table = differences(
        [matched("exact", [0.15, 0.65, 0.95, 0.35]), matched("sift", [0.1, 0.6, 0.9, 0.1])], TITLES, [("exact", "sift")]
    ).set_index("condition")
    assert set(table["experiment"]) == {"exact - sift"}
    assert table.loc[NEAR, ["value", "low", "high", "n"]].tolist() == pytest.approx([0.05, 0.05, 0.05, 3])
    assert table.loc["all", ["value", "n"]].tolist() == pytest.approx([0.1, 4])
    assert table["std"].isna().all()
    assert table.loc["all", "low"] < 0.1 < table.loc["all", "high"]


def test_seeds_are_compared_with_their_own() -> None:
    runs = [matched("exact", [0.5 + seed / 10] * 4, seed) for seed in (0, 1)]
    runs += [matched("sift", [0.2 - seed / 10] * 4, seed) for seed in (0, 1)]
    first = differences(runs, TITLES, [("exact", "sift")]).iloc[0]
    assert first[["value", "seeds"]].tolist() == pytest.approx([0.4, 2])
    assert first["low"] == pytest.approx(0.4 - student.ppf(0.975, 1) * 0.1)  # of 0.3 and 0.5, for any items
    assert first["high"] == 1.0  # differences of fractions are not larger
    assert first["std"] == pytest.approx(0.2 / 2**0.5)
    with pytest.raises(DataError, match="no metric file of pixel_correspondence / houses / sift / 1 to compare with"):
        differences(runs[:3], TITLES, [("exact", "sift")])


def test_differences_of_a_condition_without_items_are_missing() -> None:
    table = differences([matched(name, [0.1, 0.2, 0.3, None]) for name in TITLES], TITLES, [("exact", "sift")])
    assert table.set_index("condition")["value"].isna().to_dict() == {NEAR: False, FAR: True, "all": False}


def test_runs_that_were_asked_other_questions_are_not_compared() -> None:
    other = matched("sift", [0.1, 0.2, 0.3, None], angles=(3, 8, 12, 20))
    with pytest.raises(DataError, match="other items"):
        differences([matched("exact", [0.1, 0.2, 0.3, 0.4]), other], TITLES, [("exact", "sift")])


def test_seeds_that_were_asked_different_questions_are_not_averaged() -> None:
    runs = [matched(name, [0.1, 0.2, 0.3, 0.4 if seed else None], seed) for name in TITLES for seed in (0, 1)]
    with pytest.raises(DataError, match="other items"):
        differences(runs, TITLES, [("exact", "sift")])


def test_certain_differences_are_bold_and_signed(tmp_path: Path) -> None:
    runs = [matched("exact", [0.15, 0.65, 0.95, 0.0]), matched("sift", [0.1, 0.6, 0.9, 0.1])]
    write_differences(runs, TITLES, [("exact", "sift")], tmp_path / "d")
    (line,) = lines_with((tmp_path / "d.md").read_text(), "CNN")
    assert "**+5.0** [+5.0, +5.0]" in line
    assert "| -10.0 |" in line
    assert "**" not in line.rpartition("| ")[0].rpartition("| ")[2]  # all: the interval contains zero
    assert r"CNN, 50 \% \& more\_ $-$ a|b & \textbf{+5.0}" in (tmp_path / "d.tex").read_text()
    assert r"\label{tab:pixel_correspondence_differences}" in (tmp_path / "d.tex").read_text()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark whose number is the median of the column ``error``."""

    def samples(items: dict, settings: dict) -> list[Sample]:
        keys = [Item(scene, part=(name,)) for scene, name in zip(items["scene"], items["image"])]
        return [Sample("error", "all", keys, items["error"], statistic=settings["statistic"], unit="m")]

    monkeypatch.setitem(sys.modules, "loco.evaluation.toy", SimpleNamespace(samples=samples))
    monkeypatch.setitem(BENCHMARKS, "toy", Benchmark("toy", (), "Toy", "Errors of toys", "toys", "new toys"))


def toyed(
    experiment: str, errors: list[float], seed: Seed = 0, statistic: str = "median", scenes: list[str] | None = None
) -> Metrics:
    items = {"scene": scenes or ["a"] * len(errors), "image": list(range(len(errors))), "error": errors}
    settings = {"statistic": statistic}
    return Metrics(Path(f"{experiment}{seed}.json"), "toy", "houses", experiment, seed, settings, {}, [], items)


@pytest.mark.usefixtures("toy")
def test_medians_differ_by_the_median_of_the_differences() -> None:
    """The median of the differences is not the difference of the medians, which is 2 here."""
    one = differences([toyed("exact", [1, 5, 9]), toyed("sift", [0, 3, 12])], TITLES, [("exact", "sift")]).iloc[0]
    assert (one["value"], one["unit"], one["n"]) == (1, "m", 3)


@pytest.mark.usefixtures("toy")
def test_two_failures_are_no_difference_and_one_is_an_infinite_one() -> None:
    def compared(mine: list[float], other: list[float]) -> pd.Series:
        return differences([toyed("exact", mine), toyed("sift", other)], TITLES, [("exact", "sift")]).iloc[0]

    assert compared([inf, inf, 7.0], [inf, inf, 3.0])["value"] == 0
    assert compared([inf, 2.0, 7.0], [1.0, inf, 3.0])["value"] == 4  # of inf, -inf, 4
    worse = compared([inf, inf, 1.0], [1.0, 2.0, 1.0])
    assert pd.isna(worse["value"])
    assert pd.isna(worse["high"])


@pytest.mark.usefixtures("toy")
def test_failures_of_seeds_count_with_their_signs() -> None:
    runs = [toyed("exact", [inf, 3.0, 4.0]), toyed("sift", [1.0, 1.0, 1.0])]
    runs += [toyed("exact", [1.0, 3.0, 4.0], 1), toyed("sift", [inf, 1.0, 1.0], 1)]
    first = differences(runs, TITLES, [("exact", "sift")]).iloc[0]
    assert first["value"] == 2.5  # of inf, 2, 3, -inf, 2, 3
    assert first["std"] == pytest.approx(0.5**0.5)  # per seed: the median of inf, 2, 3 and of -inf, 2, 3


@pytest.mark.usefixtures("toy")
def test_what_one_of_two_cannot_do_is_not_a_difference_of_zero() -> None:
    """An extractor without a class token has no score, but its items exist."""
    runs = [toyed("exact", [float("nan")] * 3, statistic="mean"), toyed("sift", [1.0, 2.0, 3.0], statistic="mean")]
    assert pd.isna(differences(runs, TITLES, [("exact", "sift")]).iloc[0]["value"])


@pytest.mark.usefixtures("toy")
def test_differences_of_errors_say_that_less_is_better(tmp_path: Path) -> None:
    runs = [toyed("exact", [1.0, 2.0, 3.0]), toyed("sift", [1.5, 2.5, 3.5])]
    write_differences(runs, TITLES, [("exact", "sift")], tmp_path / "d")
    text = (tmp_path / "d.md").read_text(encoding="utf-8")
    assert "first minus second, in the unit of the metric (lower is better); one seed" in text
    assert "| **-0.500** [-0.500, -0.500] |" in text


@pytest.mark.parametrize("comparison", [("exact", "sift"), ("sift", "exact")])
def test_the_run_of_a_deterministic_extractor_is_compared_with_every_seed(comparison: tuple[str, str]) -> None:
    runs = [matched("exact", [0.5 + seed / 10] * 4, seed) for seed in (0, 1, 4)] + [matched("sift", [0.2] * 4, None)]
    first = differences(runs, TITLES, [comparison]).iloc[0]
    each = [0.3, 0.4, 0.7]
    sign = 1 if comparison[0] == "exact" else -1
    assert first["value"] == pytest.approx(sign * sum(each) / 3)
    assert first["std"] == pytest.approx(statistics.stdev(each))
    assert (first["seeds"], first["deterministic"]) == (3, False)


def test_two_deterministic_extractors_are_compared_once(tmp_path: Path) -> None:
    runs = [matched("exact", [0.15, 0.65, 0.95, 0.0], None), matched("sift", [0.1, 0.6, 0.9, 0.1], None)]
    first = differences(runs, TITLES, [("exact", "sift")]).iloc[0]
    assert (first["seeds"], first["deterministic"]) == (1, True)
    assert pd.isna(first["std"])
    write_differences(runs, TITLES, [("exact", "sift")], tmp_path / "d")
    assert "all extractors are deterministic" in (tmp_path / "d.md").read_text(encoding="utf-8")
    with pytest.raises(DataError, match="no metric file of pixel_correspondence / houses / sift to compare with"):
        differences(runs[:1], TITLES, [("exact", "sift")])


def test_a_run_that_is_there_twice_is_no_second_seed() -> None:
    again = replace(matched("exact", [0.5] * 4), path=Path("copy.json"))
    with pytest.raises(
        DataError, match=r"two metric files belong to pixel_correspondence / houses / exact / 0\n.*copy"
    ):
        summarise([matched("exact", [0.5] * 4), again], TITLES)
    with pytest.raises(DataError, match="both with a seed and"):
        summarise([matched("exact", [0.5] * 4, seed) for seed in (None, 2)], TITLES)
    with pytest.raises(DataError, match="both with a seed and"):
        differences([matched("exact", [0.1] * 4, s) for s in (0, None)], TITLES, [("exact", "sift")])


def test_a_file_without_a_column_of_its_benchmark_is_named() -> None:
    broken = matched("sift", [0.1] * 4)
    del broken.items["angle"]
    with pytest.raises(DataError, match=r"has no 'angle'(.|\n)*sift0.json"):
        differences([matched("exact", [0.1] * 4), broken], TITLES, [("exact", "sift")])


def test_one_seed_has_the_interval_of_its_metric_file() -> None:
    run = matched("exact", [0.15, 0.65, 0.95, 0.35])
    table = summarise([run], TITLES)
    for line, sample in zip(table.itertuples(), samples_of(run), strict=True):
        row = sample.row()
        assert (line.metric, line.condition, line.n) == (row.metric, row.condition, row.n)
        known = [line.value, *([line.low, line.high] if row.low is not None else [])]
        assert known == pytest.approx([row.value, *([row.low, row.high] if row.low is not None else [])])
    assert table["population"].dropna().unique().tolist() == ["new images of these scenes"]
    assert table["scenes"].unique().tolist() == [1]
    assert table["low"].equals(table["low_new_images"])
    assert table["low_new_scenes"].isna().all()
    assert table["std"].isna().all()


def test_a_score_of_seeds_is_that_of_all_their_items() -> None:
    runs = [matched("exact", [v - 0.1, v, v, v + 0.1], seed) for seed, v in enumerate((0.4, 0.5, 0.6))]
    table = summarise(runs, TITLES).set_index("condition")
    assert table.loc["all", ["value", "std"]].tolist() == pytest.approx([0.5, 0.1])
    assert table.loc["all", ["n", "scenes", "seeds"]].tolist() == [4, 1, 3]
    alone = summarise(runs[:1], TITLES).set_index("condition").loc["all"]
    assert np.diff(table.loc["all", ["low", "high"]].astype(float)) > np.diff(alone[["low", "high"]].astype(float))


def test_the_median_of_seeds_is_that_of_all_their_errors(toy: None) -> None:
    table = summarise([toyed("exact", [1.0, 2.0, 9.0]), toyed("exact", [4.0, 5.0, inf], 1)], TITLES)
    assert table.loc[0, "value"] == 4.5
    assert table.loc[0, "std"] == pytest.approx(statistics.stdev([2, 5]))


def test_seeds_on_other_items_are_not_pooled() -> None:
    runs = [matched("exact", [0.1, 0.2, 0.3, 0.4 if seed else None], seed) for seed in (0, 1)]
    with pytest.raises(DataError, match="other items"):
        summarise(runs, TITLES)


def test_a_deterministic_extractor_has_one_run_and_no_deviation() -> None:
    runs = [matched("exact", [v] * 4, s) for s, v in enumerate([0.4, 0.5, 0.6])] + [matched("sift", [0.3] * 4, None)]
    table = summarise(runs, TITLES)
    assert table.groupby("experiment")["deterministic"].first().to_dict() == {"exact": False, "sift": True}
    assert table.groupby("experiment")["seeds"].first().to_dict() == {"exact": 3, "sift": 1}
    assert table.loc[table["experiment"] == "sift", "std"].isna().all()


def houses(experiment: str, effects: np.ndarray, seed: Seed = 0) -> Metrics:
    """One error per house."""
    return toyed(experiment, effects.tolist(), seed, "mean", scenes=[f"house{n}" for n in range(len(effects))])


@pytest.mark.usefixtures("toy")
def test_differences_of_scenes_are_a_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=12)
    other = one + rng.normal(0.3, 0.5, size=12)
    line = differences([houses("exact", one), houses("sift", other)], TITLES, [("exact", "sift")]).iloc[0]
    expected = ttest_rel(one, other)
    assert line["p"] == pytest.approx(expected.pvalue)
    assert line[["low", "high"]].tolist() == pytest.approx(list(expected.confidence_interval()))
    assert (line["population"], line["scenes"]) == ("new scenes", 12)


@pytest.mark.usefixtures("toy")
def test_the_best_of_a_column_is_compared_with_all_others() -> None:
    """Three rows make three pairs; the smallest error is best, and Holm's correction multiplies by 3, then by 2."""
    rng = np.random.default_rng(1)
    one = rng.normal(5, 1, size=12)
    runs = {"a": one, "b": one + rng.normal(0.2, 0.5, size=12), "c": one + rng.normal(1, 0.5, size=12)}
    table = summarise([houses(name, errors) for name, errors in runs.items()], dict.fromkeys("abc", "title"))
    table = table.set_index("experiment")
    p = {name: ttest_rel(runs[name], one).pvalue for name in "bc"}
    assert table["comparisons"].unique().tolist() == [3]
    assert pd.isna(table.loc["a", "p_best"])
    assert table.loc["c", "p_best"] == pytest.approx(3 * p["c"])
    assert table.loc["b", "p_best"] == pytest.approx(min(1, max(2 * p["b"], 3 * p["c"])))


@pytest.mark.usefixtures("toy")
def test_what_is_not_certainly_worse_is_as_bold_as_the_best(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(5, 1, size=12)
    runs = {"exact": one, "sift": one + rng.normal(0.05, 1, size=12), "bad": one + rng.normal(3, 0.1, size=12)}
    titles = {"exact": "first", "sift": "second", "bad": "third"}
    write_tables([houses(name, errors) for name, errors in runs.items()], titles, tmp_path / "t")
    text = (tmp_path / "t.md").read_text(encoding="utf-8")
    assert lines_with(text, "first", "**")
    assert lines_with(text, "second", "**")
    assert not lines_with(text, "third", "**")
    assert "3 comparisons" in text
    assert "confidence interval for new scenes. Bold" in text
    assert lines_with(text, "number of scenes") == ["|  | number of scenes | 12 |"]
    assert lines_with(text, "number of seeds") == ["|  | number of seeds | 1 |"]


def test_few_scenes_are_named_in_the_caption(tmp_path: Path) -> None:
    write_tables([matched("exact", [0.1, 0.2, 0.3, 0.4])], TITLES, tmp_path / "t")
    text = (tmp_path / "t.md").read_text(encoding="utf-8")
    assert "for new images of these scenes; intervals for new scenes require 6 scenes, found 1" in text


def test_holm_by_hand() -> None:
    p = pd.Series([0.01, np.nan, 0.04, 0.03])
    assert holm(p, 3).tolist() == pytest.approx([0.03, np.nan, 0.06, 0.06], nan_ok=True)
    assert holm(p, 5).tolist() == pytest.approx([0.05, np.nan, 0.12, 0.12], nan_ok=True)
    assert holm(p, 100).max() == 1


def test_a_large_table_takes_seconds() -> None:
    """Six rows of ten seeds, 204 pairs of 12 scenes, 9 bins: 540 scores and 135 comparisons."""
    rng = np.random.default_rng(0)
    items = {"scene": [f"s{n}" for n in np.repeat(np.arange(12), 17)], "n_matches": [100] * 204}
    items |= {side: [f"{side}{n}" for n in rng.integers(20, size=204)] for side in "ab"}
    items |= {"angle": rng.uniform(0, 90, size=204).tolist()}
    settings = {"rotation_bins": list(range(0, 91, 10)), "thresholds": [5]}
    runs = []
    for name, seed in product("abcdef", range(10)):
        scored = items | {"recall@5px": rng.random(204).tolist()}
        runs.append(replace(matched(name, [0.0] * 4, seed), settings=settings, items=scored))
    start = time.process_time()
    table = summarise(runs, dict.fromkeys("abcdef", "title"))
    assert len(table) == 60
    assert time.process_time() - start < 5
