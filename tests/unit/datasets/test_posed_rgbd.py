from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from loco.datasets.nerfstudio import NerfstudioScene
from loco.datasets.posed_rgbd import PosedRgbdScene
from loco.datasets.seven_scenes import SevenScenesScene
from loco.datasets.tum_rgbd import Trajectory, TumRgbdScene, associate
from loco.errors import DataError
from loco.geometry.cameras import backproject, scale_intrinsics
from loco.geometry.mesh import Mesh
from loco.geometry.patches import patch_points
from loco.geometry.raycast import RayCaster
from loco.simulate.handheld import Photo, Walk
from loco.simulate.raw_posed_rgbd import (
    simulate_nerfstudio,
    simulate_posed_rgbd,
    simulate_seven_scenes,
    simulate_tum_rgbd,
)
from loco.steps.frames import prepare_frame
from tests.unit.datasets.oriented import oriented

SIZE = (60, 80)
SETTINGS: dict[str, Any] = {
    "seed": 3,
    "rooms": 1,
    "images": 11,
    "image": {"height": SIZE[0], "width": SIZE[1]},
    "repetition": 0.5,
    "exact_depth": True,
}
SCENES = {
    "seven_scenes": SevenScenesScene,
    "tum_rgbd": TumRgbdScene,
    "posed_rgbd": PosedRgbdScene,
    "nerfstudio": NerfstudioScene,
}
WRITERS = {
    "seven_scenes": simulate_seven_scenes,
    "tum_rgbd": simulate_tum_rgbd,
    "posed_rgbd": simulate_posed_rgbd,
    "nerfstudio": simulate_nerfstudio,
}
UNIT = {"seven_scenes": 1e-3, "tum_rgbd": 0.2e-3, "posed_rgbd": 1e-3, "nerfstudio": 1e-3}  # of depth, metres
formats = pytest.mark.parametrize("format", list(SCENES))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one house, called `house`, in a folder for each format."""
    raw = tmp_path_factory.mktemp("raw")
    for format, write in WRITERS.items():
        write(raw / format / "house", "house", SETTINGS)
    return raw


@pytest.fixture(scope="module")
def walk() -> Walk:
    return Walk("house", SETTINGS)


@pytest.fixture(scope="module")
def photos(walk: Walk) -> list[Photo]:
    return list(walk.photos())


@pytest.fixture
def raw(pristine: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may damage."""
    return shutil.copytree(pristine, tmp_path / "raw")


def everything(format: str, raw: Path) -> list:
    scene = SCENES[format](raw / format, "house")
    return list(scene.frames(scene.names("all")))


# --- round trips -----------------------------------------------------------------------------------------------------


@formats
def test_frames_are_those_that_were_simulated(format: str, pristine: Path, walk: Walk, photos: list[Photo]) -> None:
    frames = everything(format, pristine)
    assert len(frames) == len(photos)
    assert len({frame.name for frame in frames}) == len(frames)
    assert not any("/" in frame.name for frame in frames)
    for frame, photo in zip(frames, photos):
        np.testing.assert_array_equal(frame.rgb, photo.rgb)
        np.testing.assert_allclose(frame.intrinsics, walk.intrinsics, atol=1e-6)
        np.testing.assert_allclose(frame.pose, photo.pose, atol=1e-7)
        np.testing.assert_allclose(frame.pose[:3, :3] @ frame.pose[:3, :3].T, np.eye(3), atol=1e-12)
        exact = photo.depth
        if frame.depth_camera is not None:
            np.testing.assert_allclose(frame.depth_camera.pose, photo.pose, atol=0.03)
            exact = walk.renderer.render(*frame.depth_camera, frame.depth.shape).depth
        off = np.abs(frame.depth - exact)
        assert frame.depth.dtype == np.float32
        # Poses are rounded, so a ray at an edge may miss it.
        assert np.mean(off <= UNIT[format] / 2 + 1e-5) > 0.99


def test_the_depth_camera_of_seven_scenes_lies_beside_the_colour_camera(pristine: Path) -> None:
    for frame in everything("seven_scenes", pristine):
        beside = np.linalg.inv(frame.pose) @ frame.depth_camera.pose
        np.testing.assert_allclose(beside[:3, 3], [-0.025, 0.001, 0.002], atol=1e-7)
        np.testing.assert_allclose(frame.depth_camera.intrinsics[:2, 2], [40, 30])


