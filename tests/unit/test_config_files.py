"""Files of a configuration: YAML that loses keys, scene lists, missing weights, and scenes with two names."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from loco.config import check_files, load, missing_files, resolve, scene_identity
from loco.config_layers import read_files, with_defaults
from loco.errors import ConfigError

ROOT = Path(__file__).parents[2]
# Through JSON, because YAML's aliases would be one and the same object.
DEMO = json.loads(json.dumps(with_defaults(read_files([], ROOT), ROOT)))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(config: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(config, ROOT)
    return [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:]]


def touch(*files: str) -> None:
    for file in map(Path, files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


# YAML files ----------------------------------------------------------------------------------------------------------


def yaml_problems(text: str | bytes) -> list[str]:
    file = Path("my.yaml")
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        check_files([file])
    return [line.removeprefix("  - my.yaml").removeprefix(": ") for line in str(caught.value).splitlines()[1:]]


@pytest.mark.parametrize("file", sorted((ROOT / "config").glob("*.yaml")), ids=lambda file: file.name)
def test_shipped_files_are_sound(file: Path) -> None:
    check_files([file])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", ["`a` is set twice, in lines 1 and 3"]),
        ("experiments:\n  mine: {x: 1}\n  mine: {x: 2}\n", ["`experiments.mine` is set twice, in lines 2 and 3"]),
        ("a: {b: {c: 1, c: 2}}\n", ["`a.b.c` is set twice, in lines 1 and 1"]),
        ("a:\n- {b: 1}\n- {b: 1, 'b': 2}\n", ["`a.1.b` is set twice, in lines 3 and 3"]),
        ("1: a\n0x1: b\n", ["`0x1` is set twice, in lines 1 and 2"]),
        ("a: 1\na: 2\na: 3\nb: {c: 1, c: 1}\n", ["`a` is set", "`a` is set", "`b.c` is set"]),
        ("d: &d {x: {y: 1, y: 2}}\ne: {<<: *d}\nf: *d\n", ["`d.x.y` is set twice"]),
        ("d: &d {x: 1}\ne:\n  <<: *d\n  <<: {y: 2}\n", ["`e.<<` is set twice, in lines 3 and 4; write one, `<<: ["]),
        ('{"a": 1,\n\t"a": 2}', ["`a` is set twice, in lines 1 and 2"]),
        ("? [a, b]\n: 1\n", ["line 1: a key of `the top level` is not text"]),
    ],
)
def test_keys_that_are_set_twice(text: str, expected: list[str]) -> None:
    found = yaml_problems(text)
    assert len(found) == len(expected)
    assert all(problem.startswith(start) for problem, start in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: {y: 0, <<: *a}\n",  # a key beside a merge replaces its value
        "a: &a {x: 1}\nb: &b {x: 2}\nc: {<<: [*a, *b]}\n",
        "a: &a [1]\nb: [*a, *a]\nc: *a\n",
        "a: {x: 1}\nb: {x: 1}\n",
        "a: 1\n'<<': {b: 1}\n",
        '{\n\t"a": {"x": 1},\n\t"b": [1, 1]\n}\n',
        "\ufeffa: 1\n",
    ],
)
def test_what_only_looks_repeated(text: str) -> None:
    Path("my.yaml").write_text(text, encoding="utf-8")
    check_files(["my.yaml"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"a: 1\nb: \xff\n", " line 2 is not UTF-8 text"),
        ("run: &a {x: *a}\n", "`run.x` is an alias of a value that contains it (line 1)"),
        ("\nrun: &a\n  b: [1, {c: *a}]\n", "`run.b.1.c` is an alias of a value that contains it (line 2)"),
        ("run: &a {<<: *a}\n", "is an alias of a value that contains it"),
        ("run: " + "[" * 3000 + "]" * 3000, "line 1: nested more than 50 levels deep"),
        ("run: " + "{a: " * 60 + "1" + "}" * 60, "line 1: nested more than 50 levels deep"),
        ("\n".join("  " * level + "a:" for level in range(400)), "nested more than 50 levels deep"),
        ("a: *b\n", "line 1: found undefined alias 'b'"),
        ("a: [1\nb: 2\n", "line 2: "),
        ("a: !!python/object:os.system {}\n", "line 1: could not determine a constructor"),
        ("a: 2020-13-45\n", "month must be in 1..12"),
        ("- a\n- b\n", "expected a map of keys at the top level"),
        ("", "expected a map of keys at the top level"),
        ("a: \x07\n", "control characters are not allowed"),
        ("a: 1\n---\nb: 1\n", "line 2: "),
    ],
)
def test_yaml_that_cannot_be_used(text: str | bytes, expected: str) -> None:
    (problem,) = yaml_problems(text)
    assert expected in problem


def test_aliases_that_expand_without_end() -> None:
    levels = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    levels += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert yaml_problems("\n".join(levels)) == [
        "its aliases (`*`) expand to more than 200,000 values; remove some of them"
    ]


def test_files_that_are_no_files() -> None:
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("large.yaml").write_bytes(b"#" * (5 << 20))
    with pytest.raises(ConfigError) as caught:
        check_files(["pipe", "/dev/zero", "folder", "large.yaml", "missing.yaml"])
    lines = str(caught.value).splitlines()[1:]
    assert [line.partition(";")[0] for line in lines] == [
        "  - pipe is not a regular file",
        "  - /dev/zero is not a regular file",
        "  - folder is not a regular file",
        "  - large.yaml has 5,242,880 bytes, expected 4,194,304 at most",
        "  - missing.yaml cannot be read: No such file or directory",
    ]


# Scene lists ---------------------------------------------------------------------------------------------------------


def with_list(content: bytes | str) -> dict[str, Any]:
    """Return the demo, whose test scenes are listed in a file."""
    Path("test.txt").write_bytes(content.encode() if isinstance(content, str) else content)
    config = deepcopy(DEMO)
    config["splits"]["houses"]["test"] = {"houses": "test.txt"}
    return config


def test_lists_are_taken_from_the_working_directory_first(here: Path) -> None:
    (here / "flow").mkdir()
    (here / "flow/both.txt").touch()
    (here / "flow/there.txt").touch()
    (here / "both.txt").touch()
    assert resolve("both.txt", here / "flow") == Path("both.txt")
    assert resolve("there.txt", here / "flow") == here / "flow/there.txt"
    assert resolve("none.txt", here / "flow") == Path("none.txt")
    assert resolve(here / "both.txt", here / "flow") == here / "both.txt"
    assert load(with_list("house09\n"), ROOT)["splits"]["houses"]["test"] == {"houses": ["house09"]}


@pytest.mark.parametrize(
    ("scenes", "remedy"),
    [
        ("a, b,c", "for names of scenes write a list, [a, b, c]"),
        ("house09", "for names of scenes write a list, [house09]"),
        ("lists/all.txt", "correct the path"),
        ("all.txt", "correct the path"),
    ],
)
def test_a_missing_list_that_was_meant_as_names(
    scenes: str, remedy: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = deepcopy(DEMO)
    config["datasets"]["houses"]["scenes"] = scenes
    problem = f"datasets.houses.scenes: there is no scene list {scenes} (looked for in %s); {remedy}"
    assert problem % f"{here} and {ROOT}" in problems(config)
    monkeypatch.chdir(ROOT)
    assert problem % ROOT in problems(config)  # each folder once


def test_a_list_may_have_a_byte_order_mark_and_comments() -> None:
    config = load(with_list("\ufeffhouse09\r\n\r\n  house10 # the last\r\n"), ROOT)
    assert config["splits"]["houses"]["test"] == {"houses": ["house09", "house10"]}


@pytest.mark.parametrize(
    "name", ["..", ".", "../../../x", "{x}", "a b", "-rf", "$(id)", "a/b", ".hidden", "é", "a" * 101]
)
def test_names_in_lists_are_checked(name: str) -> None:
    problem = problems(with_list(f"# names\nhouse09\n{name}\n"))[0]
    assert problem.startswith(f"splits.houses.test.houses: scene list test.txt: line 3: invalid name {name[:100]!r}")


@pytest.mark.parametrize("name", ["..", "../x", "cedar\n", "a b", "", "\n", ".a", "a" * 101])
@pytest.mark.parametrize("kind", ["scene", "dataset", "split", "experiment", "variant"])
def test_names_in_yaml_are_checked(kind: str, name: str) -> None:
    config = deepcopy(DEMO)
    variants = [{"name": "x"}, {"name": name, "train": {"loss": {"kappa": 2.0}}}]
    match kind:
        case "scene":
            config["datasets"]["houses"]["scenes"].append(name)
        case "variant":
            ablation = {"title": "a", "experiment": "exact", "split": "houses", "seeds": [0], "variants": variants}
            config["ablations"] = {"a": ablation}
        case _:
            config[f"{kind}s"][name] = next(iter(config[f"{kind}s"].values()))
    assert any(f"invalid name {name!r}" in problem or "101 characters" in problem for problem in problems(config))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"house09\nhouse\xff\n", "line 2 is not UTF-8 text"),
        ("# none\n\n", "contains no scene"),
        (b"#" * (5 << 20), "has 5,242,880 bytes, expected 4,194,304 at most"),
        ("\n".join(f"a {n}" for n in range(9)), "has 4 more invalid lines"),
    ],
)
def test_lists_that_cannot_be_used(content: bytes | str, expected: str) -> None:
    assert any(f"scene list test.txt: {expected}" in problem for problem in problems(with_list(content)))


@pytest.mark.parametrize("file", ["/dev/zero", "pipe", "."])
def test_lists_that_are_no_files(file: str) -> None:
    os.mkfifo("pipe")
    config = with_list("house09\n")
    config["splits"]["houses"]["test"]["houses"] = file
    assert "is not a regular file" in problems(config)[0]


# Missing files -------------------------------------------------------------------------------------------------------

VIT = {"name": "transformers", "path": "weights/vit"}
MODELS = {  # model -> keys whose paths are missing
    "backbone": ({"name": "backbone", "backbone": VIT, "stride": 8}, ["model.backbone.path"]),
    "pretrained": ({"name": "pretrained", "path": "models/run", "stride": 4}, ["model.path"]),
    "published": (
        {"name": "published", "weights": "loco", "path": "loco.ckpt", "stride": 8, "backbone": VIT},
        ["model.path", "model.backbone.path"],
    ),
    "concat": (
        {
            "name": "concat",
            "stride": 8,
            "models": [
                {"name": "backbone", "backbone": {"name": "onnx", "path": "a.onnx", "native_stride": 8}, "stride": 8},
                {"name": "concat", "stride": 8, "models": [{"name": "pretrained", "path": "models/b", "stride": 8}]},
                {"name": "backbone", "backbone": {"name": "croco", "path": "c.pth"}, "stride": 8},
                {"name": "dense_sift", "stride": 8, "keypoint_size": 4},
            ],
        },
        ["model.models.0.backbone.path", "model.models.1.models.0.path", "model.models.2.backbone.path"],
    ),
}
FILES = ["weights/vit/config.json", "weights/vit/model.safetensors", "models/run/model.safetensors", "loco.ckpt"]
FILES += ["a.onnx", "models/b/model.safetensors", "c.pth"]


@pytest.mark.parametrize("name", MODELS)
def test_missing_weights_are_named_all_at_once(name: str) -> None:
    model, keys = MODELS[name]
    config = deepcopy(DEMO)
    config["experiments"]["untrained"]["model"] = model
    config["figures"]["scene"] = "house00"  # another mistake, which is listed as well
    found = problems(config)
    assert len(found) == len(keys) + 1
    assert [problem.partition(":")[0] for problem in found[1:]] == [f"experiments.untrained.{key}" for key in keys]
    touch(*FILES)
    del found[1:]
    assert problems(config) == found


def test_initial_weights_must_be_there_unless_they_are_made_here() -> None:
    config = deepcopy(DEMO)
    config["experiments"]["exact"]["train"]["init"] = "models/typo.safetensors"
    (problem,) = problems(config)
    assert problem.startswith("experiments.exact.train.init: the model file models/typo.safetensors does not exist")
    touch("models/typo.safetensors")
    load(config, ROOT)
    config["experiments"]["exact"]["train"]["init"] = "results/train/houses/first/seed0"
    load(config, ROOT)


def test_files_of_experiments_that_are_not_run_are_asked_for_by_name() -> None:
    config = deepcopy(DEMO)
    config["experiments"]["later"] = {"title": "later", "model": MODELS["pretrained"][0]}
    config = load(config, ROOT)
    assert missing_files(config, "exact") == []
    (problem,) = missing_files(config, "later")
    assert problem.startswith(
        "experiments.later.model.path: the model file models/run/model.safetensors does not exist"
    )


def test_a_misspelt_folder_is_not_requested_from_the_hub() -> None:
    config = deepcopy(DEMO)
    backbone = {"name": "transformers", "path": "mine/dinu"}
    config["experiments"]["untrained"]["model"] = {"name": "backbone", "backbone": backbone, "stride": 8}
    for _ in range(2):  # whether or not a folder with the name of the owner exists
        (problem,) = problems(config)
        assert "experiments.untrained.model.backbone.path: the folder mine/dinu does not exist" in problem
        touch("mine/dino/config.json")
    backbone["path"] = "hub:mine/dinu"
    load(config, ROOT)


def test_tables_of_labels_must_be_there_where_a_benchmark_needs_labels() -> None:
    config = deepcopy(DEMO)
    config["run"]["benchmarks"].append("semantic_segmentation")
    labels = {"mapping": "config/labels/nope.tsv"}
    config["datasets"]["others"] = {**config["datasets"]["houses"], "raw": "results/raw/others", "labels": labels}
    load(config, ROOT)  # no split of the run contains a scene of it
    config["datasets"]["houses"]["labels"] = labels
    config["run"]["experiments"].append("exat")
    first, second = problems(config)
    assert first.startswith("run.experiments: `exat` is not defined")
    assert second.startswith("datasets.houses.labels.mapping: there is no table config/labels/nope.tsv (looked for in")
    config["run"]["experiments"].remove("exat")
    touch("config/labels/nope.tsv")  # in the working directory
    load(config, ROOT)


def test_without_such_a_benchmark_or_for_scenes_to_train_on_no_table_is_required() -> None:
    config = deepcopy(DEMO)
    config["datasets"]["houses"]["labels"]["mapping"] = "nope.tsv"
    load(config, ROOT)
    config["run"]["benchmarks"] = ["semantic_segmentation"]
    assert [problem.partition(":")[0] for problem in problems(config)] == ["datasets.houses.labels.mapping"]
    touch("own.tsv")
    flats = {key: value for key, value in DEMO["datasets"]["houses"].items() if key != "simulate"}
    config["datasets"]["flats"] = flats | {"raw": "data/flats", "scenes": ["a"], "labels": {"mapping": "own.tsv"}}
    config["splits"]["flats"] = {"trained_on": "houses", "test": {"flats": ["a"]}}
    config["run"]["splits"], config["figures"]["scene"] = ["flats"], None
    load(config, ROOT)


# Scenes under two names ----------------------------------------------------------------------------------------------


def two_datasets(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the demo with the datasets `one` and `other`, whose first scenes are used for training and testing."""
    config = deepcopy(DEMO)
    plain = {key: value for key, value in DEMO["datasets"]["houses"].items() if key not in ("simulate", "labels")}
    config["datasets"] |= {"one": plain | one, "other": plain | other}
    train, test = ({name: config["datasets"][name]["scenes"][:1]} for name in ("one", "other"))
    config["splits"]["two"] = {"train": train, "test": test}
    config["run"]["splits"], config["figures"]["scene"] = ["two"], None
    return config


