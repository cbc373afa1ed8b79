"""Tables show the numbers that they are given."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from loco.evaluation.result import Row
from loco.results.metrics import Metrics
from loco.results.tables.published import Number, Published
from loco.results.tables.summary import write_tables

pytestmark = pytest.mark.usefixtures("rows_as_scores")
Seed = int | None  # None: a deterministic extractor
TITLES = {"exact": "CNN, 50 % & more_", "sift": "a|b"}
DASH = "\N{EN DASH}"
NEAR, FAR = "0-15 deg", "15-30 deg"


def run(experiment: str, near: float, far: float | None, *, seed: Seed = 0, split: str = "houses") -> Metrics:
    rows = [Row("recall@5px", NEAR, near, near - 0.02, near + 0.03, 30)]
    rows += [Row("recall@5px", FAR, far, far and far - 0.02, far and far + 0.03, 12 if far else 0)]
    path = Path(f"{experiment}{seed}.json")
    return Metrics(path, "pixel_correspondence", split, experiment, seed, {}, {}, rows, {})


def written(metrics: list[Metrics], folder: Path, published: Published | None = None) -> dict[str, str]:
    write_tables(metrics, TITLES, folder / "table.v1", published)
    return {
        suffix: (folder / f"table.v1.{suffix}").read_text(encoding="utf-8") for suffix in ("csv", "md", "tex", "html")
    }


def lines_with(text: str, *parts: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if all(part in line for part in parts)]


def test_rows_come_in_the_order_of_the_titles_and_do_not_depend_on_that_of_the_files(tmp_path: Path) -> None:
    metrics = [run("exact", 0.5, 0.3, seed=s) for s in (0, 1)] + [run("sift", 0.4, 0.3, seed=s) for s in (0, 1)]
    first = written(metrics, tmp_path)
    assert written(metrics[::-1], tmp_path) == first
    assert first["md"].index("CNN") < first["md"].index(r"a\|b")


def test_csv_is_tidy_and_complete(tmp_path: Path) -> None:
    text = written([run("exact", 0.5, None), run("sift", 1 / 3, 0.25)], tmp_path)["csv"]
    lines = text.splitlines()
    assert lines[0] == (
        "benchmark,split,experiment,title,metric,condition,unit,value,low,high,population,std,n,scenes,seeds,"
        "deterministic,"
        "low_new_items,high_new_items,low_new_images,high_new_images,low_new_scenes,high_new_scenes,p_best,comparisons,"
        "published,published_method,published_source,published_protocol,published_caveat"
    )
    population, blank = "new images of these scenes", 5 * ","
    exact = 'pixel_correspondence,houses,exact,"CNN, 50 % & more_",recall@5px,15-30 deg,%'
    assert lines[2] == f"{exact},,,,{population},,0,0,1,False,{blank},0.000000,3,,,,,"
    numbers = f"0.333333,0.313333,0.363333,{population},,30,0,1,False,{blank},0.000000,3"
    assert lines[3] == f"pixel_correspondence,houses,sift,a|b,recall@5px,0-15 deg,%,{numbers},,,,,"
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


class Cells(HTMLParser):
    """Return the text of the cells of each row of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.inside = tag in ("td", "th", "strong", "small", "em") and (self.inside or tag in ("td", "th"))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def test_html_has_the_cells_of_the_markdown(tmp_path: Path) -> None:
    texts = written([run("exact", 0.5, None), run("sift", 0.4, 0.25)], tmp_path)
    rows = Cells(texts["html"]).rows
    assert rows[0] == ["split: houses", f"0{DASH}15°", f"15{DASH}30°"]
    assert rows[1] == ["recall@5px"]
    assert rows[2] == ["CNN, 50 % & more_", "50.0 [48.0, 53.0]", DASH]
    assert rows[3] == ["a|b", "40.0 [38.0, 43.0]", "25.0 [23.0, 28.0]"]
    assert rows[4] == ["number of image pairs", "30", f"0{DASH}12"]
    assert "<td><strong>50.0</strong>" in texts["html"]
    assert "CNN, 50 % &amp; more_" in texts["html"]
    assert "//" not in texts["html"]  # no other host


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


