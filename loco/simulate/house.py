"""Houses: triangles with instances and materials, and the data to light, render and label them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loco.simulate import structure
from loco.simulate.furnish import STYLES, Style, furnish, open_doors
from loco.simulate.materials import Material, noise_volume
from loco.simulate.plan import UP, Room, make_plan, pose_at
from loco.simulate.shapes import Floats
from loco.simulate.site import Site


@dataclass(frozen=True)
class Instance:
    """An object: its category (a raw label of Matterport3D), the index of its room, its object-to-world pose (4, 4)."""

    label: str
    room: int
    pose: Floats


@dataclass(frozen=True)
class Lamp:
    """A lamp at ``position`` (3,), metres, in room ``room``; ``power`` (3,) is its radiant intensity per colour."""

    position: Floats
    power: Floats
    room: int


@dataclass(frozen=True)
class Pane:
    """A window pane that emits daylight into room ``room``: a rectangle in world coordinates, metres.

    It begins at ``corner`` (3,) and has the edges ``across`` and ``up`` (3,). ``inward`` (3,) is the unit normal that
    points into the room, and ``radiance`` (3,) the emitted light per colour.
    """

    corner: Floats
    across: Floats
    up: Floats
    inward: Floats
    radiance: Floats
    room: int


@dataclass(frozen=True)
class House:
    """The triangle mesh of a simulated scene, in its world frame, metres, z up.

    ``vertices`` (n, 3) and ``normals`` (n, 3) float32; per triangle ``triangles`` (m, 3), ``instance`` (m,) and
    ``material`` (m,) int32, indices into ``vertices``, ``instances`` and ``materials``, and ``tint`` (m, 3) float32,
    which multiplies the material's reflectance. ``noise`` is the volume of
    :func:`loco.simulate.materials.noise_volume`, on which the patterns of the materials depend.
    """

    vertices: NDArray[np.float32]
    normals: NDArray[np.float32]
    triangles: NDArray[np.int32]
    instance: NDArray[np.int32]
    material: NDArray[np.int32]
    tint: NDArray[np.float32]
    instances: list[Instance]
    materials: list[Material]
    rooms: list[Room]
    lamps: list[Lamp]
    panes: list[Pane]
    noise: Floats


def scene_seed(seed: int, scene: str) -> list[int]:
    """Return the entropy for ``np.random.default_rng`` of a seed and a scene name, which is equal on all machines."""
    digest = hashlib.sha256(f"{seed}/{scene}".encode()).digest()
    return np.frombuffer(digest, dtype="<u4").tolist()


def build_house(entropy: list[int], settings: Mapping[str, Any]) -> House:
    """Build a furnished house.

    Args:
        entropy: see :func:`scene_seed`.
        settings: ``rooms``, the number of rooms; ``repetition`` in [0, 1], the probability that a piece of
            furniture, a room's style or a material is copied from an existing one.
    """
    rng = np.random.default_rng([*entropy, 1])
    return _Builder(make_plan(settings["rooms"], settings["repetition"], rng), settings["repetition"], rng).build()


@dataclass
class _Builder(Site):
    """Builds the shell of each room, furnishes it and merges all objects into a :class:`House`."""

    panes: list[Pane] = field(default_factory=list)

    def build(self) -> House:
        styles: list[Style] = []
        self.daylight = self.rng.uniform(2.0, 5.0) * self.rng.uniform([0.8, 0.92, 1.0], [1.0, 1.0, 1.2])
        for index, room in enumerate(self.rooms):
            styles.append(self._style(styles))
            self._shell(index, room, styles[-1])
        doors = open_doors(self)
        for index, style in enumerate(styles):
            furnish(self, index, style.kind, doors[index])
        return self._assemble()

    # The shell -------------------------------------------------------------------------------------------------------

    def _style(self, styles: list[Style]) -> Style:
        if styles and self.rng.random() < self.repetition:
            return styles[int(self.rng.integers(len(styles)))]
        used = {style.kind for style in styles}
        kinds = [kind for kind in STYLES if kind not in used] or list(STYLES)
        wall, floor, ceiling, trim = (self.material(name) for name in ("wall", "floor", "ceiling", "trim"))
        accent = self.material("wall") if self.rng.random() < 0.35 else wall
        return Style(kinds[int(self.rng.integers(len(kinds)))], wall, floor, ceiling, trim, accent)

    def _shell(self, index: int, room: Room, style: Style) -> None:
        self.add(structure.floor(room, style.floor), np.eye(4), index)
        self.add(structure.ceiling(room, style.ceiling), np.eye(4), index)
        special = int(self.rng.integers(4))
        for side, wall in room.walls():
            finish = style.accent if side == special else style.wall
            self.add(structure.wall(room, side, finish, style.trim), np.eye(4), index)
            for opening in (o for o in room.openings if o.wall == side):
                pose = pose_at(wall.at((opening.low + opening.high) / 2), wall.facing)
                if opening.to is None:
                    self.add(structure.window(opening, self, style.trim), pose, index)
                    corner = wall.at(opening.low, inward=-structure.PANE + 0.05, z=opening.bottom)
                    across, up = opening.width * wall.along, (opening.top - opening.bottom) * UP
                    self.panes.append(Pane(corner, across, up, wall.inward, self.daylight, index))
                elif opening.mine:
                    self.add(structure.door_frame(opening, style.trim), pose, index)

    # Assembly --------------------------------------------------------------------------------------------------------

    def _assemble(self) -> House:
        vertices, normals, triangles, instance, material, tint = ([] for _ in range(6))
        count = 0
        for number, (design, pose, _) in enumerate(self.placed):
            for part in design.parts:
                size = len(part.solid.faces)
                vertices.append(part.solid.vertices @ pose[:3, :3].T + pose[:3, 3])
                normals.append(part.solid.normals @ pose[:3, :3].T)
                triangles.append(part.solid.faces + count)
                instance.append(np.full(size, number))
                material.append(np.full(size, part.material))
                tint.append(np.tile(part.tint, (size, 1)))
                count += len(part.solid.vertices)
        return House(
            vertices=np.concatenate(vertices).astype(np.float32),
            normals=np.concatenate(normals).astype(np.float32),
            triangles=np.concatenate(triangles).astype(np.int32),
            instance=np.concatenate(instance).astype(np.int32),
            material=np.concatenate(material).astype(np.int32),
            tint=np.concatenate(tint).astype(np.float32),
            instances=[Instance(design.label, room, pose) for design, pose, room in self.placed],
            materials=self.materials,
            rooms=self.rooms,
            lamps=self._lamps(),
            panes=self.panes,
            noise=noise_volume(self.rng),
        )

    def _lamps(self) -> list[Lamp]:
        """Return the lamps that are on: all ceiling lamps and some of the small ones. All have the same warm colour."""
        warm = self.rng.uniform([1.0, 0.82, 0.6], [1.0, 0.95, 0.9])
        lamps = []
        for design, pose, room in self.placed:
            if design.light is None:
                continue
            hangs = design.light[2] < 0
            if hangs or self.rng.random() < 0.7:
                power = self.rng.uniform(1.6, 3.2) if hangs else self.rng.uniform(0.3, 0.8)
                lamps.append(Lamp((pose @ [*design.light, 1])[:3], power * warm, room))
        return lamps
