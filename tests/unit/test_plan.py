"""The plan of a run, from a configuration only: nothing is run, and no file needs to exist."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from loco import paths
from loco.config import load, read_files
from loco.config_layers import with_defaults
from loco.errors import ConfigError
from loco.plan import Plan
from loco.summary import Summary

ROOT = Path(__file__).parents[2]
SIFT = {"title": "SIFT", "model": {"name": "dense_sift", "stride": 4, "keypoint_size": 4}}


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Plan the tiny run with changes."""
    monkeypatch.chdir(tmp_path)
    base = with_defaults(read_files([ROOT / "tests/workflow/tiny.yaml"], ROOT), ROOT)

    def plan(replaced_batch: bool = False, **changes) -> Plan:
        config = copy.deepcopy(base)
        if replaced_batch:  # `changes` contains another kind of batch, which shares no keys with this one
            del config["experiments"]["quick"]["train"]["batch"]
        update_config(config, copy.deepcopy(changes))
        return Plan(load(config, ROOT), ROOT)

    return plan


def frames_settings(**changes):
    return {"datasets": {"tiny": {"frames": changes}}}


def test_a_scene_goes_from_raw_files_to_scores(make):
    plan = make()
    frames = "results/frames/tiny/cedar.h5"
    correspondences = "results/correspondences/tiny/stride4/cedar.h5"
    features = "results/features/quick/tiny-seed0/tiny/cedar.h5"
    assert plan.raw_files("tiny", "cedar") == ["results/raw/tiny/cedar"]
    assert plan.frames_inputs("tiny", "cedar") == {"manifest": "results/manifests/tiny/cedar.json", "mesh": []}
    assert plan.extract_inputs("quick", "tiny-seed0", "tiny", "cedar") == {
        "frames": frames,
        "checkpoint": "results/train/tiny/quick/seed0/model.safetensors",
        "weights": [],
        "encoded": [],
    }
    assert plan.evaluate_inputs("location_consistency", "tiny", "quick", "tiny-seed0") == {
        "frames": [frames],
        "correspondences": [correspondences],
        "features": [features],
        "labels": [],
        "training": [],
    }
    assert plan.train_inputs("tiny", "quick")["train_frames"] == ["results/frames/tiny/ash.h5"]


def test_every_file_of_a_run_has_a_recipe_by_its_path(make):
    plan = make()
    files = [plan.metric_file(benchmark, "tiny", "quick", 0) for benchmark in plan.run["benchmarks"]]
    waiting, seen = list(files), set()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            assert plan.recipe_of(path) is not None, path
            waiting += inputs_of(plan, path)
    assert {path.split("/")[1] for path in seen} == {
        *("metrics", "features", "frames", "correspondences", "train", "manifests", "raw"),
    }
    assert plan.recipe_of("results/frames/other/cedar.h5") is None
    assert plan.recipe_of("results/frames/tiny/oak.h5") is None
    assert plan.recipe_of("results/tables/checks.csv") is None


def test_a_benchmark_per_scene_is_evaluated_for_each_scene_once(make):
    """Two splits that share a test scene share its items; every file has the recipe that the next step expects."""
    labels = {"labels": {"mapping": "config/labels/simulated.tsv"}}
    splits = {"more": {"trained_on": "tiny", "test": {"tiny": ["cedar", "birch"]}}}
    plan = make(
        run={"benchmarks": ["panoptic_segmentation"], "splits": ["tiny", "more"]},
        datasets={"tiny": labels},
        splits={"tiny": {"val": {"tiny": []}}, **splits},
    )
    names = {"benchmark": "panoptic_segmentation", "experiment": "quick", "checkpoint": "tiny-seed0"}
    merged = {split: plan.merge_items_inputs(split=split, **names) for split in ("tiny", "more")}
    items = "results/items/panoptic_segmentation/quick/tiny-seed0/tiny/{}.json"
    assert merged == {"tiny": [items.format("cedar")], "more": [items.format("cedar"), items.format("birch")]}
    assert plan.evaluate_scene_inputs(**names, dataset="tiny", scene="birch") == {
        "frames": "results/frames/tiny/birch.h5",
        "correspondences": [],
        "features": "results/features/quick/tiny-seed0/tiny/birch.h5",
        "labels": "results/labels/tiny/birch.h5",
    }
    recipe = plan.recipe_of(plan.metric_file("panoptic_segmentation", "more", "quick", 0))
    assert recipe.step == "merge_items"
    assert recipe.inputs == {"evaluate_scene/tiny": plan.recipe_of(items.format("birch"))}
    assert recipe.settings["scenes"] == [["tiny", "cedar"], ["tiny", "birch"]]


