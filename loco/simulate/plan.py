"""Floor plans: a rectangle divided into rooms that are joined by doors and lit by windows.

The plan is in the xy plane, z is up; the four walls of a room are numbered counter-clockwise from the south.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree

Floats = NDArray[np.floating]
WALL = 0.12  # thickness of a wall between rooms, metres
SIDES = (2.8, 6.5)  # shortest and longest side of a room, metres
ASPECT = 1.7  # largest ratio of the longer to the shorter side of a room
UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Opening:
    """A door or a window: a rectangle [low, high] x [bottom, top] of wall ``wall``, metres along and up the wall.

    ``to`` is the index of the room behind a door, None for a window. Each door is listed in both rooms; ``mine`` is
    true in the room to which its frame and its leaf belong. ``leaf`` states whether the door has a leaf.
    """

    wall: int
    low: float
    high: float
    bottom: float
    top: float
    to: int | None = None
    mine: bool = True
    leaf: bool = False

    @property
    def width(self) -> float:
        return self.high - self.low


@dataclass(frozen=True)
class Wall:
    """The inner face of a wall: it begins at ``corner`` (3,) and extends ``length`` metres in the direction ``along``.

    ``along`` and ``inward``, which points into the room, are unit vectors (3,).
    """

    corner: Floats
    along: Floats
    inward: Floats
    length: float

    def at(self, u: float, inward: float = 0.0, z: float = 0.0) -> Floats:
        """Return the point (3,) that is ``u`` along the wall, ``inward`` in front of it, at height ``z``; metres."""
        return self.corner + u * self.along + inward * self.inward + z * UP

    @property
    def facing(self) -> float:
        """Rotation about z, in radians, by which the back (+y) of a piece of furniture faces the wall."""
        return float(np.arctan2(self.inward[0], -self.inward[1]))


@dataclass
class Room:
    """A room between the inner faces of its walls: [low, high] (2,) metres, ``height`` high."""

    low: Floats
    high: Floats
    height: float
    openings: list[Opening] = field(default_factory=list)

    @property
    def size(self) -> Floats:
        return self.high - self.low

    @property
    def area(self) -> float:
        return float(np.prod(self.size))

    def wall(self, index: int) -> Wall:
        (x0, y0), (x1, y1) = self.low, self.high
        corner = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)][index]
        along = np.array([(1, 0, 0), (0, 1, 0), (-1, 0, 0), (0, -1, 0)][index], float)
        return Wall(np.array([*corner, 0.0]), along, np.cross(UP, along), float(self.size[index % 2]))

    def walls(self) -> Iterator[tuple[int, Wall]]:
        return ((index, self.wall(index)) for index in range(4))


def pose_at(position: Sequence[float] | Floats, angle: float) -> Floats:
    """Return the object-to-world pose (4, 4) of an object at ``position`` (3,), rotated by ``angle`` (rad) about z."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y, z = position
    return np.array([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, z], [0, 0, 0, 1.0]])


def make_plan(rooms: int, repetition: float, rng: np.random.Generator) -> list[Room]:
    """Return rooms that fill a rectangle, connected by doors, each of a size within ``SIDES`` and ``ASPECT``.

    ``repetition`` is the probability that all rooms have the same size.
    """
    regular = rng.random() < repetition
    height = rng.uniform(2.4, 2.75)
    doors = None
    while doors is None:
        area, aspect = rooms * rng.uniform(13, 20), np.exp(rng.uniform(-1.0, 1.0))
        rectangles = _divide(0.0, 0.0, np.sqrt(area * aspect), np.sqrt(area / aspect), rooms, regular, rng)
        if rectangles:
            plan = [Room(np.array(r[:2]) + WALL / 2, np.array(r[2:]) - WALL / 2, height) for r in rectangles]
            doors = _doors(plan, rng)
    for a, b, opening in doors:
        plan[a].openings.append(opening)
        plan[b].openings.append(_other_side(plan, a, b, opening))
    for room in plan:
        _add_windows(room, plan, rng)
    return plan


