"""Files of published numbers: faults are named, and the files of the project are valid."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import yaml

from loco.datasets import FORMATS
from loco.errors import DataError
from loco.evaluation.catalogue import BENCHMARKS
from loco.evaluation.pixel_correspondence import variants
from loco.results.tables.published import (
    DEFAULTS,
    Number,
    Published,
    add_published,
    comparable,
    methods_of,
    read_published,
)

FOLDER = Path(__file__).parents[4] / "config" / "published_results"
SCHEMA = FOLDER.parent / "schemas" / "benchmarks.yaml"
FILES = sorted(FOLDER.glob("*.csv"))
HEAD = "method,dataset,metric,condition,value,source,protocol,settings,caveat\n"
GOOD = '"DINO B/16, last block",scannet_pairs,recall@10px,0-15 deg,45.0,Table 4,"1,500 pairs",'
GOOD += "step=4; filters=ratio; occlusions=false,\n"
MEASURED = {"n": 3, "scenes": 2, "seeds": 1, "deterministic": False, "comparisons": 0}


def read(folder: Path, text: str) -> list[Number]:
    path = folder / "numbers.csv"
    path.write_text(text, encoding="utf-8")
    return read_published(path)


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    blank = 'MixVPR,baidu,recall@1,,64.4,"a copy",all queries,,trained outdoors\n'
    first, second = read(tmp_path, HEAD + GOOD + blank)
    assert first == Number(
        *("DINO B/16, last block", "scannet_pairs", "recall@10px", "0-15 deg", 45.0, "Table 4", "1,500 pairs"),
        settings={"step": 4, "filters": "ratio", "occlusions": False},
    )
    assert (second.condition, second.value, second.settings, second.caveat) == ("", 64.4, {}, "trained outdoors")
    assert first.caveat == ""
    assert [Number(**json.loads(json.dumps(asdict(number)))) for number in (first, second)] == [first, second]
    assert methods_of([tmp_path / "numbers.csv"]) == {"DINO B/16, last block", "MixVPR"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "unexpected columns"),
        ("method,value\na,1\n", "unexpected columns"),
        (HEAD + "a,b,c,d,5,e\n", "line 2 is incomplete"),
        (HEAD + GOOD + "a,b,c,d,5,e,f,,g,h\n", "line 3 is incomplete or has too many"),
        (HEAD + "a,b,c,d,5,e,f\n", "line 2 is incomplete"),
        (HEAD + "a,b,c,d,5,,f,,\n", "line 2 is incomplete"),
        (HEAD + "a,b,c,d,about 5,e,f,,\n", "value in line 2 is not a finite number"),
        (HEAD + "a,b,c,d,nan,e,f,,\n", "value in line 2 is not a finite number"),
        *(
            (f"{HEAD}a,b,c,d,5,e,f,{settings},\n", "settings in line 2 cannot be parsed")
            for settings in ("step", "step=", "step=4;", "step=4 5", "Step=4", "step: 4", "step=4; step=4", "a=nan()")
        ),
        (HEAD + GOOD + GOOD.replace("45.0", "54.0"), "contains DINO B/16, last block, .* twice"),
        (HEAD + '"a,b', "cannot be read"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(DataError, match=f"{problem}(.|\n)*numbers.csv"):
        read(tmp_path, text)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_published(tmp_path / "n.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_published(tmp_path / "absent.csv")


def test_without_published_numbers_a_table_keeps_its_lines_and_types() -> None:
    keys = {"benchmark": "b", "split": "s", "experiment": "e", "title": "E", "metric": "mAP", "unit": "%"}
    table = pd.DataFrame([{**keys, "condition": c, "value": 0.5, **MEASURED} for c in "xy"])
    for published in (Published(), Published([Number("M", "d", "mAP", "x", 1.0, "S", "P")], {"s": []}, {"e": "M"})):
        found = add_published(table, published, {})
        assert found[table.columns].astype({name: type(value) for name, value in MEASURED.items()}).equals(table)
        assert found["published"].isna().all()


def test_one_method_can_stand_beside_several_experiments() -> None:
    keys = {"benchmark": "b", "split": "s", "metric": "mAP", "unit": "%", "condition": "x"}
    lines = [{**keys, "experiment": e, "title": e.upper(), "value": 0.5, **MEASURED} for e in "efg"]
    number = Number("M", "d", "mAP", "x", 40.0, "S", "P")
    found = add_published(pd.DataFrame(lines), Published([number], {"s": ["d"]}, {"e": "M", "g": "M"}), {})
    assert found["experiment"].tolist() == ["e", "f", "g"]
    assert found["published"].tolist()[::2] == [0.4, 0.4]
    assert pd.isna(found["published"][1])


PROBE3D = {"step": 4, "matches": 1000, "interpolate": "raw", "candidates": "observed"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (PROBE3D, True),  # the rest is the benchmark's own
        (PROBE3D | {"filters": ["ratio", "similarity"], "occlusions": [False, True], "thresholds": [10]}, True),
        (PROBE3D | {"filters": ["similarity", "ratio"]}, False),
        (PROBE3D | {"occlusions": [True, False]}, False),
        (PROBE3D | {"step": 1}, False),
        (PROBE3D | {"matches": 500}, False),
        (PROBE3D | {"candidates": "all"}, False),
        *(({key: value for key, value in PROBE3D.items() if key != left_out}, False) for left_out in PROBE3D),
    ],
)
def test_numbers_stand_beside_those_of_the_same_settings_alone(settings: dict, expected: bool) -> None:
    number = next(n for n in read_published(FOLDER / "pixel_correspondence.csv") if n.dataset == "scannet_pairs")
    assert comparable(number, settings) == expected
    keys = {"benchmark": "b", "split": "s", "experiment": "e", "title": "E", "metric": number.metric, "unit": "%"}
    table = pd.DataFrame([{**keys, "condition": number.condition, "value": 0.5, **MEASURED}])
    found = add_published(table, Published([number], {"s": ["scannet_pairs"]}, {"e": number.method}), settings)
    assert found["published"].notna().tolist() == [expected]


def test_defaults_and_blank_settings() -> None:
    def number(**settings: float | bool | str) -> Number:
        return Number("M", "d", "m", "", 1.0, "S", "P", settings)

    assert comparable(number(), {"step": 9})
    assert comparable(number(step=1, interpolate="normalised", candidates="all", filters="ratio", occlusions=False), {})
    assert comparable(number(refine="none"), {})
    assert not comparable(number(refine="none"), {"refine": "parabola"})
    assert not comparable(number(other=1), {})


def test_defaults_are_those_of_the_benchmark() -> None:
    assert [(v.filter, v.visible_only) for v in variants({})] == [(*DEFAULTS["filters"], *DEFAULTS["occlusions"])]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_files_of_the_project_are_sound(path: Path) -> None:
    numbers = read_published(path)
    assert path.stem in BENCHMARKS
    known = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))["properties"][path.stem]["properties"]
    assert numbers
    for number in numbers:
        assert number.dataset.partition("/")[0] in {*FORMATS, "navi"}  # NAVI: by the name of a dataset
        assert 0 <= number.value <= 100
        assert number.settings.keys() <= known.keys()
        assert "MASt3R" not in number.method  # doubtful in the source
    by_method = pd.DataFrame(numbers).groupby(["method", "dataset"]).size()
    assert set(by_method) <= {1, 2, 3, 4}  # all bins, ks or thresholds of a method; some sources print recall@1 alone


def test_numbers_of_the_project_are_those_of_the_papers() -> None:
    """Compare some numbers with values typed independently."""
    table = pd.DataFrame([number for path in FILES for number in read_published(path)])

    def of(method: str, dataset: str, metric: str | None = None) -> list[float]:
        rows = table[(table["method"] == method) & (table["dataset"] == dataset)]
        return rows[rows["metric"] == metric]["value"].tolist() if metric else rows["value"].tolist()

    assert of("DINO B/16, last block", "scannet_pairs", "recall@10px") == [45.0, 34.3, 22.6, 10.7]
    assert of("DINOv2 B/14, last block", "scannet_pairs", "recall@10px") == [37.0, 27.5, 19.7, 11.2]
    assert of("StableDiffusion, best block (Block1)", "scannet_pairs") == [66.4, 55.0, 31.0, 8.4]
    assert of("DINOv2 L/14, last block", "navi") == [92.2, 72.3, 48.9, 35.0]
    assert of("AnyLoc-VLAD-DINOv2, ViT-g/14", "baidu") == [75.2, 87.6]
    assert of("AnyLoc-VLAD-DINO, ViT-S/8", "mid_atlantic_ridge") == [41.6, 66.3]
    assert of("MegaLoc", "geotagged/pitts30k") + of("MegaLoc", "geotagged/tokyo247") == [94.1, 96.5]
    assert of("RoMa v2", "scannet_pairs") == [34.0, 56.5, 73.9]
    assert of("VGGT", "scannet_pairs") == [33.9, 55.2, 73.4]


def test_numbers_of_pairwise_matchers_have_a_row_where_poses_are_from_essential_matrices() -> None:
    numbers = read_published(FOLDER / "relative_pose.csv")
    of_method = next(number for number in numbers if number.method == "RoMa v2")
    assert of_method.caveat
    keys = {"benchmark": "relative_pose", "split": "s", "experiment": "e", "title": "E", "unit": "%"}
    lines = [
        {**keys, "metric": f"AUC@5deg, {method}", "condition": "all", "value": 0.5, **MEASURED}
        for method in ("rigid", "essential")
    ]
    found = add_published(pd.DataFrame(lines), Published(numbers, {"s": ["scannet_pairs"]}), {})
    shown = found[found["title"] == "RoMa v2"]
    assert shown[["metric", "published", "published_caveat"]].values.tolist() == [
        ["AUC@5deg, essential", 0.34, of_method.caveat]
    ]
