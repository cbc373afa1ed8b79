import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import open3d as o3d
import pycolmap
import pytest

from loco.datasets import check_scene, open_scene, raw_files
from loco.datasets.colmap import MAX_ERROR
from loco.errors import DataError
from loco.geometry.cameras import backproject, pixel_centres, project
from loco.simulate import simulate_scene
from loco.simulate.handheld import Walk
from loco.steps.correspondence import correspond_scene
from loco.steps.frames import prepare_frames
from loco.storage import Correspondences, Frames

SETTINGS = {"seed": 3, "rooms": 2, "images": 24, "image": {"height": 128, "width": 160}, "repetition": 0.5}
SIZE = (60, 80)  # of the photographs that tests create


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Path:
    """Scenes `binary` and `text`: the same house, written in each of the two forms."""
    raw = tmp_path_factory.mktemp("raw")
    for model in ("binary", "text"):
        # A single camera path; the house depends on the name of the scene.
        simulate_scene("colmap", raw / model, "house", SETTINGS | {"model": model})
    return raw


@pytest.fixture(scope="module")
def walk() -> Walk:
    return Walk("house", SETTINGS)


@pytest.fixture(params=["binary", "text"])
def raw(request, simulated, tmp_path) -> Path:
    """Return a copy of one of the scenes as `house`, which a test may damage."""
    shutil.copytree(simulated / request.param, tmp_path / "raw" / "house")
    return tmp_path / "raw"


def all_frames(raw: Path, scene: str = "house"):
    opened = open_scene("colmap", raw, scene)
    return opened, list(opened.frames(opened.names("all")))


# --- a simulated house -----------------------------------------------------------------------------------------------


def test_frames_are_those_that_were_simulated(simulated, walk):
    opened, frames = all_frames(simulated, "binary")
    assert [frame.name for frame in frames] == [f"{k:05d}.jpg" for k in range(24)]
    assert opened.skipped == {}
    assert opened.mesh() is None
    assert opened.labelled_mesh() is None
    for frame, pose, photo in zip(frames, walk.poses, walk.photos()):
        np.testing.assert_allclose(frame.pose, pose, atol=1e-9)
        np.testing.assert_allclose(frame.intrinsics, walk.intrinsics, atol=1e-9)
        assert frame.depth is None
        assert frame.rgb.shape == (*walk.size, 3)
        assert np.abs(frame.rgb.astype(float) - photo.rgb).mean() < 7  # JPEG


def test_text_and_binary_models_give_the_same_frames(simulated):
    (binary, frames), (text, same) = all_frames(simulated, "binary"), all_frames(simulated, "text")
    assert {path.suffix for path in raw_files("colmap", simulated, "text")[1:]} == {".txt"}
    assert {path.suffix for path in raw_files("colmap", simulated, "binary")[1:]} == {".bin"}
    np.testing.assert_allclose(binary.tracks(), text.tracks(), atol=1e-12)
    for a, b in zip(frames, same):
        assert a.name == b.name
        np.testing.assert_array_equal(a.rgb, b.rgb)
        np.testing.assert_allclose(a.pose, b.pose, atol=1e-12)
        np.testing.assert_allclose(a.observations.uv, b.observations.uv, atol=1e-9)
        np.testing.assert_array_equal(a.observations.track, b.observations.track)


def distance_to_surface(points, walk) -> np.ndarray:
    """Return the distances of points (n, 3) from the plane of the nearest triangle, float64, metres."""
    nearest = walk.renderer.scene.compute_closest_points(o3d.core.Tensor(points.astype(np.float32)))
    corners = walk.house.vertices[walk.house.triangles[nearest["primitive_ids"].numpy()]].astype(float)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.abs(np.sum((points - corners[:, 0]) * normals, axis=1)) / np.linalg.norm(normals, axis=1)


def way_to(points, centre, walk) -> np.ndarray:
    """Return the fraction of the way from ``centre`` to each point (n, 3) at which the ray first meets the house."""
    rays = np.concatenate([np.broadcast_to(centre, points.shape), points - centre], axis=1).astype(np.float32)
    return walk.renderer.scene.cast_rays(o3d.core.Tensor(rays))["t_hit"].numpy()


