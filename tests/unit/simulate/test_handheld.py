from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import open3d as o3d
import pytest

from loco.geometry.cameras import backproject, pixel_centres, project
from loco.simulate import handheld
from loco.simulate.handheld import DepthRig, Photo, Walk
from loco.simulate.house import House

SETTINGS: dict[str, Any] = {
    "seed": 3,
    "rooms": 2,
    "images": 24,
    "image": {"height": 48, "width": 64},
    "repetition": 0.3,
}


@pytest.fixture(scope="module")
def walk() -> Walk:
    return Walk("a", SETTINGS)


@pytest.fixture(scope="module")
def photos(walk: Walk) -> list[Photo]:
    return list(walk.photos())


def same(one: Photo, other: Photo) -> bool:
    return np.array_equal(one.rgb, other.rgb) and np.array_equal(one.depth, other.depth)


def test_the_camera_is_in_a_room_at_eye_level_and_touches_nothing() -> None:
    walk = Walk("a", {**SETTINGS, "rooms": 3, "images": 240})  # at four places
    centres = walk.poses[:, :3, 3]
    inside = [np.all((centres[:, :2] > r.low) & (centres[:, :2] < r.high), axis=1) for r in walk.house.rooms]
    assert sorted(np.sum(inside, axis=1).tolist()) == [60, 60, 120]  # all in a room, and every room is visited
    assert centres[:, 2].min() >= 1.4
    assert centres[:, 2].max() <= 1.6
    tensor = o3d.core.Tensor(centres.astype(np.float32))
    assert walk.renderer.scene.compute_distance(tensor).numpy().min() > 0.15


def test_it_turns_around_once_on_a_loop_tilting_and_rolling_a_little(walk: Walk) -> None:
    rotation, centres = walk.poses[:, :3, :3], walk.poses[:, :3, 3]
    np.testing.assert_allclose(
        rotation @ np.swapaxes(rotation, 1, 2), np.broadcast_to(np.eye(3), rotation.shape), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1)
    forward = rotation[:, :, 2]
    heading = np.unwrap(np.arctan2(forward[:, 1], forward[:, 0]))
    np.testing.assert_allclose(np.diff(heading), -2 * np.pi / len(walk.poses))
    tilt = np.degrees(np.arcsin(forward[:, 2]))
    assert np.abs(tilt).max() <= 15
    assert np.ptp(tilt) > 25
    level = np.cross(forward, [0, 0, 1.0])
    level /= np.linalg.norm(level, axis=1, keepdims=True)
    roll = np.degrees(np.arccos(np.clip(np.sum(level * rotation[:, :, 0], axis=1), -1, 1)))
    assert 2 < roll.max() <= 3 + 1e-6
    assert (rotation[:, 2, 1] < -0.9).all()  # the camera is upright
    radius = np.linalg.norm(centres[:, :2] - centres[:, :2].mean(axis=0), axis=1)
    np.testing.assert_allclose(radius, radius[0])
    assert 0.1 < radius[0] <= 0.3


def test_consecutive_frames_see_the_same_things(walk: Walk, photos: list[Photo]) -> None:
    """For 24 frames, 15 degrees apart, most points of a frame are in the next one, and are not occluded there."""
    for one, other in pairwise(photos):
        points = backproject(pixel_centres(*walk.size), one.view.depth, walk.intrinsics, one.pose)
        uv, z = project(points, walk.intrinsics, other.pose)
        x, y = np.floor(uv).astype(int)[..., 0], np.floor(uv).astype(int)[..., 1]
        inside = (z > 0) & (x >= 0) & (x < walk.size[1]) & (y >= 0) & (y < walk.size[0])
        assert inside.mean() > 0.5
        seen = other.view.depth[y[inside], x[inside]]
        assert np.mean(np.abs(seen - z[inside]) < 0.1 * z[inside]) > 0.8


def test_name_and_settings_decide_everything(walk: Walk, photos: list[Photo]) -> None:
    again = Walk("a", SETTINGS)
    np.testing.assert_array_equal(again.poses, walk.poses)
    np.testing.assert_array_equal(again.intrinsics, walk.intrinsics)
    assert all(same(*pair) for pair in zip(again.photos(), photos))
    assert same(next(walk.photos()), photos[0])  # a second time from the same walk
    other = Walk("a", {**SETTINGS, "seed": 4})
    assert not np.allclose(other.poses, walk.poses)


def test_exact_depth_is_that_of_the_view_and_changes_no_colour(photos: list[Photo]) -> None:
    exact = Walk("a", {**SETTINGS, "exact_depth": True})
    for photo, sensed in zip(exact.photos(), photos[:3]):
        np.testing.assert_array_equal(photo.depth, photo.view.depth)
        np.testing.assert_array_equal(photo.rgb, sensed.rgb)
        assert (sensed.depth == 0).any()
        assert np.median(np.abs(sensed.depth - photo.depth)[sensed.depth > 0]) > 1e-4


def test_exposure_drifts_slowly(walk: Walk, photos: list[Photo]) -> None:
    """Invert shoulder and gamma: the light of a pixel relative to its radiance is the gain of the frame."""
    height, width = walk.size
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    stops = []
    for photo in photos:
        shown = photo.rgb[..., 1] / 255
        middle = (shown > 0.3) & (shown < 0.9)
        light = -np.log(1 - shown[middle] ** 2.2)
        falling = (photo.view.radiance[..., 1] * (1 - 0.13 * (x**2 + y**2)))[middle]
        stops.append(np.log2(np.median(light / falling)))
    steps = np.diff(stops)
    assert 0.4 < np.ptp(stops) < 0.55  # a quarter of a stop up and down
    assert np.abs(steps).max() < 0.09


def test_the_depth_camera_sees_a_box_from_where_it_is(empty_room: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handheld, "build_house", lambda entropy, settings: empty_room)
    beside = np.eye(4)
    beside[:3, :3] = [[np.cos(0.1), 0, np.sin(0.1)], [0, 1, 0], [-np.sin(0.1), 0, np.cos(0.1)]]
    beside[:3, 3] = 0.05, -0.02, 0.01
    rig = DepthRig(np.array([[50.0, 0, 21], [0, 52.0, 14], [0, 0, 1]]), (30, 40), beside)
    low, high = np.array([1.0, -2.0, 0.0]), np.array([5.0, 3.0, 2.5])
    walk = Walk("a", {**SETTINGS, "images": 5, "exact_depth": True}, rig)
    for photo in walk.photos():
        pose = photo.pose @ beside
        v, u = np.indices((30, 40)) + 0.5
        rays = np.stack([(u - 21) / 50, (v - 14) / 52, np.ones_like(u)], axis=-1) @ pose[:3, :3].T
        reach = (np.where(rays > 0, high, low) - pose[:3, 3]) / rays
        np.testing.assert_allclose(photo.depth, reach.min(axis=-1), atol=1e-5)
        assert photo.rgb.shape == (48, 64, 3)
        assert photo.view.depth.shape == (48, 64)
