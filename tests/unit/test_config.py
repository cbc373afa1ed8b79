"""Checks of the configuration: the shipped configurations pass, and every mistake is reported by its key."""

from __future__ import annotations

import re
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from loco.config import (
    ablation_rows,
    benchmark_scenes,
    benchmark_splits,
    figure_scene,
    load,
    published_names,
    scenes,
    training_split,
)
from loco.config_layers import read_files
from loco.errors import ConfigError
from loco.training.phases import phases_of
from tests.unit.configurations import demo, two_phase_demo

ROOT = Path(__file__).parents[2]
DEMO = two_phase_demo()


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the demo with one key, given as ``a.b.c``, set or (``...``) removed."""
    config = deepcopy(DEMO)
    *parents, key = path.split(".")
    place = config
    for parent in parents:
        place = place[int(parent) if isinstance(place, list) else parent]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return config


def problems(config: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(config, ROOT)
    return [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:]]


def test_demo_is_left_as_it_is() -> None:
    assert load(demo(), ROOT) == demo()


SAM2 = ["data/weights/sam2_hiera_tiny_encoder.with_runtime_opt.ort"]
VIT = ["data/weights/vit_small_14/config.json", "data/weights/vit_small_14/model.safetensors"]
OFFICE = {
    **{f"experiments.{name}.model.backbone.path": SAM2 for name in ("sam2", "sam2_pca", "sam2_exact")},
    **{f"experiments.{name}.model.backbone.path": VIT for name in ("vit", "vit_pca", "vit_exact")},
}
LOSSES = ("batch", "query", "sampled", "info_nce", "sup_con", "triplet")
LOSSES_OFFICE = {
    f"experiments.{name}.model.backbone.path": VIT for name in ("vit", *(f"head_{loss}" for loss in LOSSES))
}
# Files that users download before they run a shipped configuration.
FETCHED = {
    "office.yaml": OFFICE,
    "ablations_office.yaml": LOSSES_OFFICE,
    "houses_vit.yaml": {f"experiments.{name}.model.backbone.path": VIT for name in ("vit", "vit_exact")},
    "houses_sam2.yaml": {f"experiments.{name}.model.backbone.path": SAM2 for name in ("sam2", "sam2_exact")},
    "losses_office.yaml": LOSSES_OFFICE,
    "losses_office_sam2.yaml": {
        f"experiments.{name}.model.backbone.path": SAM2 for name in ("sam2", *(f"sam2_{loss}" for loss in LOSSES))
    },
    "published.yaml": {"datasets.matterport3d.labels.mapping": ["data/matterport3d/category_mapping.tsv"]},
}
SHIPPED = sorted(file.name for file in (ROOT / "config").glob("*.yaml") if file.name != "defaults.yaml")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_pass_once_what_they_name_is_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = read_files([ROOT / "config" / name], ROOT)
    fetched = FETCHED.get(name, {})
    if fetched:
        assert sorted(problem.partition(":")[0] for problem in problems(config)) == sorted(fetched)
    for file in (Path(file) for files in fetched.values() for file in files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    load(config, ROOT)


def test_scene_lists_are_read_from_files(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config/schemas", tmp_path / "config/schemas")
    shutil.copy(ROOT / "config/defaults.yaml", tmp_path / "config")
    (tmp_path / "test.txt").write_text("# held out\nhouse10\n\nhouse09  # the last\n")
    config = load(changed("splits.houses.test", {"houses": "test.txt"}), tmp_path)
    assert scenes(config, "houses", "test") == [("houses", "house10"), ("houses", "house09")]
    assert figure_scene(config) == ("houses", "houses", "house09")


ELSEWHERE = {"trained_on": "houses", "test": {"flats": ["a"]}}


def elsewhere(split: dict[str, Any] = ELSEWHERE, format: str = "scannet_pairs") -> dict[str, Any]:
    """Return the demo with a split ``elsewhere`` of another dataset, which is also evaluated."""
    config = changed("splits.elsewhere", split)
    flats = {key: value for key, value in DEMO["datasets"]["houses"].items() if key not in ("simulate", "labels")}
    config["datasets"]["flats"] = flats | {"format": format, "raw": "data/flats", "scenes": ["a", "b"]}
    config["run"]["splits"] = ["houses", "elsewhere"]
    return config


def test_a_split_may_be_evaluated_by_the_training_of_another() -> None:
    config = load(elsewhere(), ROOT)
    assert scenes(config, "elsewhere", "train", "val") == scenes(config, "houses", "train", "val")
    assert scenes(config, "elsewhere", "test") == [("flats", "a")]
    assert [training_split(config, split) for split in config["run"]["splits"]] == ["houses", "houses"]


def test_a_benchmark_is_measured_where_the_scenes_give_what_it_needs() -> None:
    config = load(elsewhere(), ROOT)
    houses = scenes(config, "houses", "test")
    assert benchmark_scenes(config, "houses", "location_consistency") == houses
    assert benchmark_scenes(config, "houses", "panoptic_segmentation") == houses  # the houses have a `labels` block
    assert benchmark_scenes(config, "houses", "homography") == []
    assert benchmark_scenes(config, "elsewhere", "location_consistency") == []  # pairs share no world frame
    assert benchmark_scenes(config, "elsewhere", "pixel_correspondence") == [("flats", "a")]
    assert benchmark_splits(config, ["houses", "elsewhere"], "location_consistency") == ["houses"]
    assert benchmark_splits(config, ["houses", "elsewhere"], "pixel_correspondence") == ["houses", "elsewhere"]
    config = load(elsewhere(format="colmap"), ROOT)
    assert benchmark_scenes(config, "elsewhere", "location_consistency") == [("flats", "a")]
    assert benchmark_scenes(config, "elsewhere", "pixel_correspondence") == []  # no depth
    assert benchmark_scenes(config, "elsewhere", "panoptic_segmentation") == []  # no labels


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ({"trained_on": "housse"}, "splits.elsewhere.trained_on: `housse` is not defined; did you mean `houses`?"),
        ({"trained_on": "elsewhere"}, "splits.elsewhere.trained_on: `elsewhere` is itself `trained_on` a split"),
        ({"train": {"flats": ["b"]}}, "splits.elsewhere has both `trained_on: houses` and"),
        (
            {"test": {"houses": ["house08"]}},
            "splits.elsewhere: `house08` of houses is in both val and test; remove it from one of them",
        ),
        (
            {"test": {"flats": ["house09"], "houses": ["house09"]}},
            "splits.elsewhere.test: `house09` is a scene of flats and houses, but tables identify scenes by",
        ),
    ],
)
def test_a_training_that_cannot_be_shared(split: dict[str, Any], expected: str) -> None:
    assert any(problem.startswith(expected) for problem in problems(elsewhere(ELSEWHERE | split)))


def test_an_empty_list_of_comparisons_makes_no_table() -> None:
    assert load(changed("run.comparisons", []), ROOT)["run"]["comparisons"] == []


def test_pictures_need_places() -> None:
    config = elsewhere()
    config["figures"]["scene"] = "a"
    assert problems(config) == ["figures.scene: the images of `a` have no 3D points; name another scene, or null"]
    config = elsewhere(format="colmap")
    config["figures"]["scene"] = "a"
    assert figure_scene(load(config, ROOT)) == ("elsewhere", "flats", "a")


def test_a_benchmark_that_no_split_can_be_evaluated_by() -> None:
    config = elsewhere()
    config["run"]["splits"], config["figures"]["scene"] = ["elsewhere"], None
    assert problems(config) == [
        "run.benchmarks: `location_consistency` requires test scenes that provide places; no split of the run has one"
    ]
    config["run"]["benchmarks"] = ["pixel_correspondence"]
    assert figure_scene(load(config, ROOT)) is None


def test_published_methods_are_named_as_their_files_have_them() -> None:
    load(changed("experiments.untrained.published", "DINO B/16, last block"), ROOT)
    assert problems(changed("experiments.untrained.published", "DINO B/16, last blok"))[0].startswith(
        "experiments.untrained.published: `DINO B/16, last blok` is not a method of config/published_results; did you"
    )


def test_published_numbers_are_those_of_a_dataset_alone() -> None:
    config = load(elsewhere(), ROOT)
    assert published_names(config, "houses", "pixel_correspondence") == []  # simulated
    assert published_names(config, "elsewhere", "pixel_correspondence") == ["scannet_pairs", "flats", "scannet_pairs/a"]
    config["splits"]["elsewhere"]["test"] = {"flats": ["a", "b"]}
    assert published_names(config, "elsewhere", "pixel_correspondence") == ["scannet_pairs", "flats"]
    config["splits"]["elsewhere"]["test"]["houses"] = ["house09"]
    assert published_names(config, "elsewhere", "pixel_correspondence") == []


def test_published_split_is_a_partition_but_for_two_scenes() -> None:
    folder = ROOT / "config/splits/matterport3d"
    lists = {name: (folder / f"{name}.txt").read_text().split() for name in ("all", "train", "val", "test")}
    assert {name: len(names) for name, names in lists.items()} == {"all": 90, "train": 59, "val": 11, "test": 18}
    parts = lists["train"] + lists["val"] + lists["test"]
    assert len(set(parts)) == len(parts)
    assert set(lists["all"]) - set(parts) == {"GdvgFV5R1Z5", "HxpKQynjfin"}
    assert set(parts) < set(lists["all"])


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("run.sedes", [0], "unknown key `sedes` in run; did you mean `seeds`?"),
        ("extra", 1, "unknown key `extra` in the top level; known: run, datasets, splits, experiments"),
        (
            "experiments.untrained.model.dimm",
            1,
            "`dimm` in experiments.untrained.model; did you mean `dim`?",
        ),
        (
            "experiments.exact.train.loss.anchors",
            1,
            "experiments.exact.train.loss with `name: exact`; `anchors` belongs to `name: sampled`",
        ),
        (
            "benchmarks.depth",
            {},
            "`depth` in benchmarks; known: location_consistency, pixel_correspondence",
        ),
        ("run.splits", ..., "run lacks the key `splits`"),
        ("run.seeds", [], "run.seeds is empty"),
        ("run.seeds", [0.5], "run.seeds.0: expected an integer, found 0.5"),
        ("datasets.houses.format", "mattterport3d", "'mattterport3d' is not known; did you mean `matterport3d`?"),
        ("datasets.houses.scenes", [800], "datasets.houses.scenes.0: expected text, found 800 (put it in quotes)"),
        ("datasets.houses.scenes", ["../x"], "datasets.houses.scenes.0: invalid name '../x': names consist"),
        ("datasets.houses.frames", None, "datasets.houses.frames: expected a map, found nothing"),
        (
            "experiments.exact.train.optimiser.lr",
            "2e-3",
            "found '2e-3' (YAML reads this as text: write 0.002, with a point",
        ),
        ("experiments.exact.train.optimiser.lr", 0, "exact.train.optimiser.lr: must be greater than 0, found 0"),
        ("run.experiments", ["exat"], "run.experiments: `exat` is not defined; did you mean `exact`?"),
        ("run.comparisons", [["exact", "untraind"]], "run.comparisons: `untraind` is not in run.experiments; did you"),
        (
            "run.comparisons",
            [["exact", "sampled"]],
            "run.comparisons: `sampled` is not in run.experiments; add it there",
        ),
        ("run.splits", ["flats"], "run.splits: `flats` is not defined; known: houses"),
        (
            "datasets.houses.raw",
            "data",
            "raw: a dataset with `simulate` is written to results/raw/houses, found 'data'; remove `raw`",
        ),
        (
            "datasets.houses.simulate.images",
            20,
            "simulate.images: has no effect in the format `matterport3d`, which takes `panoramas`; remove it",
        ),
        (
            "datasets.houses.simulate.panoramas",
            ...,
            "simulate lacks the key `panoramas`, which the format `matterport3d`",
        ),
        (
            "datasets.houses.format",
            "posed_rgbd",
            ".panoramas: has no effect in the format `posed_rgbd`, which takes `images`; write `images` instead",
        ),
        (
            "datasets.houses.patches.stride",
            200,
            "datasets.houses.patches.stride: expected at most the smaller side of the frames, 128 pixels, found 200",
        ),
        ("datasets.houses.scenes", "none.txt", "datasets.houses.scenes: there is no scene list none.txt (looked"),
        (
            "splits.houses.val",
            {"houses": ["hous08"]},
            "`hous08` is not a scene of datasets.houses; did you mean",
        ),
        ("splits.houses.val", {"flats": ["a"]}, "splits.houses.val: the dataset `flats` is not defined; known: houses"),
        (
            "splits.houses.val",
            {"houses": ["house00"]},
            "splits.houses: `house00` of houses is in both train and val; remove it from one of them",
        ),
        (
            "splits.houses.val",
            {"houses": ["house08"] * 2},
            "splits.houses.val: `house08` of houses is listed twice; remove one",
        ),
        ("splits.houses.test", {"houses": []}, "splits.houses has no test scene"),
        (
            "splits.houses.train",
            {},
            "splits.houses has no training scene, which experiments.exact requires",
        ),
        ("experiments.exact.train.loss.rho", 9.0, "experiments.exact.train.loss: rho (9.0 m) must be less than kappa"),
        ("experiments.exact.cache", True, "experiments.exact.cache: requires a `backbone`"),
        (
            "experiments.dense_sift_fine.pca",
            {},
            "experiments.dense_sift_fine.pca: requires a `backbone` that is not trained",
        ),
        ("experiments.exact.pca", {}, "experiments.exact.pca: `pca` and `train` both determine the weights"),
        ("experiments.exact.pca", {"whitened": True}, "`whitened` in experiments.exact.pca; did you mean `whiten`?"),
        (
            "experiments.exact.train.processes",
            17,
            "experiments.exact.train.processes: a batch of 16 images cannot be divided among 17 ranks",
        ),
        ("experiments.exact.train.nodes", 3, "experiments.exact.train.processes (1) must be a multiple of train.nodes"),
        (
            "experiments.exact.train.augment.scale",
            [1.5, 0.7],
            "train.augment.scale: expected [lowest, highest], found [1.5,",
        ),
        ("experiments.exact.train.augment.sizes", [[96, 130]], "[96, 130] are not multiples of the model's stride, 4"),
        ("experiments.exact.train.augment.crop", False, "augment.crop: has no effect without `scale` or `sizes`"),
        ("experiments.exact.train.augment.flip", 1.5, "exact.train.augment.flip: must be at most 1, found 1.5"),
        ("experiments.exact.train.augment.flips", 0.5, "did you mean `flip`?"),
        (
            "experiments.exact.train.batch.radius",
            0.2,
            "`scenes` in experiments.exact.train.batch; `scenes` cannot be combined with `radius`; remove one",
        ),
        ("experiments.exact.train.batch.scenes_by", "size", "`scenes_by` requires `radius`"),
        ("experiments.exact.train.precision", "bf16", "experiments.exact.train.precision: 'bf16' is not known"),
        (
            "experiments.exact.train.phases.0.loss.rho",
            9.0,
            "experiments.exact.train.phases.0.loss: rho (9.0 m) must be",
        ),
        (
            "experiments.exact.train.loss.rho",
            [0.2, 0.5],
            "loss: expected one kappa per rho, found 2 values of rho and 1 of kappa; write `kappa: [5.0, 5.0]`",
        ),
        ("experiments.exact.train.loss.rho", [0.2, 0.2], "experiments.exact.train.loss.rho: [0.2, 0.2] has non-unique"),
        ("experiments.exact.train.loss.rho", "0.2", "experiments.exact.train.loss.rho: expected a number or a list"),
        ("experiments.exact.train.loss.kappa", [5, -1], "train.loss.kappa.1: must be greater than 0, found -1"),
        ("experiments.sampled.train.loss.rho", [0.2], "experiments.sampled.train.loss.rho: expected a number"),
        (
            "experiments.dense_sift_fine.train",
            DEMO["experiments"]["exact"]["train"],
            "experiments.dense_sift_fine.train: this model (dense_sift) has no weights to train",
        ),
        (
            "benchmarks.pixel_correspondence.rotation_bins",
            [0, 30, 15],
            "rotation_bins: expected increasing edges, found [0, 30, 15]",
        ),
        (
            "benchmarks.homography.refine_window",
            3,
            "homography.refine_window: has no effect without `refine: soft_argmax`",
        ),
        ("benchmarks.relative_pose.weights", "cosine", "benchmarks.relative_pose.weights: 'cosine'"),
        ("experiments.exact.train.steps", 630, "train.steps (630) is not the sum of the steps of its phases (700)"),
        (
            "experiments.exact.train.optimiser.warmup_steps",
            200,
            "train.optimiser.warmup_steps (200) must be less than train.phases.1.steps (200)",
        ),
        ("figures.scene", "house00", "figures.scene: `house00` is not a test scene of run.splits"),
    ],
)
def test_one_mistake_gives_one_plain_sentence(path: str, value: Any, expected: str) -> None:
    found = [problem for problem in problems(changed(path, value)) if expected in problem]
    assert len(found) == 1


def test_features_of_random_weights_are_not_stored() -> None:
    config = changed("experiments.exact.model", on({**VIT, "pretrained": False}, head={"name": "linear", "dim": 3}))
    config["experiments"]["exact"]["cache"] = True
    assert [p for p in problems(config) if "experiments.exact.cache: the features of random weights depend" in p]
    assert [p for p in problems(config) if "experiments.exact.cache: stored features do not depend on the augm" in p]


def test_a_class_token_is_not_stored() -> None:
    model = on(VIT, head={"name": "locus", "class_token": True})
    config = changed("experiments.exact.model", model)
    config["experiments"]["exact"]["cache"] = True
    assert [p for p in problems(config) if "experiments.exact.cache: the class token is not stored" in p]


def test_a_fitted_model_needs_scenes_to_fit_it_to() -> None:
    config = changed("experiments.exact.model", on(VIT, head={"name": "linear", "dim": 8}))
    config["experiments"]["exact"]["pca"] = config["experiments"]["exact"].pop("train") and {}
    config["run"]["experiments"], config["splits"]["houses"]["train"] = ["exact"], {}
    assert problems(config) == ["splits.houses has no training scene, which experiments.exact requires"]


VIT = {"name": "transformers", "path": "dino_vitb8"}
ONNX = {"name": "onnx", "path": "net.onnx", "native_stride": 16}


def on(backbone: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"name": "backbone", "backbone": backbone, "stride": 8, **settings}


@pytest.mark.parametrize(
    "model",
    [
        on({**VIT, "layer": 9, "facet": "key", "norm": False, "pretrained": True}, head={"name": "locus", "dim": 64}),
        on(
            {"name": "croco", "path": "a.pth", "layer": 3, "norm": True},
            head={"name": "residual_cnn", "aligned": False},
        ),
        on(
            {**ONNX, "size": [1024, 1024], "mean": [0, 0, 0], "output": "x"}, head={"name": "residual_mlp", "hidden": 9}
        ),
        on(VIT, train={"lora": {"rank": 8, "last": 3, "rslora": True, "alpha": 8}}, head=None),
        on(VIT, train={"last": 3}),
        on(VIT, train="all"),
        {"name": "concat", "models": [on(VIT), on(VIT, train="all")], "stride": 8},
        on(VIT, train="all", upsample={"name": "bilinear", "stride": 4}),
        {"name": "compact_cnn", "dim": 8, "upsample": {"name": "joint_bilateral", "stride": 3, "sigma_space": 0.7}},
        {
            "name": "concat",
            "models": [
                {"name": "compact_cnn", "dim": 8},
                on(VIT, upsample={"name": "joint_bilateral", "stride": 4, "sigma_colour": 0.2}),
            ],
            "stride": 4,
            "upsample": {"name": "bilinear", "stride": 1},
        },
    ],
)
def test_models_on_backbones_are_described(
    model: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("a.pth", "net.onnx"):
        Path(file).touch()
    config = changed("experiments.exact.model", model)
    assert load(config, ROOT)["experiments"]["exact"]["model"] == model


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"name": "backbone", "backbone": VIT}, "model lacks the key `stride`"),
        (on({"name": "transformers"}, train="all"), "model.backbone lacks the key `path`"),
        (on({**VIT, "layers": 3}, train="all"), "`layers` in experiments.exact.model.backbone; did you mean `layer`?"),
        (on({**VIT, "name": "mmseg"}, train="all"), "model.backbone.name: 'mmseg' is not known"),
        (
            on({**VIT, "facet": "values"}, train="all"),
            "model.backbone.facet: 'values' is not known; did you mean `value`",
        ),
        (on(VIT, train="last"), "model.train: 'last' is not known"),
        (on(VIT, train={"lora": {"last": 2}}), "model.train.lora lacks the key `rank`"),
        (on(VIT, head={"name": "residual_mlp"}), "model.head lacks the key `hidden`"),
        (
            on(VIT, head={"name": "locus", "hidden": 3}),
            "`hidden` in experiments.exact.model.head with `name: locus`; `hidden` belongs to `name: residual_mlp`",
        ),
        (
            on({**VIT, "native_stride": 3}),
            "experiments.exact.model.backbone with `name: transformers`; `native_stride` belongs to `name: onnx`",
        ),
        (
            {"name": "compact_cnn", "dim": 8, "head": {"name": "locus"}},
            "`head` in experiments.exact.model with `name: compact_cnn`; `head` belongs to `name: backbone`",
        ),
        (on(VIT), "remove `train`, or add a head (`model.head`), or train the backbone (`model.train`)"),
        (
            on(ONNX),
            "train: this model (backbone) has no weights to train; remove `train`, or add a head (`model.head`)",
        ),
        (on(ONNX, train="all"), "model.train: a backbone of the kind `onnx` cannot be trained"),
        (
            {"name": "concat", "models": [on(VIT, train="all"), {"name": "compact_cnn", "dim": 8}], "stride": 8},
            "model.models.1: expected the stride of `concat`, 8, found 4",
        ),
        ({"name": "concat", "models": [on(VIT)], "stride": 8}, "train: this model (concat) has no weights to train"),
        (
            on(VIT, train="all", upsample={"name": "bilinear", "stride": 8}),
            "model.upsample.stride: expected less than the stride of the model, 8, found 8",
        ),
        (
            {"name": "compact_cnn", "dim": 8, "upsample": {"name": "bilinear", "stride": 6}},
            "model.upsample.stride: expected less than the stride of the model, 4, found 6",
        ),
        (
            on(VIT, train="all", upsample={"name": "nearest", "stride": 4}),
            "model.upsample.name: 'nearest' is not known",
        ),
        (on(VIT, train="all", upsample={"name": "bilinear"}), "model.upsample lacks the key `stride`"),
        (
            on(VIT, train="all", upsample={"name": "bilinear", "stride": 4, "sigma_space": 1}),
            "unknown key `sigma_space` in experiments.exact.model.upsample",
        ),
        (
            {"name": "features", "path": "f", "stride": 8, "upsample": {"name": "bilinear", "stride": 4}},
            "unknown key `upsample` in experiments.exact.model",
        ),
    ],
)
def test_mistakes_in_models_are_named(model: dict[str, Any], expected: str) -> None:
    assert len([p for p in problems(changed("experiments.exact.model", model)) if expected in p]) == 1


def test_the_exact_loss_takes_several_scales() -> None:
    config = changed("experiments.exact.train.loss.rho", [0.2, 0.6])
    config["experiments"]["exact"]["train"]["loss"]["kappa"] = [5, 5.0]
    assert load(config, ROOT) == config


EXACT = {"name": "exact", "rho": 0.2, "kappa": 5.0, "tau": 0.05}
OPTIMISER = {"lr": 1e-3, "weight_decay": 0.0, "warmup_steps": 0, "clip": None}


def trained_by(train: dict[str, Any], model: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the demo whose experiment `exact` is trained with these phases, or with the keys of a single one."""
    config = deepcopy(DEMO)
    old = config["experiments"]["exact"]["train"]
    shared = {key: old[key] for key in ("batch", "validate_every", "save_every")}
    config["experiments"]["exact"] |= {"train": {**shared, **train}} | ({"model": model} if model else {})
    return config