def erring(experiment: str, metres: float | None, degrees: float | None, seed: int = 0) -> Metrics:
    """Errors, and a fraction beside them."""
    rows = [Row("translation error", "all", metres, metres, metres and metres + 0.5, 9, "m")]
    rows += [Row("rotation error", "all", degrees, degrees and degrees - 1, None, 9, "deg")]
    rows += [Row("AUC@5deg", "all", 0.5, 0.4, 0.6, 9)]
    return Metrics(Path(f"{experiment}{seed}.json"), "relative_pose", "houses", experiment, seed, {}, {}, rows, {})


def test_errors_are_printed_in_their_unit_and_the_smallest_is_best(tmp_path: Path) -> None:
    texts = written([erring("exact", 0.25, 12.344), erring("sift", 1.5, 3.0)], tmp_path)
    infinity = "\N{INFINITY}"
    (metres,) = lines_with(texts["md"], "translation error")
    assert metres == r"| translation error (m) | CNN, 50 % & more\_ | **0.250** [0.250, 0.750] |"
    assert lines_with(texts["md"], "1.500") == [r"|  | a\|b | 1.500 [1.500, 2.000] |"]
    (degrees,) = lines_with(texts["md"], "rotation error (deg)")
    assert f"| 12.34 [11.34, {infinity}] |" in degrees
    assert lines_with(texts["md"], "3.00") == [rf"|  | a\|b | **3.00** [2.00, {infinity}] |"]
    assert lines_with(texts["md"], "AUC@5deg", "**50.0** [40.0, 60.0]")
    assert "In percent, higher is better, or in the unit of the metric, lower is better;" in texts["md"]
    assert r"\textbf{3.00} {\scriptsize [2.00, $\infty$]}" in texts["tex"]
    assert r"\emph{translation error (m)}" in texts["tex"]
    assert pd.read_csv(tmp_path / "table.v1.csv").groupby("metric")["unit"].unique().map(list).to_dict() == {
        "translation error": ["m"],
        "rotation error": ["deg"],
        "AUC@5deg": ["%"],
    }


def test_an_infinite_error_is_neither_a_number_nor_best(tmp_path: Path) -> None:
    text = written([erring("exact", None, None), erring("sift", 1.5, 3.0)], tmp_path)["md"]
    assert lines_with(text, "translation error") == [rf"| translation error (m) | CNN, 50 % & more\_ | {DASH} |"]
    assert "**1.5" not in text
    assert "nan" not in text


def test_errors_of_seeds_show_their_deviation_in_their_unit(tmp_path: Path) -> None:
    text = written([erring("exact", v, v, s) for s, v in enumerate([1.0, 2.0])], tmp_path)["md"]
    assert lines_with(text, "translation error", "| 1.500 ± 0.707 [1.500, 2.000] |")


def test_captions_name_only_what_is_there(tmp_path: Path) -> None:
    assert "In percent, higher is better; one seed" in written([run("exact", 0.5, 0.3)], tmp_path)["md"]
    only = [Row("corner error", "all", 2.0, 1.0, 3.0, 9, "px")]
    metrics = Metrics(Path("e.json"), "homography", "houses", "exact", 0, {}, {}, only, {})
    assert "In the unit of the metric, lower is better; one seed" in written([metrics], tmp_path)["md"]


SOURCE, PROTOCOL = "Doe & Roe, Table 4", "30 pairs, 50 % of them hard"


def printed(method: str, value: float, condition: str = NEAR, **other: str) -> Number:
    named = {"dataset": "pairs", "metric": "recall@5px", "source": SOURCE, "protocol": PROTOCOL} | other
    return Number(method=method, condition=condition, value=value, **named)


