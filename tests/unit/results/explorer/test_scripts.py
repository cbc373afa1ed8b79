"""The scripts of the page as far as they are pure: each function against Python or a closed form."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from loco.evaluation.landmark_retrieval import average_precision
from loco.geometry.cameras import project


@pytest.fixture(scope="module")
def run(browser, page_file):
    """A function that evaluates JavaScript in the page; arguments are passed as JSON."""
    browser.goto(page_file.as_uri())
    browser.wait("window.explorer")

    def evaluate(script: str, *arguments: object) -> object:
        return browser.run(f"({script})(...{json.dumps(arguments)})")

    return evaluate


@pytest.mark.parametrize("values", ["distinct", "equal", "few"])
def test_average_precision(run, values: str) -> None:
    rng = np.random.default_rng(3)
    scores = {"distinct": rng.normal(size=200), "equal": np.ones(200), "few": rng.integers(0, 6, 200) / 7}[values]
    ranked, positive = rng.random(200) < 0.8, rng.random(200) < 0.2
    script = "(v, r, p) => averagePrecision(Float64Array.from(v), r, p)"
    found = run(script, scores.tolist(), ranked.tolist(), positive.tolist())
    assert found == pytest.approx(average_precision(scores[ranked], positive[ranked]), rel=1e-12)


def test_without_a_positive_there_is_no_average_precision(run) -> None:
    script = "() => averagePrecision(new Float64Array(9), new Uint8Array(9).fill(1), new Uint8Array(9))"
    assert run(f"() => Number.isNaN(({script})())")


def test_projection(run, content) -> None:
    geometry = content.geometry
    for patch, view in ((100, 0), (2000, 5), (5000, 3)):
        arguments = [geometry.points[patch], geometry.intrinsics[view].ravel(), geometry.poses[view].ravel()]
        found = run("(...a) => project(...a.map((x) => Float64Array.from(x)))", *(a.tolist() for a in arguments))
        uv, z = project(geometry.points[patch].astype(float), geometry.intrinsics[view], geometry.poses[view])
        assert_allclose(found, [*uv, z], rtol=1e-12)


def test_quantiles(run) -> None:
    values = np.random.default_rng(0).normal(size=5000)
    found = run("(v) => quantiles(Float64Array.from(v), [0, 0.02, 0.5, 0.999, 1])", values.tolist())
    assert_allclose(found, np.quantile(values, [0, 0.02, 0.5, 0.999, 1]), atol=2 * np.ptp(values) / 1000)
    assert run("() => quantiles(new Float64Array(7).fill(3), [0.1, 0.9])") == [3, 3]


def test_patch_and_centre_are_inverse(run) -> None:
    view = {"area": [2.0, -1.0, 122.0, 95.0], "grid": [24, 30]}
    assert run("(v) => Array.from({length: 720}, (_, p) => patchAt(v, ...centreOf(v, p)))", view) == list(range(720))
    assert run("(v) => centreOf(v, 31)", view) == [2 + 1.5 * 4, -1 + 1.5 * 4]
    assert run("(v) => [patchAt(v, -50, -50), patchAt(v, 999, 999)]", view) == [0, 719]


@pytest.mark.parametrize("count", [1, 2, 7, 12, 20, 32])
@pytest.mark.parametrize("box", [(460, 300), (300, 500), (90, 90)])
def test_cells_are_the_largest_that_fit(run, count: int, box: tuple[int, int]) -> None:
    cell = run("(...a) => largestCells(...a)", count, *box, 1.25, 4)
    rows = -(-count // cell["columns"])
    assert cell["columns"] * cell["width"] + 4 * (cell["columns"] - 1) <= box[0]
    assert rows * cell["height"] + 4 * (rows - 1) <= box[1]
    larger = cell["width"] + 2
    for columns in range(1, count + 1):
        rows = -(-count // columns)
        fits = columns * larger + 4 * (columns - 1) <= box[0] and rows * larger / 1.25 + 4 * (rows - 1) <= box[1]
        assert not fits


def test_lengths_and_fractions_have_units(run) -> None:
    assert run("() => [0.004, 0.126, 0.994, 0.996, 2.34].map((x) => lengthText(x, 'm'))") == [
        "0 cm",
        "13 cm",
        "99 cm",
        "1.0 m",
        "2.3 m",
    ]
    assert run("() => lengthText(0.1234, 'units')") == "0.12 units"
    assert run("() => [1, 0.9998, 0.73, 0.042].map(percentText)") == ["100 %", "99.98 %", "73.0 %", "4.20 %"]


def test_state_of_a_link(run) -> None:
    assert run("(f) => stateOf(f)", "#view=3&patch=512&mode=pca") == {"view": 3, "patch": 512, "mode": "pca"}
    assert run("(f) => stateOf(f)", "#view=x&patch=&rho=0.4&left=a%20b%26c") == {"rho": 0.4, "left": "a b&c"}
    state = {"view": 3, "patch": 12, "left": "a b&c=d#"}
    assert run("(s) => stateOf(fragmentOf(s))", state) == state


def test_orbit_projects_as_a_pinhole_camera(run) -> None:
    """The matrix of an orbit around (1, 2, 0.5), with z up, against a look-at camera."""
    script = """(points) => {
        const orbit = new Orbit([0, 0, 1], [1, 2, 0.5], 4);
        orbit.turn(0.7, -0.2);
        const m = orbit.toClip(1.5);
        const row = (i, [x, y, z]) => m[i] * x + m[4 + i] * y + m[8 + i] * z + m[12 + i];
        const clip = points.map((p) => [0, 1, 2, 3].map((i) => row(i, p)));
        return {eye: orbit.eye, target: orbit.target, clip};
    }"""
    points = np.random.default_rng(0).normal(size=(20, 3))
    found = run(script, points.tolist())
    eye, target = np.array(found["eye"]), np.array(found["target"])
    assert np.linalg.norm(eye - target) == pytest.approx(4)
    assert eye[2] > target[2]
    back = (eye - target) / 4
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right)
    camera = (points - eye) @ np.stack([right, np.cross(back, right), back]).T
    focal = 1 / np.tan(0.45)
    clip = np.array(found["clip"])
    assert_allclose(clip[:, 3], -camera[:, 2], rtol=1e-5)
    assert_allclose(clip[:, 0] / clip[:, 3], focal / 1.5 * camera[:, 0] / -camera[:, 2], rtol=1e-4, atol=1e-5)
    assert_allclose(clip[:, 1] / clip[:, 3], focal * camera[:, 1] / -camera[:, 2], rtol=1e-4, atol=1e-5)


def test_base64_and_channels(run) -> None:
    assert run("() => [...decodeBase64('AAECAwT/')]") == [0, 1, 2, 3, 4, 255]
    assert run("() => [...patchByPatch(Int8Array.from([1, 2, 3, -4, -5, -6]), 2)]") == [1, -4, 2, -5, 3, -6]
