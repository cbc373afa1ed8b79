"""Paths of the files between the steps: patterns relative to the working directory, with the wildcards of the rules."""

from __future__ import annotations

import re
from functools import cache

RAW = "results/raw/{dataset}/{scene}"
MANIFEST = "results/manifests/{dataset}/{scene}.json"
LABEL_MANIFEST = "results/label_manifests/{dataset}/{scene}.json"
MESH = "results/meshes/{dataset}/{scene}.ply"
FRAMES = "results/frames/{dataset}/{scene}.h5"
CORRESPONDENCES = "results/correspondences/{dataset}/stride{stride}/{scene}.h5"
PAIRS = "results/pairs/{dataset}/stride{stride}/radius{radius}/{scene}.h5"
LABELS = "results/labels/{dataset}/{scene}.h5"
ENCODED = "results/encoded/{encoder}/{dataset}/{scene}.h5"
MODEL = "results/train/{split}/{experiment}/{run}/model.safetensors"
CURVE = "results/train/{split}/{experiment}/{run}/log.csv"
FEATURES = "results/features/{experiment}/{checkpoint}/{dataset}/{scene}.h5"
ITEMS = "results/items/{benchmark}/{experiment}/{checkpoint}/{dataset}/{scene}.json"
METRICS = "results/metrics/{benchmark}/{split}/{experiment}/{checkpoint}.json"
PATTERNS = (
    *(RAW, MANIFEST, LABEL_MANIFEST, MESH, FRAMES, CORRESPONDENCES, PAIRS, LABELS, ENCODED),
    *(MODEL, CURVE, FEATURES, ITEMS, METRICS),
)


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", pattern)
    named = (f"(?P<{part}>[^/]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts))
    return re.compile("".join(named))


def fields_of(pattern: str, path: str) -> dict[str, str] | None:
    """Return the wildcards of a path that matches a pattern of this module; None for other paths."""
    match = _expression(pattern).fullmatch(path)
    return match.groupdict() if match else None