def test_one_raw_folder_under_two_names(here: Path) -> None:
    (here / "raw/a").mkdir(parents=True)
    (here / "link").symlink_to("raw")
    (here / "links").mkdir()
    (here / "links/b").symlink_to("../raw/a")
    for raw, scene in (
        ("raw/", "a"),
        ("./raw", "a"),
        ("link", "a"),
        ("raw/a/..", "a"),
        (str(here / "raw"), "a"),
        ("links", "b"),
    ):
        (problem,) = problems(two_datasets({"raw": "raw", "scenes": ["a"]}, {"raw": raw, "scenes": [scene]}))
        start = f"splits.two: `a` of one in train and `{scene}` of other in test are the same scene ({here}/raw/a)"
        assert problem.startswith(start), raw
    load(two_datasets({"raw": "raw", "scenes": ["a"]}, {"raw": "raw", "scenes": ["b"]}), ROOT)
    load(two_datasets({"raw": "raw", "scenes": ["a"]}, {"raw": "raw2", "scenes": ["a"]}), ROOT)


@pytest.mark.parametrize("parts", [("train", "val"), ("val", "test"), ("train", "test")])
def test_every_two_parts_are_compared(parts: tuple[str, str]) -> None:
    config = two_datasets({"raw": "raw", "scenes": ["a", "b", "c"]}, {"raw": "raw", "scenes": ["a"]})
    config["splits"]["two"] = {"train": {"one": ["a"]}, "val": {"one": ["b"]}, "test": {"one": ["c"]}}
    config["run"]["splits"] = ["two"]
    load(config, ROOT)
    config["splits"]["two"] |= {parts[0]: {"one": ["a"]}, parts[1]: {"other": ["a"]}}
    if "train" not in parts:
        config["splits"]["two"]["train"] = {"one": ["b"]}
    assert any(f"`a` of one in {parts[0]} and `a` of other in {parts[1]} are the same" in p for p in problems(config))


