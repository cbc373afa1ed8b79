"""The tables of ``config/README.md`` are those of the schema, and every default is stated once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from loco.config_tables import README, TOPICS, table, with_tables
from loco.datasets.reconstruct import MAX_IMAGE_SIZE
from loco.evaluation.catalogue import BENCHMARKS
from loco.evaluation.defaults import SEEN_WITHIN, UNSEEN_BEYOND
from loco.evaluation.pixel_correspondence import OCCLUSION_TOLERANCE
from loco.evaluation.refinement import TEMPERATURE, WINDOW
from loco.losses import LOSSES
from loco.models.catalogue import BACKBONES, MODELS
from loco.models.heads import HEADS
from loco.models.upsample import JointBilateral
from loco.steps.frames import MAX_DEPTH

ROOT = Path(__file__).parents[2]
SCHEMAS = {file.stem: yaml.safe_load(file.read_text()) for file in (ROOT / "config/schemas").glob("*.yaml")}
DEFAULTS = yaml.safe_load((ROOT / "config/defaults.yaml").read_text())


def test_the_tables_are_those_of_the_schema() -> None:
    text = (ROOT / README).read_text()
    assert with_tables(text, ROOT) == text, "the schema has changed: run python -m loco.config_tables"
    found = set(re.findall(r"<!-- keys of ([\w.]+) -->", text))
    # The two probes share their keys, and one table.
    assert found == {*TOPICS, *(f"benchmarks.{name}" for name in BENCHMARKS if name != "semantic_segmentation")}


def test_a_changed_table_is_written_anew() -> None:
    stale = "before\n<!-- keys of figures -->\n| old |\n<!-- end -->\nafter\n"
    assert (
        with_tables(stale, ROOT) == f"before\n<!-- keys of figures -->\n{table('figures', ROOT)}<!-- end -->\nafter\n"
    )


@pytest.mark.parametrize(
    ("topic", "row"),
    [
        ("run", "| `seeds` | `[0]` |"),  # of defaults.yaml
        ("run", "| `comparisons` | `[]` |"),  # of the schema
        ("datasets", "| `raw` | required |"),
        ("datasets", "| `frames.images` | `all` |"),  # of every dataset
        ("datasets", "| `reconstruct.max_image_size` | `1600` |"),  # behind a reference
        ("datasets", "| `fuse.voxel` | required |"),
        ("datasets", "| `fuse` |  |"),
        ("datasets", "| `simulate.image` | required |"),  # a map
        ("datasets", "| `frames` |  |"),  # a required map with values in defaults.yaml
        ("train", "| `batch` |  |"),
        ("ablations", "| `variants[].name` | required |"),
        ("figures", "| `scene` | `null` |"),
        ("benchmarks.homography", "| `ransac_threshold` | `5` |"),
        ("benchmarks.homography", "| `upsample` | `1` |"),
        ("benchmarks.place_recognition", "| `rerank[].top` | required |"),  # behind a condition
        ("benchmarks.place_recognition", "| `descriptors[].exponent` | required | `gem`: exponent"),  # of one `name`
        ("experiments", "| `model` | required |"),  # which has a table of its own
        ("experiments", "| `train` |  |"),
        ("experiments", "| `pca.whiten` | `false` |"),  # of another file
        ("model", "| `train` | `none` | `backbone`:"),
        ("model", "| `train.lora.alpha` | `8` | Scale"),  # text or a map
        ("model", "| `upsample.stride` | required |"),
        ("model.backbone", "| `path` | required | `croco`:"),
        ("model.backbone", "| `layer` |  | `transformers`, `timm`, `croco`: block"),  # described once
        ("model.head", "| `dim` | `64` | `locus`:"),
        ("train", "| `batch.images_per_scene` | `8` |"),
        ("train", "| `batch.radius` |  |"),  # of the second kind of batch
        ("train", "| `optimiser` |  |"),
        ("train.optimiser", "| `lr` | `0.001` |"),
        ("train.loss", "| `tau` | required |"),  # a number or a map
        ("train.loss", "| `tau.schedule` | `geometric` |"),
        ("train.loss", "| `self_term` | `true` | `landmarks`:"),
    ],
)
def test_a_row_states_the_default_of_its_key(topic: str, row: str) -> None:
    assert any(line.startswith(row) for line in table(topic, ROOT).splitlines())


def properties(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return all keys of a schema and their descriptions, including those inside conditions and lists."""
    if isinstance(schema, list):
        for item in schema:
            yield from properties(item)
    elif isinstance(schema, dict):
        yield from ((key, entry) for key, entry in schema.get("properties", {}).items() if isinstance(entry, dict))
        for item in schema.values():
            yield from properties(item)


