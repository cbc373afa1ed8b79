import hashlib
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import open3d as o3d
import pytest

from loco.datasets import check_scene, open_scene, raw_files
from loco.datasets.raw import RawFrame
from loco.errors import DataError
from loco.geometry.cameras import relative_rotation_angle
from loco.geometry.mesh import Mesh
from loco.geometry.overlap import overlap_matrix
from loco.geometry.patches import patch_points
from loco.geometry.raycast import Hits, RayCaster
from loco.simulate.house import build_house, scene_seed
from loco.simulate.panoramas import camera_intrinsics, choose_panoramas, shots
from loco.simulate.render import Renderer
from loco.steps.frames import prepare_frame
from tests.unit.conftest import HOUSE
from tests.unit.datasets.oriented import oriented

COLOR, DEPTH, CONF, REGIONS = (
    "undistorted_color_images",
    "undistorted_depth_images",
    "undistorted_camera_parameters",
    "region_segmentations",
)


def rewrite(path: Path, change) -> None:
    """Rewrite a zip; ``change(name, data)`` returns (name, data), or None to omit a member."""
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for member in filter(None, (change(*m) for m in members)):
            archive.writestr(*member)


def edit_conf(raw: Path, edit) -> None:
    rewrite(raw / "house" / f"{CONF}.zip", lambda name, data: (name, edit(data.decode()).encode()))


@pytest.fixture(scope="module")
def truth():
    """Return the house and cameras from which the simulator made the raw scene."""
    entropy = scene_seed(HOUSE["seed"], "house")
    house = build_house(entropy, HOUSE)
    renderer, rng = Renderer(house), np.random.default_rng([*entropy, 2])
    size = (HOUSE["image"]["height"], HOUSE["image"]["width"])
    cameras = camera_intrinsics(size, rng)
    names = []
    places = choose_panoramas(house, renderer.scene, HOUSE["panoramas"], rng)
    for place in places:
        names += [(f"_i{shot.camera}_{shot.yaw}", cameras[shot.camera], shot.pose) for shot in shots(place)]
    return renderer, {suffix: (k, pose) for suffix, k, pose in names}


def all_frames(raw: Path) -> Iterator[RawFrame]:
    scene = open_scene("matterport3d", raw, "house")
    return scene.frames(scene.names("all"))


def test_frames_are_those_that_were_simulated(pristine, truth):
    renderer, cameras = truth
    frames = list(all_frames(pristine))
    assert len(frames) == 18
    for frame in frames:
        intrinsics, pose = cameras[frame.name[frame.name.index("_i") :]]
        np.testing.assert_allclose(frame.intrinsics, intrinsics, rtol=1e-5)
        np.testing.assert_allclose(frame.pose, pose, atol=1e-5)
        view = renderer.render(intrinsics, pose, frame.depth.shape)
        known = (frame.depth > 0) & (view.depth > 0)
        assert known.mean() > 0.4
        # Sensor noise grows with the square of the distance; at a depth edge the sensor may measure the other side.
        assert np.median(np.abs(frame.depth - view.depth)[known] / view.depth[known]) < 0.01


def test_mesh_gives_the_exact_depth_for_every_image_of_a_panorama(pristine, truth):
    renderer, cameras = truth
    caster = RayCaster(open_scene("matterport3d", pristine, "house").mesh(), threads=1)
    for frame in all_frames(pristine):
        exact = renderer.render(*cameras[frame.name[frame.name.index("_i") :]], frame.depth.shape).depth
        cast = caster.cast(frame.intrinsics, frame.pose, frame.depth.shape).depth
        # The .conf rounds intrinsics to 6 digits, so a ray may miss an edge that the exact ray hits.
        assert np.mean(np.abs(cast - exact) < 1e-5 * exact) > 0.998