def test_a_training_elsewhere_is_compared_as_well() -> None:
    config = two_datasets({"raw": "raw", "scenes": ["a", "b"]}, {"raw": "raw", "scenes": ["a"]})
    config["splits"]["two"] = {"train": {"one": ["a"]}, "test": {"one": ["b"]}}
    config["splits"]["again"] = {"trained_on": "two", "test": {"other": ["a"]}}
    (problem,) = problems(config)
    assert problem.startswith("splits.again: `a` of one in train and `a` of other in test are the same scene")


SIMULATED = DEMO["datasets"]["houses"]["simulate"]


def simulated(name: str, **settings: Any) -> dict[str, Any]:
    return {"raw": f"results/raw/{name}", "scenes": ["oak"], "simulate": {**SIMULATED, **settings}}


def test_simulated_scenes_are_the_same_by_seed_and_name() -> None:
    (problem,) = problems(two_datasets(simulated("one"), simulated("other", panoramas=2)))
    assert "are the same scene (the simulated scene `oak` of seed 7)" in problem
    load(two_datasets(simulated("one"), simulated("other", seed=8)), ROOT)
    load(two_datasets(simulated("one"), simulated("other") | {"scenes": ["elm"]}), ROOT)


def test_what_another_dataset_writes_is_the_same() -> None:
    config = two_datasets(simulated("one"), {"raw": "results/raw/third", "scenes": ["oak"]})
    load(config, ROOT)
    config["datasets"]["third"] = config["datasets"]["one"] | {"raw": "results/raw/third"}
    assert "are the same scene (the simulated scene `oak` of seed 7)" in problems(config)[0]


