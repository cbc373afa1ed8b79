"""The page in a real browser, opened from the disk: what it shows is what NumPy computes."""

from __future__ import annotations

import json
import re

import matplotlib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from loco.evaluation.landmark_retrieval import average_precision
from loco.geometry.cameras import project
from loco.geometry.patches import patch_centres
from loco.models import build_extractor
from loco.results.explorer.compression import similarities
from loco.results.explorer.content import RHO
from loco.results.explorer.page import write_page
from loco.results.explorer.photographs import photographs_content
from tests.browser import Page
from tests.unit.results.explorer.conftest import SCREENSHOTS, TITLES, show

STATE = "{view: explorer.view, patch: explorer.patchInView, ...explorer.state}"


def state(page: Page) -> dict:
    return page.run(f"({STATE})")


def place_in(page: Page, selector: str, u: float, v: float) -> tuple[float, float]:
    """The place in the window of a point of an element, given by fractions of its size."""
    box = page.box(selector)
    return box["x"] + u * box["width"], box["y"] + v * box["height"]


def view_selector(column: int, view: int) -> str:
    return f".column:nth-child({column + 1}) .view:nth-child({view + 1})"


def set_value(page: Page, selector: str, value: object, event: str = "change") -> None:
    """Give the first element of a selector a value, as a user does."""
    page.run(f"""(() => {{
        const element = document.querySelector({json.dumps(selector)});
        element.value = {json.dumps(value)};
        element.dispatchEvent(new Event({json.dumps(event)}));
    }})()""")


def click_patch(page: Page, view: int, patch: int, column: int = 0) -> None:
    """Click the centre of a patch (of a grid of 24 x 30) in a view."""
    row, col = divmod(patch, 30)
    page.click(*place_in(page, view_selector(column, view), (col + 0.5) / 30, (row + 0.5) / 24))


def test_it_opens_from_disk_without_errors_or_requests(page, page_file, content) -> None:
    page.listen(0.3)
    page.screenshot(SCREENSHOTS / "room.png")
    assert page.problems == []
    assert page.requests == [page_file.as_uri()]
    assert page.run("document.title") == "rooms / room: feature explorer"
    view, patch = content.start
    assert (state(page)["view"], state(page)["patch"]) == (view, patch + 720 * view)
    assert page.run("document.querySelector('#shown').textContent").startswith("8 of 12 views")
    assert page.run("[...document.querySelectorAll('.column')].length") == 2
    assert page.run("[...document.querySelectorAll('.extractor')].map((e) => e.selectedOptions[0].text)") == list(
        TITLES.values()
    )


def test_it_opens_where_the_extractors_differ(page, content) -> None:
    landmarks = content.landmarks
    found, seen = landmarks.found[:, landmarks.start], landmarks.seen[landmarks.start]
    summaries = page.run("[...document.querySelectorAll('.summary')].map((e) => e.textContent)")
    for column, summary in enumerate(summaries):
        assert f"{found[column]} of {seen} views" in summary
        assert f"average precision {landmarks.precision[column, landmarks.start]:.2f}" in summary
        assert f"mean {landmarks.precision[column].mean():.2f}" in summary


@pytest.mark.parametrize(("view", "patch", "column"), [(3, 377, 0), (6, 100, 1)])
def test_a_click_shows_the_similarities_of_numpy(page, content, opened, view, patch, column) -> None:
    click_patch(page, view, patch, column)
    query = 720 * view + patch
    assert state(page)["patch"] == query
    for k, (extractor, features) in enumerate(zip(content.extractors, opened[2].values())):
        shown = np.array(page.run(f"[...explorer.columns[{k}].similarities]"))
        assert_array_equal(shown, similarities(extractor.codes, np.array([query]))[0])
        if k == 0:  # its maps have the patches of the page, so the features need no interpolation
            full = np.concatenate([features["features"][v.index].reshape(720, -1) for v in content.views]).astype(float)
            full /= np.linalg.norm(full, axis=1, keepdims=True)
            assert np.abs(shown - full @ full[query]).max() <= extractor.fidelity.rounding + 1e-3  # half precision
            assert extractor.fidelity.rounding < 0.05