def inputs_of(plan: Plan, path: str) -> list[str]:
    """Return the files from which a file is made, by the methods of the plan."""
    for pattern, ask in {
        paths.METRICS: plan.evaluate_inputs,
        paths.FEATURES: plan.extract_inputs,
        paths.FRAMES: plan.frames_inputs,
        paths.CORRESPONDENCES: lambda dataset, scene, stride: {"frames": [f"results/frames/{dataset}/{scene}.h5"]},
        paths.MANIFEST: lambda dataset, scene: {"raw": plan.raw_files(dataset, scene)},
        paths.MODEL: lambda split, experiment, run: plan.train_inputs(split, experiment),
    }.items():
        fields = paths.fields_of(pattern, path)
        if fields:
            found = ask(**fields).values()
            return [file for files in found for file in ([files] if isinstance(files, str) else files)]
    return []


CHANGES = {  # a change -> the steps whose recipes it changes, among those of the tiny run
    "simulated scenes": ({"datasets": {"tiny": {"simulate": {"seed": 2}}}}, {"simulate", "check", "frames", "points"}),
    "check": ({"datasets": {"tiny": {"check": {"decode": "sample"}}}}, {"check", "frames", "points"}),
    "frames": (frames_settings(max_hole_fraction=0.8), {"frames", "points"}),
    "overlap": ({"datasets": {"tiny": {"patches": {"overlap_tolerance": 0.06}}}}, {"points"}),
    "training": ({"experiments": {"quick": {"train": {"steps": 4}}}}, set()),
    "benchmark": ({"benchmarks": {"location_consistency": {"queries_per_scene": 21}}}, None),
    "title": ({"experiments": {"quick": {"title": "other"}}}, None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_reaches_what_stands_below_it_and_nothing_else(make, name):
    changes, scene_steps = CHANGES[name]
    before, after = make(), make(**changes)
    recipes = {
        "simulate": lambda plan: plan.simulate_recipe("tiny"),
        "check": lambda plan: plan.check_scene_recipe("tiny"),
        "frames": lambda plan: plan.frames_recipe("tiny"),
        "points": lambda plan: plan.correspondence_recipe("tiny", 4),
        "model": lambda plan: plan.train_recipe("tiny", "quick", "seed0"),
        "trained features": lambda plan: plan.extract_recipe("quick", "tiny-seed0", "tiny"),
        "untrained features": lambda plan: plan.extract_recipe("untrained", "seed0", "tiny"),
        "scores": lambda plan: plan.evaluate_recipe("location_consistency", "tiny", "quick", "tiny-seed0"),
    }
    changed = {step for step, recipe in recipes.items() if recipe(before).id != recipe(after).id}
    if scene_steps is None:
        assert changed == ({"scores"} if name == "benchmark" else set())
        return
    features = {"untrained features"} if "frames" in scene_steps else set()
    assert changed == scene_steps | features | {"model", "trained features", "scores"}


def test_raw_folders_count(make):
    """Without Snakemake's own records, scenes of another folder would be taken for those of this one."""
    dataset = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())["datasets"]["tiny"]
    real = {key: value for key, value in dataset.items() if key != "simulate"}
    one, other = (make(datasets={"real": {**real, "raw": raw}}).frames_recipe("real") for raw in ("a", "b"))
    assert one.id != other.id


def test_the_depth_scale_of_a_dataset_counts_from_the_check_on(make):
    real = {"format": "tum_rgbd", "raw": "raw", "scenes": ["a"], "check": {"decode": "all"}}
    real |= {"frames": {"height": 48, "width": 64, "images": "all", "max_hole_fraction": 0.5}}
    real |= {"patches": {"stride": 16, "overlap_tolerance": 0.05}, "fuse": {"voxel": 0.02, "max_depth": 4.0}}
    default, scaled = (make(datasets={"real": {**real, **scale}}) for scale in ({}, {"depth_scale": 1000}))
    assert scaled.check_scene_recipe("real").settings["depth_scale"] == 1000
    for recipe in ("check_scene_recipe", "frames_recipe", "fuse_recipe"):
        assert getattr(default, recipe)("real").id != getattr(scaled, recipe)("real").id
    # The manifest states the scale and is written again; nothing else in later steps changes.
    assert default.frames_recipe("real").own == scaled.frames_recipe("real").own


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "scannet"}, r"real.depth_scale: applies to real data in the formats seven_scenes, tum_rgbd"),
        ({"simulate": {"seed": 0, "rooms": 1, "images": 3, "image": {"height": 48, "width": 64}, "repetition": 0},
          "raw": "results/raw/real"}, r"real.depth_scale: applies to real data"),
        ({"depth_scale": 0}, r"depth_scale"),
        ({"depth_scale": "1000"}, r"depth_scale"),
    ],
)  # fmt: skip
def test_a_depth_scale_where_none_belongs(make, changes, message):
    real = {"format": "tum_rgbd", "raw": "raw", "scenes": ["a"], "check": {"decode": "all"}, "depth_scale": 1000}
    real |= {"frames": {"height": 48, "width": 64, "images": "all", "max_hole_fraction": 0.5}}
    real |= {"patches": {"stride": 16, "overlap_tolerance": 0.05}}
    with pytest.raises(ConfigError, match=message):
        make(datasets={"real": {**real, **changes}})


