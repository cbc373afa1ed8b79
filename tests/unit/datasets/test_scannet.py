import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import open3d as o3d
import pytest
import trimesh
from numpy.testing import assert_allclose, assert_array_equal

from loco.datasets import check_labels, check_scene, label_files, open_scene, raw_files
from loco.datasets.sens import SensFile
from loco.errors import DataError
from loco.geometry.cameras import backproject, project
from loco.geometry.patches import patch_centres, patch_points
from loco.geometry.raycast import RayCaster
from loco.simulate.handheld import Walk
from loco.simulate.raw_scannet import (
    SensFrame,
    depth_rig,
    encode_depth,
    export_scannet,
    simulate_scannet,
    write_sens,
)
from loco.steps.frames import prepare_frame
from tests.unit.datasets.oriented import oriented

SCAN = "scene0042_01"
SETTINGS = {
    "seed": 3,
    "rooms": 1,
    "images": 6,
    "image": {"height": 96, "width": 128},
    "repetition": 0.5,
    "exact_depth": True,
    "lost_poses": 2,
}
LOST = {"000002": "pose lost", "000004": "pose lost"}
SEGS, AGGREGATION, MESH = "_vh_clean_2.0.010000.segs.json", ".aggregation.json", "_vh_clean_2.ply"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    raw = tmp_path_factory.mktemp("scans")
    simulate_scannet(raw / SCAN, SCAN, SETTINGS)
    return raw


@pytest.fixture(scope="module")
def walk() -> Walk:
    """Return the simulated scene."""
    return Walk(SCAN, SETTINGS, depth_rig(SETTINGS))


@pytest.fixture
def raw(pristine, tmp_path) -> Path:
    """Return a copy of the folder of scans that a test may damage."""
    return shutil.copytree(pristine, tmp_path / "raw")


@pytest.fixture
def exported(raw) -> Path:
    """Return the same with images exported to the folder of the scan, and without a .sens file."""
    sens = raw / SCAN / f"{SCAN}.sens"
    export_scannet(sens, raw / SCAN)
    sens.unlink()
    return raw


def of(raw: Path, suffix: str) -> Path:
    return raw / SCAN / f"{SCAN}{suffix}"


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def all_frames(raw: Path) -> list:
    scene = open_scene("scannet", raw, SCAN)
    return list(scene.frames(scene.names("all")))


# --- what a whole scan gives -------------------------------------------------------------------------------------


def test_frames_are_those_that_were_simulated(pristine, walk):
    rig = depth_rig(SETTINGS)
    frames = {frame.name: frame for frame in all_frames(pristine)}
    assert list(frames) == ["000000", "000001", "000003", "000005"]
    for k, photo in enumerate(walk.photos()):
        if f"{k:06d}" in LOST:
            continue
        frame = frames[f"{k:06d}"]
        assert frame.rgb.shape == (96, 128, 3)
        assert np.abs(frame.rgb.astype(int) - photo.rgb).mean() < 4  # JPEG
        assert frame.depth.dtype == np.float32
        assert_allclose(frame.depth, photo.depth, atol=0.5001e-3)
        assert_allclose(frame.intrinsics, walk.intrinsics, rtol=1e-6)
        assert_allclose(frame.pose, walk.poses[k], atol=1e-6)
        assert_allclose(frame.depth_camera.intrinsics, rig.intrinsics, rtol=1e-6)
        assert_allclose(frame.depth_camera.pose, walk.poses[k] @ rig.pose_in_color, atol=1e-6)


def test_cameras_mean_what_the_dataset_says(pristine):
    """Per pixel, like ``saveToPointCloud`` of ScanNet's sensorData.h: to the world, and to a colour pixel."""
    header = SensFile(of(pristine, ".sens"), SCAN).header
    frame, pose = all_frames(pristine)[0], SensFile(of(pristine, ".sens"), SCAN).poses[0]
    y, x = np.indices(frame.depth.shape).reshape(2, -1).astype(float)
    z = frame.depth.ravel().astype(float)
    camera = np.linalg.inv(header.intrinsic_depth) @ np.stack([x * z, y * z, z, np.zeros_like(z)])
    camera[3] = 1
    world = (pose @ camera)[:3].T
    colour = header.intrinsic_color @ header.extrinsic_depth @ camera
    colour = (colour[:2] / colour[2]).T

    uv = np.stack([x, y], axis=1) + 0.5
    assert_allclose(backproject(uv, z, *frame.depth_camera), world, atol=1e-9)
    assert_allclose(project(world, frame.intrinsics, frame.pose)[0], colour + 0.5, atol=1e-4)