def test_patches_lie_on_the_true_surface_and_see_themselves(pristine, truth):
    """Applies where depth is exact: here it is the depth of the mesh instead of the sensor."""
    renderer, _ = truth
    mesh = open_scene("matterport3d", pristine, "house").mesh()
    caster = RayCaster(mesh, threads=1)
    blind = [replace(frame, depth=np.zeros_like(frame.depth)) for frame in all_frames(pristine)]
    frames = [prepare_frame(frame, (64, 80), caster)[0] for frame in blind]
    points, valid = (np.array(each) for each in zip(*(patch_points(*_camera(f), (16, 20)) for f in frames)))
    house = o3d.t.geometry.RaycastingScene()
    house.add_triangles(renderer.house.vertices, renderer.house.triangles.astype(np.uint32))
    distance = house.compute_distance(o3d.core.Tensor(points.astype(np.float32))).numpy()
    flat = valid & np.array([_shows_one_plane(caster.cast(f.intrinsics, f.pose, (64, 80)), mesh) for f in frames])
    assert flat.mean() > 0.5
    # Between four pixels of one plane there may still be a slit, or a thin object.
    assert np.mean(distance[flat] < 1e-5) > 0.998
    assert np.median(distance[valid]) < 1e-5  # at creases, the four pixels show two planes

    depth, intrinsics, poses = (np.array(each) for each in zip(*map(_camera, frames)))
    overlap = overlap_matrix(points, valid, depth, intrinsics, poses, tolerance=0.05)
    np.testing.assert_array_equal(overlap.diagonal(), 1.0)
    # Two level images of 61.5 degrees whose directions differ by more than that share no ray.
    level = [i for i, frame in enumerate(frames) if "_i1_" in frame.name]
    angle = relative_rotation_angle(poses[level][:, None], poses[level][None])
    assert (overlap[np.ix_(level, level)][angle > 100] == 0).all()


def _shows_one_plane(hits: Hits, mesh: Mesh) -> np.ndarray:
    """Return the patches of 4 x 4 pixels whose four central pixels show the same plane."""
    a, b, c = (mesh.vertices[mesh.triangles[:, k]].astype(np.float64) for k in range(3))
    normals = np.cross(b - a, c - a)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    planes = np.concatenate([normals, np.sum(normals * a, axis=1, keepdims=True)], axis=1)[hits.triangle]
    around = np.stack([planes[y::4, x::4] for y in (1, 2) for x in (1, 2)])
    return np.ptp(around, axis=0).max(axis=-1) < 1e-4


