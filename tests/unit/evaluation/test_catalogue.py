"""The catalogue of benchmarks agrees with the modules, the schema and the datasets, and is fast to import."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from loco.datasets import FORMATS, provides
from loco.evaluation.catalogue import BENCHMARKS

ROOT = Path(__file__).parents[3]


def test_the_schema_has_settings_for_every_benchmark() -> None:
    schema = yaml.safe_load((ROOT / "config" / "schemas" / "benchmarks.yaml").read_text(encoding="utf-8"))
    assert schema["properties"].keys() == BENCHMARKS.keys()
    divided = [schema["properties"][name] for name, benchmark in BENCHMARKS.items() if benchmark.per_scene]
    assert divided
    assert not any("seen_by_training" in str(settings) for settings in divided)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_entry_is_of_a_module_and_of_what_datasets_provide(name: str) -> None:
    benchmark, module = BENCHMARKS[name], import_module(f"loco.evaluation.{name}")
    assert benchmark.name == name
    assert callable(module.evaluate)
    assert callable(module.samples)
    provided = set().union(*map(provides, FORMATS)) | {"labels"}
    assert benchmark.requires
    assert all(needs and needs <= provided for needs in benchmark.requires)
    assert not benchmark.measures.endswith(".")  # captions add it
    assert benchmark.figures


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, loco.evaluation.catalogue; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pandas", "matplotlib", "h5py"} & set(done.stdout.split())


def test_a_new_entry_reruns_no_evaluation() -> None:
    """The modules that compute scores do not import the catalogue, so editing it does not change their fingerprints."""
    modules = [*(f"loco.evaluation.{name}" for name in BENCHMARKS), "loco.results.metrics"]
    code = f"import sys, {', '.join(modules)}; print('loco.evaluation.catalogue' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