def test_a_deterministic_extractor_is_extracted_and_scored_once(make):
    plan = make(
        run={"splits": ["tiny", "again"], "experiments": ["sift", "untrained", "quick"], "seeds": [0, 1, 2]},
        splits={"again": {"trained_on": "tiny", "test": {"tiny": ["cedar"]}}},
        experiments={"sift": SIFT},
    )
    rows = Summary(plan).metric_rows("location_consistency")
    folder = "results/metrics/location_consistency/tiny"
    both = [("tiny", "sift"), ("again", "sift")]
    assert rows[f"{folder}/sift/deterministic.json"] == both
    assert {path for path in rows if "/untrained/" in path} == {f"{folder}/untrained/seed{n}.json" for n in range(3)}
    assert {path for path in rows if "/quick/" in path} == {f"{folder}/quick/tiny-seed{n}.json" for n in range(3)}
    assert len(rows) == 7
    features = {plan.evaluate_inputs(**paths.fields_of(paths.METRICS, path))["features"][0] for path in rows}
    assert len(features) == 7
    assert plan.is_deterministic("sift")
    assert not plan.is_deterministic("untrained")
    assert not plan.is_deterministic("quick")


def test_a_second_seed_of_a_deterministic_extractor_is_no_new_file(make):
    one, two = (
        make(run={"experiments": ["sift"], "seeds": seeds}, experiments={"sift": SIFT}) for seeds in ([0], [0, 1])
    )
    assert Summary(one).metric_rows("location_consistency") == Summary(two).metric_rows("location_consistency")


