"""Configurations through Snakemake: an invalid configuration is refused in one sentence that states the key."""

from __future__ import annotations

import shutil

import pytest

from tests.workflow.conftest import World

ASH = "{train: {tiny: [ash]}, val: {tiny: [birch]}, test: {again: [ash]}}"
AGAIN = (
    "{format: matterport3d, raw: results/raw/tiny, scenes: [ash, birch, cedar], check: {decode: all}, "
    "frames: {height: 48, width: 64, images: all, max_hole_fraction: 0.9}, "
    "patches: {stride: 4, overlap_tolerance: 0.05}}"
)
# What is wrong -> the configuration as a user writes it, and what Snakemake must print.
REFUSED: dict[str, tuple[str, list[str]]] = {
    "a scene that is none": (
        "splits: {tiny: {test: {tiny: [ceder]}}}",
        ["`ceder` is not a scene of datasets.tiny; did you mean `cedar`?"],
    ),
    "no test scene": ("splits: {tiny: {test: {tiny: []}}}", ["splits.tiny has no test scene"]),
    "a misspelt key": (
        "experiments: {quick: {train: {stepps: 3}}}",
        ["`stepps` in experiments.quick.train; did you mean `steps`?"],
    ),
    "a key twice": (
        "experiments:\n  mine: {title: a, model: {name: compact_cnn, dim: 8}}\n"
        "  mine: {title: b, model: {name: compact_cnn, dim: 16}}\nrun: {experiments: [mine]}",
        ["mine", "twice"],
    ),
    "a key twice, deep inside": (
        "experiments: {quick: {train: {optimiser: {lr: 0.1, clip: 1.0, lr: 0.2}}}}",
        ["experiments.quick.train.optimiser.lr", "twice"],
    ),
    "not a number": ("experiments: {quick: {train: {optimiser: {lr: .nan}}}}", ["train.optimiser.lr", ".nan"]),
    "an infinite rate": (
        "experiments: {quick: {train: {optimiser: {lr: .inf}}}}",
        ["optimiser.lr", "write a large number"],
    ),
    "a seed as text": ("run: {seeds: ['0']}", ["run.seeds", "write 0, without quotes"]),
    "a fraction of a seed": ("run: {seeds: [0.5]}", ["run.seeds", "integer"]),
    "a seed beyond all numbers": ("run: {seeds: [100000000000000000000000000000]}", ["run.seeds"]),
    "the same raw scene under two names": (
        f"datasets: {{again: {AGAIN}}}\nsplits: {{leak: {ASH}}}\nrun: {{splits: [leak]}}\nfigures: {{scene: null}}",
        ["splits.leak", "again", "ash"],
    ),
    "not a table of labels": (
        "run: {benchmarks: [panoptic_segmentation]}\ndatasets: {tiny: {labels: {mapping: config/labels/nope.tsv}}}",
        ["datasets.tiny.labels.mapping", "config/labels/nope.tsv"],
    ),
    "a scene outside": (
        "datasets: {tiny: {scenes: ['..']}}\n"
        "splits: {tiny: {train: {tiny: []}, val: {tiny: []}, test: {tiny: ['..']}}}",
        ["'..'"],
    ),
    "a line break in a name": ('splits: {tiny: {test: {tiny: ["cedar\\n"]}}}', ["cedar\\n"]),
}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return a world before its first run, which is only planned."""
    return World.new(tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_is_named_in_a_sentence(empty, tmp_path, mistake):
    text, words = REFUSED[mistake]
    world = empty.view(tmp_path)
    path = tmp_path / "overlay.yaml"
    path.write_text(text)
    world.configs.append(path)
    said = world.refuse("--dry-run", "all")
    for word in words:
        assert word in said
    assert len(said.splitlines()) < 30


def test_a_list_of_scenes_is_checked_as_names_are(empty, tmp_path):
    world = empty.view(tmp_path)
    (tmp_path / "scenes.txt").write_text("cedar\n../../../elsewhere\n")
    world.overlay({"datasets": {"tiny": {"scenes": str(tmp_path / "scenes.txt")}}})
    said = world.refuse("--dry-run", "all")
    assert "scenes.txt" in said
    assert "../../../elsewhere" in said


def test_whole_floats_are_the_integers_that_they_stand_for(view):
    """3.0 equals 3 everywhere: in settings, which determine what runs again, and in names of files."""
    batch = {"images_per_scene": 3.0, "patches_per_image": 64.0}
    view.overlay({"run": {"seeds": [0.0]}, "experiments": {"quick": {"train": {"steps": 3.0, "batch": batch}}}})
    assert not view.plan("all")


def test_no_limit_may_be_written_as_infinity(empty, tmp_path):
    world = empty.view(tmp_path)
    world.overlay({"experiments": {"quick": {"train": {"loss": {"kappa": float("inf")}}}}})
    assert ".inf" in world.configs[-1].read_text()
    assert world.plan("results/train/tiny/quick/seed0/model.safetensors")["train"] == 1


def test_a_new_seed_written_as_a_float_is_run(view):
    view.overlay({"run": {"seeds": [1.0]}})
    plan = view.plan("results/tables/location_consistency.csv")
    assert (plan["train"], plan["evaluate"]) == (1, 2)


def test_a_table_of_labels_may_be_in_the_working_directory(world):
    mapping = world.directory / "data/labels.tsv"
    mapping.parent.mkdir()
    shutil.copy(world.workflow / "config/labels/simulated.tsv", mapping)
    world.overlay({"datasets": {"tiny": {"labels": {"mapping": "data/labels.tsv"}}}})
    assert world.plan("results/labels/tiny/cedar.h5") == {"check_labels": 1, "label": 1}


@pytest.mark.parametrize(("alias", "rule"), [("checks", "check_all"), ("checks_table", "check_table")])
def test_old_names_of_targets_work(empty, alias, rule):
    plan = empty.plan(alias)
    assert plan[rule] == 1
    assert plan["check_scene"] == 3
