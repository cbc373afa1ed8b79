"""Layers of a configuration: the defaults, files that extend others, several files, and values of the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.utils import update_config

from loco.config import benchmark_scenes, layers, load, provided_by, read_files
from loco.config_layers import DEFAULTS, laid_over, with_defaults
from loco.datasets.catalogue import FORMATS
from loco.errors import ConfigError
from loco.plan import Plan
from loco.training.phases import phases_of

ROOT = Path(__file__).parents[2]
DEMO_STEPS = 400  # of the experiment `exact` of the demo

# A configuration of ten lines, with an experiment that has the name of one of the demo.
MINE = """\
run: { splits: [mine], experiments: [exact, untrained] }
datasets:
  mine: { format: posed_rgbd, raw: data/mine, scenes: [a, b], frames: { height: 96, width: 128 } }
splits:
  mine: { train: { mine: [a] }, test: { mine: [b] } }
experiments:
  exact:
    model: { name: compact_cnn, dim: 64 }
    train: { steps: 300, loss: { name: exact, rho: 0.2, kappa: 5.0, tau: 0.05 } }
  untrained: { model: { name: compact_cnn, dim: 32 } }
"""


SIMULATE = {"seed": 0, "rooms": 1, "images": 8, "image": {"height": 96, "width": 128}, "repetition": 0.3}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, content: str | dict[str, Any]) -> Path:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def refused(*files: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_files(files, ROOT)
    return str(caught.value)


# Defaults ------------------------------------------------------------------------------------------------------------


def test_an_experiment_with_the_name_of_one_of_the_demo_inherits_nothing_from_it() -> None:
    config = load(read_files([write("my.yaml", MINE)], ROOT), ROOT)
    exact = config["experiments"]["exact"]
    assert [(phase.loss["name"], phase.steps) for phase in phases_of(exact["train"])] == [("exact", 300)]
    assert "augment" not in exact["train"]
    assert exact["model"] == {"name": "compact_cnn", "dim": 64}
    assert exact["train"]["batch"]["scenes"] == 1  # two in the demo
    assert set(config["experiments"]) == {"exact", "untrained"}
    assert set(config["datasets"]) == set(config["splits"]) == {"mine"}
    assert config["figures"]["scene"] is None


def test_the_same_experiment_inherits_the_demo_if_the_file_says_so() -> None:
    config = read_files([write("my.yaml", "extends: config.yaml\n" + MINE)], ROOT)
    with pytest.raises(ConfigError, match="expected one weight for each of the 1 scales, found 3"):
        load(config, ROOT)
    del config["experiments"]["exact"]["train"]["loss"]["weights"]
    config["figures"]["scene"] = None
    exact = load(config, ROOT)["experiments"]["exact"]
    assert exact["train"]["steps"] == 300
    assert exact["train"]["loss"]["queries"] == 1024  # of the demo, like the following ones
    assert exact["train"]["augment"] == {"brightness": 0.3, "contrast": 0.3, "colour": 0.1}
    assert exact["title"] == "compact CNN, exact per query"
    assert exact["model"] == {"name": "compact_cnn", "dim": 64}
    assert set(config["datasets"]) == {"houses", "mine"}


def test_a_split_added_to_the_demo_works() -> None:
    changes = {"splits": {"few": {"train": {"houses": ["house00"]}, "test": {"houses": ["house09"]}}}}
    file = write("my.yaml", {"extends": "config.yaml", "run": {"splits": ["few"]}, **changes})
    config = load(read_files([file], ROOT), ROOT)
    assert config["splits"]["few"] == changes["splits"]["few"]
    assert config["experiments"] == load(read_files([], ROOT), ROOT)["experiments"]


def test_without_files_the_demo_is_read() -> None:
    config = read_files([], ROOT)
    assert config == read_files([ROOT / "config/config.yaml"], ROOT)
    assert sum(phase.steps for phase in phases_of(load(config, ROOT)["experiments"]["exact"]["train"])) == DEMO_STEPS


def test_every_dataset_and_every_training_has_the_defaults() -> None:
    defaults = yaml.safe_load((ROOT / DEFAULTS).read_text())
    config = load(yaml.safe_load(MINE), ROOT)
    dataset, wanted = config["datasets"]["mine"], defaults["datasets"]["*"]
    assert dataset["check"] == wanted["check"]
    assert dataset["patches"] == wanted["patches"]
    assert dataset["frames"] == {"height": 96, "width": 128, **wanted["frames"]}
    assert config["experiments"]["exact"]["train"].items() >= defaults["experiments"]["*"]["train"].items()
    assert config["experiments"]["exact"]["title"] == "exact"
    assert "train" not in config["experiments"]["untrained"]
    assert config["benchmarks"] == defaults["benchmarks"]
    assert config["run"]["seeds"] == [0]


@pytest.mark.parametrize("made", ["simulate", "reconstruct"])
def test_scenes_that_the_workflow_writes_need_no_folder(made: str) -> None:
    blocks = {"simulate": SIMULATE, "reconstruct": {"images": "data/photographs", "matcher": "exhaustive"}}
    config = yaml.safe_load(MINE)
    config["datasets"]["mine"] |= {made: blocks[made], "format": "colmap", "raw": "results/raw/mine"}
    stated = load(config, ROOT)
    del config["datasets"]["mine"]["raw"]
    assert load(config, ROOT) == stated
    del config["datasets"]["mine"][made]
    with pytest.raises(
        ConfigError, match=r"datasets\.mine lacks the key `raw`: Folder that contains one folder per scene"
    ):
        load(config, ROOT)


def test_batches_of_positive_pairs_take_no_default_of_the_other_kind() -> None:
    config = yaml.safe_load(MINE)
    batch = {"radius": 0.5, "images": 8, "scenes_by": "size"}
    config["experiments"]["exact"]["train"]["batch"] = batch
    assert load(config, ROOT)["experiments"]["exact"]["train"]["batch"] == {**batch, "patches_per_image": None}


def test_a_star_stands_for_every_entry_that_does_not_set_the_key() -> None:
    config = yaml.safe_load(MINE)
    config["datasets"]["*"] = {"frames": {"height": 48, "every": 2}, "check": {"decode": "all"}}
    config["experiments"]["*"] = {"train": {"optimiser": {"lr": 0.5}}}
    loaded = load(config, ROOT)
    assert loaded["datasets"]["mine"]["frames"].items() >= {"height": 96, "width": 128, "every": 2}.items()
    assert loaded["datasets"]["mine"]["check"] == {"decode": "all"}
    assert loaded["experiments"]["exact"]["train"]["optimiser"]["lr"] == 0.5
    assert set(loaded["datasets"]) == {"mine"}


@pytest.mark.parametrize("part", ["run", "datasets", "splits", "experiments", "benchmarks", "figures"])
@pytest.mark.parametrize("value", [None, 3, "text", [1], {"mine": None}, {"exact": [1]}])
def test_defaults_do_not_hide_a_mistake(part: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=part):
        load({**yaml.safe_load(MINE), part: value}, ROOT)


def test_the_defaults_alone_lack_what_only_a_user_can_state() -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, ROOT)
    for key in ("splits", "experiments"):
        assert f"run lacks the key `{key}`" in str(caught.value)


def test_each_default_has_a_reason() -> None:
    """Each block of ``defaults.yaml`` has comments; the file itself is a configuration that the loader accepts."""
    text = (ROOT / DEFAULTS).read_text()
    assert text.count("#") > 30
    assert set(with_defaults({}, ROOT)) == {"run", "datasets", "experiments", "benchmarks", "figures"}


# Files ---------------------------------------------------------------------------------------------------------------


def test_the_files_of_a_refused_configuration_are_named() -> None:
    def header(*files: Path, **overrides: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            load(read_files(files, ROOT, overrides), ROOT)
        return str(caught.value).splitlines()[0]

    wrong = {"run": {"sedes": [1]}}
    mine = write("deep/my.yaml", wrong | {"extends": None})
    assert header(mine) == "the configuration (deep/my.yaml) is not valid:"
    assert header(mine.resolve()) == "the configuration (deep/my.yaml) is not valid:"
    assert header(ROOT / "config/config.yaml", **wrong) == (
        f"the configuration ({ROOT}/config/config.yaml, --config) is not valid:"
    )
    one = write("one.yaml", wrong | {"extends": "losses_office.yaml"})
    assert header(one) == (
        "the configuration (one.yaml, extends losses_office.yaml, extends office.yaml) is not valid:"
    )
    other = write("config.yaml", {"extends": "config.yaml"})  # the demo
    assert header(mine, other) == "the configuration (deep/my.yaml, config.yaml, extends config.yaml) is not valid:"
    with pytest.raises(ConfigError, match=r"^the configuration is not valid:\n"):
        load(wrong, ROOT)  # of no file


def test_files_are_merged_as_snakemake_merges_them() -> None:
    one = {"run": {"splits": ["a"], "seeds": [0]}, "x": {"y": {"z": 1}}, "w": 1}
    other = {"run": {"splits": ["b"]}, "x": {"y": None}, "w": {"v": 2}}
    expected: dict[str, Any] = {}
    for content in (one, other):
        update_config(expected, content)
    files = [write("one.yaml", one), write("other.yaml", other)]
    assert read_files(files, ROOT) == expected
    assert expected["x"] == {"y": None}  # null replaces a value, as the schema allows


def test_a_file_is_laid_over_the_one_that_it_extends() -> None:
    write("below/base.yaml", {"extends": "lowest.yaml", "a": {"x": 1, "y": 1}, "b": [1, 2]})
    write("below/lowest.yaml", {"a": {"x": 0, "y": 0, "z": 0}})
    file = write("my.yaml", {"extends": "below/base.yaml", "a": {"y": 2}, "b": [3]})
    assert read_files([file], ROOT) == {"a": {"x": 1, "y": 2, "z": 0}, "b": [3]}
    assert layers([file], ROOT) == [Path("below/lowest.yaml"), Path("below/base.yaml"), Path("my.yaml")]


def test_shipped_files_can_be_extended_by_name_from_anywhere() -> None:
    file = write("deep/inside/my.yaml", {"extends": "losses_office.yaml"})
    assert [path.name for path in layers([file], ROOT)] == ["office.yaml", "losses_office.yaml", "my.yaml"]
    write("deep/inside/losses_office.yaml", {"a": 1})  # a file in the same folder comes first
    assert read_files([file], ROOT) == {"a": 1}


def test_a_file_with_the_name_of_the_demo_can_extend_it() -> None:
    file = write("config.yaml", "extends: config.yaml")
    assert layers([file], ROOT) == [ROOT / "config/config.yaml", file]


def test_what_a_file_extends_never_overrides_a_given_file() -> None:
    write("base.yaml", {"a": 0, "b": 0, "c": 0})
    one, other = write("one.yaml", {"a": 1}), write("other.yaml", {"extends": "base.yaml", "b": 2})
    assert read_files([one, other], ROOT) == {"a": 1, "b": 2, "c": 0}
    both = write("both.yaml", {"extends": "base.yaml", "a": 3})
    assert read_files([both, other], ROOT) == {"a": 3, "b": 2, "c": 0}  # the base once, below both


@pytest.mark.parametrize("names", [("office", "losses_office"), ("matterport3d", "published")])
def test_a_base_that_is_given_as_well_changes_nothing(names: tuple[str, str]) -> None:
    files = [ROOT / f"config/{name}.yaml" for name in names]
    assert read_files(files, ROOT) == read_files(files[1:], ROOT)


def test_mistakes_in_extends_are_named() -> None:
    assert "my.yaml: extends: there is no file nowhere.yaml (looked for " in refused(
        write("my.yaml", "extends: nowhere.yaml")
    )
    assert "expected the path of one file, found ['a.yaml']" in refused(write("my.yaml", "extends: [a.yaml]"))
    write("other.yaml", "extends: my.yaml")
    assert "extends this file itself (my.yaml -> other.yaml -> my.yaml)" in refused(
        write("my.yaml", "extends: other.yaml")
    )
    for odd in ("a\\0b", "\\e[2J", "x" * 5000, "/dev/zero", "."):
        assert "extends: there is no file" in refused(write("my.yaml", f'extends: "{odd}"'))
    write("my.yaml", "extends: other.yaml")
    write("other.yaml", "a: 1\na: 2")
    assert "other.yaml: `a` is set twice, in lines 1 and 2" in refused(write("my.yaml", "extends: other.yaml"))


def test_aliases_and_merge_keys_are_independent_after_merging() -> None:
    base = write("base.yaml", "p: &p { a: 1, b: { c: 1 } }\nq: *p\nr: { <<: *p, a: 2 }")
    over = write("over.yaml", "p: { b: { c: 5 } }")
    assert read_files([base, over], ROOT) == {
        "p": {"a": 1, "b": {"c": 5}},
        "q": {"a": 1, "b": {"c": 1}},
        "r": {"a": 2, "b": {"c": 1}},
    }


def test_json_is_read_like_yaml() -> None:
    assert read_files([write("my.json", '{\t"a": {"b": 1e3}}')], ROOT) == {"a": {"b": 1000.0}}


def test_values_of_the_command_line_are_laid_over_all_files() -> None:
    # Snakemake reads nested numbers as text.
    changes = {"run": {"seeds": ["1", "2"], "splits": ["mine"]}, "figures": {"scene": "null", "views": "2"}}
    config = load(read_files([write("my.yaml", MINE)], ROOT, changes), ROOT)
    assert config["run"]["seeds"] == [1, 2]
    assert config["run"]["splits"] == ["mine"]
    assert config["figures"] == {"scene": None, "views": 2, "explorer_views": 20}


def test_merging_changes_none_of_its_arguments() -> None:
    lower, upper = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert laid_over(lower, upper) == {"a": {"b": 1, "c": 2}}
    assert (lower, upper) == ({"a": {"b": 1}}, {"a": {"c": 2}})


# Data of one's own ---------------------------------------------------------------------------------------------------

TRAINED = """\
run: {{ splits: [mine], experiments: [exact, untrained]{benchmarks} }}
datasets:
  mine: {{ format: {format}, raw: {raw}, scenes: [{a}, {b}], frames: {{ height: 96, width: 128 }}{more} }}
