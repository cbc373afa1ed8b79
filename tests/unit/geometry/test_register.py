import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.ndimage import binary_dilation, laplace
from scipy.spatial.transform import Rotation

from loco.geometry.cameras import Camera, pixel_centres, project, scale_intrinsics
from loco.geometry.patches import sample_depth
from loco.geometry.raycast import pixel_directions
from loco.geometry.register import register_depth
from loco.simulate.handheld import DepthRig, Walk

K = np.array([[50.0, 0, 31.0], [0, 52.0, 25.0], [0, 0, 1]])
COLOR_K = np.array([[70.0, 0, 41.5], [0, 69.0, 30.0], [0, 0, 1]])
SIZE, COLOR_SIZE = (48, 60), (64, 80)


def moved(turn: tuple[float, float, float], step: tuple[float, float, float], start: np.ndarray | None = None):
    """Return ``start``, rotated by a rotation vector (degrees) and translated (metres), both in its own frame."""
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(turn, degrees=True).as_matrix()
    motion[:3, 3] = step
    return (np.eye(4) if start is None else start) @ motion


ANYWHERE = moved((20, -130, 70), (4, -7, 2))


@pytest.mark.parametrize("size", [(24, 30), (16, 20), (48, 60), (32, 37)])
def test_one_camera_at_another_size_reads_its_own_pixels(size):
    """Also if pixel centres coincide (a third of the size, or the same): adjacent holes and edges have no effect."""
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 4, SIZE).astype(np.float32)
    depth[rng.random(SIZE) < 0.3] = 0
    resized = register_depth(depth, Camera(K, ANYWHERE), Camera(scale_intrinsics(K, SIZE, size), ANYWHERE), size)
    expected, _ = sample_depth(depth, pixel_centres(*size) * (SIZE[1] / size[1], SIZE[0] / size[0]))
    np.testing.assert_array_equal(resized > 0, expected > 0)
    assert_allclose(resized, expected, rtol=1e-6)


def plane_depth(normal, distance, intrinsics, pose, size):
    """Return the z-depth of the plane ``normal`` . x = ``distance`` (world frame)."""
    return (distance - normal @ pose[:3, 3]) / (pixel_directions(intrinsics, pose, size) @ normal)


def between_centres(z, color):
    """Return masks of pixels of depth ``z`` between the pixel centres of the depth camera, and outside its image."""
    points = color[:3, 3] + pixel_directions(COLOR_K, color, COLOR_SIZE) * z[..., None]
    uv, ahead = project(points, K, ANYWHERE)
    inside = (uv > 0.6) & (uv < np.array(SIZE[::-1]) - 0.6)
    outside = (uv < -1e-3) | (uv > np.array(SIZE[::-1]) + 1e-3)
    return inside.all(axis=-1) & (ahead > 0), outside.any(axis=-1) | (ahead <= 0)


@settings(max_examples=40, deadline=None)
@given(
    slant=st.tuples(st.floats(-45, 45), st.floats(-45, 45)),
    turn=st.tuples(*[st.floats(-6, 6)] * 3),
    step=st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(*[st.floats(-0.08, 0.08)] * 3)),
    finer=st.sampled_from([1, 3]),
)
def test_planes_keep_their_place_at_any_slant(slant, turn, step, finer):
    normal = ANYWHERE[:3, :3] @ Rotation.from_euler("xy", slant, degrees=True).apply([0, 0, 1])
    distance = normal @ ANYWHERE[:3, 3] + 2.0
    color = moved(turn, step, ANYWHERE)
    size = finer * SIZE[0], finer * SIZE[1]
    k = scale_intrinsics(K, SIZE, size)
    depth = plane_depth(normal, distance, k, ANYWHERE, size)
    steep = (depth <= 0) | (depth > 5)  # near its horizon a plane looks like a depth edge
    registered = register_depth(np.where(steep, 0, depth), Camera(k, ANYWHERE), Camera(COLOR_K, color), COLOR_SIZE)
    expected = plane_depth(normal, distance, COLOR_K, color, COLOR_SIZE)
    inside, outside = between_centres(expected, color)
    sure = inside & (expected > 0) & (expected < 4.5)
    assert sure.sum() > 1000
    assert_allclose(registered[sure], expected[sure], rtol=2e-5)
    assert not registered[outside].any()


