import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from loco.geometry.cameras import project
from loco.geometry.overlap import overlap_matrix
from loco.geometry.patches import patch_points
from loco.geometry.raycast import Mesh, RayCaster

K = np.array([[66.0, 0, 40.5], [0, 66.0, 31.0], [0, 0, 1]])
SIZE, GRID, TOLERANCE = (64, 80), (16, 20), 0.05


def room() -> RayCaster:
    """A 5 x 4 x 2.5 m room with a pillar."""
    mesh = trimesh.util.concatenate(
        trimesh.creation.box((5, 4, 2.5)), trimesh.creation.box((0.6, 0.6, 2.4)).apply_translation([1, 0.5, 0])
    )
    return RayCaster(Mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32)))


def look(position: tuple[float, float, float], yaw: float, tilt: float = 0.0) -> np.ndarray:
    pose = np.eye(4)
    level = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], float)  # camera z along world x, y along -z
    turn = Rotation.from_euler("z", yaw, degrees=True).as_matrix()
    pose[:3, :3] = turn @ level @ Rotation.from_euler("x", tilt, degrees=True).as_matrix()
    pose[:3, 3] = position
    return pose


def scene(poses: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    caster = room()
    depth = np.stack([caster.cast(K, pose, SIZE).depth for pose in poses])
    cells = [patch_points(d, K, pose, GRID) for d, pose in zip(depth, poses)]
    points, valid = np.stack([c[0] for c in cells]), np.stack([c[1] for c in cells])
    return points, valid, depth, np.stack([K] * len(poses)), np.stack(poses)


POSES = [look((-1, 0, 0), yaw, tilt) for yaw, tilt in [(0, 0), (0, 0), (30, 0), (10, 20), (180, 0)]]
POSES += [look((2, -1, 0.3), 150, -10), look((0, 1.2, -0.2), -45, 0)]


def test_an_image_sees_exactly_all_of_itself():
    overlap = overlap_matrix(*scene(POSES), TOLERANCE)
    assert (np.diag(overlap) == 1.0).all()
    assert overlap[0, 1] == 1.0  # an identical view
    assert overlap[0, 4] == 0.0  # back to back
    assert ((overlap >= 0) & (overlap <= 1)).all()


def test_overlap_equals_the_definition_by_ray_casting():
    """Brute force: a point is seen if the ray towards it first hits a surface at its own distance."""
    points, valid, depth, intrinsics, poses = scene(POSES)
    overlap = overlap_matrix(points, valid, depth, intrinsics, poses, TOLERANCE)
    import open3d as o3d

    caster = room()._scene
    for i in range(len(POSES)):
        for j in range(len(POSES)):
            own = points[i][valid[i]]
            uv, z = project(own, K, poses[j])
            inside = (z > 0) & (uv >= 0).all(axis=1) & (uv[:, 0] < SIZE[1]) & (uv[:, 1] < SIZE[0])
            rays = np.concatenate([np.broadcast_to(poses[j][:3, 3], own.shape), own - poses[j][:3, 3]], axis=1)
            reach = caster.cast_rays(o3d.core.Tensor(rays.astype(np.float32)))["t_hit"].numpy()
            expected = (inside & (np.abs(reach - 1) * z <= TOLERANCE)).mean()
            # They differ only where a depth edge or the image border runs within a pixel of a patch centre.
            assert abs(overlap[i, j] - expected) <= 0.02


def test_points_behind_or_floating_before_the_surface_are_not_seen():
    points, valid, depth, intrinsics, poses = scene(POSES[:1])
    nearer = depth.copy()
    nearer[:] = depth / 2  # j claims a surface at half the distance: i's points are hidden behind it
    both = np.concatenate([depth, nearer]), np.concatenate([intrinsics] * 2), np.concatenate([poses] * 2)
    two = np.concatenate([points] * 2), np.concatenate([valid] * 2)
    assert overlap_matrix(*two, *both, TOLERANCE)[0, 1] == 0
    farther = np.concatenate([depth, depth * 2])
    assert overlap_matrix(*two, farther, *both[1:], TOLERANCE)[0, 1] == 0


def test_an_image_without_valid_patches_overlaps_nothing():
    points, valid, depth, intrinsics, poses = scene(POSES[:2])
    valid[0] = False
    overlap = overlap_matrix(points, valid, depth, intrinsics, poses, TOLERANCE)
    assert overlap.tolist() == [[0, 0], [1, 1]]