def test_points_are_on_the_true_surface_and_seen_where_it_is_observed(simulated, walk):
    opened, frames = all_frames(simulated, "binary")
    points = opened.tracks()
    assert len(points) > 100
    assert distance_to_surface(points, walk).max() < 1e-6
    seen, hidden = np.zeros(len(points), int), 0
    for frame in frames:
        uv, z = project(points, walk.intrinsics, frame.pose)
        observed = np.zeros(len(points), bool)
        observed[frame.observations.track] = True
        np.testing.assert_allclose(frame.observations.uv, uv[frame.observations.track], atol=1e-6)
        inside = (z > 0) & (uv >= 0).all(axis=1) & (uv < walk.size[::-1]).all(axis=1)
        assert inside[observed].all()
        # The way from the camera to a point, with length 1: free to observed points, blocked to the others.
        free = way_to(points, frame.pose[:3, 3], walk)
        assert (free[observed] > 1 - 2e-4).all()
        assert (free[inside & ~observed] < 1 - 5e-5).all()
        seen += observed
        hidden += np.count_nonzero(inside & ~observed)
    assert seen.min() >= 3
    assert hidden > 10


def test_patches_show_points_of_the_true_surface(simulated, walk, tmp_path):
    settings = {"height": 64, "width": 80, "images": "all", "max_hole_fraction": 0.2, "every": 2}
    prepare_frames("colmap", simulated, "binary", tmp_path / "f.h5", "d", settings)
    correspond_scene(tmp_path / "f.h5", tmp_path / "c.h5", {"stride": 4, "overlap_tolerance": 0.05})
    with Frames(tmp_path / "f.h5") as frames, Correspondences(tmp_path / "c.h5") as found:
        assert frames.sparse
        points, valid, overlap = found["points"][:], found["valid"][:], found["overlap"][:]
        assert valid.sum() > 100
        assert distance_to_surface(points[valid].astype(float), walk).max() < 1e-6
        for k, pose in enumerate(walk.poses[::2]):
            row, column = np.nonzero(valid[k])
            uv, z = project(points[k][valid[k]].astype(float), walk.intrinsics, pose)
            np.testing.assert_array_equal(np.floor(uv / 8), np.stack([column, row], axis=1))
            assert (z > 0).all()
        np.testing.assert_array_equal(np.diag(overlap), valid.any(axis=(1, 2)).astype(float))
        assert np.count_nonzero((overlap > 0) & (overlap < 1)) > 4


def test_scale_makes_metres_of_the_units_of_a_model(simulated, tmp_path):
    settings = {"height": 64, "width": 80, "images": "all", "max_hole_fraction": 0.2}
    for scale in (1.0, 2.5):
        out = tmp_path / f"{scale}.h5"
        prepare_frames("colmap", simulated, "binary", out, "d", settings | {"scale": scale})
    with Frames(tmp_path / "1.0.h5") as one, Frames(tmp_path / "2.5.h5") as other:
        np.testing.assert_allclose(other["track"][:], 2.5 * one["track"][:])
        np.testing.assert_allclose(other["pose"][:, :3, 3], 2.5 * one["pose"][:, :3, 3])
        np.testing.assert_array_equal(other["pose"][:, :3, :3], one["pose"][:, :3, :3])
        np.testing.assert_array_equal(other["observation_uv"][:], one["observation_uv"][:])


def test_keyframes_are_selected_by_the_points_that_images_observe(simulated, tmp_path):
    settings = {"height": 64, "width": 80, "images": "all", "max_hole_fraction": 0.2, "max_overlap": 0.3}
    prepare_frames("colmap", simulated, "binary", tmp_path / "f.h5", "d", settings)
    _, raw = all_frames(simulated, "binary")
    observed = {frame.name: set(frame.observations.track.tolist()) for frame in raw}

    def mutual(a: str, b: str) -> float:
        common = len(observed[a] & observed[b])
        return (common / len(observed[a]) + common / len(observed[b])) / 2

    with Frames(tmp_path / "f.h5") as frames:
        kept, left_out = frames.names, frames.facts["not_keyframes"]
        assert sorted([*kept, *left_out]) == [frame.name for frame in raw]
        assert 2 < len(kept) < 24
        assert all(mutual(a, b) <= 0.3 for a in kept for b in kept if a != b)
        for name, overlap in left_out.items():
            earlier = [mutual(name, other) for other in kept if other < name]
            assert max(earlier) == pytest.approx(overlap, abs=1e-4)
            assert overlap > 0.3


def test_manifest_of_a_whole_scene(raw):
    manifest = check_scene("colmap", raw, "house", "all")
    assert manifest["ok"], manifest["problems"]
    assert (manifest["images"], manifest["skipped"]) == (24, 0)
    assert manifest["points"] == len(open_scene("colmap", raw, "house").tracks())
    assert "does not determine the unit of length: `frames.scale` states" in manifest["notes"][0]
    model = {f"sparse/0/{name}" for name in ("cameras", "images", "points3D", "rigs", "frames")}
    assert {file["name"].split(".")[0] for file in manifest["files"]} == {"images"} | model


