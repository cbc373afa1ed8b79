import numpy as np
import open3d as o3d
import pytest

from loco.datasets.ply import read_ply
from loco.errors import DataError
from loco.geometry.mesh import Mesh
from loco.geometry.raycast import RayCaster
from loco.simulate import simulate_scene
from loco.simulate.handheld import Walk
from loco.steps.frames import prepare_frames
from loco.steps.fuse import fuse_scene
from loco.storage import Frames, read_mesh

MADE = {"seed": 5, "rooms": 1, "repetition": 0.5, "images": 30, "image": {"height": 96, "width": 128}}
SETTINGS = {"voxel": 0.03, "max_depth": 6.0}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Return the same camera path with exact depth (7-Scenes: with a separate depth camera) and with sensor noise."""
    raw = tmp_path_factory.mktemp("raw")
    simulate_scene("seven_scenes", raw / "exact", "house", MADE | {"exact_depth": True})
    simulate_scene("posed_rgbd", raw / "sensed", "house", MADE)
    return raw


def fuse(format, raw, scene, out, **changes):
    fuse_scene(format, raw, scene, out, SETTINGS | changes)
    return read_ply(out.read_bytes(), file=out, scene=scene)


def true_surface() -> Mesh:
    house = Walk("house", MADE).house
    return Mesh(house.vertices, house.triangles.astype(np.uint32))


def test_the_mesh_lies_on_the_true_surface_though_depth_has_a_camera_of_its_own(raw, tmp_path):
    mesh = fuse("seven_scenes", raw, "exact", tmp_path / "mesh.ply")
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(*true_surface())
    distance = scene.compute_distance(o3d.core.Tensor(mesh.vertices)).numpy()
    assert len(mesh.triangles) > 10_000
    assert np.median(distance) < 0.25 * SETTINGS["voxel"]
    assert np.mean(distance < SETTINGS["voxel"]) > 0.95


def test_holes_of_the_sensor_are_filled_from_it(raw, tmp_path):
    fuse("posed_rgbd", raw, "sensed", tmp_path / "mesh.ply")
    frames_settings = {"height": 48, "width": 64, "images": "all", "max_hole_fraction": 1.0}
    depth, source = {}, {}
    for name, mesh in (("without", None), ("with", read_mesh(tmp_path / "mesh.ply")[0])):
        out = tmp_path / f"{name}.h5"
        prepare_frames("posed_rgbd", raw, "sensed", out, "rooms", frames_settings, mesh=mesh)
        with Frames(out) as frames:
            depth[name], source[name] = frames["depth"][:], frames["source"][:]
            intrinsics, poses = frames["intrinsics"][:], frames["pose"][:]
    filled = source["with"] == Frames.SOURCES.index("mesh")
    assert filled.mean() > 0.02
    assert (source["without"][filled] == Frames.SOURCES.index("inpainted")).all()
    caster = RayCaster(true_surface())
    truth = np.stack([caster.cast(k, pose, (48, 64)).depth for k, pose in zip(intrinsics, poses)])
    error = {name: np.median(np.abs(depth[name] - truth)[filled & (truth > 0)]) for name in depth}
    assert error["with"] < 0.5 * SETTINGS["voxel"]
    assert error["with"] < error["without"]


def test_equal_runs_give_equal_files(raw, tmp_path):
    fuse("posed_rgbd", raw, "sensed", tmp_path / "a.ply", voxel=0.1)
    fuse("posed_rgbd", raw, "sensed", tmp_path / "b.ply", voxel=0.1)
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


def test_scenes_that_cannot_be_fused(raw, tmp_path):
    with pytest.raises(DataError, match=r"not form a surface[\s\S]*within 0.05 m[\s\S]*max_depth"):
        fuse("posed_rgbd", raw, "sensed", tmp_path / "mesh.ply", max_depth=0.05)
    assert list(tmp_path.iterdir()) == []