def test_what_a_near_surface_hides_from_either_camera():
    """A square of 0.6 m at 1 m in front of a wall at 3 m; the second camera is 20 cm to the right of the first."""
    pose, right = np.eye(4), moved((0, 0, 0), (0.2, 0, 0))

    def hits_square(origin, directions, reach):  # towards z = reach
        at = origin[:2] + directions[..., :2] / directions[..., 2:] * (1 - origin[2])
        return (np.abs(at) < 0.3).all(axis=-1) & (reach > 1)

    def true_depth(k, camera, size):
        rays = pixel_directions(k, camera, size)
        return np.where(hits_square(camera[:3, 3], rays, 3.0), 1.0, 3.0)

    depth = true_depth(K, pose, SIZE)
    registered = register_depth(depth, Camera(K, pose), Camera(COLOR_K, right), COLOR_SIZE)
    truth = true_depth(COLOR_K, right, COLOR_SIZE)
    points = right[:3, 3] + pixel_directions(COLOR_K, right, COLOR_SIZE) * truth[..., None]
    uv = (points @ K.T)[..., :2] / points[..., 2:]
    seen = ((uv > 0) & (uv < SIZE[::-1])).all(axis=-1) & ~((truth == 3) & hits_square(pose[:3, 3], points, 3.0))
    expected = np.where(seen, truth, 0)
    edges = np.zeros(COLOR_SIZE, bool)
    edges[:, 1:] |= expected[:, 1:] != expected[:, :-1]
    edges[1:] |= expected[1:] != expected[:-1]
    sure = ~binary_dilation(edges, iterations=3)
    assert {0.0, 1.0, 3.0} <= set(expected[sure])
    assert_allclose(registered[sure], expected[sure], rtol=1e-5)


def test_no_surface_is_made_across_holes_and_edges():
    camera = Camera(K, np.eye(4))
    assert not register_depth(np.zeros(SIZE), camera, Camera(K, moved((0, 0, 0), (0.1, 0, 0))), SIZE).any()
    checkered = np.where(np.indices(SIZE).sum(axis=0) % 2, 1.0, 2.0)
    assert not register_depth(checkered, camera, Camera(K, moved((0, 0, 0), (0.1, 0, 0))), SIZE).any()


def test_a_depth_camera_beside_the_colour_camera_in_a_room():
    rig = DepthRig(
        np.array([[88.0, 0, 64], [0, 88.0, 48], [0, 0, 1]]), (96, 128), moved((0.5, 1, -0.3), (-0.03, 0.01, 0.005))
    )
    made = {"seed": 1, "rooms": 1, "repetition": 0.5, "images": 4, "image": {"height": 96, "width": 128}}
    planes = []
    for photo in Walk("two cameras", made | {"exact_depth": True}, rig).photos():
        depth_camera = Camera(rig.intrinsics, photo.pose @ rig.pose_in_color)
        registered = register_depth(photo.depth, depth_camera, Camera(photo.intrinsics, photo.pose), (96, 128))
        truth = photo.view.depth
        # Inverse depth is linear on a plane, except at creases and edges, which are cut off by the pixels of the depth
        # image.
        plane = ~binary_dilation(np.abs(laplace(1 / truth)) > 1e-4, iterations=3)[1:-1, 1:-1]
        registered, truth = registered[1:-1, 1:-1], truth[1:-1, 1:-1]
        planes.append(plane.mean())
        known = registered > 0
        assert known[plane].mean() > 0.98
        error = np.abs(registered / truth - 1)[plane & known]
        assert np.mean(error < 1e-4) > 0.999  # except for objects thinner than a pixel
        assert np.median(np.abs(photo.depth[1:-1, 1:-1] / truth - 1)) > 5e-3  # the unregistered depth differs
    assert np.mean(planes) > 0.2
