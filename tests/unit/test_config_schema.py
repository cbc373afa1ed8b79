"""Numbers of a configuration: whole floats, infinite values, seeds, sizes; and values that YAML does not define."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from loco.config import load
from loco.errors import ConfigError
from loco.losses import build_loss
from tests.unit.configurations import two_phase_demo

ROOT = Path(__file__).parents[2]
DEMO = two_phase_demo()
SCHEMAS = {file.stem: yaml.safe_load(file.read_text()) for file in (ROOT / "config/schemas").glob("*.yaml")}


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the demo with the key ``a.b.0`` set."""
    config = deepcopy(DEMO)
    *parents, key = path.split(".")
    place: Any = config
    for parent in parents:
        place = place[int(parent) if isinstance(place, list) else parent]
    place[int(key) if isinstance(place, list) else key] = value
    return config


def problems(config: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(config, ROOT)
    return [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:]]


def at(config: dict[str, Any], path: str) -> Any:
    place: Any = config
    for key in path.split("."):
        place = place[int(key) if isinstance(place, list) else key]
    return place


RESIDUAL = {"name": "residual_cnn", "widths": [8.0, 16, 8.0]}
INTEGERS = [
    ("run.seeds", [1.0, 2], [1, 2]),
    ("experiments.exact.train.phases.1.steps", 1.0e3, 1000),
    ("experiments.exact.train.batch.images_per_scene", 3.0, 3),  # below if / else
    ("experiments.exact.train.batch.patches_per_image", 320.0, 320),  # an integer or null
    ("experiments.exact.train.phases.0.loss.queries", 1024.0, 1024),  # below allOf, if / then and two references
    ("experiments.dense_sift_fine.model.stride", 4.0, 4),
    ("datasets.houses.simulate.seed", 7.0, 7),
    ("datasets.houses.frames.height", 128.0, 128),
    ("benchmarks.place_recognition.ks", [1.0, 5.0], [1, 5]),
    ("benchmarks.place_recognition.descriptors.0.clusters", 32.0, 32),
    ("benchmarks.place_recognition.queries", 20.0, 20),  # a fraction or an integer
    ("benchmarks.location_consistency.queries_per_scene", 10.0, 10),
]


@pytest.mark.parametrize(("path", "value", "expected"), INTEGERS)
def test_whole_floats_become_integers_where_integers_are_required(path: str, value: Any, expected: Any) -> None:
    found = at(load(changed(path, value), ROOT), path)
    assert json.dumps(found) == json.dumps(expected)  # 3.0 == 3 in Python


@pytest.mark.parametrize(
    ("path", "value"),
    [("experiments.exact.train.loss.kappa", 5.0), ("benchmarks.place_recognition.queries", 0.2)],
)
def test_other_numbers_stay_as_they_are(path: str, value: float) -> None:
    assert isinstance(at(load(changed(path, value), ROOT), path), float)