def test_lost_poses_are_skipped_and_counted(pristine):
    scene = open_scene("scannet", pristine, SCAN)
    assert scene.skipped == LOST
    assert scene.names("horizontal") == scene.names("all") == ["000000", "000001", "000003", "000005"]


def test_a_pose_that_is_none_is_skipped(raw):
    file = SensFile(of(raw, ".sens"), SCAN)
    content = [
        SensFrame(file.poses[k], file.color_bytes(k), encode_depth(file.depth(k), "zlib_ushort")) for k in (0, 1)
    ]
    content[0] = content[0]._replace(pose=np.diag([2.0, 2, 2, 1]))
    content[1].pose[1, 1] = np.nan
    write_sens(of(raw, ".sens"), file.header, content)
    assert open_scene("scannet", raw, SCAN).skipped == {
        "000000": "pose is not a rigid transformation",
        "000001": "pose lost",
    }
    manifest = check_scene("scannet", raw, SCAN, "all")
    assert (manifest["images"], manifest["lost_poses"]) == (0, 2)
    assert any("no image has a pose" in problem for problem in manifest["problems"])


def test_the_mesh_is_the_house(pristine, walk):
    mesh = open_scene("scannet", pristine, SCAN).mesh()
    assert_array_equal(mesh.vertices, walk.house.vertices)
    assert_array_equal(mesh.triangles, walk.house.triangles)


def test_the_labels_are_those_of_the_house(pristine, walk):
    labelled = open_scene("scannet", pristine, SCAN).labelled_mesh()
    assert_array_equal(labelled.mesh.triangles, walk.house.triangles)
    # One number per instance, and one instance per number.
    pairs = set(zip(labelled.object.tolist(), walk.house.instance.tolist()))
    assert len(pairs) == len(set(walk.house.instance.tolist())) == len(labelled.labels)
    assert sorted(number for number, _ in pairs) == list(range(len(labelled.labels)))
    for number, instance in pairs:
        assert labelled.labels[number] == walk.house.instances[instance].label


def test_patches_lie_on_the_true_surface(tmp_path):
    """Through both cameras, within 1 mm; rounding to millimetres causes up to half of it."""
    settings = SETTINGS | {"image": {"height": 240, "width": 320}, "images": 3, "lost_poses": 0}
    simulate_scannet(tmp_path / SCAN, SCAN, settings)
    mesh = open_scene("scannet", tmp_path, SCAN).mesh()
    caster, planes = RayCaster(mesh, threads=1), plane_of_triangles(mesh)
    size, grid = (120, 160), (15, 20)
    evaluated = 0
    for raw_frame in all_frames(tmp_path):
        frame, _ = prepare_frame(raw_frame, size, None)
        points, valid = patch_points(frame.depth, frame.intrinsics, frame.pose, grid)
        # Away from edges: the three surrounding pixels show the same plane.
        plane = planes[caster.cast(frame.intrinsics, frame.pose, size).triangle]
        flat = cv2.erode(same_as_neighbours(plane).astype(np.uint8), np.ones((5, 5))).astype(bool)
        u, v = patch_centres(grid, size).astype(int).transpose(2, 0, 1)
        good = valid & flat[v, u]
        assert distance_to_mesh(mesh, points[good]).max() < 1e-3
        evaluated += good.sum()
    assert evaluated > 0.3 * 3 * grid[0] * grid[1]


def plane_of_triangles(mesh) -> np.ndarray:
    """Return the number of the plane that contains each triangle (within a tenth of a millimetre)."""
    a, b, c = mesh.vertices[mesh.triangles].astype(float).transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    offset = np.sum(normal * a, axis=1, keepdims=True)
    return np.unique(np.round(np.hstack([normal, offset]), 4), axis=0, return_inverse=True)[1].ravel()


def same_as_neighbours(plane: np.ndarray) -> np.ndarray:
    same = np.zeros(plane.shape, bool)
    middle = plane[1:-1, 1:-1]
    shifts = [plane[i : i + middle.shape[0], j : j + middle.shape[1]] for i in range(3) for j in range(3)]
    same[1:-1, 1:-1] = np.all([shift == middle for shift in shifts], axis=0)
    return same