def test_a_default_of_the_schema_follows_the_schema() -> None:
    found = [(key, entry) for schema in SCHEMAS.values() for key, entry in properties(schema) if "default" in entry]
    assert len(found) > 20
    for key, entry in found:
        value, allowed = entry["default"], entry.get("enum")
        assert allowed is None or value in allowed, key
        assert entry.get("minimum", 0) <= value if type(value) in (int, float) else True, key


def test_no_key_has_two_defaults() -> None:
    dataset, below = SCHEMAS["datasets"]["$defs"]["dataset"]["properties"], DEFAULTS["datasets"]["*"]
    for block, values in below.items():
        for key in values:
            assert "default" not in dataset[block]["properties"][key], f"{block}.{key}"
            assert key in dataset[block]["required"], f"{block}.{key}"
    for benchmark, values in DEFAULTS["benchmarks"].items():
        stated = SCHEMAS["benchmarks"]["properties"][benchmark]
        stated = SCHEMAS["benchmarks"]["$defs"]["linear_probe"] if "$ref" in stated else stated
        for key in values:
            assert "default" not in stated["properties"][key], f"{benchmark}.{key}"
    for topic in ("run", "figures"):
        for key in DEFAULTS[topic]:
            assert "default" not in SCHEMAS[topic]["properties"][key], f"{topic}.{key}"
    training = SCHEMAS["training"]["$defs"]
    for block, described in (
        ("batch", training["train"]["properties"]["batch"]["else"]),
        ("optimiser", training["optimiser"]),
    ):
        for key in DEFAULTS["experiments"]["*"]["train"][block]:
            assert "default" not in described["properties"][key], f"train.{block}.{key}"


def test_defaults_of_the_schema_are_those_of_the_code() -> None:
    definitions = SCHEMAS["datasets"]["$defs"]
    assert definitions["reconstruct"]["properties"]["max_image_size"]["default"] == MAX_IMAGE_SIZE
    assert definitions["dataset"]["properties"]["frames"]["properties"]["max_depth"]["default"] == MAX_DEPTH
    shared, pixels = (SCHEMAS["benchmarks"][part] for part in ("$defs", "properties"))
    assert shared["seen_within"]["default"] == SEEN_WITHIN
    assert shared["unseen_beyond"]["default"] == UNSEEN_BEYOND
    assert shared["refine_temperature"]["default"] == TEMPERATURE
    assert shared["refine_window"]["default"] == WINDOW
    tolerance = pixels["pixel_correspondence"]["properties"]["occlusion_tolerance"]["default"]
    assert tolerance == OCCLUSION_TOLERANCE


def constructors() -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Yield (schema file and definition, name, constructor) of everything that a configuration builds by name."""
    for name, loss in LOSSES.items():
        yield "losses.loss", name, loss
    for name, head in HEADS.items():
        yield "models.head", name, head
    for definition, entries in (("models.model", MODELS), ("models.backbone", BACKBONES)):
        for name, entry in entries.items():
            if name != "timm":  # an optional package
                yield definition, name, entry.load()
    yield "models.upsample", "joint_bilateral", JointBilateral


def stated_options(definition: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the keys of the map with this ``name``, with what the schema states about them."""
    file, key = definition.split(".")
    definitions = SCHEMAS[file]["$defs"]
    for condition in definitions[key].get("then", definitions[key])["allOf"]:
        stated = condition["if"]["properties"]["name"]
        if name in stated.get("enum", [stated.get("const")]):
            for key, option in condition["then"]["properties"].items():
                if isinstance(option, dict):
                    reference = option.get("$ref", "").removeprefix("#/$defs/")
                    yield key, definitions.get(reference, {}) | option


def code_default(constructor: Callable[..., Any], key: str) -> Any:
    """Return the default of an option, which a class may pass on to its base class."""
    for part in getattr(constructor, "__mro__", [constructor]):
        function = vars(part).get("__init__") if isinstance(part, type) else part
        option = inspect.signature(function).parameters.get(key) if function else None
        if option is not None:
            return option.default
    return inspect.Parameter.empty


def test_defaults_of_options_are_those_of_their_constructors() -> None:
    compared = 0
    for definition, name, constructor in constructors():
        for key, option in stated_options(definition, name):
            if "default" in option:
                assert option["default"] == code_default(constructor, key), f"{definition}.{name}.{key}"
                compared += 1
    assert compared > 25
