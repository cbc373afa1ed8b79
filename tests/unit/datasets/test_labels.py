"""Labels, through the simulator and the raw layout; the effects of damaged or unusual label files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from loco.datasets import check_labels, check_scene, matterport3d, open_scene
from loco.datasets.labels import MPCAT40, STUFF, object_counts, panoptic, read_mapping
from loco.datasets.raw import LabelledMesh
from loco.datasets.segments import segment_objects
from loco.errors import DataError
from loco.geometry.cameras import scale_intrinsics
from loco.geometry.mesh import Mesh
from loco.simulate import simulate_scene
from loco.simulate.furniture import KINDS
from loco.simulate.house import build_house, scene_seed
from loco.simulate.panoramas import camera_intrinsics, choose_panoramas, shots
from loco.simulate.render import Renderer
from loco.steps.frames import prepare_frames
from loco.steps.label import label_scene
from loco.storage import Frames, Labels

TABLE = Path(__file__).parents[3] / "config" / "labels" / "simulated.tsv"
SETTINGS = {"seed": 5, "rooms": 2, "panoramas": 2, "image": {"height": 64, "width": 80}, "repetition": 0.3}
RAW_SIZE, SIZE = (64, 80), (48, 64)


# --- the whole way ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> SimpleNamespace:
    """Return a simulated house of two rooms, its frames and labels, and the renderer and cameras that produced it."""
    raw = tmp_path_factory.mktemp("home")
    simulate_scene("matterport3d", raw / "home", "home", SETTINGS)
    manifest = check_scene("matterport3d", raw, "home", "sample")
    chosen = {"height": SIZE[0], "width": SIZE[1], "images": "all", "max_hole_fraction": 1.0}
    prepare_frames("matterport3d", raw, "home", raw / "frames.h5", "homes", chosen)
    label_scene("matterport3d", raw, "home", raw / "frames.h5", TABLE, raw / "labels.h5")

    entropy = scene_seed(SETTINGS["seed"], "home")
    renderer, rng = Renderer(build_house(entropy, SETTINGS)), np.random.default_rng([*entropy, 2])
    intrinsics = camera_intrinsics(RAW_SIZE, rng)
    cameras = {}
    for place in choose_panoramas(renderer.house, renderer.scene, SETTINGS["panoramas"], rng):
        name = rng.bytes(16).hex()
        for shot in shots(place):
            scaled = scale_intrinsics(intrinsics[shot.camera], RAW_SIZE, SIZE)
            cameras[f"{name}_i{shot.camera}_{shot.yaw}"] = scaled, shot.pose
    with Frames(raw / "frames.h5") as frames:
        truth = np.stack([renderer.render(*cameras[name], SIZE).instance for name in frames.names])
    with Labels(raw / "labels.h5") as labels:
        maps, facts = (labels["instance"][:], labels["semantic"][:]), labels.facts
    return SimpleNamespace(
        raw=raw, manifest=manifest, truth=truth, instance=maps[0], semantic=maps[1], facts=facts, house=renderer.house
    )


def test_instance_maps_are_the_renderers_in_every_image_of_a_panorama(home):
    """The expected values are the renderer's, never read from a file, so a drift between images would show."""
    assert len(home.instance) == 36
    pairs, counts = np.unique(np.stack([home.truth, home.instance]).reshape(2, -1), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    number_of: dict[int, int] = {}
    for true, number in pairs[:, order].T.tolist():
        number_of.setdefault(true, number)
    assert len(set(number_of.values())) == len(number_of)  # a bijection
    renumbered = np.vectorize(number_of.get)(home.truth)
    # The .conf rounds intrinsics to 6 digits, so rays at an edge may miss it.
    agree = (renumbered == home.instance).mean(axis=(1, 2))
    assert agree.min() > 0.995
    for true, number in number_of.items():
        if true >= 0:
            assert home.facts["objects"][number]["label"] == home.house.instances[true].label


def test_semantic_maps_are_the_labels_of_the_house_through_the_table(home):
    lines = [line.split("\t") for line in TABLE.read_text().splitlines()[1:]]
    category = {raw: MPCAT40.index(name) for raw, name in lines}
    expected = np.array([*(category[i.label] for i in home.house.instances), 0])[home.truth]
    assert (expected == home.semantic).mean(axis=(1, 2)).min() > 0.995
    assert len(np.unique(home.semantic)) > 8


def test_facts_are_counts_of_the_maps_and_of_the_mesh(home):
    objects = home.facts["objects"]
    assert (
        check_labels("matterport3d", home.raw, "home", "sample")["objects"] == len(objects) == len(home.house.instances)
    )
    for number, fact in enumerate(objects):
        mask = home.instance == number
        assert fact["pixels"] == mask.sum()
        assert fact["frames"] == mask.any(axis=(1, 2)).sum()
        assert fact["stuff"] == (fact["category"] in STUFF)
    assert sum(fact["triangles"] for fact in objects) == len(home.house.triangles)
    stuff = sum(fact["stuff"] for fact in objects)
    assert home.facts["counts"] == {
        "objects": len(objects),
        "stuff": stuff,
        "things": len(objects) - stuff,
        "void": np.mean(home.semantic == 0),
    }


def test_objects_of_all_regions_have_numbers_of_their_own(home):
    labelled = open_scene("matterport3d", home.raw, "home").labelled_mesh()
    mesh = open_scene("matterport3d", home.raw, "home").mesh()
    np.testing.assert_array_equal(labelled.mesh.triangles, mesh.triangles)
    np.testing.assert_array_equal(labelled.mesh.vertices, mesh.vertices)
    rooms = np.array([i.room for i in home.house.instances])
    assert rooms.max() == 1
    # The writer lists the instances of each region in their order.
    expected = [i.label for room in (0, 1) for i in home.house.instances if i.room == room]
    assert labelled.labels == expected
    np.testing.assert_array_equal(np.unique(labelled.object), np.arange(len(expected)))


def test_labels_are_the_same_each_time_and_belong_to_their_frames(home, tmp_path):
    label_scene("matterport3d", home.raw, "home", home.raw / "frames.h5", TABLE, tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == (home.raw / "labels.h5").read_bytes()
    with Labels(tmp_path / "again.h5") as labels, Frames(home.raw / "frames.h5") as frames:
        labels.require_frames(frames)
        np.testing.assert_array_equal(frames["pose"].shape, (36, 4, 4))


def test_the_table_knows_all_that_the_simulator_builds():
    mapping = read_mapping(TABLE)
    built = {i.label for i in build_house([1], SETTINGS).instances}
    assert {"floor", "ceiling", "wall", "window", "door frame"} <= built  # the shell
    for design in KINDS.values():
        for seed in range(3):
            take = SimpleNamespace(rng=np.random.default_rng(seed), material=lambda finish: 0, own=lambda material: 0)
            built.add(design(take).label)
    assert built == mapping.keys()
    assert not {"void", "misc", "unlabeled"} & set(mapping.values())


# --- region files, made by hand --------------------------------------------------------------------------------------


def region(groups: list[tuple], segments: list[int]) -> dict[str, bytes]:
    """Write the files of a region: ``groups`` of (objectId, label, segments), and the segment of each triangle."""
    n = len(segments)
    mesh = trimesh.Trimesh(
        np.random.default_rng(0).normal(size=(3 * n, 3)), np.arange(3 * n).reshape(-1, 3), process=False
    )
    listed = [{"id": i, "objectId": i, "label": label, "segments": own} for i, label, own in groups]
    return {
        "ply": mesh.export(file_type="ply"),
        "fsegs.json": json.dumps({"segIndices": segments}).encode(),
        "semseg.json": json.dumps({"segGroups": listed}).encode(),
    }


def put(raw: Path, regions: dict[int, dict[str, bytes]]) -> None:
    """Replace the regions of the scene `house` by these."""
    with zipfile.ZipFile(raw / "house" / "region_segmentations.zip", "w") as archive:
        for number, files in regions.items():
            for suffix, content in files.items():
                archive.writestr(f"house/region_segmentations/region{number}.{suffix}", content)


def labelled(raw: Path, regions: dict[int, dict[str, bytes]]) -> LabelledMesh:
    put(raw, regions)
    return open_scene("matterport3d", raw, "house").labelled_mesh()


def as_objects(labels: list[str], object_of: np.ndarray) -> list[dict]:
    """Return object properties of objects whose raw labels are categories."""
    triangles = np.bincount(object_of[object_of >= 0], minlength=len(labels))
    return [
        {"label": c, "category": c, "stuff": c in STUFF, "triangles": int(t), "pixels": 0, "frames": 0}
        for c, t in zip(labels, triangles)
    ]


def test_things_never_get_numbers_of_stuff_however_the_regions_begin(raw):
    """The first region contains stuff only, the next ones a chair and a bed, which are the first two things."""
    found = labelled(
        raw,
        {
            0: region([(0, "wall", [4]), (1, "floor", [2])], [4, 2, 2]),
            1: region([(0, "chair", [0]), (1, "bed", [1])], [0, 1]),
        },
    )
    assert found.labels == ["wall", "floor", "chair", "bed"]
    np.testing.assert_array_equal(found.object, [0, 1, 1, 2, 3])
    objects = as_objects(found.labels, found.object)
    np.testing.assert_array_equal(panoptic(found.object, objects), [1, 2, 2, 16, 17])
    assert object_counts(objects) == (2, [0, 1, 1, *[0] * 13])


def test_numbers_do_not_come_from_object_ids(raw):
    """Ids have gaps and are unordered, and the last object has no triangle."""
    found = labelled(
        raw,
        {
            0: region([(9, "chair", [5]), (2, "wall", [7]), (4, "bed", [6]), (5, "sofa", [99])], [7, 6, 5, 6]),
            1: region([(2, "table", [5])], [5]),
        },
    )
    assert found.labels == ["chair", "wall", "bed", "sofa", "table"]
    np.testing.assert_array_equal(found.object, [1, 2, 0, 2, 4])
    objects = as_objects(found.labels, found.object)
    assert [fact["triangles"] for fact in objects] == [1, 1, 2, 0, 1]
    numbers = panoptic(found.object, objects)
    np.testing.assert_array_equal(numbers, [1, 17, 16, 17, 18])
    things, _ = object_counts(objects)
    assert things == 3
    assert numbers.max() == len(STUFF) + things - 1


def test_a_segment_without_triangles_touches_no_other_region(raw):
    """Segment 3 of the bed is in no triangle of its region; in the next region it belongs to another object."""
    found = labelled(raw, {0: region([(0, "bed", [1, 3])], [1, 1]), 1: region([(0, "chair", [3])], [3, 8])})
    np.testing.assert_array_equal(found.object, [0, 0, 1, -1])
    manifest = check_labels("matterport3d", raw, "house", "sample")
    assert manifest["ok"]
    assert manifest["objects"] == 2
    assert len(manifest["notes"]) == 1
    assert "region0.semseg.json': segments of objects that are not in the mesh: 1" in manifest["notes"][0]


def test_regions_come_in_the_order_of_their_numbers(raw):
    regions = {n: region([(0, f"thing {n}", [0])], [0] * n) for n in (10, 2, 1)}
    found = labelled(raw, regions)
    assert found.labels == ["thing 1", "thing 2", "thing 10"]
    np.testing.assert_array_equal(np.bincount(found.object), [1, 2, 10])


def test_an_object_listed_twice_is_one_object(raw):
    twice = [(0, "chair", [1, 2]), (1, "bed", [3]), (0, "chair", [2, 1]), (31, "bed", [3])]
    found = labelled(raw, {0: region(twice, [1, 2, 3])})
    assert found.labels == ["chair", "bed"]
    np.testing.assert_array_equal(found.object, [0, 0, 1])
    [note] = check_labels("matterport3d", raw, "house", "sample")["notes"]
    assert "objects that are listed twice and count once: 2" in note


def test_a_segment_of_two_objects_goes_to_the_first_and_is_noted(raw):
    found = labelled(raw, {0: region([(0, "chair", [1, 2]), (1, "bed", [2, 3])], [1, 2, 3])})
    assert found.labels == ["chair", "bed"]
    np.testing.assert_array_equal(found.object, [0, 0, 1])
    [note] = check_labels("matterport3d", raw, "house", "sample")["notes"]
    assert "segments of two objects, which are assigned to the first: 1" in note


def without(files: dict[str, bytes], triangles: str = "", vertex: str = "0 1 0") -> dict[str, bytes]:
    """Write the files with another mesh, an ASCII PLY."""
    count = len(triangles.splitlines())
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    head = f"ply\nformat ascii 1.0\nelement vertex 3\n{axes}element face {count}\n"
    text = f"{head}property list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n{vertex}\n{triangles}\n"
    return files | {"ply": text.encode()}


CHAIR = region([(0, "chair", [0])], [0])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (region([(0, "chair", [1]), (0, "bed", [1])], [1]), "object 0 is listed twice, with other segments or another"),
        (region([(0, "chair", [1]), (0, "chair", [2])], [1]), "object 0 is listed twice, with other segments"),
        (region([(0, None, [1])], [1]), "object 0 of the list has no `label`"),
        (region([(0, "chair", [1.5])], [1]), "object 0 of the list has .*no integer `segments`"),
        (region([([0], "chair", [1])], [1]), "object 0 of the list has .*objectId"),
        (CHAIR | {"semseg.json": b'{"segGroups": [3]}'}, "object 0 of the list has"),
        (CHAIR | {"semseg.json": b"{}"}, "is not JSON with the list 'segGroups'"),
        (CHAIR | {"fsegs.json": b'{"segIndices": [0, 0]}'}, r"not belong to its mesh[\s\S]*1 segment numbers[\s\S]*2"),
        (CHAIR | {"fsegs.json": b'{"segIndices": [0.5]}'}, r"not 64-bit integers[\s\S]*at index 0"),
        (CHAIR | {"fsegs.json": b'{"segIndices": [99999999999999999999]}'}, r"not 64-bit integers[\s\S]*at index 0"),
        (without(CHAIR), "point cloud"),
        (without(CHAIR, "3 0 1 2", "0 nan 0"), "not finite"),
        (without(CHAIR, "3 0 1 3"), "that refer to missing vertices"),
    ],
)  # fmt: skip
def test_broken_label_files_are_refused_and_listed_by_the_check(raw, files, message):
    put(raw, {0: files})
    with pytest.raises(DataError, match=message):
        open_scene("matterport3d", raw, "house").labelled_mesh()
    manifest = check_labels("matterport3d", raw, "house", "sample")
    assert len(manifest["problems"]) == 1
    with pytest.raises(DataError, match=message):
        raise DataError(manifest["problems"][0])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_objects_are_found_by_their_segments(data):
    """Compare with a search through all groups, triangle by triangle."""
    number = st.integers(-3, 40)
    segments = data.draw(st.lists(number, min_size=1, max_size=30))
    owners = data.draw(st.dictionaries(number, st.integers(0, 5), max_size=20))
    ids = data.draw(st.permutations(range(100, 106)))
    own = [[s for s, o in owners.items() if o == place] for place in range(6)]
    groups = [{"objectId": i, "label": f"{i}", "segments": s} for i, s in zip(ids, own)]
    found = segment_objects(np.array(segments), groups, file=Path("x"), scene="s", name="n")
    assert found.labels == [str(i) for i in ids]
    for segment, number in zip(segments, found.object):
        holders = [place for place, group in enumerate(groups) if segment in group["segments"]]
        assert holders == ([number] if number >= 0 else [])
    strays = owners.keys() - set(segments)
    assert found.notes == ([f"'n': segments of objects that are not in the mesh: {len(strays)}"] if strays else [])