@formats
def test_patches_lie_on_the_true_surface(format: str, pristine: Path, walk: Walk, photos: list[Photo]) -> None:
    """Each point is within 1 mm of the intersection of the ray through the patch centre, although depth is rounded."""
    grid = (15, 20)
    caster = RayCaster(Mesh(walk.house.vertices, walk.house.triangles.astype(np.uint32)), threads=1)
    checked = 0
    for frame, photo in zip(everything(format, pristine), photos):
        prepared, origin = prepare_frame(frame, SIZE, None)
        # The depth camera of 7-Scenes has a smaller field of view than its colour camera.
        assert np.mean(origin == 1) > 0.7
        points, valid = patch_points(prepared.depth, prepared.intrinsics, prepared.pose, grid)
        # The pixel centres of an image of the size of the grid are the patch centres.
        small = scale_intrinsics(walk.intrinsics, SIZE, grid)
        v, u = np.indices(grid) + 0.5
        truth = backproject(np.stack([u, v], -1), caster.cast(small, photo.pose, grid).depth, small, photo.pose)
        near = rough(photo.view.depth).reshape(15, 4, 20, 4)[:, 1:3, :, 1:3].any(axis=(1, 3))
        away = valid & ~near
        assert np.linalg.norm(points - truth, axis=-1)[away].max() < 1e-3
        checked += away.sum()
    assert checked > 0.2 * len(photos) * 15 * 20


def rough(depth: np.ndarray) -> np.ndarray:
    """Return pixels near an edge or a crease; on a plane the inverse depth is linear in the image.

    The margin is three pixels, because depth that is resized and projected from another camera depends on pixels that
    far away.
    """
    inverse = 1 / depth.astype(np.float64)
    bend = sum(np.abs(ndimage.convolve1d(inverse, [1, -2, 1], axis=axis)) for axis in (0, 1))
    return ndimage.maximum_filter(bend > 1e-4 * inverse, size=7)


@formats
def test_same_seed_same_bytes(format: str, pristine: Path, tmp_path: Path) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}

    few = {**SETTINGS, "images": 2, "exact_depth": False}
    WRITERS[format](tmp_path / "one", "house", few)
    WRITERS[format](tmp_path / "two", "house", few)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one") != contents(pristine / format / "house")


def test_three_clocks_disagree_in_the_simulated_sequence(pristine: Path) -> None:
    folder = pristine / "tum_rgbd" / "house"
    times = [np.loadtxt(folder / f"{name}.txt", usecols=0) for name in ("rgb", "depth", "groundtruth")]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        gap = np.abs(times[one][:, None] - times[other]).min(axis=1)
        assert 0 < gap.max() < 0.02


@formats
def test_manifest_of_a_whole_scene(format: str, pristine: Path) -> None:
    manifest = SCENES[format].check(pristine / format, "house", "all")
    assert manifest["problems"] == []
    assert manifest["ok"]
    assert (manifest["images"], manifest["lost"]) == (11, 0)
    images = list((pristine / format).rglob("*.png"))
    assert sum(f["bytes"] for f in manifest["files"] if f.get("files")) >= sum(f.stat().st_size for f in images)
    texts = {f.name for f in (pristine / format / "house").iterdir() if f.suffix in (".txt", ".json")}
    assert {f["name"] for f in manifest["files"] if "files" not in f} == texts
    scene = SCENES[format](pristine / format, "house")
    assert scene.mesh() is scene.labelled_mesh() is scene.tracks() is None
    sources = scene.sources(pristine / format / "house", "house")
    assert all(source.path.exists() for source in sources if source.images)


# --- what is broken --------------------------------------------------------------------------------------------------

FIRST = {  # colour and depth image of the first frame
    "seven_scenes": ("seq-01/frame-000000.color.png", "seq-01/frame-000000.depth.png"),
    "tum_rgbd": ("rgb/*.png", "depth/*.png"),
    "posed_rgbd": ("color/00000.png", "depth/00000.png"),
    "nerfstudio": ("images/frame_00001.png", "depth/frame_00001.png"),
}


def first(raw: Path, format: str, kind: int) -> Path:
    return sorted((raw / format / "house").glob(FIRST[format][kind]))[0]


def put(image: np.ndarray) -> Callable[[Path], Any]:
    return lambda file: file.write_bytes(cv2.imencode(".png", image)[1].tobytes())