def test_maps_have_the_colours_of_the_similarities(page, content) -> None:
    click_patch(page, 2, 400)
    steps = np.round(255 * matplotlib.colormaps["viridis"](np.linspace(0, 1, 256))[:, :3])
    for k, extractor in enumerate(content.extractors):
        similarity = similarities(extractor.codes, np.array([720 * 2 + 400]))[0]
        low, high = page.run(f"[explorer.columns[{k}].low, explorer.columns[{k}].high]")
        assert_allclose([low, high], np.quantile(similarity, [0.02, 0.999]), atol=2 * np.ptp(similarity) / 1000)
        for view in (0, 5):
            script = f"[...explorer.columns[{k}].views[{view}].map.getContext('2d').getImageData(0, 0, 30, 24).data]"
            pixels = np.array(page.run(script)).reshape(720, 4)
            own = similarity[720 * view : 720 * (view + 1)]
            expected = steps[np.floor(np.clip((own - low) / (high - low), 0, 1) * 255 + 0.5).astype(int)]
            assert np.abs(pixels[:, :3] - expected).max() <= 3  # a step of the map, where rounding decides
            assert (pixels[:, 3] == 255).all()
    ends = page.run("['.low', '.high'].map((s) => Number(document.querySelectorAll(s)[1].textContent))")
    assert ends == pytest.approx([low, high], abs=0.006)


def test_points_have_the_colours_of_the_maps(page) -> None:
    """Of a cloud that is seen from one side, every drawn colour is the colour of a patch, or of a marker's edge."""
    page.run("document.querySelector('#walls').click()")
    script = """(() => {
        const {cloud, colours} = explorer.columns[0];
        cloud.setMarkers([]);
        cloud.draw();
        const {gl, canvas} = cloud;
        const pixels = new Uint8Array(4 * canvas.width * canvas.height);
        gl.readPixels(0, 0, canvas.width, canvas.height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
        return {drawn: [...new Set(new Uint32Array(pixels.buffer))], patches: [...new Set(colours)]};
    })()"""
    found = page.run(script)
    background = int.from_bytes([10, 13, 17, 255], "little")
    assert background in found["drawn"]
    drawn = set(found["drawn"]) - {background}
    assert len(drawn) > 100
    assert drawn <= set(found["patches"])


def test_errors_and_places_are_those_of_geometry(page, content) -> None:
    geometry, view_of = content.geometry, content.view_of_patch
    query = int(content.landmarks.patch[content.landmarks.start])
    point = geometry.points[query].astype(float)
    for k, extractor in enumerate(content.extractors):
        similarity = similarities(extractor.codes, np.array([query]))[0]
        keys = "{matches, errors, scored, precision}"
        column = page.run(f"(({keys}) => ({keys}))(explorer.columns[{k}])")
        for v in range(len(content.views)):
            patches = np.flatnonzero((view_of == v) & geometry.valid)
            match = patches[similarity[patches].argmax()]
            assert column["matches"][v] == match
            error = np.linalg.norm(geometry.points[match].astype(float) - point)
            assert column["errors"][v] == pytest.approx(error, abs=1e-9)
            assert column["scored"][v] == (geometry.visible[query, v] and v != view_of[query])
            label = page.run(f"explorer.columns[{k}].views[{v}].button.ariaLabel")
            if column["scored"][v]:
                text = f"{100 * error:.0f} cm" if error < 0.995 else f"{error:.1f} m"
                assert label.endswith(f"{'correct' if error < RHO else 'wrong'}, error {text}")
        distance = np.linalg.norm(geometry.points.astype(float) - point, axis=1)
        ranked = geometry.valid & (view_of != view_of[query])
        assert column["precision"] == pytest.approx(average_precision(similarity[ranked], distance[ranked] < RHO))
    places = page.run("explorer.truth.places")
    for v in np.flatnonzero(geometry.visible[query]):
        uv, _ = project(point, geometry.intrinsics[v], geometry.poses[v])
        assert places[v][:2] == pytest.approx(uv, abs=1e-9)


def test_marks_are_drawn_at_the_true_place_and_the_match(page, content) -> None:
    """Pixels that a view gains by its marks are around these places."""
    view = page.run("explorer.columns[0].scored.indexOf(true)")
    script = f"""(() => {{
        const column = explorer.columns[0];
        const {{canvas}} = column.views[{view}];
        const read = () => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data];
        const marked = read();
        drawView(canvas, explorer.views[{view}], column.views[{view}].map, OPACITY);
        const [match, place] = [column.matches[{view}], explorer.truth.places[{view}]];
        return {{marked, plain: read(), size: [canvas.height, canvas.width], match, place}};
    }})()"""
    found = page.run(script)
    height, width = found["size"]
    marked, plain = (np.reshape(found[name], (height, width, 4)) for name in ("marked", "plain"))
    changed = (marked != plain).any(axis=-1)
    row, column = np.nonzero(changed)
    centres = patch_centres((24, 30), (96, 120)).reshape(-1, 2)
    for place in (found["place"][:2], centres[found["match"] % 720]):
        x, y = np.array(place) * width / 120
        assert np.hypot(column + 0.5 - x, row + 0.5 - y).min() < 6
    near = np.hypot(column + 0.5 - found["place"][0] * width / 120, row + 0.5 - found["place"][1] * width / 120) < 20
    words = (row < 0.3 * height) | (row > 0.7 * height)  # the number above, the error below
    assert (near | words).all()


