import os
import re
import struct
import tracemalloc
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loco.datasets.sens import SensFile, SensHeader
from loco.errors import DataError
from loco.simulate.raw_scannet import SensFrame, encode_color, encode_depth, write_sens
from tests.unit.datasets.oriented import oriented

COLOR, DEPTH, FRAMES = (24, 32), (12, 16), 3
RNG = np.random.default_rng(0)
RGB = [RNG.integers(0, 256, (*COLOR, 3), dtype=np.uint8) for _ in range(FRAMES)]
UNITS = [RNG.integers(0, 65536, DEPTH, dtype=np.uint16) for _ in range(FRAMES)]
MATRICES = RNG.standard_normal((4 + FRAMES, 4, 4)).astype(np.float32).astype(np.float64)
HEADER = SensHeader("Sensor", *MATRICES[:4], "png", "zlib_ushort", COLOR, DEPTH, 1000.0)


def frames(header: SensHeader) -> list[SensFrame]:
    return [
        SensFrame(pose, encode_color(rgb, header.color_compression), encode_depth(units, header.depth_compression))
        for pose, rgb, units in zip(MATRICES[4:], RGB, UNITS)
    ]


def write(path: Path, content: list[SensFrame] | None = None, **changes) -> Path:
    header = replace(HEADER, **changes)
    write_sens(path, header, frames(header) if content is None else content)
    return path


def with_depth(data: bytes) -> list[SensFrame]:
    """Write frames of which the second has another depth."""
    content = frames(HEADER)
    content[1] = content[1]._replace(depth=data)
    return content


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> bytes:
    return write(tmp_path_factory.mktemp("sens") / "scan.sens").read_bytes()