@formats
@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [
        (0, lambda file: file.write_bytes(b""), r"images have 0 bytes \(1 of \d+\): \S+png"),
        (1, lambda file: file.write_bytes(b"no png"), r"\S+png' cannot be decoded"),
        (1, put(np.ones(SIZE, np.uint8)), r"not a 16-bit image with one channel[\s\S]*found: uint8"),
        (1, put(np.ones((10, 10), np.uint16)), r"unexpected size[\s\S]*found: \(10, 10\)|another size[\s\S]*10 x 10"),
        (
            0,
            put(np.ones((30, 40, 3), np.uint8)),
            r"K.txt belongs to images of another size[\s\S]*40 x 30|json states",
        ),
    ],
)
def test_broken_images_are_named(format: str, kind: int, damage: Any, message: str, raw: Path) -> None:
    file = first(raw, format, kind)
    damage(file)
    manifest = SCENES[format].check(raw / format, "house", "all")
    listed = "\n".join(manifest["problems"])
    assert re.search(message, listed), listed
    assert "what to do" in listed
    assert not manifest["ok"]
    camera = raw / format / "house" / "K"  # the values of K.txt or K_depth.txt that are wrong
    with pytest.raises(DataError, match="|".join(re.escape(str(path)) for path in (file, camera))):
        everything(format, raw)


