"""Renamed keys and values of the configuration are accepted with a warning that states the new name."""

from __future__ import annotations

import warnings
from copy import deepcopy
from pathlib import Path

import pytest

from loco.config import load
from loco.config_deprecated import KEYS, VALUES, replace_deprecated
from tests.unit.configurations import demo

ROOT = Path(__file__).parents[2]
DEMO = demo()


def test_an_old_key_is_the_new_key_with_a_warning() -> None:
    config = deepcopy(DEMO)
    probe = config["benchmarks"]["semantic_segmentation"]
    probe["train_share"] = probe.pop("train_fraction")
    with pytest.warns(FutureWarning, match=r"`benchmarks.semantic_segmentation.train_share`.*`train_fraction`"):
        assert load(config, ROOT) == load(DEMO, ROOT)


def test_an_old_key_replaces_the_new_key_of_a_shipped_file() -> None:
    """Return the demo, merged with a user's file that has the old name."""
    config = deepcopy(DEMO)
    config["benchmarks"]["landmark_retrieval"]["chosen"] = 0.5
    with pytest.warns(FutureWarning, match="selected_fraction"):
        loaded = load(config, ROOT)
    assert loaded["benchmarks"]["landmark_retrieval"]["selected_fraction"] == 0.5
    assert "chosen" not in loaded["benchmarks"]["landmark_retrieval"]


def test_keys_are_found_in_lists_and_below_any_name() -> None:
    loss = {"name": "dense", "own_term": True}
    config = {
        "experiments": {"a": {"train": {"phases": [{"loss": dict(loss)}, {"loss": dict(loss)}]}}},
        "ablations": {"b": {"variants": [{"name": "c", "train": {"loss": dict(loss)}}]}},
        "own_term": "no key of a loss",
    }
    with pytest.warns(FutureWarning) as caught:
        replace_deprecated(config)
    new = {"name": "dense", "self_term": True}
    assert config == {
        "experiments": {"a": {"train": {"phases": [{"loss": new}, {"loss": new}]}}},
        "ablations": {"b": {"variants": [{"name": "c", "train": {"loss": new}}]}},
        "own_term": "no key of a loss",
    }
    assert len(caught) == 3
    assert "`experiments.a.train.phases.1.loss.own_term`" in str(caught[1].message)


def test_an_old_value_is_replaced() -> None:
    config = {"benchmarks": {"pixel_correspondence": {"interpolate": "unit"}}}
    with pytest.warns(FutureWarning, match=r"value `unit`.*`normalised`"):
        replace_deprecated(config)
    assert config == {"benchmarks": {"pixel_correspondence": {"interpolate": "normalised"}}}


def test_current_names_raise_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(DEMO, ROOT)
        replace_deprecated({"benchmarks": [None, 3]})


def test_old_names_are_no_longer_in_the_schema_and_new_names_are() -> None:
    schema = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "config/schemas").glob("*.yaml"))
    for path, new in KEYS.items():
        assert f" {new}: " in schema
        assert f" {path.rpartition('.')[2]}: " not in schema
    for path, values in VALUES.items():
        (line,) = (line for line in schema.splitlines() if f" {path.rpartition('.')[2]}: " in line)
        assert all(new in line for new in values.values())