NUMBERS = [
    printed("DINO_B", 45.0),
    printed("DINO_B", 34.3, FAR),
    printed("rival", 99.9),
    printed("abroad", 77.7, dataset="x"),
]
NUMBERS += [printed("other bins", 88.8, "0-90 deg"), printed("other metric", 66.6, metric="recall@1px")]
SHOWN = Published(NUMBERS, {"houses": ["pairs", "mine"]}, {"sift": "DINO_B"})


def test_published_numbers_have_columns_of_their_own(tmp_path: Path) -> None:
    text = written([run("exact", 0.5, 0.25), run("sift", 0.4, 0.3)], tmp_path, SHOWN)["md"]
    heads = f"| 0{DASH}15° | 15{DASH}30° | 0{DASH}15°, *published* | 15{DASH}30°, *published* |"
    assert lines_with(text, "*published* |") == ["|  |  " + heads]
    assert lines_with(text, "CNN")[0].endswith(f"**50.0** [48.0, 53.0] | 25.0 [23.0, 28.0] | {DASH} | {DASH} |")
    assert lines_with(text, "a\\|b")[0].endswith("40.0 [38.0, 43.0] | **30.0** [28.0, 33.0] | 45.0 | 34.3 |")
    assert lines_with(text, "rival") == [f"|  | rival | {DASH} | {DASH} | 99.9 | {DASH} |"]
    assert lines_with(text, "number of image pairs |") == [f"|  | number of image pairs | 30 | 12 | {DASH} | {DASH} |"]
    for absent in ("77.7", "88.8", "66.6", "abroad", "other bins", "other metric"):
        assert absent not in text


def test_published_numbers_are_never_bold_nor_measured(tmp_path: Path) -> None:
    """Published numbers do not change which numbers are bold, and never replace measured ones."""
    metrics = [run("exact", 0.5, 0.25), run("sift", 0.4, 0.3)]
    texts = written(metrics, tmp_path, SHOWN)
    plain = written(metrics, tmp_path)
    for suffix, bold in (("md", "**"), ("tex", r"\textbf")):
        assert texts[suffix].count(bold) == plain[suffix].count(bold)
        assert not lines_with(texts[suffix], "rival", bold)
    written(metrics, tmp_path, SHOWN)
    table = pd.read_csv(tmp_path / "table.v1.csv", keep_default_na=True)
    measured, other = table[table["experiment"].notna()], table[table["experiment"].isna()]
    assert measured["value"].tolist() == [0.5, 0.25, 0.4, 0.3]
    assert measured["published"].tolist()[2:] == [0.45, 0.343]
    assert measured["published"][:2].isna().all()
    assert other["title"].tolist() == ["rival"]
    assert other[["value", "low", "high", "std", "n", "seeds"]].isna().all(axis=None)
    assert other[["published", "published_method", "published_source"]].values.tolist() == [[0.999, "rival", SOURCE]]


def test_a_footnote_says_where_published_numbers_come_from(tmp_path: Path) -> None:
    metrics = [run("exact", 0.5, 0.25), run("sift", 0.4, 0.3)]
    texts = written(metrics, tmp_path, SHOWN)
    (note,) = lines_with(texts["md"], "*published*:")
    assert r"a\|b reproduces DINO\_B" in note
    assert note.endswith(f"{SOURCE}; {PROTOCOL}.")
    (note,) = lines_with(texts["tex"], r"\emph{published}:")
    assert r"Doe \& Roe, Table 4; 30 pairs, 50 \% of them hard.\par}" in note
    second = Published([*NUMBERS, printed("third", 1.0, source="Poe")], SHOWN.datasets)
    (note,) = lines_with(written(metrics, tmp_path, second)["md"], "*published*:")
    assert note.endswith(rf"DINO\_B, rival: {SOURCE}; {PROTOCOL}. third: Poe; {PROTOCOL}.")
    trained = Published([*NUMBERS, printed("third", 1.0, caveat="trained on it")], SHOWN.datasets)
    (note,) = lines_with(written(metrics, tmp_path, trained)["md"], "*published*:")
    assert note.endswith(rf"DINO\_B, rival: {SOURCE}; {PROTOCOL}. third: {SOURCE}; {PROTOCOL}; caveat: trained on it.")


