"""The workflow on SLURM, by the command of the documents: tables, killed jobs, broken scenes, ranks and nodes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file

from loco.cli import main
from loco.simulate import simulate_scene
from tests.cluster.conftest import on_the_cluster
from tests.cluster.slurm import Cluster
from tests.workflow.conftest import MODEL, TINY, World, download
from tests.workflow.test_recovery import wait_for

RAW = {"seed": 1, "rooms": 1, "repetition": 0.3}
RECORDED = {  # a dataset without a mesh: one is fused
    "format": "posed_rgbd",
    "raw": "results/raw/recorded",
    "scenes": ["elm"],
    "simulate": {**RAW, "images": 12, "image": {"height": 48, "width": 64}},
    "fuse": {"voxel": 0.05, "max_depth": 6.0},
    "frames": {"height": 48, "width": 64},
    "patches": {"stride": 4},
}
SMALL: dict[str, Any] = {
    "run": {"experiments": ["quick"], "benchmarks": ["location_consistency"]},
    "datasets": {"recorded": RECORDED},
    "splits": {"tiny": {"train": {"tiny": [], "recorded": ["elm"]}, "val": {"tiny": []}, "test": {"tiny": ["cedar"]}}},
    "figures": {"scene": None},
}
TABLES = ("location_consistency.csv", "checks.csv")


def profile_of(world: World) -> list[str]:
    return ["--workflow-profile", str(world.workflow / "profiles/slurm")]


def with_ranks(world: World) -> None:
    """Add experiments that are trained on two ranks, on one node and on two."""
    quick = yaml.safe_load(TINY.read_text())["experiments"]["quick"]
    train = {**quick["train"], "batch": {**quick["train"]["batch"], "images_per_scene": 4}, "processes": 2}
    placed = {"one_node": train, "two_nodes": {**train, "nodes": 2}}
    world.overlay({"experiments": {name: {**quick, "title": name, "train": train} for name, train in placed.items()}})


def model_of(experiment: str) -> str:
    return MODEL.replace("quick", experiment)


@pytest.fixture(scope="session")
def run(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The tiny workflow after a whole run on the cluster, with two training runs beside it. Tests only read it."""
    world = on_the_cluster(tmp_path_factory.mktemp("cluster") / "world")
    world.overlay(SMALL)
    with_ranks(world)
    done = world.snakemake(*profile_of(world), "--", "all", model_of("one_node"), model_of("two_nodes"))
    assert done.returncode == 0, done.stdout + done.stderr
    return world


def test_the_command_makes_tables(run: World, cluster: Cluster) -> None:
    assert len(pd.read_csv(run.directory / "results/tables/location_consistency.csv")) > 0
    assert (run.directory / "results/meshes/recorded/elm.ply").is_file()
    assert {job["JobState"] for job in cluster.jobs()} == {"COMPLETED"}
    on_gpus = {job["Comment"] for job in cluster.jobs() if job["Partition"] == "gpu"}
    assert {name.split("_")[1].split("-")[0] for name in on_gpus} == {"train", "extract"}
    assert all("gpu" in job.get("TresPerJob", "") for job in cluster.jobs() if job["Partition"] == "gpu")
    scenes = cluster.jobs_of("rule_scene")
    assert len(scenes) == 2
    assert any("fuse" in job["Comment"] for job in scenes)


def test_tables_are_those_of_a_local_run(run: World, tmp_path: Path) -> None:
    local = World.new(tmp_path)
    local.overlay(SMALL)
    local.run("tables", "check_table", cores=2)
    for table in TABLES:
        assert local.read(f"results/tables/{table}") == run.read(f"results/tables/{table}")


