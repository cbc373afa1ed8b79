import re
import shutil
import zipfile
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose

from loco.datasets import check_scene, open_scene, raw_files
from loco.datasets.scannet_pairs import ScanNetPairsScene, read_pairs
from loco.errors import DataError
from loco.evaluation import pixel_correspondence
from loco.evaluation.result import EvaluatedScene
from loco.geometry.cameras import backproject, pixel_centres, project
from loco.geometry.patches import sample_depth
from loco.simulate.handheld import Walk
from loco.simulate.raw_scannet import simulate_scannet_pairs
from loco.steps.frames import prepare_frames
from loco.storage import Features, Frames
from tests.unit.datasets.oriented import oriented

SCENES = ["scene0707_00", "scene0711_02"]
SETTINGS = {
    "seed": 5,
    "rooms": 1,
    "images": 24,
    "image": {"height": 48, "width": 64},
    "repetition": 0.5,
    "exact_depth": True,
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pairs") / "scannet_test_1500"
    simulate_scannet_pairs(folder, SCENES, 3, SETTINGS)
    return folder


@pytest.fixture
def folder(pristine, tmp_path) -> Path:
    """Return a copy that a test may damage."""
    return shutil.copytree(pristine, tmp_path / "pairs")


def test_pairs_are_those_that_were_simulated(pristine):
    pairs = read_pairs(pristine)
    assert [pair.scene for pair in pairs] == [scene for scene in SCENES for _ in range(3)]
    assert [pair.names for pair in pairs] == [("0", "1"), ("1", "2"), ("2", "3")] * 2
    walk = Walk(SCENES[1], SETTINGS)
    photos = walk.photos()
    first, second = next(photos), next(photos)
    a, b = pairs[3].images()
    for image, photo in ((a, first), (b, second)):
        assert image.depth_camera is None
        assert image.rgb.shape == (48, 64, 3)  # written with twice the width and height
        assert np.abs(image.rgb.astype(int) - photo.rgb).mean() < 3
        assert_allclose(image.depth, photo.depth, atol=0.5001e-3)
        assert_allclose(image.intrinsics, walk.intrinsics, atol=1e-9)
    assert_allclose(a.pose, np.eye(4))
    assert_allclose(first.pose @ b.pose, second.pose, atol=1e-9)


def test_the_pose_takes_points_of_a_to_b(pristine):
    """Points of A project into B at the depth of B; with the pose inverted they do not."""
    for pair in read_pairs(pristine):
        a, b = pair.images()
        points = backproject(pixel_centres(*a.depth.shape), a.depth, pair.intrinsics, a.pose)
        in_b = points @ pair.pose_a_to_b[:3, :3].T + pair.pose_a_to_b[:3, 3]
        backwards = (points - pair.pose_a_to_b[:3, 3]) @ pair.pose_a_to_b[:3, :3]
        assert disagreement(in_b, b.depth, pair.intrinsics) < 0.004
        assert disagreement(backwards, b.depth, pair.intrinsics) > 0.02


def disagreement(points: np.ndarray, depth: np.ndarray, intrinsics: np.ndarray) -> float:
    """Return the median difference between the depth of points (camera frame) and of the image there, metres."""
    uv, z = project(points, intrinsics, np.eye(4))
    seen, smooth = sample_depth(depth, uv)
    return np.median(np.abs(seen - z)[smooth & (z > 0)])


def test_manifest(pristine):
    manifest = ScanNetPairsScene.check(pristine.parent, pristine.name, "all")
    assert manifest["problems"] == []
    assert (manifest["pairs"], manifest["scenes"], manifest["images"]) == (6, 2, 8)
    assert manifest["notes"] == ["there are 6 pairs; published results are for 1500"]
    names = [file["name"] for file in manifest["files"]]
    assert names[:2] == ["test.npz", "intrinsics.npz"]
    assert sorted(names[2:]) == sorted(f"{scan}/{kind}" for scan in SCENES for kind in ("color", "depth"))


def lists(folder: Path, file: str = "test.npz", **changes) -> None:
    """Change arrays of a list; None removes an array."""
    with np.load(folder / file) as arrays:
        content = dict(arrays) | changes
    np.savez(folder / file, **{name: array for name, array in content.items() if array is not None})


def huge(folder: Path) -> None:
    with zipfile.ZipFile(folder / "test.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("name.npy", bytes(100_000_000))


def many(folder: Path) -> None:
    """No array is too large alone, but together they are."""
    with zipfile.ZipFile(folder / "intrinsics.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(3):
            archive.writestr(f"scene{k:04d}_00.npy", bytes(30_000_000))


def torn(folder: Path) -> None:
    """Damage the compressed bytes."""
    with np.load(folder / "test.npz") as arrays:
        np.savez_compressed(folder / "test.npz", **arrays)
    with zipfile.ZipFile(folder / "test.npz") as archive:
        # The position of the zip64 extra field.
        start = archive.getinfo("name.npy").header_offset + 30 + len("name.npy") + 20
    content = bytearray((folder / "test.npz").read_bytes())
    content[start : start + 20] = b"\xff" * 20
    (folder / "test.npz").write_bytes(content)


def lying(folder: Path) -> None:
    """Write an array that declares a terabyte."""
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (400000000000,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(folder / "test.npz", "w") as archive:
        archive.writestr("name.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)


def test_only_the_arrays_that_are_wanted_are_read(folder, pristine):
    """Unused members may be damaged, or contain an object."""
    lists(folder, other=np.array([{"an": "object"}], dtype=object))
    found, expected = ([pair.names for pair in read_pairs(of)] for of in (folder, pristine))
    assert found == expected


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


DEPTH = Path("scene0707_00", "depth", "1.png")
ROWS = np.tile([707, 0, 0, 1], (6, 1))
POSES = np.tile(np.eye(4)[:3], (6, 1, 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "test.npz").unlink(), r"is missing[\s\S]*test.npz[\s\S]*github.com/zju3dv/LoFTR"),
        (lambda f: (f / "intrinsics.npz").unlink(), r"is missing[\s\S]*intrinsics.npz"),
        (lambda f: (f / "test.npz").write_bytes(b"no zip"), r"cannot be read"),
        (huge, r"too large[\s\S]*100000000"),
        (many, r"too large[\s\S]*90000000[\s\S]*intrinsics.npz|too large[\s\S]*intrinsics.npz[\s\S]*90000000"),
        (torn, r"cannot be read"),
        (lying, r"cannot be read"),
        (lambda f: lists(f, name=np.array([{}])), r"cannot be read[\s\S]*allow_pickle"),
        (lambda f: lists(f, name=None), r"no valid array `name`"),
        (lambda f: lists(f, name=ROWS.astype(str)), r"no valid array `name`"),
        (lambda f: lists(f, name=ROWS[:, :3]), r"no valid array `name`[\s\S]*\(n, 4\)[\s\S]*\(6, 3\)"),
        (lambda f: lists(f, name=ROWS[:5]), r"arrays of the file differ in length"),
        (lambda f: lists(f, name=ROWS[:0], rel_pose=POSES[:0]), r"no valid array `name`"),
        (
            lambda f: lists(f, rel_pose=POSES * 2),
            r"`rel_pose` of scene0707_00, images 0 and 1, is not a rigid transformation",
        ),
        (lambda f: lists(f, rel_pose=POSES * np.nan), r"is not a rigid transformation"),
        (lambda f: lists(f, "intrinsics.npz", scene0711_02=None), r"no intrinsics of scene0711_02"),
        (lambda f: lists(f, "intrinsics.npz", scene0711_02=np.eye(4)), r"invalid intrinsics[\s\S]*\(4, 4\)"),
        (lambda f: lists(f, "intrinsics.npz", scene0707_00=np.diag([500.0, 500, 1])), r"of another size[\s\S]*64 x 48"),
        (lambda f: (f / DEPTH).unlink(), r"images are missing \(1 of 16\): scene0707_00/depth/1.png"),
        (lambda f: (f / DEPTH).write_bytes(b""), r"'1.png' is empty"),
        (lambda f: (f / DEPTH).write_bytes(png(np.ones((48, 64), np.uint8))), r"not a 16-bit image"),
        (lambda f: (f / DEPTH).write_bytes(png(np.ones((480, 640), np.uint16))), r"of another size[\s\S]*640 x 480"),
    ],
)
def test_what_is_broken_is_named_with_its_remedy(folder, damage, message):
    damage(folder)
    listed = "\n".join(ScanNetPairsScene.check(folder.parent, folder.name, "all")["problems"])
    assert re.search(message, listed), listed
    assert "what to do" in listed


def test_matrices_of_three_rows_serve_as_well(folder, pristine):
    lists(folder, rel_pose=np.load(folder / "test.npz")["rel_pose"].reshape(-1, 3, 4))
    for pair, expected in zip(read_pairs(folder), read_pairs(pristine), strict=True):
        assert_allclose(pair.pose_a_to_b, expected.pose_a_to_b)


def test_a_missing_image_is_an_error_when_it_is_read(folder):
    (folder / DEPTH).unlink()
    with pytest.raises(DataError, match=r"is missing[\s\S]*1.png"):
        read_pairs(folder)[0].images()


# --- as a scene, prepared and evaluated ------------------------------------------------------------------------------

SCENE = "scannet_test_1500"
NAMES = [f"{scene}/{k}" for scene in SCENES for k in range(4)]
EVALUATED = {
    "pairs_per_bin": 1,
    "min_overlap": 1.0,
    "min_baseline": 9.0,
    "rotation_bins": [0, 15, 30, 60, 180],
    "thresholds": [2, 4],
    "matches": 300,
    "occlusions": [True],
}


def prepare(raw: Path, out: Path, **changes) -> Frames:
    settings = {"height": 48, "width": 64, "images": "all", "max_hole_fraction": 1.0} | changes
    prepare_frames("scannet_pairs", raw, SCENE, out, "pairs", settings)
    return Frames(out)


def test_orientations_are_ignored(folder):
    expected = read_pairs(folder)[0].images()
    for path in (*folder.rglob("*.jpg"), *folder.rglob("*.png")):
        path.write_bytes(oriented(path.read_bytes(), 6))
    for image, other in zip(read_pairs(folder)[0].images(), expected):
        np.testing.assert_array_equal(image.rgb, other.rgb)
        np.testing.assert_array_equal(image.depth, other.depth)


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.1, 1.4])
def test_intrinsics_of_another_size_are_refused(folder, factor):
    with np.load(folder / "intrinsics.npz") as arrays:
        scaled = {scene: np.diag([factor, factor, 1]) @ k for scene, k in arrays.items()}
    np.savez(folder / "intrinsics.npz", **scaled)
    with pytest.raises(DataError, match="another size"):
        read_pairs(folder)[0].images()


@pytest.fixture
def raw(pristine, tmp_path) -> Path:
    """Return a copy of the parent folder of the pairs, which a test may damage."""
    return shutil.copytree(pristine.parent, tmp_path / "raw")


def test_the_folder_is_a_scene_of_all_images_each_once(pristine):
    scene = open_scene("scannet_pairs", pristine.parent, SCENE)
    assert scene.names("all") == scene.names("horizontal") == NAMES
    assert (scene.skipped, scene.mesh(), scene.labelled_mesh(), scene.tracks()) == ({}, None, None, None)
    frames = list(scene.frames(NAMES[2:5]))
    assert [frame.name for frame in frames] == NAMES[2:5]
    for frame in frames:
        assert_allclose(frame.pose, np.eye(4))
    again = next(scene.frames(NAMES[2:3]))  # reading changes nothing
    np.testing.assert_array_equal(again.intrinsics, frames[0].intrinsics)
    np.testing.assert_array_equal(again.depth, frames[0].depth)
    pairs = scene.ground_truth()["pairs"]
    assert [(pair["a"], pair["b"]) for pair in pairs] == [(NAMES[k], NAMES[k + 1]) for k in (0, 1, 2, 4, 5, 6)]
    walk = Walk(SCENES[1], SETTINGS)
    assert_allclose(pairs[3]["pose_a_to_b"], np.linalg.inv(walk.poses[1]) @ walk.poses[0], atol=1e-9)


def test_its_files_are_the_lists_and_the_folders_of_images(pristine):
    files = raw_files("scannet_pairs", pristine.parent, SCENE)
    assert [file.name for file in files[:2]] == ["test.npz", "intrinsics.npz"]
    assert {file.relative_to(pristine) for file in files[2:]} == {
        Path(s, k) for s in SCENES for k in ("color", "depth")
    }
    assert raw_files("scannet_pairs", pristine, SCENE) == [
        pristine / SCENE / "test.npz",
        pristine / SCENE / "intrinsics.npz",
    ]


@cache
def poses_of(scan: str) -> np.ndarray:
    return Walk(scan, SETTINGS).poses


def features_of_places(frames: Frames, path: Path) -> Features:
    """Return a smooth unit feature of the room and of the point in it that a pixel shows."""
    n, (h, w) = len(frames), frames.size
    waves = np.random.default_rng(0).normal(0, 3, (3, 64))
    sizes = {"n": n, "h": h, "w": w, "c": 128}
    with Features.create(path, frames.dataset, frames.scene, sizes, {"extent": frames.size}) as file:
        file.frames_id = frames.frames_id
        for k, name in enumerate(frames.names):
            scan, number = name.split("/")
            pose = poses_of(scan)[int(number)]
            phase = backproject(pixel_centres(h, w), frames["depth"][k], frames["intrinsics"][k], pose) @ waves
            file["features"][k] = np.concatenate([np.cos(phase), np.sin(phase)], axis=-1) / 8
    return Features(path)


def test_pairs_are_evaluated_from_prepared_frames(pristine, tmp_path):
    with prepare(pristine.parent, tmp_path / "frames.h5") as frames:
        assert frames.names == NAMES
        with features_of_places(frames, tmp_path / "features.h5") as features:
            scene = EvaluatedScene(frames.path, None, features.path)
            result = pixel_correspondence.evaluate([scene], EVALUATED)
            assert result == pixel_correspondence.evaluate([scene], EVALUATED)
            assert result.items["a"] == [NAMES[k] for k in (0, 1, 2, 4, 5, 6)]
            assert result.items["n_matches"] == [300] * 6
            assert result.items["recall@2px"] == [1.0] * 6
            # With the poses inverted, they are wrong.
            for pair in scene.ground_truth["pairs"]:
                pair["pose_a_to_b"] = np.linalg.inv(pair["pose_a_to_b"]).tolist()
            backwards = pixel_correspondence.evaluate([scene], EVALUATED | {"occlusions": [False]})
            assert np.mean(backwards.items["recall@2px"]) < 0.5


def test_depth_of_the_pairs_keeps_its_holes_and_is_never_blended(raw, tmp_path):
    file = raw / SCENE / DEPTH
    rows, columns = np.indices((48, 64))
    checkerboard = np.where((rows + columns) % 2, 2000, 4000)
    checkerboard[:20] = 0
    file.write_bytes(png(checkerboard.astype(np.uint16)))
    with prepare(raw, tmp_path / "frames.h5") as frames:
        np.testing.assert_array_equal(frames["depth"][1], checkerboard / 1000)
        np.testing.assert_array_equal(frames["source"][1], checkerboard > 0)
    with prepare(raw, tmp_path / "half.h5", height=24, width=32) as frames:
        assert set(np.unique(frames["depth"][1])) <= {0.0, 2.0, 4.0}


def test_an_image_without_depth_stays_but_for_a_limit_and_is_missed_then(raw, tmp_path):
    (raw / SCENE / DEPTH).write_bytes(png(np.zeros((48, 64), np.uint16)))
    with prepare(raw, tmp_path / "frames.h5") as frames:
        assert frames.names == NAMES
        assert not frames["depth"][1].any()
        with features_of_places(frames, tmp_path / "features.h5") as features:
            result = pixel_correspondence.evaluate(
                [EvaluatedScene(frames.path, None, features.path)], EVALUATED | {"occlusions": [False]}
            )
        assert result.items["n_matches"] == [300, 0, 300, 300, 300, 300]
        assert result.items["recall@4px"][1] is None
        assert [row.n for row in result.rows if row.condition == "all"] == [5, 5]
    with prepare(raw, tmp_path / "fewer.h5", max_hole_fraction=0.9) as frames:
        assert frames.facts["dropped"] == {NAMES[1]: 1.0}
        with features_of_places(frames, tmp_path / "fewer_features.h5") as features:
            scene = EvaluatedScene(frames.path, None, features.path)
            with pytest.raises(DataError, match=r"1 missing, such as scene0707_00/1[\s\S]*max_hole_fraction"):
                pixel_correspondence.evaluate([scene], EVALUATED)


def test_a_folder_without_its_images_is_not_prepared(raw, tmp_path):
    (raw / SCENE / DEPTH).unlink()
    manifest = check_scene("scannet_pairs", raw, SCENE, "all")
    assert not manifest["ok"]
    assert "images are missing (1 of 16): scene0707_00/depth" in "\n".join(manifest["problems"])
    with pytest.raises(DataError, match=r"is missing[\s\S]*scene0707_00/depth/1\.png"):
        prepare(raw, tmp_path / "frames.h5")
    assert not (tmp_path / "frames.h5").exists()


def test_a_list_of_the_published_length_fits_into_the_frames(raw, tmp_path):
    with np.load(raw / SCENE / "test.npz") as arrays:
        tiled = {name: np.tile(array, (250, 1)) for name, array in arrays.items()}
    lists(raw / SCENE, **tiled)
    expected = open_scene("scannet_pairs", raw, SCENE).ground_truth()
    assert len(expected["pairs"]) == 1500
    with prepare(raw, tmp_path / "frames.h5") as frames:
        assert frames.facts["ground_truth"] == expected
