"""Lens distortion against its formulas, implemented again and inverted by iteration, and on a closed scene."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest

from loco.datasets import check_scene, open_scene
from loco.datasets.distortion import FISHEYE, RADIAL_TANGENTIAL, Distortion, Undistortion
from loco.errors import DataError
from loco.geometry.cameras import backproject, pixel_centres

SIZE = (120, 160)
K = np.array([[110.0, 0, 82], [0, 112.0, 58], [0, 0, 1]])  # pixel centres at i + 0.5
LENSES = {
    "4": Distortion(RADIAL_TANGENTIAL, (-0.18, 0.05, 2e-3, -1e-3)),
    "5": Distortion(RADIAL_TANGENTIAL, (0.15, -0.2, -2e-3, 1e-3, 0.05)),
    "8": Distortion(RADIAL_TANGENTIAL, (0.3, 0.1, 1e-3, 1e-3, 0.02, 0.45, 0.1, 0.01)),
    "12": Distortion(RADIAL_TANGENTIAL, (-0.1, 0.02, 1e-3, 0, 0, 0, 0, 0, 2e-3, -1e-3, 3e-3, 1e-3)),
    "14": Distortion(RADIAL_TANGENTIAL, (-0.1, 0.02, 1e-3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.02, -0.03)),
    "fisheye": Distortion(FISHEYE, (0.05, -0.02, 0.01, -0.002)),
    "ideal fisheye": Distortion(FISHEYE, (0.0, 0.0, 0.0, 0.0)),
}
lenses = pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)


def shown(lens: Distortion, xy: np.ndarray) -> np.ndarray:
    """Implement both models as in OpenCV's documentation, in float64."""
    x, y = xy.T
    r2 = x**2 + y**2
    if lens.model == FISHEYE:
        r = np.sqrt(r2)
        t = np.arctan(r)
        k1, k2, k3, k4 = lens.coefficients
        bent = t * (1 + k1 * t**2 + k2 * t**4 + k3 * t**6 + k4 * t**8)
        return xy * np.divide(bent, r, out=np.ones_like(r), where=r > 0)[:, None]
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, tx, ty = [*lens.coefficients, *[0] * 14][:14]
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2) + s1 * r2 + s2 * r2**2
    v = y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y + s3 * r2 + s4 * r2**2
    about_x = np.array([[1, 0, 0], [0, np.cos(tx), np.sin(tx)], [0, -np.sin(tx), np.cos(tx)]])
    about_y = np.array([[np.cos(ty), 0, -np.sin(ty)], [0, 1, 0], [np.sin(ty), 0, np.cos(ty)]])
    r = about_y @ about_x
    tilt = np.array([[r[2, 2], 0, -r[0, 2]], [0, r[2, 2], -r[1, 2]], [0, 0, 1]]) @ r
    tilted = np.stack([u, v, np.ones_like(u)], axis=-1) @ tilt.T
    return tilted[:, :2] / tilted[:, 2:]


def undone(lens: Distortion, seen: np.ndarray) -> np.ndarray:
    """Return the rays that a lens projects there, by Newton's method with numerical derivatives."""
    xy, h = seen.copy(), 1e-6
    for _ in range(8):
        off = shown(lens, xy) - seen
        jacobian = np.stack([(shown(lens, xy + step) - shown(lens, xy)) / h for step in h * np.eye(2)], axis=-1)
        xy -= np.linalg.solve(jacobian, off[..., None])[..., 0]
    assert np.abs(shown(lens, xy) - seen).max() < 1e-9
    return xy


@lenses
def test_rays_are_distorted_as_documented(lens):
    rays = np.concatenate([np.random.default_rng(0).uniform(-0.7, 0.7, (500, 2)), np.zeros((1, 2))])
    np.testing.assert_allclose(lens.distort(rays), shown(lens, rays), atol=1e-12)


@pytest.mark.parametrize(("name", "model"), [("4", "OPENCV"), ("8", "FULL_OPENCV"), ("fisheye", "OPENCV_FISHEYE")])
def test_as_colmap_does(name, model):
    lens = LENSES[name]
    camera = pycolmap.Camera(model=model, width=160, height=120, params=[1, 1, 0, 0, *lens.coefficients])
    rays = np.random.default_rng(0).uniform(-0.7, 0.7, (200, 2))
    theirs = camera.img_from_cam(np.column_stack([rays, np.ones(len(rays))]))
    np.testing.assert_allclose(lens.distort(rays), theirs, atol=1e-12)


