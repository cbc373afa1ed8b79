# No rules: the checked configuration, the names that wildcards may take, lists of files, and fingerprints.
import re
from dataclasses import asdict
from functools import lru_cache
from itertools import product

from snakemake.exceptions import WorkflowError

from loco.config import (
    ablation_rows,
    figure_scene,
    given_by,
    judged_scenes,
    judged_splits,
    load,
    published_names,
    scenes,
    stride_of,
    training_split,
)
from loco.datasets import FORMATS, raw_files as files_of_download
from loco.datasets.synthetic import SIMULATORS
from loco.errors import ConfigError
from loco.evaluation import NEEDS
from loco.provenance import code_fingerprint, file_fingerprint, settings_fingerprint
from loco.weights import is_hub_name, model_file

try:
    config = load(config, workflow.basedir)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

RUN = config["run"]
TITLES = {name: config["experiments"][name]["title"] for name in RUN["experiments"]}
FITTED = {
    name: how for name, setup in config["experiments"].items() for how in ("train", "pca") if how in setup
}  # experiment -> the block that says how its weights are found
TRAINED = [name for name in RUN["experiments"] if FITTED.get(name) == "train"]
FIGURES = {  # functions of loco.results.plots
    "location_consistency": ["dots", "per_scene_spread"],
    "pixel_correspondence": ["recall_against_angle", "error_curves", "per_scene_spread"],
    "panoptic_segmentation": ["dots", "per_scene_spread"],
    "semantic_segmentation": ["dots", "per_scene_spread"],
    "place_recognition": ["recall_at_k", "per_scene_spread"],
    "landmark_retrieval": ["dots", "per_scene_spread"],
    "relative_pose": ["error_curves", "dots", "per_scene_spread"],
    "homography": ["matching_accuracy", "dots", "per_scene_spread"],
}
PICTURES = dict(zip(("split", "dataset", "scene"), figure_scene(config) or ()))


BACKBONE_MODULES = {"transformers": "hub", "croco": "croco", "onnx": "onnx_backbone"}


def datasets_with(block):
    """Names of the datasets whose configuration has this block."""
    return [name for name, dataset in config["datasets"].items() if block in dataset]


def one_of(names):
    """Regular expression of these names and no others (of nothing, if there are none)."""
    return "|".join(map(re.escape, names)) or "(?!)"


ABLATIONS = {name: ablation_rows(config, name) for name in config.get("ablations", {})}


wildcard_constraints:
    ablation=one_of(ABLATIONS),
    dataset=one_of(config["datasets"]),
    scene="[^/]+",
    split=one_of(config["splits"]),
    experiment=one_of(config["experiments"]),
    benchmark=one_of(config["benchmarks"]),
    seed="[0-9]+",
    stride="[0-9]+",
    encoder="[0-9a-f]+",


def code(step, *modules):
    """Fingerprint of the code that a step runs, in place of Snakemake's own rerun trigger `code`: that one sees neither
    the modules that a script imports, nor that only a comment or a time stamp has changed."""
    files = (f"workflow_scripts/{step}.py", *modules)
    return code_fingerprint(*(Path(workflow.basedir, file) for file in files))


def parts_of(model):
    """The models that a model is put together from; itself, if it is one."""
    return [part for member in model["models"] for part in parts_of(member)] if "models" in model else [model]


def backbones(model):
    """The backbones of a model's configuration."""
    return [part["backbone"] for part in parts_of(model) if "backbone" in part]


def model_code(step, model):
    """Fingerprint of a step that runs a model, with the modules that are imported by name: those of its backbones, and
    the one that reads weights that are there already."""
    modules = {BACKBONE_MODULES[backbone["name"]] for backbone in backbones(model)}
    modules |= {"given"} if {part["name"] for part in parts_of(model)} & {"pretrained", "published"} else set()
    return code(step, *(f"loco/models/{module}.py" for module in sorted(modules)))


