"""Every profile plans every shipped configuration, and what the SLURM profile submits is what a cluster accepts.

SLURM is replaced by programs that accept every job and write down how it was submitted; tests/cluster has a real one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from loco.config import load, read_files
from loco.evaluation.catalogue import BENCHMARKS
from tests.workflow.conftest import ROOT, TINY

SHIPPED = sorted(file.stem for file in (ROOT / "config").glob("*.yaml") if file.name != "defaults.yaml")
QUICK = {"config", "recordings"}  # the others take longer to plan
# What users fetch before they run a shipped configuration.
FETCHED = (
    "data/matterport3d/category_mapping.tsv",
    "data/scannet/scannetv2-labels.combined.tsv",
    "data/weights/sam2_hiera_tiny_encoder.with_runtime_opt.ort",
    "data/weights/vit_small_14/config.json",
    "data/weights/vit_small_14/model.safetensors",
    "data/weights/loco.ckpt",
    "data/weights/locus_dino_rad0.2m_ep20.pth",
    "data/photographs/first/1.jpg",
    "data/photographs/second/1.jpg",
)
SBATCH = """#!/bin/sh
number=$(($(cat "$SUBMITTED.count" 2>/dev/null || echo 0) + 1))
echo $number | tee "$SUBMITTED.count"
printf '%s\\037' "$@" >> "$SUBMITTED"
printf '\\036' >> "$SUBMITTED"
"""


class Submitted:
    """A job as it was submitted: its rule or group, and the value of each option, empty if it has none."""

    def __init__(self, arguments: list[str]) -> None:
        self.options: dict[str, str] = {}
        for option, following in zip(arguments, [*arguments[1:], ""]):
            if option.startswith("-"):
                name, given, value = option.partition("=")
                self.options[name] = value if given else "" if following.startswith("-") else following
        self.name = re.split(r"_wildcards_", self.options["--comment"].removeprefix("rule_"))[0]

    def number(self, option: str) -> int:
        return int(self.options.get(option, 0))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, with what users fetch, and the programs of SLURM on the path."""
    programs, place = tmp_path / "bin", tmp_path / "run"
    programs.mkdir()
    for name in ("sbatch", "squeue", "sacct", "sacctmgr", "sinfo", "scontrol", "scancel"):
        (programs / name).write_text(SBATCH if name == "sbatch" else "#!/bin/sh\n")
        (programs / name).chmod(0o755)
    for file in FETCHED:
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text("raw_category\tmpcat40\nwall\twall\n")
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("SUBMITTED", str(tmp_path / "submitted"))
    return place


def snakemake(place: Path, *arguments: str, configs: list[Path], program: tuple[str, ...] = ("-m", "snakemake")) -> str:
    command = [sys.executable, *program, "--snakefile", str(ROOT / "Snakefile"), "--directory", str(place)]
    command += [*arguments, "--configfile", *map(str, configs), "--", "all"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def submit(place: Path, *arguments: str, configs: list[Path]) -> list[Submitted]:
    """Submit all jobs of a run by the SLURM profile."""
    program = (str(ROOT / "tests/workflow/submit_all.py"),)
    profile = ("--workflow-profile", str(ROOT / "profiles/slurm"))
    said = snakemake(place, *profile, *arguments, configs=configs, program=program)
    assert "No suitable partition" not in said
    jobs = [entry.split("\037") for entry in Path(os.environ["SUBMITTED"]).read_text().split("\036")[:-1]]
    return [Submitted(job) for job in jobs]


def overlay(place: Path, settings: dict) -> Path:
    file = place / "overlay.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in SHIPPED]
)
def test_the_slurm_profile_submits_every_shipped_configuration(place: Path, name: str) -> None:
    jobs = submit(place, configs=[ROOT / f"config/{name}.yaml"])
    assert jobs
    for job in jobs:
        assert job.options["-p"] == ("gpu" if job.number("--gpus") else "cpu"), job.name
        assert job.number("-t") >= 5
        assert job.number("--mem") >= 500
        steps = job.name.partition("_")[0].partition("-")[0]
        if steps in ("check", "scene", "encode", "extract", "evaluate"):  # one after another: one core, or two
            assert job.number("--cpus-per-task") <= 2
    needing = {job.name.partition("-")[0].partition("_")[0] for job in jobs if job.number("--gpus")}
    assert needing <= {"train", "encode", "extract", "fit", "evaluate"}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in SHIPPED]
)
def test_the_default_profile_plans_every_shipped_configuration(place: Path, name: str) -> None:
    assert "This was a dry-run" in snakemake(place, "--dry-run", "--cores", "2", configs=[ROOT / f"config/{name}.yaml"])


