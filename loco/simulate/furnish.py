"""Place furniture such that objects do not intersect, doors can open, and cameras have free positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loco.simulate.furniture import Design
from loco.simulate.plan import Room, pose_at
from loco.simulate.shapes import Floats
from loco.simulate.site import Site

STAND = 1.1  # side of the squares that are kept free as camera positions, metres
SUNK = -0.003  # height of objects on the floor in metres, below zero so that no two faces coincide
TRIES = 40


@dataclass(frozen=True)
class Style:
    """The use of a room (a key of ``STYLES``) and the materials of its shell."""

    kind: str
    wall: int
    floor: int
    ceiling: int
    trim: int
    accent: int


def furnish(house: Site, index: int, kind: str, taken: list[Floats]) -> None:
    """Furnish room ``index`` as ``kind``, a key of ``STYLES``; ``taken`` are the boxes (2, 3) that its doors need."""
    room = _Furnishing(house, index, list(taken))
    room.keep_free()
    room.lamps()
    room.dress_windows()
    STYLES[kind](room)
    room.fill()


def open_doors(house: Site) -> list[list[Floats]]:
    """Add open door leaves; return for each room the boxes (2, 3) that must stay free for its doors."""
    taken: list[list[Floats]] = [[] for _ in house.rooms]
    for index, room in enumerate(house.rooms):
        for door in (o for o in room.openings if o.to is not None):
            wall = room.wall(door.wall)
            taken[index].append(_span(wall.at(door.low - 0.15), wall.at(door.high + 0.15, inward=0.85, z=2.1)))
            if door.mine and door.leaf:
                angle = house.rng.uniform(np.radians(65), np.radians(100))
                direction = np.cos(angle) * wall.along + np.sin(angle) * wall.inward
                leaf = house.design("door_leaf")
                pose = pose_at(wall.at(door.low, inward=0.07), np.arctan2(direction[1], direction[0]))
                taken[index].append(_extent(leaf, pose))
                house.add(leaf, pose, index)
    return taken


@dataclass
class _Furnishing:
    """A room that is being furnished; ``taken`` are boxes (2, 3) that must stay free of further objects."""

    house: Site
    index: int
    taken: list[Floats]

    @property
    def rng(self) -> np.random.Generator:
        return self.house.rng

    @property
    def room(self) -> Room:
        return self.house.rooms[self.index]

    # Placement -------------------------------------------------------------------------------------------------------

    def put(self, design: Design, pose: Floats, gap: float = 0.0, solid: bool = True) -> bool:
        """Place a piece if it fits with ``gap`` metres around it; return whether it fits.

        If not ``solid``, the space of the piece remains available for others.
        """
        extent = _extent(design, pose)
        grown = extent + np.array([[-gap, -gap, 0], [gap, gap, 0]])
        low, high = [*self.room.low, -1.0], [*self.room.high, self.room.height + 0.03]
        inside = np.all(extent[0] >= np.subtract(low, 0.003)) and np.all(extent[1] <= np.add(high, 0.003))
        if not inside or any(np.all(grown[0] < box[1]) and np.all(grown[1] > box[0]) for box in self.taken):
            return False
        if solid:
            self.taken.append(extent)
        self.house.add(design, pose, self.index)
        return True

    def against_wall(self, kind: str, gap: float = 0.02) -> tuple[Design, Floats] | None:
        """Place a piece with its back to a random wall; return it and its pose (4, 4), or None if it does not fit."""
        design = self.house.design(kind)
        (x0, _, _), (x1, y1, _) = design.bounds
        for _ in range(TRIES):
            wall = self.room.wall(int(self.rng.integers(4)))
            if x1 - x0 + 0.1 < wall.length:
                u = self.rng.uniform(x1 + 0.04, wall.length + x0 - 0.04)
                pose = pose_at(wall.at(u, inward=y1 + self.rng.uniform(0.025, 0.07), z=SUNK), wall.facing)
                if self.put(design, pose, gap):
                    return design, pose
        return None

    def in_corner(self, kind: str) -> tuple[Design, Floats] | None:
        """Place a piece in a random corner, randomly rotated; return it and its pose, or None if it does not fit."""
        design = self.house.design(kind)
        reach = np.abs(design.bounds[:, :2]).max() + 0.06
        for side in self.rng.permutation(4):
            wall = self.room.wall(int(side))
            pose = pose_at(wall.at(reach, inward=reach, z=SUNK), self.rng.uniform(0, 2 * np.pi))
            if self.put(design, pose, 0.02):
                return design, pose
        return None

    def in_middle(self, kind: str, gap: float = 0.45) -> tuple[Design, Floats] | None:
        """Place a piece away from the walls and about parallel to them; return it and its pose, or None."""
        design = self.house.design(kind)
        for _ in range(TRIES):
            position = self.rng.uniform(self.room.low + 0.8, self.room.high - 0.8)
            angle = self.rng.integers(4) * np.pi / 2 + self.rng.normal(0, 0.06)
            pose = pose_at([*position, SUNK], angle)
            if self.put(design, pose, gap):
                return design, pose
        return None

    def beside(self, host: Floats, design: Design, offset: Sequence[float], angle: float, gap: float = 0.0) -> bool:
        """Place a piece at ``offset`` (x, y) in the frame of ``host`` (4, 4), rotated relative to it by ``angle``."""
        position = (host @ [*offset, 0.0, 1.0])[:3]
        return self.put(design, pose_at(position, np.arctan2(host[1, 0], host[0, 0]) + angle), gap)

    def on_top(self, host: tuple[Design, Floats] | None, kinds: Sequence[str], count: int) -> None:
        """Place small objects on a piece of furniture; objects that do not fit are left out."""
        for _ in range(count if host and host[0].tops else 0):
            design = self.house.design(str(self.rng.choice(kinds)))
            x0, y0, x1, y1, z = host[0].tops[int(self.rng.integers(len(host[0].tops)))]
            reach = np.abs(design.bounds[:, :2]).max(axis=0) + 0.01
            if x1 - x0 < 2 * reach[0] or y1 - y0 < 2 * reach[1]:
                continue
            for _ in range(8):
                x, y = self.rng.uniform(x0 + reach[0], x1 - reach[0]), self.rng.uniform(y0 + reach[1], y1 - reach[1])
                # Bounding boxes touch at the host's top: raise the object slightly so that they do not intersect.
                pose = host[1] @ pose_at([x, y, z + 0.001], 0.0)
                if self.put(design, pose, 0.01):
                    break

    def hang(self, kind: str, low: float, high: float) -> bool:
        """Hang a piece on a random wall, its centre between two heights in metres; return whether it fits."""
        design = self.house.design(kind)
        (x0, _, _), (x1, _, z1) = design.bounds
        for _ in range(TRIES):
            wall = self.room.wall(int(self.rng.integers(4)))
            if x1 - x0 + 0.2 < wall.length:
                u, z = self.rng.uniform(x1 + 0.1, wall.length + x0 - 0.1), self.rng.uniform(low, high)
                if z + z1 < self.room.height - 0.1 and self.put(design, pose_at(wall.at(u, z=z), wall.facing), 0.06):
                    return True
        return False

    def above(self, host: Floats, kind: str, z: float) -> bool:
        """Hang a piece at height ``z`` on the wall nearest to the pose ``host`` (4, 4); return whether it fits."""
        wall = min((wall for _, wall in self.room.walls()), key=lambda w: (host[:3, 3] - w.corner) @ w.inward)
        u = float((host[:3, 3] - wall.corner) @ wall.along)
        return self.put(self.house.design(kind), pose_at(wall.at(u, z=z), wall.facing))

    # Common to all rooms ---------------------------------------------------------------------------------------------

    def keep_free(self) -> None:
        """Reserve squares for camera positions, and the space in front of windows."""
        size = np.array([STAND, STAND])
        for _ in range(2 if self.room.area < 18 else 3):
            corner = self.rng.uniform(self.room.low + 0.1, self.room.high - size - 0.1)
            self.taken.append(np.array([[*corner, 0.05], [*(corner + size), 2.0]]))
        for window in (o for o in self.room.openings if o.to is None):
            wall = self.room.wall(window.wall)
            self.taken.append(
                _span(wall.at(window.low, z=window.bottom), wall.at(window.high, inward=0.3, z=window.top))
            )

    def lamps(self) -> None:
        count = 1 + int(self.room.size.max() > 5)
        along = int(self.room.size.argmax())
        design = self.house.design("ceiling_lamp")
        for k in range(count):
            fraction = np.full(2, 0.5)
            fraction[along] = (k + 0.5) / count
            position = self.room.low + fraction * self.room.size + self.rng.uniform(-0.25, 0.25, 2)
            self.put(design, pose_at([*position, self.room.height], 0.0))

    def dress_windows(self) -> None:
        for window in (o for o in self.room.openings if o.to is None):
            wall = self.room.wall(window.wall)
            if window.bottom > 0.7 and self.rng.random() < 0.6:
                centre = (window.low + window.high) / 2
                self.put(self.house.design("radiator"), pose_at(wall.at(centre, inward=0.08), wall.facing))
            if self.rng.random() < 0.6:
                curtain = self.house.design("curtain")
                half = curtain.bounds[1, 0] + 0.01
                for u in (window.low - half, window.high + half):
                    self.put(curtain, pose_at(wall.at(u, z=2.27), wall.facing))

    def fill(self) -> None:
        """Add further furniture, pictures and other pieces on the walls, and pieces in corners."""
        rng = self.rng
        for _ in range(int(rng.integers(1, 4))):
            piece = self.against_wall(
                str(rng.choice(["sideboard", "chest", "bookshelf", "chair", "armchair", "wardrobe"]))
            )
            self.on_top(piece, ["vase", "bowl", "books", "table_lamp"], 2)
        for _ in range(int(rng.integers(2, 6))):
            self.hang("picture", 1.35, 1.7)
        for kind, chance, hang in (
            ("clock", 0.35, (1.6, 1.95)),
            ("wall_shelf", 0.4, (1.3, 1.6)),
            ("mirror", 0.2, (1.4, 1.6)),
        ):
            if rng.random() < chance:
                self.hang(kind, *hang)
        for kind, chance in (("plant", 0.6), ("floor_lamp", 0.35), ("carton", 0.5), ("stool", 0.3), ("plant", 0.3)):
            if rng.random() < chance:
                self.in_corner(kind) or self.against_wall(kind)

    def rug(self, at: Floats | None = None) -> None:
        """Add a rug at a pose (4, 4) or a random one; it may be under furniture."""
        design = self.house.design("rug")
        centre = (self.room.low + self.room.high) / 2
        pose = pose_at([*centre, SUNK], self.rng.integers(2) * np.pi / 2) if at is None else at
        self.put(design, pose, solid=False)


# --- rooms ------------------------------------------------------------------------------------------------------------


def _living(room: _Furnishing) -> None:
    sofa = room.against_wall("sofa")
    if sofa:
        depth = -sofa[0].bounds[0, 1]
        low = room.house.design("coffee_table")
        offset = (0.0, -depth - 0.4 + low.bounds[0, 1])
        if room.beside(sofa[1], low, offset, 0.0):
            pose = sofa[1] @ pose_at([*offset, 0.0], 0.0)
            room.on_top((low, pose), ["bowl", "books", "vase"], 2)
            room.rug(pose)
    stand = room.against_wall("tv_stand")
    if stand:
        top = stand[0].tops[0][4]
        if not room.put(room.house.design("tv"), stand[1] @ pose_at([0, 0.02, top + 0.001], 0.0)):
            room.on_top(stand, ["vase", "books", "table_lamp"], 2)
    for _ in range(int(room.rng.integers(0, 3))):
        room.against_wall("armchair")
    for _ in range(int(room.rng.integers(1, 3))):
        room.against_wall("bookshelf")
    room.on_top(room.against_wall("sideboard"), ["vase", "table_lamp", "books", "bowl"], 3)


def _bedroom(room: _Furnishing) -> None:
    bed = room.against_wall("bed")
    if bed:
        half, back = bed[0].bounds[1, 0], bed[0].bounds[1, 1]
        for side in (-1, 1):
            stand = room.house.design("nightstand", in_set=True)
            offset = (side * (half + stand.bounds[1, 0] + 0.04), back - stand.bounds[1, 1] - 0.02)
            if room.beside(bed[1], stand, offset, 0.0):
                room.on_top((stand, bed[1] @ pose_at([*offset, 0.0], 0.0)), ["table_lamp", "books", "vase"], 1)
    room.against_wall("wardrobe")
    room.on_top(room.against_wall("chest"), ["vase", "table_lamp", "books", "bowl"], 2)
    if room.rng.random() < 0.5:
        room.rug()
    room.against_wall(str(room.rng.choice(["chair", "armchair", "desk"])))


def _dining(room: _Furnishing) -> None:
    table = room.in_middle("table", gap=0.6)
    if table:
        (x0, _, _), (x1, y1, _) = table[0].bounds
        count = 2 if x1 - x0 > 1.35 else 1
        seats = [((x1 - x0) * ((k + 0.5) / count - 0.5), side * y1, side) for k in range(count) for side in (-1, 1)]
        for x, y, side in seats:
            chair = room.house.design("chair", in_set=True)
            away = y + side * (chair.bounds[1, 1] + room.rng.uniform(0.03, 0.12))
            angle = (0.0 if side > 0 else np.pi) + room.rng.normal(0, 0.12)
            room.beside(table[1], chair, (x, away), angle)
        room.on_top(table, ["bowl", "vase"], 2)
        room.rug(table[1])
    room.on_top(room.against_wall("sideboard"), ["vase", "table_lamp", "books", "bowl"], 3)
    room.on_top(room.against_wall("chest"), ["vase", "bowl", "books"], 2)
    for _ in range(int(room.rng.integers(0, 3))):
        room.against_wall("chair")
    if room.rng.random() < 0.5:
        room.against_wall("bookshelf")


def _kitchen(room: _Furnishing) -> None:
    for _ in range(int(room.rng.integers(1, 3))):
        run = room.against_wall("counter")
        if run:
            room.on_top(run, ["bowl", "vase", "books"], 2)
            room.above(run[1], "wall_cabinet", 1.72)
    room.against_wall("fridge")
    table = room.in_middle("table", gap=0.3)
    if table:
        room.on_top(table, ["bowl", "vase", "books"], 2)
        for side in (-1, 1):
            chair = room.house.design("chair", in_set=True)
            away = side * (table[0].bounds[1, 1] + chair.bounds[1, 1] + 0.06)
            room.beside(table[1], chair, (room.rng.uniform(-0.2, 0.2), away), 0.0 if side > 0 else np.pi)
    room.against_wall("sideboard")
    room.against_wall("stool")


def _bathroom(room: _Furnishing) -> None:
    room.against_wall("bathtub")
    basin = room.against_wall("washbasin")
    if basin:
        room.above(basin[1], "mirror", 1.62)
    room.against_wall("toilet")
    room.on_top(room.against_wall("chest"), ["vase", "bowl"], 2)
    room.against_wall("stool")
    room.in_corner("carton")
    if room.rng.random() < 0.5:
        room.rug()


def _study(room: _Furnishing) -> None:
    for _ in range(int(room.rng.integers(1, 3))):
        desk = room.against_wall("desk")
        if desk:
            chair = room.house.design("chair", in_set=True)
            away = desk[0].bounds[0, 1] - chair.bounds[1, 1] - 0.1
            room.beside(desk[1], chair, (room.rng.uniform(-0.2, 0.2), away), np.pi + room.rng.normal(0, 0.3))
            room.on_top(desk, ["table_lamp", "books", "vase"], 3)
    for _ in range(int(room.rng.integers(2, 4))):
        room.against_wall("bookshelf")
    room.against_wall("armchair")
    room.on_top(room.against_wall("chest"), ["vase", "table_lamp", "books"], 2)
    room.rug()


STYLES: dict[str, Callable[[_Furnishing], None]] = {
    "living room": _living,
    "bedroom": _bedroom,
    "dining room": _dining,
    "kitchen": _kitchen,
    "bathroom": _bathroom,
    "study": _study,
}


def _extent(design: Design, pose: Floats) -> Floats:
    """Return the bounding box (2, 3) of a placed design."""
    (x0, y0, z0), (x1, y1, z1) = design.bounds
    corners = np.array([(x, y, z) for x in (x0, x1) for y in (y0, y1) for z in (z0, z1)])
    return _span(*(corners @ pose[:3, :3].T + pose[:3, 3]))


def _span(*points: Floats) -> Floats:
    return np.stack([np.min(points, axis=0), np.max(points, axis=0)])
