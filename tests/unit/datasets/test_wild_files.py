"""Files as users have them: leftovers of systems, missing images, unusual spellings, other layouts."""

from __future__ import annotations

import logging
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fuzz_targets as seeds
from loco.datasets import FORMATS, check_labels, check_scene, open_scene, raw_files
from loco.datasets.checklist import Checklist
from loco.datasets.images import decode_color
from loco.datasets.pose_files import as_pose, is_rigid, read_number
from loco.datasets.reconstruct import reconstruct
from loco.errors import DataError

CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", "._0.jpg", "._100.txt")
BOM = b"\xef\xbb\xbf"


def content(format: str, raw: Path, scene: str = "s") -> tuple:
    """Return names, poses, colours, depths and meshes of a scene, which must pass its check, and its notes."""
    manifest = check_scene(format, raw, scene, "all")
    assert manifest["ok"], manifest["problems"]
    opened = open_scene(format, raw, scene)
    frames = list(opened.frames(opened.names("all")))
    mesh = opened.mesh()
    return (
        [(f.name, f.pose.tolist(), f.intrinsics.tolist(), f.rgb.tobytes(), np.ravel(f.depth).tolist()) for f in frames],
        mesh and mesh.triangles.tolist(),
        {key: manifest.get(key) for key in ("images", "digest", "notes")},
    )


WRITERS = {
    "posed_rgbd": seeds.posed_rgbd,
    "seven_scenes": seeds.seven_scenes,
    "tum_rgbd": seeds.tum_rgbd,
    "scannet": seeds.exported,
    "scannet_pairs": seeds.scannet_pairs,
    "matterport3d": lambda folder: seeds.matterport3d(folder, packed=False),
    "gardens": seeds.gardens,
    "hpatches": seeds.hpatches,
    "colmap": lambda folder: seeds.colmap(folder, "text"),
}


@pytest.mark.parametrize("format", WRITERS)
def test_leftovers_of_systems_change_nothing(format, tmp_path):
    """Neither the data that are read, nor the identity of the files, nor the notes change."""
    WRITERS[format](tmp_path)
    scene = "v_s" if format == "hpatches" else "s"
    before = content(format, tmp_path, scene)
    folders = [tmp_path / scene, *(path for path in (tmp_path / scene).rglob("*") if path.is_dir())]
    for folder in folders:
        seeds.put(folder, dict.fromkeys([*CLUTTER, "__MACOSX/._x", "@eaDir/0.png/SYNOFILE_THUMB_M.jpg"], b"\0\5\x16\7"))
    assert content(format, tmp_path, scene) == before


def test_leftovers_in_zips_change_nothing(tmp_path):
    files = seeds.matterport3d(tmp_path)
    first = content("matterport3d", tmp_path)
    for file in files:
        with zipfile.ZipFile(file, "a") as archive:
            for name in (
                "__MACOSX/s/._0.jpg",
                "s/.DS_Store",
                f"s/{file.stem}/Thumbs.db",
                f"s/{file.stem}/._region0.ply",
            ):
                archive.writestr(name, b"\0\5\x16\7")
    assert content("matterport3d", tmp_path)[:2] == first[:2]


def test_members_that_leave_the_folder_are_refused_even_if_hidden(tmp_path):
    file = seeds.matterport3d(tmp_path)[0]
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("../.bashrc", b"x")
    assert "leaves the folder" in check_scene("matterport3d", tmp_path, "s", "all")["problems"][0]


# --- absent images ---------------------------------------------------------------------------------------------------


def write_tum(folder: Path, frames: int) -> None:
    files = {"K.txt": seeds.text_of(seeds.K)}
    for kind in ("rgb", "depth"):
        files |= {f"{kind}/{k}.png": seeds.image(number=k) if kind == "rgb" else seeds.depth() for k in range(frames)}
        files[f"{kind}.txt"] = b"".join(f"{k / 10} {kind}/{k}.png\n".encode() for k in range(frames))
    files["groundtruth.txt"] = b"".join(f"{k / 100} {k / 10000} 0 0 0 0 0 1\n".encode() for k in range(10 * frames))
    seeds.put(folder, files)


