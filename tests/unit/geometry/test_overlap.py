import h5py
import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from loco.geometry.cameras import project
from loco.geometry.mesh import Mesh
from loco.geometry.overlap import KeyframeSelection, SparseKeyframeSelection, overlap_matrix
from loco.geometry.patches import patch_points
from loco.geometry.raycast import RayCaster

K = np.array([[66.0, 0, 40.5], [0, 66.0, 31.0], [0, 0, 1]])
SIZE, GRID, TOLERANCE = (64, 80), (16, 20), 0.05


def room() -> RayCaster:
    """Return a room of 5 x 4 x 2.5 m with a pillar."""
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


def depth_span(depth, uv):
    """Return the smallest and largest depth of the four pixels around positions (k, 2); 0 if one has none.

    Between the border and the outermost pixel centres, the outermost pixels are repeated.
    """
    size = np.array(depth.shape[::-1])
    inside = ((uv >= 0) & (uv < size)).all(axis=1)
    x, y = np.clip(np.where(inside[:, None], uv, 0.5) - 0.5, 0, size - 1).T
    columns, rows = ([np.floor(p).astype(int), np.ceil(p).astype(int)] for p in (x, y))
    four = np.stack([depth[row, column] for row in rows for column in columns])
    nearest = np.where(inside, four.min(axis=0), 0)
    return nearest, np.where(nearest > 0, four.max(axis=0), 0)


def by_the_definition(points, valid, depth, intrinsics, poses, tolerance):
    """Project every valid point into every image."""
    overlap = np.zeros((len(points), len(points)))
    for i, j in np.ndindex(overlap.shape):
        if valid[i].any():
            uv, z = project(points[i][valid[i]], intrinsics[j], poses[j])
            ahead = z > 0
            nearest, farthest = depth_span(depth[j], np.where(ahead[:, None], uv, -1.0))
            seen = ahead & (nearest > 0) & (z >= nearest - tolerance) & (z <= farthest + tolerance)
            overlap[i, j] = seen.mean()
    return overlap.astype(np.float32)


def walk(n: int, seed: int) -> list[np.ndarray]:
    """Return poses all over the room, with random directions."""
    rng = np.random.default_rng(seed)
    places, yaws, tilts = rng.uniform((-2, -1.5, -1), (0, 1.5, 1), (n, 3)), rng.uniform(0, 360, n), rng.normal(0, 25, n)
    return [look(tuple(place), yaw, tilt) for place, yaw, tilt in zip(places, yaws, tilts)]


@pytest.mark.parametrize("grid", [(16, 20), (8, 10), (32, 40)])
def test_culling_leaves_out_nothing(grid):
    """Equal to the definition: with holes, images without depth, individual intrinsics, and grids of any size."""
    rng = np.random.default_rng(1)
    caster, poses = room(), np.stack(walk(24, 0))
    intrinsics = np.stack(
        [
            np.diag([f, f, 1]) @ K + np.array([[0, 0, s], [0, 0, -s], [0, 0, 0]])
            for f, s in zip(rng.uniform(0.5, 2, 24), rng.uniform(-20, 20, 24))
        ]
    )
    depth = np.stack([caster.cast(k, pose, SIZE).depth for k, pose in zip(intrinsics, poses)])
    depth[3:9] *= rng.random((6, *SIZE)) > 0.02
    depth[9, :, :40], depth[10] = 0, 0
    points, valid = map(np.array, zip(*(patch_points(*each, grid) for each in zip(depth, intrinsics, poses))))
    expected = by_the_definition(points, valid, depth, intrinsics, poses, TOLERANCE)
    assert 0.1 < np.mean(expected > 0) < 0.9
    assert not expected[10].any() and not expected[:, 10].any()  # noqa: PT018
    overlap = overlap_matrix(points, valid, depth, intrinsics, poses, TOLERANCE)
    np.testing.assert_array_equal(overlap, expected)
    assert (np.diag(overlap)[np.arange(24) != 10] == 1).all()


def test_a_far_away_world_and_hidden_rooms():
    """Two rooms with a wall between them do not overlap, even if they are very near; far from the origin, too."""
    boxes = [trimesh.creation.box((4, 4, 2.5)).apply_translation([x, 0, 0]) for x in (-2.1, 2.1)]
    mesh = trimesh.util.concatenate(boxes)
    caster = RayCaster(Mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32)))
    poses = np.stack([look((x, y, 0), yaw) for x in (-2.1, 2.1) for y in (-1, 1) for yaw in range(0, 360, 60)])
    intrinsics = np.stack([K] * len(poses))
    depth = np.stack([caster.cast(K, pose, SIZE).depth for pose in poses])
    moved = poses.copy()
    moved[:, :3, 3] += (5e5, -4e6, 300)
    for where in (poses, moved):
        points, valid = map(np.array, zip(*(patch_points(d, K, pose, GRID) for d, pose in zip(depth, where))))
        overlap = overlap_matrix(points, valid, depth, intrinsics, where, TOLERANCE)
        half = len(poses) // 2
        assert (overlap[:half, half:] == 0).all()
        assert (overlap[half:, :half] == 0).all()
        assert (np.diag(overlap) == 1).all()
        assert overlap[:half, :half].mean() > 0.05


