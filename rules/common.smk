# No rules: the checked configuration, the names that wildcards may take, lists of files, and fingerprints.
import re

from snakemake.exceptions import WorkflowError

from loco.config import figure_scene, load, scenes
from loco.errors import ConfigError
from loco.provenance import code_fingerprint, settings_fingerprint

try:
    config = load(config, workflow.basedir)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

RUN = config["run"]
TITLES = {name: config["experiments"][name]["title"] for name in RUN["experiments"]}
TRAINED = [name for name in RUN["experiments"] if "train" in config["experiments"][name]]
FIGURES = {"location_consistency": "location_consistency_dots", "pixel_correspondence": "recall_against_angle"}
PICTURES = dict(zip(("split", "dataset", "scene"), figure_scene(config)))
RAW_KINDS = (
    "region_segmentations",
    "undistorted_camera_parameters",
    "undistorted_color_images",
    "undistorted_depth_images",
)


def one_of(names):
    """Regular expression of these names and no others."""
    return "|".join(map(re.escape, names))


wildcard_constraints:
    dataset=one_of(config["datasets"]),
    scene="[^/]+",
    split=one_of(config["splits"]),
    experiment=one_of(config["experiments"]),
    benchmark=one_of(config["benchmarks"]),
    seed="[0-9]+",


def code(step, *modules):
    """Fingerprint of the code that a step runs, in place of Snakemake's own rerun trigger `code`: that one sees neither
    the modules that a script imports, nor that only a comment or a time stamp has changed."""
    files = (f"workflow_scripts/{step}.py", *modules)
    return code_fingerprint(*(Path(workflow.basedir, file) for file in files))


def evaluation_code(benchmark):
    return code("evaluate", f"loco/evaluation/{benchmark}.py")


def raw_folder(dataset):
    return Path(config["datasets"][dataset]["raw"])


def raw_files(wildcards):
    """Raw files of a scene: all of them where a rule makes them, else those that exist. The check says what is missing."""
    dataset = config["datasets"][wildcards.dataset]
    if "simulate" in dataset:
        return expand(rules.simulate.output, **wildcards)
    from loco.datasets import raw_files as download

    return [path for path in download(dataset["format"], Path(dataset["raw"]), wildcards.scene) if path.is_file()]


def scene_files(pattern, *parts):
    """Input function: `pattern` for every scene of these parts of the split (of all parts, if none is named)."""
    return lambda wildcards: [
        part
        for dataset, scene in scenes(config, wildcards.split, *parts)
        for part in expand(pattern, **{**wildcards, "dataset": dataset, "scene": scene})
    ]


def run_scenes():
    """(dataset, scene) pairs of all splits of the run, each once."""
    return list(dict.fromkeys(place for split in RUN["splits"] for place in scenes(config, split)))


def recipe(benchmark, split, experiment):
    """Fingerprints of all code and settings behind a metric file: its passport must agree with them."""
    setup = config["experiments"][experiment]
    parts = ("train", "val", "test") if "train" in setup else ("test",)
    steps = ["depth", "correspondence", "extract", *(["train"] if "train" in setup else [])]
    used = {
        name: {key: value for key, value in config["datasets"][name].items() if key not in ("scenes", "raw", "check")}
        for name, _ in scenes(config, split, *parts)
    }
    if any("simulate" in dataset for dataset in used.values()):
        steps.append("simulate")
    settings = {
        "datasets": used,
        "scenes": {part: scenes(config, split, part) for part in parts},
        "model": setup["model"],
        "train": setup.get("train"),
        "benchmark": config["benchmarks"][benchmark],
    }
    return {
        "code": settings_fingerprint([evaluation_code(benchmark), *map(code, steps)]),
        "settings": settings_fingerprint(settings),
    }