def test_frames_of_absent_images_are_skipped_and_counted(tmp_path):
    write_tum(tmp_path / "s", 8)
    whole = content("tum_rgbd", tmp_path)[0]
    (tmp_path / "s/depth/3.png").unlink()
    (tmp_path / "s/rgb/5.png").unlink()
    frames, _, facts = content("tum_rgbd", tmp_path)
    assert frames == [frame for k, frame in enumerate(whole) if k not in (3, 5)]
    assert facts["images"] == 6
    assert facts["notes"] == ["listed images are missing (2): 5.png, 3.png; their frames are skipped"]
    assert open_scene("tum_rgbd", tmp_path, "s").skipped == {
        "3": "its depth image is missing",
        "5": "its image is missing",
    }


def test_a_scene_that_is_mostly_absent_is_a_problem_of_its_own_files(tmp_path):
    write_tum(tmp_path / "s", 8)
    for k in range(5):
        (tmp_path / f"s/depth/{k}.png").unlink()
    [problem] = check_scene("tum_rgbd", tmp_path, "s", "all")["problems"]
    assert problem.startswith("listed images are missing (5): 0.png, 1.png, 2.png, ...")
    assert "http" not in problem


@pytest.mark.parametrize(
    ("format", "own", "published"),
    [
        ("tum_rgbd", "kitchen", "rgbd_dataset_freiburg1_xyz"),
        ("seven_scenes", "kitchen", "redkitchen"),
        ("scannet", "kitchen", "scene0000_00"),
        ("gardens", "kitchen", "gardens"),
    ],
)
def test_only_scenes_of_a_dataset_are_to_be_downloaded(format, own, published, tmp_path):
    def problems(scene: str) -> str:
        return "\n".join(check_scene(format, tmp_path, scene, "all")["problems"])

    assert "what to do" in problems(own)
    assert not any(word in problems(own) for word in ("http", "github", "download"))
    assert any(word in problems(published) for word in ("http", "github"))


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", sorted(WRITERS.keys() - {"gardens", "scannet_pairs"}))
def test_a_byte_order_mark_changes_nothing(format, tmp_path):
    WRITERS[format](tmp_path)
    scene = "v_s" if format == "hpatches" else "s"
    before = content(format, tmp_path, scene)
    texts = [f for f in (tmp_path / scene).rglob("*") if f.suffix in (".txt", ".conf", ".json") or f.name[:2] == "H_"]
    assert texts
    for file in texts:
        file.write_bytes(BOM + file.read_bytes())
    assert content(format, tmp_path, scene)[:2] == before[:2]


@pytest.mark.parametrize(
    "word", ["-1.#INF", "1.#INF00", "1.#QNAN", "-1.#IND00", "-nan(ind)", "nan(snan)", "NaN", "-inf"]
)
def test_poses_that_windows_writes_as_lost_are_lost(word, tmp_path):
    seeds.posed_rgbd(tmp_path)
    lines = (tmp_path / "s/poses.txt").read_text().splitlines()
    (tmp_path / "s/poses.txt").write_text("\n".join([lines[0], " ".join([word] * 16)]))
    manifest = check_scene("posed_rgbd", tmp_path, "s", "all")
    assert (manifest["ok"], manifest["images"], manifest["lost"]) == (True, 1, 1)
    assert not np.isfinite(read_number(word))


@pytest.mark.parametrize("word", ["1_0", "1.#", "x", "1,5", "nan(", ""])
def test_other_words_are_no_numbers(word):
    with pytest.raises(ValueError, match="could not convert"):
        read_number(word)


# --- COLMAP ----------------------------------------------------------------------------------------------------------