def edit(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / name
        file.write_text("\n".join(change(file.read_text().splitlines())) + "\n")

    return damage


def write(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text)


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def later(lines: list[str]) -> list[str]:
    return [re.sub(r"^1305031", "1405031", line) for line in lines]


IDENTITY = "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"


@pytest.mark.parametrize(
    ("format", "damage", "message"),
    [
        ("posed_rgbd", edit("poses.txt", lambda rows: rows[:-1]), r"expected: 11 rows, one[\s\S]*found: 10 rows"),
        ("posed_rgbd", edit("poses.txt", lambda rows: [*rows, rows[0]]), r"expected: 11 rows[\s\S]*found: 12 rows"),
        ("posed_rgbd", edit("poses.txt", lambda r: [r[0], r[1][:-3], *r[2:]]), r"line 2 cannot[\s\S]*16 values"),
        ("posed_rgbd", edit("poses.txt", lambda r: ["x" + r[0][1:], *r[1:]]), r"not a number: .*'x"),
        ("posed_rgbd", edit("poses.txt", lambda r: ["2" + IDENTITY[1:], *r[1:]]), r"rigid transformation \(row 1\)"),
        ("posed_rgbd", edit("poses.txt", lambda r: ["nan " + IDENTITY[2:]] * 11), r"can be used[\s\S]*frames: 11"),
        ("posed_rgbd", lose("poses.txt"), r"poses.txt is missing"),
        ("posed_rgbd", lose("K.txt"), r"K.txt is missing"),
        ("posed_rgbd", lose("depth"), r"depth is missing"),
        ("posed_rgbd", empty, r"color is missing[\s\S]*depth is missing[\s\S]*poses.txt is[\s\S]*K.txt is missing"),
        ("posed_rgbd", lose("depth/00003.png"), r"'00003' of color/ has no counterpart in depth/"),
        ("posed_rgbd", lose("color/00004.png"), r"'00004' of depth/ has no counterpart in color/"),
        ("posed_rgbd", write("color/00004.jpg", "again"), r"two images have the name '00004'"),
        ("posed_rgbd", write("K.txt", "72 0 40\n0 72 30\n"), r"one matrix[\s\S]*3 x 3 numbers[\s\S]*found: 6"),
        ("posed_rgbd", write("K.txt", "fx 0 40\n0 72 30\n0 0 1"), r"not a number: .*'fx'"),
        ("posed_rgbd", write("K.txt", "72 0 40\n0 -72 30\n0 0 1"), r"not contain an intrinsic matrix"),
        ("posed_rgbd", write("K.txt", "72 0 nan\n0 72 30\n0 0 1"), r"not contain an intrinsic matrix"),
        ("posed_rgbd", write("K.txt", "144 0 80\n0 144 60\n0 0 1"), r"\(80.5, 60.5\), as of images of about 161 x 121"),
        ("posed_rgbd", write("depth_scale.txt", "0"), r"the value is not a valid scale"),
        ("posed_rgbd", write("depth_to_color.txt", "inf " + IDENTITY[2:]), r"not finite[\s\S]*depth_to_color.txt"),
        ("posed_rgbd", write("mesh.ply", "ply"), r"the mesh cannot be read"),
        ("seven_scenes", empty, r"seq-01 is missing[\s\S]*seq-NN/frame-NNNNNN"),
        ("seven_scenes", write("seq-12.zip", ""), r"seq-12 is missing[\s\S]*unpack seq-NN.zip"),
        ("seven_scenes", lose("seq-02/frame-000001.pose.txt"), r"files are missing \(1\): frame-000001.pose.txt"),
        ("seven_scenes", lose("seq-02/frame-000000.depth.png"), r"are missing[\s\S]*5 color.png, 4 depth.png, 5 pose"),
        ("seven_scenes", write("seq-01/frame-000002.pose.txt", "1 0 0 0"), r"4 x 4 numbers[\s\S]*found: 4"),
        ("seven_scenes", write("K_depth.txt", "500 0 320\n0 500 240\n0 0 1"), r"K_depth.txt belongs[\s\S]*\(320.5, "),
        ("tum_rgbd", lose("groundtruth.txt"), r"groundtruth.txt is missing[\s\S]*check rgb.txt"),
        ("tum_rgbd", empty, r"rgb.txt is missing[\s\S]*depth.txt is missing[\s\S]*groundtruth.txt is missing"),
        ("tum_rgbd", lose("K.txt"), r"K.txt is missing[\s\S]*3 x 3"),
        ("tum_rgbd", edit("depth.txt", later), r"no colour image has a depth image within[\s\S]*found: 1405031"),
        ("tum_rgbd", edit("groundtruth.txt", later), r"no frame can be used[\s\S]*11; reason for the first: no"),
        ("tum_rgbd", edit("rgb.txt", lambda r: [*r, r[-1]]), r"is listed twice"),
        ("tum_rgbd", edit("rgb.txt", lambda r: [*r, "1.5 ../../secret.png"]), r"outside the folder of the scene"),
        ("tum_rgbd", edit("rgb.txt", lambda r: [*r, "soon rgb/1.png"]), r"'soon' is not a time stamp"),
        ("tum_rgbd", write("rgb.txt", "# nothing\n"), r"lists no image"),
        ("tum_rgbd", edit("groundtruth.txt", lambda r: [*r, "1 0 0 0 1 1 1 1"]), r"not have unit norm"),
        ("tum_rgbd", edit("groundtruth.txt", lambda r: [*r, "1 0 0 0 1"]), r"line \d+ cannot[\s\S]*8 values"),
    ],
)  # fmt: skip
def test_what_is_broken_is_named_with_its_remedy(format: str, damage: Any, message: str, raw: Path) -> None:
    damage(raw / format / "house")
    manifest = SCENES[format].check(raw / format, "house", "sample")
    listed = "\n".join(manifest["problems"])
    assert not manifest["ok"]
    assert re.search(message, listed), listed
    assert "what to do" in listed


def test_all_problems_are_listed_at_once(raw: Path) -> None:
    folder = raw / "posed_rgbd" / "house"
    write("K.txt", "1 2 3")(folder)
    write("mesh.ply", "ply")(folder)
    write("color/00000.png", "")(folder)
    write("depth/00010.png", "no png")(folder)
    assert len(PosedRgbdScene.check(raw / "posed_rgbd", "house", "sample")["problems"]) == 4


def test_opening_a_broken_scene_raises(raw: Path) -> None:
    edit("poses.txt", lambda rows: rows[:-1])(raw / "posed_rgbd" / "house")
    with pytest.raises(DataError, match="expected: 11 rows"):
        PosedRgbdScene(raw / "posed_rgbd", "house")
    with pytest.raises(DataError, match="seq-01 is missing"):
        SevenScenesScene(raw / "seven_scenes", "nowhere")


# --- plain folders ---------------------------------------------------------------------------------------------------


def test_lost_poses_are_skipped_and_counted(raw: Path) -> None:
    folder = raw / "posed_rgbd" / "house"
    before = {frame.name: frame.pose for frame in everything("posed_rgbd", raw)}
    edit("poses.txt", lambda r: [*r[:2], "nan " * 16, r[3], "-inf " * 16, *r[5:]])(folder)
    scene = PosedRgbdScene(raw / "posed_rgbd", "house")
    assert scene.skipped == {"00002": "its pose was lost", "00004": "its pose was lost"}
    manifest = PosedRgbdScene.check(raw / "posed_rgbd", "house", "all")
    assert (manifest["ok"], manifest["images"], manifest["lost"]) == (True, 9, 2)
    for frame in scene.frames(scene.names("horizontal")):
        np.testing.assert_array_equal(frame.pose, before[frame.name])  # the other frames keep theirs


def numbered(folder: Path, names: list[str], rows: list[str | None], size: tuple[int, int] = SIZE) -> None:
    """Write images that encode their index, in the order of ``names``, and such rows of poses.txt, named or not."""
    for kind in ("color", "depth"):
        (folder / kind).mkdir(parents=True)
    for k, name in enumerate(names):
        put(np.full((*size, 3), k, np.uint8))(folder / "color" / f"{name}.png")
        put(np.full(size, 1000 + k, np.uint16))(folder / "depth" / f"{name}.png")
    poses = (f"1 0 0 {k} 0 1 0 0 0 0 1 0 0 0 0 1\n" for k in range(len(names)))
    (folder / "poses.txt").write_text("# row by row\n" + "".join(f"{r or ''} {p}" for r, p in zip(rows, poses)))
    (folder / "K.txt").write_text("70 0 39.5 0 70 29.5 0 0 1")


def of_one_place(raw: Path, names: list[str]) -> None:
    """Each frame has its own pose, colour and depth, and frames are in the order of ``names``."""
    scene = PosedRgbdScene(raw, "s")
    assert scene.names("all") == names
    for k, frame in enumerate(scene.frames(names)):
        assert (frame.pose[0, 3], frame.rgb[0, 0, 0], frame.depth[0, 0]) == (k, k, np.float32(1 + k / 1000))


# Names as recorded, and whether all programs sort them in the same order.
NAMES = {
    "digits": (["0008", "0009", "0010", "0011"], True),
    "decimals": (["1548266469.830000", "1548266469.863300", "1548266469.900000"], True),
    "seconds as str(float) writes them": (["1548266469.83", "1548266469.8633", "1548266469.9", "1548266469.93"], False),
    "nanoseconds without zeros": (["1738133056.9658000", "1738133056.45788000", "1738133056.77710000"], False),
    "numbers": (["8", "9", "10", "11"], False),
    "in text": (["frame2-left", "frame10-left"], False),
    "cases": (["Img1", "Img2", "img3"], True),
    "cases mixed": (["a1", "B2"], False),
    "of one another": (["frame", "frame-1"], False),
}


@pytest.mark.parametrize(("names", "clear"), NAMES.values(), ids=NAMES)
def test_rows_are_matched_by_order_only_if_it_is_clear(names: list[str], clear: bool, tmp_path: Path) -> None:
    numbered(tmp_path / "s", names, [None] * len(names))
    manifest = PosedRgbdScene.check(tmp_path, "s", "all")
    assert manifest["ok"] == clear
    if clear:
        of_one_place(tmp_path, names)
        return
    (problem,) = manifest["problems"]
    first, *others = re.findall(r"([^ ,]+)\.png in (natural|lexicographic) order", problem)
    assert (first[1], others[0][1]) == ("natural", "lexicographic")
    assert first[0] != others[0][0]
    with pytest.raises(DataError, match="order of the names is ambiguous"):
        PosedRgbdScene(tmp_path, "s")


@pytest.mark.parametrize(("names", "_"), NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("suffix", ["", ".png"])
def test_rows_with_names_are_matched_by_them(names: list[str], _: bool, suffix: str, tmp_path: Path) -> None:
    numbered(tmp_path / "s", names, [f"{name}{suffix}" for name in names])
    of_one_place(tmp_path, names)


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["room 1", "room 2", "the  hall"], ["room 1", "room 2.png", "the  hall"]),
        (["000012", "000007", "000100"], ["12", "7", "100"]),  # by their numbers
        (["b", "c", "d"], ["0", "1", "2"]),  # by their positions
        (["f000", "f001", "f002"], ["1", "2", "3"]),
        (["f000", "f001", "f002"], ["01", "02", "03"]),
        (["7.png", "8.png"], ["7.png", "8.png.png"]),
    ],
)
def test_columns_of_names_and_numbers(names: list[str], rows: list[str], tmp_path: Path) -> None:
    numbered(tmp_path / "s", names, list(rows))
    of_one_place(tmp_path, names)


