"""A crop changes cameras and observations consistently with the image, and pixels stay square."""

import numpy as np
import pytest

from loco.datasets.crop import crop_to_aspect
from loco.datasets.raw import Observations, RawFrame
from loco.steps.frames import photographs, prepare_frame, sparse_frames

K = np.array([[90.0, 0, 52.3], [0, 88.0, 31.1], [0, 0, 1]])
NORMAL, OFFSET = np.array([0.3, -0.2, 1.0]), 2.5  # a slanted wall: n . x = d


def wall(height, width, intrinsics):
    """Return the depth of the wall at the pixel centres of a camera."""
    v, u = np.mgrid[:height, :width] + 0.5
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(intrinsics).T
    return OFFSET / (rays @ NORMAL)


def frame(height=60, width=100, **changes):
    rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    depth_scale = np.diag([0.5, 0.5, 1.0])  # the depth image has half the size of the colour image
    depth = wall(height // 2, width // 2, depth_scale @ K).astype(np.float32)
    return RawFrame("a", rgb, depth, K, np.eye(4), **changes)


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        ((40, 40), slice(0, 60), slice(20, 80)),
        ((30, 100), slice(15, 45), slice(0, 100)),
        ((48, 64), slice(0, 60), slice(10, 90)),
        ((6, 10), slice(0, 60), slice(0, 100)),  # the image already has this aspect ratio
    ],
)
def test_the_largest_centred_part_of_the_proportions_remains(size, rows, columns):
    raw = frame()
    cropped = crop_to_aspect(raw, size)
    np.testing.assert_array_equal(cropped.rgb, raw.rgb[rows, columns])
    moved = K - [[0, 0, columns.start], [0, 0, rows.start], [0, 0, 0]]
    np.testing.assert_allclose(cropped.intrinsics, moved)


@pytest.mark.parametrize("size", [(40, 40), (24, 80), (30, 50)])
def test_depth_stays_with_the_pixels_that_show_it(size):
    cropped, source = prepare_frame(crop_to_aspect(frame(), size), size, None)
    assert (source == 1).mean() > 0.9
    expected = wall(*size, cropped.intrinsics)
    seen = cropped.depth > 0
    np.testing.assert_allclose(cropped.depth[seen], expected[seen], rtol=2e-3)
    ratio = cropped.intrinsics[0, 0] / cropped.intrinsics[1, 1]
    # Without a crop, resizing to 40 x 40 would change the aspect ratio by 1.67.
    assert ratio == pytest.approx(K[0, 0] / K[1, 1], rel=0.02)


def test_observations_are_moved_and_those_outside_are_dropped():
    uv = np.array([[0.0, 30], [20, 0], [50, 30], [79.5, 59.5], [80, 30]])
    raw = frame(observations=Observations(uv, np.arange(5)))
    cropped = crop_to_aspect(raw, (40, 40))
    np.testing.assert_array_equal(cropped.observations.track, [1, 2, 3])
    np.testing.assert_array_equal(cropped.observations.uv, uv[1:4] - [20, 0])
    ((prepared, _),) = sparse_frames([cropped], (40, 40), {}, {})
    np.testing.assert_allclose(prepared.observations.uv, (uv[1:4] - [20, 0]) * 40 / 60)


def test_photographs_have_no_depth_to_look_up():
    raw = RawFrame("a", frame().rgb, None, np.eye(3), np.eye(4))
    ((prepared, _),) = photographs([crop_to_aspect(raw, (40, 40))], (40, 40))
    centre = prepared.intrinsics @ [50, 30, 1]  # pixels of the raw image: the centre of the prepared image
    np.testing.assert_allclose(centre, [20, 20, 1])
