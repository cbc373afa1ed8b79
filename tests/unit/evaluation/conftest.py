"""Scenes of a few images, written and opened as in the workflow."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np
import pytest

from loco.evaluation.result import EvaluatedScene
from loco.storage import Correspondences, Features, Frames, Labels


@pytest.fixture
def make_scene(tmp_path) -> Callable[..., EvaluatedScene]:
    """Write the files of a scene and open them; arguments that are not given have simple defaults.

    ``labels`` is (instance, semantic, objects); ``separate`` omits the correspondences.
    """
    number = count()

    def make(
        poses,
        features,
        scene="room",
        depth=None,
        source=None,
        intrinsics=None,
        points=None,
        valid=None,
        overlap=None,
        size=(6, 8),
        extent=None,
        names=None,
        ground_truth=None,
        labels=None,
        dataset="test",
        separate=False,
        norm=None,
        rgb=None,
    ) -> EvaluatedScene:
        n = len(poses)
        points = np.zeros((n, 2, 2, 3)) if points is None else points
        names = names or [f"view{i}" for i in range(n)]
        intrinsics = np.broadcast_to(np.eye(3) if intrinsics is None else intrinsics, (n, 3, 3))
        sizes = {"n": n, "h": size[0], "w": size[1]}
        grid = {"n": n, "h": points.shape[1], "w": points.shape[2]}
        cells = {"n": n, "h": features.shape[1], "w": features.shape[2], "c": features.shape[3]}
        content = {
            Frames: (sizes, {
                "intrinsics": intrinsics,
                "rgb": np.zeros((n, *size, 3), np.uint8) if rgb is None else rgb,
                "pose": poses,
                "depth": np.ones((n, *size)) if depth is None else depth,
                "source": np.full((n, *size), Frames.SOURCES.index("sensor")) if source is None else source,
            }),
            Correspondences: (grid, {
                "points": points,
                "valid": np.ones(points.shape[:3], bool) if valid is None else valid,
                "overlap": np.ones((n, n)) if overlap is None else overlap,
            }),
            Features: (cells, {
                "features": features,
                "norm": np.ones(features.shape[:3]) if norm is None else norm,
            }),
        }  # fmt: skip
        facts = {"extent": extent or size, "names": list(names)}
        if labels is not None:
            instance, semantic, objects = labels
            content[Labels] = sizes, {"instance": instance, "semantic": semantic}
            facts |= {"objects": objects}
        if separate:
            del content[Correspondences]
        if ground_truth is not None:
            facts |= {"ground_truth": ground_truth}
        folder = tmp_path / f"made{next(number)}"  # scenes of the same name are written to separate folders
        paths, frames_id = {}, ""
        for kind, (letters, arrays) in content.items():
            paths[kind] = folder / f"{scene}.{kind.format}.h5"
            with kind.create(paths[kind], dataset, scene, letters, facts, frames_id=frames_id) as file:
                for name, array in arrays.items():
                    file[name][:] = array
            if kind is Frames:
                with Frames(paths[Frames]) as frames:
                    frames_id = frames.content_id
        return EvaluatedScene(paths[Frames], paths.get(Correspondences), paths[Features], paths.get(Labels))

    return make


def turned(degrees: float, centre=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Return the camera-to-world pose of a camera rotated about its vertical axis."""
    pose = np.eye(4)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    pose[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    pose[:3, 3] = centre
    return pose


@pytest.fixture(name="turned")
def turned_fixture() -> Callable[..., np.ndarray]:
    return turned