def test_reconstructions_of_the_same_photographs(here: Path) -> None:
    def reconstructed(name: str, images: str) -> dict[str, Any]:
        how = {"images": images, "matcher": "exhaustive"}
        return {"format": "colmap", "raw": f"results/raw/{name}", "scenes": ["a"], "reconstruct": how}

    def tried(images: str) -> dict[str, Any]:
        config = two_datasets(reconstructed("one", "photos"), reconstructed("other", images))
        return config | {"run": config["run"] | {"benchmarks": ["location_consistency"]}}

    (here / "link").symlink_to("photos")
    assert f"are the same scene ({here}/photos/a)" in problems(tried("link"))[0]
    load(tried("others"), ROOT)


SCANS = ["scene0000_00", "scene0000_01", "scene0001_00", "scene0001_01", "scene0002_00"]


def scannet(train: list[str], test: list[str], **settings: Any) -> dict[str, Any]:
    config = two_datasets({"raw": "s", "scenes": ["a"]}, {"format": "scannet", "raw": "scans", "scenes": SCANS})
    config["splits"]["two"] = {"train": {"other": train}, "test": {"other": test}, **settings}
    return config


def test_scans_of_one_room_are_kept_together() -> None:
    load(scannet(["scene0000_00", "scene0000_01"], ["scene0001_00", "scene0001_01"]), ROOT)
    (problem,) = problems(scannet(["scene0000_00", "scene0001_00"], ["scene0000_01", "scene0001_01", "scene0002_00"]))
    assert problem == (
        "splits.two: 2 room(s) of ScanNet have scans in both train and test: scene0000_00 and scene0000_01, "
        "scene0001_00 and scene0001_01; move all scans of a room to one part, or set `allow_rescans: true` in the split"
    )
    load(scannet(["scene0000_00"], ["scene0000_01"], allow_rescans=True), ROOT)
    # The same scan is never allowed.
    (problem,) = problems(scannet(["scene0000_00"], ["scene0000_00"], allow_rescans=True))
    assert problem == "splits.two: `scene0000_00` of other is in both train and test; remove it from one of them"