def test_a_training_is_one_phase_or_a_list_of_them() -> None:
    loss = DEMO["experiments"]["exact"]["train"]["loss"]
    single = {"loss": loss, "steps": 100, "optimiser": OPTIMISER}
    several = {"phases": [{**single, "loss": {**loss, "tau": {"from": 0.1, "to": 0.02, "schedule": "cosine"}}}, single]}
    cycle = {**OPTIMISER, "schedule": "one_cycle", "warmup_steps": 30, "lr_factors": {"backbone": 0.5}}
    for train in (
        single,
        {**single, "phases": None},
        several,
        {**several, "steps": 200},
        {**single, "optimiser": cycle},
    ):
        load(trained_by(train), ROOT)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loss": ...}, "train lacks the key `loss`"),
        ({"steps": ...}, "train lacks the key `steps`"),
        ({"steps": ..., "phases": []}, "train.phases is empty"),
        ({"steps": ..., "loss": ..., "phases": [{"steps": 9}]}, "train.phases.0 lacks the key `loss`"),
        ({"steps": ..., "phases": [{"optimiser": {}}]}, "train.phases.0 lacks the key `steps`"),
        (
            {"phases": [{"steps": 60}, {"steps": 41}]},
            "train.steps (100) is not the sum of the steps of its phases (101)",
        ),
        (
            {"phases": [{"steps": 60, "optimiser": {"schedule": "one_cycle"}}, {"steps": 40}]},
            "train.optimiser.warmup_steps (0) must be at least 1",
        ),
        (
            {"phases": [{"steps": 60}, {"steps": 40, "optimiser": {"warmup_steps": 40}}]},
            "train.phases.1.optimiser.warmup_steps (40) must be less than train.phases.1.steps (40)",
        ),
        ({"optimiser": {**OPTIMISER, "lr_factors": {"lora": 2.0}}}, "the part `lora` is not trained"),
        ({"optimiser": {**OPTIMISER, "lr_factors": {"body": 2.0}}}, "unknown key `body`"),
        ({"optimiser": {**OPTIMISER, "schedule": "cosin"}}, "'cosin' is not known; did you mean `cosine`"),
        ({"optimiser": {**OPTIMISER, "layer_decay": 1.5}}, "optimiser.layer_decay: must be at most 1, found 1.5"),
        (
            {"loss": {**EXACT, "queries": 9}},
            "train.loss.queries: the loss `exact` draws queries only with `ranking: query`",
        ),
        (
            {"loss": {"name": "sup_con", "rho": 0.1, "kappa": 5.0, "tau": 0.1, "queries": None, "positives": 3}},
            "train.loss: `queries: null` takes all pairs",
        ),
        ({"loss": {**EXACT, "ranking": "query", "queries": 0}}, "train.loss.queries: must be at least 1, found 0"),
        (
            {"loss": {**EXACT, "ranking": "query", "exchange": "ring"}},
            "train.loss.exchange: `ring` is implemented for `ranking: batch` only",
        ),
    ],
)
def test_mistakes_in_phases_are_named_once(changes: dict[str, Any], expected: str) -> None:
    single = {"loss": DEMO["experiments"]["exact"]["train"]["loss"], "steps": 100, "optimiser": OPTIMISER}
    train = {key: value for key, value in {**single, **changes}.items() if value is not ...}
    assert [expected in problem for problem in problems(trained_by(train))].count(True) == 1