def test_models_of_the_workflow_bring_their_recipe_along(make):
    path = "results/train/tiny/quick/seed0/model.safetensors"
    tuned = {"title": "tuned", "model": {"name": "compact_cnn", "dim": 16}, "train": {**TRAIN, "init": path}}
    changes = {"experiments": {"tuned": tuned}, "run": {"experiments": ["quick", "tuned"]}}
    plan = make(**changes)
    assert plan.train_inputs("tiny", "tuned")["init"] == [path]
    recipe = plan.train_recipe("tiny", "tuned", "seed0")
    assert recipe.inputs["init"].id == plan.train_recipe("tiny", "quick", "seed0").id
    changes["experiments"]["quick"] = {"train": {"steps": 4}}
    assert make(**changes).train_recipe("tiny", "tuned", "seed0").id != recipe.id


TRAIN = {
    "loss": {"name": "exact", "rho": 0.2, "kappa": 5.0, "tau": 0.02},
    "steps": 3,
    "batch": {"scenes": 1, "images_per_scene": 3, "min_overlap": 0.1, "min_baseline": 0.1, "patches_per_image": 64},
    "optimiser": {"lr": 1.0e-3, "weight_decay": 0.05, "warmup_steps": 1, "clip": 1.0},
    "validate_every": 2,
    "save_every": 2,
}


def test_a_model_made_from_itself_is_refused(make):
    path = "results/train/tiny/loop/seed0/model.safetensors"
    loop = {"title": "loop", "model": {"name": "compact_cnn", "dim": 16}, "train": {**TRAIN, "init": path}}
    plan = make(experiments={"loop": loop}, run={"experiments": ["loop"]})
    with pytest.raises(ConfigError, match="depends on itself"):
        plan.train_recipe("tiny", "loop", "seed0")


def test_weights_that_vanish_after_the_configuration_was_loaded_are_an_error(make, tmp_path):
    """Snakemake would take the existing output for the right one."""
    (tmp_path / "start.safetensors").write_bytes(b"x")
    tuned = {
        "title": "tuned",
        "model": {"name": "compact_cnn", "dim": 16},
        "train": {**TRAIN, "init": "start.safetensors"},
    }
    plan = make(experiments={"tuned": tuned}, run={"experiments": ["tuned"]})
    assert plan.train_inputs("tiny", "tuned")["init"] == ["start.safetensors"]
    (tmp_path / "start.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"start\.safetensors"):
        plan.train_inputs("tiny", "tuned")


def test_stored_encodings_are_inputs_of_all_that_reads_them(make, tmp_path):
    (tmp_path / "dino").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "dino" / name).touch()
    backbone = {"name": "transformers", "path": str(tmp_path / "dino")}
    model = {"name": "backbone", "backbone": backbone, "stride": 8, "head": {"name": "linear", "dim": 4}}
    plan = make(
        experiments={"pca": {"title": "PCA", "model": model, "cache": True, "pca": {}}}, run={"experiments": ["pca"]}
    )
    (encoder,) = plan.encoders
    stored = f"results/encoded/{encoder}/tiny/ash.h5"
    assert plan.fit_pca_inputs("tiny", "pca")["encoded"] == [stored]
    assert plan.recipe_of(stored).step == "encode"
    assert sorted(plan.encode_inputs(encoder, "tiny", "ash")["weights"]) == [
        str(tmp_path / "dino" / name) for name in ("config.json", "model.safetensors")
    ]
    # The components are computed without random draws, so no seed has an effect.
    assert plan.checkpoint("pca", "tiny", 3) == "tiny-deterministic"
    assert plan.fit_pca_recipe("tiny", "pca", "deterministic").settings["seed"] is None


