"""Figures are written whole, alike on every run, and draw the numbers that they are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loco.evaluation.result import Row
from loco.results import figures
from loco.results.metrics import Metrics
from loco.results.views import choose_views, feature_maps
from loco.storage import Correspondences, Features, Frames

TITLES = {"place": "place & more", "absent": "not run", "colour": "colour"}


@pytest.fixture(scope="module")
def pictures(scene):
    """Views, query, and maps of two experiments at different resolutions."""
    with Frames(scene.frames) as frames, Correspondences(scene.correspondences) as correspondences:
        views, query = choose_views(correspondences, frames)
        maps = {}
        for name, path in scene.features.items():
            with Features(path) as features:
                maps[name] = feature_maps(features, views)
    assert maps["place"][0].cells.shape[:2] != maps["colour"][0].cells.shape[:2]
    return views, query, maps


def correspondence(experiment: str, recall: np.ndarray, seed: int = 0) -> Metrics:
    angle = np.linspace(1, 100, len(recall))
    items = {"angle": angle.tolist(), "recall@5px": [None if np.isnan(r) else r for r in recall.tolist()]}
    items |= {"recall@10px": items["recall@5px"], "recall@20px": items["recall@5px"]}
    settings = {"rotation_bins": [0, 15, 30, 60, 180], "thresholds": [5, 10, 20]}
    path = Path(f"{experiment}.json")
    return Metrics(path, "pixel_correspondence", "houses", experiment, seed, settings, {}, [], items)


def consistency(experiment: str, value: float | None) -> Metrics:
    rows = [Row("mAP", "2 m, uniform", value, value and value - 0.1, value and value + 0.1, 20)]
    rows += [Row("mAP", "5 m, uniform", 0.5, None, None, 1)]
    path = Path(f"{experiment}.json")
    return Metrics(path, "location_consistency", "houses", experiment, 0, {}, {}, rows, {})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    lines = [f"{step},{1 / step},,,{'' if step % 10 else step / 100}" for step in range(1, 41)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["step,loss,mean_ap,pairs_per_second,val_map", *lines]))
    return path


def draw_all(pictures, log: Path, folder: Path) -> set[str]:
    views, query, maps = pictures
    recall = np.random.default_rng(0).uniform(size=60)
    pairs = [correspondence("place", recall), correspondence("colour", recall / 2)]
    figures.training_curve({"place": [log, log]}, TITLES, folder / "training_curve")
    figures.recall_against_angle(pairs, TITLES, folder / "recall")
    figures.location_consistency_dots([consistency("place", 0.7), consistency("colour", None)], TITLES, folder / "dots")
    figures.similarity_maps(views, query, maps, TITLES, folder / "similarity_maps")
    figures.pca_colours(views, maps, TITLES, folder / "pca_colours")
    numbers = {"place": "0.5", "colour": "5"}
    scores = [consistency("place", 0.7), consistency("colour", None)]
    figures.ablation_plot([*scores, *scores], numbers, "kappa, m", folder / "ablation")
    return {path.name for path in folder.iterdir()}


def test_figures_are_whole_and_alike_on_every_run(pictures, log: Path, tmp_path: Path) -> None:
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
    names = draw_all(pictures, log, tmp_path / "first")
    stems = ("training_curve", "recall", "dots", "similarity_maps", "pca_colours", "ablation")
    assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("svg", "png")}
    assert draw_all(pictures, log, tmp_path / "second") == names
    for name in names:
        content = (tmp_path / "first" / name).read_bytes()
        assert content == (tmp_path / "second" / name).read_bytes(), name
        if name.endswith("png"):
            pixels = np.asarray(Image.open(tmp_path / "first" / name).convert("L"))
            assert pixels.std() > 10
        else:
            assert content.rstrip().endswith(b"</svg>")
            assert b"dc:date" not in content


def test_binned_recall_against_brute_force() -> None:
    angle = np.random.default_rng(1).permutation(60).astype(float)
    centre, mean, low, high = figures._binned(angle, angle / 60)
    # 60 pairs, 12 a group: 0 .. 11, 12 .. 23, ...
    np.testing.assert_allclose(centre, [5.5, 17.5, 29.5, 41.5, 53.5])
    np.testing.assert_allclose(mean, centre / 60)
    # The mean of 12 draws with replacement from 0 .. 11 has standard deviation sqrt(143 / 12 / 12).
    half = 1.96 * np.sqrt(143 / 144) / 60
    np.testing.assert_allclose(high - mean, half, rtol=0.15)
    np.testing.assert_allclose(mean - low, half, rtol=0.15)


def test_variants_stand_at_their_numbers_or_in_their_order() -> None:
    assert figures._places(["0.5", "10", "2"]) == ({"0.5": 0.5, "10": 10.0, "2": 2.0}, True)
    assert figures._places(["exact", "0.5"]) == ({"exact": 0.0, "0.5": 1.0}, False)


def test_pairs_are_averaged_over_seeds_and_those_without_matches_left_out() -> None:
    one = correspondence("place", np.array([0.2, np.nan, 0.6]))
    two = correspondence("place", np.array([0.4, np.nan, 0.8]), seed=1)
    angle, recall = figures._pairs([one, two], 10)
    np.testing.assert_allclose(angle, [1, 100])
    np.testing.assert_allclose(recall, [0.3, 0.7])


def test_a_benchmark_without_pairs_gives_an_empty_figure(tmp_path: Path) -> None:
    figures.recall_against_angle([correspondence("place", np.empty(0))], TITLES, tmp_path / "empty")
    assert (tmp_path / "empty.svg").exists()


def test_looks_belong_to_the_experiment_whatever_else_is_drawn() -> None:
    looks = [figures._look(name, TITLES) for name in TITLES]
    assert len(set(looks)) == len(TITLES)
    assert figures._look("colour", dict(reversed(TITLES.items()))) == looks[0]


def test_failed_figure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), figures.new_figure(tmp_path / "broken", 2, 2):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_long_titles_are_not_cut_off(tmp_path: Path, count: int) -> None:
    titles = {f"e{i}": f"an experiment with a rather long title, number {i}" for i in range(count)}
    figures.location_consistency_dots([consistency(name, 0.4) for name in titles], titles, tmp_path / "dots")
    drawn = np.asarray(Image.open(tmp_path / "dots.png").convert("L"))
    assert (drawn[:, [0, 1, -2, -1]] == 255).all()
    assert (drawn < 128).any()