def distance_to_mesh(mesh, points: np.ndarray) -> np.ndarray:
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(mesh.vertices, mesh.triangles)
    return scene.compute_distance(o3d.core.Tensor(points.astype(np.float32)), nthreads=1).numpy()


def test_equal_settings_give_equal_bytes(pristine, tmp_path):
    simulate_scannet(tmp_path / SCAN, SCAN, SETTINGS)
    files = sorted(path.name for path in (pristine / SCAN).iterdir())
    assert files == sorted(path.name for path in (tmp_path / SCAN).iterdir())
    for name in files:
        assert (tmp_path / SCAN / name).read_bytes() == (pristine / SCAN / name).read_bytes()


@pytest.mark.parametrize("inside", [".", "exported"])
def test_exported_folders_serve_as_well(pristine, raw, inside):
    export_scannet(of(raw, ".sens"), raw / SCAN / inside)
    of(raw, ".sens").unlink()
    assert open_scene("scannet", raw, SCAN).skipped == LOST
    for frame, expected in zip(all_frames(raw), all_frames(pristine), strict=True):
        assert frame.name == expected.name
        assert_array_equal(frame.rgb, expected.rgb)
        assert_array_equal(frame.depth, expected.depth)
        for matrix in ("intrinsics", "pose"):
            assert_allclose(getattr(frame, matrix), getattr(expected, matrix), atol=5e-6)  # written to 6 decimals
        for matrix, other in zip(frame.depth_camera, expected.depth_camera, strict=True):
            assert_allclose(matrix, other, atol=5e-6)
    manifest = check_scene("scannet", raw, SCAN, "all")
    assert (manifest["problems"], manifest["images"], manifest["lost_poses"]) == ([], 4, 2)


def test_exported_numbers_are_in_natural_order(exported):
    """10 comes after 9, and the numbers may have gaps."""
    for kind, suffix in (("color", ".jpg"), ("depth", ".png"), ("pose", ".txt")):
        for old, new in ((1, 10), (3, 9)):
            os.rename(exported / SCAN / kind / f"{old}{suffix}", exported / SCAN / kind / f"{new}{suffix}")
    assert open_scene("scannet", exported, SCAN).names("all") == ["000000", "000005", "000009", "000010"]


# --- check -------------------------------------------------------------------------------------------------------


def test_manifest_of_a_whole_scan(pristine, walk):
    manifest = check_scene("scannet", pristine, SCAN, "all")
    assert (manifest["ok"], manifest["problems"]) == (True, [])
    assert all("could not be compared" in note for note in manifest.get("notes", []))  # few frames
    assert (manifest["images"], manifest["lost_poses"]) == (4, 2)
    of_labels = check_labels("scannet", pristine, SCAN, "all")
    assert (of_labels["ok"], of_labels["problems"]) == (True, [])
    assert of_labels["objects"] == len(set(walk.house.instance.tolist()))
    for found, files in ((manifest, raw_files), (of_labels, label_files)):
        paths = files("scannet", pristine, SCAN)
        assert {f["name"]: f["bytes"] for f in found["files"]} == {path.name: path.stat().st_size for path in paths}
        assert len(paths) == 2


def test_a_test_scan_has_no_labels_and_may_have_no_mesh(raw):
    for suffix in (SEGS, AGGREGATION, MESH):
        of(raw, suffix).unlink()
    scene = open_scene("scannet", raw, SCAN)
    assert scene.mesh() is None
    assert scene.labelled_mesh() is None
    manifest = check_scene("scannet", raw, SCAN, "sample")
    assert manifest["ok"]
    assert re.search(r"no scene0042_01_vh_clean_2.ply", "\n".join(manifest["notes"]))
    assert re.search(r"the scan has no labels", "\n".join(check_labels("scannet", raw, SCAN, "sample")["problems"]))


def truncate(raw: Path) -> None:
    os.truncate(of(raw, ".sens"), of(raw, ".sens").stat().st_size - 1000)


def another_version(raw: Path) -> None:
    of(raw, ".sens").write_bytes(b"\3\0\0\0" + of(raw, ".sens").read_bytes()[4:])