@pytest.mark.parametrize(
    ("train", "head", "parts"),
    [("all", None, ["backbone"]), ({"lora": {"rank": 1, "last": 1}}, {"name": "linear", "dim": 8}, ["head", "lora"])],
)
def test_factors_of_the_parts_of_a_backbone(train: Any, head: Any, parts: list[str]) -> None:
    loss = DEMO["experiments"]["exact"]["train"]["loss"]
    for part in ("backbone", "lora", "head"):
        single = {"loss": loss, "steps": 100, "optimiser": {**OPTIMISER, "lr_factors": {part: 0.1}}}
        config = trained_by(single, on(VIT, train=train, head=head))
        if part in parts:
            load(config, ROOT)
        else:
            (problem,) = problems(config)
            assert f"train.optimiser.lr_factors: the part `{part}` is not trained; known: " in problem


def test_the_former_warmup_is_named_with_the_phases_to_write() -> None:
    nce = {"name": "info_nce", "rho": 0.1, "kappa": 5.0, "tau": 0.07, "queries": 9}
    loss = DEMO["experiments"]["exact"]["train"]["loss"]
    former = {"warmup": {"loss": nce, "steps": 30}, "loss": loss, "steps": 100, "optimiser": OPTIMISER}
    (problem,) = problems(trained_by(former))
    assert problem.startswith("experiments.exact.train.warmup: is now a list of phases")
    phases = yaml.safe_load(re.findall(r"`(phases: .*?)`", problem)[0])
    assert phases == {"phases": [{"loss": nce, "steps": 30}, {"steps": 70}]}
    load(trained_by({**phases, "loss": loss, "optimiser": OPTIMISER}), ROOT)
    variant = {"name": "nce", "train": {"warmup": None, "loss": nce}}
    (problem,) = problems(changed("ablations", {"a": {**ABLATION, "variants": [{"name": "x"}, variant]}}))
    assert problem.startswith("ablations.a.variants.1.train.warmup: is now a list of phases")
    assert "`phases: null`" in problem
    for broken in (7, {"steps": "x"}):
        assert "phases: [{loss: ..., steps: ...}" in problems(trained_by({**former, "warmup": broken}))[0]