def _camera(frame: RawFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return frame.depth, frame.intrinsics, frame.pose


def test_images_all_or_horizontal(pristine):
    scene = open_scene("matterport3d", pristine, "house")
    assert len(scene.names("all")) == 18
    horizontal = scene.names("horizontal")
    assert len(horizontal) == 6
    assert all("_i1_" in name for name in horizontal)
    assert [frame.name for frame in scene.frames(horizontal)] == horizontal


def test_manifest_of_a_whole_scene(pristine):
    manifest = check_scene("matterport3d", pristine, "house", "all")
    assert manifest["ok"]
    assert manifest["problems"] == []
    assert (manifest["images"], manifest["panoramas"], manifest["regions"]) == (18, 1, 1)
    assert {f["name"]: f["bytes"] for f in manifest["files"]} == {
        path.name: path.stat().st_size for path in raw_files("matterport3d", pristine, "house")
    }
    for entry, path in zip(manifest["files"], raw_files("matterport3d", pristine, "house"), strict=True):
        assert entry["identified_by"] == "sha256"
        assert entry["digest"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_unpacked_folders_serve_as_well(raw):
    expected = next(all_frames(raw))
    for path in raw_files("matterport3d", raw, "house"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(raw)  # the paths of members begin with the folder of the scene
        path.unlink()
    frame = next(all_frames(raw))
    np.testing.assert_array_equal(frame.rgb, expected.rgb)
    np.testing.assert_array_equal(frame.depth, expected.depth)
    assert check_scene("matterport3d", raw, "house", "sample")["ok"]


def truncate(raw: Path) -> None:
    path = raw / "house" / f"{DEPTH}.zip"
    path.write_bytes(path.read_bytes()[:-200])


def flip_a_byte(raw: Path) -> None:
    path = raw / "house" / f"{COLOR}.zip"
    data = bytearray(path.read_bytes())
    data[5000] ^= 0xFF
    path.write_bytes(data)


def escape(raw: Path) -> None:
    with zipfile.ZipFile(raw / "house" / f"{COLOR}.zip", "a") as archive:
        archive.writestr("../outside.txt", "gotcha")


def empty_image(raw: Path) -> None:
    rewrite(raw / "house" / f"{COLOR}.zip", lambda name, data: (name, b"" if "_i1_3" in name else data))


def no_image(raw: Path) -> None:
    rewrite(raw / "house" / f"{DEPTH}.zip", lambda name, data: (name, b"not a png" if "_d0_0" in name else data))


def lose_an_image(raw: Path) -> None:
    rewrite(raw / "house" / f"{DEPTH}.zip", lambda name, data: None if "_d2_5" in name else (name, data))


def add_an_image(raw: Path) -> None:
    with zipfile.ZipFile(raw / "house" / f"{COLOR}.zip", "a") as archive:
        archive.writestr(f"house/{COLOR}/stray.jpg", b"x")


def without_mesh(raw: Path) -> None:
    rewrite(raw / "house" / f"{REGIONS}.zip", lambda name, data: None if name.endswith(".ply") else (name, data))


def with_first_number(number: str):
    return lambda text: re.sub(r"(scan \S+ \S+) \S+", rf"\1 {number}", text, count=1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: (raw / "house" / f"{COLOR}.zip").unlink(), r"color_images.zip is missing[\s\S]*download_mp.py"),
        (lambda raw: shutil.rmtree(raw / "house"), r"folder of the scene does not exist[\s\S]*--id house"),
        (truncate, r"truncated or not a zip archive[\s\S]*depth_images.zip[\s\S]*download it again"),
        (flip_a_byte, r"cannot be read: Bad CRC-32[\s\S]*color_images.zip"),
        (escape, r"leaves the folder: '../outside.txt'[\s\S]*color_images.zip"),
        (empty_image, r"images have 0 bytes \(1\): \w+_i1_3.jpg"),
        (no_image, r"_d0_0.png' cannot be decoded"),
        (lose_an_image, r"images that the .conf lists are missing \(1\): \w+_d2_5.png"),
        (add_an_image, r"files are not listed in the .conf \(1\): .*stray.jpg"),
        (without_mesh, r"the archive contains no region mesh"),
        (lambda raw: edit_conf(raw, lambda t: t.replace("n_images 18", "n_images 20")), r"expected: 20 images"),
        (lambda raw: edit_conf(raw, with_first_number("")), r"15 numbers instead of 16"),
        (lambda raw: edit_conf(raw, with_first_number("nan")), r"not finite"),
        (lambda raw: edit_conf(raw, with_first_number("9.5")), r"not a rigid transformation"),
        (lambda raw: edit_conf(raw, lambda t: t.replace(" 0 0 1\n", " 0 1\n", 1)), r"line \d+ of 'house/.*8 numbers"),
        (lambda raw: edit_conf(raw, lambda t: t[t.index("scan") :]), r"precedes the first `intrinsics_matrix`"),
        (lambda raw: edit_conf(raw, lambda t: ""), r"at least one image"),
    ],
)  # fmt: skip
def test_what_is_broken_is_named_with_its_remedy(raw, damage, message):
    damage(raw)
    manifest = check_scene("matterport3d", raw, "house", "all")
    assert not manifest["ok"]
    listed = "\n".join(manifest["problems"])
    assert re.search(message, listed), listed
    assert "what to do" in listed


def test_all_problems_are_listed_at_once(raw):
    truncate(raw)
    empty_image(raw)
    (raw / "house" / f"{REGIONS}.zip").unlink()
    assert len(check_scene("matterport3d", raw, "house", "sample")["problems"]) == 3


def test_colour_and_depth_must_be_of_one_size(raw):
    import cv2

    small = cv2.imencode(".png", np.ones((10, 10), np.uint16))[1].tobytes()
    rewrite(raw / "house" / f"{DEPTH}.zip", lambda name, data: (name, small))
    with pytest.raises(DataError, match=r"differ in size[\s\S]*\(64, 80\)[\s\S]*\(10, 10\)"):
        next(all_frames(raw))


def ply(vertex: str, triangles: list[str]) -> str:
    """Return an ASCII PLY with two valid vertices, a third one, and triangles."""
    coordinates = "".join(f"property float {axis}\n" for axis in "xyz")
    return (
        f"element vertex 3\n{coordinates}element face {len(triangles)}\nproperty list uchar int vertex_indices\n"
        + "\n".join(["end_header", "0 0 0", "1 0 0", vertex, *triangles, ""])
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (ply("0 1 0", []), "point cloud"),
        (ply("0 0 nan", ["3 0 1 2"]), "not finite"),
        (ply("0 1 0", ["3 0 1 7"]), "that refer to missing vertices"),
        (ply("0 1 0", ["3 0 1 2"])[:40], "cannot be read"),
    ],
)
def test_broken_meshes_are_refused(raw, body, message):
    mesh = f"ply\nformat ascii 1.0\n{body}".encode()
    rewrite(raw / "house" / f"{REGIONS}.zip", lambda name, data: (name, mesh if name.endswith(".ply") else data))
    with pytest.raises(DataError, match=message):
        open_scene("matterport3d", raw, "house").mesh()