splits:
  mine: {{ train: {{ mine: [{a}] }}, test: {{ mine: [{b}] }} }}
experiments:
  exact:
    model: {{ name: compact_cnn, dim: 64 }}
    train: {{ steps: 300, loss: {{ name: exact, rho: 0.2, kappa: 5.0, tau: 0.05 }} }}
  untrained: {{ model: {{ name: compact_cnn, dim: 64 }} }}
"""
EVALUATED = """\
run: {{ splits: [mine], experiments: [sift], benchmarks: [{benchmarks}] }}
datasets:
  mine: {{ format: {format}, raw: {raw}, scenes: [{a}], frames: {{ height: 96, width: 128 }} }}
splits:
  mine: {{ test: {{ mine: [{a}] }} }}
experiments:
  sift: {{ model: {{ name: dense_sift, stride: 4, keypoint_size: 4 }} }}
"""
PHOTOGRAPHS = ", reconstruct: { images: data/photographs, matcher: exhaustive }"
PLACES = ("baidu", "gardens", "seventeen_places", "geotagged", "oxford_robotcar", "hawkins", "laurel_caverns")
SOURCES = {
    **{
        format: TRAINED.format(format=format, raw="data/mine", a="a", b="b", more="", benchmarks="")
        for format in ("matterport3d", "seven_scenes", "tum_rgbd", "posed_rgbd", "nerfstudio", "colmap")
    },
    "scannet": TRAINED.format(
        format="scannet", raw="data/scans", a="scene0000_00", b="scene0001_00", more="", benchmarks=""
    ),
    "photographs": TRAINED.format(
        format="colmap", raw="results/raw/mine", a="a", b="b", more=PHOTOGRAPHS, benchmarks=""
    ),
    "scannet_pairs": EVALUATED.format(format="scannet_pairs", raw="data", a="pairs", benchmarks="pixel_correspondence"),
    "hpatches": EVALUATED.format(format="hpatches", raw="data/hpatches", a="v_wall", benchmarks="homography"),
    **{
        format: EVALUATED.format(format=format, raw="data/vpr", a="a", benchmarks="place_recognition")
        for format in (*PLACES, "mid_atlantic_ridge", "nardo_air", "vp_air")
    },
}


EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "config/README.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("example", [text for text in EXAMPLES if text.startswith("run:")])
def test_examples_of_the_documentation_are_complete(example: str) -> None:
    config = load(read_files([write("my.yaml", example)], ROOT), ROOT)
    plan = Plan(config, ROOT)
    (split,) = config["splits"]
    for benchmark in config["run"]["benchmarks"]:
        assert plan.evaluate_inputs(benchmark, split, "exact", f"{split}-seed0")["frames"]


def test_the_documentation_has_an_example_with_data_and_one_without() -> None:
    examples = [yaml.safe_load(text) for text in EXAMPLES]
    found = [dataset for example in examples for dataset in example.get("datasets", {}).values()]
    assert [("raw" in dataset, "simulate" in dataset) for dataset in found] == [(True, False), (False, True)]


def test_every_source_of_data_has_a_configuration_of_ten_lines() -> None:
    assert set(SOURCES) == {*FORMATS, "photographs"}
    assert all(len(text.splitlines()) <= 10 for text in SOURCES.values())


@pytest.mark.parametrize("source", SOURCES)
def test_ten_lines_are_a_configuration(source: str) -> None:
    config = load(read_files([write("my.yaml", SOURCES[source])], ROOT), ROOT)
    plan = Plan(config, ROOT)
    scene = config["splits"]["mine"]["test"]["mine"][0]
    benchmark, experiment = config["run"]["benchmarks"][0], config["run"]["experiments"][0]
    recipe = plan.frames_recipe("mine")
    assert recipe.settings.items() >= {"height": 96, "width": 128, "max_hole_fraction": 1.0}.items()
    assert benchmark_scenes(config, "mine", benchmark) == [("mine", scene)]
    trained = "train" in config["experiments"][experiment]
    assert trained == ("places" in provided_by(config["datasets"]["mine"]))
    assert plan.evaluate_inputs(benchmark, "mine", experiment, "mine-seed0" if trained else "deterministic")["frames"]
