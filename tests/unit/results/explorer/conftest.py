"""A page of the room of ``tests/unit/results/conftest.py``, and a browser that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from loco.results.explorer.content import Content
from loco.results.explorer.page import write_page
from loco.results.explorer.scene import scene_content
from loco.storage import Correspondences, Features, Frames
from tests.browser import Page, browser_path

TITLES = {"place": "by place", "colour": "by <colour> & more"}
SCREENSHOTS = Path(__file__).parents[4] / "build" / "screenshots"  # of the tests, to look at


@pytest.fixture(scope="session")
def opened(scene) -> Iterator[tuple[Frames, Correspondences, dict[str, Features]]]:
    """The files of the room: features that depend on the place alone, and features that are the colours."""
    with ExitStack() as files:
        frames = files.enter_context(Frames(scene.frames))
        correspondences = files.enter_context(Correspondences(scene.correspondences))
        features = {name: files.enter_context(Features(path)) for name, path in scene.features.items()}
        yield frames, correspondences, features


@pytest.fixture(scope="session")
def content(opened) -> Content:
    """The content of a page with eight of the twelve views."""
    return scene_content(*opened, TITLES, count=8)


@pytest.fixture(scope="session")
def page_file(content, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("page") / "room with spaces.html"
    write_page(content, out)
    return out


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Page]:
    """A headless browser, 1280 x 720."""
    if browser_path() is None:
        pytest.skip("no Chromium or Chrome is installed (`make test` installs it where apt can)")
    with Page.open(tmp_path_factory.mktemp("browser")) as page:
        page.resize(1280, 720)
        yield page


@pytest.fixture
def page(browser, page_file) -> Page:
    """The page of the room, opened anew from the disk."""
    return show(browser, page_file)


def show(browser: Page, file: Path, fragment: str = "") -> Page:
    """Open a page of the explorer at 1280 x 720, and wait until it is ready or reports a problem."""
    browser.resize(1280, 720)
    browser.goto(file.as_uri() + fragment)
    browser.wait("window.explorer || !document.querySelector('#problem').hidden")
    browser.run("shown()")
    return browser