@pytest.mark.parametrize(
    ("names", "rows", "message"),
    [
        (["a", "b", "c"], ["a", "x", "c"], r"rows have names without an image \(1\): x"),
        (["a", "b", "c"], ["a", "b", "b"], r"images have more than one row \(1\): b"),
        (["a", "b", "c"], ["a", "b.png", "b"], r"images have more than one row \(1\): b"),
        (["a", "b", "c"], ["a", "b"], r"images have no row \(1\): c"),
        (["1.5", "1.25"], ["1.50", "1.25"], r"rows have names without an image \(1\): 1.50"),
        (["0000", "0001", "0002"], ["1", "2", "3"], r"rows have names without an image \(1\): 3"),
        (["0000", "0001", "0002"], ["0", "1", "1"], r"images have more than one row \(1\): 0001"),
        (["b", "c", "d"], ["0", "1", "3"], r"rows have names without an image \(3\): 0, 1, 3"),
        (["f1", "f2", "f10"], ["0", "1", "2"], r"order of the names is ambiguous"),
        (["a", "b", "c"], ["a", "b", None], r"line 4 cannot be parsed[\s\S]*with the same form in all lines"),
        (["a", "b", "c"], [None, "b", "c"], r"line 3 cannot be parsed[\s\S]*with the same form in all lines"),
        (["a", "a.png"], ["a.png", "a"], r"rows have names without an image \(1\): a.png"),
    ],
)
def test_every_image_has_exactly_one_row(names: list[str], rows: list, message: str, tmp_path: Path) -> None:
    numbered(tmp_path / "s", names, rows)
    listed = "\n".join(PosedRgbdScene.check(tmp_path, "s", "all")["problems"])
    assert re.search(message, listed), listed
    assert "what to do" in listed