def other_intrinsics(raw: Path) -> None:
    """Write intrinsics of an image with half the width and height."""
    data = of(raw, ".sens").read_bytes()
    k = SensFile(of(raw, ".sens"), SCAN).header.intrinsic_color.astype("<f4")
    of(raw, ".sens").write_bytes(data.replace(k.tobytes(), (np.diag([0.5, 0.5, 1, 1]) @ k).astype("<f4").tobytes(), 1))


def other_extrinsics(raw: Path) -> None:
    data = of(raw, ".sens").read_bytes()
    matrix = SensFile(of(raw, ".sens"), SCAN).header.extrinsic_depth.astype("<f4").tobytes()
    of(raw, ".sens").write_bytes(data.replace(matrix, bytes(64), 1))


def rewrite_frame(raw: Path, depth: bytes) -> None:
    file = SensFile(of(raw, ".sens"), SCAN)
    content = [
        SensFrame(file.poses[k], file.color_bytes(k), depth if k == 3 else encode_depth(file.depth(k), "zlib_ushort"))
        for k in range(len(file))
    ]
    write_sens(of(raw, ".sens"), file.header, content)


def empty_mesh(raw: Path) -> None:
    head = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    faces = "element face 0\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n"
    of(raw, MESH).write_text(head + faces)


def nan_mesh(raw: Path) -> None:
    mesh = trimesh.load(of(raw, MESH), process=False)
    vertices = np.array(mesh.vertices)
    vertices[7, 1] = np.nan
    trimesh.Trimesh(vertices, mesh.faces, process=False).export(of(raw, MESH))


def no_segments_in_the_mesh(content: dict) -> None:
    for k, group in enumerate(content["segGroups"]):
        group["segments"] = [1_000_000 + k]


def finer_mesh(raw: Path) -> None:
    """Name the labels of the fine mesh like those of the coarse mesh."""
    edit(of(raw, AGGREGATION), lambda c: c.update(segmentsFile=f"scannet.{SCAN}_vh_clean.segs.json"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda raw: (shutil.rmtree(raw / SCAN), (raw / SCAN).mkdir()),
            r"scene0042_01.sens is missing[\s\S]*download-scannet.py -o <folder> --id scene0042_01 --type .sens",
        ),
        (truncate, r"ends within frame 5 of 6"),
        (another_version, r"expected: version 4[\s\S]*found: version 3"),
        (other_intrinsics, r"intrinsic_color belongs to images of another size[\s\S]*128 x 96"),
        (other_extrinsics, r"extrinsic_depth is not a rigid transformation"),
        (lambda raw: rewrite_frame(raw, b"none"), r"depth of frame 3 cannot be decompressed"),
        (
            lambda raw: rewrite_frame(raw, encode_depth(np.ones((10, 10), np.uint16), "zlib_ushort")),
            r"depth of frame 3 differs in size from the header",
        ),
        (empty_mesh, r"mesh (has no triangles|cannot be read)"),
        (nan_mesh, r"mesh has vertices that are not finite"),
    ],
)
def test_what_is_broken_is_named_with_its_remedy(raw, damage, message):
    damage(raw)
    manifest = check_scene("scannet", raw, SCAN, "all")
    listed = "\n".join(manifest["problems"])
    assert not manifest["ok"]
    assert len(manifest["problems"]) == 1
    assert re.search(message, listed), listed
    assert "what to do" in listed


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda raw: of(raw, SEGS).unlink(),
            r"segs.json is missing, although other files[\s\S]*--type _vh_clean_2.0.010000.segs.json",
        ),
        (
            lambda raw: of(raw, AGGREGATION).unlink(),
            r"scene0042_01.aggregation.json is missing[\s\S]*--type .aggregation.json",
        ),
        (
            lambda raw: of(raw, MESH).unlink(),
            r"vh_clean_2.ply is missing, although other files[\s\S]*--type _vh_clean_2.ply",
        ),
        (lambda raw: edit(of(raw, SEGS), lambda c: c["segIndices"].pop()), r"does not belong to its mesh"),
        (lambda raw: edit(of(raw, SEGS), lambda c: c["segIndices"].append("1")), r"does not belong to its mesh"),
        (lambda raw: of(raw, SEGS).write_text("[[[["), r"is not valid JSON"),
        (lambda raw: of(raw, SEGS).write_text("[" * 100_000), r"is not valid JSON"),
        (lambda raw: of(raw, SEGS).write_text("[1]"), r"has no list 'segIndices'"),
        (
            lambda raw: edit(of(raw, AGGREGATION), lambda c: c.update(sceneId="scannet.scene0042_00")),
            r"belongs to another scan[\s\S]*scene0042_01[\s\S]*scannet.scene0042_00",
        ),
        (finer_mesh, r"refers to the segments of another mesh[\s\S]*_vh_clean.segs.json"),
        (
            lambda raw: edit(of(raw, AGGREGATION), no_segments_in_the_mesh),
            r"none of the segments of the file belongs to the mesh",
        ),
        (
            lambda raw: edit(of(raw, AGGREGATION), lambda c: c["segGroups"][0].pop("label")),
            r"object 0 of the list has no `label`",
        ),
    ],
)
def test_broken_labels_are_a_problem_of_the_labels_alone(raw, damage, message):
    """The mesh may be missing: frames do not need it, labels do."""
    damage(raw)
    assert check_scene("scannet", raw, SCAN, "sample")["ok"]
    manifest = check_labels("scannet", raw, SCAN, "all")
    listed = "\n".join(manifest["problems"])
    assert not manifest["ok"]
    assert len(manifest["problems"]) == 1
    assert re.search(message, listed), listed
    assert "what to do" in listed


