import dataclasses

import cv2
import numpy as np
import pytest
import trimesh
from numpy.testing import assert_allclose

from loco.datasets.raw import RawFrame
from loco.errors import DataError
from loco.geometry.raycast import Mesh, RayCaster
from loco.records import Recipe, new_record
from loco.steps import check_scene, frames
from loco.steps.frames import prepare_frame, prepare_frames
from loco.storage import Frames, write_mesh
from loco.storage.content_id import read_content_id

SETTINGS = {"height": 32, "width": 40, "images": "all", "max_hole_fraction": 0.2}


def prepare(raw, out, **changes):
    prepare_frames("matterport3d", raw, "house", out, "houses", SETTINGS | changes)
    return Frames(out)


def test_every_pixel_of_a_frame_has_a_depth_and_a_source(pristine, tmp_path):
    with prepare(pristine, tmp_path / "frames.h5") as frames:
        assert len(frames) == 18
        assert frames.size == (32, 40)
        assert (frames["depth"][:] > 0).all()
        share = np.bincount(frames["source"][:].ravel(), minlength=4) / frames["source"].size
        assert share[0] == 0
        assert share[1] > 0.4  # sensor
        assert share[2] > 0.02  # mesh
        assert frames.facts["dropped"] == {}


def test_equal_runs_give_equal_files(pristine, tmp_path):
    with prepare(pristine, tmp_path / "a.h5"), prepare(pristine, tmp_path / "b.h5"):
        assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_frames_with_too_many_holes_are_dropped_and_counted(pristine, tmp_path, monkeypatch):
    """Without a mesh, holes are those of the sensor."""
    monkeypatch.setattr("loco.datasets.matterport3d.Matterport3DScene.mesh", lambda self: None)
    with prepare(pristine, tmp_path / "all.h5", max_hole_fraction=1.0) as frames:
        holes = dict(zip(frames.names, (frames["source"][:] == 3).mean(axis=(1, 2))))
    limit = float(np.median(list(holes.values())))
    with prepare(pristine, tmp_path / "some.h5", max_hole_fraction=limit) as frames:
        assert frames.facts["dropped"].keys() == {name for name, share in holes.items() if share > limit}
        assert frames.names == [name for name, share in holes.items() if share <= limit]
        assert len(frames["rgb"]) == len(frames["pose"]) == len(frames.names)
    with pytest.raises(DataError, match=r"no frame of the 18 remains[\s\S]*max_hole_fraction"):
        prepare(pristine, tmp_path / "none.h5", max_hole_fraction=0.0)
    assert not (tmp_path / "none.h5").exists()


CHECK = Recipe("check_scene", "c0", {"format": "matterport3d", "decode": "all"})
RECIPE = Recipe("frames", "f0", {"format": "matterport3d", **SETTINGS}, {"check_scene": CHECK})


def run_steps(raw, folder, recipe=RECIPE, **files):
    """Check the scene and prepare its frames, as in the workflow."""
    check_scene.run(CHECK, raw, folder / "manifest.json", "houses", "house")
    frames.run(recipe, folder / "manifest.json", raw, folder / "house.h5", "houses", "house", **files)


def test_the_step_records_what_the_frames_are_made_from(pristine, tmp_path):
    run_steps(pristine, tmp_path)
    with Frames(tmp_path / "house.h5", RECIPE) as opened:
        assert (opened.dataset, opened.scene, len(opened)) == ("houses", "house", 18)
        assert opened.record.subject == {"dataset": "houses", "scene": "house"}
        manifest = tmp_path / "manifest.json"
        assert opened.record.inputs == {str(manifest): read_content_id(manifest)}
        with prepare(pristine, tmp_path / "plain.h5") as plain:
            for name in Frames.arrays:
                np.testing.assert_array_equal(opened[name][:], plain[name][:])


def test_a_scene_that_failed_its_check_is_refused(raw, tmp_path):
    (raw / "house" / "undistorted_color_images.zip").unlink()
    with pytest.raises(DataError, match=r"failed its check[\s\S]*color_images.zip is missing[\s\S]*house"):
        run_steps(raw, tmp_path)
    assert not (tmp_path / "house.h5").exists()