def test_vertex_numbers_beyond_2_to_the_24_are_exact():
    """float32 represents whole numbers up to 2**24 only."""
    many = 2**24 + 1
    corners = np.array([[0, 1, 2]], np.uint32)
    vast = Mesh(np.broadcast_to(np.zeros(3, np.float32), (many, 3)), corners)
    small = Mesh(np.eye(3, dtype=np.float32), corners)
    joined = matterport3d._joined([vast, small])
    np.testing.assert_array_equal(joined.triangles, [[0, 1, 2], [many, many + 1, many + 2]])
    np.testing.assert_array_equal(joined.vertices[joined.triangles[1]], np.eye(3))


# --- rays ------------------------------------------------------------------------------------------------------------

K = np.array([[8.0, 0, 4], [0, 8, 3], [0, 0, 1]])


@pytest.fixture
def look(tmp_path, monkeypatch):
    """Label one frame of 6 x 8 pixels, seen from the origin along z, in a scene of squares at z = 2."""

    def square(left: float, right: float) -> trimesh.Trimesh:
        corners = [[left, -2, 2], [right, -2, 2], [right, 2, 2], [left, 2, 2]]
        return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False)

    def run(squares: list[tuple[float, float, int]], labels: list[str], table: dict[str, str], **changes) -> Labels:
        mesh = trimesh.util.concatenate([square(left, right) for left, right, _ in squares])
        mesh = Mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
        object_of = np.repeat(np.array([o for *_, o in squares], np.int32), 2)
        source = changes.get("source", LabelledMesh(mesh, object_of, labels))
        monkeypatch.setattr("loco.steps.label.open_scene", lambda *_: SimpleNamespace(labelled_mesh=lambda: source))
        with Frames.create(
            tmp_path / "f.h5", "set", changes.get("frames_of", "scene"), {"n": 1, "h": 6, "w": 8}
        ) as file:
            file.facts["names"] = ["a"]
            file["intrinsics"][:], file["pose"][:] = K, np.eye(4)
        lines = ["raw_category\tmpcat40", *("\t".join(pair) for pair in table.items())]
        (tmp_path / "t.tsv").write_text("\n".join(lines))
        label_scene("any", tmp_path, "scene", tmp_path / "f.h5", tmp_path / "t.tsv", tmp_path / "l.h5")
        return Labels(tmp_path / "l.h5")

    return run