def test_orientations_are_ignored(raw):
    expected = list(all_frames(raw))
    for kind in (COLOR, DEPTH):
        rewrite(raw / "house" / f"{kind}.zip", lambda name, data: (name, oriented(data, 3)))
    for frame, other in zip(all_frames(raw), expected):
        np.testing.assert_array_equal(frame.rgb, other.rgb)
        np.testing.assert_array_equal(frame.depth, other.depth)
    assert "decoded (36 with orientation 3)" in check_scene("matterport3d", raw, "house", "all")["notes"][0]


@pytest.mark.parametrize("change", [{12: 0.004}, {15: 1.004}, {0: "nan"}, {5: 1.5}])
def test_poses_of_the_conf_are_rigid(raw, change):
    """Replace numbers of the first matrix, given by their positions."""

    def edit(conf: str) -> str:
        lines = [line.split() for line in conf.splitlines()]
        words = next(words for words in lines if words and words[0] == "scan")
        for place, value in change.items():
            words[3 + place] = str(value)
        return "\n".join(map(" ".join, lines))

    edit_conf(raw, edit)
    problems = "".join(check_scene("matterport3d", raw, "house", "sample")["problems"])
    assert "not a rigid transformation" in problems or "not finite" in problems


def test_the_largest_depth_means_none(raw):
    """Truncation would make it 16.38 m, which is a valid depth."""
    depth = np.full((64, 80), 4000, np.uint16)
    depth[:10] = 65535
    image = cv2.imencode(".png", depth)[1].tobytes()
    rewrite(raw / "house" / f"{DEPTH}.zip", lambda name, data: (name, image))
    frame = next(all_frames(raw))
    assert (frame.depth[:10] == 0).all()
    assert (frame.depth[10:] == 1).all()
    assert check_scene("matterport3d", raw, "house", "sample")["depth_scale"] == 4000


@pytest.mark.parametrize("factor", [0.5, 0.75, 0.93, 1.07, 4 / 3, 2])
def test_cameras_of_images_of_another_size_are_refused(raw, factor):
    def scaled(conf: str) -> str:
        lines = [line.split() for line in conf.splitlines()]
        for words in lines:
            if words and words[0] == "intrinsics_matrix":
                words[1:7] = [str(float(word) * factor) for word in words[1:7]]
        return "\n".join(map(" ".join, lines))

    edit_conf(raw, scaled)
    with pytest.raises(DataError, match="another size"):
        list(all_frames(raw))
    assert "another size" in "".join(check_scene("matterport3d", raw, "house", "sample")["problems"])