def test_published_numbers_stay_away_from_other_splits(tmp_path: Path) -> None:
    metrics = [run("sift", 0.4, 0.3, split=split) for split in ("flats", "houses")]
    flats, houses = written(metrics, tmp_path, SHOWN)["md"].split("**Split `houses`**")
    assert "published" not in flats
    assert "99.9" in houses
    assert "published" not in written(metrics, tmp_path, Published(NUMBERS, {}))["md"]
    assert "published" not in written(metrics, tmp_path, Published(NUMBERS, {"houses": ["other"]}))["md"]


def test_published_numbers_without_a_condition_share_one_column(tmp_path: Path) -> None:
    numbers = [printed("AnyLoc", 75.2, "")]
    published = Published(numbers, SHOWN.datasets, {"exact": "AnyLoc"})
    text = written([run("exact", 0.5, 0.25), run("sift", 0.4, 0.3)], tmp_path, published)["md"]
    assert lines_with(text, "| *published* |") == [f"|  |  | 0{DASH}15° | 15{DASH}30° | *published* |"]
    assert lines_with(text, "CNN")[0].endswith("25.0 [23.0, 28.0] | 75.2 |")
    assert lines_with(text, "a\\|b")[0].endswith(f"**30.0** [28.0, 33.0] | {DASH} |")


def test_published_errors_keep_their_unit(tmp_path: Path) -> None:
    number = printed("LoCUS", 0.92, "all", metric="translation error")
    metrics = [erring("exact", 0.25, 1.0), erring("sift", 1.5, 3.0)]
    text = written(metrics, tmp_path, Published([number], SHOWN.datasets))["md"]
    assert lines_with(text, "LoCUS") == [f"|  | LoCUS | {DASH} | 0.920 |"]


def test_captions_count_seeds_of_extractors_that_have_some(tmp_path: Path) -> None:
    seeded = [run("exact", v, v, seed=s) for s, v in enumerate([0.4, 0.6])]
    texts = written([*seeded, run("sift", 0.3, 0.2, seed=None)], tmp_path)
    spread = (
        "value ± standard deviation over 2 seeds; the intervals include the variation between seeds; deterministic "
        "extractors have no seeds"
    )
    assert spread in texts["md"]
    assert spread.replace("±", r"$\pm$") in texts["tex"]
    assert lines_with(texts["md"], "a\\|b") == [r"|  | a\|b | 30.0 [28.0, 33.0] | 20.0 [18.0, 23.0] |"]
    assert lines_with(texts["md"], "CNN", "± 14.1")
    assert lines_with(texts["csv"], "sift", ",,30,0,1,True,")
    assert "deterministic extractors" not in written(seeded, tmp_path)["md"]
    one_seed = written([seeded[0], run("sift", 0.3, 0.2, seed=None)], tmp_path)["md"]
    assert (
        "higher is better; one seed; the intervals do not include the variation between seeds; in brackets" in one_seed
    )
    alone = written([run("sift", 0.3, 0.2, seed=None)], tmp_path)["md"]
    assert "higher is better; all extractors are deterministic; in brackets" in alone


def test_published_lines_are_neither_seeded_nor_deterministic(tmp_path: Path) -> None:
    texts = written([run("exact", 0.5, 0.25, seed=None), run("sift", 0.4, 0.3, seed=None)], tmp_path, SHOWN)
    assert "all extractors are deterministic" in texts["md"]
    (line,) = lines_with(texts["csv"], "rival")
    assert line.startswith(f"pixel_correspondence,houses,,rival,recall@5px,{NEAR},%{17 * ','},0.999000,rival,")