def test_rays_that_meet_nothing_or_no_object_are_void(look):
    """Columns 0-1 show an object, 2-3 a triangle without object, 4-5 nothing, 6-7 another object: x = z (u - 4) / 8."""
    with look([(-1, -0.5, 1), (-0.5, 0, -1), (0.5, 1, 0)], ["x", "y"], {"x": "chair", "y": "wall"}) as labels:
        instance, semantic = labels["instance"][0], labels["semantic"][0]
        np.testing.assert_array_equal(instance, np.tile([1, 1, -1, -1, -1, -1, 0, 0], (6, 1)))
        np.testing.assert_array_equal(semantic, np.tile([1, 1, 0, 0, 0, 0, 3, 3], (6, 1)))
        assert labels.facts["counts"] == {"objects": 2, "things": 1, "stuff": 1, "void": 0.5}
        numbers = panoptic(instance, labels.facts["objects"])
        np.testing.assert_array_equal(numbers[0], [1, 1, 0, 0, 0, 0, 16, 16])
        assert numbers.dtype == np.int32


def test_objects_of_the_category_void_and_without_label(look):
    with look([(-1, 0, 0), (0, 1, 1)], ["remove", " "], {"remove": "void"}) as labels:
        np.testing.assert_array_equal(labels["instance"][0, 0], [0, 0, 0, 0, 1, 1, 1, 1])
        np.testing.assert_array_equal(labels["semantic"][0, 0], [0, 0, 0, 0, 41, 41, 41, 41])
        assert [fact["category"] for fact in labels.facts["objects"]] == ["void", "unlabeled"]
        assert labels.facts["counts"]["void"] == 0.5
        np.testing.assert_array_equal(
            panoptic(labels["instance"][0, 0], labels.facts["objects"]), [0, 0, 0, 0, 15, 15, 15, 15]
        )


