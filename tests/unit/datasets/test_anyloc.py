"""Small sets in the public layouts, written by the tests; positives are compared with brute force."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from numpy.testing import assert_array_equal

from loco.datasets import FORMATS, check_scene, is_photographs, open_scene, provides
from loco.errors import DataError
from loco.steps.frames import prepare_frames
from loco.storage import Frames

Truth = tuple[list[str], list[str], list[list[int]]]  # names of the database images and of the queries, and positives


def images(folder: Path, names: list[str]) -> list[str]:
    """Write tiny images, no two of which are equal; names are relative to the folder of the set."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        colour = np.frombuffer(f"{folder.name}{name}".encode().ljust(64)[-64:], np.uint8)[:48].reshape(4, 4, 3)
        (folder / name).parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / name), colour)
    return names


def near(database: np.ndarray, queries: np.ndarray, radius: float) -> list[list[int]]:
    return [[j for j, d in enumerate(database) if np.sqrt(((d - q) ** 2).sum()) <= radius] for q in queries]


def places(count: int, side: float, seed: int, dimensions: int = 2) -> np.ndarray:
    """Return positions in a square, in whole millimetres, so that text stores them exactly."""
    return np.random.default_rng(seed).uniform(0, side, (count, dimensions)).round(3)


def objects(rows: list[tuple[int, object]]) -> np.ndarray:
    array = np.empty((len(rows), 2), dtype=object)
    for k, row in enumerate(rows):
        array[k] = row
    return array


def baidu(folder: Path) -> Truth:
    parts = []
    for kind, count in (("training", 12), ("query", 5)):
        names = images(folder / f"{kind}_images_undistort", [f"{k}.jpg" for k in range(7, 7 + count)])
        centres = places(count, 15.0, count, 3)
        for name, centre in zip(names, centres):
            file = folder / f"{kind}_gt" / f"{Path(name).stem}.camera"
            file.parent.mkdir(exist_ok=True)
            lines = [*np.eye(3), np.zeros(3), *np.eye(3), centre, np.array([1920, 1080])]
            file.write_text("\n".join(" ".join(f"{number:.3f}" for number in line) for line in lines) + "\n")
        parts.append(([f"{kind}_images_undistort/{name}" for name in names], centres))
    (database, where), (queries, query_where) = parts
    return database, queries, near(where, query_where, 10)


def geotagged(folder: Path) -> Truth:
    parts = []
    for kind, count in (("database", 9), ("queries", 4)):
        where = places(count, 60.0, count) + np.array([580_000, 4_470_000])
        where = where[np.argsort(where[:, 0])]  # sorted by name, as all numbers have six digits
        names = images(
            folder / "images/test" / kind, [f"@{e:.3f}@{n:.3f}@17@T@@{k}@.jpg" for k, (e, n) in enumerate(where)]
        )
        parts.append(([f"images/test/{kind}/{name}" for name in names], where))
    (database, where), (queries, query_where) = parts
    return database, queries, near(where, query_where, 25)


def oxford_robotcar(folder: Path) -> Truth:
    database = [f"1-s-resized/{k}.png" for k in (30, 4, 200)]  # in the order of the list
    queries = [f"2-s-resized/{k}.png" for k in (1, 2)]
    images(folder / "oxDataPart", database + queries)
    images(folder / "oxDataPart", ["1-s-resized/not_in_the_list.png"])
    where, query_where = places(3, 60.0, 1), places(2, 60.0, 2)
    cells = np.empty((1, 8), dtype=object)
    cells[0] = [np.array(database), where, np.array(queries), query_where, 3, 2, 10.0, 100.0]
    scipy.io.savemat(folder / "oxdatapart.mat", {"dbStruct": cells})
    names = [[f"oxDataPart/{name}" for name in part] for part in (database, queries)]
    return *names, near(where, query_where, 25)


def pose_list(folder: Path, rows: int, database: slice, queries: slice, boxed: bool) -> Truth:
    poses = places(rows, 60.0, rows, 7)
    poses[:, 2:] += 1000  # columns after x and y are ignored
    np.save(folder / "pose_topic_list.npy", poses.astype(object) if boxed else poses, allow_pickle=True)
    counts = [len(range(rows)[part]) for part in (database, queries)]
    names = [images(folder / of, [f"{k}.png" for k in range(n)]) for of, n in zip(("db_images", "q_images"), counts)]
    named = [[f"{of}/{name}" for name in part] for of, part in zip(("db_images", "q_images"), names)]
    return *named, near(poses[database, :2], poses[queries, :2], 8)