def test_variants_change_the_loss_of_the_phases_that_have_none() -> None:
    variants = [{"name": "x"}, {"name": "y", "train": {"loss": {"kappa": 2.0}, "optimiser": {"clip": 2.0}}}]
    config = load(changed("ablations", {"a": {**ABLATION, "variants": variants}}), ROOT)
    base, changed_phases = (phases_of(config["experiments"][name]["train"]) for name in ("exact", "a.y"))
    assert [phase.loss["kappa"] for phase in changed_phases] == [5.0, 2.0]
    assert changed_phases[0].loss == base[0].loss
    assert [phase.optimiser for phase in changed_phases] == [{**phase.optimiser, "clip": 2.0} for phase in base]


ABLATION = {
    "title": "loss",
    "experiment": "exact",
    "split": "houses",
    "seeds": [0],
    "variants": [
        {"name": "2", "train": {"loss": {"kappa": 2.0}}},
        {
            "name": "nce",
            "train": {
                "phases": None,
                "steps": 90,
                "loss": {"name": "info_nce", "rho": 0.1, "kappa": 5, "tau": 1, "queries": 9},
            },
        },
    ],
}


def test_variants_of_an_ablation_are_experiments() -> None:
    config = load(changed("ablations", {"a": ABLATION}), ROOT)
    base, two, nce = (config["experiments"][name] for name in ("exact", "a.2", "a.nce"))
    assert two["train"] == {**base["train"], "loss": {**base["train"]["loss"], "kappa": 2.0}}
    assert nce["train"]["loss"] == ABLATION["variants"][1]["train"]["loss"]
    assert "phases" not in nce["train"]
    assert nce["train"]["batch"] == base["train"]["batch"]
    assert (two["title"], two["model"]) == ("2", base["model"])


