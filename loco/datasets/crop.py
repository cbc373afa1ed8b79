"""Crop raw frames to the aspect ratio of the prepared frames, instead of resizing both sides by different factors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from loco.datasets.raw import Observations, RawFrame


def crop_to_aspect(frame: RawFrame, size: tuple[int, int]) -> RawFrame:
    """Crop a frame around its centre to the aspect ratio of ``size``, to whole pixels.

    The depth image and its camera do not change, because depth is looked up by ray. Observations of a sparse model
    outside the crop are dropped.

    Args:
        frame: raw frame of a dataset.
        size: (height, width) of the prepared frames.

    Returns:
        The cropped frame, with shifted principal point and observations.
    """
    height, width = frame.rgb.shape[:2]
    rows = min(height, round(width * size[0] / size[1]))
    columns = min(width, round(height * size[1] / size[0]))
    if (rows, columns) == (height, width):
        return frame
    top, left = (height - rows) // 2, (width - columns) // 2
    shift = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]])
    return replace(
        frame,
        rgb=np.ascontiguousarray(frame.rgb[top : top + rows, left : left + columns]),
        intrinsics=shift @ frame.intrinsics,
        depth_camera=None if frame.depth is None else frame.camera_of_depth,
        observations=None if frame.observations is None else _inside(frame.observations, (left, top), (columns, rows)),
    )


def _inside(observations: Observations, border: tuple[int, int], sides: tuple[int, int]) -> Observations:
    uv = observations.uv - border
    inside = ((uv >= 0) & (uv < sides)).all(axis=1)
    return Observations(uv[inside], observations.track[inside])
