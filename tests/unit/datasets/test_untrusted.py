"""Damaged, hostile and unreadable raw files: a check lists them, in bounded time and memory, and raises nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from loco.datasets import anyloc, archive, check_labels, check_scene, open_scene
from loco.datasets.archive import Archive
from loco.datasets.checklist import Checklist
from loco.datasets.files import parse_json, read_bytes, system_error
from loco.datasets.images import decode_color, stated_size
from loco.datasets.matlab import read_cells
from loco.datasets.photographs import read_array
from loco.errors import DataError, printable

COLOR, DEPTH, REGIONS = "undistorted_color_images", "undistorted_depth_images", "region_segmentations"
CAMERAS = "undistorted_camera_parameters"


def problems(raw: Path, check: Callable = check_scene) -> str:
    manifest = check("matterport3d", raw, "house", "all")
    assert not manifest["ok"]
    assert all("what to do" in problem for problem in manifest["problems"])
    return "\n".join(manifest["problems"])


def rewrite(file: Path, change: Callable, method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(file) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(file, "w", method) as new:
        for name, data in change(members).items():
            new.writestr(name, data)


# --- zips ------------------------------------------------------------------------------------------------------------


def corrupted(file: Path, method: int) -> None:
    rewrite(file, dict, method)
    data = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as members:
        first = members.infolist()[0]
    begin = first.header_offset + 30 + len(first.filename)
    for k in range(begin + 20, begin + 60):
        data[k] ^= 0xFF
    file.write_bytes(data)


def in_directory(file: Path, offset: int, value: bytes) -> None:
    """Overwrite bytes of the first entry of the central directory of the zip."""
    data = bytearray(file.read_bytes())
    at = data.find(b"PK\x01\x02") + offset
    data[at : at + len(value)] = value
    file.write_bytes(data)


def bomb(file: Path, name: str, size: int) -> None:
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as members, members.open(name, "w") as member:
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: rewrite(f, lambda m: {**m, ".": b"x"}), "member without a name: '.'"),
        (lambda f: corrupted(f, zipfile.ZIP_LZMA), "member .* cannot be read"),
        (lambda f: corrupted(f, zipfile.ZIP_BZIP2), "member .* cannot be read"),
        (lambda f: in_directory(f, 6, b"\xff\x00"), "truncated or not a zip"),  # the version needed to extract
        (lambda f: in_directory(f, 10, b"\x63\x00"), "member .* cannot be read"),  # the compression method
        (lambda f: in_directory(f, 42, b"\xff\xff\xff\x7f"), "member .* cannot be read"),  # the offset
        (lambda f: in_directory(f, 24, b"\xff\xff\xff\x7f"), "larger than any file of this dataset"),  # the size
        (lambda f: bomb(f, "house/big.txt", 130 << 20), "larger than any file of this dataset"),
        (lambda f: rewrite(f, lambda m: {**m, "a\x1b[2J\nINFO finished.jpg": b"x"}), "files are not listed"),
        (lambda f: (f.unlink(), os.mkfifo(f)), "the file is not a zip archive"),
    ],
)  # fmt: skip
def test_damaged_zips_are_problems(raw, damage, message):
    damage(raw / "house" / f"{COLOR}.zip")
    listed = problems(raw)
    assert re.search(message, listed), listed
    assert all(c.isprintable() or c == "\n" for c in listed)
    assert "\nINFO" not in listed


def test_a_zip_of_many_bombs_is_refused_by_its_ratio(raw, monkeypatch):
    monkeypatch.setattr(archive, "RATIO_FROM", 1 << 20)
    monkeypatch.setattr(archive, "LARGEST_RATIO", 20)
    for k in range(2):
        bomb(raw / "house" / f"{REGIONS}.zip", f"house/{k}.txt", 20 << 20)
    assert "times its" in problems(raw)


def test_members_are_checked_without_being_held(raw, monkeypatch):
    """Read and discard the data block by block."""
    held = Archive(raw / "house" / f"{COLOR}.zip", raw, "", "house")
    monkeypatch.setattr(Archive, "read", lambda *_: pytest.fail("read whole"))
    assert held.broken_members() == []


@pytest.mark.parametrize("name", ["region0.semseg.json", "region0.fsegs.json"])
@pytest.mark.parametrize(
    "content", [b'{"segGroups": %s, "segIndices": 1}' % (b"[" * 200_000 + b"]" * 200_000), b"1" * 5000, b"\xff\xfe"]
)
def test_hostile_json_is_a_problem_of_the_labels(raw, name, content):
    rewrite(raw / "house" / f"{REGIONS}.zip", lambda m: {k: content if k.endswith(name) else d for k, d in m.items()})
    assert name in problems(raw, check_labels)
    assert check_scene("matterport3d", raw, "house", "sample")["ok"]


# --- cameras ---------------------------------------------------------------------------------------------------------


def edited(raw: Path, kind: str, change: Callable[[np.ndarray], None]) -> None:
    """Change the first matrix of a kind in the .conf."""

    def edit(members: dict[str, bytes]) -> dict[str, bytes]:
        [(name, text)] = members.items()
        lines = text.decode().splitlines()
        at = next(k for k, line in enumerate(lines) if line.startswith(kind))
        head, count = lines[at].split()[: 3 if kind == "scan" else 1], 16 if kind == "scan" else 9
        matrix = np.array(lines[at].split()[len(head) :], float).reshape(int(count**0.5), -1)
        change(matrix)
        lines[at] = " ".join([*head, *map(str, matrix.ravel())])
        return {name: "\n".join(lines)}

    rewrite(raw / "house" / f"{CAMERAS}.zip", edit)


def put(*place_and_value: float) -> Callable[[np.ndarray], None]:
    *place, value = place_and_value
    return lambda matrix: matrix.__setitem__(tuple(place), value)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("intrinsics_matrix", put(0, 0, -70.0), "not a camera matrix"),
        ("intrinsics_matrix", put(1, 1, 0.0), "not a camera matrix"),
        ("intrinsics_matrix", put(0, 1, 500.0), "not a camera matrix"),
        ("intrinsics_matrix", put(2, 0, 1.0), "not a camera matrix"),
        ("intrinsics_matrix", put(0, 2, 9999.0), "images of another size"),
        ("intrinsics_matrix", put(1, 2, 2.0), "images of another size"),
        ("scan", lambda m: m[:3, :3].__imul__([4, 0.5, 0.5]), "not a rigid transformation"),
        ("scan", lambda m: m[:3, 0].__imul__(-1), "not a rigid transformation"),
        ("scan", put(3, 1, 3.0), "not a rigid transformation"),
    ],
)
def test_cameras_of_matterport3d_are_checked(raw, kind, change, message):
    edited(raw, kind, change)
    assert message in problems(raw)

    def read() -> None:
        scene = open_scene("matterport3d", raw, "house")
        list(scene.frames(scene.names("all")))

    with pytest.raises(DataError, match=message):
        read()


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".ppm", ".tiff", ".webp"])
@pytest.mark.parametrize("size", [(3, 5), (70, 300)])
def test_the_stated_size_is_that_of_the_image(suffix, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    assert stated_size(data) == size
    assert decode_color(data, file=Path("a"), scene="s").shape == (*size, 3)
    assert all(stated_size(data[:k]) in (None, size) for k in range(0, len(data), 7))


def test_lossless_webp_has_a_size_too():
    data = cv2.imencode(".webp", np.zeros((30, 41, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    assert stated_size(data) == (30, 41)


def huge_png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">2I5B", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    data = huge_png(16384)
    assert len(data) < 100_000
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"too large[\s\S]*16384 x 16384"):
        decode_color(data, file=Path("a.png"), scene="s")


# --- MATLAB files and arrays -----------------------------------------------------------------------------------------


def cells_file(file: Path, compress: bool) -> bytes:
    cells = np.empty((1, 8), dtype=object)
    names, queries = np.array(["a/1.png", "b/22.png"]), np.array(["q.png"])
    cells[0] = [names, np.array([[1.5, 2], [3, 4]]), queries, np.eye(1, 2), *"wxyz"]
    scipy.io.savemat(file, {"other": 3.0, "dbStruct": cells}, do_compression=compress)
    return file.read_bytes()


@pytest.mark.parametrize("compress", [False, True])
def test_cells_are_those_that_scipy_reads(tmp_path, compress):
    names, places, queries, where = read_cells(cells_file(tmp_path / "a.mat", compress), "dbStruct", 4, 1 << 20)
    expected = scipy.io.loadmat(tmp_path / "a.mat")["dbStruct"][0]
    assert names == expected[0].tolist()
    assert queries == expected[2].tolist()
    np.testing.assert_array_equal(places, expected[1])
    np.testing.assert_array_equal(where, expected[3])


def test_damaged_matlab_files_raise_nothing_but_value_errors(tmp_path):
    for compress in (False, True):
        content = cells_file(tmp_path / "a.mat", compress)
        rng = np.random.default_rng(compress)
        for _ in range(1500):
            broken = mutated(content, rng)
            with contextlib.suppress(ValueError):
                read_cells(broken, "dbStruct", 4, 1 << 20)


def test_lists_that_are_named_many_times_are_not_followed(tmp_path):
    """Declare 1e10 numbers in a few hundred bytes: lists that repeat one list ten times, ten levels deep."""
    row: list = [1]
    for _ in range(10):
        row = [row] * 10
    file = tmp_path / "gardens" / "gardens_gt.npy"
    for folder in ("day_right", "night_right"):
        (file.parent / folder).mkdir(parents=True)
        cv2.imwrite(str(file.parent / folder / "0.png"), np.zeros((4, 4, 3), np.uint8))
    rows = np.empty((1, 2), dtype=object)
    rows[0] = [0, row]
    np.save(file, rows, allow_pickle=True)
    assert file.stat().st_size < 1000
    [problem] = check_scene("gardens", tmp_path, "gardens", "all")["problems"]
    assert "not a list of integers" in problem


def test_a_long_list_of_many_queries_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(anyloc, "MAX_POSITIVES", 100)
    long = list(range(60))
    rows = np.empty((2, 2), dtype=object)
    rows[:, 0], rows[0, 1], rows[1, 1] = [0, 1], long, long
    np.save(tmp_path / "gardens_gt.npy", rows, allow_pickle=True)
    images = {str(k): tmp_path for k in range(2)}
    with pytest.raises(DataError, match="too many positives"):
        anyloc.GardensScene.positives(tmp_path, "s", images, images)


# --- what the system refuses -----------------------------------------------------------------------------------------


def test_errors_of_the_system_name_the_file_its_reason_and_what_helps():
    found = Checklist("scannet", "s", "all")

    def fails(number: int) -> Callable:
        def read():
            raise OSError(number, os.strerror(number), "/data/a.zip")

        return read

    for number in (errno.EACCES, errno.EIO, errno.ENAMETOOLONG):
        assert found.attempt(fails(number)) is None
    denied, failed, long = found.problems
    assert "Permission denied" in denied
    assert "readable for the user" in denied
    assert "Input/output error" in failed
    assert "check the disk" in failed
    assert "shorter path" in long
    assert all("/data/a.zip" in problem for problem in found.problems)
    assert not any("download" in problem or "delete" in problem for problem in found.problems)


def test_what_no_reader_foresaw_is_a_problem_as_well():
    found = Checklist("scannet", "s", "all")
    assert found.attempt(lambda: {}["x"]) is None
    assert "KeyError" in found.problems[0]

    def deep():
        return deep()

    assert found.attempt(deep) is None
    assert "RecursionError" in found.problems[1]


def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "K.txt")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for file in (tmp_path / "K.txt", tmp_path / "zero", tmp_path):
        with pytest.raises(DataError, match=r"regular file|Is a directory"):
            read_bytes(file, "s")
    (tmp_path / "large").write_bytes(b"12345")
    assert read_bytes(tmp_path / "large", limit=5) == b"12345"
    with pytest.raises(DataError, match=r"too large[\s\S]*at most 4 bytes[\s\S]*5 bytes"):
        read_bytes(tmp_path / "large", limit=4)


def test_messages_have_no_control_characters():
    error = DataError("is broken", file="a\x1b[31m\nINFO finished", found="\r\x07\u2028")
    assert str(error).splitlines()[1:] == ["  file: a\\x1b[31m\\nINFO finished", "  found: \\r\\x07\\u2028"]
    assert printable("größe 3 µm") == "größe 3 µm"
    assert "x\\ny" in str(system_error(OSError(5, "bad", "x\ny")))


PERMISSIONS = """
import json, os, sys
from pathlib import Path
from loco.datasets import FORMATS, check_scene, open_scene, raw_files, raw_state, reader
for format in FORMATS:
    reader(format)
