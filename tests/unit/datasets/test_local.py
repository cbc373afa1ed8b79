"""Scenes far from the origin of their coordinates give the same results as near the origin, within a millimetre."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import trimesh
from scipy.spatial import cKDTree

from loco.datasets import check_scene, open_scene
from loco.datasets.ply import read_ply
from loco.datasets.sens import FRAME, SensFile
from loco.errors import DataError
from loco.simulate import simulate_scene
from loco.simulate.raw_scannet import export_scannet
from loco.simulate.rewrite import ply_in_double, rewrite_meshes, rewrite_poses
from loco.steps.correspondence import correspond_scene
from loco.steps.frames import prepare_frames
from loco.steps.fuse import fuse_scene
from loco.steps.label import label_scene
from loco.storage import Correspondences, Frames, Labels

IMAGE = {"height": 48, "width": 64}
WALK = {"seed": 4, "rooms": 1, "repetition": 0.5, "images": 8, "image": IMAGE}
PANORAMA = {"seed": 4, "rooms": 1, "repetition": 0.5, "panoramas": 1, "image": IMAGE}
# With fewer images, too few points are observed.
PHOTOGRAPHS = WALK | {"images": 16, "image": {"height": 96, "width": 128}}
FRAMES = {"height": 24, "width": 32, "images": "all", "max_hole_fraction": 1.0}
PATCHES = {"stride": 4, "overlap_tolerance": 0.05}
UTM, ECEF = np.array([500_000.0, 5_400_000.0, 512.3]), np.array([4_027_894.0, 307_045.6, 4_919_474.9])
FORMATS = ("posed_rgbd", "seven_scenes", "tum_rgbd", "nerfstudio", "scannet", "matterport3d", "colmap")
MAPPING = Path(__file__).parents[3] / "config/labels/simulated.tsv"


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one scene of each format."""
    raw = tmp_path_factory.mktemp("near")
    for format in FORMATS:
        settings = {"matterport3d": PANORAMA, "colmap": PHOTOGRAPHS}.get(format, WALK)
        simulate_scene(format, raw / format, format, settings)
    sens = raw / "scannet/scannet.sens"
    export_scannet(sens, raw / "scannet")
    sens.rename(raw / "scannet.sens")
    return raw


def moved(format: str, raw: Path, folder: Path, shift: np.ndarray) -> Path:
    """Return the raw folder of a copy of a scene whose world coordinates are shifted by ``shift``."""
    shutil.copytree(raw / format, folder / format)
    if format == "colmap":
        model = pycolmap.Reconstruction(folder / "colmap/sparse/0")
        model.transform(pycolmap.Sim3d(1.0, pycolmap.Rotation3d(), shift))
        model.write(folder / "colmap/sparse/0")
        return folder

    def move(poses: np.ndarray) -> np.ndarray:
        poses[:, :3, 3] += shift
        return poses

    rewrite_poses(format, folder / format, format, move)
    rewrite_meshes(folder / format, lambda vertices: vertices + shift)
    return folder


def prepared(format: str, raw: Path, folder: Path) -> dict[str, np.ndarray]:
    frames_path, correspondences_path = folder / "frames.h5", folder / "correspondences.h5"
    prepare_frames(format, raw, format, frames_path, "data", FRAMES)
    correspond_scene(frames_path, correspondences_path, PATCHES)
    with Frames(frames_path) as frames, Correspondences(correspondences_path) as found:
        arrays = {name: frames[name][:] for name in ("pose", "depth", "source", "track")}
        assert np.array_equal(found.origin, frames.origin)
        return arrays | {name: found[name][:] for name in ("points", "valid", "overlap")} | {"origin": frames.origin}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shift", [UTM, ECEF], ids=["utm", "ecef"])
def test_far_equals_near(near: Path, tmp_path: Path, format: str, shift: np.ndarray) -> None:
    if shift is ECEF and format not in ("posed_rgbd", "colmap"):
        pytest.skip("one offset is enough for the readers that share their code")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here = prepared(format, near, tmp_path / "a")
    far = prepared(format, moved(format, near, tmp_path, shift), tmp_path / "b")
    assert not here["origin"].any()
    assert np.abs(far["origin"] - shift).max() < 100
    offset = shift - far["origin"]
    assert np.abs(far["pose"][:, :3, 3] - offset - here["pose"][:, :3, 3]).max() < 1e-4
    assert np.abs(far["track"] - offset - here["track"]).max(initial=0) < 1e-4
    assert np.mean(far["valid"] != here["valid"]) < 0.01
    both = far["valid"] & here["valid"]
    assert both.sum() > 20
    error = np.abs(far["points"] - offset - here["points"])[both].max(axis=-1)
    assert np.quantile(error, 0.99) < 1e-3
    assert np.median(error) < 1e-5
    from_mesh = (here["source"] == 2) & (far["source"] == 2)
    error = np.abs(far["depth"] - here["depth"])[from_mesh]
    assert np.quantile(error, 0.99) < 1e-3 if len(error) else format not in ("scannet", "matterport3d")
    assert np.abs(far["overlap"] - here["overlap"]).max() < 0.02


