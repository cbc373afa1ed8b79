"""Sequences in the public layout, written by the tests: an image, and its warps by known homographies."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from loco.datasets import check_scene, is_photographs, open_scene, provides
from loco.errors import DataError
from loco.steps.frames import prepare_frames
from loco.storage import Frames

SIZE = (48, 64)
DOUBLED = np.diag([2.0, 2.0, 1.0])  # with pixel centres at whole numbers, the centre of pixel (1, 1) moves to (2, 2)


def write_sequence(folder: Path, homographies: list[np.ndarray], sizes: list[tuple[int, int]]) -> np.ndarray:
    """Write images 1 to 6 and their homographies as in the release; return image 1."""
    folder.mkdir()
    first = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8), (9, 9), 0)
    cv2.imwrite(str(folder / "1.ppm"), first[:, :, ::-1])
    for k, (homography, (height, width)) in enumerate(zip(homographies, sizes), start=2):
        image = cv2.warpPerspective(first, homography, (width, height), flags=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / f"{k}.ppm"), image[:, :, ::-1])
        rows = [" ".join(f"{number:.8g}" for number in row) for row in homography]
        (folder / f"H_1_{k}").write_text("\n".join(rows) + "\n")
    return first


HOMOGRAPHIES = [
    np.eye(3),
    DOUBLED,
    np.array([[1.0, 0, 5], [0, 1, -3], [0, 0, 1]]),
    np.array([[0.9, 0.1, 2], [-0.05, 1.1, 1], [1e-3, -5e-4, 1]]),
    np.array([[1.1, 0, 0], [0.2, 0.9, 3], [0, 1e-3, 1]]),
]
SIZES = [SIZE, (96, 128), (40, 60), SIZE, SIZE]


@pytest.fixture
def raw(tmp_path) -> Path:
    write_sequence(tmp_path / "v_wall", HOMOGRAPHIES, SIZES)
    return tmp_path


def test_ground_truth(raw):
    assert provides("hpatches") == {"homographies"}
    assert is_photographs("hpatches")
    scene = open_scene("hpatches", raw, "v_wall")
    assert scene.names("all") == ["1", "2", "3", "4", "5", "6"]
    truth = scene.ground_truth()
    assert truth["change"] == "viewpoint"
    assert [(pair["a"], pair["b"]) for pair in truth["pairs"]] == [("1", str(k)) for k in range(2, 7)]
    homographies = np.array([pair["homography"] for pair in truth["pairs"]])
    for homography, written in zip(homographies, HOMOGRAPHIES, strict=True):
        at_centre = homography @ [10.5, 20.5, 1]
        expected = written @ [10, 20, 1]
        assert_allclose(at_centre[:2] / at_centre[2], expected[:2] / expected[2] + 0.5, rtol=1e-6)
    assert_allclose(homographies[0], np.eye(3), atol=1e-12)
    # Doubling an image about its corner would cause no offset; with pixel centres the offset is half a pixel.
    assert_allclose(homographies[1], [[2, 0, -0.5], [0, 2, -0.5], [0, 0, 1]])


def test_illumination(raw):
    (raw / "v_wall").rename(raw / "i_wall")
    assert open_scene("hpatches", raw, "i_wall").ground_truth()["change"] == "illumination"


def test_manifest(raw):
    manifest = check_scene("hpatches", raw, "v_wall", "all")
    assert manifest["problems"] == []
    assert (manifest["images"], manifest["pairs"]) == (6, 5)
    assert len(manifest["files"]) == 11


def test_images_of_many_sizes_become_frames_of_one(raw, tmp_path):
    settings = {"height": 24, "width": 48, "images": "all", "max_hole_fraction": 1.0}
    prepare_frames("hpatches", raw, "v_wall", tmp_path / "v_wall.h5", "hpatches", settings)
    first = cv2.imread(str(raw / "v_wall" / "1.ppm"))[:, :, ::-1]
    with Frames(tmp_path / "v_wall.h5") as frames:
        assert frames["rgb"].shape == (6, 24, 48, 3)
        assert_array_equal(frames["rgb"][0], cv2.resize(first, (48, 24), interpolation=cv2.INTER_AREA))
        for k, (height, width) in enumerate([SIZE, *SIZES]):
            assert_allclose(frames["intrinsics"][k] @ [width, height, 1], [48, 24, 1])
        assert frames.facts["ground_truth"] == open_scene("hpatches", raw, "v_wall").ground_truth()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "4.ppm").unlink(), r"4.ppm is missing[\s\S]*docs/datasets.md"),
        (lambda f: (f / "H_1_6").unlink(), r"H_1_6 is missing"),
        (lambda f: (f / "4.ppm").write_bytes(b""), r"images have 0 bytes \(1 of 6\): 4"),
        (lambda f: (f / "4.ppm").write_bytes(b"P6 64 48 255\n"), r"'4.ppm' cannot be decoded"),
        (
            lambda f: (f / "H_1_3").write_text("1 0 0 0 1 0"),
            r"the file does not contain exactly one matrix[\s\S]*found: 6",
        ),
        (lambda f: (f / "H_1_3").write_text("1 0 0 0 1 0 0 0 x"), r"not a number"),
        (lambda f: (f / "H_1_3").write_text("1 0 0 0 1 0 0 0 0"), r"the file does not contain a homography"),
        (lambda f: (f / "H_1_3").write_text("1 0 0 2 0 0 0 0 1"), r"the file does not contain a homography"),
        (lambda f: (f / "H_1_3").write_text("1 0 0 0 nan 0 0 0 1"), r"not contain a homography[\s\S]*nan"),
    ],
)
def test_what_is_broken_is_named_with_its_remedy(raw, damage, message):
    damage(raw / "v_wall")
    listed = "\n".join(check_scene("hpatches", raw, "v_wall", "all")["problems"])
    assert re.search(message, listed), listed
    assert "what to do" in listed


def test_names_of_sequences(raw):
    (raw / "v_wall").rename(raw / "wall")
    with pytest.raises(DataError, match=r"not that of a sequence[\s\S]*i_[\s\S]*v_"):
        open_scene("hpatches", raw, "wall")


def test_the_lists_of_sequences():
    folder = Path(__file__).parents[3] / "config" / "splits"
    everything, usual = (
        [line for line in (folder / name).read_text().splitlines() if not line.startswith("#")]
        for name in ("hpatches.txt", "hpatches_108.txt")
    )
    for names, illumination, viewpoint in ((everything, 57, 59), (usual, 52, 56)):
        assert len(set(names)) == len(names)
        assert [sum(name.startswith(kind) for name in names) for kind in ("i_", "v_")] == [illumination, viewpoint]
    assert set(usual) < set(everything)
