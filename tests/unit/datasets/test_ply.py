"""PLY files in every form that programs write; surfaces are compared with their known areas."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from loco.datasets.ply import read_ply
from loco.datasets.ply_file import parse_ply, triangulate
from loco.errors import DataError

GRID = [(x, y, 0.0) for y in range(3) for x in range(3)]  # vertex 3 y + x of a square of 2 x 2 cells
FORMS = ("ascii", "binary_little_endian", "binary_big_endian")


def ply(
    faces, form="ascii", vertices=GRID, *, more="", extra=b"", name="vertex_indices", length="uchar", number="float"
):
    head = f"ply\nformat {form} 1.0\ncomment Created in Blender\n{more}element vertex {len(vertices)}\n"
    head += "".join(f"property {number} {axis}\n" for axis in "xyz") + "property uchar red\n"
    head += f"element face {len(faces)}\nproperty list {length} uint {name}\nproperty uchar flags\n"
    head += "element edge 1\nproperty int vertex1\nproperty int vertex2\nend_header\n"
    if form == "ascii":
        lines = [*((*v, 7) for v in vertices), *([len(f), *f, 9] for f in faces), (0, 1)]
        return head.encode() + "".join(" ".join(map(str, line)) + " \n" for line in lines).encode() + extra
    order = "<" if "little" in form else ">"
    kinds = {"uchar": "B", "int": "i", "float": "f", "double": "d"}
    body = b"".join(struct.pack(f"{order}3{kinds[number]}B", *v, 7) for v in vertices)
    body += b"".join(struct.pack(f"{order}{kinds[length]}{len(f)}IB", len(f), *f, 9) for f in faces)
    return head.encode() + body + struct.pack(f"{order}2i", 0, 1) + extra


def read(data):
    return read_ply(data, file=Path("mesh.ply"), scene="s")


def area(mesh) -> float:
    a, b, c = np.moveaxis(mesh.vertices.astype(float)[mesh.triangles], 1, 0)
    normals = np.cross(b - a, c - a) / 2
    assert (normals[:, 2] >= 0).all()  # each with the orientation of its polygon
    return float(np.linalg.norm(normals, axis=1).sum())


TRIANGLES = [(0, 1, 4), (0, 4, 3)]
MIXED = [(0, 1, 4), (0, 4, 3), (1, 2, 5, 4), (3, 4, 5, 8, 7, 6)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", ["uchar", "int"])
@pytest.mark.parametrize(
    ("faces", "expected", "count"),
    [(TRIANGLES, 1.0, 2), ([(0, 1, 4, 3), (1, 2, 5, 4)], 2.0, 4), (MIXED, 4.0, 8), ([(0, 1), (0, 1, 4)], 0.5, 1)],
)
def test_polygons_of_any_form_cover_their_area(form, length, faces, expected, count):
    mesh = read(ply(faces, form, length=length))
    assert area(mesh) == pytest.approx(expected)
    assert len(mesh.triangles) == count
    np.testing.assert_array_equal(mesh.vertices, np.float32(GRID))


@pytest.mark.parametrize("form", FORMS)
def test_triangles_keep_their_order_and_corners(form):
    """Labels refer to triangles by number."""
    faces = [(4, 3, 0), (0, 1, 4), (1, 2, 5)]
    assert read(ply(faces, form)).triangles.tolist() == [list(face) for face in faces]
    divided = triangulate(parse_ply(ply([(4, 3, 0), (1, 2, 5, 4), (0, 1, 4)], form))).tolist()
    assert divided[0] == [4, 3, 0]
    assert divided[3] == [0, 1, 4]


def test_a_quad_that_is_not_convex_is_divided_inside():
    vertices = [(0, 0, 0), (2, 0, 0), (0.5, 0.5, 0), (0, 2, 0)]  # an arrow; corner 2 is the reflex one
    for start in range(4):
        face = [tuple((start + k) % 4 for k in range(4))]
        assert area(read(ply(face, vertices=vertices))) == pytest.approx(1.0)


def test_a_polygon_that_no_fan_fills_is_refused():
    comb = [(0, 0), (5, 0), (5, 3), (4, 3), (4, 1), (3, 1), (3, 3), (2, 3), (2, 1), (1, 1), (1, 3), (0, 3)]
    with pytest.raises(DataError, match="cannot be split into a triangle fan"):
        read(ply([tuple(range(12))], vertices=[(*p, 0) for p in comb]))


@pytest.mark.parametrize("form", FORMS)
def test_odd_files_of_other_programs_are_read(form):
    expected = read(ply(MIXED, form)).triangles
    for data in (
        ply(MIXED, form, extra=b"\n"),
        ply(MIXED, form, name="vertex_index"),
        ply(MIXED, form, number="double"),
        ply(MIXED, form, more="obj_info scanned\n"),
        ply(MIXED, form).replace(b"\nend_header\n", b"\r\nend_header\r\n"),
        *([b"\xef\xbb\xbf" + ply(MIXED, form), ply(MIXED).replace(b"\n", b"\r\n")] if form == "ascii" else []),
    ):
        np.testing.assert_array_equal(read(data).triangles, expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ply([]), r"point cloud[\s\S]*9 vertices, 0 faces[\s\S]*surface mesh"),
        (ply([(0, 1)]), "point cloud"),
        (ply([]).partition(b"element face")[0] + b"end_header\n" + b"0 0 0 1\n" * 9, "point cloud"),
        (b"v 0 0 0\nf 1 2 3\n", "not a PLY file"),
        (b"", "not a PLY file"),
        (ply(MIXED)[:60], "header does not end"),
        (ply([(0, 1, 9)]), "that refer to missing vertices"),
        (ply(TRIANGLES, vertices=[*GRID[:-1], (0, 0, "nan")]), "not finite"),
        (ply(TRIANGLES, vertices=[*GRID[:-1], (0, 0, 1e39)], number="double"), "not finite"),
        (ply(TRIANGLES).replace(b"0.0", b"x"), "not a number"),
        (ply([(0, 1, 4.5)]), "not an integer"),
        (ply(TRIANGLES).replace(b"element face 2", b"element face 99999999999"), "ends within"),
        (ply(MIXED, FORMS[1])[:-14], "truncated|ends within"),
        (ply(TRIANGLES).replace(b"property float x", b"property float u"), "no x, y and z"),
    ],
)
def test_what_is_no_mesh_is_named(data, message):
    with pytest.raises(DataError, match=message):
        read(data)
