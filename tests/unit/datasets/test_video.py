"""The sharpest frame of each interval of a video is extracted, and ``loco init`` starts from it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from loco.cli import main
from loco.config import load, read_files
from loco.datasets.video import extract_frames
from loco.errors import DataError

ROOT = Path(__file__).parents[3]
RATE, FRAMES = 10, 40
SHARP = (3, 6, 11, 19, 20, 29, 30, 38)  # two per second; the others are blurred


def write_video(file: Path, count: int = FRAMES, size: tuple[int, int] = (96, 128)) -> None:
    """Write a video of one picture that moves, blurred in all frames except ``SHARP``."""
    picture = np.random.default_rng(0).integers(0, 256, (size[0], size[1] + count, 3), dtype=np.uint8)
    picture = cv2.resize(picture[::4, ::4], picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), RATE, size[::-1])
    assert writer.isOpened()
    for k in range(count):
        image = np.ascontiguousarray(picture[:, k : k + size[1]])
        writer.write(image if k in SHARP else cv2.GaussianBlur(image, (0, 0), 3))
    writer.release()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_sharpest_frame_of_each_interval_is_written(tmp_path: Path) -> None:
    write_video(tmp_path / "walk.mp4")
    assert extract_frames(tmp_path / "walk.mp4", tmp_path / "out/walk", 2) == len(SHARP)
    names = sorted(file.name for file in (tmp_path / "out/walk").iterdir())
    assert names == [f"{k:06}.jpg" for k in SHARP]
    images = [cv2.imread(str(tmp_path / "out/walk" / name)) for name in names]
    assert all(image.shape == (96, 128, 3) for image in images)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["walk"]  # no temporary folder remains


def test_a_video_that_cannot_be_used_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is no video")
    with pytest.raises(DataError, match="cannot be decoded"):
        extract_frames(tmp_path / "text.mp4", tmp_path / "out/text", 2)
    write_video(tmp_path / "short.mp4", count=10)
    with pytest.raises(DataError, match=r"too short[\s\S]*2 at 2 frames per second"):
        extract_frames(tmp_path / "short.mp4", tmp_path / "out/short", 2)
    assert not list(tmp_path.glob("out/*")) + list(tmp_path.glob("out/.*"))


@pytest.mark.parametrize("given", ["my walk.mp4", "videos"])
def test_init_writes_a_configuration_for_videos(here: Path, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "videos").mkdir()
    for file in ("my walk.mp4", "videos/kitchen.MP4", "videos/office.mp4"):
        write_video(here / file)
    assert main(["init", given, "--fps", "2"]) == 0
    said = capsys.readouterr().out
    config = load(read_files([Path("my.yaml")], ROOT), ROOT)
    ((name, dataset),) = config["datasets"].items()
    expected = {"my walk.mp4": ("my_walk", ["my_walk"]), "videos": ("videos", ["kitchen", "office"])}
    stem, scenes = expected[given]
    assert (name, dataset["scenes"]) == (f"{stem}_frames", scenes)
    assert dataset["reconstruct"] == {"images": f"data/{stem}_frames", "matcher": "sequential"}
    assert dataset["frames"]["max_overlap"] < 1
    for scene in scenes:
        assert f"data/{stem}_frames/{scene}: {len(SHARP)} frames" in said
        assert len(list(Path("data", f"{stem}_frames", scene).iterdir())) == len(SHARP)
    assert "sequential # each frame with those that follow it" in Path("my.yaml").read_text()
    assert yaml.safe_load(Path("my.yaml").read_text())["run"]["splits"] == [name]


def test_init_overwrites_no_frames_and_refuses_what_has_no_effect(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(here / "walk.mp4")
    (here / "data/walk_frames/walk").mkdir(parents=True)
    assert main(["init", "walk.mp4"]) == 2
    assert "existing paths are not overwritten: data/walk_frames/walk;" in capsys.readouterr().err
    assert main(["init", "data", "--fps", "2"]) == 2
    assert "--fps applies to videos" in capsys.readouterr().err
    (here / "notes.txt").touch()
    for given, says in {
        "notes.txt": "notes.txt is a file and not a video",
        "nowhere.mp4": "there is no folder or video nowhere.mp4",
    }.items():
        assert main(["init", given]) == 2
        assert says in capsys.readouterr().err
    assert not (here / "my.yaml").exists()
