"""Plots show the numbers that they are given."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.special import logit
from scipy.stats import t as student

from loco.evaluation.catalogue import BENCHMARKS
from loco.evaluation.intervals import Item
from loco.evaluation.result import Row, Sample
from loco.results.metrics import Metrics
from loco.results.plots import ablations, scores, style, training

pytestmark = pytest.mark.usefixtures("rows_as_scores")
Seed = int | None  # None: a deterministic extractor
TITLES = {"place": "place & more", "absent": "not run", "colour": "colour"}
COLOURS = {name: style.colour_and_marker(name, TITLES)[0] for name in TITLES}


def metric_file(benchmark: str, experiment: str, rows: list[Row], items: dict | None = None, seed: Seed = 0) -> Metrics:
    path = Path(f"{experiment}.json")
    return Metrics(path, benchmark, "houses", experiment, seed, {}, {}, rows, items or {})


def correspondence(experiment: str, recall: np.ndarray, seed: Seed = 0) -> Metrics:
    angle = np.linspace(1, 100, len(recall))
    items = {"angle": angle.tolist(), "recall@5px": [None if np.isnan(r) else r for r in recall.tolist()]}
    items |= {"recall@10px": items["recall@5px"], "recall@20px": items["recall@5px"]}
    items |= {"scene": ["a"] * len(angle), "a": list(map(str, range(len(angle)))), "b": ["last"] * len(angle)}
    settings = {"rotation_bins": [0, 15, 30, 60, 180], "thresholds": [5, 10, 20]}
    path = Path(f"{experiment}.json")
    return Metrics(path, "pixel_correspondence", "houses", experiment, seed, settings, {}, [], items)


def consistency(experiment: str, value: float | None) -> Metrics:
    rows = [Row("mAP", "2 m, uniform", value, value and value - 0.1, value and value + 0.1, 20)]
    rows += [Row("mAP", "5 m, uniform", 0.5, None, None, 1)]
    return metric_file("location_consistency", experiment, rows)


def recognition(experiment: str, recall: float, ks: tuple[int, ...] = (20, 1, 5)) -> Metrics:
    rows = [
        Row(f"recall@{k}", descriptor, value, value and value - 0.02, value and value + 0.03, 9)
        for k in ks
        for descriptor, value in {"VLAD 32": recall + k / 100, "class token": None}.items()
    ]
    return metric_file("place_recognition", experiment, rows)


def planes(experiment: str, accuracy: float) -> Metrics:
    rows = [Row(f"MMA@{t}px", "all", accuracy * t, accuracy * t, accuracy * t, 9) for t in (1, 2, 3, 5, 10)]
    rows += [Row("AUC@3px", "all", 0.4, 0.3, 0.5, 9), Row("corner error", "all", 2.5, 2.0, None, 9, "px")]
    return metric_file("homography", experiment, rows)


def posed(experiment: str, rotation: list[float | None], seed: Seed = 0) -> Metrics:
    n = len(rotation)
    items = {"method": ["rigid"] * n + ["essential"] * n, "rotation_error": rotation * 2}
    items |= {"translation_error": [r and r / 10 for r in rotation] + [None] * n, "direction_error": rotation * 2}
    return metric_file("relative_pose", experiment, [], items, seed)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Record the figures of a test, in the order in which they are drawn; no files are written."""
    seen: list[Figure] = []

    @contextmanager
    def keep(stem: Path, width: float, height: float) -> Iterator[Figure]:
        with matplotlib.rc_context(style.STYLE):
            seen.append(Figure(figsize=(width, height), layout="constrained"))
            yield seen[-1]

    for module in (scores, training, ablations):
        monkeypatch.setattr(module, "new_figure", keep)
    return seen


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return a benchmark that scores the column ``score`` under two conditions, with the statistic of its settings."""

    def samples(items: dict, settings: dict) -> list[Sample]:
        chosen = [k for k, score in enumerate(items["score"]) if score is not None]
        keys, scores = [Item(items["scene"][k], part=(k,)) for k in chosen], [items["score"][k] for k in chosen]
        statistic = settings["statistic"]
        return [Sample("score", c, keys, [s + add for s in scores], statistic=statistic) for c, add in CONDITIONS]

    monkeypatch.setitem(sys.modules, "loco.evaluation.toy", SimpleNamespace(samples=samples))


CONDITIONS = [("near", 0.5), ("all", 0.0)]


def toyed(experiment: str, scenes: dict[str, list[float | None]], seed: Seed = 0, statistic: str = "mean") -> Metrics:
    items = {"scene": [], "score": []}
    for scene, values in scenes.items():
        items["scene"] += [scene] * len(values)
        items["score"] += values
    path = Path(f"{experiment}.json")
    return Metrics(path, "toy", "houses", experiment, seed, {"statistic": statistic}, {}, [], items)


def points(axes: Axes, experiment: str) -> list[list[float]]:
    """Return x and y of the only line of an experiment, without missing points."""
    (line,) = (line for line in axes.lines if to_hex(line.get_color()).upper() == COLOURS[experiment])
    return [xy for xy in np.asarray(line.get_xydata()).round(6).tolist() if not np.isnan(xy).any()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    lines = [f"{step},{1 + (step > 25)},{1 / step},,{'' if step % 10 else step / 100}" for step in range(1, 41)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["step,phase,loss,mean_ap,val_map", *lines]))
    return path


@pytest.mark.usefixtures("toy")
def test_plots_are_whole_and_alike_on_every_run(log: Path, draw_twice: Callable) -> None:
    recall = np.random.default_rng(0).uniform(size=60)
    pairs = [correspondence("place", recall), correspondence("colour", recall / 2)]
    consistencies = [consistency("place", 0.7), consistency("colour", None)]

    def draw(folder: Path) -> None:
        training.training_curve({"place": [log, log]}, TITLES, folder / "training_curve")
        scores.recall_against_angle(pairs, TITLES, folder / "recall")
        scores.dots(consistencies, TITLES, folder / "dots")
        scores.recall_at_k([recognition("place", 0.5)], TITLES, folder / "recall_at_k")
        scores.matching_accuracy([planes("place", 0.05)], TITLES, folder / "matching_accuracy")
        scores.error_curves([posed("place", [1.0, 2.0, None])], TITLES, folder / "error_curves")
        scores.per_scene_spread([toyed("place", {"a": [0.5, 0.7]})], TITLES, folder / "spread")
        numbers = {"place": "0.5", "colour": "5"}
        ablations.ablation_plot([*consistencies, *consistencies], numbers, "kappa, m", folder / "ablation")

    stems = (
        "training_curve",
        "recall",
        "dots",
        "recall_at_k",
        "matching_accuracy",
        "error_curves",
        "spread",
        "ablation",
    )
    draw_twice(draw, *stems)


def test_each_phase_has_its_panel_and_its_mark(log: Path, drawn: list[Figure], tmp_path: Path) -> None:
    training.training_curve({"place": [log]}, TITLES, tmp_path / "curve")
    first, second, validation = drawn[0].axes
    for axes, steps in ((first, range(1, 26)), (second, range(26, 41))):
        x, y = axes.lines[0].get_data()  # each step; the other line is the running mean
        assert x.tolist() == list(steps)
        np.testing.assert_allclose(y, [1 / step for step in steps])
    curve, mark = validation.lines
    assert curve.get_xdata().tolist() == [10, 20, 30, 40]
    assert list(mark.get_xdata()) == [26, 26]


def test_binned_recall_against_brute_force() -> None:
    angle = np.random.default_rng(1).permutation(60).astype(float)
    pairs = [Item("a", (f"{n}a", f"{n}b")) for n in range(60)]  # of images that are in no other pair
    centre, mean, low, high = scores._binned(angle, angle[None] / 60, pairs)
    # 60 pairs, 12 per group: 0 .. 11, 12 .. 23, ...
    np.testing.assert_allclose(centre, [5.5, 17.5, 29.5, 41.5, 53.5])
    np.testing.assert_allclose(mean, centre / 60)
    # Of 24 images and their 12 independent pairs: Student's interval of the 12 values 0 .. 11, except for its quantile.
    half = student.ppf(0.975, 23) * np.arange(12).std(ddof=1) / np.sqrt(12) / 60
    np.testing.assert_allclose(logit(high) - logit(mean), half / (mean * (1 - mean)), rtol=0.05)
    np.testing.assert_allclose(logit(mean) - logit(low), half / (mean * (1 - mean)), rtol=0.05)


def test_variants_stand_at_their_numbers_or_in_their_order() -> None:
    assert ablations._positions(["0.5", "10", "2"]) == ({"0.5": 0.5, "10": 10.0, "2": 2.0}, True)
    assert ablations._positions(["exact", "0.5"]) == ({"exact": 0.0, "0.5": 1.0}, False)
    assert ablations._positions(["0.5", "inf"]) == ({"0.5": 0.0, "inf": 1.0}, False)


def test_pairs_of_all_seeds_are_taken_and_those_without_matches_left_out() -> None:
    one = correspondence("place", np.array([0.2, np.nan, 0.6]))
    two = correspondence("place", np.array([0.4, np.nan, 0.8]), seed=1)
    angle, recall, pairs = scores._pairs([one, two], 10)
    np.testing.assert_allclose(angle, [1, 100])
    np.testing.assert_allclose(recall, [[0.2, 0.6], [0.4, 0.8]])
    assert pairs == [Item("a", ("0", "last")), Item("a", ("2", "last"))]


@pytest.mark.usefixtures("toy")
def test_a_benchmark_without_items_gives_an_empty_figure(tmp_path: Path) -> None:
    scores.recall_against_angle([correspondence("place", np.empty(0))], TITLES, tmp_path / "empty")
    scores.error_curves([posed("place", [])], TITLES, tmp_path / "none")
    scores.per_scene_spread([toyed("place", {})], TITLES, tmp_path / "no_scene")
    assert {path.stem for path in tmp_path.iterdir()} == {"empty", "none", "no_scene"}


def test_a_dot_is_a_score_in_its_row(drawn: list[Figure], tmp_path: Path) -> None:
    scores.dots([consistency("place", 0.7), consistency("colour", None)], TITLES, tmp_path / "dots")
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["2 m, uniform", "5 m, uniform"]
    assert points(axes, "place") == [[70.0, -0.2], [50.0, 0.8]]
    assert points(axes, "colour") == [[50.0, 1.2]]
    assert axes.get_xlabel() == "mAP (%)"
    bars = [path.vertices[:, 0].round(6).tolist() for bars in axes.collections for path in bars.get_paths()]
    assert [60.0, 80.0] in bars


def test_dots_have_a_panel_a_metric_and_few_thresholds(drawn: list[Figure], tmp_path: Path) -> None:
    scores.dots([planes("place", 0.05), planes("colour", 0.04)], TITLES, tmp_path / "dots")
    panels = {axes.get_xlabel(): axes for axes in drawn[0].axes}
    error = "corner error\n(px, lower is better)"
    assert list(panels) == ["MMA@1px (%)", "MMA@3px (%)", "MMA@10px (%)", "AUC@3px (%)", error]
    assert points(panels["MMA@3px (%)"], "place") == [[15.0, -0.2]]
    assert points(panels[error], "place") == [[2.5, -0.2]]  # in pixels, not in percent


def test_recall_at_k_is_drawn_against_k(drawn: list[Figure], tmp_path: Path) -> None:
    scores.recall_at_k([recognition("place", 0.5), recognition("colour", 0.3)], TITLES, tmp_path / "recall")
    panels = {axes.get_title(): axes for axes in drawn[0].axes}
    assert list(panels) == ["VLAD 32", "class token"]
    assert points(panels["VLAD 32"], "place") == [[1.0, 51.0], [5.0, 55.0], [20.0, 70.0]]
    assert points(panels["VLAD 32"], "colour") == [[1.0, 31.0], [5.0, 35.0], [20.0, 50.0]]
    assert points(panels["class token"], "place") == []
    assert panels["VLAD 32"].get_xticks().tolist() == [1, 5, 20]


def test_matching_accuracy_is_drawn_against_its_threshold(drawn: list[Figure], tmp_path: Path) -> None:
    scores.matching_accuracy([planes("place", 0.05)], TITLES, tmp_path / "mma")
    (axes,) = drawn[0].axes
    assert axes.get_title() == "all"
    assert points(axes, "place") == [[1.0, 5.0], [2.0, 10.0], [3.0, 15.0], [5.0, 25.0], [10.0, 50.0]]


def test_error_curves_count_failures(drawn: list[Figure], tmp_path: Path) -> None:
    scores.error_curves([posed("place", [4.0, None, 0.0, 2.0])], TITLES, tmp_path / "curves")
    panels = {(axes.get_title(), axes.get_xlabel()): axes for axes in drawn[0].axes}
    rotation, direction = "error of the rotation (deg)", "error of the direction of the translation (deg)"
    metres = "error of the translation (m)"
    assert list(panels) == [("rigid", rotation), ("rigid", metres), ("essential", rotation), ("essential", direction)]
    assert points(panels["rigid", rotation], "place") == [[1e-6, 25.0], [2.0, 50.0], [4.0, 75.0]]
    assert points(panels["rigid", metres], "place") == [[1e-6, 25.0], [0.2, 50.0], [0.4, 75.0]]
    assert points(panels["essential", direction], "place") == [[1e-6, 25.0], [2.0, 50.0], [4.0, 75.0]]


def test_error_curves_pool_seeds(drawn: list[Figure], tmp_path: Path) -> None:
    scores.error_curves([posed("place", [1.0, 3.0]), posed("place", [2.0, None], 1)], TITLES, tmp_path / "curves")
    assert points(drawn[0].axes[0], "place") == [[1.0, 25.0], [2.0, 50.0], [3.0, 75.0]]


def test_error_curves_of_correspondences(drawn: list[Figure], tmp_path: Path) -> None:
    """Pairs without matches are left out; if half the matches are behind the camera, the error is infinite."""
    items = {"median_error": [8.0, None, None, 2.0, 0.5], "n_matches": [9, 0, 9, 9, 9]}
    scores.error_curves([metric_file("pixel_correspondence", "place", [], items)], TITLES, tmp_path / "curves")
    (axes,) = drawn[0].axes
    assert axes.get_xlabel() == "median error of the matches (px)"
    assert points(axes, "place") == [[0.5, 25.0], [2.0, 50.0], [8.0, 75.0]]


@pytest.mark.usefixtures("toy")
def test_spread_has_a_dot_a_scene(drawn: list[Figure], tmp_path: Path) -> None:
    """The median is that of all items of a scene; an item without a score is left out, and seeds are averaged."""
    runs = [toyed("place", {"a": [0.1, 0.3], "b": [0.8], "c": [None]}), toyed("colour", {"a": [0.2], "b": [0.4]})]
    runs += [toyed("place", {"a": [0.3, 0.5], "b": [0.6], "c": [0.9]}, seed=1)]
    scores.per_scene_spread(runs, TITLES, tmp_path / "spread")
    (axes,) = drawn[0].axes
    assert points(axes, "place") == [[30.0, 0.0], [70.0, 0.0]]
    assert points(axes, "colour") == [[20.0, 1.0], [40.0, 1.0]]
    assert [stroke.get_segments()[0][0].tolist() for stroke in axes.collections] == [[50.0, -0.35], [30.0, 0.65]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["place & more", "colour"]
    assert (axes.get_title(), axes.get_xlabel()) == ("all (number of scenes: 3)", "score (%)")


@pytest.mark.usefixtures("toy")
def test_spread_of_medians(drawn: list[Figure], tmp_path: Path) -> None:
    scenes = {"a": [0.1, 0.2, 9.0], "b": [0.4, float("inf"), float("inf")]}
    scores.per_scene_spread([toyed("place", scenes, statistic="median")], TITLES, tmp_path / "spread")
    assert points(drawn[0].axes[0], "place") == [[20.0, 0.0]]


def test_ablations_draw_errors_in_their_unit_and_shares_first(drawn: list[Figure], tmp_path: Path) -> None:
    names = {"place": "a", "colour": "b"}
    errors = [Row("rotation error", "all", 3.0, 2.0, 4.0, 9, "deg")]
    share = Row("AUC@5deg", "all", 0.25, 0.2, 0.3, 9)
    ablations.ablation_plot(
        [metric_file("relative_pose", e, errors) for e in names], names, "what varies", tmp_path / "errors"
    )
    assert drawn[0].axes[0].get_ylabel() == "rotation error\n(deg, lower is better)"
    assert drawn[0].axes[0].lines[0].get_ydata().tolist() == [3.0, 3.0]
    both = [metric_file("relative_pose", e, [*errors, share]) for e in names]
    ablations.ablation_plot(both, names, "what varies", tmp_path / "both")
    assert drawn[1].axes[0].get_ylabel() == "AUC@5deg (%)"
    assert drawn[1].axes[0].lines[0].get_ydata().tolist() == [25.0, 25.0]


def test_ablations_cross_the_scores_of_seeds_alone(drawn: list[Figure], tmp_path: Path) -> None:
    rows = [Row("AUC@5deg", "all", value, value, value, 9) for value in (0.2, 0.4, 0.5)]
    runs = [metric_file("relative_pose", "place", [row], seed=seed) for seed, row in enumerate(rows[:2])]
    runs.append(metric_file("relative_pose", "colour", rows[2:], seed=None))
    ablations.ablation_plot(runs, {"place": "a", "colour": "b"}, "what varies", tmp_path / "ablation")
    mean, *_, crosses = drawn[0].axes[0].lines
    assert mean.get_xydata().round(6).tolist() == [[0, 30], [1, 50]]
    assert crosses.get_xydata().round(6).tolist() == [[0, 20], [0, 40]]


def test_all_figures_take_deterministic_extractors_beside_seeds(drawn: list[Figure], tmp_path: Path) -> None:
    """The mean over seeds, and the single run, each with its own items."""
    runs = [correspondence("place", np.full(24, recall), seed=seed) for seed, recall in enumerate((0.2, 0.4))]
    runs.append(correspondence("colour", np.full(24, 0.1), seed=None))
    scores.recall_against_angle(runs, TITLES, tmp_path / "recall")
    assert [y for _, y in points(drawn[0].axes[0], "place")] == [30.0, 30.0]
    assert [y for _, y in points(drawn[0].axes[0], "colour")] == [10.0, 10.0]
    errors = [posed("place", [1.0]), posed("place", [3.0], 1), posed("colour", [2.0], None)]
    scores.error_curves(errors, TITLES, tmp_path / "curves")
    assert points(drawn[1].axes[0], "place") == [[1.0, 50.0], [3.0, 100.0]]
    assert points(drawn[1].axes[0], "colour") == [[2.0, 100.0]]
    scores.dots([dataclasses.replace(consistency("place", 0.7), seed=None)], TITLES, tmp_path / "dots")
    assert points(drawn[2].axes[0], "place")[0][0] == 70.0


def test_the_catalogue_names_figures_that_exist() -> None:
    assert {figure for benchmark in BENCHMARKS.values() for figure in benchmark.figures} <= scores.FIGURES.keys()
    assert all(name == draw.__name__ for name, draw in scores.FIGURES.items())