def test_what_a_job_requests(place: Path) -> None:
    """Training on several nodes, extractors without GPUs, groups of eight jobs, and evaluations that train probes."""
    nodes = {"title": "on two nodes", "train": {"processes": 4, "nodes": 2}}
    experiments = {"exact": {"train": {"processes": 2}}, "sampled": nodes}
    run = {
        "experiments": ["exact", "sampled", "dense_sift_fine"],
        "benchmarks": ["semantic_segmentation", "relative_pose"],
    }
    simulate = {"datasets": {"houses": {"scenes": [f"house{k:02}" for k in range(24)]}}}
    test = [f"house{k:02}" for k in range(3, 24)]
    splits = {"splits": {"houses": {"train": {"houses": ["house00"]}, "val": {"houses": []}, "test": {"houses": test}}}}
    settings = {"run": run, "experiments": experiments, **simulate, **splits}
    jobs = submit(place, configs=[ROOT / "config/config.yaml", overlay(place, settings)])
    found: dict[str, list[Submitted]] = {}
    for job in jobs:
        found.setdefault(job.name, []).append(job)

    trainings = sorted(found["train"], key=lambda job: job.number("--gpus"))
    assert [(job.number("--gpus"), job.number("--nodes")) for job in trainings] == [(2, 1), (4, 2)]
    assert all(job.number("--cpus-per-gpu") == 8 and "--ntasks" not in job.options for job in trainings)

    # 22 scenes (house01 and house02 are in no split), with 21 checks of labels beside theirs, and 21 test scenes.
    assert sum(len(jobs) for name, jobs in found.items() if name.startswith("check_check")) == 3
    assert len(found["scene_correspondence_frames"]) == 22
    extractions = {name: jobs for name, jobs in found.items() if name.startswith("extract-")}
    assert [len(jobs) for jobs in extractions.values()] == [3] * 3
    for name, jobs in extractions.items():
        assert {job.number("--gpus") for job in jobs} == {0 if "sift" in name else 1}
        longest, *_, shortest = sorted((job.number("-t") for job in jobs), reverse=True)
        assert longest * 5 == shortest * 8  # eight scenes, and the other five
    # Three experiments are evaluated as a whole, and by segmentation in the same bundles as they are extracted.
    assert [job.number("--gpus") for job in found["evaluate"]] == [BENCHMARKS["relative_pose"].gpus] * 3
    segmentations = {name: jobs for name, jobs in found.items() if name.startswith("evaluate_scene-semantic")}
    assert [len(jobs) for jobs in segmentations.values()] == [3] * 3
    assert all(job.number("--gpus") == 1 for jobs in segmentations.values() for job in jobs)
    assert len(found["merge_items"]) == 3


def test_a_site_without_gpus_is_asked_for_none(place: Path) -> None:
    nodes = {"experiments": {"quick": {"train": {"processes": 2, "nodes": 2}}}}
    limits = ("--resources", "gpu=0", "serial=1")
    jobs = submit(place, *limits, configs=[TINY, overlay(place, nodes)])
    assert {job.options["-p"] for job in jobs} == {"cpu"}
    assert not any("--gpus" in job.options for job in jobs)
    (training,) = (job for job in jobs if job.name == "train")
    assert (training.number("--nodes"), training.number("--ntasks"), training.number("--cpus-per-task")) == (2, 2, 8)


def test_time_follows_the_work(place: Path) -> None:
    """A probe takes as many steps as its epochs, so that evaluations of large test sets are not ended by SLURM."""
    config = load(read_files([ROOT / "config/config.yaml"], ROOT), ROOT)
    images = 18 * config["datasets"]["houses"]["simulate"]["panoramas"]
    settings = {
        "run": {"experiments": ["untrained"], "benchmarks": ["semantic_segmentation"]},
        "benchmarks": {"semantic_segmentation": {"epochs": 3000, "batch": 1, "train_fraction": 0.5}},
    }
    jobs = submit(place, configs=[ROOT / "config/config.yaml", overlay(place, settings)])
    (evaluation,) = (job for job in jobs if job.name.startswith("evaluate_scene"))
    steps = 3 * images * 3000 * (0.5 + 1)  # three houses in one SLURM job, and two probes of each
    assert evaluation.number("-t") >= steps * 0.018 / 60