def test_names_with_spaces_are_read_from_text_models(tmp_path):
    """The writer of COLMAP writes them there unchanged."""
    seeds.colmap(tmp_path / "text", "text")
    seeds.colmap(tmp_path / "binary", "binary")
    scene = tmp_path / "text" / "s"
    names = {"image 0.png": "IMG 0 (copy).png", "image 1.png": "a b/DJI_1  (402).png", "image 2.png": "ü 2.png"}
    model = (scene / "sparse/0/images.txt").read_text()
    for old, new in names.items():
        model = model.replace(old, new)
        (scene / "images" / new).parent.mkdir(exist_ok=True)
        (scene / "images" / old).rename(scene / "images" / new)
    (scene / "sparse/0/images.txt").write_text(model)
    frames, _, facts = content_of_photographs(tmp_path / "text")
    expected, _, _ = content_of_photographs(tmp_path / "binary")
    assert sorted(names.values()) == sorted(name for name, *_ in frames)
    assert sorted(f[1:] for f in frames) == sorted(f[1:] for f in expected)
    assert not open_scene("colmap", tmp_path / "text", "s").skipped
    assert len(facts["notes"]) == 1  # on the unit of length


def content_of_photographs(raw: Path) -> tuple:
    manifest = check_scene("colmap", raw, "s", "all")
    assert manifest["ok"], manifest["problems"]
    opened = open_scene("colmap", raw, "s")
    frames = [(f.name, f.pose.tolist(), f.rgb.tobytes()) for f in opened.frames(opened.names("all"))]
    return frames, opened.tracks(), manifest | {"notes": manifest.get("notes")}


@pytest.mark.parametrize("kind", ["binary", "text"])
@pytest.mark.parametrize("place", ["sparse/1", "sparse/10", "sparse"])
def test_the_largest_of_several_models_is_read_and_noted(kind, place, tmp_path):
    import pycolmap

    seeds.colmap(tmp_path, kind)
    scene = tmp_path / "s"
    whole = content_of_photographs(tmp_path)
    smaller = pycolmap.Reconstruction(scene / "sparse/0")
    smaller.deregister_frame(3)
    shutil.move(scene / "sparse/0", scene / "other")
    for file in (scene / "other").iterdir():
        (scene / place).mkdir(parents=True, exist_ok=True)
        shutil.move(file, scene / place / file.name)
    (scene / "sparse/0").mkdir(exist_ok=True)
    (smaller.write_text if kind == "text" else smaller.write_binary)(scene / "sparse/0")
    frames, tracks, facts = content_of_photographs(tmp_path)
    assert frames == whole[0]
    np.testing.assert_array_equal(tracks, whole[1])
    assert facts["notes"][1:] == [  # the first is on the unit of length
        f"{place} with 3 images is used because it is the largest model; other models: sparse/0 with 2"
    ]
    assert scene / place / f"images.{'txt' if kind == 'text' else 'bin'}" in raw_files("colmap", tmp_path, "s")


# --- ScanNet's subset ------------------------------------------------------------------------------------------------


def test_the_layout_of_scannet_frames_25k_is_read(tmp_path):
    seeds.exported(tmp_path)
    frames, _, facts = content("scannet", tmp_path)
    assert [name for name, *_ in frames] == ["000100", "000101"]
    np.testing.assert_allclose(frames[0][2], seeds.K + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]))
    assert any("no extrinsics" in note for note in facts["notes"])
    scene = tmp_path / "s"
    (scene / "intrinsic").mkdir()
    for kind in ("color", "depth"):
        (scene / f"intrinsics_{kind}.txt").rename(scene / f"intrinsic/intrinsic_{kind}.txt")
        (scene / f"intrinsic/extrinsic_{kind}.txt").write_bytes(seeds.text_of(np.eye(4)))
    assert content("scannet", tmp_path)[0] == frames
    shutil.copy(scene / "color/000100.jpg", scene / "color/100.jpg")
    assert "two files have the number 100" in check_scene("scannet", tmp_path, "s", "all")["problems"][0]


# --- images of other kinds -------------------------------------------------------------------------------------------

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0"


