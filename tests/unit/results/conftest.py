"""A room to visualise: two boxes in a larger one, seen by cameras around its centre, with exact depth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from loco.evaluation.catalogue import BENCHMARKS
from loco.geometry.cameras import backproject, pixel_centres
from loco.geometry.overlap import overlap_matrix
from loco.geometry.patches import patch_points
from loco.results.metrics import Metrics
from loco.results.plots import ablations, scores
from loco.results.plots.style import STYLE
from loco.results.scores import KEYS, NUMBERS
from loco.results.tables import summary
from loco.simulate import simulate_scene
from loco.steps.correspondence import correspond_scene
from loco.steps.frames import prepare_frames
from loco.storage import Correspondences, Features, Frames

SIZE, GRID = (96, 120), (24, 30)
INTRINSICS = np.array([[70.0, 0, 60], [0, 70, 48], [0, 0, 1]])
ROOM = np.array([[-3.0, -2.5, 0], [3, 2.5, 2.6]])
BOXES = np.array([[[0.6, -0.4, 0], [1.4, 0.5, 0.8]], [[-1.6, 0.2, 0], [-0.9, 1.0, 1.3]]])


@dataclass(frozen=True)
class Scene:
    frames: Path
    correspondences: Path
    features: dict[str, Path]


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_scene(tmp_path_factory.mktemp("room"), cameras=12)


@pytest.fixture(scope="session")
def sparse_scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Return frames and correspondences of a simulated scene with the 3D points of a COLMAP model, without depth."""
    folder = tmp_path_factory.mktemp("sparse")
    image = {"height": 96, "width": 128}
    simulate_scene(
        "colmap", folder / "elm", "elm", {"seed": 1, "rooms": 1, "images": 24, "image": image, "repetition": 0.3}
    )
    scene = Scene(folder / "frames.h5", folder / "correspondences.h5", {})
    frames = image | {"images": "all", "max_hole_fraction": 1.0}
    prepare_frames("colmap", folder, "elm", scene.frames, "photographs", frames)
    correspond_scene(scene.frames, scene.correspondences, {"stride": 4, "overlap_tolerance": 0.05})
    return scene


@pytest.fixture
def rows_as_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make tables and figures show the rows of the metric files instead of scores computed from the items."""
    for module in (summary, scores, ablations):
        monkeypatch.setattr(module, "summarise", _rows_as_scores)


def _rows_as_scores(metrics: Iterable[Metrics], titles: dict[str, str]) -> pd.DataFrame:
    """Return the table of ``summarise`` from rows averaged over seeds; only the best row is marked as best."""
    order = list(titles)
    lines = [
        dict(zip(KEYS, (m.benchmark, m.split, m.experiment, titles[m.experiment], r.metric, r.condition, r.unit)))
        | {"value": r.value, "low": r.low, "high": r.high, "n": r.n, "deterministic": m.seed is None}
        | {"scenes": r.scenes, "population": BENCHMARKS[m.benchmark].population(r.population or "images")}
        for m in sorted(metrics, key=lambda m: (m.split, order.index(m.experiment), m.order))
        for r in m.rows
    ]
    runs = pd.DataFrame(lines).astype({"value": float, "low": float, "high": float})
    rules = {name: (name, "mean") for name in ("value", "low", "high")}
    rules |= {name: (name, "first") for name in ("n", "scenes", "deterministic", "population")}
    table = runs.groupby(KEYS, sort=False).agg(**rules, std=("value", "std"), seeds=("value", "size")).reset_index()
    return table.reindex(columns=[*KEYS, *NUMBERS]).assign(p_best=0.0, comparisons=3)


@pytest.fixture
def draw_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Draw figures twice by a function of the output folder; they are complete, equal, and not blank."""

    monkeypatch.setitem(STYLE, "savefig.dpi", 80)

    def draw(draw_all: Callable[[Path], None], *stems: str) -> None:
        for run in ("first", "second"):
            (tmp_path / run).mkdir()
            draw_all(tmp_path / run)
        names = {path.name for path in (tmp_path / "first").iterdir()}
        assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("svg", "png")}
        for name in names:
            content = (tmp_path / "first" / name).read_bytes()
            assert content == (tmp_path / "second" / name).read_bytes(), name
            if name.endswith("png"):
                assert np.asarray(Image.open(tmp_path / "first" / name).convert("L")).std() > 10, name
            else:
                assert content.rstrip().endswith(b"</svg>")
                assert b"dc:date" not in content

    return draw


