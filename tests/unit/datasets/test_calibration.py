from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loco.datasets.calibration import Lens, odd_centre, read_lens, require_size, size_meant
from loco.datasets.distortion import FISHEYE, RADIAL_TANGENTIAL
from loco.errors import DataError

# fx, fy, cx, cy with pixel centres at integers, width, height; all published or from a real recording.
REAL = {
    "TUM freiburg1": (517.3, 516.5, 318.6, 255.3, 640, 480),
    "TUM freiburg2": (520.9, 521.0, 325.1, 249.7, 640, 480),
    "TUM freiburg3": (535.4, 539.2, 320.1, 247.6, 640, 480),
    "TUM freiburg1, infrared": (591.1, 590.1, 331.0, 234.6, 640, 480),
    "Kinect of Burrus, colour": (529.2, 525.6, 328.9, 267.5, 640, 480),
    "Kinect of Burrus, depth": (594.2, 591.0, 339.3, 242.7, 640, 480),
    "7-Scenes": (585, 585, 320, 240, 640, 480),
    "Kinect v2, infrared": (365.5, 365.5, 254.9, 205.4, 512, 424),
    "ScanNet scene0000_00, colour": (1170.2, 1170.2, 647.75, 483.75, 1296, 968),
    "ScanNet scene0000_00, depth": (571.6, 571.6, 319.5, 239.5, 640, 480),
    "Matterport3D": (1076.2, 1076.5, 627.1, 508.0, 1280, 1024),
    "HoloLens, an office": (495.6, 495.5, 269.5, 169.2, 540, 360),
    "Bonn RGB-D": (542.8, 542.6, 315.6, 237.8, 640, 480),
}
real = pytest.mark.parametrize("camera", REAL.values(), ids=REAL)


def matrix(camera: tuple[float, ...]) -> np.ndarray:
    fx, fy, cx, cy, *_ = camera
    return np.array([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]])


def scaled(k: np.ndarray, factor: float) -> np.ndarray:
    return np.diag([factor, factor, 1]) @ k


@real
def test_real_cameras_are_of_their_images(camera):
    *_, width, height = camera
    assert size_meant(matrix(camera), (height, width)) is None


@real
@pytest.mark.parametrize("factor", [0.5, 2 / 3, 0.72, 0.75, 0.8, 1.25, 4 / 3, 1.39, 1.5, 2, 2.25])
def test_resized_images_are_found_and_their_size_is_named(camera, factor):
    *_, width, height = camera
    meant = size_meant(scaled(matrix(camera), factor), (height, width))
    assert meant is not None
    np.testing.assert_allclose(meant, np.array([height, width]) * factor, rtol=0.13)


@given(
    factor=st.floats(0.4, 2.5).filter(lambda factor: abs(factor - 1) > 0.08),
    off=st.tuples(st.floats(-0.02, 0.02), st.floats(-0.02, 0.02)),
    size=st.sampled_from([(480, 640), (720, 1280), (1080, 1920), (1024, 1280), (1920, 1440), (240, 320)]),
)
def test_any_resize_of_a_camera_that_is_nearly_central_is_found(factor, off, size):
    height, width = size
    k = np.array([[width, 0, (1 + off[0]) * width / 2], [0, width, (1 + off[1]) * height / 2], [0, 0, 1]])
    assert size_meant(k, size) is None
    assert size_meant(scaled(k, factor), size) is not None


@pytest.mark.parametrize(
    ("cut", "found"),
    [
        ((0, 0, 0, 0), False),
        ((0, 40, 0, 0), False),  # a strip is cut off at the top, as by a display
        ((0, 0, 40, 0), False),
        ((20, 0, 0, 30), False),  # two corners that move the centre in different directions
        ((80, 60, 80, 60), False),  # cut off equally on all sides: the principal point moves with the crop
        ((0, 0, 320, 0), True),  # only the left half is left
        ((0, 0, 320, 240), True),  # a quarter
    ],
)
def test_crops(cut, found):
    """Pixels cut off on the left, top, right and bottom; the matrix is that of the crop."""
    left, above, right, below = cut
    k = np.array([[500.0, 0, 320 - left], [0, 500, 240 - above], [0, 0, 1]])
    assert (size_meant(k, (480 - above - below, 640 - left - right)) is not None) == found


def test_the_matrix_of_the_images_before_a_crop():
    """From 4:3 to 16:9."""
    k = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    assert size_meant(k, (360, 640)) == (480, 640)