def test_tables_are_those_of_a_run_on_a_storage_provider(
    run: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that stands for a bucket: jobs read and write copies, as if the bucket were all that they share."""
    world, store = World.new(tmp_path / "world"), tmp_path / "store"
    world.overlay(SMALL)
    provider = ("--default-storage-provider", "fs", "--default-storage-prefix", str(store))
    world.run(*provider, "--shared-fs-usage", "none", "--", "tables", "check_table", cores=2)
    for table in TABLES:
        assert (store / "results/tables" / table).read_text() == run.read(f"results/tables/{table}")
    assert not (world.directory / "results").exists()
    metrics = json.loads((store / "results/metrics/location_consistency/tiny/quick/tiny-seed0.json").read_text())
    assert "results/frames/tiny/cedar.h5" in metrics["record"]["inputs"]
    monkeypatch.chdir(world.workflow)  # the command changes the working directory
    assert main(["verify", str(store / "results"), "--configfile", *map(str, world.configs)]) == 0


def test_two_nodes_train_as_one(run: World, cluster: Cluster) -> None:
    one, two = (load_file(run.directory / model_of(name)) for name in ("one_node", "two_nodes"))
    assert one.keys() == two.keys()
    # A rank has one CPU thread on one node and two on two, so sums are rounded differently. Adam normalises gradients,
    # so a weight whose gradient is nearly 0 may differ by a learning rate (1e-3) per step, but not weights on average.
    differences = {name: (one[name].double() - two[name].double()).abs().mean().item() for name in one}
    assert max(differences.values()) < 1e-6
    jobs = {name: cluster.jobs_of(f"rule_train_wildcards_tiny_{name}")[-1] for name in ("one_node", "two_nodes")}
    assert {name: (job["NumNodes"], job["TresPerJob"]) for name, job in jobs.items()} == {
        "one_node": ("1", "gres:gpu:2"),
        "two_nodes": ("2", "gres:gpu:2"),
    }


def test_two_nodes_without_gpus(run: World, cluster: Cluster, tmp_path: Path) -> None:
    """The profile is changed as for a cluster without GPUs."""
    world = run.clone(tmp_path)
    world.overlay({"experiments": {"two_nodes": {"train": {"steps": 4}}}})
    target = model_of("two_nodes")
    done = world.snakemake(*profile_of(world), "--resources", "gpu=0", "serial=1", "--", target)
    assert done.returncode == 0, done.stdout + done.stderr
    job = cluster.jobs_of("rule_train_wildcards_tiny_two_nodes")[-1]
    assert (job["Partition"], job["NumNodes"]) == ("cpu", "2")
    assert "gpu" not in job.get("TresPerJob", "")


def test_a_cancelled_training_resumes(run: World, cluster: Cluster, tmp_path: Path) -> None:
    world = run.clone(tmp_path)
    steps = 40
    world.overlay({"experiments": {"quick": {"train": {"steps": steps, "validate_every": steps, "save_every": 1}}}})
    with (tmp_path / "output").open("w") as output:
        snakemake = subprocess.Popen(
            world.command(*profile_of(world), "--", MODEL),
            cwd=world.directory,
            env=world.environment(),
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(lambda: list((world.directory / MODEL).parent.glob("state-*/*.ckpt")))
        running = [job for job in cluster.jobs_of("rule_train") if job["JobState"] == "RUNNING"]
        assert len(running) == 1
        cluster.command("scancel", running[0]["JobId"])
        assert snakemake.wait(timeout=1200) == 0, (tmp_path / "output").read_text()
    finally:
        snakemake.kill()
        snakemake.wait()
    first, second = cluster.jobs_of("rule_train_wildcards_tiny_quick")[-2:]
    assert (first["JobState"], second["JobState"]) == ("CANCELLED", "COMPLETED")
    curve = pd.read_csv((world.directory / MODEL).with_name("log.csv"))
    assert list(curve["step"]) == list(range(1, steps + 1))
    assert "Restored all states" in world.read("results/logs/train/tiny/quick/seed0.log")


def test_one_broken_scene_of_eight_leaves_seven(cluster: Cluster, tmp_path: Path) -> None:
    """The checks of all eight scenes share a job. Only the scores that depend on the broken scene are missing."""
    names = [f"scan{k}" for k in range(8)]
    for name in names:
        settings = {**RAW, "panoramas": 1, "image": {"height": 48, "width": 64}}
        simulate_scene("matterport3d", tmp_path / "scans" / name, name, settings)
    broken = next((tmp_path / "scans/scan3").rglob("undistorted_color_images.zip"))
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    world = on_the_cluster(tmp_path / "world")
    world.overlay(
        {
            **download(str(tmp_path / "scans"), scenes=names),
            "run": {"experiments": ["quick", "untrained"], "benchmarks": ["location_consistency"]},
            "splits": {
                "tiny": {
                    "train": {"tiny": [], "real": names[:7]},
                    "val": {"tiny": []},
                    "test": {"tiny": [], "real": names[7:]},
                }
            },
            "figures": {"scene": None},
        }
    )
    before = len(cluster.jobs())
    done = world.snakemake(*profile_of(world), "--retries", "0", "--", "all")
    assert done.returncode != 0
    results = world.directory / "results"
    for kind in ("frames/real", "correspondences/real/stride4"):
        assert {path.stem for path in (results / kind).glob("*.h5")} == set(names) - {"scan3"}
    assert {path.stem for path in (results / "manifests/real").glob("*.json")} == set(names)
    checks = pd.read_csv(results / "tables/checks.csv").set_index("scene")
    assert checks["ok"].to_dict() == {name: "no" if name == "scan3" else "yes" for name in names}
    assert (results / "metrics/location_consistency/tiny/untrained/seed0.json").is_file()
    assert not (world.directory / MODEL).exists()
    jobs = cluster.jobs()[before:]
    assert len([job for job in jobs if "rule_check_check_scene" in job["Comment"]]) == 1
    failed = [job["Comment"] for job in jobs if job["JobState"] == "FAILED"]
    assert sorted(name.split("_")[1] for name in failed) == ["check", "scene"]
