"""Selection of frames, colours that distinguish objects and categories, and the figure itself."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from loco.datasets.labels import MPCAT40, STUFF
from loco.errors import DataError
from loco.results.pictures.labels import category_colours, choose_frames, instance_colours, label_views, palette
from loco.storage import Frames, Labels

HEIGHT, WIDTH = 96, 120  # of the frames of `scene`
WALL, CHAIR, LAMP = (MPCAT40.index(name) for name in ("wall", "chair", "lighting"))


def write(path: Path, instance: np.ndarray, category: list[int], frames_id: str = "x") -> Path:
    """Write a file of labels; ``category`` is that of each object."""
    facts = {"objects": [], "counts": {}}
    with Labels.create(path, "rooms", "room", dict(zip("nhw", instance.shape)), facts) as file:
        file.frames_id = frames_id
        file["instance"][:], file["semantic"][:] = instance, np.array([*category, 0])[instance]
    return path


def shows(*objects: set[int]) -> np.ndarray:
    """Return images of 10 x 10 pixels that show these objects only, one row per object."""
    maps = np.full((len(objects), 10, 10), -1)
    for image, own in zip(maps, objects):
        image[: len(own)] = np.array(sorted(own))[:, None]
    return maps


@pytest.mark.parametrize(
    ("objects", "n", "chosen"),
    [
        ([{1}, {1, 2, 3}, {2, 3}, {4, 5}, {1, 4, 6}], 2, [1, 3]),
        ([{1}, {1, 2, 3}, {2, 3}, {4, 5}, {1, 4, 6}], 3, [1, 3, 4]),
        ([{1, 2}, {1, 2}, {2}, {1}], 3, [0, 1, 2]),  # the second round begins with the largest again
        ([{1}, set(), {2}], 5, [0, 1, 2]),
    ],
)
def test_frames_that_show_most_objects_between_them(tmp_path, objects, n, chosen):
    with Labels(write(tmp_path / "l.h5", shows(*objects), [WALL] * 7)) as labels:
        assert choose_frames(labels, n) == chosen


def test_specks_do_not_count_as_shown(tmp_path):
    maps = np.zeros((2, 50, 50), int)
    maps[1, :, 25:], maps[0, 0, :4] = 1, [2, 3, 4, 5]
    with Labels(write(tmp_path / "l.h5", maps, [WALL] * 6)) as labels:
        assert choose_frames(labels, 1) == [1]


@settings(max_examples=50, deadline=None)
@given(arrays(np.int32, (2, 6, 7), elements=st.integers(-1, 15)))
def test_objects_that_touch_have_different_colours(instance):
    colours = instance_colours(instance)[instance]
    n, h, w = instance.shape
    for k, v, u in np.ndindex(n, h, w):
        for row, column in ((v + 1, u), (v, u + 1)):
            if row < h and column < w:
                same = np.array_equal(colours[k, v, u], colours[k, row, column])
                assert same == (instance[k, v, u] == instance[k, row, column])
    assert (colours[instance == -1] == 1).all()


def lightness(colours: np.ndarray) -> np.ndarray:
    """Return CIE L*, 0 to 100: what remains visible without hue."""
    return cv2.cvtColor(colours[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0, :, 0]


def test_things_are_coloured_and_stuff_is_grey():
    colours = category_colours()
    assert len(np.unique(colours.round(6), axis=0)) == len(MPCAT40)
    spread = np.ptp(colours, axis=1)
    for name, own in zip(MPCAT40, spread):
        assert (own == 0) == (name in STUFF)
    assert (colours[0] == 1).all()


def test_stuff_that_meets_is_told_apart_without_hue():
    light = lightness(category_colours())
    wall, floor, ceiling = (light[MPCAT40.index(name)] for name in ("wall", "floor", "ceiling"))
    assert min(abs(wall - floor), abs(wall - ceiling), abs(floor - ceiling)) > 10


def test_colours_of_a_palette_differ():
    colours = palette(30)
    lab = cv2.cvtColor(colours[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    distance = np.linalg.norm(lab[:, None] - lab, axis=-1) + 100 * np.eye(30)
    assert distance.min() > 5  # 2.3 is a just noticeable difference
    np.testing.assert_array_equal(palette(70)[30:60], colours)


@pytest.fixture
def labelled(scene, tmp_path) -> Path:
    """Write labels of the frames of `scene`: a chair (object 1) and a lamp (2) in front of a wall (0)."""
    with Frames(scene.frames) as frames:
        instance = np.zeros((len(frames), HEIGHT, WIDTH), int)
        instance[:, 40:90, 10:60], instance[:, 20:60, 80:110], instance[:, :10, 100:] = 1, 2, -1
        return write(tmp_path / "labels.h5", instance, [WALL, CHAIR, LAMP], frames.frames_id)


def test_figure_names_what_it_shows_and_is_the_same_each_time(scene, labelled, tmp_path):
    with Frames(scene.frames) as frames, Labels(labelled) as labels:
        for stem in ("a", "b"):
            label_views(frames, labels, tmp_path / stem, n=3)
    svg = (tmp_path / "a.svg").read_text()
    assert svg == (tmp_path / "b.svg").read_text()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert svg.count("<image") == 9
    legend = [name for name in MPCAT40 if f"<!-- {name} -->" in svg]  # letters are paths, with the text in a comment
    assert legend == ["void", "wall", "chair", "lighting"]


def test_names_lie_within_their_regions(scene, labelled, tmp_path, monkeypatch):
    written = []

    def text(axes, u, v, name, **style):
        written.append((axes.images[0].get_array(), int(u), int(v), name))

    monkeypatch.setattr("matplotlib.axes.Axes.text", text)
    with Frames(scene.frames) as frames, Labels(labelled) as labels:
        label_views(frames, labels, tmp_path / "a", n=2)
    assert sorted(name for *_, name in written) == ["chair", "chair", "lighting", "lighting", "wall", "wall"]
    for picture, u, v, name in written:
        np.testing.assert_array_equal(picture[v, u], category_colours()[MPCAT40.index(name)])


def test_figure_shows_the_maps_in_their_colours(scene, labelled, tmp_path):
    with Frames(scene.frames) as frames, Labels(labelled) as labels:
        label_views(frames, labels, tmp_path / "a", n=2)
    picture = cv2.imread(str(tmp_path / "a.png"))[..., ::-1].reshape(-1, 3) / 255
    colours = category_colours()
    for category in (WALL, CHAIR, LAMP):
        share = (np.abs(picture - colours[category]).max(axis=1) < 0.005).mean()
        assert share > 0.01


def test_labels_of_other_frames_are_refused(scene, tmp_path):
    path = write(tmp_path / "l.h5", np.zeros((12, HEIGHT, WIDTH), int), [WALL])
    with Frames(scene.frames) as frames, Labels(path) as labels, pytest.raises(DataError, match="other frames"):
        label_views(frames, labels, tmp_path / "a")
    assert not (tmp_path / "a.svg").exists()
