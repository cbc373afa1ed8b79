import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from loco.geometry.cameras import backproject, pixel_centres
from loco.geometry.raycast import Mesh, RayCaster

K = np.array([[70.0, 0, 41.3], [0, 69.0, 30.2], [0, 0, 1]])
SIZE = (64, 80)


def box(extents: tuple[float, float, float]) -> Mesh:
    mesh = trimesh.creation.box(extents)
    return Mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))


def test_depth_of_a_wall_is_z_depth_not_distance():
    hits = RayCaster(box((100, 100, 6))).cast(K, np.eye(4), SIZE)
    np.testing.assert_allclose(hits.depth, 3.0, rtol=1e-6)


def test_points_lie_on_the_surface_from_any_pose():
    extents = np.array([4.0, 6.0, 3.0])
    caster = RayCaster(box(tuple(extents)))
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", [20, 130, -50], degrees=True).as_matrix()
    pose[:3, 3] = [0.5, -1.0, 0.2]
    hits = caster.cast(K, pose, SIZE)
    points = backproject(pixel_centres(*SIZE), hits.depth, K, pose)
    # Inside a box, the largest coordinate relative to its half extent is exactly 1 on the surface.
    np.testing.assert_allclose(np.abs(points / (extents / 2)).max(axis=-1), 1.0, atol=1e-5)
    assert (hits.triangle >= 0).all()
    assert (hits.triangle < 12).all()


def test_misses_have_depth_zero_and_no_triangle():
    behind = np.eye(4)
    behind[:3, 3] = [0, 0, 10]  # outside, looking away
    hits = RayCaster(box((1, 1, 1))).cast(K, behind, SIZE)
    assert (hits.depth == 0).all()
    assert (hits.triangle == -1).all()


def test_only_masked_pixels_are_cast():
    mask = np.zeros(SIZE, dtype=bool)
    mask[10:20, 30:40] = True
    hits = RayCaster(box((100, 100, 6))).cast(K, np.eye(4), SIZE, mask)
    np.testing.assert_array_equal(hits.depth > 0, mask)
