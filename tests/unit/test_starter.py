"""``loco init`` recognises every layout, and writes a configuration that the loader accepts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from loco.cli import main
from loco.config import load, read_files
from loco.datasets.recognise import EXAMPLES, image_size, recognise
from loco.plan import Plan
from loco.simulate import simulate_scene
from loco.starter import frame_size, split

ROOT = Path(__file__).parents[2]
HOUSE: dict[str, Any] = {"seed": 1, "rooms": 1, "repetition": 0.3, "image": {"height": 48, "width": 64}}
SIMULATED = ("matterport3d", "scannet", "seven_scenes", "tum_rgbd", "posed_rgbd", "nerfstudio", "colmap")


def write_photographs(folder: Path, count: int = 3, size: tuple[int, int] = (600, 800)) -> None:
    folder.mkdir(parents=True)
    for k in range(count):
        cv2.imwrite(str(folder / f"IMG_{k}.JPG"), np.full((*size, 3), 40 * k, np.uint8))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of two scenes of each kind."""
    root = tmp_path_factory.mktemp("kinds")

    def folder(kind: str) -> Path:
        place = root / kind
        if not place.exists():
            for scene in ("scene0000_00", "scene0001_00"):
                if kind == "photographs":
                    write_photographs(place / scene)
                else:
                    count = {"panoramas": 1} if kind == "matterport3d" else {"images": 8}
                    simulate_scene(kind, place / scene, scene, HOUSE | count)
        return place

    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(file: str = "my.yaml") -> dict[str, Any]:
    return load(read_files([Path(file)], ROOT), ROOT)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_two_scenes_of_each_kind_become_a_configuration_that_loads(
    kind: str, raw: Callable[[str], Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "data").symlink_to(raw(kind))
    assert main(["init", "data"]) == 0
    said = capsys.readouterr().out
    assert f"my.yaml: 2 scenes of the format {kind} in data" in said
    assert f"--configfile my.yaml --cores {os.cpu_count()} check_all" in said
    config = loaded()
    (dataset,) = config["datasets"].values()
    assert dataset["format"] == ("colmap" if kind == "photographs" else kind)
    assert dataset["scenes"] == ["scene0000_00", "scene0001_00"]
    (parts,) = config["splits"].values()
    assert [list(parts[part].values()) for part in ("train", "test")] == [[["scene0000_00"]], [["scene0001_00"]]]
    assert config["run"]["experiments"] == ["trained", "untrained", "dense_sift"]
    assert ("pixel_correspondence" in config["run"]["benchmarks"]) == (kind not in ("colmap", "photographs"))
    size = (240, 320) if kind == "photographs" else (48, 64)
    assert (dataset["frames"]["height"], dataset["frames"]["width"]) == size
    assert config["figures"]["scene"] == "scene0001_00"
    plan = Plan(config, ROOT)
    name = next(iter(config["splits"]))
    assert len(plan.train_inputs(name, "trained")["train_frames"]) == 1


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_single_scene_is_evaluated_and_the_file_says_what_a_training_needs(
    kind: str, raw: Callable[[str], Path]
) -> None:
    assert main(["init", str(raw(kind) / "scene0001_00"), "--out", "one.yaml"]) == 0
    config = loaded("one.yaml")
    assert config["run"]["experiments"] == ["untrained", "dense_sift"]
    (parts,) = config["splits"].values()
    assert parts == {"test": {next(iter(config["datasets"])): ["scene0001_00"]}}
    assert "record another scene" in Path("one.yaml").read_text()


@pytest.mark.parametrize("kind", ["seven_scenes", "tum_rgbd", "posed_rgbd", "nerfstudio"])
def test_the_size_is_that_of_the_colour_images(raw: Callable[[str], Path], here: Path, kind: str) -> None:
    shutil.copytree(raw(kind), here / "data", symlinks=False)
    expected = image_size(recognise(here / "data"))
    depth = [path for path in (here / "data").rglob("*.png") if "depth" in str(path.relative_to(here))]
    for path in depth:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), image[::2, ::2])
    assert len(depth) >= 16
    assert image_size(recognise(here / "data")) == expected == (HOUSE["image"]["height"], HOUSE["image"]["width"])


