"""JPEGs with truncated or overwritten pixels are refused; complete ones of every kind are read."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from loco.datasets.images import decode_color
from loco.errors import DataError

NOISE = np.random.default_rng(0).integers(0, 255, size=(12, 16, 3), dtype=np.uint8)
PICTURE = cv2.resize(NOISE, (250, 189), interpolation=cv2.INTER_CUBIC)
# The image ends in black, as after undistortion.
BORDERED = cv2.copyMakeBorder(PICTURE, 20, 60, 20, 60, cv2.BORDER_CONSTANT)
KINDS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 3],
    "444": [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111],
}
END = b"\xff\xd9"


def jpeg(image: np.ndarray, options: list[int] = []) -> bytes:  # noqa: B006
    return cv2.imencode(".jpg", image, options)[1].tobytes()


def decode(data: bytes) -> np.ndarray:
    return decode_color(data, file=Path("a.jpg"), scene="s")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image", [PICTURE, BORDERED, np.zeros((64, 64, 3), np.uint8), PICTURE[:1, :1]])
def test_whole_jpegs_are_read(kind, image):
    data = jpeg(image, KINDS[kind])
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    thumbnail = b"Exif\0\0" + data[:-2][:60000]  # the truncated image has no end marker
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    for form in (
        data,
        data + b"\0" * 100,  # appended data, as written by cameras
        data + jpeg(PICTURE)[:1000],  # a second image (MPF), which is truncated itself
        data[:2] + segment + data[2:],
        data[:-2] + b"\xff" + END,  # a fill byte
    ):
        np.testing.assert_array_equal(decode(form), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.4, 0.6, 0.95])
def test_jpegs_without_an_end_are_refused(kind, part):
    data = jpeg(PICTURE, KINDS[kind])
    cut = data[: int(part * len(data))]
    with pytest.raises(DataError, match=r"cannot be decoded|no end-of-image marker"):
        decode(cut)
    with pytest.raises(DataError, match=r"cannot be decoded|is damaged[\s\S]*no end-of-image marker[\s\S]*intact copy"):
        decode(cut + bytes(20 * len(data)))


@pytest.mark.parametrize("kind", ["baseline", "restarts", "444"])
@pytest.mark.parametrize("part", [0.4, 0.6, 0.95])
def test_pixels_that_end_early_are_refused(kind, part):
    for image in (PICTURE, BORDERED[:-60]):
        data = jpeg(image, KINDS[kind])
        with pytest.raises(DataError, match="its pixels end early"):
            decode(data[: int(part * len(data))] + END)