def test_whole_floats_in_models_and_variants() -> None:
    backbone = {"name": "transformers", "path": "dino_vits8", "layer": 9.0}
    config = changed(
        "experiments.exact.model", {"name": "backbone", "backbone": backbone, "stride": 8.0, "head": RESIDUAL}
    )
    variants = [{"name": "x"}, {"name": "y", "train": {"save_every": 800.0, "loss": {"kappa": 2.0}}}]
    ablation = {"title": "a", "experiment": "exact", "split": "houses", "seeds": [0.0, 1], "variants": variants}
    config["ablations"] = {"a": ablation}
    config = load(config, ROOT)
    model, variant = config["experiments"]["exact"]["model"], config["experiments"]["a.y"]
    assert json.dumps([model["stride"], model["backbone"]["layer"], model["head"]["widths"]]) == "[8, 9, [8, 16, 8]]"
    assert json.dumps([variant["train"]["save_every"], variant["train"]["loss"]["kappa"]]) == "[800, 2.0]"
    assert json.dumps(config["ablations"]["a"]["seeds"]) == "[0, 1]"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("run.seeds", [1, 1.0], "run.seeds: [1, 1] has non-unique elements"),
        ("run.seeds", [True], "run.seeds.0: expected an integer, found True"),
        ("experiments.exact.train.steps", True, "experiments.exact.train.steps: expected an integer, found True"),
        ("experiments.exact.train.loss.tau", True, "train.loss.tau: expected a number or a map, found True"),
        ("benchmarks.place_recognition.queries", True, "expected an integer, found True"),
        (
            "run.seeds",
            ["0"],
            "run.seeds.0: expected an integer, found '0' (YAML reads this as text: write 0, without quotes)",
        ),
        ("experiments.exact.train.steps", "1e3", "found '1e3' (YAML reads this as text: write 1000, without quotes)"),
        ("experiments.exact.train.steps", "many", "expected an integer, found 'many'"),
        ("experiments.exact.train.steps", 2.5, "expected an integer, found 2.5"),
        ("experiments.exact.train.optimiser.lr", "1e-5", "write 1.0e-05, with a point"),  # 1e-05 would be read as text
        (
            "experiments.exact.train.loss.rho",
            "2e-1",
            "a list, found '2e-1' (YAML reads this as text: write 0.2, with a point",
        ),
        ("experiments.exact.train.optimiser.lr", "inf", "found 'inf' (write a finite number)"),
        ("benchmarks.place_recognition.queries", 3.5, "expected an integer, found 3.5"),
        ("figures.scene", "a b", "figures.scene: invalid name 'a b'"),
        ("experiments.exact.title", "", "experiments.exact.title"),
    ],
)
def test_what_is_no_integer(path: str, value: Any, expected: str) -> None:
    assert len([problem for problem in problems(changed(path, value)) if expected in problem]) == 1


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("run.seeds", 2, "run.seeds: expected a list, found 2; write [2], or [0, 1] for 2 seeds"),
        ("run.seeds", 7000, "run.seeds: expected a list, found 7000; write [7000]"),
        ("run.seeds", "a", "run.seeds: expected a list, found 'a'"),
        ("run.experiments", "exact, untrained", "found 'exact, untrained'; write [exact, untrained]"),
        ("benchmarks.place_recognition.ks", 5, "expected a list, found 5; write [5]"),
        ("benchmarks.place_recognition.descriptors", "mean", "descriptors: expected a list, found 'mean'"),
        (
            "run.comparisons",
            ["exact", "untrained"],
            "run.comparisons: expected a list of lists, found [exact, untrained]; write [[exact, untrained]]",
        ),
        ("run.comparisons", [["exact", "untrained"], "exact"], "run.comparisons.1: expected a list, found 'exact'"),
        ("run.comparisons", "exact", "run.comparisons: expected a list, found 'exact'"),
        ("run.comparisons", [["exact", "untrained", "a"]], "run.comparisons.0: expected 2 at most, found 3"),
        ("experiments.exact.train.augment.sizes", [96, 128.0], "sizes.0: expected a list, found 96"),
        (
            "experiments.exact.train.augment.sizes",
            [96, 128],
            "sizes: expected a list of lists, found [96, 128]; write [[96, 128]]",
        ),
    ],
)
def test_what_is_no_list(path: str, value: Any, expected: str) -> None:
    assert [problem.endswith(expected) for problem in problems(changed(path, value))].count(True) == 1


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("experiments.exact.train.steps", 0, "steps: must be at least 1, found 0"),
        ("experiments.exact.train.optimiser.lr", 0, "lr: must be greater than 0, found 0"),
        ("experiments.exact.train.ema", 1, "ema: must be less than 1, found 1"),
        ("benchmarks.relative_pose.min_baseline", -0.1, "min_baseline: must be at least 0, found -0.1"),
        ("benchmarks.pixel_correspondence.min_overlap", 20, "min_overlap: must be at most 1, found 20"),
    ],
)
def test_numbers_out_of_range(path: str, value: float, expected: str) -> None:
    (problem,) = problems(changed(path, value))
    assert problem.endswith(expected)


