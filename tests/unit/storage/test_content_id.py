"""Content ids: a change of any bit of a file of any kind is detected."""

from __future__ import annotations

import hashlib
import json
import random

import numpy as np
import pytest

from loco.errors import DataError
from loco.records import Recipe, new_record
from loco.storage import Features, Frames, read_json, read_mesh, write_json, write_manifest, write_mesh
from loco.storage.content_id import read_content_id, verify_content_id

RECORD = new_record(Recipe("frames", "c0de", {"every": 1}), {"dataset": "d", "scene": "s"}, {"a.json": 64 * "a"})
PLY = b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0.5\n"


def write_frames(path):
    with Frames.create(path, "d", "s", {"n": 2, "h": 16, "w": 16}, record=RECORD) as file:
        file.facts["names"] = ["a", "b"]
        file["pose"][:], file["intrinsics"][:] = np.eye(4), np.eye(3)
        file["rgb"][:], file["depth"][:], file["source"][:] = 7, 1, 1


def write_features(path):
    with Features.create(path, "d", "s", {"n": 2, "h": 3, "w": 3, "c": 4}, {"extent": [12, 12]}, record=RECORD) as file:
        file["features"][:], file["norm"][:] = 0.5, 1


WRITERS = {
    "frames.h5": write_frames,
    "features.h5": write_features,
    "metrics.json": lambda path: write_json(path, {"value": 0.5, "name": "\u00e9"}, "loco-metrics", 2, RECORD),
    "manifest.json": lambda path: write_manifest(path, {"ok": True}, RECORD),
    "mesh.ply": lambda path: write_mesh(path, PLY, RECORD),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_id_is_the_sha256_with_its_own_digits_as_zeros(tmp_path, name):
    WRITERS[name](tmp_path / name)
    data = (tmp_path / name).read_bytes()
    stated = read_content_id(tmp_path / name)
    assert data.count(stated.encode()) == 1
    assert hashlib.sha256(data.replace(stated.encode(), b"0" * 64)).hexdigest() == stated
    assert verify_content_id(tmp_path / name) == stated


@pytest.mark.parametrize("name", WRITERS)
def test_every_single_bit_flip_is_noticed(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    data, rng = bytearray(path.read_bytes()), random.Random(0)
    for bit in rng.sample(range(8 * len(data)), 200):
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(DataError, match=name):
            verify_content_id(path)
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("name", WRITERS)
def test_equal_content_has_an_equal_id(tmp_path, name):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        WRITERS[name](tmp_path / folder / name)
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_files_of_the_first_version_are_refused_with_what_to_delete(tmp_path):
    path = tmp_path / "seed0.json"
    path.write_text(json.dumps({"format": "loco-metrics", "version": 1, "rows": []}))
    with pytest.raises(DataError, match=r"earlier version[\s\S]*seed0.json[\s\S]*delete it and run the workflow again"):
        read_json(path, "loco-metrics", 2)


def test_json_is_sorted_and_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [0.5, None]}, "test", 1)
    assert json.loads((tmp_path / "a.json").read_text())["content"] == {"a": [0.5, None], "b": 1}
    assert read_json(tmp_path / "a.json", "test", 1).content == {"a": [0.5, None], "b": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"a": float("nan")}, "test", 1)
    assert not (tmp_path / "b.json").exists()


def test_another_format_is_refused(tmp_path):
    write_json(tmp_path / "a.json", {}, "test", 1)
    with pytest.raises(DataError, match=r"another format[\s\S]*other version 1[\s\S]*test version 1"):
        read_json(tmp_path / "a.json", "other", 1)


def test_a_mesh_keeps_its_record(tmp_path):
    write_mesh(tmp_path / "m.ply", PLY, RECORD)
    data, content_id = read_mesh(tmp_path / "m.ply", RECORD.recipe)
    assert data.endswith(b"end_header\n0.5\n")
    assert content_id == read_content_id(tmp_path / "m.ply")
    with pytest.raises(DataError, match="every = 1, expected 2"):
        read_mesh(tmp_path / "m.ply", Recipe("frames", "c0de", {"every": 2}))


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[" * 100000, b'{"content_id": "' + b"0" * 64 + b'"}'])
def test_what_is_no_document_is_refused_by_name(tmp_path, damage):
    (tmp_path / "a.json").write_bytes(damage)
    with pytest.raises(DataError, match=r"a\.json"):
        read_json(tmp_path / "a.json", "test", 1)