def test_a_named_row_may_have_lost_its_pose(tmp_path: Path) -> None:
    numbered(tmp_path / "s", ["9", "10"], ["9", "10"])
    edit("poses.txt", lambda rows: [*rows[:2], "10 " + "nan " * 16])(tmp_path / "s")
    assert PosedRgbdScene(tmp_path, "s").skipped == {"10": "its pose was lost"}


# --- orientation, scale ----------------------------------------------------------------------------------------------


@formats
def test_orientations_of_colour_and_depth_are_ignored_and_noted(format: str, raw: Path) -> None:
    expected = everything(format, raw)
    images = sorted((raw / format).rglob("*.png"))
    for k, file in enumerate(images):
        file.write_bytes(oriented(file.read_bytes(), 1 + k % 8))
    for frame, other in zip(everything(format, raw), expected):
        np.testing.assert_array_equal(frame.rgb, other.rgb)
        np.testing.assert_array_equal(frame.depth, other.depth)
    manifest = SCENES[format].check(raw / format, "house", "all")
    stated = sum(k % 8 > 0 for k in range(len(images)))
    assert manifest["ok"]
    assert f"{stated} of the {len(images)} images" in " ".join(manifest["notes"])


@formats
def test_the_scale_of_depth_is_a_setting(format: str, raw: Path) -> None:
    """The files are those of another program, in its unit; the manifest records the scale and the reason for it."""
    reader, folder = SCENES[format], raw / format / "house"
    own = round(1 / UNIT[format])

    def facts(**setting: float) -> tuple:
        manifest = reader.check(raw / format, "house", "sample", **setting)
        return manifest["ok"], manifest["depth_scale"], manifest["depth_scale_from"]

    def depth(**setting: float) -> np.ndarray:
        scene = reader(raw / format, "house", **setting)
        return next(scene.frames(scene.names("all"))).depth

    before = depth()
    assert facts() == (True, own, "default of the format")
    assert facts(depth_scale=2500) == (True, 2500, "configuration")
    np.testing.assert_allclose(depth(depth_scale=2500), before * own / 2500, rtol=1e-6)
    (folder / "depth_scale.txt").write_text("2000\n")
    assert facts() == facts(depth_scale=2000) == (True, 2000, "depth_scale.txt")
    np.testing.assert_allclose(depth(), before * own / 2000, rtol=1e-6)
    manifest = reader.check(raw / format, "house", "sample", depth_scale=1000)
    assert "depth_scale.txt" in {file["name"] for file in manifest["files"]}
    (problem,) = manifest["problems"]
    assert re.search(r"another scale than the configuration[\s\S]*1000 units[\s\S]*found: 2000", problem)
    with pytest.raises(DataError, match="another scale"):
        reader(raw / format, "house", depth_scale=1000)


def test_optional_files_of_a_plain_folder(raw: Path, walk: Walk, photos: list[Photo]) -> None:
    folder = raw / "posed_rgbd" / "house"
    (folder / "depth_scale.txt").write_text("4000\n")
    (folder / "K_depth.txt").write_text("35 0 19.5\n0 36 14.5\n0 0 1")
    (folder / "depth_to_color.txt").write_text("1 0 0 -0.05\n0 1 0 0\n0 0 1 0\n0 0 0 1")
    box = trimesh.creation.box((1, 2, 3))
    box.export(folder / "mesh.ply")
    for file in (folder / "depth").iterdir():
        put(np.array([[0, 65535], [8000, 1]], np.uint16).repeat(15, 0).repeat(20, 1))(file)
    frame = everything("posed_rgbd", raw)[0]
    np.testing.assert_allclose(frame.depth[[0, 0, 29, 29], [0, 39, 0, 39]], [0, 0, 2, 0.00025])
    np.testing.assert_allclose(frame.depth_camera.intrinsics, [[35, 0, 20], [0, 36, 15], [0, 0, 1]])
    beside = np.linalg.inv(frame.pose) @ frame.depth_camera.pose
    np.testing.assert_allclose(beside, [[1, 0, 0, -0.05], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], atol=1e-12)
    mesh = PosedRgbdScene(raw / "posed_rgbd", "house").mesh()
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), [1, 2, 3])