def export_file(exported: Path, name: str, content: bytes | str) -> None:
    path = exported / SCAN / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def without_last_row(exported: Path, name: str) -> None:
    path = exported / SCAN / name
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def image(kind: str, size: tuple[int, int]) -> bytes:
    return cv2.imencode(
        kind, np.ones((*size, 3) if kind == ".jpg" else size, np.uint8 if kind == ".jpg" else np.uint16)
    )[1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda e: (e / SCAN / "depth" / "3.png").unlink(),
            r"exported files are missing \(1\): depth/3.png[\s\S]*6 in color, 5 in depth, 6 in pose[\s\S]*reader.py",
        ),
        (
            lambda e: shutil.rmtree(e / SCAN / "pose"),
            r"exported files are missing \(6\): pose/0.txt, pose/1.txt, pose/2.txt, ...",
        ),
        (
            lambda e: without_last_row(e, "pose/1.txt"),
            r"pose files do not contain a matrix \(1\): 1.txt[\s\S]*4 rows of 4 numbers",
        ),
        (lambda e: export_file(e, "pose/1.txt", "no numbers"), r"pose files do not contain a matrix \(1\): 1.txt"),
        (
            lambda e: (e / SCAN / "intrinsic" / "extrinsic_depth.txt").unlink(),
            r"is missing[\s\S]*extrinsic_depth.txt",
        ),
        (
            lambda e: without_last_row(e, "intrinsic/intrinsic_depth.txt"),
            r"not contain a matrix[\s\S]*numbers per row: \[4, 4, 4\]",
        ),
        (lambda e: export_file(e, "color/3.jpg", b""), r"image '3.jpg' is empty"),
        (lambda e: export_file(e, "depth/3.png", b"none"), r"image '3.png' cannot be decoded"),
        (
            lambda e: export_file(e, "depth/3.png", image(".png", (47, 64))),
            r"differs in size from the other depth images[\s\S]*\(48, 64\)[\s\S]*\(47, 64\)",
        ),
        (lambda e: export_file(e, "depth/3.png", image(".jpg", (48, 64))), r"is not a 16-bit image with one channel"),
    ],
)
def test_what_is_broken_in_an_export_is_named_with_its_remedy(exported, damage, message):
    damage(exported)
    manifest = check_scene("scannet", exported, SCAN, "all")
    listed = "\n".join(manifest["problems"])
    assert len(manifest["problems"]) == 1
    assert re.search(message, listed), listed
    assert "what to do" in listed


def test_resized_images_do_not_go_with_the_old_intrinsics(exported):
    for path in (exported / SCAN / "depth").iterdir():
        path.write_bytes(cv2.imencode(".png", np.ones((24, 32), np.uint16))[1])
    with pytest.raises(DataError, match=r"intrinsic_depth belongs to images of another size[\s\S]*32 x 24"):
        all_frames(exported)