def hawkins(folder: Path) -> Truth:
    return pose_list(folder, 314, slice(0, 127), slice(127, 245), boxed=False)


def laurel_caverns(folder: Path) -> Truth:
    return pose_list(folder, 744, slice(0, 141), slice(229, 341), boxed=True)


def window(count: int, queries: int, reach: int) -> list[list[int]]:
    """The frames around the frame of each query, also at both ends of the sequence."""
    return [list(range(k - reach, k + reach + 1)) for k in range(queries)]


def match_list(
    folder: Path, parts: tuple[list[str], list[str]], counts: tuple[list[int], int], truth: Callable
) -> Truth:
    database = [f"{of}/{name}" for of, n in zip(parts[0], counts[0]) for name in images(folder / of, jpgs(n))]
    queries = [f"{parts[1]}/{name}" for name in images(folder / parts[1], jpgs(counts[1]))]
    found = window(len(database), counts[1], 2)
    truth(found)
    return database, queries, [[k for k in row if 0 <= k < len(database)] for row in found]


def jpgs(count: int) -> list[str]:
    return [f"Image{k}.jpg" for k in range(count)]


def gardens(folder: Path) -> Truth:
    images(folder / "day_left", jpgs(2))  # AnyLoc names the queries by this folder; its contents are not read

    def truth(found):
        np.save(folder / "gardens_gt.npy", objects(list(enumerate(found))), allow_pickle=True)

    return match_list(folder, (["day_right"], "night_right"), ([11], 11), truth)


def seventeen_places(folder: Path) -> Truth:
    def truth(found):
        np.save(folder / "ground_truth_new.npy", objects(list(enumerate(found))), allow_pickle=True)
        np.save(folder / "better_ground_truth.npy", objects([(k, [0]) for k in range(12)]), allow_pickle=True)

    return match_list(folder, (["ref"], "query"), ([12], 12), truth)


def mid_atlantic_ridge(folder: Path) -> Truth:
    def truth(found):
        others = [(k, [k]) for k in range(101)]
        rows = [(101 + k, np.array(row)) for k, row in enumerate(found)]
        np.save(folder / "eiffel_gt.npy", objects(others + rows), allow_pickle=True)

    return match_list(folder, (["db_images"], "q_images"), ([6], 5), truth)


def vp_air(folder: Path) -> Truth:
    def truth(found):
        np.save(folder / "vpair_gt.npy", objects(list(enumerate(found))), allow_pickle=True)

    return match_list(folder, (["reference_views", "distractors"], "queries"), ([6, 4], 6), truth)


def nardo_air(folder: Path) -> Truth:
    database = [f"reference_images/{name}" for name in images(folder / "reference_images", jpgs(8))]
    queries = [f"query_images/{name}" for name in images(folder / "query_images", jpgs(3))]
    nearest = [np.random.default_rng(k).permutation(8)[:6].tolist() for k in range(3)]
    with (folder / "gt_matches.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query_ind", "query_name", *(f"top_{k}_ref_ind" for k in range(1, 7))])
        for k in (1, 0, 2):  # rows in arbitrary order
            writer.writerow([k, queries[k], *nearest[k]])
    return database, queries, [sorted(row[:5]) for row in nearest]


