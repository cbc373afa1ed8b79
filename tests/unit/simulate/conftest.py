from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loco.simulate import simulate_scene, structure
from loco.simulate.house import House, Instance, Lamp, build_house, scene_seed
from loco.simulate.materials import Material, noise_volume
from loco.simulate.plan import Room
from loco.simulate.render import Renderer

SETTINGS: dict[str, Any] = {
    "seed": 3,
    "rooms": 2,
    "panoramas": 1,
    "image": {"height": 64, "width": 80},
    "repetition": 0.3,
}


@pytest.fixture(scope="session")
def settings() -> dict[str, Any]:
    return SETTINGS


@pytest.fixture(scope="session")
def house() -> House:
    return build_house(scene_seed(3, "a"), SETTINGS)


@pytest.fixture(scope="session")
def renderer(house: House) -> Renderer:
    return Renderer(house)


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a scene "a" as raw Matterport3D."""
    directory = tmp_path_factory.mktemp("raw") / "a"
    simulate_scene("matterport3d", directory, "a", SETTINGS)
    return directory


@pytest.fixture(scope="session")
def empty_room() -> House:
    """Return a room of 4 x 5 x 2.5 m without openings: a box with closed-form depth."""
    room = Room(np.array([1.0, -2.0]), np.array([5.0, 3.0]), 2.5)
    designs = [structure.floor(room, 0), structure.ceiling(room, 0), *(structure.wall(room, k, 0, 0) for k in range(4))]
    parts = [(number, design.parts[0].solid) for number, design in enumerate(designs)]  # without the skirting
    starts = np.cumsum([0, *(len(solid.vertices) for _, solid in parts)])
    triangles = np.concatenate([solid.faces + start for (_, solid), start in zip(parts, starts)])
    return House(
        vertices=np.concatenate([solid.vertices for _, solid in parts]).astype(np.float32),
        normals=np.concatenate([solid.normals for _, solid in parts]).astype(np.float32),
        triangles=triangles.astype(np.int32),
        instance=np.concatenate([np.full(len(solid.faces), n) for n, solid in parts]).astype(np.int32),
        material=np.zeros(len(triangles), np.int32),
        tint=np.ones((len(triangles), 3), np.float32),
        instances=[Instance(design.label, 0, np.eye(4)) for design in designs],
        materials=[Material("plain", np.full((1, 3), 0.5))],
        rooms=[room],
        lamps=[Lamp(np.array([3.0, 0.5, 2.2]), np.full(3, 2.0), 0)],
        panes=[],
        noise=noise_volume(np.random.default_rng(0)),
    )
