"""The configuration, checked at the door: every problem at once, in plain words, before anything runs."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError

from loco.datasets import gives
from loco.errors import ConfigError
from loco.evaluation import NEEDS

SCHEMA = "config/schemas/config.schema.yaml"
PARTS = ("train", "val", "test")
FIXED_STRIDES = {"compact_cnn": 4}  # of models that do not let the configuration choose; not imported: torch is slow


def load(config: Mapping[str, Any], base: str | Path) -> dict[str, Any]:
    """Check a configuration and read the scene lists that it names.

    Args:
        config: as read from YAML; every key is described in ``config/README.md``.
        base: folder of the workflow: holds the schema, and scene lists are found from it.

    Returns:
        A copy of plain dicts in the order of their keys, with every scene list a list of names.

    Raises:
        ConfigError: says all that is wrong.
    """
    config = json.loads(json.dumps(config, default=str))
    problems = _schema_problems(config, Path(base) / SCHEMA) or _read_scene_lists(config, Path(base))
    problems = problems or list(_share_training(config["splits"]))
    problems = problems or list(_ablation_problems(config))
    if not problems and config.get("ablations"):
        config["experiments"] |= _variants(config)
        problems = _schema_problems(config, Path(base) / SCHEMA)
    problems = problems or [*_cross_check(config), *_published_problems(config, Path(base))]
    if problems:
        raise ConfigError(
            "\n".join(["the configuration cannot be used as it stands:", *(f"  - {p}" for p in problems)])
        )
    return json.loads(json.dumps(config, sort_keys=True))


def scenes(config: Mapping[str, Any], split: str, *parts: str) -> list[tuple[str, str]]:
    """(dataset, scene) pairs of a split's ``parts`` (all of them if none is named), in their order."""
    split_parts = config["splits"][split]
    return [
        (dataset, scene)
        for part in parts or PARTS
        for dataset, names in split_parts.get(part, {}).items()
        for scene in names
    ]


def judged_scenes(config: Mapping[str, Any], split: str, benchmark: str) -> list[tuple[str, str]]:
    """(dataset, scene) pairs of a split's test part that give what a benchmark needs."""
    found = scenes(config, split, "test")
    return [
        place for place in found if any(need <= given_by(config["datasets"][place[0]]) for need in NEEDS[benchmark])
    ]


def judged_splits(config: Mapping[str, Any], splits: Iterable[str], benchmark: str) -> list[str]:
    """Those of the splits that have a test scene for a benchmark."""
    return [split for split in splits if judged_scenes(config, split, benchmark)]


def training_split(config: Mapping[str, Any], split: str) -> str:
    """The split whose training a split is judged on: its own, or the one that it names as ``trained_on``."""
    return config["splits"][split].get("trained_on", split)


def published_names(config: Mapping[str, Any], split: str, benchmark: str) -> list[str]:
    """By which names published numbers (:mod:`loco.results.published`) mean what a split tests on.

    Its dataset's format and name, and, of a single scene, the format with its name. None for several datasets together,
    or a simulated one: no published number is of them.
    """
    places = judged_scenes(config, split, benchmark)
    datasets = {dataset for dataset, _ in places}
    if len(datasets) != 1 or "simulate" in config["datasets"][places[0][0]]:
        return []
    name, scene = places[0]
    format = config["datasets"][name]["format"]
    return [format, name, *([f"{format}/{scene}"] if len(places) == 1 else [])]


def given_by(dataset: Mapping[str, Any]) -> frozenset[str]:
    """What a dataset's scenes can judge features by (:data:`loco.datasets.GIVES`)."""
    return gives(dataset["format"]) | ({"labels"} if "labels" in dataset else set())


def _variant_experiment(name: str, ablation: Mapping[str, Any], variant: Mapping[str, Any]) -> str:
    """Name of the experiment that a variant of the ablation ``name`` is.

    One that changes nothing but the split is the ablation's own, trained once for all ablations that start from it.
    """
    return f"{name}.{variant['name']}" if variant.keys() - {"name", "split"} else ablation["experiment"]


def ablation_rows(config: Mapping[str, Any], name: str) -> dict[tuple[str, str], tuple[str, str]]:
    """(split, experiment) of each variant of an ablation -> where its tables have it: (split, name of the variant).

    Variants that are trained on different scenes and judged on the same stand together, under the ablation's own split
    if it is judged on these, too.
    """
    ablation = config["ablations"][name]
    runs = _variant_runs(name, ablation)
    splits = [ablation["split"], *(split for split, _ in runs)]
    tested = {split: config["splits"][split]["test"] for split in splits}
    shown = {split: next(other for other in splits if tested[other] == tested[split]) for split in splits}
    return {run: (shown[run[0]], variant["name"]) for run, variant in zip(runs, ablation["variants"])}