WRITERS = {
    "baidu": baidu,
    "gardens": gardens,
    "seventeen_places": seventeen_places,
    "geotagged": geotagged,
    "oxford_robotcar": oxford_robotcar,
    "hawkins": hawkins,
    "laurel_caverns": laurel_caverns,
    "mid_atlantic_ridge": mid_atlantic_ridge,
    "nardo_air": nardo_air,
    "vp_air": vp_air,
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> tuple[Path, dict[str, Truth]]:
    """Every set, in a folder named after its format, and its expected content."""
    raw = tmp_path_factory.mktemp("raw")
    truths = {}
    for format, write in WRITERS.items():
        (raw / format).mkdir()
        truths[format] = write(raw / format)
    return raw, truths


@pytest.fixture
def damaged(pristine, tmp_path) -> Callable[[str], Path]:
    """Return a copy of a set that a test may damage."""
    return lambda format: shutil.copytree(pristine[0] / format, tmp_path / format)


def test_every_format_is_written_here():
    assert set(WRITERS) == {format for format in FORMATS if provides(format) == {"positives"}}
    assert {FORMATS[format].module for format in WRITERS} == {"anyloc"}
    assert all(map(is_photographs, WRITERS))


@pytest.mark.parametrize("format", WRITERS)
def test_names_order_and_positives(pristine, format):
    raw, truths = pristine
    database, queries, positives = truths[format]
    scene = open_scene(format, raw, format)
    truth = scene.ground_truth()
    assert truth["database"] == database
    assert truth["queries"] == queries
    assert truth["positives"] == positives
    assert scene.names("all") == database + queries
    assert 0 < sum(map(len, positives)) < len(database) * len(queries)
    json.dumps(truth)
    for frame in scene.frames([database[-1], queries[0]]):
        assert_array_equal(frame.rgb, cv2.imread(str(raw / format / frame.name))[:, :, ::-1])


@pytest.mark.parametrize("format", WRITERS)
def test_manifest(pristine, format):
    raw, truths = pristine
    database, queries, positives = truths[format]
    manifest = check_scene(format, raw, format, "all")
    assert manifest["problems"] == []
    assert (manifest["database"], manifest["queries"]) == (len(database), len(queries))
    assert manifest["images"] == len(database) + len(queries)
    alone = sum(not row for row in positives)
    notes = "\n".join(manifest.get("notes", []))
    assert (f"queries without a positive: {alone} of {len(queries)}" in notes) == (alone > 0)


def test_notes_say_which_file_was_read_and_what_was_left_out(pristine, damaged):
    notes = check_scene("seventeen_places", pristine[0], "seventeen_places", "all")["notes"]
    assert notes == [
        "positives are those of ground_truth_new.npy",
        "positives in ground_truth_new.npy that are the index of no image are ignored: 6",
    ]
    folder = damaged("seventeen_places")
    (folder / "ground_truth_new.npy").unlink()
    (folder / "ref" / "readme.txt").write_text("x")
    manifest = check_scene("seventeen_places", folder.parent, "seventeen_places", "all")
    assert manifest["notes"] == [
        "positives are those of better_ground_truth.npy",
        "files next to the images are ignored (1): readme.txt",
    ]
    assert [file["name"] for file in manifest["files"]] == ["ref", "query", "better_ground_truth.npy"]
    assert open_scene("seventeen_places", folder.parent, "seventeen_places").ground_truth()["positives"] == [[0]] * 12


def test_prepared_frames_keep_the_ground_truth(pristine, tmp_path):
    raw, truths = pristine
    settings = {"height": 16, "width": 32, "images": "all", "max_hole_fraction": 1.0}
    prepare_frames("baidu", raw, "baidu", tmp_path / "baidu.h5", "baidu", settings)
    database, queries, positives = truths["baidu"]
    with Frames(tmp_path / "baidu.h5") as frames:
        assert frames.names == database + queries
        assert frames.facts["ground_truth"] == {"database": database, "queries": queries, "positives": positives}
        assert_array_equal(frames["intrinsics"][0], np.diag([8, 4, 1]))  # an image of 4 x 4 pixels
        assert not frames["depth"][:].any()


def truncate(folder: Path, name: str, rows: slice) -> None:
    np.save(folder / name, np.load(folder / name, allow_pickle=True)[rows], allow_pickle=True)


def change(folder: Path, name: str, row: int, value: object) -> None:
    rows = np.load(folder / name, allow_pickle=True)
    rows[row, 1] = value
    np.save(folder / name, rows, allow_pickle=True)


def only(folder: Path, format: str = "5", **content: np.ndarray) -> None:
    for cells in content.values():
        cells.fill(0)
    scipy.io.savemat(folder / "oxdatapart.mat", content, format=format)


def relist(folder: Path, place: int, value: object) -> None:
    cells = scipy.io.loadmat(folder / "oxdatapart.mat")["dbStruct"]
    cells[0, place] = value
    scipy.io.savemat(folder / "oxdatapart.mat", {"dbStruct": cells})


def inflated(folder: Path) -> None:
    """Write a variable before the list that takes 80 MB in memory and 80 kB in the file."""
    cells = scipy.io.loadmat(folder / "oxdatapart.mat")["dbStruct"]
    content = {"other": np.zeros(10_000_000), "dbStruct": cells}
    scipy.io.savemat(folder / "oxdatapart.mat", content, do_compression=True)


def nested(depth: int) -> list:
    row: list = [1]
    for _ in range(depth):
        row = [row]
    return row


def deep(folder: Path, depth: int = 100_000) -> None:
    """Return a pickled array of nested lists; pickled by hand, because Python's pickling recurses."""
    change(folder, "gardens_gt.npy", 3, "place")
    content = (folder / "gardens_gt.npy").read_bytes()
    old = [b"\x8c\x05place\x94", b"X\x05\x00\x00\x00place"]
    found = next(text for text in old if text in content)
    lists = b"]" * depth + b"a" * (depth - 1)
    (folder / "gardens_gt.npy").write_bytes(content.replace(found, lists))


class Runs:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def rewrite(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def read_all(format: str, folder: Path) -> None:
    scene = open_scene(format, folder.parent, format)
    list(scene.frames(scene.names("all")))


CAMERA = "training_gt/8.camera"


@pytest.mark.parametrize(
    ("format", "damage", "message"),
    [
        ("baidu", lambda f: shutil.rmtree(f / "query_gt"), r"query_gt is missing[\s\S]*docs/datasets.md"),
        ("baidu", lambda f: (f / CAMERA).unlink(), r"is missing[\s\S]*8.camera"),
        ("baidu", lambda f: (f / CAMERA).write_text("1 2 3\n"), r"a camera centre[\s\S]*found: number of lines: 1"),
        ("baidu", lambda f: (f / CAMERA).write_text("1 2\n1920 1080\n"), r"a camera centre[\s\S]*found: 1 2"),
        ("baidu", lambda f: (f / CAMERA).write_text("1 2 nan\n1920 1080\n"), r"not contain a camera centre"),
        ("baidu", lambda f: (f / "training_images_undistort/8.jpg").write_bytes(b"x"), r"'8.jpg' cannot be decoded"),
        ("geotagged", lambda f: images(f / "images/test/queries", ["a.jpg"]), r"not contain its position[\s\S]*a.jpg"),
        ("geotagged", lambda f: images(f / "images/test/queries", ["@1@x@.jpg"]), r"not contain its position"),
        ("geotagged", lambda f: shutil.rmtree(f / "images/test/database"), r"database is missing"),
        ("oxford_robotcar", lambda f: (f / "oxdatapart.mat").write_bytes(b"no"), r"cannot be read[\s\S]*dbStruct"),
        ("oxford_robotcar", inflated, r"cannot be read: its variables take more than 67108864 bytes"),
        ("oxford_robotcar", lambda f: only(f, dbStruct=np.empty((100, 1), object)), r"found: numbers and"),
        ("oxford_robotcar", lambda f: only(f, dbStruct=np.zeros((3, 2))), r"shape \(3, 2\), expected at least 4 cells"),
        ("oxford_robotcar", lambda f: only(f, other=np.empty((1, 8), object)), r"no variable 'dbStruct'"),
        ("oxford_robotcar", lambda f: only(f, format="4", dbStruct=np.zeros((3, 2))), r"not a MATLAB file of level 5"),
        ("oxford_robotcar", lambda f: relist(f, 1, np.zeros((2, 2))), r"match its images[\s\S]*found: shape \(2, 2\)"),
        ("oxford_robotcar", lambda f: relist(f, 1, np.full((3, 2), np.nan)), r"do not match its images"),
        ("oxford_robotcar", lambda f: relist(f, 2, np.array(["../../a.png", "b.png"])), r"outside oxDataPart"),
        ("oxford_robotcar", lambda f: relist(f, 2, np.array(["/etc/a.png", "b.png"])), r"outside oxDataPart"),
        ("oxford_robotcar", lambda f: relist(f, 2, np.array(["b.png", "b.png"])), r"twice: 'b.png'"),
        ("oxford_robotcar", lambda f: (f / "oxDataPart/2-s-resized/1.png").unlink(), r"images are missing \(1 of"),
        ("hawkins", lambda f: truncate(f, "pose_topic_list.npy", slice(240)), r"expected: 118 rows[\s\S]*found: 113"),
        ("hawkins", lambda f: (f / "db_images/5.png").unlink(), r"one row per data[\s\S]*126 rows[\s\S]*found: 127"),
        ("laurel_caverns", lambda f: np.save(f / "pose_topic_list.npy", np.zeros(744)), r"contains no valid positions"),
        ("laurel_caverns", lambda f: np.save(f / "pose_topic_list.npy", np.full((744, 2), np.inf)), r"valid positions"),
        ("gardens", lambda f: truncate(f, "gardens_gt.npy", slice(9)), r"row per query[\s\S]*11 rows[\s\S]*found: 9"),
        ("gardens", lambda f: np.save(f / "gardens_gt.npy", np.zeros((11, 3))), r"unexpected shape[\s\S]*\(11, 3\)"),
        ("gardens", lambda f: np.save(f / "gardens_gt.npy", np.zeros((11, 2))), r"not a list of integers"),
        ("gardens", lambda f: change(f, "gardens_gt.npy", 3, ["a"]), r"not a list of integers"),
        ("gardens", lambda f: change(f, "gardens_gt.npy", 3, [[1], [2, 3]]), r"not a list of i[\s\S]*list of length 2"),
        ("gardens", lambda f: change(f, "gardens_gt.npy", 3, nested(40)), r"not a list of i[\s\S]*list of length 1"),
        ("gardens", deep, r"not a list of i[\s\S]*list of length 1"),
        ("gardens", lambda f: change(f, "gardens_gt.npy", 3, [11, 12]), r"query 3 has no positive among[\s\S]*0 to 10"),
        ("gardens", lambda f: change(f, "gardens_gt.npy", 3, Runs(f / "made")), r"which no array of numbers requires"),
        ("gardens", lambda f: (f / "night_right/Image3.jpg").unlink(), r"row per query[\s\S]*10 rows[\s\S]*found: 11"),
        ("seventeen_places", lambda f: [p.unlink() for p in f.glob("*.npy")], r"ground_truth_new.npy is missing"),
        ("mid_atlantic_ridge", lambda f: truncate(f, "eiffel_gt.npy", slice(3, None)), r": 5 rows[\s\S]*found: 2"),
        ("vp_air", lambda f: shutil.rmtree(f / "distractors"), r"distractors is missing"),
        ("nardo_air", lambda f: rewrite(f / "gt_matches.csv", "top_2_ref_ind", "x"), r"cannot be parsed: 'top_2_"),
        ("nardo_air", lambda f: rewrite(f / "gt_matches.csv", "\n1,", "\n0,"), r"list each query exactly once"),
        ("nardo_air", lambda f: rewrite(f / "gt_matches.csv", "\n1,", "\none,"), r"cannot be parsed"),
        ("nardo_air", lambda f: (f / "query_images/Image1.jpg").unlink(), r"row per query[\s\S]*2 rows[\s\S]*found: 3"),
    ],
)  # fmt: skip
def test_what_is_broken_is_named_with_its_remedy(damaged, format, damage, message):
    folder = damaged(format)
    damage(folder)
    listed = "\n".join(check_scene(format, folder.parent, format, "all")["problems"])
    assert re.search(message, listed), listed
    assert "what to do" in listed
    assert not (folder / "made").exists()
    with pytest.raises(DataError):
        read_all(format, folder)


def test_a_list_of_matlab_structures_serves_as_well(pristine, damaged):
    folder = damaged("oxford_robotcar")
    cells = scipy.io.loadmat(folder / "oxdatapart.mat")["dbStruct"][0]
    keys = ("dbImage", "locDb", "qImage", "locQ", "numDb", "numQ", "posDistThr", "posDistSqThr")
    scipy.io.savemat(folder / "oxdatapart.mat", {"dbStruct": dict(zip(keys, cells))})
    truth = open_scene("oxford_robotcar", folder.parent, "oxford_robotcar").ground_truth()
    assert tuple(truth.values()) == pristine[1]["oxford_robotcar"]