def test_upsampled_extractors_share_the_stored_encodings_and_have_their_own_stride(make, tmp_path):
    (tmp_path / "net.onnx").touch()
    backbone = {"name": "onnx", "path": "net.onnx", "native_stride": 8}
    model = {"name": "backbone", "backbone": backbone, "stride": 8, "head": {"name": "residual_mlp", "hidden": 4}}
    finer = {**model, "upsample": {"name": "joint_bilateral", "stride": 2}}
    models = {"coarse": model, "fine": finer, "frozen": {key: finer[key] for key in finer if key != "head"}}
    train = make().config["experiments"]["quick"]["train"]
    trained = {"train": {key: value for key, value in train.items() if key != "augment"}}
    plan = make(
        experiments={
            name: {"title": name, "model": of, "cache": True, **(trained if "head" in of else {})}
            for name, of in models.items()
        }
    )
    (encoder,) = {plan.encoder(name) for name in models}
    assert "upsample" not in plan.encoders[encoder]
    recipes = {name: plan.extract_recipe(name, plan.checkpoint(name, "tiny", 0), "tiny") for name in models}
    assert recipes["coarse"].inputs["encode"].id == recipes["fine"].inputs["encode"].id
    assert recipes["frozen"].settings["model"]["upsample"] == finer["upsample"]
    for name, stride in (("coarse", 8), ("fine", 2)):
        read = plan.train_inputs("tiny", name)["train_correspondences"]
        assert read == [path.replace("stride4", f"stride{stride}") for path in read]
        assert read[0].startswith(f"results/correspondences/tiny/stride{stride}/")


def test_labels_have_a_check_of_their_own(make, tmp_path):
    (tmp_path / "table.tsv").write_text("raw_category\tmpcat40\nwall\twall\n")
    plan = make(datasets={"tiny": {"labels": {"mapping": "table.tsv"}}})
    recipe = plan.label_recipe("tiny")
    assert set(recipe.inputs) == {"frames", "check_labels"}
    assert plan.recipe_of("results/label_manifests/tiny/ash.json").id == recipe.inputs["check_labels"].id
    (tmp_path / "table.tsv").write_text("raw_category\tmpcat40\nwall\tfloor\n")
    assert make(datasets={"tiny": {"labels": {"mapping": "table.tsv"}}}).label_recipe("tiny").id != recipe.id
    (tmp_path / "table.tsv").unlink()
    with pytest.raises(ConfigError, match=r"datasets.tiny.labels.mapping"):
        plan.label_mapping("tiny")


PAIRED = {"batch": {"radius": 0.2, "images": 4, "scenes_by": "equal", "patches_per_image": 64}}


def paired(make, **changes):
    """Return the plan of the tiny run whose experiment draws its batches from positive pairs."""
    quick = {"quick": {"train": {**copy.deepcopy(PAIRED), **changes}}}
    return make(replaced_batch=True, experiments=quick)


def test_pairs_are_indexed_for_the_training_scenes_of_experiments_that_draw_by_radius(make):
    assert make().train_inputs("tiny", "quick")["train_pairs"] == []
    assert "pairs/tiny" not in make().train_recipe("tiny", "quick", "seed0").inputs
    plan = paired(make)
    files = plan.train_inputs("tiny", "quick")["train_pairs"]
    assert files == ["results/pairs/tiny/stride4/radius0.2/ash.h5"]
    recipe = plan.recipe_of(files[0])
    assert recipe == plan.train_recipe("tiny", "quick", "seed0").inputs["pairs/tiny"]
    assert recipe.settings == {"radius": 0.2}
    assert recipe.inputs["correspondence"].id == plan.correspondence_recipe("tiny", 4).id


def test_the_index_of_pairs_depends_on_the_radius_and_on_nothing_else_of_a_training(make):
    path = "results/pairs/tiny/stride4/radius0.2/ash.h5"
    before = paired(make)
    slower = paired(make, optimiser={"lr": 1e-4, "weight_decay": 0.05, "warmup_steps": 1, "clip": 1.0})
    assert slower.recipe_of(path).id == before.recipe_of(path).id
    assert slower.train_recipe("tiny", "quick", "seed0").id != before.train_recipe("tiny", "quick", "seed0").id
    wider = paired(make, batch={**PAIRED["batch"], "radius": 1})
    assert wider.train_inputs("tiny", "quick")["train_pairs"] == ["results/pairs/tiny/stride4/radius1.0/ash.h5"]


