"""What jobs request, compared with measured or computed sizes; every step that uses GPUs requests them."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path

import pytest
from snakemake.utils import update_config

from loco import resources
from loco.config import load, read_files
from loco.evaluation import linear_probe, location_consistency
from loco.plan import Plan
from loco.resources import MIN_MB, JobResources

ROOT = Path(__file__).parents[2]
WIDE = {"title": "wide", "model": {"name": "compact_cnn", "dim": 768}}


@pytest.fixture(scope="module")
def base():
    return read_files([], ROOT)


@pytest.fixture
def make(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def of(gpus=0, **changes) -> JobResources:
        config = copy.deepcopy(base)
        update_config(config, copy.deepcopy(changes))
        return JobResources(Plan(load(config, ROOT), ROOT), lambda: gpus)

    return of


def test_the_demo_requests_what_it_did_before(make):
    found = make()
    assert found.frames_mb("houses") == found.correspondence_mb("houses", "4") == 3000
    assert found.extract_mb("exact", "houses") == found.extract_mb("dense_sift_fine", "houses") == 3000
    assert found.train_mb("exact", "houses") == 6000
    assert found.evaluate_mb("location_consistency", "houses", "exact") == 3000
    assert found.evaluate_mb("place_recognition", "houses", "exact") == 6000


def test_location_consistency_of_many_channels(make):
    """2,160 images of 32 x 40 patches and 768 channels: 4.2 GB in half precision, of which 1 GiB is in memory."""
    large = {"datasets": {"houses": {"simulate": {"panoramas": 120}}}, "experiments": {"wide": WIDE}}
    requested = make(**large).evaluate_mb("location_consistency", "houses", "wide")
    patches = 120 * 18 * 32 * 40
    assert requested >= resources.LIBRARIES + location_consistency.HELD / 1e6 + patches * (12 + 8 + 8) / 1e6
    assert requested < 4200
    assert resources.HELD >= location_consistency.HELD / 1e6
    assert requested > make(**large).evaluate_mb("location_consistency", "houses", "untrained") - 1


def test_memory_follows_images_channels_and_workers(make):
    more = {"datasets": {"houses": {"simulate": {"panoramas": 1000}}}}
    overlaps = 4 * (1000 * 18) ** 2 / 1e6  # MB of one array of all pairs of images
    assert make(**more).correspondence_mb("houses", "4") > overlaps
    # In addition to points and images of 18,000 images, sorting took 80 to 90 bytes per patch (tracemalloc).
    assert make(**more).pairs_mb("houses", "4") > 18_000 * 32 * 40 * (90 + 12 + 4) / 1e6
    assert make().pairs_mb("houses", "4") == MIN_MB["pairs"]
    train = {"experiments": {"exact": {"train": {"workers": 4, "processes": 8}}}}
    assert make(**train).train_mb("exact", "houses") > 8 * (MIN_MB["train"] - 3000) + 8 * 4 * resources.WORKER
    config = make()
    del config.config["datasets"]["houses"]["simulate"]
    assert config._images("houses") == resources.IMAGES


def test_memory_and_time_follow_the_stride_of_upsampled_features(make):
    def requested(**model) -> JobResources:
        large = {"frames": {"height": 960, "width": 1280}, "simulate": {"panoramas": 200}}
        return make(datasets={"houses": large}, experiments={"exact": {"model": model}})

    coarse, fine = requested(dim=768), requested(dim=768, upsample={"name": "joint_bilateral", "stride": 2})
    features = 8 * 768 * 480 * 640 * 4 / 1e6  # MB of eight images in single precision
    assert fine.extract_mb("exact", "houses") > 2 * features  # before and after normalisation
    assert fine.extract_mb("exact", "houses") > 3 * coarse.extract_mb("exact", "houses")
    weighted = 12.5 * features  # training holds the 25 cells of each window, once for 2 x 2 features
    assert fine.train_mb("exact", "houses") - coarse.train_mb("exact", "houses") > weighted
    for benchmark, growth in (("pixel_correspondence", 4), ("relative_pose", 16)):
        minutes = [found.evaluate_minutes(benchmark, "houses", "exact") for found in (coarse, fine)]
        work = [found - resources.MIN_MINUTES for found in minutes]
        assert work[1] == pytest.approx(growth * work[0], rel=0.01)


def test_probes_of_many_channels(make):
    """2,160 images of 32 x 40 patches and 768 channels, of which 1 GiB is in memory."""
    large = {"datasets": {"houses": {"simulate": {"panoramas": 120}}}, "experiments": {"wide": WIDE}}
    requested = make(**large).evaluate_scene_mb("wide", "houses")
    assert requested >= resources.LIBRARIES + resources.CUDA + (linear_probe.HELD + 120 * 18 * 32 * 40 * 8) / 1e6
    assert requested < 5000
    assert resources.HELD >= linear_probe.HELD / 1e6
    assert make().evaluate_scene_mb("exact", "houses") == 3000


def test_gpus_are_requested_where_there_are_any(make):
    changes = {"experiments": {"exact": {"train": {"processes": 4}}}}
    for gpus, granted, expected in ((0, None, 0), (2, None, 4), (0, True, 4), (2, False, 0)):
        found = make(gpus, **changes)
        assert found.available(found.train_gpus("exact"), granted) == expected
    assert make().evaluate_gpus("semantic_segmentation") == 1
    assert make().evaluate_gpus("location_consistency") == 0
    assert (make().extract_gpus("exact"), make().extract_gpus("dense_sift_fine")) == (1, 0)


def test_trainings_on_nodes_without_gpus_request_a_task_for_each(make):
    found = make(experiments={"exact": {"train": {"processes": 4, "nodes": 2}}})
    assert found.train_tasks("exact", gpus=0) == 2
    assert found.train_tasks("exact", gpus=4) is None  # SLURM would take the number per GPU
    assert make().train_tasks("exact", gpus=0) is None


def test_time_follows_images_pixels_and_steps(make):
    """One frame of 128 x 160 takes a quarter of a second at most, and four times as long with twice the sides."""
    assert make().frames_minutes("houses") < resources.MIN_MINUTES + 10
    many = {"datasets": {"houses": {"simulate": {"panoramas": 200}}}}
    assert make(**many).frames_minutes("houses") == resources.MIN_MINUTES + math.ceil(200 * 18 * 0.25 / 60)
    large = {"datasets": {"houses": {"frames": {"height": 256, "width": 320}, "simulate": {"panoramas": 200}}}}
    assert make(**large).frames_minutes("houses") == resources.MIN_MINUTES + math.ceil(4 * 200 * 18 * 0.25 / 60)
    overlap = 3600**2 * 3e-6  # seconds: benchmarks/README.md has 2.97 for 1,000 images
    assert make(**many).correspondence_minutes("houses") * 60 > overlap + 3600 * 0.01
    settings = make().config["benchmarks"]["semantic_segmentation"]
    steps = 3600 * settings["epochs"] * (1 + settings["train_fraction"]) / settings["batch"]
    assert make(**many).evaluate_scene_minutes("semantic_segmentation", "exact", "houses") > steps * 0.018 / 60


def test_every_step_that_claims_gpus_requests_them():
    steps = {path.stem for path in (ROOT / "loco/steps").glob("*.py") if "claimed_gpus(" in path.read_text()}
    rules = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    bodies = dict(re.findall(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", rules, flags=re.MULTILINE | re.DOTALL))
    assert {name for name, body in bodies.items() if "gpu=gpus(" in body} == steps
    assert steps == {"train", "fit_pca", "encode", "extract", "evaluate", "evaluate_scene"}