def test_the_manifest_states_the_origin(near: Path, tmp_path: Path) -> None:
    far = moved("posed_rgbd", near, tmp_path, UTM)
    stated = check_scene("posed_rgbd", far, "posed_rgbd", "all")["origin"]
    assert stated == open_scene("posed_rgbd", far, "posed_rgbd").origin.tolist() != [0, 0, 0]
    assert check_scene("posed_rgbd", near, "posed_rgbd", "all")["origin"] == [0, 0, 0]


def test_fused_meshes(near: Path, tmp_path: Path) -> None:
    far = moved("posed_rgbd", near, tmp_path, UTM)
    settings = {"voxel": 0.05, "max_depth": 6.0}
    meshes = {}
    for name, raw in (("near", near), ("far", far)):
        out = tmp_path / f"{name}.ply"
        fuse_scene("posed_rgbd", raw, "posed_rgbd", out, settings)
        meshes[name] = read_ply(out.read_bytes(), file=out, scene="posed_rgbd").vertices
    origin = open_scene("posed_rgbd", far, "posed_rgbd").origin
    stated = next(
        line for line in (tmp_path / "far.ply").read_bytes().split(b"\n") if line.startswith(b"comment origin")
    )
    assert np.array_equal(np.array(stated.split()[2:], float), origin)
    assert len(meshes["far"]) == pytest.approx(len(meshes["near"]), rel=0.02)
    distance, _ = cKDTree(meshes["near"]).query(meshes["far"] - (UTM - origin))
    assert np.quantile(distance, 0.95) < 1e-3


def test_labels(near: Path, tmp_path: Path) -> None:
    far = moved("matterport3d", near, tmp_path, ECEF)
    instances = {}
    for name, raw in (("near", near), ("far", far)):
        frames, out = tmp_path / f"{name}.h5", tmp_path / f"{name}.labels.h5"
        prepare_frames("matterport3d", raw, "matterport3d", frames, "data", FRAMES)
        label_scene("matterport3d", raw, "matterport3d", frames, MAPPING, out)
        with Labels(out) as labels:
            instances[name] = labels["instance"][:]
    assert np.mean(instances["near"] == instances["far"]) > 0.995


def test_a_scaled_model_has_a_scaled_origin(near: Path, tmp_path: Path) -> None:
    far = moved("colmap", near, tmp_path, UTM)
    prepare_frames("colmap", far, "colmap", tmp_path / "frames.h5", "data", FRAMES | {"scale": 2.0})
    with Frames(tmp_path / "frames.h5") as frames:
        assert np.array_equal(frames.origin, 2 * open_scene("colmap", far, "colmap").origin)
        assert np.abs(frames["track"][:]).max() < 100


def test_coordinates_that_a_file_has_rounded_are_refused(near: Path, tmp_path: Path) -> None:
    box = trimesh.creation.box()
    vertices = box.vertices + UTM
    single = trimesh.Trimesh(vertices, box.faces, process=False).export(file_type="ply")
    with pytest.raises(DataError, match=r"single precision, which are rounded to 0.5 m[\s\S]*double"):
        read_ply(single, file=tmp_path / "mesh.ply", scene="far")
    mesh = read_ply(ply_in_double(vertices, box.faces), file=tmp_path / "mesh.ply", scene="far")
    assert mesh.vertices.dtype == np.float64
    assert np.array_equal(mesh.vertices, vertices)
    lines = "\n".join(
        [" ".join(map(repr, map(float, v))) for v in vertices] + [f"3 {a} {b} {c}" for a, b, c in box.faces]
    )
    header = f"ply\nformat ascii 1.0\nelement vertex {len(vertices)}\n" + "".join(
        f"property float {axis}\n" for axis in "xyz"
    )
    text = header + f"element face {len(box.faces)}\nproperty list uchar int vertex_indices\nend_header\n{lines}\n"
    assert np.array_equal(read_ply(text.encode(), file=tmp_path / "mesh.ply", scene="far").vertices, vertices)


def test_a_sens_file_of_rounded_poses_is_refused(near: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    path = shutil.copy(near / "scannet.sens", tmp_path / "far/far.sens")
    file, data = SensFile(path, "far"), bytearray(path.read_bytes())
    for pose, image in zip(file.poses, file._images):
        start = int(image[0]) - FRAME.size
        pose[:3, 3] += UTM
        data[start : start + 64] = pose.astype("<f4").tobytes()
    path.write_bytes(data)
    with pytest.raises(DataError, match="single precision"):
        open_scene("scannet", tmp_path, "far")