@pytest.mark.parametrize("hint", [-0.00001, 1e22, 1e-7, 2e-3])
def test_the_number_of_a_hint_is_one_to_yaml(hint: float) -> None:
    problem = problems(changed("experiments.exact.train.optimiser.lr", f"{hint:e}".replace(".", "") + "0"))[0]
    written = problem.partition("write ")[2].partition(",")[0]
    assert isinstance(yaml.safe_load(written), float)


@pytest.mark.parametrize("seed", [2**31 - 1, 0])
def test_seeds_that_every_library_takes(seed: int) -> None:
    import cv2

    cv2.setRNGSeed(seed)
    assert load(changed("run.seeds", [seed]), ROOT)["run"]["seeds"] == [seed]


@pytest.mark.parametrize("seed", [-1, 2**31, 2**32, 10**29, 1e30, 1e9 * 10])
@pytest.mark.parametrize("path", ["run.seeds.0", "datasets.houses.simulate.seed"])
def test_seeds_out_of_range(path: str, seed: float) -> None:
    (problem,) = problems(changed(path, seed))
    assert problem.startswith(f"{path}: must be at ")
    assert problem.endswith(f", found {int(seed)}")


def test_the_bound_of_seeds_is_that_of_the_strictest_library() -> None:
    import cv2

    with pytest.raises((ValueError, TypeError, OverflowError)):
        cv2.setRNGSeed(SCHEMAS["common"]["$defs"]["seed"]["maximum"] + 1)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("experiments.exact.train.steps", 1e30),
        ("datasets.houses.frames.height", 1e9),
        ("experiments.exact.model.dim", 10**12),
        ("benchmarks.location_consistency.queries_per_scene", 10**12),
    ],
)
def test_absurd_sizes_are_refused(path: str, value: float) -> None:
    assert any(problem.startswith(f"{path}: must be at most ") for problem in problems(changed(path, value)))


def test_every_integer_of_the_schema_has_a_maximum() -> None:
    def integers(schema: Any, where: str = "") -> list[tuple[str, dict[str, Any]]]:
        if isinstance(schema, list):
            return [found for number, item in enumerate(schema) for found in integers(item, f"{where}.{number}")]
        if not isinstance(schema, dict):
            return []
        kinds = schema.get("type", [])
        own = [(where, schema)] if "integer" in ([kinds] if isinstance(kinds, str) else kinds) else []
        return own + [found for key, item in schema.items() for found in integers(item, f"{where}.{key}")]

    found = integers(SCHEMAS)
    assert len(found) > 50
    assert [where for where, schema in found if "maximum" not in schema] == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("experiments.exact.train.loss.rho", float("inf"), "for no limit write a large number"),
        ("experiments.exact.train.loss.rho", [5.0, float("inf")], "for no limit write a large number"),
        ("experiments.exact.train.loss.kappa", float("-inf"), "for no limit write a large number"),
        ("experiments.exact.train.optimiser.clip", float("-inf"), "for no limit write a large number"),
        ("experiments.exact.train.steps", float("inf"), "for no limit write a large number"),
        ("experiments.exact.title", float("inf"), "for no limit write a large number"),
        ("figures.scene", float("inf"), "for no limit write a large number"),  # where null has another meaning
        ("experiments.exact.train.loss.tau", float("nan"), "expected a finite number, found .nan"),
        ("run.seeds", [float("nan")], "expected a finite number, found .nan"),
        ("experiments.exact.train.loss.kappa", 10**400, "for no limit write a large number"),
        ("experiments.exact.title", float("nan"), "expected a finite number, found .nan"),
    ],
)
def test_numbers_that_are_not_finite(path: str, value: Any, expected: str) -> None:
    key = f"{path}.{len(value) - 1}" if isinstance(value, list) else path
    (problem,) = problems(changed(path, value))
    assert problem.startswith(f"{key}: expected a finite number")
    assert expected in problem