def test_a_variant_that_changes_nothing_is_the_experiment() -> None:
    variants = [{"name": "5"}, {"name": "2", "train": {"loss": {"kappa": 2.0}}}, {"name": "half", "split": "half"}]
    config = with_splits(ABLATION | {"variants": variants}, half=["house00"])
    added = config["experiments"].keys() - load(changed("run.seeds", [0]), ROOT)["experiments"].keys()
    assert added == {"a.2"}  # a variant that differs in the split only is not another experiment


def with_splits(ablation: dict[str, Any], test: str = "house09", **train: list[str]) -> dict[str, Any]:
    """Return the demo with an ablation `a`, and splits that train on these houses and test on one."""
    config = changed("ablations", {"a": ablation})
    config["splits"]["houses"]["test"] = {"houses": ["house09"]}
    config["splits"] |= {name: {"train": {"houses": on}, "test": {"houses": [test]}} for name, on in train.items()}
    return load(config, ROOT)


def test_variants_that_are_evaluated_on_the_same_scenes_stand_together() -> None:
    variants = [{"name": "1", "split": "one"}, {"name": "2", "split": "two", "train": {"accumulate": 2}}, {"name": "8"}]
    ablation = ABLATION | {"variants": variants}
    rows = ablation_rows(with_splits(ablation, one=["house00"], two=["house00", "house01"]), "a")
    assert rows == {
        ("one", "exact"): ("houses", "1"),
        ("two", "a.2"): ("houses", "2"),
        ("houses", "exact"): ("houses", "8"),
    }
    assert list(rows.values()) == [("houses", name) for name in "128"]
    elsewhere = ablation_rows(with_splits(ablation, test="house10", one=["house00"], two=["house01"]), "a")
    assert list(elsewhere.values()) == [("one", "1"), ("one", "2"), ("houses", "8")]