def test_the_radius_decides_what_is_correct(page) -> None:
    errors = page.run("explorer.columns[1].errors.filter((e, k) => explorer.columns[1].scored[k])")
    for index, rho in enumerate(page.run("RADII")):
        set_value(page, "#radius", index, "input")
        summary = page.run("document.querySelectorAll('.summary')[1].textContent")
        assert f"{sum(error < rho for error in errors)} of {len(errors)} views" in summary
    assert page.run("document.querySelector('#radius-value').textContent") == "1.2 m"


def test_modes_and_colour_maps(page, content) -> None:
    page.run("document.querySelector('input[value=pca]').click()")
    colours = np.array(page.run("[...explorer.columns[1].colours]"), np.uint32).view(np.uint8).reshape(-1, 4)
    assert_array_equal(colours[:, :3], content.extractors[1].colours)
    page.run("document.querySelector('input[value=photograph]').click()")
    colours = np.array(page.run("[...explorer.columns[0].colours]"), np.uint32).view(np.uint8).reshape(-1, 4)
    centre = np.array([content.views[4].rgb[4 * r + 2, 4 * c + 2] for r in range(24) for c in range(30)])
    assert np.abs(colours[4 * 720 : 5 * 720, :3].astype(int) - centre).mean() < 8  # JPEG
    page.run("document.querySelector('input[value=similarity]').click()")
    before = page.run("explorer.columns[0].colours[5]")
    page.press("m")
    assert state(page)["map"] == "cividis"
    assert page.run("explorer.columns[0].colours[5]") != before


def test_keyboard(page, content) -> None:
    start = state(page)
    row, column = divmod(start["patch"] - 720 * start["view"], 30)
    page.press("ArrowDown" if row < 12 else "ArrowUp")
    page.press("ArrowRight" if column < 15 else "ArrowLeft")
    moved = state(page)["patch"] - start["patch"]
    assert moved == (30 if row < 12 else -30) + (1 if column < 15 else -1)
    page.press("Home")
    assert state(page)["patch"] == start["patch"]
    page.press("PageDown")
    assert state(page)["view"] == (start["view"] + 1) % 8
    page.press("PageUp")
    assert state(page)["view"] == start["view"]
    page.press("Home")
    captions = {"pca": "in the colours of their features", "photograph": "as photographed", "similarity": "similarity"}
    for key, mode in (("f", "pca"), ("p", "photograph"), ("s", "similarity")):
        page.press(key)
        assert state(page)["mode"] == mode
        assert captions[mode] in page.run("document.querySelector('.views-say').textContent")
        assert page.run("document.querySelector('.scale').textContent.includes('cosine')") == (mode == "similarity")
    page.press("x")
    assert state(page)["slots"] == [1, 0]
    page.press("?")
    assert page.run("document.querySelector('#about').open")
    page.press("Home")  # keys belong to the dialog now
    assert page.run("document.querySelector('#about').scrollTop >= 0 && document.querySelector('#about').open")


def test_harder_and_easier_follow_the_average_precision(page, content) -> None:
    landmarks = content.landmarks
    order = np.lexsort((np.arange(len(landmarks.patch)), landmarks.precision[0]))
    rank = int(np.flatnonzero(order == landmarks.start)[0])
    page.press("h")
    assert state(page)["patch"] == landmarks.patch[order[rank - 1]]
    page.press("e")
    assert state(page)["patch"] == landmarks.patch[landmarks.start]
    other = next(p for p in landmarks.patch[:-1] + 1 if p not in landmarks.patch and content.geometry.valid[p])
    page.run(f"explorer.change({{patch: {other}}})")
    level = page.run("explorer.columns[0].precision")
    page.run("document.querySelector('#easier').click()")
    assert page.run("explorer.columns[0].precision") == pytest.approx(
        landmarks.precision[0][landmarks.precision[0] > level].min()
    )