@pytest.mark.parametrize("factor", [0.5, 0.75, 0.9, 1.1, 4 / 3, 2])
def test_an_export_whose_colour_was_resized_is_refused(exported, factor):
    for path in (exported / SCAN / "color").iterdir():
        path.write_bytes(cv2.imencode(".jpg", cv2.resize(cv2.imread(str(path)), None, fx=factor, fy=factor))[1])
    with pytest.raises(DataError, match=r"intrinsic_color belongs to images of another size"):
        all_frames(exported)
    assert not check_scene("scannet", exported, SCAN, "sample")["ok"]


def test_orientations_of_exported_images_are_ignored(exported):
    expected = all_frames(exported)
    for kind in ("color", "depth"):
        for k, path in enumerate(sorted((exported / SCAN / kind).iterdir())):
            path.write_bytes(oriented(path.read_bytes(), (3, 6, 8)[k % 3]))
    for frame, other in zip(all_frames(exported), expected):
        assert_array_equal(frame.rgb, other.rgb)
        assert_array_equal(frame.depth, other.depth)
    notes = " ".join(check_scene("scannet", exported, SCAN, "all")["notes"])
    assert re.search(r"EXIF orientation is stated by (\d+) of the \1 images", notes)


def test_all_problems_are_listed_at_once(raw):
    truncate(raw)
    nan_mesh(raw)
    assert len(check_scene("scannet", raw, SCAN, "sample")["problems"]) == 2


# --- labels ------------------------------------------------------------------------------------------------------


def test_objects_that_are_listed_twice_are_counted_once_and_noted(pristine, raw):
    """As in scene0217_00, the second half repeats the first half under new numbers."""
    expected = open_scene("scannet", pristine, SCAN).labelled_mesh()
    count = len(expected.labels)

    def repeat(content: dict) -> None:
        groups = content["segGroups"]
        content["segGroups"] = groups + [g | {"id": g["id"] + count, "objectId": g["objectId"] + count} for g in groups]

    edit(of(raw, AGGREGATION), repeat)
    labelled = open_scene("scannet", raw, SCAN).labelled_mesh()
    assert labelled.labels == expected.labels
    assert_array_equal(labelled.object, expected.object)
    manifest = check_labels("scannet", raw, SCAN, "sample")
    assert (manifest["ok"], manifest["objects"]) == (True, count)
    assert f"objects that are listed twice and count once: {count}" in manifest["notes"][0]


def test_segments_that_the_mesh_lacks_are_noted(raw):
    edit(of(raw, AGGREGATION), lambda content: content["segGroups"][2]["segments"].append(10_000_000))
    manifest = check_labels("scannet", raw, SCAN, "sample")
    assert manifest["ok"]
    assert "segments of objects that are not in the mesh: 1" in manifest["notes"][0]


def test_labels_of_the_finer_mesh_are_not_read(pristine, raw):
    of(raw, "_vh_clean.aggregation.json").write_text("{}")
    of(raw, "_vh_clean.segs.json").write_text("{}")
    labelled, expected = (open_scene("scannet", folder, SCAN).labelled_mesh() for folder in (raw, pristine))
    assert_array_equal(labelled.object, expected.object)


def test_a_triangle_goes_with_most_of_its_vertices(raw):
    """Compare with a count in plain Python, on a mesh whose triangles straddle objects."""
    rng = np.random.default_rng(1)
    vertices, triangles = rng.random((60, 3)), np.array([rng.permutation(60)[:3] for _ in range(400)])
    segments = rng.permutation(100)[rng.integers(0, 12, 60)]
    trimesh.Trimesh(vertices, triangles, process=False).export(of(raw, MESH))
    names = np.unique(segments).tolist()
    objects = [names[:4], names[4:6], names[6:10]]  # the last two segments belong to no object
    groups = [{"objectId": 7 * k, "segments": own, "label": f"thing {k}"} for k, own in enumerate(objects)]
    edit(of(raw, SEGS), lambda content: content.update(segIndices=segments.tolist()))
    edit(of(raw, AGGREGATION), lambda content: content.update(segGroups=groups))

    labelled = open_scene("scannet", raw, SCAN).labelled_mesh()
    assert labelled.labels == ["thing 0", "thing 1", "thing 2"]
    owner = {segment: k for k, own in enumerate(objects) for segment in own}
    for triangle, found in zip(triangles, labelled.object, strict=True):
        votes = [owner.get(segments[vertex], -1) for vertex in triangle]
        most, count = Counter(votes).most_common(1)[0]
        assert found == (most if count > 1 else votes[0])