def test_threads_and_files_change_nothing(tmp_path):
    points, valid, depth, intrinsics, poses = scene(walk(40, 2))
    expected = overlap_matrix(points, valid, depth, intrinsics, poses, TOLERANCE)
    with h5py.File(tmp_path / "depth.h5", "w") as file:
        stored = file.create_dataset("depth", data=depth, chunks=(1, *SIZE), compression="gzip")
        overlap = overlap_matrix(points, valid, stored, intrinsics, poses, TOLERANCE, threads=3)
    np.testing.assert_array_equal(overlap, expected)


def test_overlap_equals_the_definition_by_ray_casting():
    """Brute force: a point is visible if the ray towards it first hits a surface at its distance."""
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
            # They differ only where a depth edge or the image border is within a pixel of a patch centre.
            assert abs(overlap[i, j] - expected) <= 0.02


def test_points_behind_or_floating_before_the_surface_are_not_seen():
    points, valid, depth, intrinsics, poses = scene(POSES[:1])
    nearer = depth.copy()
    nearer[:] = depth / 2  # the depth of j is half the distance: the points of i are occluded
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


def test_keyframes_finds_the_largest_mutual_overlap():
    poses = walk(25, 3)
    _, _, depth, intrinsics, poses = scene(poses)
    # The same by the matrix of overlaps, with the grid and depth image by which keyframes are compared.
    caster = room()
    size, grid = (64, 80), (32, 40)
    fine = np.stack([caster.cast(K, pose, size).depth for pose in poses])
    points, valid = map(np.array, zip(*(patch_points(d, K, pose, grid) for d, pose in zip(fine, poses))))
    matrix = overlap_matrix(points, valid, fine, intrinsics, poses, TOLERANCE)
    mutual = (matrix + matrix.T) / 2
    every, limited = KeyframeSelection(1.0), KeyframeSelection(0.3)
    for i, frame in enumerate(zip(depth, intrinsics, poses)):
        largest = mutual[i, :i].max(initial=0)
        assert every.overlap(*frame) == pytest.approx(largest, abs=1e-6)
        assert (limited.overlap(*frame) > 0.3) == (largest > 0.3)
        every.add(*frame)
        limited.add(*frame)
    assert mutual[0, 1:].max() > 0.3


def test_keyframes_of_a_stream_keeps_frames_that_show_new_places():
    yaws = np.arange(0, 360, 4)
    keyframes, kept = KeyframeSelection(0.4), []
    caster = room()
    for yaw in yaws:
        pose = look((-1, 0, 0), yaw)
        depth = caster.cast(K, pose, SIZE).depth
        if keyframes.overlap(depth, K, pose) <= 0.4:
            keyframes.add(depth, K, pose)
            kept.append(yaw)
    # The images are 62 degrees wide: each next keyframe must be rotated by somewhat more than 60 % of that.
    assert 5 <= len(kept) <= 10
    assert (np.diff(kept) >= 32).all()


def test_keyframes_at_another_image_size_and_without_depth():
    caster, poses = room(), [look((-1, 0, 0), 0), look((-1, 0.1, 0), 8)]
    mutual = []
    for factor in (1, 2.5):
        k, size = np.diag([factor, factor, 1]) @ K, (int(64 * factor), int(80 * factor))
        keyframes = KeyframeSelection(1.0)
        keyframes.add(caster.cast(k, poses[0], size).depth, k, poses[0])
        mutual.append(keyframes.overlap(caster.cast(k, poses[1], size).depth, k, poses[1]))
        assert keyframes.overlap(np.zeros(size), k, poses[0]) == 0
    assert mutual[0] > 0.5
    assert mutual[1] == pytest.approx(mutual[0], abs=0.02)


def test_keyframes_of_a_sparse_model_are_compared_by_common_points():
    rng = np.random.default_rng(0)
    observed = [rng.choice(60, size, replace=False) for size in (1, 10, 30, 0, 50, 25)]
    observed[4] = np.repeat(observed[4], 2)  # an image can observe a point twice
    keyframes = SparseKeyframeSelection()
    for i, track in enumerate(observed):
        a, largest = set(track.tolist()), 0.0
        for b in (set(earlier.tolist()) for earlier in observed[:i]):
            if a & b:
                largest = max(largest, (len(a & b) / len(a) + len(a & b) / len(b)) / 2)
        assert keyframes.overlap(track) == pytest.approx(largest, abs=1e-12)
        keyframes.add(track)