def test_what_is_kept_by_validation_needs_some() -> None:
    config = changed("experiments.exact.train.keep", "best")
    assert load(config, ROOT)
    config["splits"]["unseen"] = {part: config["splits"]["houses"][part] for part in ("train", "test")}
    expected = ["splits.unseen has no validation scene, which experiments.exact.train requires (`keep`, `early_stop`)"]
    assert problems(config | {"run": config["run"] | {"splits": ["houses", "unseen"]}}) == expected
    variants = [{"name": "x"}, {"name": "y", "split": "unseen"}]
    assert problems(config | {"ablations": {"a": ABLATION | {"variants": variants}}}) == expected
    config = changed("experiments.exact.train.keep", "best")
    config["experiments"]["exact"]["train"]["validate_every"] = 1000
    (problem,) = problems(config)
    assert "train.validate_every (1000) exceeds the number of training steps (700)" in problem


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"experiment": "exat"}, "ablations.a.experiment: `exat` is not defined; did you mean `exact`?"),
        ({"split": "flats"}, "ablations.a.split: `flats` is not defined; known: houses"),
        ({"variants": [{"name": "x"}]}, "ablations.a.variants: expected 2 or more, found 1"),
        ({"variants": [{"name": "x"}, {"name": "x"}]}, "ablations.a.variants: two variants are named `x`; rename one"),
        (
            {"variants": [{"name": "x"}, {"name": "y"}]},
            "ablations.a.variants: more than one variant has no changes on `houses`",
        ),
        (
            {"variants": [{"name": "x"}, {"name": "y", "train": {"loss": {"kapa": 1}}}]},
            "unknown key `kapa` in experiments.a.y.train.loss; did you mean `kappa`?",
        ),
        (
            {"variants": [{"name": "x"}, {"name": "y", "train": {"loss": {"kappa": 0.1}}}]},
            "experiments.a.y.train.loss: rho (0.2 m) must be less than kappa (0.1 m)",
        ),
    ],
)
def test_mistakes_in_ablations_are_named(change: dict[str, Any], expected: str) -> None:
    assert expected in problems(changed("ablations", {"a": ABLATION | change}))[0]


