from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

import loco
from loco.datasets import check_scene, open_scene
from loco.datasets.images import decode_color, decode_depth
from loco.datasets.orientation import as_stored, count_orientations, orientations_note, stated_orientation
from tests.unit.datasets.oriented import ORIENTATIONS, exif, oriented

RGB = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
DEPTH = np.random.default_rng(1).integers(1, 60000, (30, 40), np.uint16)
LOSSLESS = {".png": [], ".tiff": [], ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101], ".jpg": []}


def encoded(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image, LOSSLESS[suffix])[1].tobytes()


def color(data: bytes) -> np.ndarray:
    return decode_color(data, file=Path("a"), scene="s")


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", LOSSLESS)
def test_pixels_are_read_as_they_are_stored(suffix, orientation):
    plain = encoded(suffix, RGB[..., ::-1])
    for order in "<>":
        data = oriented(plain, orientation, order)
        assert stated_orientation(data) == orientation
        np.testing.assert_array_equal(color(data), color(plain))
    if suffix != ".jpg":
        np.testing.assert_array_equal(color(data), RGB)
    if orientation != 1:  # so this tag is applied by other readers
        applied = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert applied.shape != RGB.shape or (applied != color(plain)).any()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_depth_is_read_as_it_is_stored(suffix, orientation):
    data = oriented(encoded(suffix, DEPTH), orientation)
    np.testing.assert_array_equal(decode_depth(data, file=Path("a"), scene="s", remedy=""), DEPTH)


def test_a_tiff_may_state_its_orientation_as_any_integer():
    data = oriented(encoded(".tiff", RGB[..., ::-1]), 6)
    at = data.rindex(b"\x12\x01\x03\x00")
    longer = data[:at] + b"\x12\x01\x04\x00" + data[at + 4 :]
    assert stated_orientation(longer) == 6
    np.testing.assert_array_equal(color(longer), RGB)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_impossible_orientations_are_none(orientation):
    assert stated_orientation(oriented(encoded(".jpg", RGB), orientation)) == 1


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_no_cut_file_is_an_error_here(suffix):
    data = oriented(encoded(suffix, RGB), 6)
    found = Counter(stated_orientation(data[:k]) for k in range(len(data)))
    assert found.keys() <= {1, 6}
    assert all(as_stored(data[:k]) == data[:k] for k in range(0, 60))
    assert stated_orientation(b"\xff\xd8\xff\xe1\0\0" + exif(6)) == 1  # a segment of impossible length


def test_images_are_counted_where_they_are_asked_for():
    def counted() -> str | None:
        with count_orientations() as seen:
            for orientation in (1, 3, 6, 6):
                color(oriented(encoded(".jpg", RGB), orientation))
            color(encoded(".png", RGB))
        color(oriented(encoded(".jpg", RGB), 8))
        return orientations_note(seen)

    note = counted()
    assert note.startswith("an EXIF orientation is stated by 3 of the 5 images")
    assert "1 with orientation 3, 2 with orientation 6" in note
    with count_orientations() as seen:
        color(encoded(".png", RGB))
    assert orientations_note(seen) is None


def test_photographs_of_places_too(tmp_path):
    for kind in ("database", "queries"):
        folder = tmp_path / "town" / "images" / "test" / kind
        folder.mkdir(parents=True)
        for k in range(2):
            name = f"@{500000 + 100 * k}.0@4180000.0@.jpg"
            (folder / name).write_bytes(oriented(encoded(".jpg", RGB), 6 if kind == "queries" else 1))
    scene = open_scene("geotagged", tmp_path, "town")
    assert {frame.rgb.shape for frame in scene.frames(scene.names("all"))} == {RGB.shape}
    manifest = check_scene("geotagged", tmp_path, "town", "all")
    assert manifest["ok"]
    assert any("stated by 2 of the 4 images" in note for note in manifest["notes"])


def test_no_other_module_decodes_images():
    """All readers use the one function that ignores the tag."""
    package = Path(loco.__file__).parent
    decoders = {"imread", "imdecode", "imreadmulti", "imdecodemulti", "imreadWithMetadata", "imdecodeWithMetadata"}
    found = set()
    for path in package.rglob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Attribute)}
        if names & decoders:
            found.add(path.relative_to(package).as_posix())
    assert found == {"datasets/images.py"}
