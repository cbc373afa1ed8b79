"""A scene under construction: its rooms, its materials and designs, and the objects placed so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loco.simulate.furniture import KINDS, Design
from loco.simulate.materials import Material, random_material
from loco.simulate.plan import Room
from loco.simulate.shapes import Floats

ALIKE_IN_A_SET = 0.25  # a piece in a set (chairs of a table) equals the last with probability repetition ** this


@dataclass
class Site:
    """Shared state of the builders of structure and furniture.

    Attributes:
        rooms: rooms of the floor plan.
        repetition: probability, in [0, 1], that an existing material or design is used instead of a new one.
        rng: generator of all random numbers.
        materials: materials created so far; parts refer to them by index.
        stock: materials (indices) and designs that can be reused, by kind.
        placed: design, object-to-world pose (4, 4) and room of each object.
    """

    rooms: list[Room]
    repetition: float
    rng: np.random.Generator
    materials: list[Material] = field(default_factory=list)
    stock: dict[str, list[Any]] = field(default_factory=dict)
    placed: list[tuple[Design, Floats, int]] = field(default_factory=list)

    def material(self, finish: str) -> int:
        """Return the index of a material of this finish, reused or new."""
        return self._take(finish, self.repetition, lambda: self.own(random_material(finish, self.rng)))

    def own(self, material: Material) -> int:
        """Add a material and return its index."""
        self.materials.append(material)
        return len(self.materials) - 1

    def design(self, kind: str, in_set: bool = False) -> Design:
        """Return a design of this kind of furniture, reused or new; ``in_set`` reuses the latest one more often."""
        chance = self.repetition**ALIKE_IN_A_SET if in_set else self.repetition
        return self._take(f"design {kind}", chance, lambda: KINDS[kind](self), last=in_set)

    def add(self, design: Design, pose: Floats, room: int) -> None:
        """Place an object at ``pose`` (4, 4), object to world."""
        self.placed.append((design, pose, room))

    def _take(self, name: str, chance: float, make: Callable[[], Any], last: bool = False) -> Any:
        have = self.stock.setdefault(name, [])
        if have and self.rng.random() < chance:
            return have[-1] if last else have[int(self.rng.integers(len(have)))]
        have.append(make())
        return have[-1]