def _variant_runs(name: str, ablation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(split, experiment) of each variant."""
    return [(v.get("split", ablation["split"]), _variant_experiment(name, ablation, v)) for v in ablation["variants"]]


def stride_of(model: Mapping[str, Any]) -> int:
    """Pixels between the patches of an experiment's ``model``."""
    return model["stride"] if "stride" in model else FIXED_STRIDES[model["name"]]


def figure_scene(config: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """(split, dataset, scene) that the pictures show: a split of the run that tests on ``figures.scene``; else None."""
    wanted = config["figures"]["scene"]
    found = ((s, dataset, scene) for s in config["run"]["splits"] for dataset, scene in scenes(config, s, "test"))
    return next((place for place in found if place[2] == wanted), None)


def _schema_problems(config: dict[str, Any], schema: Path) -> list[str]:
    validator = Draft202012Validator(yaml.safe_load(schema.read_text(encoding="utf-8")))
    errors = sorted(validator.iter_errors(config), key=lambda error: error.json_path)
    return [problem for error in errors for problem in _in_words(error)]


def _in_words(error: ValidationError) -> Iterator[str]:
    """A schema error as its user would say it. ``where`` is the path of keys, as in ``run.seeds.0``."""
    where = ".".join(map(str, error.absolute_path)) or "the top level"
    found = error.instance
    match error.validator:
        case "additionalProperties":
            known = list(error.schema["properties"])
            yield from (f"unknown key `{key}` in {where}{_hint(key, known)}" for key in found if key not in known)
        case "required":
            # One error a missing key; its name is only in the message.
            _, key, _ = error.message.split("'")
            yield f"{where} lacks the key `{key}`"
        case "enum":
            yield f"{where}: {found!r} is not known{_hint(found, error.validator_value)}"
        case "type":
            yield f"{where}: expected {_kinds(error.validator_value)}, found {_kind(found)}{_yaml_hint(error)}"
        case "pattern":
            yield f"{where}: the name {found!r} may hold letters, digits, `_`, `-` and `.`, the first no `-` or `.`"
        case "minItems" | "minProperties":
            least = f": expected {error.validator_value} or more, found {len(found)}" if found else " is empty"
            yield f"{where}{least}"
        case _:
            yield f"{where}: {error.message}"


_WORDS = {
    "object": "a map",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "nothing",
}


def _kinds(types: str | list[str]) -> str:
    return " or ".join(_WORDS[kind] for kind in ([types] if isinstance(types, str) else types))


def _kind(value: Any) -> str:
    if value is None or isinstance(value, dict | list):
        return {dict: "a map", list: "a list"}.get(type(value), "nothing")
    return repr(value)


def _yaml_hint(error: ValidationError) -> str:
    """YAML 1.1 reads ``2e-3`` as text and a bare ``00800`` as a number."""
    found, wanted = error.instance, error.validator_value
    if isinstance(found, str) and wanted in ("number", "integer"):
        try:
            return f" (text to YAML: write {float(found)!r}, with a point and without quotes)"
        except ValueError:
            return ""
    return " (put it in quotes)" if isinstance(found, int | float) and "string" in wanted else ""


def _hint(name: Any, known: Iterable[Any]) -> str:
    known = [str(item) for item in known]
    near = get_close_matches(str(name), known, n=1)
    if near:
        return f"; did you mean `{near[0]}`?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"; known: {shown or 'none'}"


def _read_scene_lists(config: dict[str, Any], base: Path) -> list[str]:
    """Replace every path of a scene list by the names in it."""
    problems = []
    lists = [(f"datasets.{name}", dataset, "scenes") for name, dataset in config["datasets"].items()]
    lists += [
        (f"splits.{split}.{part}", parts[part], dataset)
        for split, parts in config["splits"].items()
        for part in _parts(parts)
        for dataset in parts[part]
    ]
    for where, holder, key in lists:
        if isinstance(holder[key], str):
            try:
                text = (base / holder[key]).read_text(encoding="utf-8")
            except OSError as error:
                problems.append(f"{where}.{key}: the scene list {base / holder[key]} cannot be read: {error.strerror}")
                continue
            lines = (line.partition("#")[0].strip() for line in text.splitlines())
            holder[key] = [line for line in lines if line]
    return problems


def _parts(split: Mapping[str, Any]) -> list[str]:
    return [part for part in PARTS if part in split]


def _share_training(splits: dict[str, Any]) -> Iterator[str]:
    """Give splits that are ``trained_on`` another one its scenes to train and validate on."""
    for name, split in splits.items():
        if "trained_on" not in split:
            continue
        wanted = split["trained_on"]
        if wanted not in splits:
            yield f"splits.{name}.trained_on: `{wanted}` is not defined{_hint(wanted, splits)}"
        elif "trained_on" in splits[wanted]:
            yield f"splits.{name}.trained_on: `{wanted}` has no training of its own; name the split that has"
        elif own := [part for part in ("train", "val") if part in split]:
            yield f"splits.{name} is trained on `{wanted}`, and cannot have scenes of its own to {own[0]}; remove one"
        else:
            split |= {part: splits[wanted][part] for part in ("train", "val") if part in splits[wanted]}


def _ablation_problems(config: dict[str, Any]) -> Iterator[str]:
    for name, ablation in config.get("ablations", {}).items():
        if ablation["experiment"] not in config["experiments"]:
            wanted = ablation["experiment"]
            yield f"ablations.{name}.experiment: `{wanted}` is not defined{_hint(wanted, config['experiments'])}"
        for split in {ablation["split"], *(v["split"] for v in ablation["variants"] if "split" in v)}:
            if split not in config["splits"]:
                yield f"ablations.{name}.split: `{split}` is not defined{_hint(split, config['splits'])}"
        repeated = _repeated([variant["name"] for variant in ablation["variants"]])
        yield from (f"ablations.{name}.variants: `{variant}` is named twice" for variant in repeated)
        runs = _variant_runs(name, ablation)
        for split, _ in _repeated(runs):
            yield f"ablations.{name}.variants: more than one changes nothing on the split `{split}`"
        for _, experiment in runs:
            if experiment in config["experiments"] and experiment != ablation["experiment"]:
                yield f"ablations.{name}: there is an experiment `{experiment}` already; rename one"


def _variants(config: dict[str, Any]) -> dict[str, Any]:
    """The experiments that the variants of all ablations add."""
    experiments = {}
    for name, ablation in config["ablations"].items():
        base = config["experiments"][ablation["experiment"]]
        for variant in ablation["variants"]:
            changes = {key: value for key, value in variant.items() if key not in ("name", "split")}
            experiment = _variant_experiment(name, ablation, variant)
            if experiment != ablation["experiment"]:
                experiments[experiment] = {**_laid_over(base, changes), "title": variant["name"]}
    return experiments


def _laid_over(base: Any, changes: Any) -> Any:
    """``base`` with ``changes``; maps merge, unless their `name` differs, and nothing (null) takes a key away."""
    mergeable = isinstance(base, dict) and isinstance(changes, dict)
    if not mergeable or changes.get("name", base.get("name")) != base.get("name"):
        return changes
    merged = base | {key: _laid_over(base.get(key), value) for key, value in changes.items()}
    return {key: value for key, value in merged.items() if value is not None or key not in changes}


def _cross_check(config: dict[str, Any]) -> Iterator[str]:
    for kind in ("splits", "experiments", "benchmarks"):
        names = config["run"][kind]
        yield from (f"run.{kind}: `{n}` is not defined{_hint(n, config[kind])}" for n in names if n not in config[kind])
    for name, dataset in config["datasets"].items():
        yield from (f"datasets.{name}.{problem}" for problem in _dataset_problems(name, dataset))
    for name, split in config["splits"].items():
        yield from (f"splits.{name}{problem}" for problem in _split_problems(split, config["datasets"]))
    for name, experiment in config["experiments"].items():
        yield from (f"experiments.{name}.{problem}" for problem in _experiment_problems(experiment))
    for name, settings in config["benchmarks"].items():
        yield from (f"benchmarks.{name}.{problem}" for problem in _benchmark_problems(settings))
    yield from _run_problems(config)


def _published_problems(config: dict[str, Any], base: Path) -> Iterator[str]:
    named = {name: e["published"] for name, e in config["experiments"].items() if "published" in e}
    files = sorted((base / "config/published_results").glob("*.csv")) if named else []
    known = {line["method"] for file in files for line in csv.DictReader(file.read_text(encoding="utf-8").splitlines())}
    for name, method in named.items():
        if method not in known:
            hint = _hint(method, known)
            yield f"experiments.{name}.published: `{method}` is no method of config/published_results{hint}"


def _benchmark_problems(settings: dict[str, Any]) -> Iterator[str]:
    for key, bins in settings.items():
        if key.endswith("_bins") and any(low >= high for low, high in pairwise(bins)):
            yield f"{key}: {bins} do not increase"
    if settings.get("kappa") is not None and settings["rho"] >= settings["kappa"]:
        yield f"rho ({settings['rho']} m) must be less than kappa ({settings['kappa']} m)"


def _dataset_problems(name: str, dataset: dict[str, Any]) -> Iterator[str]:
    yield from (f"scenes: `{scene}` is named twice" for scene in _repeated(dataset["scenes"]))
    for made in ("simulate", "reconstruct"):
        if made in dataset and dataset["raw"] != f"results/raw/{name}":
            yield f"raw: a dataset with `{made}` is made in results/raw/{name}, found {dataset['raw']!r}"
    if "reconstruct" in dataset and (dataset["format"] != "colmap" or "simulate" in dataset):
        yield "reconstruct: makes a scene of the format `colmap` from photographs, and is not for simulated scenes"
    if "simulate" in dataset:
        count = {"matterport3d": "panoramas", "hpatches": None}.get(dataset["format"], "images")
        if count and count not in dataset["simulate"]:
            yield f"simulate lacks the key `{count}`, which the format `{dataset['format']}` needs"


def _split_problems(split: dict[str, Any], datasets: dict[str, Any]) -> Iterator[str]:
    for part in _parts(split):
        for dataset, names in split[part].items():
            if dataset not in datasets:
                yield f".{part}: the dataset `{dataset}` is not defined{_hint(dataset, datasets)}"
                continue
            known = datasets[dataset]["scenes"]
            unknown = (name for name in names if name not in known)
            yield from (f".{part}: `{name}` is no scene of datasets.{dataset}{_hint(name, known)}" for name in unknown)
            yield from (f".{part}: `{name}` of {dataset} is named twice" for name in _repeated(names))
    tested = [name for names in split["test"].values() for name in names]
    for name in _repeated(tested):
        holders = [dataset for dataset, names in split["test"].items() if name in names]
        if len(holders) > 1:
            named = " and ".join(holders)
            yield f".test: `{name}` is a scene of {named}, and tables tell scenes by name: use two splits"
    for one, other in combinations(_parts(split), 2):
        for dataset in split[one].keys() & split[other].keys():
            shared = sorted(set(split[one][dataset]) & set(split[other][dataset]))
            yield from (f": `{name}` of {dataset} is in both {one} and {other}" for name in shared)
    if not any(split["test"].values()):
        yield " has no test scene, so nothing could be measured: move a scene to its `test` part"


def _experiment_problems(experiment: dict[str, Any]) -> Iterator[str]:
    model, train = experiment["model"], experiment.get("train")
    yield from _model_problems("model", model)
    if experiment.get("cache"):
        yield from _cache_problems(model, train or {})
    if "pca" in experiment:
        if not _is_frozen_backbone(model) or (model.get("head") or {}).get("name") != "linear":
            yield "pca: is of a `backbone` that is not trained, with `head: {name: linear, dim: ...}`"
        if train:
            yield "pca: gives the weights that `train` would; remove one of them"
    if train:
        if not _has_weights_to_train(model):
            yield f"train: this model ({model['name']}) has no weights to train; remove `train`"
        yield from _training_problems(train)


def _cache_problems(model: dict[str, Any], train: dict[str, Any]) -> Iterator[str]:
    if not _is_frozen_backbone(model):
        yield "cache: stores the features of a `backbone` that is not trained (`model.train: none`); drop it"
    elif not model["backbone"].get("pretrained", True):
        yield "cache: the features of random weights differ from seed to seed; drop it"
    elif (model.get("head") or {}).get("class_token"):
        yield "cache: the class token is not stored; drop `cache`, or `class_token` of the head"
    if "augment" in train:
        yield "cache: stored features do not change with the image; remove `train.augment` or `cache`"


def _training_problems(train: dict[str, Any]) -> Iterator[str]:
    yield from _radii_problems("train.loss", train["loss"])
    if "warmup" in train:
        yield from _radii_problems("train.warmup.loss", train["warmup"]["loss"])
        if train["warmup"]["steps"] >= train["steps"]:
            steps = f"train.warmup.steps ({train['warmup']['steps']}) must be less than train.steps ({train['steps']})"
            yield f"{steps}: they are among them, and `train.loss` would never be used"
    if train["optimiser"]["warmup_steps"] >= train["steps"]:
        rise = f"train.optimiser.warmup_steps ({train['optimiser']['warmup_steps']})"
        yield f"{rise} must be less than train.steps ({train['steps']})"
    if train["validate_every"] > train["steps"] and (train.get("keep") == "best" or "early_stop" in train):
        every = f"train.validate_every ({train['validate_every']}) is more than train.steps ({train['steps']})"
        yield f"{every}: no validation would tell which weights are the best"
    batch, processes = train["batch"], train.get("processes", 1)
    images = batch["images"] if "radius" in batch else batch["scenes"] * batch["images_per_scene"]
    if images < processes:
        yield f"train.processes: {processes} cannot share the {images} images of a batch out"


def _model_problems(where: str, model: dict[str, Any]) -> Iterator[str]:
    if model["name"] == "backbone":
        if model["backbone"]["name"] == "onnx" and model.get("train", "none") != "none":
            yield f"{where}.train: a backbone of the kind `onnx` cannot be trained; remove `train`, give it a `head`"
    elif model["name"] == "concat":
        for number, member in enumerate(model["models"]):
            yield from _model_problems(f"{where}.models.{number}", member)
            if stride_of(member) != model["stride"]:
                found = stride_of(member)
                yield f"{where}.models.{number}: its stride is {found}, that of the whole is {model['stride']}"


def _is_frozen_backbone(model: dict[str, Any]) -> bool:
    return model["name"] == "backbone" and model.get("train", "none") == "none"


def _has_weights_to_train(model: dict[str, Any]) -> bool:
    match model["name"]:
        case "dense_sift" | "pretrained" | "published":
            return False
        case "backbone":
            return not _is_frozen_backbone(model) or model.get("head") is not None
        case "concat":
            return any(map(_has_weights_to_train, model["models"]))
    return True


def _radii_problems(name: str, loss: dict[str, Any]) -> Iterator[str]:
    rhos, kappas = ([radius] if isinstance(radius, (int, float)) else radius for radius in (loss["rho"], loss["kappa"]))
    if len(rhos) != len(kappas):
        yield f"{name}: each scale has a rho and a kappa, found {len(rhos)} and {len(kappas)}"
    for rho, kappa in zip(rhos, kappas):
        if rho >= kappa:
            yield f"{name}: rho ({rho} m) must be less than kappa ({kappa} m)"


def _run_problems(config: dict[str, Any]) -> Iterator[str]:
    run = config["run"]
    compared = dict.fromkeys(name for pair in run.get("comparisons", []) for name in pair)
    yield from (
        f"run.comparisons: `{name}` is not in run.experiments{_hint(name, run['experiments'])}"
        for name in compared
        if name not in run["experiments"]
    )
    if not all(split in config["splits"] for split in run["splits"]):
        return
    trained = set(product(run["splits"], run["experiments"]))
    trained |= {pair for name in config.get("ablations", {}) for pair in ablation_rows(config, name)}
    for split, name in sorted(trained):
        yield from _split_for_training_problems(config, split, name, config["experiments"].get(name, {}))
    for benchmark in (name for name in run["benchmarks"] if not judged_splits(config, run["splits"], name)):
        needs = " or ".join(" and ".join(sorted(need)) for need in NEEDS[benchmark])
        yield f"run.benchmarks: `{benchmark}` needs test scenes that give {needs}; no split of the run has one"
    wanted, found = config["figures"]["scene"], figure_scene(config)
    if wanted is not None and found is None:
        tested = [scene for split in run["splits"] for _, scene in scenes(config, split, "test")]
        yield f"figures.scene: `{wanted}` is no test scene of run.splits{_hint(wanted, tested)}"
    elif found and "places" not in given_by(config["datasets"][found[1]]):
        yield f"figures.scene: the images of `{wanted}` have no 3D places to show; name another scene, or null"


def _split_for_training_problems(
    config: dict[str, Any], split: str, name: str, experiment: dict[str, Any]
) -> Iterator[str]:
    """Why an experiment cannot be trained on a split, if it is trained at all."""
    train = experiment.get("train", {})
    if experiment.keys() & {"train", "pca"} and not scenes(config, split, "train"):
        yield f"splits.{split} has no training scene, which experiments.{name} needs"
    if (train.get("keep") == "best" or "early_stop" in train) and not scenes(config, split, "val"):
        yield f"splits.{split} has no validation scene, by which experiments.{name}.train decides what to keep"


def _repeated(names: Iterable[Any]) -> list[Any]:
    return [name for name, count in Counter(names).items() if count > 1]