def test_inputs_that_were_made_otherwise_are_refused(pristine, tmp_path):
    sampled = Recipe("check_scene", "c0", {"format": "matterport3d", "decode": "sample"})
    with pytest.raises(DataError, match=r"decode = 'all', expected 'sample'[\s\S]*manifest\.json"):
        run_steps(pristine, tmp_path, dataclasses.replace(RECIPE, inputs={"check_scene": sampled}))
    triangle = trimesh.Trimesh(np.eye(3), [[0, 1, 2]]).export(file_type="ply")
    write_mesh(tmp_path / "mesh.ply", triangle, new_record(Recipe("fuse", "m0", {"voxel": 0.1}), {}, {}))
    fused = {**RECIPE.inputs, "fuse": Recipe("fuse", "m0", {"voxel": 0.2})}
    with pytest.raises(DataError, match=r"voxel = 0.1, expected 0.2[\s\S]*mesh\.ply"):
        run_steps(pristine, tmp_path, dataclasses.replace(RECIPE, inputs=fused), mesh_path=tmp_path / "mesh.ply")
    assert not (tmp_path / "house.h5").exists()


K = np.array([[40.0, 0, 20], [0, 40.0, 16], [0, 0, 1]])


def frame(depth: np.ndarray, rgb: np.ndarray | None = None) -> RawFrame:
    rgb = np.zeros((*depth.shape, 3), np.uint8) if rgb is None else rgb
    return RawFrame("image", rgb, depth.astype(np.float32), K, np.eye(4))


def test_depth_is_halved_exactly_on_a_slanted_plane():
    def plane(k: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        v, u = np.indices(size) + 0.5
        rays = np.stack([u, v, np.ones(size)], axis=-1) @ np.linalg.inv(k).T
        return 2 / (rays @ [0.3, -0.2, 1])

    half, origin = prepare_frame(frame(plane(K, (32, 40))), (16, 20), None)
    assert_allclose(half.intrinsics, [[20, 0, 10], [0, 20, 8], [0, 0, 1]])
    assert_allclose(half.depth, plane(half.intrinsics, (16, 20)), rtol=1e-6)
    assert (origin == 1).all()


def test_holes_grow_no_guesses_and_unusable_depths_are_holes():
    depth = np.full((32, 40), 2.0)
    depth[4, 4], depth[10, 10], depth[20, 20], depth[28, 30] = 0, np.nan, 25.0, 0.001
    small, origin = prepare_frame(frame(depth), (16, 20), None)
    holes = np.zeros((16, 20), bool)
    holes[[2, 5, 10, 14], [2, 5, 10, 15]] = True
    np.testing.assert_array_equal(origin == 0, holes)
    assert_allclose(small.depth, np.where(holes, 0, 2))


def test_holes_are_filled_from_the_mesh():
    box = trimesh.creation.box((100, 100, 6))
    caster = RayCaster(Mesh(box.vertices.astype(np.float32), box.faces.astype(np.uint32)))
    depth = np.full((32, 40), 2.5)
    depth[:, :20] = 0
    filled, origin = prepare_frame(frame(depth), (32, 40), caster)
    assert_allclose(filled.depth[:, :20], 3.0, rtol=1e-6)
    assert_allclose(filled.depth[:, 20:], 2.5)
    assert (origin[:, :20] == 2).all()
    assert (origin[:, 20:] == 1).all()


def test_colour_is_averaged_over_the_area():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, size=(32, 40, 3), dtype=np.uint8)
    small, _ = prepare_frame(frame(np.ones((32, 40)), rgb), (16, 20), None)
    expected = rgb.reshape(16, 2, 20, 2, 3).mean(axis=(1, 3))
    assert np.abs(small.rgb - expected).max() <= 0.5
    assert small.rgb.shape == cv2.resize(rgb, (20, 16)).shape


def test_the_largest_depth_is_a_setting():
    far = np.full((32, 40), 30.0)
    _, origin = prepare_frame(frame(far), (16, 20), None)
    assert (origin == 0).all()
    prepared, origin = prepare_frame(frame(far), (16, 20), None, max_depth=40.0)
    assert (origin == 1).all()
    assert_allclose(prepared.depth, 30.0)


def test_the_limit_of_depth_is_named_if_it_leaves_no_frame(pristine, tmp_path, monkeypatch):
    monkeypatch.setattr("loco.datasets.matterport3d.Matterport3DScene.mesh", lambda self: None)
    with pytest.raises(DataError, match=r"\d% of the measured depth is beyond 0.5 m[\s\S]*raise `frames.max_depth`"):
        prepare(pristine, tmp_path / "none.h5", max_depth=0.5)
    with pytest.raises(DataError, match="no frame of the 18 remains") as refused:
        prepare(pristine, tmp_path / "none.h5", max_hole_fraction=0.0)
    assert "max_depth" not in str(refused.value)
