"""Time of computing the overlaps of all pairs of images.

The implementation of the library, which projects only potentially visible points, is compared with the published one,
which projects all points.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from numpy.typing import NDArray

from loco.geometry.cameras import scale_intrinsics
from loco.geometry.mesh import Mesh
from loco.geometry.overlap import overlap_matrix
from loco.geometry.patches import patch_points
from loco.geometry.raycast import RayCaster
from loco.simulate.house import build_house, scene_seed
from loco.simulate.lighting import ray_scene
from loco.simulate.panoramas import camera_intrinsics, choose_panoramas, shots

GRID, SIZE = (32, 40), (128, 160)  # of patches, and of depth images, pixels
TOLERANCE = 0.05  # metres


def row_by_row(
    points: NDArray, depth: NDArray, intrinsics: NDArray, poses: NDArray, tolerance: float
) -> NDArray[np.float32]:
    """Return the overlap matrix (n, n) by the published form: one row i at a time, from all points of image i.

    Image j sees a point if the point is in front of the camera, projects to a patch of j, and is less than
    ``tolerance`` behind the depth of that patch, which is found by rounding.

    Args:
        points: points of the patches of each image, (n, h, w, 3), metres, world frame.
        depth: (n, h, w), metres, one pixel per patch.
        intrinsics: (n, 3, 3), for images of h x w pixels.
        poses: (n, 4, 4), camera-to-world, metres.
        tolerance: metres.
    """
    n, h, w = depth.shape
    points, depth, intrinsics, to_camera = (
        torch.from_numpy(array).float() for array in (points, depth, intrinsics, np.linalg.inv(poses))
    )
    points, depth = points.reshape(n, -1, 3), depth.reshape(n, -1)
    overlap = torch.empty(n, n)
    for i in range(n):
        local = torch.einsum("nab,pb->npa", to_camera[:, :3, :3], points[i]) + to_camera[:, None, :3, 3]
        projected = torch.einsum("nab,npb->npa", intrinsics, local)
        z = projected[..., 2]
        u, v = (projected[..., :2] / z[..., None]).round().long().unbind(-1)
        inside = (z > 0) & (u >= 0) & (u < w) & (v >= 0) & (v < h)
        surface = depth.gather(1, v.clamp(0, h - 1) * w + u.clamp(0, w - 1))
        overlap[i] = (inside & (z < surface + tolerance)).float().mean(1)
    return overlap.numpy()


def simulate(images: int, rooms: int) -> tuple[NDArray, ...]:
    """Return points, validity, depth, intrinsics and poses of panoramas in all rooms of a furnished house."""
    house = build_house(scene_seed(0, "benchmark"), {"rooms": rooms, "repetition": 0.3})
    rng = np.random.default_rng(0)
    places = choose_panoramas(house, ray_scene(house), -(-images // 18), rng)
    cameras = camera_intrinsics(SIZE, rng)
    taken = [shot for place in places for shot in shots(place)][:images]
    intrinsics, poses = np.array([cameras[shot.camera] for shot in taken]), np.array([shot.pose for shot in taken])
    caster = RayCaster(Mesh(house.vertices, house.triangles.astype(np.uint32)))
    depth = np.array([caster.cast(k, pose, SIZE).depth for k, pose in zip(intrinsics, poses)])
    points, valid = zip(*(patch_points(d, k, pose, GRID) for d, k, pose in zip(depth, intrinsics, poses)))
    return np.array(points), np.array(valid), depth, intrinsics, poses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--images", type=int, nargs="+", default=[500, 1000], help="numbers of images (default: %(default)s)"
    )
    parser.add_argument("--rooms", type=int, default=8, help="number of rooms of the scene (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="number of threads of both forms (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| images | overlapping pairs | row by row, s | culled, s | ratio |\n|---|---|---|---|---|")
    for images in options.images:
        points, valid, depth, intrinsics, poses = simulate(images, options.rooms)
        step = SIZE[0] // GRID[0]
        coarse = depth[:, step // 2 :: step, step // 2 :: step], scale_intrinsics(intrinsics, SIZE, GRID)
        start = time.perf_counter()
        published = row_by_row(points, *coarse, poses, TOLERANCE)
        middle = time.perf_counter()
        ours = overlap_matrix(points, valid, depth, intrinsics, poses, TOLERANCE, options.threads)
        end = time.perf_counter()
        # The results differ: rounding finds the wrong patch for most points, and the library also requires that the
        # point is not in front of the observed surface.
        assert np.corrcoef(published.ravel(), ours.ravel())[0, 1] > 0.9
        times = middle - start, end - middle
        meet = np.mean(ours > 0)
        print(f"| {images} | {meet:.1%} | {times[0]:.1f} | {times[1]:.2f} | {times[0] / times[1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