def test_registered_depth_may_be_scaled(raw: Path, walk: Walk) -> None:
    """The camera of registered depth is the colour camera, scaled to the size of the depth image."""
    small = scale_intrinsics(walk.intrinsics, SIZE, (30, 40))
    for file, pose in zip(sorted((raw / "posed_rgbd" / "house" / "depth").iterdir()), walk.poses):
        put(np.round(walk.renderer.render(small, pose, (30, 40)).depth * 1000).astype(np.uint16))(file)
    frame = everything("posed_rgbd", raw)[0]
    np.testing.assert_allclose(frame.depth_camera.intrinsics, small, atol=1e-6)
    np.testing.assert_array_equal(frame.depth_camera.pose, frame.pose)


# --- 7-Scenes --------------------------------------------------------------------------------------------------------


def test_seven_scenes_without_calibration_gets_the_usual_one(tmp_path: Path) -> None:
    folder = tmp_path / "chess" / "seq-03"
    folder.mkdir(parents=True)
    put(np.zeros((480, 640, 3), np.uint8))(folder / "frame-000000.color.png")
    put(np.full((480, 640), 65535, np.uint16))(folder / "frame-000000.depth.png")
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec([0.3, 0.2, -0.5]).as_matrix()
    pose[:3, 3] = 1, 2, 3
    np.savetxt(folder / "frame-000000.pose.txt", pose)
    put(np.zeros((480, 640, 3), np.uint8))(folder / "frame-000001.color.png")
    put(np.zeros((480, 640), np.uint16))(folder / "frame-000001.depth.png")
    np.savetxt(folder / "frame-000001.pose.txt", np.full((4, 4), np.nan))
    scene = SevenScenesScene(tmp_path, "chess")
    assert scene.skipped == {"seq-03-frame-000001": "its pose was lost"}
    (frame,) = scene.frames(scene.names("all"))
    np.testing.assert_allclose(frame.intrinsics, [[525, 0, 320.5], [0, 525, 240.5], [0, 0, 1]])
    np.testing.assert_allclose(frame.depth_camera.intrinsics, [[585, 0, 320.5], [0, 585, 240.5], [0, 0, 1]])
    # The depth camera is the one that was tracked.
    np.testing.assert_allclose(frame.depth_camera.pose, pose, atol=1e-12)
    assert np.linalg.norm(frame.pose[:3, 3] - [1, 2, 3]) == pytest.approx(0.0256, abs=1e-4)
    assert (frame.depth == 0).all()
    put(np.zeros((240, 320, 3), np.uint8))(folder / "frame-000000.color.png")
    with pytest.raises(DataError, match=r"the published camera requires[\s\S]*found: \(240, 320\)[\s\S]*K.txt"):
        next(scene.frames(scene.names("all")))


# --- TUM RGB-D -------------------------------------------------------------------------------------------------------


def test_lists_need_not_be_sorted(raw: Path) -> None:
    expected = everything("tum_rgbd", raw)
    for name in ("rgb.txt", "depth.txt", "groundtruth.txt"):
        edit(name, lambda lines: lines[::-1])(raw / "tum_rgbd" / "house")
    for frame, other in zip(everything("tum_rgbd", raw), expected):
        assert frame.name == other.name
        np.testing.assert_array_equal(frame.pose, other.pose)
        np.testing.assert_array_equal(frame.depth, other.depth)


def test_images_without_partner_or_pose_are_skipped(raw: Path) -> None:
    folder = raw / "tum_rgbd" / "house"
    names = TumRgbdScene(raw / "tum_rgbd", "house").names("all")
    edit("depth.txt", lambda lines: [*lines[:5], *lines[6:]])(folder)  # three of them are comments
    gone = float(names[6])
    edit(
        "groundtruth.txt",
        lambda lines: [s for s in lines if s.startswith("#") or abs(float(s.split()[0]) - gone) > 0.03],
    )(folder)
    scene = TumRgbdScene(raw / "tum_rgbd", "house")
    assert scene.skipped == {names[2]: "no depth image within 0.02 s", names[6]: "no ground truth within 0.02 s"}
    assert scene.names("all") == [name for k, name in enumerate(names) if k not in (2, 6)]


times = st.lists(st.integers(0, 300), min_size=1, max_size=12, unique=True).map(lambda t: np.array(sorted(t)) / 1000)


@given(times, times)
def test_association_takes_the_nearest_first(a: np.ndarray, b: np.ndarray) -> None:
    """Associate all pairs by brute force, like the tool of the benchmark."""
    left, right, expected = set(range(len(a))), set(range(len(b))), {}
    for _, i, j in sorted((abs(a[i] - b[j]), i, j) for i in left for j in right if abs(a[i] - b[j]) <= 0.0205):
        if i in left and j in right:
            expected[i] = j
            left.remove(i)
            right.remove(j)
    assert associate(a, b, 0.0205) == expected