def test_enter_on_a_view_follows_the_place(page, content) -> None:
    view = page.run("explorer.columns[0].scored.indexOf(true)")
    place = page.run(f"explorer.truth.places[{view}]")
    page.run(f"explorer.columns[0].views[{view}].button.focus()")
    page.press("Enter")
    assert state(page)["view"] == view
    centre = content.views[view].centre(state(page)["patch"] - 720 * view)
    assert np.abs(np.array(centre) - place[:2]).max() <= 2  # within the patch of 4 pixels


def test_a_link_opens_its_state_and_the_address_follows(browser, page_file) -> None:
    page = show(browser, page_file, "#view=3&patch=512&left=colour&right=none&mode=pca&map=magma&rho=0.4")
    found = state(page)
    assert (found["view"], found["patch"]) == (3, 3 * 720 + 512)
    assert found["slots"] == [1]
    assert (found["mode"], found["map"], found["rho"]) == ("pca", "magma", 0.4)
    page.screenshot(SCREENSHOTS / "one_extractor.png")
    click_patch(page, 5, 77)
    address = page.run("location.hash")
    assert "view=5&patch=77" in address
    again = show(browser, page_file, address)
    assert state(again) == {**found, "view": 5, "patch": 5 * 720 + 77}
    page.run("location.hash = '#view=1&patch=2'")
    page.wait("explorer.view === 1")
    assert state(page)["patch"] == 722


@pytest.mark.parametrize(
    "fragment", ["#view=99&patch=5", "#view=-1", "#patch=1e99", "#mode=x&map=y&left=z&rho=-1", "#%"]
)
def test_a_link_that_fits_no_page_is_ignored(browser, page_file, content, fragment: str) -> None:
    page = show(browser, page_file, fragment)
    view, patch = content.start
    assert state(page)["patch"] == 720 * view + patch
    assert state(page)["mode"] == "similarity"
    assert page.problems == []


@pytest.mark.parametrize(
    ("fragment", "notice"),
    [
        ("#view=99&patch=5", "The link names view 99; the views are 0 to 7."),
        ("#patch=7", "The link names a patch, but no view."),
        ("#view=3&patch=720", "The link names patch 720; the patches of view 3 are 0 to 719. View 3, patch 719"),
        ("#view=3&patch=-1", "The link names patch -1; the patches of view 3 are 0 to 719. View 3, patch 0"),
        ("#view=3&patch=719", "View 3, patch 719"),
        ("#mode=pca", "View "),
    ],
)
def test_a_link_out_of_range_is_reported_until_the_next_change(browser, page_file, fragment: str, notice: str) -> None:
    page = show(browser, page_file, fragment)
    place = "document.querySelector('#place').textContent"
    assert page.run(place).startswith(notice)
    click_patch(page, 5, 77)
    assert page.run(place).startswith("View 5, patch 77 ")


def test_extractors_are_chosen_for_each_column(page) -> None:
    set_value(page, ".column:first-child .extractor", 1)
    assert state(page)["slots"] == [1, 1]
    set_value(page, ".column:last-child .extractor", "none")
    assert state(page)["slots"] == [1]
    assert page.run("document.querySelectorAll('.column').length") == 1
    set_value(page, ".extractor", "two")
    assert state(page)["slots"] == [1, 0]
    first, second = (np.array(page.run(f"[...explorer.columns[{k}].similarities]")) for k in (0, 1))
    assert np.abs(first - second).max() > 0.1


def test_a_click_in_3d_selects_the_patch_there(page, content) -> None:
    geometry = content.geometry
    canvas = page.run("(({width, height}) => [width, height])(explorer.columns[0].cloud.canvas)")
    clip = np.array(page.run(f"[...explorer.orbit.toClip({canvas[0] / canvas[1]})]")).reshape(4, 4).T
    eye = np.array(page.run("explorer.orbit.eye"))
    homogeneous = np.c_[geometry.points, np.ones(len(geometry.points))] @ clip.T
    x, y = ((homogeneous[:, :2] / homogeneous[:, 3:]) * [0.5, -0.5] + 0.5).T
    seen_from = geometry.poses[content.view_of_patch, :3, 3]
    facing = ((eye - geometry.points) * (seen_from - geometry.points)).sum(axis=1) > 0
    inside = geometry.valid & facing & (np.abs(x - 0.5) < 0.4) & (np.abs(y - 0.5) < 0.4)
    target = np.flatnonzero(inside)[np.argmin(homogeneous[inside, 3])]  # in front of all others
    page.click(*place_in(page, ".cloud", x[target], y[target]))
    picked = state(page)["patch"]
    pixels = np.hypot((x[picked] - x[target]) * canvas[0], (y[picked] - y[target]) * canvas[1])
    assert pixels < 24
    assert homogeneous[picked, 3] == pytest.approx(homogeneous[target, 3])
    page.run("explorer.orbit.zoom(20)")
    page.click(*place_in(page, ".cloud", 0.01, 0.98))  # nothing there
    assert state(page)["patch"] == picked


