"""Bad input causes one message with the file, the scene and the remedy; no partial files remain, others go on."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

COLOR, DEPTH = "undistorted_color_images.zip", "undistorted_depth_images.zip"
CAMERAS, REGIONS = "undistorted_camera_parameters.zip", "region_segmentations.zip"


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None], extra: dict[str, bytes] | None = None) -> None:
    """Rewrite a zip with changed members (None: unchanged), and added ones."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in members.items():
            changed = change(name, data)
            new.writestr(name, data if changed is None else changed)
        for name, data in (extra or {}).items():
            new.writestr(name, data)


def miss(scene: Path) -> None:
    (scene / DEPTH).unlink()


def truncate(scene: Path) -> None:
    data = (scene / COLOR).read_bytes()
    (scene / COLOR).write_bytes(data[: len(data) // 2])


def escape(scene: Path) -> None:
    rewrite(scene / REGIONS, lambda name, data: None, {"../../outside.txt": b"gotcha"})


def empty_image(scene: Path) -> None:
    emptied: list[str] = []

    def change(name: str, data: bytes) -> bytes | None:
        if name.endswith(".jpg") and not emptied:
            emptied.append(name)
            return b""
        return None

    rewrite(scene / COLOR, change)


def bad_line(scene: Path) -> None:
    rewrite(scene / CAMERAS, lambda name, data: data + b"scan broken.png broken.jpg 1 0 zero\n")


# fault -> how to make it, the file that the message must name, and words on what is wrong
FAULTS = {
    "missing": (miss, DEPTH, "is missing"),
    "truncated": (truncate, COLOR, "truncated"),
    "escaping": (escape, REGIONS, "leaves the folder"),
    "empty_image": (empty_image, COLOR, "0 bytes"),
    "bad_line": (bad_line, CAMERAS, "zero"),
}


@pytest.fixture(scope="module")
def faulty(finished, tmp_path_factory):
    """Run with --keep-going over one valid scene and one of each fault; each is a separate dataset and split."""
    world = finished.clone(tmp_path_factory.mktemp("faulty"))
    tiny = yaml.safe_load(world.configs[0].read_text())["datasets"]["tiny"]
    names = ["good", *FAULTS]
    for name in names:
        scene = world.directory / "download" / name / "cedar"
        shutil.copytree(world.directory / "results/raw/tiny/cedar", scene)
        if name != "good":
            FAULTS[name][0](scene)
    dataset = {key: value for key, value in tiny.items() if key != "simulate"}
    world.overlay(
        {
            "run": {"splits": names, "experiments": ["untrained"]},
            "datasets": {name: {**dataset, "raw": f"download/{name}"} for name in names},
            "splits": {name: {"test": {name: ["cedar"]}} for name in names},
        }
    )
    targets = [f"results/correspondences/{name}/stride4/cedar.h5" for name in names]
    done = world.snakemake("--cores", "2", "--keep-going", "checks", "checks_table", *targets)
    assert done.returncode != 0
    world.said = done.stdout + done.stderr
    return world


def test_the_good_scene_carries_on(faulty):
    assert (faulty.directory / "results/correspondences/good/stride4/cedar.h5").is_file()


def test_nothing_is_left_of_broken_scenes(faulty):
    results = faulty.directory / "results"
    for folder in ("frames", "correspondences"):
        left = [path.relative_to(results / folder).parts[0] for path in (results / folder).rglob("*") if path.is_file()]
        assert set(left) <= {"good", "tiny"}
    assert not list(faulty.directory.rglob("outside.txt"))
    assert not list(results.rglob("*.part*"))


def test_no_traceback_is_shown(faulty):
    assert "Traceback" not in faulty.said


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_name_file_scene_and_remedy(faulty, fault):
    _, file, words = FAULTS[fault]
    _, _, section = faulty.read("results/logs/check_all.log").partition(f"\n{fault}/cedar\n")
    problems, _, _ = section.partition("\n\n")
    assert f"download/{fault}/cedar/{file}" in problems
    assert words in problems
    assert "what to do: " in problems
    assert len(problems.splitlines()) < 25


@pytest.mark.parametrize("fault", FAULTS)
def test_frames_refuses_the_scene_with_the_same_message(faulty, fault):
    log = faulty.read(f"results/logs/frames/{fault}/cedar.log")
    assert f"download/{fault}/cedar/{FAULTS[fault][1]}" in log
    assert "cedar" in log
    assert "what to do: " in log
    assert "Traceback" not in log
    assert log in faulty.said


def test_a_failed_run_names_the_command_that_prints_its_logs(faulty):
    assert "`loco failed` prints the end of each" in faulty.said


def test_the_checks_count_all_broken_scenes(faulty):
    assert f"{len(FAULTS)} of {len(FAULTS) + 1} scenes failed their check" in faulty.said


def test_the_table_of_the_checks_has_them_all(faulty):
    lines = faulty.read("results/tables/checks.csv").splitlines()[1:]
    assert {tuple(line.split(",")[:3]) for line in lines} == {
        *((fault, "cedar", "no") for fault in FAULTS),
        ("good", "cedar", "yes"),
    }