def test_labels_that_no_table_knows_are_named_all_at_once(look):
    with pytest.raises(DataError, match=r"raw labels of the scene \(2\): 'sofa', 'yak'[\s\S]*add a line for each"):
        look([(-1, 1, 0)], ["yak", "chair", "sofa", "", "yak"], {"chair": "chair"})


def test_a_scene_without_labels_and_frames_of_another_scene_are_refused(look, tmp_path):
    with pytest.raises(DataError, match="the scene has no labels"):
        look([(-1, 1, 0)], ["x"], {"x": "chair"}, source=None)
    with pytest.raises(DataError, match=r"frames of another scene[\s\S]*expected: scene[\s\S]*found: other"):
        look([(-1, 1, 0)], ["x"], {"x": "chair"}, frames_of="other")
    assert not (tmp_path / "l.h5").exists()


def test_scenes_of_thousands_of_objects_fit(look):
    labels = [f"a label of ordinary length {k}" for k in range(5000)]
    with look([(-1, 1, 4999)], labels, dict.fromkeys(labels, "objects")) as found:
        assert len(found.facts["objects"]) == 5000
        assert found.facts["counts"]["objects"] == 1
        assert (found["instance"][:] == 4999).all()


# --- categories ------------------------------------------------------------------------------------------------------


