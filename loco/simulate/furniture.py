"""Furniture: each function returns a random design of one kind of piece.

A piece stands on the plane z = 0, its footprint is centred at the origin, and its back is at +y; lengths are in metres.
Pictures and similar pieces hang with their back in the plane y = 0 and their centre at z = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np

from loco.simulate.materials import Material, random_image
from loco.simulate.shapes import Floats, Solid, box, cushion, cylinder, join, lathe

WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Part:
    """A solid of one material; ``tint`` multiplies its reflectance."""

    solid: Solid
    material: int
    tint: tuple[float, float, float] = WHITE


@dataclass(frozen=True)
class Design:
    """A piece of furniture, which can be placed any number of times.

    ``label`` is its raw label in Matterport3D; ``tops`` are areas (x0, y0, x1, y1, z) on which objects can be placed;
    ``light`` is the position of the light of a lamp, None for other pieces.
    """

    label: str
    parts: list[Part]
    tops: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    light: tuple[float, float, float] | None = None

    @property
    def bounds(self) -> Floats:
        """(2, 3) lowest and highest coordinates."""
        points = np.concatenate([part.solid.vertices for part in self.parts])
        return np.stack([points.min(axis=0), points.max(axis=0)])


class Materials(Protocol):
    """Source of the materials of designs; both methods return the index of a material.

    :class:`loco.simulate.site.Site` implements it.
    """

    rng: np.random.Generator

    def material(self, finish: str) -> int: ...

    def own(self, material: Material) -> int: ...


def chair(take: Materials) -> Design:
    r = take.rng
    frame, seat = take.material(r.choice(["wood", "metal", "lacquer"])), take.material(r.choice(["fabric", "wood"]))
    w, d, h = r.uniform(0.4, 0.5), r.uniform(0.4, 0.48), r.uniform(0.43, 0.48)
    top, leg = h + r.uniform(0.38, 0.6), r.uniform(0.028, 0.045)
    parts = _legs(w, d, h - 0.05, leg, frame, r)
    parts.append(
        Part(cushion(w, d, 0.07, (0, 0, h - 0.05), 8) if r.random() < 0.5 else box(w, d, 0.04, (0, 0, h - 0.05)), seat)
    )
    back = d / 2 - 0.02
    if r.random() < 0.5:  # a panel
        low = h + r.uniform(0.0, 0.15)
        parts.append(Part(box(w - 0.02, 0.035, top - low, (0, back, low)), seat))
        parts += [Part(box(leg, leg, low - h + 0.04, (s * (w / 2 - leg), back, h - 0.03)), frame) for s in (-1, 1)]
    else:  # posts with rails or slats
        parts += [Part(box(leg, leg, top - h + 0.02, (s * (w / 2 - leg / 2), back, h - 0.02)), frame) for s in (-1, 1)]
        if r.random() < 0.5:
            for z in np.linspace(h + 0.12, top - 0.09, int(r.integers(2, 5))):
                parts.append(Part(box(w - 2 * leg, 0.02, 0.06, (0, back, z)), frame))
        else:
            parts.append(Part(box(w - 2 * leg, 0.025, 0.06, (0, back, top - 0.07)), frame))
            for x in np.linspace(-w / 2 + 0.09, w / 2 - 0.09, int(r.integers(3, 6))):
                parts.append(Part(box(0.025, 0.018, top - h - 0.04, (x, back, h - 0.02)), frame))
    if r.random() < 0.25:  # arms
        for s in (-1, 1):
            parts.append(Part(box(0.04, d * 0.8, 0.03, (s * (w / 2 - 0.02), 0.03, h + 0.2)), frame))
            parts.append(Part(box(0.03, 0.03, 0.24, (s * (w / 2 - 0.02), -d * 0.3, h - 0.03)), frame))
    return Design("chair", parts)


def stool(take: Materials) -> Design:
    r = take.rng
    frame, seat = take.material(r.choice(["wood", "metal"])), take.material(r.choice(["wood", "fabric", "leather"]))
    radius, h = r.uniform(0.16, 0.22), r.uniform(0.42, 0.7)
    if r.random() < 0.5:
        parts = [
            Part(cylinder(0.03, h - 0.04), frame),
            Part(lathe([(0, 0), (radius, 0), (0.05, 0.05), (0, 0.05)]), frame),
        ]
    else:
        parts = _legs(1.4 * radius, 1.4 * radius, h - 0.04, 0.03, frame, r)
    parts.append(
        Part(lathe([(0, 0), (radius, 0), (radius, 0.04), (0.8 * radius, 0.06), (0, 0.06)], (0, 0, h - 0.05)), seat)
    )
    return Design("stool", parts)


def table(take: Materials) -> Design:
    return _table(take, "table", take.rng.uniform(1.1, 1.9), take.rng.uniform(0.8, 1.0), take.rng.uniform(0.72, 0.77))


def coffee_table(take: Materials) -> Design:
    r = take.rng
    return _table(take, "coffee table", r.uniform(0.7, 1.1), r.uniform(0.5, 0.65), r.uniform(0.36, 0.46))


def desk(take: Materials) -> Design:
    r = take.rng
    wood, dark = take.material("wood"), take.material("black")
    w, d, h = r.uniform(1.1, 1.5), r.uniform(0.6, 0.7), r.uniform(0.72, 0.76)
    side = r.choice([-1, 1])
    parts = [
        Part(box(w, d, 0.035, (0, 0, h - 0.035)), wood),
        Part(box(0.03, d - 0.06, h - 0.035, (-side * (w / 2 - 0.04), 0, 0)), wood),
        *_fronts(
            0.4,
            d - 0.06,
            h - 0.035,
            3,
            1,
            (side * (w / 2 - 0.22), 0, 0),
            wood,
            wood,
            take.material("metal"),
            drawers=True,
        ),
    ]
    if r.random() < 0.7:  # a monitor
        parts += [
            Part(cylinder(0.1, 0.015, (0, 0.12, h)), dark),
            Part(box(0.04, 0.02, 0.2, (0, 0.16, h)), dark),
            Part(box(0.55, 0.03, 0.33, (0, 0.13, h + 0.12)), dark),
            Part(box(0.52, 0.004, 0.3, (0, 0.112, h + 0.135)), take.material("screen")),
            Part(box(0.4, 0.13, 0.02, (0, -0.1, h)), dark),
        ]
        return Design("desk", parts)
    return Design("desk", parts, tops=[(-w / 2, -d / 2, w / 2, d / 2, h)])


def sofa(take: Materials) -> Design:
    return _sofa(take, "sofa", int(take.rng.integers(2, 4)))


def armchair(take: Materials) -> Design:
    return _sofa(take, "armchair", 1)


def bed(take: Materials) -> Design:
    r = take.rng
    frame, linen, cover = (
        take.material(r.choice(["wood", "fabric", "lacquer"])),
        take.material("linen"),
        take.material("fabric"),
    )
    w, d, h = r.choice([0.95, 1.45, 1.7]), r.uniform(2.0, 2.1), r.uniform(0.26, 0.34)
    head = r.uniform(0.8, 1.25)
    parts = [
        Part(box(w, d, h - 0.1, (0, 0, 0.1)), frame),
        *[
            Part(box(0.07, 0.07, 0.1, (s * (w / 2 - 0.06), t * (d / 2 - 0.06), 0)), frame)
            for s in (-1, 1)
            for t in (-1, 1)
        ],
        Part(cushion(w - 0.04, d - 0.06, 0.22, (0, -0.01, h - 0.02), 12), linen),
        Part(box(w + 0.03, 0.06, head, (0, d / 2 + 0.02, 0)), frame),
        Part(cushion(w + 0.02, d * r.uniform(0.5, 0.7), 0.16, (0, -d * 0.17, h + 0.09), 9), cover),
    ]
    if r.random() < 0.4:
        parts.append(Part(box(w + 0.03, 0.05, h + 0.25, (0, -d / 2 - 0.02, 0)), frame))
    for x in [0.0] if w < 1.2 else [-w / 4, w / 4]:
        pillow = (
            cushion(r.uniform(0.5, 0.62), 0.38, 0.15).turned(r.uniform(-0.15, 0.15)).moved((x, d / 2 - 0.26, h + 0.18))
        )
        parts.append(Part(pillow, linen if r.random() < 0.6 else take.material("fabric")))
    return Design("bed", parts)


def nightstand(take: Materials) -> Design:
    r = take.rng
    return _cabinet(
        take, "nightstand", r.uniform(0.38, 0.5), 0.38, r.uniform(0.42, 0.6), int(r.integers(1, 4)), 1, True
    )


def chest(take: Materials) -> Design:
    r = take.rng
    columns = int(r.integers(1, 4))
    return _cabinet(
        take, "chest of drawers", r.uniform(0.7, 1.3), 0.45, r.uniform(0.75, 1.05), int(r.integers(2, 5)), columns, True
    )


def wardrobe(take: Materials) -> Design:
    r = take.rng
    doors = int(r.integers(2, 5))
    return _cabinet(take, "wardrobe", doors * r.uniform(0.42, 0.5), 0.58, r.uniform(1.8, 2.15), 1, doors, False)


def tv_stand(take: Materials) -> Design:
    r = take.rng
    return _cabinet(
        take,
        "tv stand",
        r.uniform(1.3, 1.8),
        0.42,
        r.uniform(0.4, 0.55),
        int(r.integers(1, 3)),
        int(r.integers(2, 4)),
        True,
    )


def sideboard(take: Materials) -> Design:
    r = take.rng
    return _cabinet(take, "cabinet", r.uniform(1.0, 1.6), 0.45, r.uniform(0.75, 0.95), 1, int(r.integers(2, 5)), False)


def tv(take: Materials) -> Design:
    w = take.rng.uniform(0.95, 1.3)
    h, dark = 0.58 * w, take.material("black")
    parts = [
        Part(box(w, 0.05, h, (0, 0.01, 0.06)), dark),
        Part(box(w - 0.04, 0.004, h - 0.04, (0, -0.017, 0.08)), take.material("screen")),
        Part(box(0.4, 0.2, 0.02), dark),
        Part(box(0.1, 0.03, 0.06, (0, 0.02, 0.01)), dark),
    ]
    return Design("tv", parts)


def bookshelf(take: Materials) -> Design:
    r = take.rng
    wood, paper = take.material(r.choice(["wood", "lacquer"])), take.material("paper")
    w, d, h = r.uniform(0.7, 1.2), r.uniform(0.28, 0.34), r.uniform(1.5, 2.05)
    levels = int(r.integers(4, 7))
    parts = [Part(box(0.025, d, h, (s * (w / 2 - 0.0125), 0, 0)), wood) for s in (-1, 1)]
    parts.append(Part(box(w - 0.05, 0.012, h - 0.04, (0, d / 2 - 0.008, 0.02)), wood))
    shelves = np.linspace(0.06, h - 0.025, levels + 1)
    parts += [Part(box(w - 0.05, d - 0.016, 0.025, (0, -0.008, z)), wood) for z in shelves]
    for z, above in pairwise(shelves):
        parts += _books(-w / 2 + 0.04, w / 2 - 0.04, z + 0.025, above - z - 0.04, d - 0.06, paper, r)
    return Design("bookshelf", parts)


def floor_lamp(take: Materials) -> Design:
    r = take.rng
    metal, shade = take.material(r.choice(["metal", "black", "wood"])), take.material("shade")
    h, radius = r.uniform(1.35, 1.65), r.uniform(0.16, 0.24)
    parts = [
        Part(lathe([(0, 0), (0.15, 0), (0.14, 0.025), (0.02, 0.04), (0, 0.04)]), metal),
        Part(cylinder(0.014, h, sections=8), metal),
        Part(lathe([(0, 0.02), (radius, 0), (radius * r.uniform(0.5, 0.9), 0.27), (0, 0.25)], (0, 0, h - 0.05)), shade),
    ]
    return Design("lamp", parts, light=(0, 0, h - 0.12))


def table_lamp(take: Materials) -> Design:
    r = take.rng
    foot, shade = take.material(r.choice(["glaze", "metal", "wood"])), take.material("shade")
    h, radius = r.uniform(0.2, 0.32), r.uniform(0.1, 0.15)
    belly = r.uniform(0.04, 0.09)
    parts = [
        Part(
            lathe([(0, 0), (0.07, 0), (0.06, 0.015), (0.025, 0.03), (belly, h * 0.45), (0.02, h), (0, h)], sections=14),
            foot,
        ),
        Part(lathe([(0, 0.01), (radius, 0), (radius * 0.7, 0.18), (0, 0.17)], (0, 0, h), sections=14), shade),
    ]
    return Design("lamp", parts, light=(0, 0, h + 0.25))


def ceiling_lamp(take: Materials) -> Design:
    """Return a lamp that hangs from z = 0."""
    r = take.rng
    shade, metal = take.material("shade"), take.material("metal")
    radius, drop = r.uniform(0.13, 0.25), r.uniform(0.1, 0.35)
    style = r.integers(3)
    if style == 0:
        parts = [Part(lathe([(0, -0.12), (radius, -0.1), (radius * 1.05, -0.0), (0, 0.004)]), shade)]
        return Design("lamp", parts, light=(0, 0, -0.2))
    globe = (
        cushion(2 * radius, 2 * radius, 1.6 * radius, (0, 0, -drop - 1.6 * radius), 2)
        if style == 1
        else lathe([(0, 0.03), (radius, 0), (0.3 * radius, radius), (0, radius)], (0, 0, -drop - radius))
    )
    parts = [Part(globe, shade), Part(cylinder(0.01, drop + 0.04, (0, 0, -drop - 0.03), sections=8), metal)]
    return Design("lamp", parts, light=(0, 0, -drop - 1.6 * radius - 0.08))


def plant(take: Materials) -> Design:
    r = take.rng
    pot, leaf, stem = take.material("glaze"), take.material("foliage"), take.material("wood")
    radius, height, total = r.uniform(0.12, 0.2), r.uniform(0.2, 0.38), r.uniform(0.7, 1.5)
    profile = [(0, 0), (radius * r.uniform(0.6, 1.0), 0), (radius, height), (radius * 0.85, height), (0, height - 0.03)]
    parts = [
        Part(lathe(profile), pot),
        Part(cylinder(0.015, total * 0.75 - height, (0, 0, height - 0.03), sections=6), stem),
    ]
    length, narrow = r.uniform(0.2, 0.4), r.uniform(0.25, 0.7)
    for k in range(int(r.integers(14, 26))):
        blade = cushion(length * narrow, length, 0.012, power=2, detail=1).moved((0, length / 2 + 0.02, 0))
        blade = blade.turned(r.uniform(-0.4, 1.2), axis=0).turned(2.4 * k + r.uniform(-0.3, 0.3))
        z = height + (total - height) * r.uniform(0.25, 0.85)
        tint = tuple(r.uniform(0.75, 1.15) * np.ones(3))
        parts.append(Part(blade.moved((0, 0, z)), leaf, tint))
    return Design("plant", parts)


def vase(take: Materials) -> Design:
    r = take.rng
    h, rim = r.uniform(0.14, 0.35), r.uniform(0.03, 0.07)
    belly = [(rim * r.uniform(0.8, 1.8), h * t) for t in (0.25, 0.5, 0.75)]
    profile = [(0, 0), (rim, 0), *belly, (rim, h), (rim * 0.7, h - 0.01), (0, h - 0.04)]
    return Design("vase", [Part(lathe(profile, sections=16), take.material(r.choice(["glaze", "ceramic", "metal"])))])


def bowl(take: Materials) -> Design:
    r = take.rng
    radius = r.uniform(0.1, 0.17)
    profile = [(0, 0), (0.4 * radius, 0), (radius, 0.07), (0.92 * radius, 0.07), (0.3 * radius, 0.02), (0, 0.02)]
    parts = [Part(lathe(profile), take.material(r.choice(["glaze", "wood", "ceramic"])))]
    for k in range(int(r.integers(0, 5))):
        fruit = cushion(0.07, 0.07, 0.07, (0.045 * np.cos(1.9 * k), 0.045 * np.sin(1.9 * k), 0.03), power=2, detail=1)
        parts.append(Part(fruit, take.material("glaze")))
    return Design("bowl", parts)


def books(take: Materials) -> Design:
    r, paper = take.rng, take.material("paper")
    parts, z = [], 0.0
    for _ in range(int(r.integers(2, 6))):
        h = r.uniform(0.02, 0.05)
        solid = box(r.uniform(0.2, 0.28), r.uniform(0.15, 0.2), h).turned(r.uniform(-0.3, 0.3)).moved((0, 0, z))
        parts.append(Part(solid, paper, _spine(r)))
        z += h + 0.001
    return Design("book", parts)


def carton(take: Materials) -> Design:
    r = take.rng
    w, d, h = r.uniform(0.25, 0.5, 3)
    material = take.material(r.choice(["fabric", "wood", "lacquer"]))
    return Design(
        "box",
        [Part(box(w, d, h), material), Part(box(w + 0.02, d + 0.02, 0.05, (0, 0, h - 0.04)), material, (0.7,) * 3)],
    )


def picture(take: Materials) -> Design:
    r = take.rng
    w, h = r.uniform(0.3, 1.0), r.uniform(0.3, 0.8)
    border, mat = r.uniform(0.02, 0.05), r.choice([0.0, 0.06])
    frame = take.material(r.choice(["wood", "metal", "black", "lacquer"]))
    image = take.own(Material("image", np.zeros((1, 3)), image=random_image(r, "painting"), extent=(w, h), gloss=0.1))
    parts = [Part(box(w, 0.012, h, (0, -0.01, -h / 2)), image)]
    outer, tall = w + 2 * mat, h + 2 * mat
    if mat:
        parts.append(Part(box(outer, 0.01, tall, (0, -0.004, -tall / 2)), take.material("paper")))
    parts += [
        Part(box(border, 0.03, tall + 2 * border, (s * (outer + border) / 2, -0.014, -tall / 2 - border)), frame)
        for s in (-1, 1)
    ]
    parts += [Part(box(outer, 0.03, border, (0, -0.014, z)), frame) for z in (-tall / 2 - border, tall / 2)]
    return Design("picture", parts)


def mirror(take: Materials) -> Design:
    r = take.rng
    w, h, frame = r.uniform(0.45, 0.8), r.uniform(0.6, 1.1), take.material(r.choice(["wood", "metal", "lacquer"]))
    parts = [Part(box(w, 0.01, h, (0, -0.006, -h / 2)), take.material("mirror"))]
    parts += [Part(box(0.04, 0.03, h + 0.08, (s * (w + 0.04) / 2, -0.014, -h / 2 - 0.04)), frame) for s in (-1, 1)]
    parts += [Part(box(w, 0.03, 0.04, (0, -0.014, z)), frame) for z in (-h / 2 - 0.04, h / 2)]
    return Design("mirror", parts)


def clock(take: Materials) -> Design:
    r = take.rng
    radius, dark = r.uniform(0.12, 0.2), take.material("black")
    rim, face = cylinder(radius, 0.03).turned(np.pi / 2, 0), cylinder(radius * 0.88, 0.036).turned(np.pi / 2, 0)
    parts = [Part(rim, take.material(r.choice(["wood", "metal", "black"]))), Part(face, take.material("paper"))]
    for length, angle in ((0.5, r.uniform(0, 6.28)), (0.75, r.uniform(0, 6.28))):
        hand = box(0.014, 0.004, length * radius).turned(angle, 1).moved((0, -0.039, 0))
        parts.append(Part(hand, dark))
    return Design("clock", parts)


def wall_shelf(take: Materials) -> Design:
    r = take.rng
    w, wood = r.uniform(0.6, 1.1), take.material("wood")
    parts = [Part(box(w, 0.2, 0.03, (0, -0.101, -0.1)), wood)]
    parts += _books(-w / 2 + 0.03, w / 2 - r.uniform(0.1, 0.5), -0.07, 0.25, 0.16, take.material("paper"), r, y=-0.1)
    return Design("shelf", parts)


def rug(take: Materials) -> Design:
    r = take.rng
    w, d = r.uniform(1.4, 2.3), r.uniform(1.0, 1.6)
    image = take.own(Material("image", np.zeros((1, 3)), image=random_image(r, "rug"), extent=(w, d)))
    return Design("rug", [Part(box(w, d, 0.012), image)])


def radiator(take: Materials) -> Design:
    r, white = take.rng, take.material("ceramic")
    w = r.uniform(0.7, 1.1)
    parts = [Part(box(w, 0.05, 0.5, (0, 0, 0.12)), white)]
    for x in np.arange(-w / 2 + 0.05, w / 2, 0.1):
        parts.append(Part(box(0.045, 0.03, 0.46, (x, -0.035, 0.14)), white))
    return Design("heater", parts)


def counter(take: Materials) -> Design:
    """Return a kitchen counter: base cabinets under a worktop, with a sink or a hob."""
    r = take.rng
    n = int(r.integers(3, 6))
    w, h, d = 0.6 * n, r.uniform(0.86, 0.92), 0.6
    front = take.material(r.choice(["lacquer", "wood"]))
    top, metal = take.material(r.choice(["stone", "wood"])), take.material("metal")
    parts = [Part(box(w, d - 0.08, 0.1, (0, 0.04, 0)), take.material("black"))]
    parts += _fronts(w, d - 0.04, h - 0.14, 1, n, (0, 0.02, 0.1), front, front, metal, drawers=False)
    parts.append(Part(box(w + 0.01, d, 0.04, (0, 0, h - 0.04)), top))
    x = 0.6 * (int(r.integers(n)) - (n - 1) / 2)
    if r.random() < 0.5:  # a hob over an oven
        parts.append(Part(box(0.56, 0.5, 0.008, (x, 0, h)), take.material("screen")))
        parts += [
            Part(cylinder(0.08, 0.004, (x + a, b, h + 0.008)), metal) for a in (-0.14, 0.14) for b in (-0.12, 0.12)
        ]
        parts.append(Part(box(0.5, 0.01, 0.4, (x, -d / 2 - 0.005, 0.3)), take.material("screen")))
    else:  # a sink with a tap
        parts.append(Part(box(0.5, 0.4, 0.006, (x, -0.02, h)), metal))
        parts.append(Part(box(0.42, 0.32, 0.003, (x, -0.02, h + 0.006)), take.material("black"), (1.5,) * 3))
        parts.append(Part(cylinder(0.015, 0.25, (x, 0.22, h), sections=8), metal))
        parts.append(Part(box(0.02, 0.2, 0.02, (x, 0.13, h + 0.24)), metal))
    return Design(
        "counter",
        parts,
        tops=[(s * w / 2 - 0.25, -0.2, s * w / 2 + 0.25, 0.2, h) for s in (-0.75, 0.75) if abs(s * w / 2 - x) > 0.55],
    )


def wall_cabinet(take: Materials) -> Design:
    """Return a wall cabinet with its back in the plane y = 0 and its centre at z = 0."""
    r = take.rng
    n, front = int(r.integers(2, 5)), take.material(r.choice(["lacquer", "wood"]))
    return Design(
        "cabinet",
        _fronts(0.5 * n, 0.34, 0.62, 1, n, (0, -0.171, -0.31), front, front, take.material("metal"), drawers=False),
    )


def fridge(take: Materials) -> Design:
    r = take.rng
    body = take.material(r.choice(["ceramic", "metal", "lacquer"]))
    h = r.uniform(1.55, 1.9)
    split = h * r.uniform(0.3, 0.65)
    metal = take.material("metal")
    parts = [Part(box(0.6, 0.58, h, (0, 0.03, 0)), body)]
    for low, high in ((0.05, split), (split + 0.01, h - 0.01)):
        parts.append(Part(box(0.59, 0.05, high - low, (0, -0.285, low)), body))
        parts.append(Part(box(0.025, 0.03, 0.3 * (high - low), (0.24, -0.325, low + 0.5 * (high - low))), metal))
    return Design("refrigerator", parts)


def bathtub(take: Materials) -> Design:
    r = take.rng
    w, d, h, white = r.uniform(1.5, 1.75), r.uniform(0.7, 0.8), r.uniform(0.5, 0.6), take.material("ceramic")
    rim = 0.07
    parts = [Part(box(w, rim, h, (0, s * (d - rim) / 2, 0)), white) for s in (-1, 1)]
    parts += [Part(box(rim, d - 2 * rim, h, (s * (w - rim) / 2, 0, 0)), white) for s in (-1, 1)]
    parts.append(Part(box(w - 2 * rim, d - 2 * rim, 0.15), white))
    parts.append(Part(cylinder(0.02, 0.2, (w / 2 - 0.035, 0.1, h), sections=8), take.material("metal")))
    return Design("bathtub", parts)


def toilet(take: Materials) -> Design:
    white = take.material("ceramic")
    bowl = lathe([(0, 0), (0.12, 0), (0.13, 0.2), (0.2, 0.38), (0.2, 0.4), (0, 0.4)], (0, -0.1, 0))
    lid = lathe([(0, 0), (0.205, 0), (0.205, 0.03), (0, 0.035)], (0, -0.1, 0.402))
    tint = tuple(take.rng.choice([1.0, 0.5]) * np.ones(3))
    return Design(
        "toilet",
        [
            Part(bowl, white),
            Part(lid, white, tint),
            Part(box(0.4, 0.18, 0.4, (0, 0.22, 0.36)), white),
            Part(box(0.2, 0.25, 0.36, (0, 0.17, 0)), white),
        ],
    )


def washbasin(take: Materials) -> Design:
    r = take.rng
    w = r.uniform(0.55, 0.9)
    front, white, metal = take.material(r.choice(["wood", "lacquer"])), take.material("ceramic"), take.material("metal")
    parts = _fronts(w - 0.04, 0.42, 0.75, 1, 2, (0, 0.01, 0), front, front, metal, drawers=False)
    parts += [
        Part(box(w, 0.48, 0.06, (0, 0, 0.75)), white),
        Part(lathe([(0, 0), (0.12, 0), (0.2, 0.1), (0.18, 0.1), (0.1, 0.02), (0, 0.02)], (0, -0.02, 0.81)), white),
    ]
    parts += [
        Part(cylinder(0.014, 0.22, (0, 0.2, 0.81), sections=8), metal),
        Part(box(0.02, 0.14, 0.02, (0, 0.14, 1.02)), metal),
    ]
    return Design("sink", parts)


def curtain(take: Materials) -> Design:
    """Return a curtain that hangs from z = 0, 2.1 m long, with its back in the plane y = 0."""
    r = take.rng
    w, folds, drop = r.uniform(0.3, 0.5), int(r.integers(4, 8)), 2.1
    xs = np.linspace(-w / 2, w / 2, 8 * folds + 1)
    wave = 0.02 * np.sin(np.linspace(0, 2 * np.pi * folds, len(xs)))
    cloth = []
    zs = np.linspace(-drop, 0, 8)
    for side, y in ((1, -0.035), (-1, -0.05)):
        n, m = len(xs), len(zs)
        points = np.stack([np.repeat(xs, m), np.repeat(y + wave, m), np.tile(zs, n)], axis=1)
        slope = np.repeat(np.gradient(wave, xs), m)
        normals = side * np.stack([-slope, np.ones_like(slope), np.zeros_like(slope)], axis=1)
        index = np.arange(n * m).reshape(n, m)
        a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
        faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
        faces = faces if side < 0 else faces[:, ::-1]
        cloth.append(Solid(points, normals / np.linalg.norm(normals, axis=1, keepdims=True), faces))
    return Design(
        "curtain",
        [
            Part(join(cloth), take.material("fabric")),
            Part(box(w, 0.03, 0.03, (0, -0.042, -0.01)), take.material("metal")),
        ],
    )


def door_leaf(take: Materials) -> Design:
    """Return a door leaf hinged at the origin, along +x, 0.04 m thick about y = 0, for an opening of 0.85 x 2.05 m."""
    r = take.rng
    w, h, body = 0.84, 2.03, take.material("trim")
    metal, panel = take.material("metal"), tuple(r.uniform(0.75, 0.95) * np.ones(3))
    parts = [Part(box(w, 0.04, h, (w / 2, 0, 0.01)), body)]
    rows, columns = int(r.integers(1, 4)), int(r.integers(1, 3))
    for i in range(rows):
        for j in range(columns):
            cell_w, cell_h = (w - 0.12) / columns, (h - 0.16) / rows
            at = (0.06 + (j + 0.5) * cell_w, 0, 0.09 + i * cell_h)
            parts.append(Part(box(cell_w - 0.08, 0.056, cell_h - 0.08, (at[0], 0, at[2] + 0.04)), body, panel))
    parts += [Part(box(0.11, 0.02, 0.02, (w - 0.1, s * 0.045, 1.02)), metal) for s in (-1, 1)]
    parts += [Part(box(0.02, 0.03, 0.02, (w - 0.05, s * 0.034, 1.02)), metal) for s in (-1, 1)]
    return Design("door", parts)


KINDS: dict[str, Callable[[Materials], Design]] = {
    function.__name__: function
    for function in (
        chair, stool, table, coffee_table, desk, sofa, armchair, bed, nightstand, chest, wardrobe, tv_stand, sideboard,
        tv, bookshelf, floor_lamp, table_lamp, ceiling_lamp, plant, vase, bowl, books, carton, picture, mirror, clock,
        wall_shelf, rug, radiator, counter, wall_cabinet, fridge, bathtub, toilet, washbasin, curtain, door_leaf,
    )
}  # fmt: skip


# --- shared parts -----------------------------------------------------------------------------------------------------


def _legs(w: float, d: float, h: float, thick: float, material: int, r: np.random.Generator) -> list[Part]:
    round_leg = r.random() < 0.4
    places = [(s * (w - thick) / 2, t * (d - thick) / 2, 0) for s in (-1, 1) for t in (-1, 1)]
    if round_leg:
        taper = r.uniform(0.5, 1.0)
        profile = [(0, 0), (thick / 2 * taper, 0), (thick / 2, h), (0, h)]
        return [Part(lathe(profile, at, sections=8), material) for at in places]
    return [Part(box(thick, thick, h, at), material) for at in places]


def _table(take: Materials, label: str, w: float, d: float, h: float) -> Design:
    r = take.rng
    top, frame = take.material(r.choice(["wood", "stone", "lacquer"])), take.material(r.choice(["wood", "metal"]))
    thick = r.uniform(0.025, 0.05)
    if r.random() < 0.3:  # round, on a pedestal
        radius = max(d, 0.75 * w) / 2
        parts = [
            Part(cylinder(radius, thick, (0, 0, h - thick), sections=28), top),
            Part(cylinder(0.05, h - thick), frame),
            Part(lathe([(0, 0), (radius * 0.55, 0), (radius * 0.5, 0.03), (0.05, 0.08), (0, 0.08)]), frame),
        ]
        inner = radius * 0.65
        return Design(label, parts, tops=[(-inner, -inner, inner, inner, h)])
    parts = [Part(box(w, d, thick, (0, 0, h - thick)), top)]
    parts += _legs(w - 0.06, d - 0.06, h - thick, r.uniform(0.04, 0.08), frame, r)
    if r.random() < 0.6:
        apron = 0.08
        parts += [Part(box(w - 0.2, 0.02, apron, (0, s * (d / 2 - 0.07), h - thick - apron)), frame) for s in (-1, 1)]
        parts += [Part(box(0.02, d - 0.2, apron, (s * (w / 2 - 0.07), 0, h - thick - apron)), frame) for s in (-1, 1)]
    return Design(label, parts, tops=[(-w / 2, -d / 2, w / 2, d / 2, h)])


def _sofa(take: Materials, label: str, seats: int) -> Design:
    r = take.rng
    cloth = take.material(r.choice(["fabric", "leather"], p=[0.75, 0.25]))
    seat, arm, d = r.uniform(0.55, 0.68), r.uniform(0.1, 0.24), r.uniform(0.8, 0.92)
    h, back, side = r.uniform(0.38, 0.44), r.uniform(0.72, 0.95), r.uniform(0.5, 0.66)
    w = seats * seat + 2 * arm
    foot = take.material("wood")
    parts = [
        Part(box(0.05, 0.05, 0.1, (s * (w / 2 - 0.08), t * (d / 2 - 0.08), 0)), foot) for s in (-1, 1) for t in (-1, 1)
    ]
    parts += [
        Part(box(w - 2 * arm, d - 0.06, h - 0.24, (0, 0.0, 0.09)), cloth),
        Part(cushion(w, 0.22, back - 0.09, (0, d / 2 - 0.11, 0.09), 10), cloth),
        *[Part(cushion(arm, d - 0.02, side - 0.09, (s * (w - arm) / 2, 0, 0.09), 8), cloth) for s in (-1, 1)],
    ]
    for k in range(seats):
        x = (k - (seats - 1) / 2) * seat
        parts.append(Part(cushion(seat - 0.01, d - 0.2, 0.18, (x, -0.1, h - 0.16), 7), cloth))
        tilt = cushion(seat - 0.03, 0.18, 0.42, power=5).turned(-0.15, axis=0).moved((x, d / 2 - 0.27, h))
        parts.append(Part(tilt, cloth))
    if r.random() < 0.7:
        for _ in range(int(r.integers(1, 3))):
            pillow = cushion(0.42, 0.13, 0.38, power=3).turned(-0.35, axis=0).turned(r.uniform(-0.3, 0.3))
            x = r.uniform(-0.5, 0.5) * max(0.0, seats * seat - 0.45)
            parts.append(Part(pillow.moved((x, d / 2 - 0.42, h + 0.02)), take.material("fabric")))
    return Design(label, parts)


def _cabinet(
    take: Materials, label: str, w: float, d: float, h: float, rows: int, columns: int, drawers: bool
) -> Design:
    r = take.rng
    body = take.material(r.choice(["wood", "lacquer"]))
    front = body if r.random() < 0.6 else take.material(r.choice(["wood", "lacquer"]))
    base = r.choice([0.04, 0.12])
    if base > 0.1:
        parts = [
            Part(box(0.05, 0.05, base, (s * (w / 2 - 0.05), t * (d / 2 - 0.05), 0)), body)
            for s in (-1, 1)
            for t in (-1, 1)
        ]
    else:
        parts = [Part(box(w - 0.04, d - 0.06, base), body)]
    parts += _fronts(w, d, h - base, rows, columns, (0, 0, base), body, front, take.material("metal"), drawers)
    return Design(label, parts, tops=[(-w / 2, -d / 2, w / 2, d / 2, h)] if h < 1.3 else [])


def _fronts(
    w: float, d: float, h: float, rows: int, columns: int, at: tuple, body: int, front: int, knob: int, drawers: bool
) -> list[Part]:
    """Return the parts of a cabinet of size w x d x h with a grid of drawers or doors."""
    x0, y0, z0 = at
    parts = [Part(box(w, d - 0.02, h, (x0, y0 + 0.01, z0)), body)]
    cell_w, cell_h = w / columns, h / rows
    for i in range(rows):
        for j in range(columns):
            x, z = x0 - w / 2 + (j + 0.5) * cell_w, z0 + i * cell_h
            parts.append(Part(box(cell_w - 0.016, 0.02, cell_h - 0.016, (x, y0 - d / 2 + 0.006, z + 0.008)), front))
            side = 0 if drawers else (0.5 - j % 2) * (cell_w - 0.1)
            size = (0.12, 0.02, 0.015) if drawers else (0.015, 0.02, 0.12)
            parts.append(Part(box(*size, (x + side, y0 - d / 2 - 0.014, z + cell_h * 0.5 - size[2] / 2)), knob))
    return parts


def _books(
    x0: float, x1: float, z: float, room: float, depth: float, paper: int, r: np.random.Generator, y: float = 0.0
) -> list[Part]:
    """Return a row of books at height ``z`` between x0 and x1, with gaps."""
    parts, x = [], x0
    while x < x1 - 0.06:
        if r.random() < 0.06:
            x += r.uniform(0.08, 0.25)
            continue
        w, h, d = r.uniform(0.022, 0.06), room * r.uniform(0.6, 0.95), depth * r.uniform(0.7, 1.0)
        parts.append(Part(box(w, d, h, (x + w / 2, y + (depth - d) / 2, z + 0.001)), paper, _spine(r)))
        x += w + 0.002
    return parts


def _spine(r: np.random.Generator) -> tuple[float, float, float]:
    return tuple(r.uniform(0.05, 0.8) * (0.35 + 1.5 * r.dirichlet([1.5, 1.5, 1.5])))