def test_rows_of_a_table_have_titles_of_their_own() -> None:
    config = changed("experiments.untrained.title", "dense SIFT,  4 px ")
    assert problems(config) == [
        "run.experiments: `untrained` and `dense_sift_fine` have the same title, 'dense SIFT, 4 px'; change one `title`"
    ]
    config["run"]["experiments"].remove("untrained")
    load(config, ROOT)


def test_a_misspelt_experiment_is_not_suggested_for_its_comparison() -> None:
    config = changed("run.experiments", ["exat", "untrained"])
    config["run"]["comparisons"] = [["exact", "untrained"], ["untraned", "exat"]]
    assert problems(config) == [
        "run.experiments: `exat` is not defined; did you mean `exact`?",
        "run.comparisons: `exact` is not in run.experiments; add it there",
        "run.comparisons: `untraned` is not in run.experiments; did you mean `untrained`?",
    ]


NCE = {"name": "info_nce", "rho": 0.1, "kappa": 5.0, "tau": 0.07, "queries": 9}


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (
            NCE | {"same_image": 1},
            " with `name: info_nce`; `same_image` belongs to `name: exact`, `dense` or `sampled`",
        ),
        (NCE | {"margin": 1}, " with `name: info_nce`; `margin` belongs to `name: triplet`"),
        (NCE | {"querys": 1}, "; did you mean `queries`?"),
    ],
)
def test_a_key_of_another_loss_is_named_with_it(loss: dict[str, Any], expected: str) -> None:
    unknown = (loss.keys() - NCE.keys()).pop()
    assert problems(trained_by({"steps": 9, "loss": loss})) == [
        f"unknown key `{unknown}` in experiments.exact.train.loss{expected}"
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("run.splits", "run lacks the key `splits`: Names of `splits`"),
        (
            "datasets.houses.simulate.seed",
            "the key `seed`: Random seed; together with the scene's name it determines the",
        ),
        ("datasets.houses.labels.mapping", "the key `mapping`: Table of raw labels (`raw_category`) and their mpcat40"),
        # behind a reference
        (
            "experiments.exact.train.phases.0.loss.queries",
            "the key `queries`: Largest number of query patches per batch; `null` for all, in memory linear in",
        ),
        # `eq. 2` ends no sentence
        ("experiments.exact.train.loss.name", "the key `name`: `exact`: smooth average precision over all pairs of"),
        # described for each kind of descriptor
        (
            "benchmarks.place_recognition.descriptors.0.samples",
            "lacks the key `samples`: Number of patches of the database from which the vocabulary is learnt",
        ),
    ],
)
def test_a_missing_key_is_described(path: str, expected: str) -> None:
    (problem,) = problems(changed(path, ...))
    assert expected in problem
    assert not problem.endswith(".")