def write_scene(folder: Path, cameras: int) -> Scene:
    poses = np.stack([_pose(k, cameras) for k in range(cameras)])
    depth, rgb = zip(*(_render(pose) for pose in poses))
    names = [f"image{k:02d}" for k in range(cameras)]
    intrinsics = np.repeat(INTRINSICS[None], cameras, axis=0)
    scene = Scene(
        folder / "frames.h5", folder / "correspondences.h5", {n: folder / f"{n}.h5" for n in ("place", "colour")}
    )
    with Frames.create(scene.frames, "rooms", "room", {"n": cameras, "h": SIZE[0], "w": SIZE[1]}) as file:
        file.facts["names"] = names
        file["intrinsics"][:], file["pose"][:] = intrinsics, poses
        file["rgb"][:], file["depth"][:], file["source"][:] = np.stack(rgb), np.stack(depth), 1
    with Frames(scene.frames) as frames:
        identity = frames.content_id
    points, valid = (np.stack(a) for a in zip(*(patch_points(d, INTRINSICS, p, GRID) for d, p in zip(depth, poses))))
    sizes, facts = {"n": cameras, "h": GRID[0], "w": GRID[1]}, {"stride": 4, "overlap_tolerance": 0.05, "extent": SIZE}
    with Correspondences.create(scene.correspondences, "rooms", "room", sizes, facts) as file:
        file.frames_id = identity
        file["points"][:], file["valid"][:] = points, valid
        file["overlap"][:] = overlap_matrix(points, valid, np.stack(depth), intrinsics, poses, 0.05)
    small = np.stack(rgb).reshape(cameras, SIZE[0] // 8, 8, SIZE[1] // 8, 8, 3).mean(axis=(2, 4)) / 255
    for name, maps in {"place": _waves(points), "colour": np.concatenate([small, np.ones_like(small)], -1)}.items():
        maps = maps / np.linalg.norm(maps, axis=-1, keepdims=True)
        sizes = dict(zip("nhwc", maps.shape))
        with Features.create(scene.features[name], "rooms", "room", sizes, {"extent": SIZE}) as file:
            file.frames_id = identity
            file["features"][:] = maps
    return scene


def _pose(k: int, cameras: int) -> np.ndarray:
    """Return poses on a circle, looking across the centre of the room and a little down."""
    turn = 2 * np.pi * k / cameras
    centre = np.array([2.2 * np.cos(turn), 1.8 * np.sin(turn), 1.5 + 0.2 * (-1) ** k])
    forward = np.array([0.2, 0.1, 0.7]) - centre
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.stack([right, np.cross(forward, right), forward], axis=1), centre
    return pose


def _render(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return depth (h, w) and colour (h, w, 3) uint8, by the slab method: rays leave the room and enter the boxes."""
    centre, uv = pose[:3, 3], pixel_centres(*SIZE)
    rays = backproject(uv, np.ones(SIZE), INTRINSICS, pose) - centre  # with z = 1, ray parameters are z-depths
    depth = np.maximum(*((ROOM - centre)[:, None, None] / rays)).min(axis=-1)
    for box in BOXES:
        slabs = (box - centre)[:, None, None] / rays
        enter, leave = np.minimum(*slabs).max(axis=-1), np.maximum(*slabs).min(axis=-1)
        depth = np.where((enter < leave) & (enter > 0), np.minimum(depth, enter), depth)
    points = centre + rays * depth[..., None]
    tiles = np.sin(5 * points + [0, 1, 2]) * np.sin(3.1 * np.roll(points, 1, axis=-1))
    return depth.astype(np.float32), np.uint8(127 + 100 * tiles)


def _waves(points: np.ndarray, channels: int = 48) -> np.ndarray:
    """Return features that depend on the location only: cosines of random waves over the room."""
    rng = np.random.default_rng(5)
    return np.cos(points @ rng.normal(scale=1.2, size=(3, channels)) + rng.uniform(0, 2 * np.pi, channels))
