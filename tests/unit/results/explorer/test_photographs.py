"""Pages of photographs without poses."""

from __future__ import annotations

import numpy as np

from loco.models import build_extractor
from loco.results.explorer.compression import similarities
from loco.results.explorer.photographs import photographs_content

RNG = np.random.default_rng(0)
PHOTOGRAPHS = {
    "a.jpg": RNG.integers(0, 256, (60, 90, 3), np.uint8),
    "b.jpg": RNG.integers(0, 256, (64, 48, 3), np.uint8),
}


def test_every_photograph_has_patches_of_its_own_size() -> None:
    models = {"small": build_extractor({"name": "compact_cnn", "dim": 16}, 0)}
    content = photographs_content("photographs", PHOTOGRAPHS, models, available=5)
    assert [view.grid for view in content.views] == [(15, 23), (16, 12)]
    assert content.views[0].area == (0, 0, 92, 60)  # patches of 4 x 4 pixels, the last column beyond the image
    assert content.geometry is None
    assert content.landmarks is None
    assert content.available == 5
    direct = models["small"].extract(PHOTOGRAPHS["b.jpg"])[0].reshape(16, -1).numpy()
    found = similarities(content.extractors[0].codes, np.array([15 * 23]))[0, 15 * 23 :]
    assert np.abs(found - direct[:, 0] @ direct).max() <= content.extractors[0].fidelity.rounding + 1e-5


def test_large_photographs_have_larger_patches() -> None:
    models = {"small": build_extractor({"name": "compact_cnn", "dim": 16}, 0)}
    large = {"large.jpg": RNG.integers(0, 256, (300, 400, 3), np.uint8)}
    (view,) = photographs_content("photographs", large, models, 1).views
    assert view.grid == (25, 34)
    assert view.centre(0) == (6, 6)
