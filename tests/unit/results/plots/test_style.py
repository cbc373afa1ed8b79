"""The layout of all figures: style, legends, and files that are complete or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loco.results.plots import style

TITLES = {"place": "place & more", "absent": "not run", "colour": "colour"}


def test_looks_belong_to_the_experiment_whatever_else_is_drawn() -> None:
    looks = [style.colour_and_marker(name, TITLES) for name in TITLES]
    assert len(set(looks)) == len(TITLES)
    assert style.colour_and_marker("colour", dict(reversed(TITLES.items()))) == looks[0]


def test_many_experiments_look_different() -> None:
    titles = {f"e{i}": "" for i in range(40)}
    assert len({style.colour_and_marker(name, titles) for name in titles}) == 40


def test_failed_figure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), style.new_figure(tmp_path / "broken", 2, 2):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_long_titles_are_not_cut_off(tmp_path: Path, count: int) -> None:
    titles = {f"e{i}": f"an experiment with a rather long title, number {i}" for i in range(count)}
    with style.new_figure(tmp_path / "long", style.WIDTH, 2) as figure:
        figure.subplots()
        style.legend(figure, titles, titles)
    drawn = np.asarray(Image.open(tmp_path / "long.png").convert("L"))
    assert (drawn[:, [0, 1, -2, -1]] == 255).all()
    assert (drawn < 128).any()