def test_links_of_the_documentation_are_no_part_of_a_message() -> None:
    (problem,) = problems(changed("experiments.exact.model", ...))
    assert problem == "experiments.exact lacks the key `model`: The feature extractor"


def test_all_mistakes_are_listed_at_once() -> None:
    config = changed("run.sedes", [0])
    config["figures"]["views"] = 1
    del config["datasets"]["houses"]["scenes"]
    assert len(problems(config)) == 3


def test_every_key_is_described() -> None:
    """``config/README.md`` names each key of the demo."""
    text = (ROOT / "config/README.md").read_text()
    named = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`\n]+)`", text))))
    free = {"datasets", "splits", "experiments"}  # their keys are names that the user chooses

    def keys(config: Any, parent: str = "") -> set[str]:
        if not isinstance(config, dict):
            return set()
        own = set() if parent in free else set(config)
        return own.union(*(keys(value, key) for key, value in config.items()))

    assert keys({k: v for k, v in DEMO.items() if k != "splits"}) <= named


@pytest.mark.parametrize("path", ["data/{x}", "data}", "data/\x1b[2J"])
def test_paths_that_snakemake_would_not_take_as_they_are_are_named(path):
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    first = next(iter(config["datasets"]))
    config["datasets"]["own"] = {**config["datasets"][first], "raw": path}
    del config["datasets"]["own"]["simulate"]
    with pytest.raises(ConfigError, match=r"datasets\.own\.raw: .* contains braces or control characters") as caught:
        load(config, ROOT)
    assert all(character.isprintable() or character == "\n" for character in str(caught.value))