def test_older_models_and_other_places_serve_as_well(raw):
    _, expected = all_frames(raw)
    model = raw / "house" / "sparse" / "0"
    for file in model.iterdir():
        if file.stem not in ("rigs", "frames"):  # written since COLMAP 3.12
            file.rename(model.parent / file.name)
    shutil.rmtree(model)
    _, frames = all_frames(raw)
    for a, b in zip(frames, expected, strict=True):
        np.testing.assert_allclose(a.pose, b.pose, atol=1e-12)
        np.testing.assert_array_equal(a.observations.track, b.observations.track)
    assert check_scene("colmap", raw, "house", "sample")["ok"]


def test_photographs_that_the_model_does_not_place_are_skipped(raw):
    shutil.copyfile(raw / "house/images/00000.jpg", raw / "house/images/extra.JPG")
    (raw / "house/images/notes.txt").write_text("no photograph")
    opened, frames = all_frames(raw)
    assert opened.skipped == {"extra.JPG": "not registered"}
    assert len(frames) == 24
    manifest = check_scene("colmap", raw, "house", "sample")
    assert manifest["ok"]
    assert (manifest["images"], manifest["skipped"]) == (24, 1)


# --- models made by hand ---------------------------------------------------------------------------------------------


def write_scene(folder: Path, camera: pycolmap.Camera, poses, points, observed, photograph) -> Path:
    """Write a scene `house` to ``folder``; image k observes point i at pixel ``observed[k][i]`` (NaN: not)."""
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(camera)
    tracks = [pycolmap.Track() for _ in points]
    for number, (pose, uv) in enumerate(zip(poses, observed), start=1):
        shown = np.flatnonzero(np.isfinite(uv).all(axis=1))
        for place, index in enumerate(shown):
            tracks[index].add_element(number, place)
        inverse = np.linalg.inv(pose)
        image = pycolmap.Image(name=f"{number}.png", camera_id=1, image_id=number, keypoints=uv[shown])
        model.add_image_with_trivial_frame(
            image, pycolmap.Rigid3d(pycolmap.Rotation3d(inverse[:3, :3]), inverse[:3, 3])
        )
        (folder / "house/images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"house/images/{number}.png"), photograph[..., ::-1])
    for point, track in zip(points, tracks):
        model.add_point3D(point, track)
    (folder / "house/sparse/0").mkdir(parents=True)
    model.write_binary(folder / "house/sparse/0")
    return folder


def side_steps(n: int) -> np.ndarray:
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, 0, 3] = 0.1 * np.arange(n)
    return poses


def test_points_need_three_images_and_a_small_error(tmp_path):
    camera = pycolmap.Camera(camera_id=1, model="PINHOLE", width=80, height=60, params=[70, 70, 40, 30])
    poses = side_steps(4)
    points = np.array([[0, 0, 3.0], [0.2, 0.1, 3], [0.3, -0.1, 4], [0.1, 0.2, 5]])
    observed = np.array([project(points, camera.calibration_matrix(), pose)[0] for pose in poses])
    observed[2:, 1] = np.nan  # point 1 is observed in two images
    observed[:, 2, 1] += 1.01 * MAX_ERROR
    observed[:, 3, 1] += 0.99 * MAX_ERROR
    raw = write_scene(tmp_path, camera, poses, points, observed, np.zeros((*SIZE, 3), np.uint8))
    opened, frames = all_frames(raw)
    np.testing.assert_allclose(opened.tracks(), points[[0, 3]])
    for frame, uv in zip(frames, observed, strict=True):
        np.testing.assert_array_equal(frame.observations.track, [0, 1])
        np.testing.assert_allclose(frame.observations.uv, uv[[0, 3]])