@pytest.mark.parametrize(
    "path",
    [
        "experiments.exact.train.loss.kappa",
        "experiments.exact.train.phases.0.loss.kappa",
        "experiments.sampled.train.loss.kappa",
        "experiments.exact.train.batch.patches_per_image",
        "experiments.exact.train.optimiser.clip",
        "benchmarks.landmark_retrieval.kappa",
    ],
)
def test_no_limit_is_null_in_a_loaded_configuration(path: str) -> None:
    loaded: Any = load(changed(path, float("inf")), ROOT)
    assert loaded == load(changed(path, None), ROOT)
    assert at(loaded, path) is None


def test_no_limit_at_one_of_several_scales() -> None:
    loss = {"name": "exact", "rho": [0.1, 0.2], "kappa": [5.0, float("inf")], "tau": 0.05}
    loaded = load(changed("experiments.exact.train.loss", loss), ROOT)["experiments"]["exact"]["train"]["loss"]
    assert build_loss(**loaded).kappa == [5.0, math.inf]


def test_no_limit_in_a_variant_does_not_remove_the_key_as_null_does() -> None:
    def ablation(**loss: float | None) -> dict[str, Any]:
        variants = [{"name": "x"}, {"name": "y", "train": {"loss": loss}}]
        return {"a": {"title": "a", "experiment": "exact", "split": "houses", "seeds": [0], "variants": variants}}

    loaded = load(changed("ablations", ablation(kappa=float("inf"))), ROOT)
    assert loaded["experiments"]["a.y"]["train"]["loss"]["kappa"] is None
    assert "lacks the key `kappa`" in problems(changed("ablations", ablation(kappa=None)))[0]
    (problem,) = problems(changed("ablations", ablation(tau=float("inf"))))
    assert problem.startswith("experiments.a.y.train.loss.tau: expected a finite number")


def test_all_of_these_are_listed_together() -> None:
    config = changed("experiments.exact.train.loss.rho", float("inf"))
    config["run"]["sedes"] = 1
    config["datasets"][800] = config["datasets"]["houses"]
    config["figures"]["views"] = float("nan")
    assert len(problems(config)) == 4


def test_values_that_yaml_gives_and_json_does_not_know() -> None:
    config = changed("datasets.houses.scenes", [*DEMO["datasets"]["houses"]["scenes"], date(2020, 1, 2)])
    assert "2020-01-02" in load(config, ROOT)["datasets"]["houses"]["scenes"]
    assert "datasets: YAML does not read the key True as text" in problems(changed("datasets", {True: {}}))[0]
    assert (
        "experiments.exact.title: expected text or a number, found bytes"
        in problems(changed("experiments.exact.title", b"x"))[0]
    )
    assert "figures.views: expected text or a number, found int64" in problems(changed("figures.views", np.int64(3)))[0]


def test_a_configuration_that_contains_itself() -> None:
    config = deepcopy(DEMO)
    config["run"]["x"] = config["run"]
    with pytest.raises(ConfigError, match=r"run\.x\.x\.x\.x\.\.\.: the configuration is nested more than 50 levels"):
        load(config, ROOT)


def test_a_configuration_that_expands_without_end() -> None:
    value: Any = "x"
    for _ in range(20):
        value = [value] * 9
    with pytest.raises(ConfigError, match="expands to more than 200,000 values"):
        load(changed("figures.views", value), ROOT)


def test_the_configuration_given_is_left_as_it_is() -> None:
    config = changed("run.seeds", [1.0])
    before = json.dumps(config)
    load(config, ROOT)
    assert json.dumps(config) == before


def test_an_unknown_benchmark_of_the_run_is_named() -> None:
    with pytest.raises(ConfigError, match=r"run.benchmarks.*location_consistency"):
        load(changed("run.benchmarks", ["location_consist99cy"]), ROOT)