@pytest.mark.parametrize(
    "lens",
    [
        Distortion(RADIAL_TANGENTIAL, (-0.4, 0.0, 0.0, 0.0)),
        Distortion(RADIAL_TANGENTIAL, (0.0, 0.0, 0.0, 0.0, 0.0, -0.5, 0.0, 0.0)),
        Distortion(FISHEYE, (-0.5, 0.0, 0.0, 0.0)),
    ],
)
def test_where_the_polynomial_folds_back_nothing_is_seen(lens):
    """r - 0.4 r^3 increases up to r = 0.913, a / (1 - 0.5 r^2) up to its pole at 1.414, t - 0.5 t^3 up to t = 0.816."""
    end = {-0.4: 0.9129, 0.0: np.sqrt(2), -0.5: np.tan(0.8165)}[lens.coefficients[0]]
    radius = np.linspace(0, 3, 301)
    rays = np.stack([0.6 * radius, 0.8 * radius], axis=-1)
    seen = np.isfinite(lens.distort(rays)).all(axis=1)
    np.testing.assert_array_equal(seen, radius < end)


# --- a plane seen through a lens -------------------------------------------------------------------------------------

NORMAL, DISTANCE = np.array([0.15, 0.1, 1.0]), 2.0  # n . X = d


def texture(points: np.ndarray) -> np.ndarray:
    x, y = points[..., 0], points[..., 1]
    waves = np.sin(2.1 * x + 0.4), np.sin(1.8 * y + 1.1), np.sin(1.3 * (x + 0.6 * y))
    return 128 + 100 * np.stack(waves, axis=-1)


CAMERAS = {  # intrinsics and size
    "color": (K, SIZE),
    "half": (np.diag([0.5, 0.5, 1]) @ K, (60, 80)),
    "other": (np.array([[80.0, 0, 50], [0, 81.0, 44], [0, 0, 1]]), (90, 100)),
}


