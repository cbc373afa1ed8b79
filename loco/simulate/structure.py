"""The structure of a house: floors, ceilings, walls with openings, door frames and windows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from loco.simulate.furniture import Design, Materials, Part
from loco.simulate.plan import UP, WALL, Opening, Room
from loco.simulate.shapes import Floats, Solid, box, grid, join, lines

PANE = 0.1  # distance of the pane behind the wall's inner face, metres
CELL = 0.2  # spacing of the vertices of walls and floors, at which light is stored, metres


def floor(room: Room, material: int) -> Design:
    """Return the floor of a room in the coordinates of the house, like ceilings and walls."""
    return Design("floor", [Part(_rectangle(_corner(room), [1, 0, 0], [0, 1, 0], *room.size), material)])


def ceiling(room: Room, material: int) -> Design:
    corner = _corner(room) + room.height * UP
    return Design("ceiling", [Part(_rectangle(corner, [0, 1, 0], [1, 0, 0], *room.size[::-1]), material)])


def wall(room: Room, index: int, material: int, trim: int) -> Design:
    """Return wall ``index`` of a room with its openings cut out and a skirting, in the coordinates of the house."""
    face, openings = room.wall(index), [o for o in room.openings if o.wall == index]
    us = lines(face.length, CELL, [u for o in openings for u in (o.low, o.high)])
    zs = lines(room.height, CELL, [z for o in openings for z in (o.bottom, o.top)])
    u, z = np.meshgrid((us[1:] + us[:-1]) / 2, (zs[1:] + zs[:-1]) / 2)
    keep = np.ones(u.shape, bool)
    for o in openings:
        keep &= ~((u > o.low) & (u < o.high) & (z > o.bottom) & (z < o.top))
    parts = [Part(grid(face.corner, UP, face.along, zs, us, keep), material)]
    ends = sorted([(0.0, 0.0), *((o.low - 0.09, o.high + 0.09) for o in openings if o.bottom == 0), (face.length, 0.0)])
    for (_, start), (end, _) in pairwise(ends):
        if end - start > 0.02:
            board = (
                box(end - start, 0.02, 0.09 + 0.002 * (index % 2))
                .turned(face.facing)
                .moved(face.at((start + end) / 2, 0.002, -0.003))
            )
            parts.append(Part(board, trim))
    return Design("wall", parts)


def door_frame(door: Opening, trim: int) -> Design:
    """Return the lining of a door's opening with a casing on both sides; the inner face of the wall is at y = 0."""
    w, h = door.width, door.top
    parts = [Part(_reveals(w, 0.0, h, WALL), trim)]
    for y in (-0.002, WALL + 0.002):
        parts += [Part(box(0.08, 0.024, h + 0.005, (s * (w / 2 + 0.045), y, -0.003)), trim) for s in (-1, 1)]
        parts.append(Part(box(w + 0.17, 0.026, 0.08, (0, y, h + 0.005)), trim))
    return Design("door frame", parts)


def window(opening: Opening, take: Materials, trim: int) -> Design:
    """Return the pane, bars and sill of a window; the inner face of its wall is the plane y = 0."""
    w, low, high = opening.width, opening.bottom, opening.top
    columns, rows = int(take.rng.integers(1, 4)), int(take.rng.integers(1, 3))
    bar, y = 0.055, PANE - 0.02
    pane = _rectangle(np.array([-w / 2, PANE, low]), [1, 0, 0], UP, w, high - low)
    bars = [box(bar, 0.05, high - low, (s * (w - bar) / 2, y, low)) for s in (-1, 1)]
    bars += [box(w - 2 * bar, 0.05, bar, (0, y, z)) for z in (low, high - bar)]
    bars += [box(0.035, 0.04, high - low - 2 * bar, (w * (k / columns - 0.5), y, low + bar)) for k in range(1, columns)]
    bars += [
        box(w / columns - 0.05, 0.03, 0.03, (w * ((j + 0.5) / columns - 0.5), y, low + (high - low) * 0.66))
        for j in range(columns)
        if rows > 1
    ]
    sill = box(w - 0.002, PANE + 0.03, 0.025, (0, (PANE - 0.03) / 2 - 0.035, low + 0.001))
    return Design(
        "window",
        [
            Part(pane, take.material("pane")),
            Part(_reveals(w, low, high, PANE + 0.004), trim),
            Part(join(bars), trim),
            Part(sill, trim),
        ],
    )


def _reveals(width: float, low: float, high: float, depth: float) -> Solid:
    """Return the four inner sides of an opening, from y = 0 to ``depth``, facing its centre."""
    left, right = np.array([-width / 2, 0, low]), np.array([width / 2, 0, low])
    y = [0, 1, 0]
    return join(
        [
            _rectangle(left, y, UP, depth, high - low),
            _rectangle(right, UP, y, high - low, depth),
            _rectangle(left, [1, 0, 0], y, width, depth),
            _rectangle(left + (high - low) * UP, y, [1, 0, 0], depth, width),
        ]
    )


def _rectangle(corner: Floats, along: ArrayLike, up: ArrayLike, length: float, height: float) -> Solid:
    return grid(corner, np.asarray(along, float), np.asarray(up, float), lines(length, CELL), lines(height, CELL))


def _corner(room: Room) -> Floats:
    return np.array([*room.low, 0.0])
