from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from loco.geometry.cameras import backproject, pixel_centres
from loco.simulate.house import House
from loco.simulate.panoramas import camera_intrinsics, choose_panoramas, shots
from loco.simulate.render import RenderedView, Renderer
from loco.simulate.sensor import Exposure, depth_noise, develop, sense

SIZE = (64, 80)


@pytest.fixture(scope="module")
def views(renderer: Renderer) -> list[tuple[np.ndarray, np.ndarray, RenderedView]]:
    rng = np.random.default_rng(0)
    cameras = camera_intrinsics(SIZE, rng)
    panorama = choose_panoramas(renderer.house, renderer.scene, 1, rng)[0]
    chosen = shots(panorama)[::4]
    return [(cameras[s.camera], s.pose, renderer.render(cameras[s.camera], s.pose, SIZE)) for s in chosen]


def test_depth_and_instance_of_an_empty_room_are_those_of_a_box(empty_room: House) -> None:
    renderer, rng = Renderer(empty_room), np.random.default_rng(0)
    intrinsics = camera_intrinsics(SIZE, rng)[0]
    panorama = choose_panoramas(empty_room, renderer.scene, 1, rng)[0]
    low, high = np.array([1.0, -2.0, 0.0]), np.array([5.0, 3.0, 2.5])
    number = {(2, 0): 0, (2, 1): 1, (1, 0): 2, (0, 1): 3, (1, 1): 4, (0, 0): 5}  # (axis, side) -> order in the house
    for shot in shots(panorama)[::5]:
        view = renderer.render(intrinsics, shot.pose, SIZE)
        rays = (
            np.concatenate([pixel_centres(*SIZE), np.ones((*SIZE, 1))], -1) @ np.linalg.inv(intrinsics).T
        ) @ shot.pose[:3, :3].T
        planes = np.where(rays > 0, high, low)
        reach = (planes - shot.pose[:3, 3]) / rays
        np.testing.assert_allclose(view.depth, reach.min(axis=-1), atol=1e-5)
        axis = reach.argmin(axis=-1)
        side = np.take_along_axis(rays > 0, axis[..., None], -1)[..., 0]
        expected = np.vectorize(lambda a, s: number[a, int(s)])(axis, side)
        assert (view.instance == expected).mean() > 0.999


def test_light_falls_off_from_the_lamp(empty_room: House) -> None:
    """Directly below the lamp the floor gets power / pi / distance^2; far corners get less."""
    light = Renderer(empty_room).light.lamps
    floor = np.abs(empty_room.vertices[:, 2]) < 1e-6
    facing_up = floor & (empty_room.normals[:, 2] > 0.9)
    below = np.linalg.norm(empty_room.vertices[:, :2] - [3.0, 0.5], axis=1)
    nearest = np.flatnonzero(facing_up)[below[facing_up].argmin()]
    assert light[nearest] == pytest.approx(2.0 / np.pi / (2.15**2 + 0.1), rel=0.05)
    assert light[facing_up].argmax() == np.flatnonzero(facing_up).tolist().index(nearest)


def test_points_of_the_exact_depth_lie_on_the_mesh_and_on_their_instance(
    renderer: Renderer, views: list[tuple[np.ndarray, np.ndarray, RenderedView]]
) -> None:
    house = renderer.house
    rng = np.random.default_rng(0)
    for intrinsics, pose, view in views:
        assert (view.depth > 0).all()
        points = backproject(pixel_centres(*SIZE), view.depth, intrinsics, pose).reshape(-1, 3)
        for k in rng.integers(points.shape[0], size=12):
            instance = house.triangles[house.instance == view.instance.ravel()[k]]
            mesh = trimesh.Trimesh(house.vertices, instance, process=False)
            nearest = trimesh.triangles.closest_point(mesh.triangles, np.tile(points[k], (len(instance), 1)))
            assert np.linalg.norm(nearest - points[k], axis=1).min() < 1e-4


def test_gloss_makes_one_point_look_different_from_two_sides(empty_room: House) -> None:
    """Matt surfaces look equally bright from everywhere, polished ones do not."""

    def change(gloss: float) -> float:
        house = replace(empty_room, materials=[replace(empty_room.materials[0], gloss=gloss)])
        renderer = Renderer(house)
        target = np.array([3.0, 1.6, 0.0])
        seen = []
        for eye in (np.array([3.0, 2.35, 1.5]), np.array([1.8, 0.8, 1.5])):  # in the lamp's mirror direction, and not
            forward = (target - eye) / np.linalg.norm(target - eye)
            right = np.cross(forward, [0, 0, 1.0])
            pose = np.eye(4)
            pose[:3, :3] = np.stack([right / np.linalg.norm(right), np.cross(forward, right), forward], axis=1)
            pose[:3, 1] /= np.linalg.norm(pose[:3, 1])
            pose[:3, 3] = eye
            intrinsics = np.array([[200.0, 0, 0.5], [0, 200.0, 0.5], [0, 0, 1]])
            seen.append(renderer.render(intrinsics, pose, (1, 1)).radiance.mean())
        return abs(seen[0] - seen[1]) / seen[0]

    assert change(0.0) < 1e-3
    assert change(0.5) > 0.02


def test_exposure_and_balance_scale_the_colour(views: list[tuple[np.ndarray, np.ndarray, RenderedView]]) -> None:
    view = views[0][2]
    balanced = np.ones(3)
    dark, bright = (develop(view, Exposure(g, balanced), np.random.default_rng(0)) for g in (0.2, 1.0))
    assert dark.mean() < bright.mean()
    red = develop(view, Exposure(0.2, np.array([1.5, 1.0, 1.0])), np.random.default_rng(0))
    assert red[..., 0].mean() > dark[..., 0].mean()
    np.testing.assert_array_equal(red[..., 1:], dark[..., 1:])


def test_sensor_depth_is_near_where_it_is_and_missing_where_specified() -> None:
    size = (256, 320)
    depth = np.full(size, 2.0, np.float32)
    depth[:, 160:] = 10.9
    plain = {
        "radiance": np.zeros((*size, 3), np.float32),
        "instance": np.zeros(size, np.int32),
        "reflectance": np.full(size, 0.5, np.float32),
        "cosine": np.ones(size, np.float32),
        "gloss": np.zeros(size, np.float32),
        "transparent": np.zeros(size, bool),
    }
    plain["transparent"][:20, :20] = True
    plain["reflectance"][100:150, 50:100] = 0.02
    plain["gloss"][200:, :100] = 0.6
    plain["cosine"][200:, :100] = 0.2
    seen = sense(RenderedView(depth=depth, **plain), np.random.default_rng(0))

    assert (seen[:20, :20] == 0).all()  # a pane
    assert (seen[:, 165:] == 0).mean() > 0.9  # far
    assert (seen[:, 159:161] == 0).all()  # the rim of a depth edge
    assert 0.6 < (seen[100:150, 50:100] == 0).mean() < 1  # dark
    assert 0.3 < (seen[200:, :100] == 0).mean() < 1  # shiny and oblique
    good = seen[30:90, :150]
    assert (good > 0).all()  # no other depth is lost
    assert np.std(good) == pytest.approx(depth_noise(np.array(2.0)), rel=0.05)
    assert np.mean(good) == pytest.approx(2.0, abs=2e-4)


def test_overall_hole_fraction_is_like_a_scanners(views: list[tuple[np.ndarray, np.ndarray, RenderedView]]) -> None:
    holes = np.mean([(sense(view, np.random.default_rng(k)) == 0).mean() for k, (_, _, view) in enumerate(views)])
    assert 0.04 < holes < 0.4