def world(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return smooth colours as a function of directions (x, y, 1)."""
    waves = np.stack([np.sin(9 * x), np.cos(11 * y), np.sin(8 * (x + y))], axis=-1)
    return np.round(127 + 100 * waves).astype(np.uint8)


def radial(k):
    """Return r (1 + k r^2), the distortion of COLMAP's SIMPLE_RADIAL."""
    return lambda r: r * (1 + k * r**2)


LENSES = {
    "barrel": ("SIMPLE_RADIAL", [70, 41, 29, -0.15], radial(-0.15)),
    "pincushion": ("SIMPLE_RADIAL", [70, 41, 29, 0.2], radial(0.2)),
    "fisheye": ("SIMPLE_FISHEYE", [70, 41, 29], np.arctan),
    "fisheye, all coefficients 0": ("OPENCV_FISHEYE", [70, 70, 41, 29, 0, 0, 0, 0], np.arctan),
    "none": ("SIMPLE_RADIAL", [70, 41, 29, 0], lambda r: r),
}


@pytest.mark.parametrize("lens", LENSES)
def test_photographs_are_straightened_and_observations_with_them(lens, tmp_path):
    model, parameters, bend = LENSES[lens]
    camera = pycolmap.Camera(camera_id=1, model=model, width=80, height=60, params=parameters)
    k = np.array([[70, 0, 41], [0, 70, 29], [0, 0, 1.0]])

    # At each pixel centre, the photograph shows the direction that the lens projects there.
    r = np.linspace(0, 2, 200_001)
    seen = (pixel_centres(*SIZE) - k[:2, 2]) / 70
    bent = np.linalg.norm(seen, axis=-1)
    direction = seen * (np.interp(bent, bend(r), r) / bent)[..., None]
    photograph = world(direction[..., 0], direction[..., 1])

    rng = np.random.default_rng(0)
    points = backproject(rng.uniform(0, SIZE[::-1], (50, 2)), rng.uniform(2, 5, 50), k, np.eye(4))
    poses, observed = side_steps(3), []
    for pose in poses:
        x = (points - pose[:3, 3])[:, :2] / points[:, 2:]
        length = np.linalg.norm(x, axis=1, keepdims=True)
        observed.append(x * bend(length) / length * 70 + k[:2, 2])
    raw = write_scene(tmp_path, camera, poses, points, observed, photograph)

    opened, frames = all_frames(raw)
    np.testing.assert_allclose(opened.tracks(), points, atol=1e-9)
    for frame, pose in zip(frames, poses, strict=True):
        np.testing.assert_allclose(frame.intrinsics, k)
        assert frame.rgb.shape == (*SIZE, 3)
        uv, _ = project(points, k, pose)
        inside = np.flatnonzero((uv >= 0).all(axis=1) & (uv < SIZE[::-1]).all(axis=1))
        np.testing.assert_array_equal(frame.observations.track, inside)
        np.testing.assert_allclose(frame.observations.uv, uv[inside], atol=1e-4)

    pinhole = (pixel_centres(*SIZE) - k[:2, 2]) / 70
    length = np.linalg.norm(pinhole, axis=-1, keepdims=True)
    source = pinhole * bend(length) / length * 70 + k[:2, 2]
    shown = ((source >= 1) & (source <= np.array(SIZE[::-1]) - 1)).all(axis=-1)
    outside = ((source < -1) | (source > np.array(SIZE[::-1]) + 1)).any(axis=-1)
    difference = np.abs(frames[0].rgb.astype(int) - world(pinhole[..., 0], pinhole[..., 1]))[shown]
    # An error of half a pixel changes the image by about 7 grey levels.
    assert np.percentile(difference, 99) <= 4
    assert shown.mean() > 0.8
    assert not frames[0].rgb[outside].any()
    assert outside.any() == (lens == "pincushion")


def test_orientation_in_exif_is_ignored_as_colmap_does(tmp_path):
    camera = pycolmap.Camera(camera_id=1, model="PINHOLE", width=80, height=60, params=[70, 70, 40, 30])
    raw = write_scene(tmp_path, camera, side_steps(2), [], np.empty((2, 0, 2)), np.zeros((*SIZE, 3), np.uint8))
    photograph = np.zeros((*SIZE, 3), np.uint8)
    photograph[:, :40] = 200
    data = cv2.imencode(".jpg", photograph)[1].tobytes()
    tag = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)  # orientation: rotate by 90 degrees to the right
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 1) + tag + b"\0\0\0\0"
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    (raw / "house/images/1.png").write_bytes(data)
    assert cv2.imread(str(raw / "house/images/1.png")).shape[:2] == SIZE[::-1]
    bitmap = pycolmap.Bitmap.read(str(raw / "house/images/1.png"), True)
    assert (bitmap.height, bitmap.width) == SIZE
    _, frames = all_frames(raw)
    assert frames[0].rgb.shape == (*SIZE, 3)
    assert np.abs(frames[0].rgb.astype(int) - photograph).mean() < 4


# --- bad input -------------------------------------------------------------------------------------------------------


def model_file(raw: Path, stem: str) -> Path:
    (file,) = (raw / "house/sparse/0").glob(f"{stem}.*")
    return file