def test_poses_between_poses_keep_a_constant_rate() -> None:
    """Unevenly sampled uniform motion and rotation is interpolated exactly; outside and in gaps there is no pose."""
    rng = np.random.default_rng(0)
    spin, velocity, start = np.array([0.5, -2.0, 1.0]), np.array([0.3, -0.1, 0.2]), Rotation.from_rotvec([1, 2, 0.5])

    def pose(t: float) -> np.ndarray:
        turned = np.eye(4)
        turned[:3, :3] = (start * Rotation.from_rotvec(spin * t)).as_matrix()
        turned[:3, 3] = [1, 2, 3] + velocity * t
        return turned

    sampled = np.cumsum(rng.uniform(0.002, 0.015, 200))
    sampled = sampled[(sampled < 0.5) | (sampled > 0.6)]
    truth = np.array([pose(t) for t in sampled])
    signs = rng.choice([-1, 1], len(sampled))[:, None]  # q and -q are the same rotation
    quaternions = signs * Rotation.from_matrix(truth[:, :3, :3]).as_quat()
    way = Trajectory(sampled, truth[:, :3, 3], Rotation.from_quat(quaternions))
    asked = np.concatenate([rng.uniform(sampled[0], sampled[-1], 300), sampled])
    poses, known = way.at(asked)
    np.testing.assert_allclose(poses[known], [pose(t) for t in asked[known]], atol=1e-9)
    assert known[300:].all()
    assert not known[(asked > 0.51) & (asked < 0.59)].any()
    assert known[(asked < 0.49) | (asked > 0.62)].all()
    assert not way.at(np.array([sampled[0] - 1e-3, sampled[-1] + 1e-3]))[1].any()


def test_a_moving_distorted_camera_is_straightened_and_its_depth_keeps_its_own_time(tmp_path: Path) -> None:
    """A plane seen by the lens of freiburg1, whose published parameters are repeated here."""
    fx, fy, cx, cy = 517.3, 516.5, 318.6, 255.3
    k1, k2, p1, p2, k3 = 0.2624, -0.9531, -0.0054, 0.0026, 1.1633
    folder = tmp_path / "rgbd_dataset_freiburg1_desk"

    def straight_rays(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Undistort pixels whose centres are at integers, by fixed-point iteration."""
        xd, yd = (u - cx) / fx, (v - cy) / fy
        x, y = xd, yd
        for _ in range(100):
            r2 = x * x + y * y
            radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
            dx, dy = 2 * p1 * x * y + p2 * (r2 + 2 * x * x), p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
            x, y = (xd - dx) / radial, (yd - dy) / radial
        return x, y

    def colour(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([128 + 100 * np.sin(4 * x), 128 + 100 * np.cos(5 * y), 128 + 100 * x * y], axis=-1)

    def depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 2 / (1 + 0.3 * x - 0.2 * y)

    v, u = np.indices((480, 640)).astype(float)
    x, y = straight_rays(u, v)
    for kind in ("rgb", "depth"):
        (folder / kind).mkdir(parents=True)
    put(np.round(colour(x, y)[..., ::-1]).astype(np.uint8))(folder / "rgb" / "a.png")
    put(np.round(depth(x, y) * 5000).astype(np.uint16))(folder / "depth" / "b.png")
    (folder / "rgb.txt").write_text("10.000 rgb/a.png\n")
    (folder / "depth.txt").write_text("10.016 depth/b.png\n")
    turning = [[9.99 + 0.01 * k, 0.1 * k, 0, 0, *Rotation.from_rotvec([0, 0.01 * k, 0]).as_quat()] for k in range(5)]
    np.savetxt(folder / "groundtruth.txt", turning)

    (frame,) = TumRgbdScene(tmp_path, folder.name).frames(["a"])
    np.testing.assert_allclose(frame.intrinsics, [[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]])
    np.testing.assert_allclose(frame.pose[0, 3], 0.1, atol=1e-9)
    np.testing.assert_allclose(frame.depth_camera.pose[0, 3], 0.26, atol=1e-9)
    angle = Rotation.from_matrix(frame.depth_camera.pose[:3, :3]).as_rotvec()
    np.testing.assert_allclose(angle, [0, 0.026, 0], atol=1e-9)
    np.testing.assert_allclose(frame.depth_camera.intrinsics, frame.intrinsics)
    middle = np.s_[60:420, 60:580]
    x, y = (u - cx) / fx, (v - cy) / fy
    np.testing.assert_allclose(frame.rgb[middle], colour(x, y)[middle], atol=2.0)
    np.testing.assert_allclose(frame.depth[middle], depth(x, y)[middle], atol=2e-4)
