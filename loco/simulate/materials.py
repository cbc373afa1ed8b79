"""Materials: the appearance of surfaces as a function of position.

Patterns are *solid textures* (Perlin 1985; Peachey 1985): colour is a function of the 3D point in the coordinates of
the object, so surfaces need no texture map, and every copy of an object has the same pattern. Flat patterns (tiles,
bricks, stripes) are defined in the axis plane that is most parallel to the surface.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.floating]
NOISE_SIZE = 64


@dataclass(frozen=True)
class Material:
    """A surface finish.

    Attributes:
        pattern: a key of ``PATTERNS``.
        colours: (k, 3) linear reflectances that the pattern mixes.
        scale: size of the pattern's element, metres.
        offset: (3,), origin of the pattern, metres.
        angle: rotation of flat patterns in their plane, radians.
        gloss: 0 (matt) to 1 (mirror).
        emission: emitted light, which is added to the incident light before the multiplication by the reflectance.
        image: (h, w, 3) linear, for pattern ``image``, mapped to (x, z) of the object; to (x, y) on horizontal faces.
        extent: (width, height) that the image covers, metres.
        petals: number of petals of the flowers in pattern ``motif``.
        see_through: whether the surface shows the outdoors (:func:`outdoors`).
    """

    pattern: str
    colours: Floats
    scale: float = 0.1
    offset: Floats = field(default_factory=lambda: np.zeros(3))
    angle: float = 0.0
    gloss: float = 0.0
    emission: float = 0.0
    image: Floats | None = None
    extent: tuple[float, float] = (1.0, 1.0)
    petals: int = 4
    see_through: bool = False


def reflectance(material: Material, points: Floats, normals: Floats, noise: Floats) -> Floats:
    """Return the linear diffuse reflectance (n, 3) at ``points`` (n, 3) with ``normals`` (n, 3), object coordinates.

    ``noise`` is the volume returned by :func:`noise_volume`.
    """
    return np.clip(PATTERNS[material.pattern](material, points, normals, noise), 0.01, 0.92).astype(np.float32)


def noise_volume(rng: np.random.Generator) -> Floats:
    """Return a periodic cube of fractal noise, float32, approximately in [-1, 1], with features of 1 to 8 cells."""
    white = rng.standard_normal((NOISE_SIZE,) * 3)
    octaves = [ndimage.gaussian_filter(white, sigma, mode="wrap") for sigma in (0.7, 1.5, 3.0, 6.0)]
    total = sum(octave / octave.std() * weight for octave, weight in zip(octaves, (0.35, 0.5, 0.7, 0.7)))
    return np.tanh(total).astype(np.float32)


def outdoors(directions: Floats, noise: Floats) -> Floats:
    """Return the radiance (n, 3) outside the windows in unit ``directions`` (n, 3): sky above trees and ground."""
    x, y, z = directions.T
    around = np.stack([3 * x, 3 * y, np.full_like(z, 5.0)], axis=1)
    treeline = 0.08 + 0.12 * _noise(noise, around, 0.35) + 0.05 * _noise(noise, around, 0.05)
    cloud = np.clip(0.5 + 0.7 * _noise(noise, directions * [1, 1, 3], 0.06), 0, 1)[:, None]
    sky = (1 - cloud) * np.array([0.75, 1.05, 1.5]) + cloud * np.array([1.5, 1.5, 1.5])
    leaf = 0.5 + 0.5 * _noise(noise, directions, 0.02)[:, None]
    trees = 0.12 + leaf * np.array([0.22, 0.32, 0.12])
    ground = np.array([0.5, 0.52, 0.4]) * (0.7 + 0.3 * leaf)
    return np.where((z > treeline)[:, None], sky, np.where((z > -0.12)[:, None], trees, ground))


# --- patterns: (material, points, normals, noise) -> (n, 3) ----------------------------------------------------------


def _plain(m: Material, points: Floats, normals: Floats, noise: Floats) -> Floats:
    p = points + m.offset
    return m.colours[0] * (1 + 0.025 * _noise(noise, p, 0.08) + 0.03 * _noise(noise, p, 0.02))[:, None]


def _wood(m: Material, points: Floats, normals: Floats, noise: Floats) -> Floats:
    p = points + m.offset
    # Grain runs along x of the object, or along z where the normal is closer to the x axis than to the z axis.
    along_x = np.abs(normals[:, 0]) < np.abs(normals[:, 2])
    grain = np.where(along_x[:, None], p * [0.12, 1, 1], p * [1, 1, 0.12])
    ring = np.sin(2 * np.pi * (grain.sum(axis=1) / m.scale + 0.8 * _noise(noise, grain, 0.03)))
    fine = _noise(noise, grain, 0.006)
    return _mix(m.colours, 0.5 + 0.35 * ring + 0.2 * fine)


def _planks(m: Material, points: Floats, normals: Floats, noise: Floats) -> Floats:
    u, v = _plane(m, points, normals)
    row, across = np.divmod(v, m.scale)
    board, along = np.divmod(u / (9 * m.scale) + _hash(row, 3), 1.0)
    tone = _hash(board, row)
    grain = _noise(noise, np.stack([0.12 * u, v, 7 * tone], axis=1), 0.012)
    wood = _mix(m.colours, 0.15 + 0.6 * tone + 0.25 * grain)
    gap = (across < 0.004 + 0.03 * m.scale) | (along < 0.005)
    return wood * np.where(gap, 0.45, 1.0)[:, None]


def _stripes(m: Material, points: Floats, normals: Floats, noise: Floats) -> Floats:
    u, _ = _plane(m, points, normals)
    phase = np.mod(u / m.scale, len(m.colours))
    shade = 1 + 0.06 * _noise(noise, points + m.offset, 0.03)
    return m.colours[phase.astype(int) % len(m.colours)] * shade[:, None]


def _tiles(m: Material, points: Floats, normals: Floats, noise: Floats) -> Floats:
    u, v = _plane(m, points, normals)
    (i, a), (j, b) = np.divmod(u / m.scale, 1.0), np.divmod(v / m.scale, 1.0)
    colour = m.colours[((i + j) % 2).astype(int)]
    shade = 1 + 0.16 * (_hash(i, j) - 0.5) + 0.08 * _noise(noise, points + m.offset, 0.04)
    grout = (np.minimum(a, b) * m.scale < 0.008)[:, None]
    return np.where(grout, m.colours[2], colour * shade[:, None])


def _bricks(m: Material, points: Floats, normals: Floats, noise: Floats) -> Floats:
    u, v = _plane(m, points, normals)
    row, b = np.divmod(v / m.scale, 1.0)
    i, a = np.divmod(u / (2.8 * m.scale) + 0.5 * (row % 2), 1.0)
    brick = _mix(m.colours, _hash(i, row) + 0.25 * _noise(noise, points + m.offset, 0.015))
    mortar = ((b < 0.13) | (a < 0.05))[:, None]
    return np.where(mortar, m.colours[2], brick)


def _marble(m: Material, points: Floats, normals: Floats, noise: Floats) -> Floats:
    p = points + m.offset
    vein = np.abs(np.sin(np.pi * (p @ [0.7, 0.5, 0.6] / m.scale + 1.1 * _noise(noise, p, m.scale / 4))))
    return _mix(m.colours, 1 - vein**0.35 + 0.12 * _noise(noise, p, 0.02))


def _weave(m: Material, points: Floats, normals: Floats, noise: Floats) -> Floats:
    u, v = _plane(m, points, normals)
    thread = np.sin(2 * np.pi * u / m.scale) * np.sin(2 * np.pi * v / m.scale)
    return _mix(m.colours, 0.45 + 0.3 * thread + 0.3 * _noise(noise, points + m.offset, 0.03))


def _speckle(m: Material, points: Floats, normals: Floats, noise: Floats) -> Floats:
    p = points + m.offset
    coarse, fine = _noise(noise, p, m.scale / 12), _noise(noise, p + 3.1, m.scale / 20)
    colour = np.where((coarse > 0.45)[:, None], m.colours[1], m.colours[0] * (1 + 0.08 * fine)[:, None])
    return np.where((fine < -0.75)[:, None], m.colours[2], colour)


def _motif(m: Material, points: Floats, normals: Floats, noise: Floats) -> Floats:
    u, v = _plane(m, points, normals)
    i, a = np.divmod(u / m.scale, 1.0)
    _, b = np.divmod(v / m.scale + 0.5 * (i % 2), 1.0)
    a, b = a - 0.5, b - 0.5
    radius, angle = np.hypot(a, b), np.arctan2(b, a)
    flower = radius < 0.24 * (1 + 0.45 * np.cos(m.petals * angle))
    heart = radius < 0.09
    shade = 1 + 0.05 * _noise(noise, points + m.offset, 0.06)
    colour = np.where(heart[:, None], m.colours[2], np.where(flower[:, None], m.colours[1], m.colours[0]))
    return colour * shade[:, None]


def _image(m: Material, points: Floats, normals: Floats, noise: Floats) -> Floats:
    flat = np.abs(normals[:, 2]) > 0.7
    u = points[:, 0] / m.extent[0] + 0.5
    v = 0.5 - np.where(flat, points[:, 1], points[:, 2]) / m.extent[1]
    height, width = m.image.shape[:2]
    at = np.stack([np.clip(v * height - 0.5, 0, height - 1), np.clip(u * width - 0.5, 0, width - 1)])
    return np.stack([ndimage.map_coordinates(m.image[..., c], at, order=1) for c in range(3)], axis=1)


PATTERNS: dict[str, Callable[[Material, Floats, Floats, Floats], Floats]] = {
    "plain": _plain,
    "wood": _wood,
    "planks": _planks,
    "stripes": _stripes,
    "tiles": _tiles,
    "bricks": _bricks,
    "marble": _marble,
    "weave": _weave,
    "speckle": _speckle,
    "motif": _motif,
    "image": _image,
}


def _noise(volume: Floats, points: Floats, cell: float) -> Floats:
    return ndimage.map_coordinates(volume, (points / cell).T, order=1, mode="grid-wrap", prefilter=False)


def _mix(colours: Floats, t: Floats) -> Floats:
    t = np.clip(t, 0, 1)[:, None]
    return colours[0] * (1 - t) + colours[1] * t


def _plane(m: Material, points: Floats, normals: Floats) -> tuple[Floats, Floats]:
    """Return coordinates (u, v) in the axis plane most parallel to each surface; v is up on upright surfaces."""
    x, y, z = (points + m.offset).T
    axis = np.abs(normals).argmax(axis=1)
    u, v = np.where(axis == 0, y, x), np.where(axis == 2, y, z)
    cos, sin = np.cos(m.angle), np.sin(m.angle)
    return cos * u + sin * v, cos * v - sin * u


def _hash(i: Floats, j: Floats | int) -> Floats:
    """Return a pseudo-random number in [0, 1) for each pair of integers."""
    return np.mod(np.sin(i * 12.9898 + j * 78.233) * 43758.5453, 1.0)


# --- random materials -----------------------------------------------------------------------------------------------


def random_material(finish: str, rng: np.random.Generator) -> Material:
    """Return a new random material of a finish, a key of ``FINISHES``."""
    return FINISHES[finish](rng)


def random_image(rng: np.random.Generator, style: str) -> Floats:
    """Return a random linear image (h, w, 3) of ``style`` "painting" or "rug"."""
    return _painting(rng) if style == "painting" else _rug(rng)


def _make(rng: np.random.Generator, pattern: str, colours: list[Floats], **properties: Any) -> Material:
    return Material(pattern, np.array(colours), offset=rng.uniform(-50, 50, 3), **properties)


def _colour(rng: np.random.Generator, hue: tuple, saturation: tuple, value: tuple) -> Floats:
    """Return a random linear colour (3,), drawn from ranges of hue (1 = 360 degrees), saturation and display value."""
    hsv = [rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value)]
    return np.array(colorsys.hsv_to_rgb(*hsv)) ** 2.2


def _any(rng: np.random.Generator) -> Floats:
    return _colour(rng, (0, 1), (0.15, 0.75), (0.25, 0.85))


def _neutral(rng: np.random.Generator, low: float = 0.3, high: float = 0.9) -> Floats:
    return _colour(rng, (0.02, 0.17), (0.0, 0.16), (low, high))


def _timber(rng: np.random.Generator) -> list[Floats]:
    light = _colour(rng, (0.045, 0.11), (0.25, 0.65), (0.3, 0.85))
    return [light * rng.uniform(0.45, 0.75), light]


def _wall(rng: np.random.Generator) -> Material:
    pattern = rng.choice(["plain", "stripes", "motif", "bricks", "tiles"], p=[0.56, 0.13, 0.16, 0.08, 0.07])
    hue = rng.uniform(0, 1)
    strength = rng.choice([0.06, 0.18, 0.38], p=[0.4, 0.35, 0.25])
    base = _colour(rng, (hue, hue), (0.0, strength), (0.62, 0.93))
    other = base * rng.uniform(0.55, 0.85) if rng.random() < 0.6 else _any(rng)
    if pattern == "bricks":
        brick = _colour(rng, (0.0, 0.08), (0.2, 0.6), (0.4, 0.75))
        return _make(rng, "bricks", [brick * 0.7, brick, _neutral(rng, 0.6, 0.85)], scale=rng.uniform(0.07, 0.12))
    if pattern == "tiles":
        scale = rng.uniform(0.14, 0.35)
        return _make(rng, "tiles", [base, base if rng.random() < 0.5 else other, _neutral(rng)], scale=scale, gloss=0.3)
    scale = {"plain": 0.1, "stripes": rng.uniform(0.07, 0.3), "motif": rng.uniform(0.18, 0.45)}[pattern]
    return _make(rng, pattern, [base, other, _any(rng)], scale=scale, petals=int(rng.integers(2, 7)))


def _floor(rng: np.random.Generator) -> Material:
    pattern = rng.choice(["planks", "tiles", "speckle", "marble", "weave"], p=[0.45, 0.28, 0.09, 0.08, 0.1])
    if pattern == "planks":
        angle = rng.choice([0, np.pi / 2])
        return _make(
            rng, "planks", _timber(rng), scale=rng.uniform(0.08, 0.2), angle=angle, gloss=rng.uniform(0.1, 0.4)
        )
    if pattern == "tiles":
        base = _neutral(rng, 0.45, 0.9)
        colours = [base, base if rng.random() < 0.5 else base * rng.uniform(0.3, 0.8), _neutral(rng, 0.35, 0.8)]
        angle = rng.choice([0, np.pi / 4], p=[0.75, 0.25])
        return _make(rng, "tiles", colours, scale=rng.uniform(0.2, 0.6), angle=angle, gloss=rng.uniform(0.2, 0.5))
    if pattern == "weave":
        base = _any(rng)
        return _make(rng, "weave", [base * 0.7, base], scale=rng.uniform(0.05, 0.12))
    base = _neutral(rng, 0.5, 0.85)
    colours = [base, base * rng.uniform(0.3, 0.6), _any(rng)]
    return _make(rng, pattern, colours, scale=rng.uniform(0.15, 0.6), gloss=rng.uniform(0.2, 0.5))


def _fabric(rng: np.random.Generator) -> Material:
    pattern = rng.choice(["plain", "weave", "stripes", "motif"], p=[0.35, 0.3, 0.2, 0.15])
    base = _any(rng)
    other = base * rng.uniform(0.45, 0.7) if rng.random() < 0.5 else _any(rng)
    scale = {"plain": 0.1, "weave": rng.uniform(0.04, 0.1), "stripes": rng.uniform(0.04, 0.15), "motif": 0.2}[pattern]
    return _make(rng, pattern, [base, other, _any(rng)], scale=scale, petals=int(rng.integers(2, 7)))


def _stone(rng: np.random.Generator) -> Material:
    base = _neutral(rng, 0.3, 0.9)
    colours = [base, base * rng.uniform(0.3, 0.7) if base.mean() > 0.3 else base + 0.3, _neutral(rng, 0.2, 0.9)]
    return _make(rng, rng.choice(["marble", "speckle"]), colours, scale=rng.uniform(0.1, 0.4), gloss=0.4)


def _plain_of(hue: tuple, saturation: tuple, value: tuple, **properties: float) -> Callable[..., Material]:
    return lambda rng: _make(rng, "plain", [_colour(rng, hue, saturation, value)], **properties)


FINISHES: dict[str, Callable[[np.random.Generator], Material]] = {
    "wall": _wall,
    "floor": _floor,
    "ceiling": _plain_of((0.05, 0.2), (0.0, 0.06), (0.88, 0.96)),
    "trim": lambda rng: (
        _make(rng, "wood", _timber(rng), scale=rng.uniform(0.03, 0.08), gloss=0.15)
        if rng.random() < 0.4
        else _make(rng, "plain", [_neutral(rng, 0.75, 0.95)], gloss=0.2)
    ),
    "wood": lambda rng: _make(rng, "wood", _timber(rng), scale=rng.uniform(0.03, 0.12), gloss=rng.uniform(0.1, 0.3)),
    "lacquer": lambda rng: _make(rng, "plain", [_any(rng) if rng.random() < 0.6 else _neutral(rng)], gloss=0.3),
    "fabric": _fabric,
    "stone": _stone,
    "linen": lambda rng: _make(rng, "weave", [(c := _neutral(rng, 0.7, 0.95)) * 0.85, c], scale=0.06),
    "leather": _plain_of((0.0, 0.1), (0.2, 0.7), (0.12, 0.5), gloss=0.25),
    "metal": _plain_of((0.0, 1.0), (0.0, 0.1), (0.3, 0.75), gloss=0.6),
    "black": _plain_of((0.0, 1.0), (0.0, 0.2), (0.08, 0.22), gloss=0.5),
    "screen": _plain_of((0.55, 0.7), (0.0, 0.3), (0.06, 0.12), gloss=0.75),
    "ceramic": _plain_of((0.0, 1.0), (0.0, 0.08), (0.85, 0.96), gloss=0.5),
    "glaze": _plain_of((0.0, 1.0), (0.2, 0.8), (0.3, 0.85), gloss=0.45),
    "foliage": lambda rng: _make(
        rng, "weave", [(c := _colour(rng, (0.22, 0.38), (0.4, 0.8), (0.3, 0.65))) * 0.6, c], scale=0.05
    ),
    "paper": _plain_of((0.1, 0.15), (0.02, 0.1), (0.85, 0.92)),
    "mirror": lambda rng: _make(rng, "plain", [np.full(3, 0.02)], gloss=1.0),
    "pane": lambda rng: _make(rng, "plain", [np.full(3, 0.05)], see_through=True),
    "shade": lambda rng: _make(rng, "plain", [np.array([0.8, 0.72, 0.55])], emission=rng.uniform(1.5, 3.0)),
}


def _painting(rng: np.random.Generator) -> Floats:
    """Return an abstract painting (h, w, 3): hills under a sky, blocks, discs, or patches."""
    size = 96
    y, x = np.mgrid[0:size, 0:size] / size
    style = rng.integers(4)
    image = np.ones((size, size, 3)) * _any(rng)
    if style == 0:  # hills under a sky
        image = _colour(rng, (0.5, 0.65), (0.1, 0.5), (0.6, 0.95)) * (0.6 + 0.4 * y)[..., None]
        for depth in np.linspace(0.35, 0.8, int(rng.integers(2, 5))):
            wave = sum(rng.uniform(0.01, 0.08) * np.sin(k * 6.28 * x + rng.uniform(0, 6)) for k in (1, 2, 3))
            image = np.where((y > depth + wave)[..., None], _colour(rng, (0.05, 0.6), (0.2, 0.7), (0.2, 0.7)), image)
    elif style == 1:  # blocks
        for _ in range(int(rng.integers(6, 16))):
            x0, y0 = rng.uniform(-0.2, 0.9, 2)
            inside = (x > x0) & (x < x0 + rng.uniform(0.08, 0.5)) & (y > y0) & (y < y0 + rng.uniform(0.08, 0.5))
            image = np.where(inside[..., None], _any(rng), image)
    elif style == 2:  # discs
        for _ in range(int(rng.integers(5, 14))):
            cx, cy = rng.uniform(0, 1, 2)
            inside = np.hypot((x - cx) * rng.uniform(0.7, 1.4), y - cy) < rng.uniform(0.04, 0.3)
            image = np.where(inside[..., None], _any(rng), image)
    else:  # patches: the nearest of some seeds
        seeds = rng.uniform(0, 1, (int(rng.integers(6, 20)), 2))
        nearest = np.hypot(x[..., None] - seeds[:, 0], y[..., None] - seeds[:, 1]).argmin(axis=-1)
        image = np.stack([_any(rng) for _ in seeds])[nearest]
    return image


def _rug(rng: np.random.Generator) -> Floats:
    """Return a rug (h, w, 3): bands around a field of patches, symmetric about both axes."""
    size = 128
    y, x = np.abs(np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1)
    seeds = rng.uniform(0, 1, (int(rng.integers(4, 14)), 2))
    field_of = np.hypot(x[..., None] - seeds[:, 0], y[..., None] - seeds[:, 1]).argmin(axis=-1)
    image = np.stack([_any(rng) for _ in range(4)])[field_of % 4]
    for edge in sorted(rng.uniform(0.6, 1.0, int(rng.integers(1, 4)))):
        image = np.where((np.maximum(x, y) > edge)[..., None], _any(rng), image)
    return image