def test_paths_and_patterns_are_inverse():
    fields = {"experiment": "a", "checkpoint": "b-seed0", "dataset": "c", "scene": "d.e"}
    assert paths.fields_of(paths.FEATURES, paths.FEATURES.format(**fields)) == fields
    assert paths.fields_of(paths.FEATURES, "results/features/a/b/c.h5") is None
    assert len(set(paths.PATTERNS)) == 14


def test_planning_imports_nothing_heavy():
    heavy = ("torch", "cv2", "open3d", "h5py", "pandas", "numpy")
    program = f"import sys, loco.plan, loco.summary; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def one_room(make, run=("tiny",), **benchmarks) -> Plan:
    """The training and test scenes are in one room; a second split trains on a part of it, a third on another room."""
    simulated = make().config["datasets"]["tiny"]
    splits = {"less": {"train": {"tiny": ["birch"]}, "test": {"tiny": ["cedar"]}}}
    splits["other"] = {"train": {"elsewhere": ["oak"]}, "test": {"tiny": ["cedar"]}}
    splits["again"] = {"trained_on": "tiny", "test": {"tiny": ["cedar"]}}
    elsewhere = {**simulated, "raw": "results/raw/elsewhere", "scenes": ["oak"]}
    return make(
        run={"splits": list(run), "experiments": ["sift", "quick"]},
        datasets={"tiny": {"world_frame": "hall"}, "elsewhere": elsewhere},
        splits=splits,
        experiments={"sift": SIFT},
        benchmarks=benchmarks,
    )


def test_what_training_has_seen_is_an_input_where_it_is_reported(make):
    plan = one_room(make, location_consistency={"seen_by_training": "report"})
    seen = "results/correspondences/tiny/stride4/ash.h5"
    for experiment, checkpoint in (("sift", "deterministic"), ("quick", "tiny-seed0")):
        names = {"split": "tiny", "experiment": experiment, "checkpoint": checkpoint}
        assert plan.evaluate_inputs("location_consistency", **names)["training"] == [seen]
        assert plan.evaluate_inputs("pixel_correspondence", **names)["training"] == []
        recipe = plan.evaluate_recipe("location_consistency", **names)
        assert recipe.settings["training"] == [["tiny", "ash"]]
        assert recipe.inputs["correspondence/tiny"] == plan.correspondence_recipe("tiny", 4)
    assert plan.training_correspondences("location_consistency", "again") == [[seen]]
    assert plan.training_correspondences("location_consistency", "other") == [[]]
    assert "training" not in plan.evaluate_recipe("pixel_correspondence", **names).settings


def test_training_scenes_of_another_dataset_count_if_they_are_in_the_same_world_frame(make):
    config = one_room(make, location_consistency={"seen_by_training": "report"}).config
    config["datasets"]["elsewhere"] |= {"world_frame": "hall", "patches": {"stride": 8, "overlap_tolerance": 0.05}}
    plan = Plan(config, ROOT)
    names = {"split": "other", "experiment": "sift", "checkpoint": "deterministic"}
    seen = "results/correspondences/elsewhere/stride8/oak.h5"
    assert plan.evaluate_inputs("location_consistency", **names)["training"] == [seen]
    recipe = plan.evaluate_recipe("location_consistency", **names)
    assert recipe.inputs["correspondence/elsewhere"] == plan.correspondence_recipe("elsewhere", 8)


def test_an_extractor_is_evaluated_for_each_training_that_scores_are_split_by(make):
    run = ("tiny", "less", "again")
    rows = {
        report: Summary(one_room(make, run, location_consistency=settings)).metric_rows("location_consistency")
        for report, settings in ((False, {}), (True, {"seen_by_training": "report"}))
    }
    file = "results/metrics/location_consistency/{}/sift/deterministic.json"
    shown = {path: rows for path, rows in rows[True].items() if "/sift/" in path}
    assert shown == {
        file.format("tiny"): [("tiny", "sift"), ("again", "sift")],
        file.format("less"): [("less", "sift")],
    }
    assert [path for path in rows[False] if "/sift/" in path] == [file.format("tiny")]