def test_scenes_are_found_below_the_given_folder(raw: Callable[[str], Path], here: Path) -> None:
    (here / "download/v1").mkdir(parents=True)
    (here / "download/v1/scans").symlink_to(raw("matterport3d"))
    found = recognise(here / "download")
    assert found is not None
    assert (found.format, found.raw) == ("matterport3d", here / "download/v1/scans")


@pytest.mark.parametrize(
    ("kind", "lost"),
    [("posed_rgbd", "poses.txt"), ("tum_rgbd", "depth.txt"), ("colmap", "sparse"), ("seven_scenes", "seq-*")],
)
def test_a_scene_that_lacks_its_poses_or_models_is_left_out(
    kind: str, lost: str, raw: Callable[[str], Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(raw(kind), here / "data")
    for path in (here / "data/scene0000_00").glob(lost):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    assert main(["init", "data"]) == 0
    assert "not of this format: scene0000_00" in capsys.readouterr().out
    assert next(iter(loaded()["datasets"].values()))["scenes"] == ["scene0001_00"]


def test_the_format_of_most_scenes_is_taken(raw: Callable[[str], Path], here: Path) -> None:
    (here / "data").mkdir()
    for scene in ("scene0000_00", "scene0001_00"):
        (here / "data" / scene).symlink_to(raw("tum_rgbd") / scene)
    (here / "data/a").symlink_to(raw("posed_rgbd") / "scene0000_00")
    found = recognise(here / "data")
    assert found is not None
    assert (found.format, found.others) == ("tum_rgbd", ["a"])


def test_what_is_not_recognised_is_answered_by_the_layouts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "notes").mkdir()
    (here / "notes/todo.txt").touch()
    assert main(["init", "notes"]) == 2
    said = capsys.readouterr().err
    assert "no scenes are recognised in notes (found: todo.txt)" in said
    assert [line for line in said.splitlines() if line.startswith("  - ")] == [
        f"  - {format}: {example}" for format, example in EXAMPLES.items()
    ]
    assert max(map(len, said.splitlines())) < 200
    assert not (here / "my.yaml").exists()
    assert main(["init", "nowhere"]) == 2
    assert "there is no folder or video nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("color", "says"),
    [
        ("color", "nearest: posed_rgbd, missing: poses.txt, K.txt"),
        ("rgb", "nearest: posed_rgbd, expects `color/`, found `rgb/`; missing: poses.txt, K.txt"),
        ("images", "nearest: posed_rgbd, expects `color/`, found `images/`; missing: poses.txt, K.txt"),
    ],
)
@pytest.mark.parametrize("given", ["tour", "tour/one", "tour/one/{color}", "tour/one/depth"])
def test_a_recording_with_depth_is_never_photographs(
    color: str, says: str, given: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in (color, "depth", "left"):
        write_photographs(here / "tour/one" / kind, size=(30, 40))
    (here / "tour/one/preview.mp4").touch()
    assert main(["init", given.format(color=color)]) == 2
    assert f"tour/one ({says})" in capsys.readouterr().err


def test_a_recording_whose_color_folder_has_another_name_lacks_nothing_else(
    raw: Callable[[str], Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(raw("posed_rgbd") / "scene0000_00", here / "data/one")
    (here / "data/one/color").rename(here / "data/one/rgb")
    assert main(["init", "data"]) == 2
    assert "data/one (nearest: posed_rgbd, expects `color/`, found `rgb/`)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["notes.txt", "IMG_1.jpg"])
def test_a_file_that_is_no_video_is_called_a_file(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / name).touch()
    assert main(["init", name]) == 2
    assert f"{name} is a file and not a video; name the folder that contains your scenes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["a.jpg"], "(photos: 1 .jpg)"),
        (["a.HEIC", "b.heic", "c.heic", "d.png"], "(photos: 3 .heic, 1 .png)"),
        (
            ["kitchen/a.heic", "kitchen/b.heic", "hall/a.jpg", "hall/b.jpg"],
            "(photos/hall: 2 .jpg; photos/kitchen: 2 .heic)",
        ),
    ],
)
def test_images_that_are_too_few_or_of_other_types_are_counted(
    files: list[str], found: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in files:
        (here / "photos" / file).parent.mkdir(parents=True, exist_ok=True)
        (here / "photos" / file).touch()
    assert main(["init", "photos"]) == 2
    said = capsys.readouterr().err
    assert f"The images {found} are not a scene: it requires at least 3 photographs in one folder" in said
    assert "of the types .bmp .jpeg .jpg .png .tif .tiff .webp." in said


def test_a_scene_whose_name_cannot_be_used_is_renamed_by_the_user(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photographs(here / "Fotos Küche", size=(30, 40))
    assert main(["init", "Fotos Küche"]) == 2
    said = capsys.readouterr().err
    assert "rename the folders with ASCII letters" in said
    assert "mv 'Fotos Küche' Fotos_Kuche" in said


def test_a_dataset_whose_folder_has_no_valid_name_gets_one_that_is_printed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photographs(here / "Büro Aufnahme ü/one", size=(30, 40))
    assert main(["init", "Büro Aufnahme ü"]) == 0
    said = capsys.readouterr().out
    assert "the dataset is named Buro_Aufnahme_u, because 'Büro Aufnahme ü' is not a valid name" in said
    assert list(loaded()["datasets"]) == ["Buro_Aufnahme_u"]


def test_a_file_is_not_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photographs(here / "data/a")
    (here / "my.yaml").write_text("mine")
    assert main(["init", "data"]) == 2
    assert "my.yaml exists and is not overwritten" in capsys.readouterr().err
    assert (here / "my.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    "names", [["001", "1e3", "no", "null"], ["_1", "_2", "a-b", "x.y"], ["2024-01-01", "0x1F", "on"]]
)
@pytest.mark.parametrize("folder", ["photos", "my photos: 2024 #1", "true", "7", "ünï", "-"])
def test_names_stay_text(names: list[str], folder: str, here: Path) -> None:
    for name in names:
        write_photographs(here / folder / name)
    assert main(["init", str(here / folder)]) == 0
    (dataset,) = loaded()["datasets"].values()
    assert sorted(dataset["scenes"]) == sorted(names)
    assert dataset["reconstruct"]["images"] == str(here / folder)


def test_folders_whose_names_cannot_be_used_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("good", "a b", "-x"):
        write_photographs(here / "data" / name)
    assert main(["init", "data"]) == 0
    said = capsys.readouterr().out
    assert "left out, because these are not valid names of scenes (rename the folders with ASCII letters): " in said
    assert "'a b'" in said
    assert "'-x'" in said
    assert next(iter(loaded()["datasets"].values()))["scenes"] == ["good"]


def test_many_scenes_are_readable_lines_and_three_parts(here: Path) -> None:
    for k in range(40):
        write_photographs(here / f"data/recording_of_the_day_{k}", size=(30, 40))
    assert main(["init", "data"]) == 0
    lines = Path("my.yaml").read_text().splitlines()
    assert max(len(line) for line in lines if not line.startswith("#")) <= 120  # paths in comments can be long
    (parts,) = loaded()["splits"].values()
    counts = {part: len(next(iter(names.values()))) for part, names in parts.items()}
    assert counts == {"train": 31, "val": 1, "test": 8}
    assert parts["test"]["data"][-1] == "recording_of_the_day_39"  # in the order of the numbers


def test_scans_of_a_room_stay_together() -> None:
    scans = [f"scene000{room}_0{scan}" for room in range(3) for scan in range(2)]
    assert split(scans, "scannet") == {"train": scans[:4], "test": scans[4:]}
    assert split(scans[:2], "scannet") == {"test": scans[:2]}


def test_frames_keep_the_proportions_and_are_not_enlarged() -> None:
    assert frame_size((480, 640)) == (240, 320)
    assert frame_size((1024, 1280)) == (256, 320)
    assert frame_size((4000, 3000)) == (320, 240)
    assert frame_size((96, 144)) == (96, 144)
    assert frame_size(None) == (240, 320)


def test_every_key_that_the_file_sets_is_commented_or_named(raw: Callable[[str], Path]) -> None:
    assert main(["init", str(raw("posed_rgbd")), "--out", "my.yaml"]) == 0
    text = Path("my.yaml").read_text()
    assert sum("#" in line for line in text.splitlines()) > 15
    assert set(yaml.safe_load(text)) == {"run", "datasets", "splits", "experiments", "figures"}