@pytest.mark.parametrize("color", ["raw", "png", "jpeg"])
@pytest.mark.parametrize("depth", ["raw_ushort", "zlib_ushort"])
def test_what_was_written_is_read(tmp_path, color, depth):
    file = SensFile(write(tmp_path / "scan.sens", color_compression=color, depth_compression=depth), "scan")
    assert len(file) == FRAMES
    assert (file.header.sensor, file.header.color_size, file.header.depth_size) == ("Sensor", COLOR, DEPTH)
    assert file.header.depth_shift == 1000
    matrices = [getattr(file.header, f"{a}_{b}") for b in ("color", "depth") for a in ("intrinsic", "extrinsic")]
    np.testing.assert_array_equal([*matrices, *file.poses], MATRICES)
    for k in (2, 0, 1):
        np.testing.assert_array_equal(file.depth(k), UNITS[k])
        rgb = RGB[k]
        if color == "jpeg":
            rgb = cv2.imdecode(np.frombuffer(file.color_bytes(k), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        np.testing.assert_array_equal(file.color(k), rgb)


def test_the_layout_is_the_documented_one(data):
    """Write each field as in sensorData.h."""
    expected = struct.pack("<I", 4) + struct.pack("<Q", 6) + b"Sensor"
    for matrix in MATRICES[:4]:
        expected += struct.pack("<16f", *matrix.ravel())
    expected += struct.pack("<ii", 1, 1) + struct.pack("<IIII", 32, 24, 16, 12) + struct.pack("<f", 1000)
    expected += struct.pack("<Q", FRAMES)
    for k, (pose, color, depth) in enumerate(frames(HEADER)):
        expected += struct.pack("<16f", *pose.ravel()) + struct.pack("<QQ", 33_333 * k, 33_333 * k)
        expected += struct.pack("<QQ", len(color), len(depth)) + color + depth
    assert data == expected + struct.pack("<Q", 0)


def test_frames_of_the_inertial_sensor_are_left_alone(tmp_path, data):
    path = tmp_path / "scan.sens"
    path.write_bytes(data[:-8] + struct.pack("<Q", 2) + bytes(2 * 128))
    np.testing.assert_array_equal(SensFile(path, "scan").depth(2), UNITS[2])


def test_a_frame_is_read_by_itself(tmp_path, data):
    """Damaged images of other frames do not prevent opening or reading."""
    path = tmp_path / "scan.sens"
    first = data.index(frames(HEADER)[0].color)
    path.write_bytes(data[:first] + bytes(len(frames(HEADER)[0].color)) + data[first + len(frames(HEADER)[0].color) :])
    file = SensFile(path, "scan")
    np.testing.assert_array_equal(file.color(1), RGB[1])
    with pytest.raises(DataError, match=r"colour of frame 0' cannot be decoded"):
        file.color(0)


def test_cut_anywhere_it_is_refused_when_opened(tmp_path, data):
    path = tmp_path / "scan.sens"
    path.write_bytes(data)
    for size in range(len(data) - 9, -1, -11):
        os.truncate(path, size)
        with pytest.raises(DataError, match=r"ends within|states more frames") as error:
            SensFile(path, "scan")
        if size > len(data) - 200:
            assert "frame 2 of 3" in str(error.value)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_gives_an_error_or_an_image_of_the_stated_size(tmp_path, data, drawn):
    damaged = bytearray(data)
    for _ in range(drawn.draw(st.integers(1, 4))):
        # Mostly in the structure: the header and the headers of the frames.
        place = drawn.draw(st.one_of(st.integers(0, 330), st.integers(0, len(data) - 1)))
        damaged[place] = drawn.draw(st.integers(0, 255))
    path = tmp_path / "scan.sens"
    path.write_bytes(damaged)
    try:
        file = SensFile(path, "scan")
    except DataError:
        return
    for k in range(len(file)):
        for read, size in ((file.depth, file.header.depth_size), (file.color, file.header.color_size)):
            with suppress(DataError):
                assert read(k).shape[:2] == size


def test_a_zip_bomb_is_refused_without_unpacking_it(tmp_path):
    path = write(tmp_path / "scan.sens", with_depth(zlib.compress(bytes(40_000_000))))
    file = SensFile(path, "scan")
    tracemalloc.start()
    with pytest.raises(DataError, match=r"depth of frame 1 differs in size from the header[\s\S]*found: more"):
        file.depth(1)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


HUGE = struct.pack("<QQ", 1 << 40, 10)
SIZES = struct.pack("<QQ", len(frames(HEADER)[0].color), len(frames(HEADER)[0].depth))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: struct.pack("<I", 3) + data[4:], r"of a supported version[\s\S]*version 4[\s\S]*version 3"),
        (lambda data: b"ply\nformat ascii 1.0\n", r"not a .sens file of a supported version"),
        (lambda data: data[:4] + b"\xff" * 8 + data[12:], r"is not a .sens file[\s\S]*name of at most"),
        (lambda data: b"", r"ends within the header"),
        (lambda data: data[:282] + struct.pack("<I", 1 << 20) + data[286:], r"invalid size of its colour"),
        (lambda data: data[:290] + bytes(4) + data[294:], r"invalid size of its depth"),
        (lambda data: data[:298] + struct.pack("<f", np.nan) + data[302:], r"invalid depth unit"),
        (lambda data: data[:302] + struct.pack("<Q", 1 << 50) + data[310:], r"more frames than its size allows"),
        (lambda data: data[:302] + struct.pack("<Q", 4) + data[310:], r"ends within frame 3 of 4"),
        (lambda data: data.replace(SIZES, HUGE, 1), r"colour of frame 0 is too large"),
        (lambda data: data[:278] + struct.pack("<i", 2) + data[282:], r"depth images have an[\s\S]*found: occi_ushort"),
        (lambda data: data[:274] + struct.pack("<i", -1) + data[278:], r"colour images have an[\s\S]*unknown \(-1\)"),
    ],
)  # fmt: skip
def test_broken_files_are_refused_when_opened(tmp_path, data, damage, message):
    path = tmp_path / "scan.sens"
    path.write_bytes(damage(data))
    with pytest.raises(DataError) as error:
        SensFile(path, "scan")
    assert re.search(message, str(error.value)), str(error.value)
    assert all(fact in str(error.value) for fact in (f"file: {path}", "scene: scan", "what to do"))


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (b"no zlib", r"depth of frame 1 cannot be decompressed"),
        (encode_depth(UNITS[1], "zlib_ushort")[:-20], r"depth of frame 1 differs in size from the header"),
        (encode_depth(UNITS[1], "zlib_ushort")[:-1], r"depth of frame 1 is truncated"),
        (
            encode_depth(UNITS[1][1:], "zlib_ushort"),
            r"differs in size from the header[\s\S]*\(12, 16\), 384 bytes[\s\S]*352",
        ),
        (
            encode_depth(np.ones((13, 16), np.uint16), "zlib_ushort"),
            r"depth of frame 1 differs in size from the header",
        ),
    ],
)
def test_broken_depth_is_refused_when_read(tmp_path, depth, message):
    file = SensFile(write(tmp_path / "scan.sens", with_depth(depth)), "scan")
    with pytest.raises(DataError, match=message):
        file.depth(1)
    np.testing.assert_array_equal(file.depth(2), UNITS[2])


def test_colour_of_another_size_is_refused(tmp_path):
    content = frames(HEADER)
    content[0] = content[0]._replace(color=encode_color(RGB[0][:10], "png"))
    with pytest.raises(DataError, match=r"differs in size from the header[\s\S]*\(24, 32\)[\s\S]*\(10, 32\)"):
        SensFile(write(tmp_path / "scan.sens", content), "scan").color(0)


def test_a_file_cut_after_it_was_opened_is_no_silent_image(tmp_path):
    file = SensFile(write(tmp_path / "scan.sens"), "scan")
    file.path.write_bytes(file.path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"ends within"):
        file.color(2)


@pytest.mark.parametrize("color", ["png", "jpeg"])
def test_orientations_of_compressed_images_are_ignored(tmp_path, color):
    plain = SensFile(write(tmp_path / "plain.sens", color_compression=color), "scan")
    header = replace(HEADER, color_compression=color)
    content = [frame._replace(color=oriented(frame.color, 3 + 3 * (k % 2))) for k, frame in enumerate(frames(header))]
    file = SensFile(write(tmp_path / "scan.sens", content, color_compression=color), "scan")
    for k in range(FRAMES):
        np.testing.assert_array_equal(file.color(k), plain.color(k))