def test_mouse_orbits_and_the_wheel_zooms(page) -> None:
    before = page.run("[explorer.orbit.yaw, explorer.orbit.pitch, explorer.orbit.distance, explorer.state.patch]")
    page.drag(place_in(page, ".cloud", 0.5, 0.5), place_in(page, ".cloud", 0.7, 0.6))
    x, y = place_in(page, ".cloud", 0.5, 0.5)
    page.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-120)
    page.run("shown()")
    after = page.run("[explorer.orbit.yaw, explorer.orbit.pitch, explorer.orbit.distance, explorer.state.patch]")
    assert after[0] < before[0]
    assert after[1] > before[1]
    assert after[2] < before[2]
    assert after[3] == before[3]  # a drag selects nothing


def test_touch(browser, page_file) -> None:
    browser.resize(844, 390, ratio=2, mobile=True)
    browser.goto(page_file.as_uri())
    browser.wait("window.explorer")
    browser.run("shown()")
    browser.screenshot(SCREENSHOTS / "phone.png")
    browser.tap(*place_in(browser, view_selector(0, 2), 0.5, 0.5))
    browser.wait("explorer.view === 2")
    browser.run("document.querySelector('.cloud').scrollIntoView({block: 'center'})")
    browser.run("shown()")
    (x, y), before = place_in(browser, ".cloud", 0.4, 0.5), browser.run("[explorer.orbit.yaw, explorer.orbit.distance]")

    def touch(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": px, "y": py, "id": k} for k, (px, py) in enumerate(points)]
        browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)

    touch("touchStart", (x, y))
    for k in range(1, 6):
        touch("touchMove", (x + 8 * k, y))
    touch("touchEnd")
    turned = browser.run("[explorer.orbit.yaw, explorer.orbit.distance]")
    assert turned[0] < before[0]
    assert turned[1] == before[1]
    touch("touchStart", (x, y), (x + 40, y))
    for k in range(1, 6):
        touch("touchMove", (x - 5 * k, y), (x + 40 + 5 * k, y))
    touch("touchEnd")
    assert browser.run("explorer.orbit.distance") < 0.8 * turned[1]
    wide = browser.run("document.documentElement.scrollWidth")
    assert wide <= 844  # nothing to the right of the window
    assert browser.problems == []