def _divide(
    x0: float, y0: float, x1: float, y1: float, rooms: int, regular: bool, rng: np.random.Generator
) -> list[tuple[float, float, float, float]] | None:
    """Divide a rectangle recursively into rooms (x0, y0, x1, y1); return None if no valid cut is found."""
    if rooms == 1:
        short, long = sorted((x1 - x0 - WALL, y1 - y0 - WALL))
        return [(x0, y0, x1, y1)] if SIDES[0] <= short and long <= min(SIDES[1], ASPECT * short) else None
    for _ in range(8):
        first = rooms // 2 if regular else int(rng.integers(1, rooms))
        fraction = first / rooms * (1 if regular else rng.uniform(0.7, 1.4))
        if x1 - x0 > (y1 - y0) * rng.uniform(0.6, 1.6):
            cut = x0 + fraction * (x1 - x0)
            halves = (x0, y0, cut, y1), (cut, y0, x1, y1)
        else:
            cut = y0 + fraction * (y1 - y0)
            halves = (x0, y0, x1, cut), (x0, cut, x1, y1)
        one = _divide(*halves[0], first, regular, rng)
        other = _divide(*halves[1], rooms - first, regular, rng) if one else None
        if one and other:
            return one + other
    return None


def _doors(plan: list[Room], rng: np.random.Generator) -> list[tuple[int, int, Opening]] | None:
    """Return doors (room, room behind, opening in the first) that connect all rooms; None if this is impossible."""
    shared = {}
    for a, b in combinations(range(len(plan)), 2):
        for index, wall in plan[a].walls():
            gap = plan[b].wall((index + 2) % 4).corner - wall.corner
            offset = float(gap @ wall.along)
            low, high = sorted((offset, offset - plan[b].wall((index + 2) % 4).length))
            low, high = max(low, 0.0), min(high, wall.length)
            if abs(gap @ wall.inward + WALL) < 1e-6 and high - low > 1.5:
                shared[a, b] = (index, low, high)
    weights = np.zeros((len(plan), len(plan)))
    for a, b in shared:
        weights[a, b] = rng.uniform(0.5, 1.0)
    tree = minimum_spanning_tree(weights).toarray() > 0
    if tree.sum() < len(plan) - 1:
        return None
    chosen = [pair for pair in shared if tree[pair] or rng.random() < 0.25]
    return [(a, b, _door(*shared[a, b], b, rng)) for a, b in chosen]


def _door(wall: int, low: float, high: float, to: int, rng: np.random.Generator) -> Opening:
    wide = high - low > 2.6 and rng.random() < 0.35
    width = rng.uniform(1.3, 1.8) if wide else 0.85
    start = rng.uniform(low + 0.32, high - 0.32 - width)
    return Opening(wall, start, start + width, 0.0, 2.05, to=to, leaf=not wide and rng.random() < 0.7)


def _other_side(plan: list[Room], a: int, b: int, door: Opening) -> Opening:
    index = (door.wall + 2) % 4
    mine, theirs = plan[a].wall(door.wall), plan[b].wall(index)
    low, high = sorted(float((mine.at(u) - theirs.corner) @ theirs.along) for u in (door.low, door.high))
    return Opening(index, low, high, door.bottom, door.top, to=a, mine=False)


def _add_windows(room: Room, plan: list[Room], rng: np.random.Generator) -> None:
    corners = np.concatenate([[r.low, r.high] for r in plan])
    low, high = corners.min(axis=0), corners.max(axis=0)
    outer = [
        index
        for index, wall in room.walls()
        if np.any(np.abs((wall.corner[:2] - (low if index in (0, 3) else high))[[1, 0, 1, 0][index]]) < 1e-6)
    ]
    sure = int(rng.choice(outer)) if outer else None
    for index in outer:
        if index != sure and rng.random() < 0.55:
            continue
        length, count = room.wall(index).length, 1 + int(room.wall(index).length > 4.2 and rng.random() < 0.5)
        french = count == 1 and rng.random() < 0.2
        width = rng.uniform(0.9, min(1.5, length / count - 1.0))
        bottom, top = (0.12 if french else rng.uniform(0.8, 1.0)), rng.uniform(2.0, 2.15)
        for k in range(count):
            centre = length * (k + 0.5) / count + rng.uniform(-0.25, 0.25)
            room.openings.append(Opening(index, centre - width / 2, centre + width / 2, bottom, top))
