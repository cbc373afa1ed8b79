"""Targets of ``benchmarks.fuzz``: small valid files of every format, and their readers.

The ``write`` of a target writes its files to a folder and returns those that are to be mutated; its ``read`` reads them
as the workflow does. Readers of raw scenes must list every problem in a manifest; other readers may raise the errors of
this project.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
SIZE = (24, 32)
K = np.array([[30.0, 0, 15.5], [0, 30, 11.5], [0, 0, 1]])
UNFORESEEN = "report the traceback"  # part of the message of a problem that is caused by a bug
NO_MEMORY = "does not fit into memory"


class UnforeseenError(Exception):
    """Raised if a manifest lists an error that is a bug."""


@dataclass(frozen=True)
class Target:
    """One kind of input: ``write(folder)`` returns the files to mutate, ``read(folder)`` reads all files."""

    write: Callable[[Path], Sequence[Path]]
    read: Callable[[Path], Any]


# --- pieces ----------------------------------------------------------------------------------------------------------


def text_of(matrix: np.ndarray) -> bytes:
    return "\n".join(" ".join(map(str, row)) for row in np.atleast_2d(matrix)).encode() + b"\n"


def image(suffix: str = ".png", number: int = 0) -> bytes:
    import cv2

    pixels = np.random.default_rng(number).integers(0, 256, (SIZE[0] // 4, SIZE[1] // 4, 3), np.uint8)
    return cv2.imencode(suffix, cv2.resize(pixels, SIZE[::-1]))[1].tobytes()


def depth() -> bytes:
    import cv2

    return cv2.imencode(".png", np.linspace(500, 4000, SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint16))[1].tobytes()


def pose(number: int) -> np.ndarray:
    moved = np.eye(4)
    moved[0, 3] = 0.001 * number  # so little that the frames are consistent for any depth
    return moved


def ply(kind: str = "<") -> bytes:
    """Return a PLY file of two triangles and a quad: little-endian (``<``), big-endian (``>``) or text (empty)."""
    vertices = np.array([[x, y, 2.0] for y in range(3) for x in range(2)], np.float32)
    faces = [(0, 1, 3), (0, 3, 2), (2, 3, 5, 4)]
    form = {"<": "binary_little_endian", ">": "binary_big_endian", "": "ascii"}[kind]
    head = f"ply\nformat {form} 1.0\ncomment made\nelement vertex 6\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz")
    head += "element face 3\nproperty list uchar int vertex_indices\nend_header\n"
    if not kind:
        lines = [*vertices.tolist(), *([len(face), *face] for face in faces)]
        return (head + "".join(" ".join(map(str, line)) + "\n" for line in lines)).encode()
    records = (struct.pack(f"{kind}B{len(face)}i", len(face), *face) for face in faces)
    return head.encode() + vertices.astype(f"{kind}f4").tobytes() + b"".join(records)


def triangles() -> bytes:
    return ply("").replace(b"element face 3", b"element face 2").replace(b"4 2 3 5 4\n", b"")


def put(folder: Path, files: dict[str, bytes]) -> list[Path]:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


# --- raw scenes ------------------------------------------------------------------------------------------------------


def matterport3d(folder: Path, packed: bool = True) -> list[Path]:
    lines = [f"n_images {len(range(2))}", "intrinsics_matrix " + " ".join(map(str, K.ravel()))]
    kinds: dict[str, dict[str, bytes]] = {
        f"undistorted_{kind}": {} for kind in ("color_images", "depth_images", "camera_parameters")
    } | {"region_segmentations": {}}
    for k in range(2):
        colour, distance = f"abc_i1_{k}.jpg", f"abc_d1_{k}.png"
        lines.append(f"scan {distance} {colour} " + " ".join(map(str, pose(k).ravel())))
        kinds["undistorted_color_images"][colour] = image(".jpg", k)
        kinds["undistorted_depth_images"][distance] = depth()
    kinds["undistorted_camera_parameters"]["s.conf"] = "\n".join(lines).encode()
    kinds["region_segmentations"] = {
        "region0.ply": triangles(),
        "region0.fsegs.json": json.dumps({"segIndices": [3, 4]}).encode(),
        "region0.semseg.json": json.dumps({"segGroups": [{"label": "wall", "segments": [3], "objectId": 1}]}).encode(),
    }
    if not packed:
        return put(folder / "s", {f"{kind}/{name}": data for kind, of in kinds.items() for name, data in of.items()})
    (folder / "s").mkdir(parents=True)
    for kind, members in kinds.items():
        with zipfile.ZipFile(folder / "s" / f"{kind}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(f"s/{kind}/{name}", data)
    return sorted((folder / "s").iterdir())


def scannet(folder: Path) -> list[Path]:
    from loco.datasets.sens import SensHeader
    from loco.simulate.raw_scannet import SensFrame, encode_depth, write_sens

    intrinsics = np.eye(4)
    intrinsics[:3, :3] = K
    header = SensHeader(
        "camera", intrinsics, np.eye(4), intrinsics, np.eye(4), "jpeg", "zlib_ushort", SIZE, SIZE, 1000.0
    )
    units = np.full(SIZE, 2000, np.uint16)
    frames = [SensFrame(pose(k), image(".jpg", k), encode_depth(units, "zlib_ushort")) for k in range(3)]
    (folder / "s").mkdir(parents=True)
    write_sens(folder / "s" / "s.sens", header, frames)
    groups = {"sceneId": "scannet.s", "segmentsFile": "scannet.s_vh_clean_2.0.010000.segs.json"}
    files = {
        "s_vh_clean_2.ply": ply(),
        "s.aggregation.json": json.dumps(
            {**groups, "segGroups": [{"objectId": 0, "label": "wall", "segments": [1, 2]}]}
        ).encode(),
        "s_vh_clean_2.0.010000.segs.json": json.dumps({"segIndices": [1, 1, 2, 2, 3, 3]}).encode(),
    }
    return [folder / "s" / "s.sens", *put(folder / "s", files)]


def exported(folder: Path) -> list[Path]:
    files = {f"{kind}/00010{k}{end}": b"" for kind, end in () for k in range(2)}
    for k in range(2):
        files |= {f"color/00010{k}.jpg": image(".jpg", k), f"depth/00010{k}.png": depth()}
        files[f"pose/00010{k}.txt"] = text_of(pose(k))
    camera = np.eye(4)
    camera[:3, :3] = K
    return put(folder / "s", files | {f"intrinsics_{kind}.txt": text_of(camera) for kind in ("color", "depth")})


def posed_rgbd(folder: Path) -> list[Path]:
    files = {f"color/{k}.png": image(number=k) for k in range(2)} | {f"depth/{k}.png": depth() for k in range(2)}
    files |= {"poses.txt": text_of(np.array([pose(k).ravel() for k in range(2)])), "K.txt": text_of(K)}
    return put(folder / "s", files | {"mesh.ply": ply(), "depth_scale.txt": b"1000\n"})


def seven_scenes(folder: Path) -> list[Path]:
    files = {"K.txt": text_of(K), "K_depth.txt": text_of(K), "depth_to_color.txt": text_of(np.eye(4))}
    for k in range(2):
        parts = {"color.png": image(number=k), "depth.png": depth(), "pose.txt": text_of(pose(k))}
        files |= {f"seq-01/frame-00000{k}.{part}": content for part, content in parts.items()}
    return put(folder / "s", files)


def tum_rgbd(folder: Path) -> list[Path]:
    files = {"K.txt": text_of(K)}
    for kind in ("rgb", "depth"):
        files |= {f"{kind}/{k}.png": image(number=k) if kind == "rgb" else depth() for k in range(2)}
        files[f"{kind}.txt"] = b"# time file\n" + b"".join(f"{k}.0 {kind}/{k}.png\n".encode() for k in range(2))
    files["groundtruth.txt"] = b"# poses\n" + b"".join(f"{k / 100} 0 0 0 0 0 0 1\n".encode() for k in range(-5, 110))
    return put(folder / "s", files)


def nerfstudio(folder: Path) -> list[Path]:
    camera = {"w": 32, "h": 24, "fl_x": K[0, 0], "fl_y": K[1, 1], "cx": 16.0, "cy": 12.0, "k1": 0.01}
    files = {f"images/{k}.png": image(number=k) for k in range(2)} | {f"depth/{k}.png": depth() for k in range(2)}
    frames = [
        {"file_path": f"images/{k}.png", "depth_file_path": f"depth/{k}.png", "transform_matrix": pose(k).tolist()}
        for k in range(2)
    ]
    content = json.dumps({**camera, "frames": frames}, indent=1).encode()
    return put(folder / "s", {**files, "transforms.json": content, "depth_scale.txt": b"1000\n"})


def colmap(folder: Path, kind: str) -> list[Path]:
    import pycolmap

    from loco.simulate.raw_colmap import write_model

    model = pycolmap.Reconstruction()
    parameters = [30.0, 30, 16, 12, 0.01]
    camera = pycolmap.Camera(camera_id=1, model="RADIAL", width=32, height=24, params=[30.0, 16, 12, 0.01, 0.0])
    assert len(parameters) == len(camera.params)
    model.add_camera_with_trivial_rig(camera)
    points = np.random.default_rng(0).uniform([-0.5, -0.4, 2], [0.5, 0.4, 3], (8, 3))
    tracks = [pycolmap.Track() for _ in points]
    for k in range(3):
        seen = camera.img_from_cam(points - [0.1 * k, 0, 0])
        name = f"image {k}.png" if kind == "text" else f"{k}.png"
        photograph = pycolmap.Image(name=name, camera_id=1, image_id=k + 1, keypoints=seen)
        moved = pycolmap.Rigid3d(pycolmap.Rotation3d(np.eye(3)), np.array([-0.1 * k, 0, 0]))
        model.add_image_with_trivial_frame(photograph, moved)
        for number, track in enumerate(tracks):
            track.add_element(k + 1, number)
        put(folder / "s" / "images", {name: image(number=k)})
    for point, track in zip(points, tracks):
        model.add_point3D(point, track)
    model.update_point_3d_errors()
    write_model(folder / "s" / "sparse" / "0", model, kind)
    return sorted((folder / "s" / "sparse" / "0").iterdir())


def hpatches(folder: Path) -> list[Path]:
    files = {f"{k}.ppm": image(".ppm", k) for k in range(1, 7)}
    return put(folder / "v_s", files | {f"H_1_{k}": text_of(np.eye(3)) for k in range(2, 7)})


def scannet_pairs(folder: Path) -> list[Path]:
    scan = folder / "s" / "scene0707_00"
    images = put(
        scan, {f"color/{k}.jpg": image(".jpg", k) for k in range(2)} | {f"depth/{k}.png": depth() for k in (0, 1)}
    )
    relative = pose(1)[None, :3].reshape(1, 12)
    np.savez(folder / "s" / "test.npz", name=np.array([[707, 0, 0, 1]]), rel_pose=relative)
    np.savez(folder / "s" / "intrinsics.npz", scene0707_00=K)
    return [folder / "s" / "test.npz", folder / "s" / "intrinsics.npz", images[2]]


def gardens(folder: Path) -> list[Path]:
    names = [f"{part}/{k}.png" for part in ("day_right", "night_right") for k in range(3)]
    files = put(folder / "s", {name: image(number=k) for k, name in enumerate(names)})
    rows = np.empty((3, 2), object)
    for k in range(3):
        rows[k] = [k, [k, np.int64(k - 1), 2.0][: k + 1]] if k < 2 else [k, np.arange(2)]
    np.save(folder / "s" / "gardens_gt.npy", rows, allow_pickle=True)
    return [folder / "s" / "gardens_gt.npy", files[0]]


def oxford(folder: Path) -> list[Path]:
    import scipy.io

    names = [f"oxDataPart/{k}.png" for k in range(3)]
    put(folder / "s", {name: image(number=k) for k, name in enumerate(names)})
    cells = np.empty((1, 8), object)
    cells[0] = [np.array(["0.png", "1.png"]), np.array([[1.5, 2], [3, 4]]), np.array(["2.png"]), np.eye(1, 2), *"wxyz"]
    scipy.io.savemat(folder / "s" / "oxdatapart.mat", {"dbStruct": cells})
    return [folder / "s" / "oxdatapart.mat"]


def hawkins(folder: Path) -> list[Path]:
    put(folder / "s", {f"db_images/{k}.png": image() for k in range(127)})
    put(folder / "s", {f"q_images/{k}.png": image() for k in range(118)})
    np.save(folder / "s" / "pose_topic_list.npy", np.random.default_rng(0).uniform(0, 50, (245, 3)))
    return [folder / "s" / "pose_topic_list.npy"]


def nardo_air(folder: Path) -> list[Path]:
    files = {f"{part}_images/{k}.png": image(number=k) for part in ("reference", "query") for k in range(2)}
    put(folder / "s", files)
    head = "query_ind," + ",".join(f"top_{k}_ref_ind" for k in range(1, 6))
    return put(folder / "s", {"gt_matches.csv": f"{head}\n0,0,1,0,1,0\n1,1,0,1,0,1\n".encode()})


def baidu(folder: Path) -> list[Path]:
    camera = b"100 0 0\n0 100 0\n0 0 1\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n1.5 2 0.1\n32 24\n"
    files = {f"{kind}_images_undistort/0.jpg": image(".jpg") for kind in ("training", "query")}
    put(folder / "s", files)
    return put(folder / "s", {f"{kind}_gt/0.camera": camera for kind in ("training", "query")})


def check_raw(format: str, folder: Path, scene: str = "s") -> None:
    """Check a scene and its labels, list its files for planning, and read its whole content.

    Raises:
        UnforeseenError: a manifest lists a problem that is caused by a bug.
        DataError: a manifest lists other problems.
    """
    from loco.datasets import check_labels, check_scene, label_files, open_scene, raw_files, raw_state
    from loco.errors import DataError

    raw_files(format, folder, scene), raw_state(format, folder, scene)
    labelled = any(file.exists() for file in label_files(format, folder, scene))
    manifests = [check_scene(format, folder, scene, "all")]
    if labelled:
        manifests.append(check_labels(format, folder, scene, "all"))
    for manifest in manifests:
        text = "\n".join([*manifest["problems"], *manifest.get("notes", ())])
        if not all(character.isprintable() or character == "\n" for character in text):
            raise UnforeseenError(f"control characters in {text!r}")
        json.dumps(manifest, allow_nan=False)
        if UNFORESEEN in text or NO_MEMORY in text:
            raise UnforeseenError(text)
    if not all(manifest["ok"] for manifest in manifests):
        raise DataError("\n".join(problem for manifest in manifests for problem in manifest["problems"]))
    opened = open_scene(format, folder, scene)
    for frame in opened.frames(opened.names("all")):
        assert frame.rgb.ndim == 3
    opened.mesh(), opened.tracks(), opened.ground_truth()
    if labelled:
        opened.labelled_mesh()


# --- files between the steps -----------------------------------------------------------------------------------------


def scene_files(folder: Path) -> list[Path]:
    from loco.storage import Correspondences, Encoded, Features, Frames, Labels

    sizes = {"n": 2, "h": 8, "w": 8, "c": 4}
    folder.mkdir(parents=True, exist_ok=True)
    for kind in (Frames, Correspondences, Features, Labels, Encoded):
        facts = {"names": ["a", "b"], "extent": [8, 8], "stride": 1, "objects": []}
        with kind.create(folder / f"{kind.__name__}.h5", "d", "s", sizes, facts, frames_id="0" * 64) as file:
            for name, array in kind.arrays.items():
                if file[name].size:
                    file[name][...] = np.ones(file[name].shape, array.dtype)
    return sorted(folder.glob("*.h5"))


def read_scene_files(folder: Path) -> None:
    from loco.storage import Correspondences, Encoded, Features, Frames, Labels

    for kind in (Frames, Correspondences, Features, Labels, Encoded):
        with kind(folder / f"{kind.__name__}.h5") as file:
            for name in kind.arrays:
                for k in range(min(len(file[name]), 8)):
                    file[name][k]


def documents(folder: Path) -> list[Path]:
    from loco.evaluation.result import Evaluation, Row
    from loco.results.metrics import write_metrics
    from loco.storage import write_manifest, write_mesh

    content = {"scene": "s", "ok": True, "problems": [], "files": [{"bytes": 3}], "digest": "d", "images": 2}
    write_manifest(folder / "manifest.json", {"dataset": "d", **content})
    rows = [Row("mAP", "all", 0.5, 0.4, 0.6, 3, "%")]
    evaluation = Evaluation(rows, {"scene": ["s"], "score": [0.5]})
    write_metrics(
        folder / "metrics.json",
        benchmark="location_consistency",
        split="x",
        experiment="e",
        seed=0,
        settings={"k": 1},
        evaluation=evaluation,
    )
    write_mesh(folder / "mesh.ply", ply())
    return sorted(folder.iterdir())


def read_documents(folder: Path) -> None:
    from loco.datasets.ply import read_ply
    from loco.results.metrics import read_metrics
    from loco.results.tables.checks import write_checks
    from loco.storage import read_manifest, read_mesh

    for read in (
        lambda: read_ply(read_mesh(folder / "mesh.ply")[0], file=folder / "mesh.ply", scene="s"),
        lambda: read_metrics(folder / "metrics.json"),
    ):
        yield_errors(read)
    manifest = read_manifest(folder / "manifest.json")
    write_checks({("d", "s"): manifest.content}, {("d", "s"): 1}, folder / "checks")


def yield_errors(read: Callable[[], Any]) -> None:
    """Read one of several files; rejecting it must not prevent reading the others."""
    from loco.errors import LocoError

    try:
        read()
    except LocoError as error:
        str(error)


def meshes(folder: Path) -> list[Path]:
    return put(folder, {"a.ply": ply(), "b.ply": ply(">"), "c.ply": ply(""), "d.ply": triangles()})


def read_meshes(folder: Path) -> None:
    from loco.datasets.ply import read_ply

    for file in sorted(folder.glob("*.ply")):
        yield_errors(partial(read_ply, file.read_bytes(), file=file, scene="s"))


def tables(folder: Path) -> list[Path]:
    rows = b'raw_category\tmpcat40\nwall\twall\n"sofa"\tsofa\n'
    numbers = next((ROOT / "config" / "published_results").glob("*.csv")).read_bytes()
    return put(folder, {"labels.tsv": rows, "published.csv": b"\n".join(numbers.split(b"\n")[:12]) + b"\n"})


def read_tables(folder: Path) -> None:
    from loco.datasets.labels import read_mapping
    from loco.results.tables.published import read_published

    yield_errors(lambda: read_mapping(folder / "labels.tsv"))
    read_published(folder / "published.csv")


def configuration(folder: Path) -> list[Path]:
    import yaml

    content = {"extends": "config.yaml", **yaml.safe_load((ROOT / "config" / "config.yaml").read_bytes())}
    listed = {"raw": "results/raw/listed", "scenes": str(folder / "scenes.txt")}
    content["datasets"]["listed"] = next(iter(content["datasets"].values())) | listed
    return put(folder, {"config.yaml": yaml.safe_dump(content).encode(), "scenes.txt": b"# list\nash\nbirch\n"})


def read_configuration(folder: Path) -> None:
    from loco.config import load, read_files

    load(read_files([folder / "config.yaml"], ROOT), ROOT)


def models(folder: Path) -> list[Path]:
    import torch

    from loco.models import build_extractor, save_extractor

    config = {"name": "compact_cnn", "dim": 8, "widths": [8, 8], "blocks": 1}
    folder.mkdir(parents=True, exist_ok=True)
    save_extractor(build_extractor(config), config, folder / "model.safetensors")
    weights = {f"layers.{k}.weight": torch.ones(2, 2, 3, 3) for k in range(4)}
    torch.save({"state_dict": weights}, folder / "published.ckpt")
    return sorted(folder.iterdir())


def read_models(folder: Path) -> None:
    from loco.models import croco, load, published

    yield_errors(lambda: load(folder / "model.safetensors"))
    yield_errors(lambda: croco._read(folder / "published.ckpt"))
    published.read_weights(folder / "published.ckpt")  # building a model from it requires its backbone


# --- faulty readers, with which the fuzzer itself is tested -----------------------------------------------------------


def raises(error: Exception) -> Callable[[Path], None]:
    def read(_: Path) -> None:
        raise error

    return read


def hangs(_: Path) -> None:
    while True:
        time.process_time()


def takes_memory(_: Path) -> None:
    held = bytearray(3 << 30)
    held[:: 1 << 12] = bytes(len(held[:: 1 << 12]))


def _raw(write: Callable[[Path], Sequence[Path]], format: str, scene: str = "s") -> Target:
    return Target(write, partial(check_raw, format, scene=scene))


TARGETS = {
    "matterport3d": _raw(matterport3d, "matterport3d"),
    "matterport3d unpacked": _raw(partial(matterport3d, packed=False), "matterport3d"),
    "scannet": _raw(scannet, "scannet"),
    "scannet exported": _raw(exported, "scannet"),
    "scannet pairs": _raw(scannet_pairs, "scannet_pairs"),
    "posed_rgbd": _raw(posed_rgbd, "posed_rgbd"),
    "seven_scenes": _raw(seven_scenes, "seven_scenes"),
    "tum_rgbd": _raw(tum_rgbd, "tum_rgbd"),
    "nerfstudio": _raw(nerfstudio, "nerfstudio"),
    "colmap binary": _raw(partial(colmap, kind="binary"), "colmap"),
    "colmap text": _raw(partial(colmap, kind="text"), "colmap"),
    "hpatches": _raw(hpatches, "hpatches", "v_s"),
    "gardens": _raw(gardens, "gardens"),
    "oxford_robotcar": _raw(oxford, "oxford_robotcar"),
    "hawkins": _raw(hawkins, "hawkins"),
    "nardo_air": _raw(nardo_air, "nardo_air"),
    "baidu": _raw(baidu, "baidu"),
    "meshes": Target(meshes, read_meshes),
    "scene files": Target(scene_files, read_scene_files),
    "documents": Target(documents, read_documents),
    "tables": Target(tables, read_tables),
    "configuration": Target(configuration, read_configuration),
    "models": Target(models, read_models),
}
BROKEN = {
    "crash": Target(meshes, lambda _: os.abort()),
    "hang": Target(meshes, hangs),
    "foreign": Target(meshes, raises(KeyError("x"))),
    "memory": Target(meshes, takes_memory),
}


def names() -> Iterator[str]:
    return iter(TARGETS)