def test_categories_have_their_official_numbers():
    """Check rows of mpcat40.tsv at both ends and in between; the 42 different names cover the other rows."""
    assert len(set(MPCAT40)) == 42
    official = {0: "void", 1: "wall", 2: "floor", 5: "table", 11: "bed", 17: "ceiling", 22: "tv_monitor", 25: "bathtub"}
    official |= {28: "lighting", 31: "shelving", 35: "board_panel", 36: "furniture", 39: "objects", 41: "unlabeled"}
    assert {number: MPCAT40[number] for number in official} == official
    assert len(set(STUFF)) == 16
    assert set(STUFF) < set(MPCAT40)


@pytest.mark.parametrize(
    "lines",
    [
        ["index,raw_category,count,mpcat40index,mpcat40", "1,wall,7,1,wall", "2,arm chair ,9,3,chair"],
        [
            "id,raw_category,mpcat40,mpcat40index",
            "1,arm chair,chair,3\r",
            "2,wall,wall,1",
            "1,arm chair,chair,3",
            "4,x,,",
        ],
        ["\ufeffraw_category,mpcat40", "wall,wall", "arm chair,chair"],
    ],
)
def test_tables_are_read_by_the_names_of_their_columns(tmp_path, lines):
    (tmp_path / "t.tsv").write_bytes("\n".join(lines).replace(",", "\t").encode())
    assert read_mapping(tmp_path / "t.tsv") == {"wall": "wall", "arm chair": "chair"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"raw_category\tnyu40class\nwall\twall\n",
            r"not a table of labels[\s\S]*`mpcat40`[\s\S]*found: raw_category, nyu40",
        ),
        (b"raw_category,mpcat40\nwall,wall\n", "not a table of labels"),
        (b"", r"not a table of labels[\s\S]*found: nothing"),
        (b"raw_category\tmpcat40\nwall\twall\nthrone\tthrone\n", "line 3: 'throne' is not a category"),
        (b"raw_category\tmpcat40\nwall\twall\nwall\tfloor\n", r"line 3 assigns 'wall' another[\s\S]*wall[\s\S]*floor"),
        (b"raw_category\tmpcat40\n\xff\xfe\twall\n", "cannot be read"),
        (b'raw_category\tmpcat40\n"open\twall\nchair\tchair\n', "cannot be read"),
    ],
)
def test_unusable_tables_are_refused(tmp_path, content, message):
    (tmp_path / "t.tsv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_mapping(tmp_path / "t.tsv")


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DataError, match=r"is missing[\s\S]*t.tsv[\s\S]*labels.mapping"):
        read_mapping(tmp_path / "t.tsv")
