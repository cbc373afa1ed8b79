from __future__ import annotations

import numpy as np
import open3d as o3d
import pytest

from loco.simulate.furniture import KINDS
from loco.simulate.house import House, build_house, scene_seed
from loco.simulate.lighting import ray_scene
from loco.simulate.materials import Material, random_material, reflectance
from loco.simulate.panoramas import CLEARANCE, choose_panoramas
from loco.simulate.plan import ASPECT, SIDES, make_plan
from loco.simulate.render import Renderer


class Stock:
    def __init__(self, seed: int) -> None:
        self.rng, self.materials = np.random.default_rng(seed), []

    def material(self, finish: str) -> int:
        return self.own(random_material(finish, self.rng))

    def own(self, material: Material) -> int:
        self.materials.append(material)
        return len(self.materials) - 1


@pytest.mark.parametrize("rooms", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("repetition", [0.0, 1.0])
def test_plan_rooms_are_habitable_disjoint_and_joined(rooms: int, repetition: float) -> None:
    plan = make_plan(rooms, repetition, np.random.default_rng([rooms, 4]))
    assert len(plan) == rooms
    reached = {0}
    for _ in range(rooms):
        reached |= {o.to for k in reached for o in plan[k].openings if o.to is not None}
    assert reached == set(range(rooms))
    for k, room in enumerate(plan):
        assert SIDES[0] <= room.size.min() + 1e-9
        assert room.size.max() <= min(SIDES[1], ASPECT * room.size.min()) + 1e-9
        assert all(np.any(room.low >= other.high) or np.any(room.high <= other.low) for other in plan[k + 1 :])
        assert all(0 < o.low < o.high < room.wall(o.wall).length and o.top < room.height for o in room.openings)
    if repetition == 1:
        np.testing.assert_allclose([room.area for room in plan], plan[0].area, rtol=0.1)


def test_doors_are_open(house: House) -> None:
    """A ray through the centre of each doorway, above the handle of a door, passes from one room into the other."""
    scene = ray_scene(house)
    doors = [(room, o) for room in house.rooms for o in room.openings if o.to is not None]
    assert doors
    for room, door in doors:
        wall = room.wall(door.wall)
        start = wall.at((door.low + door.high) / 2, inward=0.2, z=1.3)
        end = wall.at((door.low + door.high) / 2, inward=-0.32, z=1.3)
        other = house.rooms[door.to]
        assert np.all(room.low < start[:2]) and np.all(start[:2] < room.high)  # noqa: PT018
        assert np.all(other.low < end[:2]) and np.all(end[:2] < other.high)  # noqa: PT018
        assert np.isinf(_first_hit(scene, start, end - start)) or _first_hit(scene, start, end - start) > 1


def test_house_is_closed(house: House) -> None:
    """From inside, no ray in any direction escapes."""
    scene = ray_scene(house)
    directions = np.random.default_rng(0).standard_normal((5000, 3))
    for room in house.rooms:
        start = np.array([*(room.low + room.high) / 2, 1.9])
        assert np.isfinite(_first_hit(scene, start, directions)).all()


def test_faces_are_distinct_and_not_degenerate(house: House) -> None:
    corners = house.vertices[house.triangles].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    assert area.min() > 1e-8
    centres = np.sort(np.round(corners, 4).reshape(len(corners), -1), axis=1)
    middles = np.concatenate([np.round(corners.mean(axis=1), 4), centres], axis=1)
    assert len(np.unique(middles, axis=0)) == len(middles)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_furniture_faces_point_outwards(kind: str) -> None:
    """Each part is a closed solid: by the divergence theorem its signed volume is positive."""
    for seed in range(3):
        design = KINDS[kind](Stock(seed))
        for part in design.parts:
            a, b, c = (part.solid.vertices[part.solid.faces[:, k]] for k in range(3))
            assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6 > 1e-8
            face = np.cross(b - a, c - a)
            agree = np.einsum("ij,ikj->ik", face, part.solid.normals[part.solid.faces])
            assert np.all(agree > 0)


def test_furniture_does_not_intersect(house: House) -> None:
    """No vertex of a piece is well inside the box that another piece of simple shape fills."""
    solid = {"wardrobe", "chest of drawers", "nightstand", "refrigerator", "tv stand", "cabinet", "bathtub"}
    points = {
        k: house.vertices[house.triangles[house.instance == k]].reshape(-1, 3) for k in range(len(house.instances))
    }
    for k in (k for k, instance in enumerate(house.instances) if instance.label in solid):
        low, high = points[k].min(axis=0) + 0.02, points[k].max(axis=0) - 0.02
        for other in range(len(house.instances)):
            if other != k and house.instances[other].label != "rug":
                assert not np.any(np.all((points[other] > low) & (points[other] < high), axis=1)), (k, other)


def test_standing_places_are_clear(renderer: Renderer) -> None:
    chosen = choose_panoramas(renderer.house, renderer.scene, 4, np.random.default_rng(0))
    assert {panorama.room for panorama in chosen} == {0, 1}
    for panorama in chosen:
        room = renderer.house.rooms[panorama.room]
        assert np.all(panorama.position[:2] > room.low + CLEARANCE - 1e-6)
        assert np.all(panorama.position[:2] < room.high - CLEARANCE + 1e-6)
        near = renderer.scene.compute_distance(o3d.core.Tensor(panorama.position[None].astype(np.float32))).item()
        assert near > CLEARANCE - 0.15
    places = np.array([panorama.position for panorama in chosen])
    assert np.linalg.norm(places[:, None] - places, axis=-1)[np.triu_indices(4, 1)].min() > 0.3


def test_repetition_0_makes_every_piece_another_and_1_one_design_of_a_kind() -> None:
    new, same = (build_house(scene_seed(0, "h6"), {"rooms": 4, "repetition": r}) for r in (0.0, 1.0))
    for label, least in (("picture", 4), ("chair", 1)):
        assert len(_labelled(new, label)) > least
        assert len({_shape(new, k) for k in _labelled(new, label)}) == len(_labelled(new, label))
        assert len({_shape(same, k) for k in _labelled(same, label)}) <= 1
    assert len(_labelled(same, "picture")) > 1
    assert len(same.materials) < 0.3 * len(new.materials)
    some = build_house(scene_seed(0, "h6"), {"rooms": 4, "repetition": 0.6})
    pictures = _labelled(some, "picture")
    assert 1 < len({_shape(some, k) for k in pictures}) < len(pictures)


def test_house_is_decided_by_seed_and_name() -> None:
    settings = {"rooms": 1, "repetition": 0.3}
    one, same = (build_house(scene_seed(5, "x"), settings) for _ in range(2))
    np.testing.assert_array_equal(one.vertices, same.vertices)
    np.testing.assert_array_equal(one.noise, same.noise)
    for other in (scene_seed(5, "y"), scene_seed(6, "x")):
        house = build_house(other, settings)
        assert house.vertices.shape != one.vertices.shape or np.any(house.vertices != one.vertices)
        assert np.abs(house.noise - one.noise).mean() > 0.1


def test_tiles_repeat_after_two() -> None:
    """A checkerboard without noise is equal two tiles further, and different one tile further."""
    colours = np.array([[0.2, 0.2, 0.2], [0.8, 0.8, 0.8], [0.5, 0.5, 0.5]])
    material = Material("tiles", colours, scale=0.5)
    middles = np.array([[0.25, 0.25, 0], [0.75, 0.25, 0], [1.25, 0.25, 0], [0.75, 0.75, 0]])
    shade = reflectance(material, middles, np.tile([0, 0, 1.0], (4, 1)), np.zeros((64, 64, 64), np.float32))
    light = shade[:, 0] > 0.5
    assert light.tolist() == [False, True, False, False]


def _first_hit(scene: o3d.t.geometry.RaycastingScene, start: np.ndarray, directions: np.ndarray) -> np.ndarray:
    directions = np.atleast_2d(directions)
    rays = np.concatenate([np.broadcast_to(start, directions.shape), directions], axis=1).astype(np.float32)
    return scene.cast_rays(o3d.core.Tensor(rays), nthreads=1)["t_hit"].numpy()


def _labelled(house: House, label: str) -> list[int]:
    return [k for k, instance in enumerate(house.instances) if instance.label == label]


def _shape(house: House, number: int) -> tuple[float, ...]:
    """Return coordinates in the frame of the object, which are equal for copies of a design."""
    instance = house.instances[number]
    points = house.vertices[house.triangles[house.instance == number][:, 0]] - instance.pose[:3, 3]
    return tuple(np.round(points @ instance.pose[:3, :3], 3).max(axis=0).tolist())
