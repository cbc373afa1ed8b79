"""Files of many scenes are checked before any is used: they are as planned, of the same frames, of known datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loco.errors import DataError
from loco.records import Recipe, new_record
from loco.steps.scene_inputs import check_scenes
from loco.storage import Correspondences, Features, Frames, Labels
from loco.storage.content_id import read_content_id

KINDS = (Frames, Correspondences, Features)
FRAMES = Recipe("frames", "f0", {"height": 4})
CORRESPONDENCE = Recipe("correspondence", "c0", {"stride": 2}, {"frames": FRAMES})
RECIPE = Recipe("evaluate", "e0", {}, {"frames/houses": FRAMES, "correspondence/houses": CORRESPONDENCE})


def write_frames(path: Path, scene: str = "ash", dataset: str = "houses", recipe: Recipe = FRAMES, value=1.0) -> str:
    record = new_record(recipe, {"dataset": dataset, "scene": scene}, {})
    with Frames.create(path, dataset, scene, {"n": 1, "h": 4, "w": 4}, record=record) as file:
        file.facts["names"] = ["a"]
        file["intrinsics"][:], file["pose"][:] = np.eye(3), np.eye(4)
        file["rgb"][:], file["depth"][:], file["source"][:] = 0, value, 1
    return read_content_id(path)


def write_correspondences(path: Path, frames_id: str, scene: str = "ash", recipe: Recipe = CORRESPONDENCE) -> str:
    record = new_record(recipe, {"dataset": "houses", "scene": scene}, {})
    sizes = {"n": 1, "h": 2, "w": 2}
    with Correspondences.create(path, "houses", scene, sizes, frames_id=frames_id, record=record) as file:
        file["points"][:], file["valid"][:], file["overlap"][:] = 0, True, 1
    return read_content_id(path)


@pytest.fixture
def scenes(tmp_path: Path) -> list[tuple[Path, Path]]:
    """Write frames and correspondences of two scenes."""
    paths = []
    for scene in ("ash", "birch"):
        frames, correspondences = (tmp_path / kind / f"{scene}.h5" for kind in ("frames", "correspondences"))
        write_correspondences(correspondences, write_frames(frames, scene), scene)
        paths.append((frames, correspondences))
    return paths


def test_the_content_id_of_every_file_is_returned(scenes):
    expected = {path: read_content_id(path) for paths in scenes for path in paths}
    assert check_scenes(scenes, KINDS, RECIPE) == expected


def test_a_kind_may_be_absent(scenes):
    (frames, correspondences), (other, _) = scenes
    found = check_scenes([(frames, correspondences, None), (other, None, None)], KINDS, RECIPE)
    assert found.keys() == {frames, correspondences, other}


def test_another_recipe_is_refused(scenes):
    write_frames(scenes[1][0], "birch", recipe=Recipe("frames", "f0", {"height": 8}))
    with pytest.raises(DataError, match=r"height = 8, expected 4[\s\S]*frames/birch\.h5"):
        check_scenes(scenes, KINDS, RECIPE)


def test_correspondences_of_another_recipe_are_refused_though_their_frames_are_right(scenes):
    frames, correspondences = scenes[0]
    other = Recipe("correspondence", "c1", {"stride": 2}, {"frames": FRAMES})
    write_correspondences(correspondences, read_content_id(frames), recipe=other)
    with pytest.raises(DataError, match=r"made by code c1, expected c0[\s\S]*correspondences/ash\.h5"):
        check_scenes(scenes, KINDS, RECIPE)


def test_files_of_other_frames_are_refused(scenes):
    frames, correspondences = scenes[0]
    old = read_content_id(frames)
    new = write_frames(frames, value=2.0)  # as planned, but made again since, for example from other raw data
    assert new != old
    with pytest.raises(DataError) as caught:
        check_scenes(scenes, KINDS, RECIPE)
    for part in ("made from other frames", str(correspondences), str(frames), new[:12], old[:12], "ash"):
        assert part in str(caught.value)


def test_a_file_of_a_dataset_that_is_not_in_the_plan_is_refused(scenes):
    write_frames(scenes[0][0], dataset="flats")
    with pytest.raises(DataError, match=r"another dataset[\s\S]*frames/ash\.h5[\s\S]*flats"):
        check_scenes(scenes, KINDS, RECIPE)


def test_a_file_of_another_scene_is_refused(scenes):
    scenes[0][0].write_bytes(scenes[1][0].read_bytes())
    with pytest.raises(DataError, match=r"another scene[\s\S]*frames/ash\.h5[\s\S]*ash[\s\S]*birch"):
        check_scenes(scenes, KINDS, RECIPE)


def test_a_missing_file_is_named(scenes):
    scenes[1][1].unlink()
    with pytest.raises(DataError, match=r"correspondences/birch\.h5"):
        check_scenes(scenes, KINDS, RECIPE)


def test_a_file_of_another_kind_is_refused(scenes):
    with pytest.raises(DataError, match=r"another format[\s\S]*correspondences/ash\.h5[\s\S]*loco-labels"):
        check_scenes(scenes[:1], (Frames, Labels), RECIPE)
