"""The tables of ``config/README.md`` are those of the schema, and every default is stated once."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
        ("ablations", "| `variants[].name` | required |"),
        ("figures", "| `scene` | `null` |"),
        ("benchmarks.homography", "| `ransac_threshold` | `5` |"),
        ("benchmarks.homography", "| `upsample` | `1` |"),
        ("benchmarks.place_recognition", "| `rerank[].top` | required |"),  # behind a condition
        ("benchmarks.place_recognition", "| `descriptors[].exponent` |  |"),  # of one kind of descriptor
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