@pytest.mark.parametrize(
    ("benchmarks", "message"),
    [
        ({"seen_by_training": "report"}, "no split of the run has training scenes in the world frame"),
        ({"seen_within": 0.1}, "seen_within: has no effect without"),
        ({"seen_by_training": "report", "seen_within": 0.3}, "must not exceed unseen_beyond"),
    ],
)
def test_reports_of_what_training_has_seen_that_mean_nothing_are_refused(make, benchmarks, message):
    with pytest.raises(ConfigError, match=message):
        make(benchmarks={"location_consistency": benchmarks})


def test_a_world_frame_is_for_images_with_places(make):
    photographs = {"format": "hpatches", "raw": "raw", "scenes": ["v_wall"], "check": {"decode": "all"}}
    photographs |= {"frames": {"height": 48, "width": 64, "images": "all", "max_hole_fraction": 1}}
    photographs |= {"patches": {"stride": 16, "overlap_tolerance": 0.05}, "world_frame": "wall"}
    with pytest.raises(ConfigError, match="world_frame: the format `hpatches` has no 3D points"):
        make(datasets={"walls": photographs})


KEYPOINTS = {"title": "SIFT keypoints", "model": {"name": "sift_keypoints", "ratio": 0.8}}


def test_keypoints_have_a_row_where_a_benchmark_matches_keypoints_and_no_features(make):
    run = {"experiments": ["quick", "keypoints"], "benchmarks": ["location_consistency", "relative_pose"]}
    plan = make(run=run, experiments={"keypoints": KEYPOINTS})
    summary = Summary(plan)
    file = "results/metrics/relative_pose/tiny/keypoints/deterministic.json"
    assert summary.metric_rows("relative_pose")[file] == [("tiny", "keypoints")]
    assert not any("keypoints" in path for path in summary.metric_rows("location_consistency"))
    assert not any("keypoints" in path for path in summary.pictures_inputs()["features"])
    names = {"split": "tiny", "experiment": "keypoints", "checkpoint": "deterministic"}
    inputs = plan.evaluate_inputs("relative_pose", **names)
    assert inputs["features"] == []
    assert inputs["frames"] == ["results/frames/tiny/cedar.h5"]
    recipe = plan.recipe_of(file)
    assert recipe.settings["keypoints"] == {"name": "sift_keypoints", "ratio": 0.8}
    assert set(recipe.inputs) == {"frames/tiny", "correspondence/tiny"}
    with pytest.raises(ConfigError, match="no feature maps, which location_consistency requires"):
        plan.evaluate_recipe("location_consistency", **names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": {"experiments": ["keypoints"]}}, "run a benchmark that matches keypoints"),
        (
            {
                "run": {
                    "experiments": ["quick", "keypoints"],
                    "benchmarks": ["location_consistency", "relative_pose"],
                    "comparisons": [["keypoints", "quick"]],
                }
            },
            "no row in location_consistency",
        ),
        ({"experiments": {"keypoints": {**KEYPOINTS, "cache": True}}}, "cache: `sift_keypoints` has no weights"),
        (
            {
                "experiments": {
                    "both": {
                        "title": "both",
                        "model": {"name": "concat", "stride": 4, "models": [SIFT["model"], KEYPOINTS["model"]]},
                    }
                }
            },
            "models.1: `sift_keypoints` has no feature maps to concatenate",
        ),
    ],
)
def test_keypoints_where_feature_maps_are_required_are_refused(make, changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes | {"experiments": {"keypoints": KEYPOINTS} | changes.get("experiments", {})})