def test_rooms_are_told_by_names_of_scannet_alone() -> None:
    handheld = {key: value for key, value in SIMULATED.items() if key != "panoramas"} | {"images": 5}
    for other in ({"format": "matterport3d"}, {"simulate": handheld, "raw": "results/raw/other"}):
        config = scannet(["scene0000_00"], ["scene0000_01"])
        config["datasets"]["other"] |= other
        load(config, ROOT)


def test_scans_of_the_listed_pairs_are_scans_as_well(here: Path) -> None:
    pairs = {"format": "scannet_pairs", "raw": "data", "scenes": ["scannet_test_1500"]}
    config = two_datasets({"format": "scannet", "raw": "scans", "scenes": ["scene0707_00"]}, pairs)
    config["run"]["benchmarks"] = ["pixel_correspondence"]
    load(config, ROOT)  # these pairs do not exist
    (here / "data/scannet_test_1500/scene0707_01").mkdir(parents=True)
    assert (
        "1 room(s) of ScanNet have scans in both train and test: scene0707_00 and scene0707_01" in problems(config)[0]
    )
    config["splits"]["two"]["allow_rescans"] = True
    load(config, ROOT)
    (here / "data/scannet_test_1500/scene0707_00").mkdir()
    assert "are the same scene (ScanNet's scene0707_00)" in problems(config)[0]


def test_the_identity_of_a_scene(here: Path) -> None:
    config = two_datasets(simulated("one"), {"format": "scannet", "raw": "scans", "scenes": ["scene0000_00"]})
    config = load(config, ROOT)
    assert scene_identity(config, "one", "oak") == {
        f"{here}/results/raw/one/oak",
        "the simulated scene `oak` of seed 7",
    }
    assert scene_identity(config, "other", "scene0000_00") == {f"{here}/scans/scene0000_00", "ScanNet's scene0000_00"}