def test_a_centre_that_is_only_odd_is_noted(tmp_path):
    """From 4:3 to 3:2, or with a strip cut off at the top."""
    for text, noted in (("500 0 319.5 0 500 239.5 0 0 1", True), ("500 0 319.5 0 500 239.5 0 0 1 640 427", False)):
        (tmp_path / "K.txt").write_text(text)
        note = odd_centre(read_lens(tmp_path / "K.txt", "s"), (427, 640))
        assert bool(note) == noted
        assert not noted or ("12% off" in note and "append `640 427`" in note)
    assert odd_centre(Lens(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])), (427, 640)) is None


def test_the_error_names_both_sizes():
    k = np.array([[700.0, 0, 480], [0, 700, 270], [0, 0, 1]])
    with pytest.raises(DataError, match=r"centre of 1280 x 720 pixels[\s\S]*images of about 960 x 540[\s\S]*scale it"):
        require_size(k, (720, 1280), "K.txt", file=Path("K.txt"), scene="s", remedy="scale it")


@pytest.mark.parametrize("focal", [(4.2, 4.2), (0.0042, 0.0042), (1e6, 1e6), (700, 7e5)])
def test_focal_lengths_in_another_unit(focal):
    k = np.array([[focal[0], 0, 480], [0, focal[1], 270], [0, 0, 1]])
    with pytest.raises(DataError, match=r"focal length[\s\S]*960 x 540[\s\S]*in pixels"):
        require_size(k, (540, 960), "K.txt", file=Path("K.txt"), scene="s", remedy="")


CAMERA = "700 0 480\n0 700 270\n0 0 1\n"


@pytest.mark.parametrize("name", ["K.txt", "K_depth.txt"])
def test_a_camera_with_its_size_and_distortion(name, tmp_path):
    file, lens = tmp_path / name, tmp_path / name.replace("K", "distortion")
    assert read_lens(file, "s") is None
    file.write_text(CAMERA)
    assert read_lens(file, "s")[1:] == (None, None, file)
    file.write_text(f"{CAMERA} 960 540\n")
    assert read_lens(file, "s").size == (540, 960)
    np.testing.assert_array_equal(read_lens(file, "s").intrinsics, [[700, 0, 480.5], [0, 700, 270.5], [0, 0, 1]])
    lens.write_text("fisheye 0.1 -0.02 0.003 0\n")
    assert read_lens(file, "s").distortion == (FISHEYE, (0.1, -0.02, 0.003, 0.0))
    lens.write_text("plumb_bob -0.1 0.02 1e-3 2e-3 0.05")
    assert read_lens(file, "s").distortion == (RADIAL_TANGENTIAL, (-0.1, 0.02, 0.001, 0.002, 0.05))
    for other in ("Radial_Tangential", "radtan", "rational_polynomial", "OPENCV"):
        lens.write_text(f"{other} -0.1 0.02 1e-3 2e-3\n")
        assert read_lens(file, "s").distortion == (RADIAL_TANGENTIAL, (-0.1, 0.02, 0.001, 0.002))
    lens.write_text("OPENCV_FISHEYE 0 0 0 0")
    assert read_lens(file, "s").distortion.model == FISHEYE
    file.unlink()
    with pytest.raises(DataError, match=rf"there is no {name} in the folder"):
        read_lens(file, "s")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CAMERA + "960", r"optionally followed by the width and height[\s\S]*found: 10"),
        (CAMERA + "960 540.5", "not contain an intrinsic matrix"),
        (CAMERA + "960 0", "not contain an intrinsic matrix"),
        (CAMERA + "960 nan", "not contain an intrinsic matrix"),
        (CAMERA + "inf 540", "not contain an intrinsic matrix"),
        (CAMERA + "960 high", "not a number"),
    ],
)
def test_sizes_that_are_none(text, message, tmp_path):
    (tmp_path / "K.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        read_lens(tmp_path / "K.txt", "s")
    assert re.search(message, str(caught.value))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.1 0.2 0 0",
        "fisheye",
        "fisheye 0.1 0.2 0",
        "fisheye 0.1 0.2 0 0 0",
        "radtan 0.1 0.2 0",
        "radtan 0.1 0.2 0 0 0 0",
        "radtan 0.1 0.2 0 nan",
        "fisheye 0.1 0.2 0 x",
        "brown 0.1 0.2 0 0",
    ],
)
def test_distortions_that_are_none(text, tmp_path):
    (tmp_path / "K.txt").write_text(CAMERA)
    (tmp_path / "distortion.txt").write_text(text)
    with pytest.raises(
        DataError, match=r"does not contain a supported distortion model[\s\S]*fisheye k1 k2 k3 k4[\s\S]*what to do"
    ):
        read_lens(tmp_path / "K.txt", "s")