@cache
def photograph(lens: Distortion | None, camera: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the colour (h, w, 3) and the z-depth (h, w), metres, of the plane."""
    k, size = CAMERAS[camera]
    seen = pixel_centres(*size).reshape(-1, 2)
    xy = (np.column_stack([seen, np.ones(len(seen))]) @ np.linalg.inv(k).T)[:, :2]
    rays = np.column_stack([undone(lens, xy) if lens else xy, np.ones(len(xy))])
    z = DISTANCE / (rays @ NORMAL)
    rgb = np.round(np.clip(texture(rays * z[:, None]), 0, 255)).astype(np.uint8)
    return rgb.reshape(*size, 3), z.reshape(size)


def write_camera(file: Path, k: np.ndarray, lens: Distortion | None) -> None:
    np.savetxt(file, k - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    if lens:
        name = file.name.replace("K", "distortion")
        file.with_name(name).write_text(" ".join([lens.model, *map(str, lens.coefficients)]) + "\n")


def write_images(folder: Path, format: str, rgb: np.ndarray, depth: np.ndarray) -> None:
    units = 5000 if format == "tum_rgbd" else 1000
    color = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
    depth = cv2.imencode(".png", np.round(depth * units).astype(np.uint16))[1].tobytes()
    files = {
        "posed_rgbd": {"color/0.png": color, "depth/0.png": depth, "poses.txt": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"},
        "seven_scenes": {
            "seq-01/frame-000000.color.png": color,
            "seq-01/frame-000000.depth.png": depth,
            "seq-01/frame-000000.pose.txt": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
            "depth_to_color.txt": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        },
        "tum_rgbd": {
            "rgb/0.png": color,
            "depth/0.png": depth,
            "rgb.txt": "1.0 rgb/0.png",
            "depth.txt": "1.0 depth/0.png",
            "groundtruth.txt": "0.99 0 0 0 0 0 0 1\n1.01 0 0 0 0 0 0 1",
        },
    }
    for name, content in files[format].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def check_plane(format: str, raw: Path) -> None:
    """Every pixel with depth shows the plane; its colour and its depth agree on the point."""
    assert check_scene(format, raw, "s", "all")["problems"] == []
    scene = open_scene(format, raw, "s")
    (frame,) = scene.frames(scene.names("all"))
    (height, width), camera = frame.depth.shape, frame.camera_of_depth
    points = backproject(pixel_centres(height, width), frame.depth, camera.intrinsics, np.eye(4))
    known = frame.depth > 0
    assert known.mean() > 0.75
    off = np.abs(points @ NORMAL - DISTANCE)[known] / np.linalg.norm(NORMAL)
    assert np.percentile(off, 95) < 1e-3
    assert off.max() < 4e-3  # in the outermost half pixel, the depth is that of the outermost pixel
    np.testing.assert_allclose(frame.intrinsics, K, atol=1e-9)
    truth, _ = photograph(None, "color")
    lit = frame.rgb.any(axis=-1)
    assert lit.mean() > 0.75
    assert np.abs(frame.rgb[lit].astype(float) - truth[lit]).mean() < 1
    assert np.percentile(np.abs(frame.rgb[lit].astype(float) - truth[lit]), 99) < 4


@pytest.mark.parametrize("format", ["posed_rgbd", "seven_scenes", "tum_rgbd"])
@pytest.mark.parametrize("name", ["5", "8", "fisheye"])
def test_registered_depth_is_distorted_like_colour(format, name, tmp_path):
    """The depth image has half the size here; 7-Scenes has no registered depth, so its depth camera is separate."""
    write_images(tmp_path / "s", format, photograph(LENSES[name], "color")[0], photograph(LENSES[name], "half")[1])
    write_camera(tmp_path / "s" / "K.txt", K, LENSES[name])
    if format == "seven_scenes":
        write_camera(tmp_path / "s" / "K_depth.txt", CAMERAS["half"][0], LENSES[name])
    check_plane(format, tmp_path)


@pytest.mark.parametrize("format", ["posed_rgbd", "seven_scenes", "tum_rgbd"])
@pytest.mark.parametrize(("of_color", "of_depth"), [("4", "fisheye"), (None, "12"), ("14", None)])
def test_each_camera_has_a_distortion_of_its_own(format, of_color, of_depth, tmp_path):
    color, other = LENSES.get(of_color), LENSES.get(of_depth)
    write_images(tmp_path / "s", format, photograph(color, "color")[0], photograph(other, "other")[1])
    write_camera(tmp_path / "s" / "K.txt", K, color)
    write_camera(tmp_path / "s" / "K_depth.txt", CAMERAS["other"][0], other)
    check_plane(format, tmp_path)
    names = {file["name"] for file in check_scene(format, tmp_path, "s", "all")["files"]}
    assert {"distortion.txt", "distortion_depth.txt"} & names == {
        *(["distortion.txt"] if color else []),
        *(["distortion_depth.txt"] if other else []),
    }


def test_without_its_distortion_the_same_images_are_wrong(tmp_path):
    """The tests above would detect an error."""
    rgb, depth = photograph(LENSES["fisheye"], "color")
    write_images(tmp_path / "s", "posed_rgbd", rgb, depth)
    write_camera(tmp_path / "s" / "K.txt", K, None)
    with pytest.raises(AssertionError):
        check_plane("posed_rgbd", tmp_path)


@pytest.mark.parametrize("coefficients", [(-40.0, 0.05, 0.0, 0.0), (0.1, 0.05, 30.0, 0.0), (8.0, 0.0, 0.0, 0.0)])
def test_coefficients_that_no_camera_of_these_images_has(coefficients, tmp_path):
    """Intrinsics in pixels, for example, or in another order."""
    lens = Distortion(RADIAL_TANGENTIAL, coefficients)
    with pytest.raises(DataError, match=r"cover too little[\s\S]*found: \d+%[\s\S]*order and signs"):
        Undistortion(lens, K, SIZE, Path("distortion.txt"), "s")
    write_images(tmp_path / "s", "posed_rgbd", np.ones((*SIZE, 3), np.uint8), np.ones(SIZE))
    write_camera(tmp_path / "s" / "K.txt", K, lens)
    assert "distortion.txt" in "".join(check_scene("posed_rgbd", tmp_path, "s", "sample")["problems"])


@pytest.mark.parametrize(("name", "noted"), [("5", True), ("fisheye", False)])
def test_black_borders_are_noted(name, noted, tmp_path):
    """A pincushion lens sees less than the pinhole camera, a fisheye lens more."""
    write_images(tmp_path / "s", "posed_rgbd", *photograph(LENSES[name], "color"))
    write_camera(tmp_path / "s" / "K.txt", K, LENSES[name])
    notes = check_scene("posed_rgbd", tmp_path, "s", "all").get("notes", [])
    scene = open_scene("posed_rgbd", tmp_path, "s")
    (frame,) = scene.frames(scene.names("all"))
    lit = frame.rgb.any(axis=-1).mean()
    assert [f"covers {lit:.0%} of the undistorted images" in note for note in notes] == [True] * noted


def test_skew_is_kept():
    """A ray is projected where the matrix with its skew projects it, before and after."""
    skewed = np.array([[110.0, 3, 82], [0, 112.0, 58], [0, 0, 1]])
    straight = Undistortion(Distortion(RADIAL_TANGENTIAL, (0.0, 0.0, 0.0, 0.0)), skewed, SIZE, None, "s")
    rgb = np.random.default_rng(0).integers(1, 256, (*SIZE, 3), np.uint8)
    np.testing.assert_array_equal(straight.color(rgb), rgb)
