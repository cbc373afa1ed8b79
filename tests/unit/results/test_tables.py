"""Tables against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from loco.errors import DataError
from loco.evaluation.result import Row
from loco.results.metrics import Metrics
from loco.results.tables import differences, summarise, write_differences, write_tables

TITLES = {"exact": "CNN, 50 % & more_", "sift": "a|b"}
DASH = "\N{EN DASH}"
NEAR, FAR = "0-15 deg", "15-30 deg"


def run(experiment: str, near: float, far: float | None, *, seed: int = 0, split: str = "houses") -> Metrics:
    rows = [Row("recall@5px", NEAR, near, near - 0.02, near + 0.03, 30)]
    rows += [Row("recall@5px", FAR, far, far and far - 0.02, far and far + 0.03, 12 if far else 0)]
    path = Path(f"{experiment}{seed}.json")
    return Metrics(path, "pixel_correspondence", split, experiment, seed, {}, {}, rows, {})


def written(metrics: list[Metrics], folder: Path) -> dict[str, str]:
    write_tables(metrics, TITLES, folder / "table.v1")
    return {suffix: (folder / f"table.v1.{suffix}").read_text(encoding="utf-8") for suffix in ("csv", "md", "tex")}


def lines_with(text: str, *parts: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if all(part in line for part in parts)]


def test_one_seed_keeps_its_interval() -> None:
    table = summarise([run("exact", 0.5, 0.25)], TITLES)
    assert table["value"].tolist() == [0.5, 0.25]
    assert table["low"].tolist() == pytest.approx([0.48, 0.23])
    assert table["high"].tolist() == pytest.approx([0.53, 0.28])
    assert table["std"].isna().all()
    assert table["n"].tolist() == [30, 12]
    assert table["seeds"].tolist() == [1, 1]


def test_seeds_are_averaged_and_their_spread_is_the_sample_deviation() -> None:
    table = summarise([run("exact", v, v, seed=s) for s, v in enumerate([0.4, 0.5, 0.6])], TITLES)
    first = table.iloc[0]
    assert first[["value", "low", "high", "std"]].tolist() == pytest.approx([0.5, 0.48, 0.53, 0.1])
    assert (first["n"], first["seeds"]) == (30, 3)


def test_a_value_missing_for_one_seed_is_not_averaged_away() -> None:
    table = summarise([run("exact", 0.4, 0.3, seed=0), run("exact", 0.4, None, seed=1)], TITLES)
    assert table["value"].isna().tolist() == [False, True]


def test_rows_come_in_the_order_of_the_titles_and_do_not_depend_on_that_of_the_files(tmp_path: Path) -> None:
    metrics = [run("exact", 0.5, 0.3, seed=s) for s in (0, 1)] + [run("sift", 0.4, 0.3, seed=s) for s in (0, 1)]
    first = written(metrics, tmp_path)
    assert written(metrics[::-1], tmp_path) == first
    assert first["md"].index("CNN") < first["md"].index(r"a\|b")


def test_csv_is_tidy_and_complete(tmp_path: Path) -> None:
    text = written([run("exact", 0.5, None), run("sift", 1 / 3, 0.25)], tmp_path)["csv"]
    lines = text.splitlines()
    assert lines[0] == "benchmark,split,experiment,title,metric,condition,value,low,high,std,n,seeds"
    assert lines[2] == 'pixel_correspondence,houses,exact,"CNN, 50 % & more_",recall@5px,15-30 deg,,,,,0,1'
    assert lines[3] == ("pixel_correspondence,houses,sift,a|b,recall@5px,0-15 deg,0.333333,0.313333,0.363333,,30,1")
    assert len(pd.read_csv(tmp_path / "table.v1.csv")) == 4


def test_markdown_cells(tmp_path: Path) -> None:
    text = written([run("exact", 0.5, None), run("sift", 0.4, 0.25)], tmp_path)["md"]
    assert lines_with(text, f"0{DASH}15°") == [f"|  |  | 0{DASH}15° | 15{DASH}30° |"]
    assert lines_with(text, "CNN") == [rf"| recall@5px | CNN, 50 % & more\_ | **50.0** [48.0, 53.0] | {DASH} |"]
    assert lines_with(text, "a\\|b") == [r"|  | a\|b | 40.0 [38.0, 43.0] | 25.0 [23.0, 28.0] |"]
    assert lines_with(text, "number of image pairs |") == [f"|  | number of image pairs | 30 | 0{DASH}12 |"]


def test_latex_cells(tmp_path: Path) -> None:
    text = written([run("exact", 0.5, None), run("sift", 0.4, 0.25)], tmp_path)["tex"]
    assert lines_with(text, "CNN") == [r"CNN, 50 \% \& more\_ & \textbf{50.0} {\scriptsize [48.0, 53.0]} & -- \\"]
    assert lines_with(text, "0--15") == [r"split: houses & 0--15$^\circ$ & 15--30$^\circ$ \\"]
    assert lines_with(text, r"\begin{tabular}") == [r"\begin{tabular}{lrr}"]
    assert text.count("{") == text.count("}")


def test_best_is_bold_with_all_that_print_alike(tmp_path: Path) -> None:
    text = written([run("exact", 0.50004, 0.1), run("sift", 0.49996, 0.2)], tmp_path)["md"]
    assert lines_with(text, "**50.0**", "CNN")
    assert lines_with(text, "**50.0**", "**20.0**", "a\\|b")
    assert "**10.0**" not in text


def test_nothing_is_best_without_a_rival(tmp_path: Path) -> None:
    assert "**50.0" not in written([run("exact", 0.5, 0.25)], tmp_path)["md"]


def test_seeds_show_their_deviation(tmp_path: Path) -> None:
    texts = written([run("exact", v, v, seed=s) for s, v in enumerate([0.4, 0.6])], tmp_path)
    assert "50.0 ± 14.1 [48.0, 53.0]" in texts["md"]
    assert r"50.0 $\pm$ 14.1 {\scriptsize [48.0, 53.0]}" in texts["tex"]
    assert "over 2 seeds" in texts["md"]


def test_splits_have_blocks_of_their_own_and_their_own_best(tmp_path: Path) -> None:
    metrics = [run("exact", 0.5, 0.3, split=s) for s in ("flats", "houses")]
    metrics += [run("sift", 0.6, 0.3, split="flats"), run("sift", 0.4, 0.3, split="houses")]
    flats, houses = written(metrics, tmp_path)["md"].split("**Split `houses`**")
    assert "**60.0**" in flats
    assert "**50.0**" not in flats
    assert "**50.0**" in houses


SETTINGS = {"rotation_bins": [0, 15, 30], "thresholds": [5], "bootstrap": 400}


def matched(experiment: str, recalls: list[float | None], seed: int = 0, angles: tuple = (3, 8, 12, 20)) -> Metrics:
    items = {"scene": ["a"] * 4, "a": list("wxyz"), "b": list("WXYZ"), "angle": list(angles), "recall@5px": recalls}
    path = Path(f"{experiment}{seed}.json")
    return Metrics(path, "pixel_correspondence", "houses", experiment, seed, SETTINGS, {}, [], items)


def test_differences_are_taken_item_by_item() -> None:
    """Scores that vary widely, and differ by the same everywhere: the interval is that of the differences, a point."""
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
    assert first[["value", "low", "high", "seeds"]].tolist() == pytest.approx([0.4, 0.4, 0.4, 2])
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
    assert "**" not in line.rpartition("| ")[0].rpartition("| ")[2]  # all: the interval holds zero
    assert r"CNN, 50 \% \& more\_ $-$ a|b & \textbf{+5.0}" in (tmp_path / "d.tex").read_text()
    assert r"\label{tab:pixel_correspondence_differences}" in (tmp_path / "d.tex").read_text()