def rewrite(raw: Path, change) -> None:
    """Read the model, change it, and write it back in the same form."""
    place = raw / "house/sparse/0"
    text = (place / "cameras.txt").exists()
    model = pycolmap.Reconstruction(place)
    change(model)
    (model.write_text if text else model.write_binary)(place)


def no_model(raw):
    shutil.rmtree(raw / "house/sparse")


def no_points_file(raw):
    model_file(raw, "points3D").unlink()


def cut(stem):
    def damage(raw):
        file = model_file(raw, stem)
        file.write_bytes(file.read_bytes()[:-9])

    return damage


def empty(stem):
    return lambda raw: model_file(raw, stem).write_bytes(b"")


def garbage(stem):
    return lambda raw: model_file(raw, stem).write_bytes(np.random.default_rng(0).bytes(5000))


def impossible_focal_length(raw):
    def change(model):
        model.cameras[1].params = [-70, 70, 80, 64]

    rewrite(raw, change)


def panoramic_camera(raw):
    def change(model):
        camera = model.cameras[1]
        camera.model, camera.params = pycolmap.CameraModelId.EQUIRECTANGULAR, [160, 128]

    rewrite(raw, change)


def lost_pose(raw):
    def change(model):
        model.frames[3].rig_from_world = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.full(3, np.nan))

    rewrite(raw, change)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (no_model, "the scene has no COLMAP model"),
        (no_points_file, "the COLMAP model is incomplete"),
        *((cut(stem), "cannot be read") for stem in ("images", "points3D")),
        *((empty(stem), "cannot be read") for stem in ("cameras", "images", "points3D", "rigs", "frames")),
        *((garbage(stem), "cannot be read") for stem in ("cameras", "images", "points3D", "rigs", "frames")),
        (impossible_focal_length, "camera 1 has invalid parameters"),
        (panoramic_camera, "camera 1 has the model EQUIRECTANGULAR"),
        (lost_pose, "cannot be read"),
    ],
)
def test_a_broken_model_is_one_clear_problem(damage, problem, raw):
    damage(raw)
    manifest = check_scene("colmap", raw, "house", "sample")
    assert not manifest["ok"]
    assert len(manifest["problems"]) == 1
    assert problem in manifest["problems"][0]
    assert "reconstruct" in manifest["problems"][0]
    with pytest.raises(DataError, match=problem):
        open_scene("colmap", raw, "house")


@pytest.mark.parametrize("stem", ["cameras", "images", "points3D", "rigs", "frames"])
def test_binary_files_are_believed_only_if_their_records_fill_them(stem, simulated, tmp_path):
    shutil.copytree(simulated / "binary", tmp_path / "house")
    file = model_file(tmp_path, stem)
    data = file.read_bytes()
    many = struct.pack("<Q", 2**40) + data[8:]
    for bad in (data[:-1], data + b"\0", many, data[:8]):
        file.write_bytes(bad)
        with pytest.raises(DataError, match=f"{stem}.bin is truncated or damaged"):
            open_scene("colmap", tmp_path, "house")


def test_all_problems_are_found_at_once(raw):
    images = raw / "house/images"
    (images / "00002.jpg").unlink()
    (images / "00003.jpg").unlink()
    cv2.imwrite(str(images / "00004.jpg"), np.zeros((64, 80, 3), np.uint8))
    (images / "00005.jpg").write_bytes(b"no image")

    def leave(model):
        for point in list(model.point3D_ids()):
            model.delete_point3D(point)
        model.images[1].name = "../secret.jpg"

    rewrite(raw, leave)
    problems = check_scene("colmap", raw, "house", "all")["problems"]
    expected = [
        "no usable point",
        "'../secret.jpg'",
        "photographs of the model are missing (2 of 24): 00002.jpg, 00003.jpg",
        "differs from that of its camera",
        "cannot be decoded",
    ]
    assert len(problems) == len(expected)
    for text in expected:
        assert sum(text in problem for problem in problems) == 1
    opened = open_scene("colmap", raw, "house")
    for name in ("../secret.jpg", "00002.jpg", "00004.jpg", "00005.jpg"):
        with pytest.raises(DataError):
            list(opened.frames([name]))


def test_one_registered_photograph_is_too_few(raw):
    def leave(model):
        for frame in list(model.reg_frame_ids())[1:]:
            model.deregister_frame(frame)

    rewrite(raw, leave)
    manifest = check_scene("colmap", raw, "house", "sample")
    assert any("fewer than 2 photographs are registered" in problem for problem in manifest["problems"])
    assert (manifest["images"], manifest["skipped"]) == (1, 23)
