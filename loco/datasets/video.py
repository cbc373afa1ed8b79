"""Extract the sharp frames of a video, from which the `reconstruct` step estimates camera poses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from loco.datasets.colmap import MIN_IMAGES
from loco.errors import DataError

SHARPNESS_SIDE = 480  # longer side of the images in which sharpness is measured, pixels
QUALITY = 95  # JPEG quality, 0 to 100


def extract_frames(video: Path, out: Path, per_second: float) -> int:
    """Write the sharpest frame of each interval of ``1 / per_second`` seconds as ``<number of the frame>.jpg``.

    Frames with motion blur have few SIFT features. Sharpness is the variance of the Laplacian (Pech-Pacheco et al.,
    "Diatom autofocusing in brightfield microscopy", ICPR 2000), which suits images of the same content. The time of a
    frame is its number divided by the frame rate of the file. A rotation stated in the file is applied.

    Args:
        video: a file that OpenCV can decode.
        out: folder to write, which must not exist. It is written as a whole or not at all.
        per_second: number of frames per second, positive.

    Returns:
        The number of frames written.

    Raises:
        DataError: the file cannot be decoded, states no frame rate, or has fewer than :data:`MIN_IMAGES` intervals.
    """
    capture = cv2.VideoCapture(str(video))
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
        if not (capture.isOpened() and math.isfinite(rate) and rate > 0):
            raise DataError(
                "this video cannot be decoded",
                file=video,
                expected="a video with a frame rate, in a format that OpenCV reads",
                remedy="convert it, for example with `ffmpeg -i VIDEO -c:v libx264 video.mp4`",
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            folder = Path(temporary, "frames")
            folder.mkdir()
            written = 0
            for _, frames in groupby(_frames(capture, video.name), key=lambda frame: int(frame[0] * per_second / rate)):
                number, image = max(frames, key=lambda frame: _sharpness(frame[1]))
                encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
                (folder / f"{number:06}.jpg").write_bytes(encoded.tobytes())  # unlike `imwrite`, fails on a full disk
                written += 1
            if written < MIN_IMAGES:
                raise DataError(
                    "this video is too short for a reconstruction",
                    file=video,
                    expected=f"at least {MIN_IMAGES} frames, preferably several dozen",
                    found=f"{written} at {per_second:g} frames per second",
                    remedy="record a longer video, or extract more frames per second",
                )
            folder.rename(out)
    finally:
        capture.release()
    return written


def _frames(capture: cv2.VideoCapture, name: str) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the number and the image (h, w, 3), BGR, of each frame."""
    stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    with tqdm(total=stated if stated > 0 else None, desc=name, unit="frame") as progress:
        number = 0
        while (read := capture.read())[0]:
            yield number, np.asarray(read[1], np.uint8)
            number += 1
            progress.update()


def _sharpness(image: NDArray[np.uint8]) -> float:
    factor = min(1.0, SHARPNESS_SIDE / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), cv2.CV_64F).var())