def weight_files(model):
    """Files of weights that are none of the hub's: where they change, so does the model."""
    named = [*backbones(model), *(part for part in parts_of(model) if "path" in part)]
    return [file for part in named for file in files_of_weights(part["name"], part["path"])]


def files_of_weights(kind, path):
    """The files of a backbone or model of this kind; none of a name on the hub. They may be missing: Snakemake says so."""
    folder = Path(path)
    if kind == "pretrained":
        return [model_file(path)]
    if folder.is_dir():
        return [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.json"))]
    return [] if kind == "transformers" and ("/" not in path or is_hub_name(path)) else [folder]


def weights(wildcards):
    """Input function: the files of the backbones of a job's model."""
    return weight_files(config["experiments"][wildcards.experiment]["model"])


def initial_weights(experiment):
    """The model file that the training of an experiment starts from, if it does."""
    train = config["experiments"][experiment].get("train", {})
    return [model_file(train["init"])] if "init" in train else []


def raw_code(step, dataset):
    """Fingerprint of a step that reads or writes raw scenes, with the module that knows the dataset's layout."""
    format = config["datasets"][dataset]["format"]
    layout = f"synthetic/{SIMULATORS[format]}" if step == "simulate" else FORMATS[format][0]
    return code(step, f"loco/datasets/{layout}.py")


def evaluation_code(benchmark):
    return code("evaluate", f"loco/evaluation/{benchmark}.py")


def raw_files(wildcards):
    """Raw files of a scene: the folder that a rule makes, else those that exist. The check says what is missing."""
    dataset = config["datasets"][wildcards.dataset]
    if "simulate" in dataset or "reconstruct" in dataset:
        return expand("results/raw/{dataset}/{scene}", **wildcards)
    files = files_of_download(dataset["format"], Path(dataset["raw"]), wildcards.scene)
    return [path for path in files if path.exists()]


def setting(*keys):
    """Params function: what the configuration says of the dataset of a job, under these keys."""

    def read(wildcards):
        value = config["datasets"][wildcards.dataset]
        for key in keys:
            value = value[key]
        return value

    return read


def fused_mesh(wildcards):
    """The mesh that is made from a scene's own depth, where the configuration asks for one."""
    wanted = "fuse" in config["datasets"][wildcards.dataset]
    return f"results/meshes/{wildcards.dataset}/{wildcards.scene}.ply" if wanted else []


def patch_stride(dataset, wildcards=None):
    """Pixels between the places of a dataset that all extractors are judged by."""
    return config["datasets"][dataset]["patches"]["stride"]


def model_stride(dataset, wildcards):
    """Pixels between the patches of the model of a job, whose places it is trained on."""
    return stride_of(config["experiments"][wildcards.experiment]["model"])


def scene_files(pattern, *parts, stride=patch_stride):
    """Input function: `pattern` for every scene of these parts of the split (of all parts, if none is named)."""
    return files_of(pattern, lambda wildcards: scenes(config, wildcards.split, *parts), stride)


def needed(benchmark, dataset):
    """What a benchmark needs of the files of a dataset, of what that dataset gives at all."""
    return set().union(*NEEDS[benchmark]) & given_by(config["datasets"][dataset])


def judged_files(pattern, giving=None):
    """Input function: `pattern` for every test scene of a job's benchmark; with `giving`, of those that give this, and for
    none if the benchmark does not need it."""

    def places(wildcards):
        return [
            (dataset, scene)
            for dataset, scene in judged_scenes(config, wildcards.split, wildcards.benchmark)
            if giving is None or giving in needed(wildcards.benchmark, dataset)
        ]

    return files_of(pattern, places, patch_stride)


def files_of(pattern, places, stride):
    """Input function: `pattern` for the (dataset, scene) pairs that `places` gives for a job."""

    def files(wildcards):
        rest = [
            {"dataset": dataset, "scene": scene, "stride": stride(dataset, wildcards)}
            for dataset, scene in places(wildcards)
        ]
        return [path for named in rest for path in expand(pattern, **{**wildcards, **named})]

    return files


def encoding_part(experiment):
    """The part of a model whose features are stored: what it is without its head."""
    return {key: config["experiments"][experiment]["model"][key] for key in ("name", "backbone", "stride")}


def encoder(experiment):
    """Name of that part; None if its features are not stored."""
    stored = config["experiments"][experiment].get("cache")
    return settings_fingerprint(encoding_part(experiment))[:12] if stored else None


ENCODERS = {encoder(name): encoding_part(name) for name in config["experiments"] if encoder(name)}


def encoded_scenes(wildcards, places):
    """What the encoder of a job's model makes of these (dataset, scene) pairs, where the experiment has it stored."""
    name = encoder(wildcards.experiment)
    pattern = rules.encode.output.encoded
    return [pattern.format(encoder=name, dataset=dataset, scene=scene) for dataset, scene in places] if name else []


def encoded_part(part):
    """Input function: :func:`encoded_scenes` of a part of the split."""
    return lambda wildcards: encoded_scenes(wildcards, scenes(config, wildcards.split, part))


def training_data(wildcards):
    """Params function: the scenes that a model of the split has seen. Other scenes to test on are no other model."""
    split = config["splits"][wildcards.split]
    return {part: split[part] for part in ("train", "val") if part in split}


def fitted_model(wildcards):
    """Input function: the trained or fitted network of a job's experiment, where there is one."""
    named = {**wildcards, "split": training_split(config, wildcards.split)}
    return rules.train.output.model.format(**named) if wildcards.experiment in FITTED else []


def trained_splits():
    """The splits of the run that have a training of their own."""
    return [split for split in RUN["splits"] if training_split(config, split) == split]


def run_keys(benchmark):
    """(benchmark, split, experiment, seed) of all scores of the run on a benchmark."""
    return list(product([benchmark], judged_splits(config, RUN["splits"], benchmark), RUN["experiments"], RUN["seeds"]))


def ablation_benchmarks(ablation):
    """The benchmarks of the run that the splits of an ablation have test scenes for."""
    splits = {split for split, _ in ABLATIONS[ablation]}
    return [benchmark for benchmark in RUN["benchmarks"] if judged_splits(config, splits, benchmark)]


def ablation_keys(wildcards, all_benchmarks=False):
    """(benchmark, split, experiment, seed) of the scores of an ablation on the benchmark of the job, or on all."""
    ablation = wildcards.ablation
    return [
        (benchmark, split, experiment, seed)
        for benchmark in (ablation_benchmarks(ablation) if all_benchmarks else [wildcards.benchmark])
        for split, experiment in ABLATIONS[ablation]
        if judged_scenes(config, split, benchmark)
        for seed in config["ablations"][ablation]["seeds"]
    ]


def metric_files(keys):
    """The metric files of these (benchmark, split, experiment, seed)."""
    names = ("benchmark", "split", "experiment", "seed")
    return [rules.evaluate.output.metrics.format(**dict(zip(names, key))) for key in keys]


@lru_cache
def published_datasets(benchmark):
    """Split -> the names by which published numbers are of what it tests on, where they can be."""
    names = {
        split: published_names(config, split, benchmark) for split in judged_splits(config, RUN["splits"], benchmark)
    }
    return {split: found for split, found in names.items() if found}


def published_numbers(benchmark):
    """The published numbers that the table of a benchmark can show; their file is named by no job, so that it may move."""
    file = Path(workflow.basedir, "config", "published_results", f"{benchmark}.csv")
    wanted = {name for names in published_datasets(benchmark).values() for name in names}
    if not wanted or not file.is_file():
        return []
    from loco.results.published import read_published  # slow to import

    return [asdict(number) for number in read_published(file) if number.dataset in wanted]


def recipes(keys):
    """By what code and settings these files must have been made."""
    return {key: recipe(*key[:3]) for key in keys}


def split_recipes(benchmark):
    """Params function: the recipes of all scores of the run on a benchmark, of the split of a job."""
    return lambda wildcards: recipes([key for key in run_keys(benchmark) if key[1] == wildcards.split])


def ablation_metrics(**which):
    """Input function: the metric files of an ablation."""
    return lambda wildcards: metric_files(ablation_keys(wildcards, **which))


def ablation_recipes(**which):
    """Params function: their recipes."""
    return lambda wildcards: recipes(ablation_keys(wildcards, **which))


def variant_titles(wildcards):
    """Params function: the names of an ablation's variants, which its tables and plots call them by."""
    return {variant: variant for _, variant in ABLATIONS[wildcards.ablation].values()}


def variant_rows(wildcards):
    """Params function: where an ablation's tables have each (split, experiment)."""
    return ABLATIONS[wildcards.ablation]


def run_scenes():
    """(dataset, scene) pairs of all splits of the run, each once."""
    return list(dict.fromkeys(place for split in RUN["splits"] for place in scenes(config, split)))


def labelled(pattern):
    """Input function: `pattern` for every scene of the run whose dataset has a `labels` block."""

    def files(wildcards):
        places = [place for place in run_scenes() if place[0] in datasets_with("labels")]
        if not places:
            raise WorkflowError("no dataset of the run has a `labels` block in the configuration")
        return [pattern.format(dataset=dataset, scene=scene) for dataset, scene in places]

    return files


def recipe(benchmark, split, experiment):
    """Fingerprints of all code and settings behind a metric file: its passport must agree with them."""
    setup = config["experiments"][experiment]
    how = FITTED.get(experiment)
    parts = {"train": ("train", "val"), "pca": ("train",), None: ()}[how]
    judged = judged_scenes(config, split, benchmark)
    places = {part: scenes(config, split, part) for part in parts} | {"test": judged}
    used = dict.fromkeys(dataset for part in places.values() for dataset, _ in part)
    read = {name: needed(benchmark, name) for name, _ in judged}
    labelled = [name for name, what in read.items() if "labels" in what]
    located = how == "train" or any("places" in what for what in read.values())  # by correspondences
    fit = {"train": ["train"], "pca": ["fit_pca"], None: []}[how]
    model_steps = ["extract", *fit, *(["encode"] if encoder(experiment) else [])]
    codes = [evaluation_code(benchmark), *([code("correspondence")] if located else [])]
    codes += [model_code(step, setup["model"]) for step in model_steps]
    codes += [raw_code("label", name) for name in labelled]
    for name in used:
        steps = ("depth", *(step for step in ("simulate", "reconstruct", "fuse") if step in config["datasets"][name]))
        codes += [raw_code(step, name) for step in steps]
    aside = ("scenes", "raw", "check", "labels", *(() if located else ("patches",)))
    settings = {
        "datasets": {
            name: {key: value for key, value in config["datasets"][name].items() if key not in aside} for name in used
        },
        "labels": {name: file_fingerprint(mapping_of(name)) for name in labelled},
        "scenes": places,
        "model": setup["model"],
        "weights": [content_of(file) for file in [*weight_files(setup["model"]), *initial_weights(experiment)]],
        "train": setup.get(how),
        "benchmark": config["benchmarks"][benchmark],
    }
    return {
        "code": settings_fingerprint(codes),
        "settings": settings_fingerprint(settings),
    }


def mapping_of(dataset):
    """The table of raw labels of a dataset."""
    return Path(workflow.basedir, config["datasets"][dataset]["labels"]["mapping"])


@lru_cache
def content_of(file):
    """Fingerprint of a file of weights, which may be large; None where it is missing, or is yet to be made here."""
    return file_fingerprint(file) if file.is_file() and file.parts[0] != "results" else None
