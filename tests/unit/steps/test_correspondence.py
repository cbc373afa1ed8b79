import tracemalloc
from pathlib import Path

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from loco.geometry.mesh import Mesh
from loco.geometry.raycast import RayCaster
from loco.steps.correspondence import correspond_scene
from loco.storage import Correspondences, Frames

K = np.array([[66.0, 0, 40.5], [0, 66.0, 31.0], [0, 0, 1]])
SIZE = (64, 80)
SETTINGS = {"stride": 4, "overlap_tolerance": 0.05}


def turning(n: int) -> np.ndarray:
    """Return poses of a camera that rotates once about a point near the centre of the room."""
    poses = np.stack([np.eye(4)] * n)
    poses[:, :3, :3] = Rotation.from_rotvec(np.arange(n)[:, None] * [0, 2 * np.pi / n, 0]).as_matrix()
    poses[:, :3, 3] = (0.5, 0.1, -0.2)
    return poses


def write_frames(path: Path, depth: np.ndarray, poses: np.ndarray, k: np.ndarray = K) -> Path:
    sizes = {"n": len(depth), "h": depth.shape[1], "w": depth.shape[2]}
    with Frames.create(path, "rooms", "room", sizes) as file:
        names, intrinsics = [f"{i}" for i in range(len(depth))], np.stack([k] * len(depth))
        file.facts["names"] = names
        file["intrinsics"][:], file["pose"][:], file["depth"][:] = intrinsics, poses, depth
    return path


def test_points_of_a_room_lie_on_its_walls_and_neighbours_overlap(tmp_path):
    box = trimesh.creation.box((5, 2.5, 4))
    caster, poses = RayCaster(Mesh(box.vertices.astype(np.float32), box.faces.astype(np.uint32))), turning(12)
    depth = np.stack([caster.cast(K, pose, SIZE).depth for pose in poses])
    frames_path = write_frames(tmp_path / "frames.h5", depth, poses)
    correspond_scene(frames_path, tmp_path / "correspondences.h5", SETTINGS, threads=2)
    with Correspondences(tmp_path / "correspondences.h5") as found, Frames(frames_path) as frames:
        found.require_frames(frames)
        assert found.grid == (16, 20)
        assert found.facts == SETTINGS | {"extent": list(SIZE), "origin": [0.0, 0.0, 0.0]}
        points, overlap = found["points"][:], found["overlap"][:]
        assert found["valid"][:].all()
    to_wall = np.abs(np.abs(points) - np.array([2.5, 1.25, 2.0])).min(axis=-1)
    # Except for the patches in the corners of the room, whose four pixels are on two walls.
    assert np.mean(to_wall < 1e-5) > 0.9
    assert to_wall.max() < 0.02
    assert (np.diag(overlap) == 1).all()
    apart = np.arange(12)
    turn = np.minimum((apart - apart[:, None]) % 12, (apart[:, None] - apart) % 12) * 30
    assert (overlap[turn == 30] > 0.3).all()
    assert (overlap[turn == 60] > 0).all()  # the images are 62 degrees wide
    assert (overlap[turn >= 90] == 0).all()


def test_depth_is_never_held_as_a_whole(tmp_path):
    depth = np.full((200, *SIZE), 2.0, np.float32)
    path = write_frames(tmp_path / "frames.h5", depth, turning(200))
    whole = depth.nbytes
    del depth
    tracemalloc.start()
    correspond_scene(path, tmp_path / "correspondences.h5", {"stride": 16, "overlap_tolerance": 0.05})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.5 * whole


def test_patches_beyond_the_image_show_nothing(tmp_path):
    path = write_frames(tmp_path / "frames.h5", np.ones((1, *SIZE), np.float32), turning(1))
    correspond_scene(path, tmp_path / "correspondences.h5", SETTINGS | {"stride": 7})
    rows, columns = -(-SIZE[0] // 7), -(-SIZE[1] // 7)
    with Correspondences(tmp_path / "correspondences.h5") as found:
        assert found.grid == (rows, columns)
        assert found.extent == (7 * rows, 7 * columns)
        v, u = (np.arange(rows) + 0.5) * 7, (np.arange(columns) + 0.5) * 7
        np.testing.assert_array_equal(found["valid"][0], (v < SIZE[0])[:, None] & (u < SIZE[1]))