def test_photographs_of_other_kinds_are_named(tmp_path, caplog):
    seeds.put(tmp_path / "photos", {f"IMG_{k}.HEIC": HEIC for k in range(20)} | {"a.jpg": seeds.image(".jpg")})
    with pytest.raises(DataError, match=r"1, and 20 with unsupported formats: IMG_0.HEIC[\s\S]*convert them to JPEG"):
        reconstruct(tmp_path / "photos", tmp_path / "out", {"matcher": "exhaustive"}, 1)
    assert any(record.levelno == logging.WARNING for record in caplog.records)
    with pytest.raises(DataError, match=r"HEIC, which is not supported[\s\S]*convert"):
        decode_color(HEIC, file=Path("renamed.jpg"), scene="s")
    seeds.colmap(tmp_path, "binary")
    seeds.put(tmp_path / "s/images", {"IMG.heic": HEIC})
    assert "unsupported file formats are ignored (1): IMG.heic" in content_of_photographs(tmp_path)[2]["notes"][1]
    seeds.posed_rgbd(tmp_path / "posed")
    for file in (tmp_path / "posed/s/color").iterdir():
        file.rename(file.with_suffix(".heic"))
    assert "unsupported formats" in check_scene("posed_rgbd", tmp_path / "posed", "s", "all")["problems"][0]


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_never_reach_a_manifest_or_snakemake_as_they_are(tmp_path):
    """Names stated in files of the scene contain escape codes and braces, or are not valid UTF-8."""
    write_tum(tmp_path / "s", 2)
    list_file = tmp_path / "s/rgb.txt"
    list_file.write_text(list_file.read_text() + "9.0 a\x1b[2J{x}/9\x1b[2J.png\n")
    (tmp_path / "s" / b"b\xff".decode("utf-8", "surrogateescape")).mkdir()
    assert all("{" not in str(path) and str(path).isprintable() for path in raw_files("tum_rgbd", tmp_path, "s"))
    found = Checklist("tum_rgbd", "s", "all")
    found.note("a\x1b[2J")
    assert found.notes == ["a\\x1b[2J"]
    manifest = check_scene("tum_rgbd", tmp_path, "s", "all")
    assert all(str(text).isprintable() for text in manifest["notes"])


@pytest.mark.parametrize("far", [1e9, -1e300])
def test_positions_that_no_camera_has_are_refused(far):
    pose = np.eye(4)
    pose[1, 3] = far
    with pytest.raises(DataError, match=r"implausibly far away \(row 3\)[\s\S]*1e\+08 m"):
        as_pose(pose, file=Path("poses.txt"), scene="s", row=3)
    assert not is_rigid(pose)
    pose[1, 3] = 6.4e6  # geocentric coordinates
    assert is_rigid(pose)
    assert as_pose(pose, file=Path("poses.txt"), scene="s") is not None


def test_a_scan_that_is_listed_twice_is_refused(tmp_path):
    seeds.matterport3d(tmp_path, packed=False)
    (conf,) = tmp_path.rglob("*.conf")
    lines = conf.read_text().splitlines()
    scan = next(line for line in lines if line.startswith("scan"))
    conf.write_text("\n".join([line for line in lines if not line.startswith("n_images")] + [scan]))
    manifest = check_scene("matterport3d", tmp_path, "s", "all")
    assert any("is listed twice" in problem for problem in manifest["problems"])


@pytest.mark.parametrize("format", FORMATS)
def test_a_missing_folder_is_one_problem(format, tmp_path):
    """Not one per file of the scene. The message names the folders that exist."""
    raw = tmp_path / "raw"
    for exists in (False, True):
        (manifest, labels) = check_scene(format, raw, "s", "all"), check_labels(format, raw, "s", "all")
        (problem,) = manifest["problems"]
        assert labels["problems"] == manifest["problems"]
        assert problem.startswith("the folder of the scene does not exist\n")
        assert f"file: {raw}/s\n" in problem
        assert ("contains hall, room\n" if exists else "does not exist either\n") in problem
        assert (manifest["ok"], manifest["images"], manifest["files"]) == (False, 0, [])
        for folder in ("room", "hall"):
            (raw / folder).mkdir(parents=True, exist_ok=True)
