import numpy as np
import open3d as o3d
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from loco.geometry.cameras import Camera
from loco.geometry.fuse import Fusion
from loco.geometry.mesh import Mesh
from loco.geometry.raycast import RayCaster
from loco.simulate.handheld import Walk

VOXEL = 0.03
K = np.array([[90.0, 0, 64], [0, 90.0, 48], [0, 0, 1]])
SIZE = (96, 128)


def slanted_views() -> list[np.ndarray]:
    """Return poses that look at the origin from 2 m away, at angles of up to 40 degrees, in some world frame."""
    poses = []
    for slant in ([0, 0], [40, 0], [-30, 20], [10, -40]):
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_euler("xy", slant, degrees=True).as_matrix()
        pose[:3, 3] = -2 * pose[:3, 2]
        poses.append(pose)
    return poses


def test_a_plane_seen_at_slants_is_fused_without_bias():
    """An offset of half a pixel would shift the surface by a centimetre, because pixels are 2.2 cm wide there."""
    plane = trimesh.creation.box((40, 40, 0.1)).apply_translation([0, 0, 0.05])
    caster = RayCaster(Mesh(plane.vertices.astype(np.float32), plane.faces.astype(np.uint32)))
    for poses in (slanted_views(), slanted_views()[1:2] * 2):
        fusion = Fusion(VOXEL, max_depth=5.0)
        for pose in poses:
            fusion.add(caster.cast(K, pose, SIZE).depth, Camera(K, pose))
        vertices = fusion.mesh().vertices
        inner = vertices[np.abs(vertices[:, :2]).max(axis=1) < 0.6]
        assert len(inner) > 1000
        assert abs(np.mean(inner[:, 2])) < 0.1 * VOXEL
        assert np.abs(inner[:, 2]).max() < 0.5 * VOXEL


@pytest.fixture(scope="module")
def walk() -> Walk:
    made = {"seed": 2, "rooms": 1, "repetition": 0.5, "images": 40, "image": {"height": 96, "width": 128}}
    return Walk("fused", made | {"exact_depth": True})


def house(walk: Walk) -> RayCaster:
    return RayCaster(Mesh(walk.house.vertices, walk.house.triangles.astype(np.uint32)))


def fused(walk: Walk, voxel: float) -> Mesh:
    caster, fusion = house(walk), Fusion(voxel, max_depth=8.0)
    for pose in walk.poses:
        fusion.add(caster.cast(walk.intrinsics, pose, walk.size).depth, Camera(walk.intrinsics, pose))
    return fusion.mesh()


def test_a_fused_room_lies_on_the_true_surface_and_fills_holes(walk):
    mesh = fused(walk, VOXEL)
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(walk.house.vertices, walk.house.triangles.astype(np.uint32))
    distance = scene.compute_distance(o3d.core.Tensor(mesh.vertices)).numpy()
    assert np.median(distance) < 0.25 * VOXEL
    assert np.mean(distance < VOXEL) > 0.95

    pose = walk.poses[7] @ np.block([[np.eye(3), np.full((3, 1), 0.04)], [np.zeros((1, 3)), 1]])  # a new view
    hole = np.zeros(walk.size, bool)
    hole[30:70, 20:100] = True
    truth = house(walk).cast(walk.intrinsics, pose, walk.size).depth
    filled = RayCaster(mesh).cast(walk.intrinsics, pose, walk.size, mask=hole).depth
    assert (filled[hole] > 0).mean() > 0.95
    error = np.abs(filled - truth)[hole & (filled > 0)]
    assert np.median(error) < 0.5 * VOXEL
    assert np.mean(error < VOXEL) > 0.8


def test_equal_depth_gives_equal_meshes_and_finer_voxels_finer_ones(walk):
    mesh, again = fused(walk, 0.06), fused(walk, 0.06)
    np.testing.assert_array_equal(mesh.vertices, again.vertices)
    np.testing.assert_array_equal(mesh.triangles, again.triangles)
    assert len(fused(walk, 0.04).vertices) > 1.5 * len(mesh.vertices)


def test_depth_that_is_unusable_makes_no_surface():
    pose = np.eye(4)
    with pytest.raises(ValueError, match="not form a surface"):
        Fusion(VOXEL, 5.0).mesh()
    for depth in (np.zeros(SIZE), np.full(SIZE, 6.0), np.full(SIZE, np.nan), np.full(SIZE, -1.0)):
        fusion = Fusion(VOXEL, 5.0)
        for _ in range(3):
            fusion.add(depth, Camera(K, pose))
        with pytest.raises(ValueError, match="not form a surface"):
            fusion.mesh()
    once = Fusion(VOXEL, 5.0)
    once.add(np.full(SIZE, 2.0), Camera(K, pose))
    with pytest.raises(ValueError, match="not form a surface"):
        once.mesh()  # visible in one image only
