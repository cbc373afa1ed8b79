"""Keys and values of the configuration that have been renamed; the old names are accepted for one version."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

# Path of a key -> its new name. `*` stands for one name, or for the number of an entry of a list.
KEYS = {
    "benchmarks.landmark_retrieval.chosen": "selected_fraction",
    "benchmarks.location_consistency.samples_of_own_image": "samples_of_query_image",
    "benchmarks.panoptic_segmentation.train_share": "train_fraction",
    "benchmarks.semantic_segmentation.train_share": "train_fraction",
    "experiments.*.model.most": "max_keypoints",
    "experiments.*.train.loss.own_term": "self_term",
    "experiments.*.train.phases.*.loss.own_term": "self_term",
    "ablations.*.variants.*.model.most": "max_keypoints",
    "ablations.*.variants.*.train.loss.own_term": "self_term",
    "ablations.*.variants.*.train.phases.*.loss.own_term": "self_term",
}
# Path of a key -> old value -> new value.
VALUES = {"benchmarks.pixel_correspondence.interpolate": {"unit": "normalised"}}


def replace_deprecated(config: dict[str, Any]) -> None:
    """Replace deprecated keys and values of a configuration in place, with a warning that states the new name.

    If both names of a key are set, the value of the old name is used: the new name may be inherited from a shipped
    file, but the old name can only be set by the user.

    Args:
        config: plain dicts and lists; may violate the schema.

    Warns:
        FutureWarning: for every deprecated key and value.
    """
    for path, parent, key in list(_keys(config)):
        value = parent[key]
        for pattern, new in KEYS.items():
            if _matches(path, pattern):
                _warn(f"the key `{'.'.join(path)}` is deprecated: rename it to `{new}`")
                parent[new] = parent.pop(key)
        for pattern, replaced in VALUES.items():
            if _matches(path, pattern) and isinstance(value, str) and value in replaced:
                _warn(f"the value `{value}` of `{'.'.join(path)}` is deprecated: write `{replaced[value]}`")
                parent[key] = replaced[value]


def _warn(message: str) -> None:
    warnings.warn(f"{message}; the next version of loco refuses it", FutureWarning, stacklevel=4)


def _keys(tree: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any], str]]:
    """Yield (path, parent, key) of all keys of nested dicts and lists."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield (*above, key), tree, key
            yield from _keys(value, (*above, key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from _keys(value, (*above, str(number)))


def _matches(path: tuple[str, ...], pattern: str) -> bool:
    parts = pattern.split(".")
    return len(path) == len(parts) and all(map(fnmatchcase, path, parts))