@pytest.mark.parametrize("fragment", ["", "#right=none"])
def test_everything_is_in_a_window_of_1280_by_720(browser, page_file, fragment: str) -> None:
    page = show(browser, page_file, fragment)
    assert page.run("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [1280, 720]
    panels = "header, header *, .column, .column > *, .view, .cloud, #query, #query canvas, #query button, #query label"
    script = """(panels) => [...document.querySelectorAll(panels)]
        .map((e) => [e.className || e.id || e.tagName, e.getBoundingClientRect().toJSON()])"""
    boxes = page.run(f"({script})({json.dumps(panels + ', #legend li:not([hidden])')})")
    assert len(boxes) > 30
    for name, box in boxes:
        assert box["left"] >= 0, name
        assert box["top"] >= 0, name
        assert box["right"] <= 1280, name
        assert box["bottom"] <= 720, name
        assert box["width"] > 0, name
    assert page.run("document.querySelector('#query').scrollHeight <= document.querySelector('#query').clientHeight")
    for view in page.run("[...document.querySelectorAll('.view')].map((e) => e.getBoundingClientRect().width)"):
        assert view > 70
    texts = "[...document.querySelectorAll('.summary, .says, .fidelity')]"
    lines = page.run(f"{texts}.map((e) => [e.textContent, e.getClientRects()[0].height])")
    for text, height in lines:
        assert height < 26, text  # one line
    texts = "[...document.querySelectorAll('body *')].filter((e) => e.innerText)"
    sizes = page.run(f"{texts}.map((e) => parseFloat(getComputedStyle(e).fontSize))")
    assert min(sizes) >= 12


def _luminance(colour: str) -> float:
    values = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_the_contrast_of_wcag_aa(page) -> None:
    script = """[...document.querySelectorAll('main *, header *')]
        .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) && e.offsetParent)
        .map((e) => {
            let ground = e;
            while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
            return [e.textContent.trim(), getComputedStyle(e).color, getComputedStyle(ground).backgroundColor];
        })"""
    texts = page.run(script)
    assert len(texts) > 20
    for text, colour, ground in texts:
        light, dark = sorted((_luminance(colour), _luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, colour, ground)


def test_controls_have_names_and_a_focus_order(page) -> None:
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    kinds = {"button", "combobox", "radio", "slider", "checkbox", "application"}
    controls = [n for n in nodes if n.get("role", {}).get("value") in kinds and not n["ignored"]]
    assert len(controls) > 20
    assert [n["role"]["value"] for n in controls if not n.get("name", {}).get("value")] == []
    order = []
    page.run("document.body.focus()")
    for _ in range(40):
        page.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        page.call("Input.dispatchKeyEvent", type="keyUp", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        order.append(page.run("(({id, className, name}) => id || className || name)(document.activeElement)"))
    names = [name for name in dict.fromkeys(order) if name != "view own"]
    assert names[:8] == ["open-about", "photograph", "harder", "easier", "start", "mode", "colour-map", "radius"]
    assert names[8:12] == ["walls", "extractor", "view", "cloud"]


@pytest.mark.parametrize("left", [0.2, 0.6, 0.97])
def test_a_truncated_file_shows_a_message(browser, page_file, tmp_path, left: float) -> None:
    html = page_file.read_text()
    start = html.index('id="header">')
    damaged = tmp_path / "damaged.html"
    damaged.write_text(html[: int(start + left * (len(html) - start))])
    page = show(browser, damaged)
    assert "incomplete or damaged" in page.run("document.querySelector('#problem').textContent")
    assert "loco explore" in page.run("document.querySelector('#problem').textContent")
    assert page.run("document.querySelector('main').hidden")
    assert page.problems == []
    page.screenshot(SCREENSHOTS / "truncated.png")


def test_a_changed_byte_shows_a_message(browser, page_file, tmp_path) -> None:
    html = page_file.read_text()
    at = (html.index('id="payload">') + len(html)) // 2
    damaged = tmp_path / "damaged.html"
    damaged.write_text(html[:at] + ("A" if html[at] != "A" else "B") + html[at + 1 :])
    page = show(browser, damaged)
    assert "incomplete or damaged" in page.run("document.querySelector('#problem').textContent")


def test_without_webgl_the_views_are_shown(browser, page_file) -> None:
    source = """{
        const original = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
            return kind === 'webgl2' ? null : original.call(this, kind, ...rest);
        };
    }"""
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=source)
    try:
        page = show(browser, page_file)
        assert "no WebGL2" in page.run("document.querySelector('.scene').textContent")
        click_patch(page, 1, 50)
        assert state(page)["patch"] == 770
        assert page.problems == []
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])


def test_photographs_have_similarities_alone(browser, tmp_path) -> None:
    rng = np.random.default_rng(0)
    photographs = {
        "a.jpg": rng.integers(0, 256, (60, 90, 3), np.uint8),
        "b.jpg": rng.integers(0, 256, (64, 48, 3), np.uint8),
    }
    models = {
        name: build_extractor({"name": "compact_cnn", "dim": 16}, seed) for seed, name in enumerate(("one", "two"))
    }
    content = photographs_content("photographs", photographs, models, available=2)
    write_page(content, tmp_path / "photographs.html")
    page = show(browser, tmp_path / "photographs.html", "#view=1&patch=7")
    page.screenshot(SCREENSHOTS / "photographs.png")
    assert page.problems == []
    for k, extractor in enumerate(content.extractors):
        shown = np.array(page.run(f"[...explorer.columns[{k}].similarities]"))
        assert_array_equal(shown, similarities(extractor.codes, np.array([15 * 23 + 7]))[0])
        label = page.run(f"explorer.columns[{k}].views[0].button.ariaLabel")
        assert label == f"View 0, a.jpg: best match with similarity {shown[: 15 * 23].max():.2f}"
    assert page.run("[...document.querySelectorAll('.scene, #steps, #radius-control')].every((e) => e.hidden)")
    assert page.run("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [1280, 720]


def test_the_page_measures_its_clicks(page) -> None:
    times = page.run("explorer.measure(3)")
    assert len(times) == 3
    assert min(times) > 0
    assert json.loads(json.dumps(state(page)))["patch"] == int(2.5 * 5760 / 3)