os.setgid(65534); os.setuid(65534)
for format, raw in json.loads(sys.argv[1]):
    raw_state(format, Path(raw), "s"); raw_files(format, Path(raw), "s")
    manifest = check_scene(format, Path(raw), "s", "all")
    print(json.dumps(manifest["problems"]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another user's rights")
def test_unreadable_files_and_folders_are_problems(tmp_path_factory, pristine, request):
    """Each as a user who may not read the file: the message states the system's reason and advises no download."""
    base = Path(request.getfixturevalue("open_folder"))
    cases = []
    for k, (format, victim) in enumerate(
        [
            *(("posed_rgbd", v) for v in ("K.txt", "color/0.png", "color", "poses.txt", ".")),
            *(("hpatches", v) for v in ("H_1_2", "1.ppm", ".")),
            *(("colmap", v) for v in ("sparse/0/images.bin", "sparse", ".")),
            *(("scannet", v) for v in ("s.sens", "s_vh_clean_2.ply", ".")),
            *(("seven_scenes", v) for v in ("seq-01", ".")),
            *(("tum_rgbd", v) for v in ("groundtruth.txt", ".")),
            *(("gardens", v) for v in ("gardens_gt.npy", "day_right", ".")),
            *(("scannet_pairs", v) for v in ("test.npz", ".")),
            *(("matterport3d", v) for v in (f"{COLOR}.zip", ".")),
        ]
    ):
        raw = base / str(k)
        write_scene(format, raw / "s", pristine)
        os.chmod(raw / "s" / victim, 0)
        cases.append((format, victim, str(raw)))
    out = subprocess.run(
        [sys.executable, "-c", PERMISSIONS, json.dumps([(format, raw) for format, _, raw in cases])],
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stderr
    for (format, victim, _), line in zip(cases, out.stdout.splitlines(), strict=True):
        listed = "\n".join(json.loads(line))
        assert "Permission denied" in listed, (format, victim, listed)
        assert "readable for the user" in listed


@pytest.fixture
def open_folder():
    """Return a folder that all users can enter; those of pytest are private."""
    import tempfile

    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder)


def write_scene(format: str, scene: Path, pristine: Path) -> None:
    """Return a scene that is complete, except that its images have no content."""
    scene.parent.mkdir()
    if format == "matterport3d":
        shutil.copytree(pristine / "house", scene)
        return
    image = cv2.imencode(".png", np.full((60, 80), 1000, np.uint16))[1].tobytes()
    pose = " ".join(map(str, np.eye(4).ravel()))
    files = {
        "posed_rgbd": {"color/0.png": image, "depth/0.png": image, "poses.txt": pose, "K.txt": "80 0 40 0 80 30 0 0 1"},
        "hpatches": {f"{k}.ppm": b"P6 2 2 255\n" + bytes(12) for k in range(1, 7)}
        | {f"H_1_{k}": "1 0 0 0 1 0 0 0 1" for k in range(2, 7)},
        "colmap": {f"sparse/0/{name}.bin": bytes(8) for name in ("cameras", "images", "points3D")},
        "scannet": {"s.sens": bytes(100), "s_vh_clean_2.ply": "ply"},
        "seven_scenes": {f"seq-01/frame-0.{part}": image for part in ("color.png", "depth.png", "pose.txt")},
        "tum_rgbd": {"rgb.txt": "0 rgb/0.png", "depth.txt": "0 depth/0.png", "groundtruth.txt": "0 0 0 0 0 0 0 1"},
        "gardens": {"day_right/0.png": image, "night_right/0.png": image, "gardens_gt.npy": bytes(9)},
        "scannet_pairs": {"test.npz": bytes(9), "intrinsics.npz": bytes(9)},
    }
    for name, content in files[format].items():
        (scene / name).parent.mkdir(parents=True, exist_ok=True)
        (scene / name).write_bytes(content.encode() if isinstance(content, str) else content)


# --- mutations -------------------------------------------------------------------------------------------------------


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip, insert, remove, repeat or overwrite some bytes, or truncate the file."""
    data = bytearray(content)
    at, size = int(rng.integers(len(data))), int(rng.integers(1, 9))
    match rng.integers(6):
        case 0:
            data[at] ^= 1 << int(rng.integers(8))
        case 1:
            data[at:at] = rng.bytes(size)
        case 2:
            del data[at : at + size]
        case 3:
            data[at:at] = data[at : at + 200]
        case 4:
            data[at : at + size] = rng.choice([b"\0", b"\xff", b"9", b"["]) * size
        case 5:
            del data[at:]
    return bytes(data)


def mutants() -> dict[str, list[str]]:
    return {
        "matterport3d": [f"{CAMERAS}.zip", f"{COLOR}.zip", f"{REGIONS}.zip"],
        "posed_rgbd": ["K.txt", "poses.txt", "color/0.png", "depth/0.png"],
        "hpatches": ["H_1_3", "2.ppm"],
        "colmap": ["sparse/0/cameras.bin", "sparse/0/images.bin"],
        "scannet": ["s.sens", "s_vh_clean_2.ply"],
        "tum_rgbd": ["rgb.txt", "groundtruth.txt"],
        "gardens": ["gardens_gt.npy"],
        "scannet_pairs": ["test.npz"],
    }


@pytest.mark.parametrize("format", mutants())
def test_mutations_end_in_a_manifest(format, tmp_path, pristine):
    """Mutations need not be detected, because no reader knows the true pixels."""
    write_scene(format, tmp_path / "r" / "s", pristine)
    scene = tmp_path / "r" / "s"
    if format == "matterport3d":
        scene = scene.rename(tmp_path / "r" / "house")
    rng = np.random.default_rng(7)
    for name in mutants()[format]:
        content = (scene / name).read_bytes()
        for _ in range(12):
            (scene / name).write_bytes(mutated(content, rng))
            manifest = check_scene(format, scene.parent, scene.name, "all")
            assert manifest["ok"] == (not manifest["problems"])
            assert not any("unforeseen" in p or "report the traceback" in p for p in manifest["problems"]), manifest
            json.dumps(manifest)
        (scene / name).write_bytes(content)


def test_pickles_do_not_run(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    file = tmp_path / "gardens" / "gardens_gt.npy"
    file.parent.mkdir()
    file.write_bytes(pickle.dumps(Runs()))
    assert not check_scene("gardens", tmp_path, "gardens", "all")["ok"]
    assert not (tmp_path / "made").exists()


# --- bombs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"[" + b"[]," * 2_000_000 + b"1]",  # 128 MB of lists in 6 MB
        b"[" + b"0," * 20_000_000 + b"1]",
        b" " * (1 << 26) + b"[1]",
        b'["\\ud800"]',
        b"[" * 100_000,
    ],
)
def test_json_that_takes_much_memory_is_refused(content):
    with pytest.raises(ValueError, match=r"more|bytes|surrogates|nested"):
        parse_json(content)
    assert parse_json(b'\xef\xbb\xbf{"a": [1, 2]}') == {"a": [1, 2]}


@pytest.mark.parametrize(
    "program", [b"]" * (5 << 20), b"\x8f" * 1000 + b".", b"(" + b"}" * 1000 + b"l."]
)  # lists, sets and dicts: each byte takes up to 216 bytes in memory
def test_pickles_of_many_objects_are_refused(tmp_path, program):
    rows = np.empty(1, object)
    np.save(tmp_path / "a.npy", rows, allow_pickle=True)
    head = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(head[: head.index(b"\n") + 1] + b"\x80\x02" + program)
    with pytest.raises(DataError, match="cannot be read"):
        read_array(tmp_path / "a.npy", "s")


def test_a_member_that_unpacks_to_far_more_than_its_size_is_refused(raw, monkeypatch):
    monkeypatch.setattr(archive, "RATIO_FROM", 1 << 20)
    bomb(raw / "house" / f"{REGIONS}.zip", "house/region_segmentations/region9.ply", 20 << 20)
    assert re.search(r"contains a member of 20971520 bytes, more than 200 times its compressed size", problems(raw))


def test_bombs_that_are_no_data_are_not_read(raw, monkeypatch):
    monkeypatch.setattr(archive, "RATIO_FROM", 1 << 20)
    bomb(raw / "house" / f"{REGIONS}.zip", "__MACOSX/._big.ply", 20 << 20)
    assert check_scene("matterport3d", raw, "house", "all")["ok"]


@pytest.mark.parametrize("kind", ["folder", "loop", "pipe", "null", "part"])
@pytest.mark.parametrize(
    "format", ["posed_rgbd", "tum_rgbd", "seven_scenes", "scannet", "colmap", "gardens", "hpatches"]
)
def test_what_is_no_file_in_the_place_of_any_file_is_a_problem(format, kind, tmp_path, pristine):
    """Each required file in turn; the check of the scene continues, and nothing blocks."""
    write_scene(format, tmp_path / "r" / "v_s", pristine)
    for file in [path for path in (tmp_path / "r").rglob("*") if path.is_file()]:
        content = file.read_bytes()
        file.unlink()
        match kind:
            case "folder":
                file.mkdir()
            case "loop":
                file.symlink_to(file.name)
            case "pipe":
                os.mkfifo(file)
            case "null":
                file.symlink_to("/dev/null")
            case "part":
                file.symlink_to("/etc/passwd/x")
        manifest = check_scene(format, tmp_path / "r", "v_s", "all")
        assert not any("report the traceback" in problem for problem in manifest["problems"]), manifest["problems"]
        file.rmdir() if kind == "folder" else file.unlink()
        file.write_bytes(content)
