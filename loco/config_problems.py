"""Cross-check a configuration that satisfies the schema: undefined names, and contradictory settings."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

from loco.config_files import room_of, scans_of, scene_identities
from loco.config_layers import MADE, made_folder
from loco.config_phases import phase_problems
from loco.config_queries import (
    PARTS,
    ablation_rows,
    benchmark_splits,
    figure_scene,
    provided_by,
    scenes,
    seen_scenes,
    variant_runs,
)
from loco.datasets.catalogue import FORMATS
from loco.errors import hint
from loco.evaluation.catalogue import BENCHMARKS
from loco.evaluation.defaults import SEEN_WITHIN, UNSEEN_BEYOND
from loco.files import decode_text, is_plain_path
from loco.models.catalogue import COMPUTED, has_maps, map_stride_of, stride_of

ALWAYS_FROZEN = ("onnx", "timm")  # backbones that cannot be trained
PATH_KEYS = ("raw", "images", "mapping", "path", "init")  # their values are files and folders, inputs of rules


def share_training(splits: dict[str, Any]) -> Iterator[str]:
    """Copy training and validation scenes to splits that are ``trained_on`` another split; yield problems."""
    for name, split in splits.items():
        if "trained_on" not in split:
            continue
        wanted = split["trained_on"]
        if wanted not in splits:
            yield f"splits.{name}.trained_on: `{wanted}` is not defined{hint(wanted, splits)}"
        elif "trained_on" in splits[wanted]:
            yield f"splits.{name}.trained_on: `{wanted}` is itself `trained_on` a split; name that split"
        elif stated := [part for part in ("train", "val") if part in split]:
            yield f"splits.{name} has both `trained_on: {wanted}` and `{stated[0]}`; remove one of them"
        else:
            split |= {part: splits[wanted][part] for part in ("train", "val") if part in splits[wanted]}


def ablation_problems(config: dict[str, Any]) -> Iterator[str]:
    """Yield problems of the ablations: undefined experiments and splits, repeated variants and names."""
    for name, ablation in config.get("ablations", {}).items():
        if ablation["experiment"] not in config["experiments"]:
            wanted = ablation["experiment"]
            yield f"ablations.{name}.experiment: `{wanted}` is not defined{hint(wanted, config['experiments'])}"
        for split in {ablation["split"], *(v["split"] for v in ablation["variants"] if "split" in v)}:
            if split not in config["splits"]:
                yield f"ablations.{name}.split: `{split}` is not defined{hint(split, config['splits'])}"
        repeated = _repeated([variant["name"] for variant in ablation["variants"]])
        yield from (
            f"ablations.{name}.variants: two variants are named `{variant}`; rename one" for variant in repeated
        )
        runs = variant_runs(name, ablation)
        for split, _ in _repeated(runs):
            yield f"ablations.{name}.variants: more than one variant has no changes on `{split}`; remove all but one"
        for _, experiment in runs:
            if experiment in config["experiments"] and experiment != ablation["experiment"]:
                yield f"ablations.{name}: the experiment `{experiment}` is also defined elsewhere; rename one"


def cross_check(config: dict[str, Any]) -> Iterator[str]:
    """Yield all contradictions between the settings of a configuration that satisfies the schema."""
    for kind in ("splits", "experiments", "benchmarks"):
        names = config["run"][kind]
        yield from (f"run.{kind}: `{n}` is not defined{hint(n, config[kind])}" for n in names if n not in config[kind])
    yield from _path_problems(config, "")
    for name, dataset in config["datasets"].items():
        yield from (f"datasets.{name}.{problem}" for problem in _dataset_problems(name, dataset))
    identities = scene_identities(config, _used_places(config))
    for name, split in config["splits"].items():
        yield from (f"splits.{name}{problem}" for problem in _split_problems(split, config["datasets"]))
        yield from (f"splits.{name}: {problem}" for problem in _leaks(split, identities))
        if not split.get("allow_rescans"):
            yield from (f"splits.{name}: {problem}" for problem in _rescans(split, config["datasets"]))
    for name, experiment in config["experiments"].items():
        yield from (f"experiments.{name}.{problem}" for problem in _experiment_problems(experiment))
    for name, settings in config["benchmarks"].items():
        yield from (f"benchmarks.{name}.{problem}" for problem in _benchmark_problems(settings))
    yield from _run_problems(config)


def _path_problems(value: Any, where: str) -> Iterator[str]:
    """Yield paths of rule inputs that Snakemake or a terminal would misinterpret."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in PATH_KEYS and isinstance(item, str) and not is_plain_path(item):
                yield (
                    f"{where}{key}: {item!r} contains braces or control characters, and Snakemake reads `{{...}}` as a "
                    "wildcard; rename the folder, or use a symbolic link to it"
                )
            yield from _path_problems(item, f"{where}{key}.")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _path_problems(item, f"{where}{number}.")


def published_problems(config: dict[str, Any], base: Path) -> Iterator[str]:
    """Yield experiments whose ``published`` is not a method of ``config/published_results/``."""
    named = {name: e["published"] for name, e in config["experiments"].items() if "published" in e}
    files = sorted((base / "config/published_results").glob("*.csv")) if named else []
    known = {line["method"] for file in files for line in csv.DictReader(decode_text(file.read_bytes()).splitlines())}
    for name, method in named.items():
        if method not in known:
            unknown = f"`{method}` is not a method of config/published_results"
            yield f"experiments.{name}.published: {unknown}{hint(method, known)}"


def _benchmark_problems(settings: dict[str, Any]) -> Iterator[str]:
    for key, bins in settings.items():
        if key.endswith("_bins") and any(low >= high for low, high in pairwise(bins)):
            yield f"{key}: expected increasing edges, found {bins}"
    if settings.get("kappa") is not None and settings["rho"] >= settings["kappa"]:
        yield f"rho ({settings['rho']} m) must be less than kappa ({settings['kappa']} m)"
    within, beyond = settings.get("seen_within", SEEN_WITHIN), settings.get("unseen_beyond", UNSEEN_BEYOND)
    if within > beyond:
        yield f"seen_within ({within} m) must not exceed unseen_beyond ({beyond} m)"
    if settings.get("seen_by_training", "ignore") == "ignore":
        for key in ("seen_within", "unseen_beyond"):
            if key in settings:
                yield f"{key}: has no effect without `seen_by_training: report`; remove it"
    if settings.get("refine") != "soft_argmax":
        for key in ("refine_temperature", "refine_window"):
            if key in settings:
                yield f"{key}: has no effect without `refine: soft_argmax`; remove it"


def _dataset_problems(name: str, dataset: dict[str, Any]) -> Iterator[str]:
    yield from (f"scenes: `{scene}` is listed twice; remove one" for scene in _repeated(dataset["scenes"]))
    for made in MADE:
        if made in dataset and dataset["raw"] != (folder := made_folder(name)):
            yield f"raw: a dataset with `{made}` is written to {folder}, found {dataset['raw']!r}; remove `raw`"
    if "world_frame" in dataset and "places" not in provided_by(dataset):
        yield f"world_frame: the format `{dataset['format']}` has no 3D points; remove it"
    if "reconstruct" in dataset and (dataset["format"] != "colmap" or "simulate" in dataset):
        yield "reconstruct: requires `format: colmap` and real photographs; remove it, or change the format"
    if "depth_scale" in dataset and (
        "simulate" in dataset or "depth_scale" not in FORMATS[dataset["format"]].conventions
    ):
        formats = ", ".join(name for name, format in FORMATS.items() if "depth_scale" in format.conventions)
        yield f"depth_scale: applies to real data in the formats {formats}; other files state their scale, so remove it"
    stride, sides = dataset["patches"]["stride"], [dataset["frames"].get(side) for side in ("height", "width")]
    if None not in sides and stride > min(sides):
        yield f"patches.stride: expected at most the smaller side of the frames, {min(sides)} pixels, found {stride}"
    if "simulate" in dataset:
        yield from _image_count_problems(dataset["format"], dataset["simulate"])


def _image_count_problems(format: str, simulate: dict[str, Any]) -> Iterator[str]:
    """Yield problems of the number of images of simulated scenes, which each format takes from one key."""
    if format == "hpatches":  # has a fixed number of images
        return
    count, other = ("panoramas", "images") if format == "matterport3d" else ("images", "panoramas")
    if other in simulate:
        remedy = "remove it" if count in simulate else f"write `{count}` instead"
        yield f"simulate.{other}: has no effect in the format `{format}`, which takes `{count}`; {remedy}"
    elif count not in simulate:
        yield f"simulate lacks the key `{count}`, which the format `{format}` requires"


def _split_problems(split: dict[str, Any], datasets: dict[str, Any]) -> Iterator[str]:
    for part in _parts(split):
        for dataset, names in split[part].items():
            if dataset not in datasets:
                yield f".{part}: the dataset `{dataset}` is not defined{hint(dataset, datasets)}"
                continue
            known = datasets[dataset]["scenes"]
            unknown = (name for name in names if name not in known)
            yield from (
                f".{part}: `{name}` is not a scene of datasets.{dataset}{hint(name, known)}" for name in unknown
            )
            yield from (f".{part}: `{name}` of {dataset} is listed twice; remove one" for name in _repeated(names))
    tested = [name for names in split["test"].values() for name in names]
    for name in _repeated(tested):
        holders = [dataset for dataset, names in split["test"].items() if name in names]
        if len(holders) > 1:
            named = " and ".join(holders)
            yield f".test: `{name}` is a scene of {named}, but tables identify scenes by their name: use two splits"
    if not any(split["test"].values()):
        yield " has no test scene; move a scene to its `test` part"


def _used_places(config: dict[str, Any]) -> set[tuple[str, str]]:
    """Return (dataset, scene) of all splits whose datasets are defined."""
    places = {place for split in config["splits"] for place in scenes(config, split)}
    return {place for place in places if place[0] in config["datasets"]}


def _leaks(split: dict[str, Any], identities: Mapping[tuple[str, str], frozenset[str]]) -> Iterator[str]:
    """Yield scenes that are in two parts of a split, possibly under different names or through links."""
    for one, other in combinations(_parts(split), 2):
        holders: dict[str, tuple[str, str]] = {}  # source of a scene of `one` -> the scene
        for place in _places(split[one]):
            holders |= dict.fromkeys(identities.get(place, ()), place)
        for dataset, name in _places(split[other]):
            if name in split[one].get(dataset, ()):
                yield f"`{name}` of {dataset} is in both {one} and {other}; remove it from one of them"
            elif shared := sorted(identities.get((dataset, name), frozenset()) & holders.keys()):
                first, scene = holders[shared[0]]
                yield (
                    f"`{scene}` of {first} in {one} and `{name}` of {dataset} in {other} are the same scene "
                    f"({shared[0]}); remove one of them"
                )


def _rescans(split: dict[str, Any], datasets: dict[str, Any]) -> Iterator[str]:
    """Yield rooms of ScanNet with scans in two parts of a split."""
    rooms: dict[str, dict[str, set[str]]] = {}  # part -> room -> its scans
    for part in _parts(split):
        rooms[part] = {}
        for dataset, name in _places(split[part]):
            for scan in scans_of(datasets[dataset], name) if dataset in datasets else ():
                rooms[part].setdefault(room_of(scan), set()).add(scan)
    for one, other in combinations(rooms, 2):
        shared = sorted(rooms[one].keys() & rooms[other].keys())
        pairs = [(min(rooms[one][room]), min(rooms[other][room] - rooms[one][room], default="")) for room in shared]
        examples = [f"{first} and {second}" for first, second in pairs if second]
        if examples:
            shown = ", ".join(examples[:3]) + (", ..." if len(examples) > 3 else "")
            yield (
                f"{len(examples)} room(s) of ScanNet have scans in both {one} and {other}: {shown}; move all scans of "
                "a room to one part, or set `allow_rescans: true` in the split"
            )


def _places(part: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """Return (dataset, scene) of a part of a split."""
    return [(dataset, name) for dataset, names in part.items() for name in names]


def _experiment_problems(experiment: dict[str, Any]) -> Iterator[str]:
    model, train = experiment["model"], experiment.get("train")
    if not has_maps(model):
        refused = [key for key in ("train", "pca", "cache") if key in experiment]
        yield from (f"{key}: `{model['name']}` has no weights and no feature maps; remove it" for key in refused)
        return
    yield from _model_problems("model", model)
    if experiment.get("cache"):
        yield from _cache_problems(model, train or {})
    if "pca" in experiment:
        if not _is_frozen_backbone(model) or (model.get("head") or {}).get("name") != "linear":
            yield "pca: requires a `backbone` that is not trained and `head: {name: linear, dim: ...}`"
        if train:
            yield "pca: `pca` and `train` both determine the weights of the head; remove one of them"
    if train:
        if not _has_weights_to_train(model):
            yield f"train: this model ({model['name']}) has no weights to train; remove `train`{_how_to_train(model)}"
        yield from _training_problems(model, train)
        yield from _augmentation_problems(train.get("augment", {}), stride_of(model))


def _cache_problems(model: dict[str, Any], train: dict[str, Any]) -> Iterator[str]:
    if not _is_frozen_backbone(model):
        yield "cache: requires a `backbone` that is not trained (`model.train: none`); remove it"
    elif not model["backbone"].get("pretrained", True):
        yield "cache: the features of random weights depend on the seed; remove it"
    elif (model.get("head") or {}).get("class_token"):
        yield "cache: the class token is not stored; remove `cache`, or `class_token` of the head"
    if "augment" in train:
        yield "cache: stored features do not depend on the augmentation; remove `train.augment` or `cache`"


def _training_problems(model: dict[str, Any], train: dict[str, Any]) -> Iterator[str]:
    yield from phase_problems(model, train)
    batch, processes = train["batch"], train.get("processes", 1)
    images = batch["images"] if "radius" in batch else batch["scenes"] * batch["images_per_scene"]
    if images < processes:
        yield f"train.processes: a batch of {images} images cannot be divided among {processes} ranks; reduce it"
    if processes % (nodes := train.get("nodes", 1)):
        yield f"train.processes ({processes}) must be a multiple of train.nodes ({nodes})"


def _augmentation_problems(augment: dict[str, Any], stride: int) -> Iterator[str]:
    low, high = augment.get("scale", (1, 1))
    if low > high:
        yield f"train.augment.scale: expected [lowest, highest], found [{low}, {high}]"
    for size in augment.get("sizes", ()):
        if any(side % stride for side in size):
            yield f"train.augment.sizes: {size} are not multiples of the model's stride, {stride} pixels"
    if "crop" in augment and not augment.keys() & {"scale", "sizes"}:
        yield "train.augment.crop: has no effect without `scale` or `sizes`; add one of them, or remove it"


def _model_problems(where: str, model: dict[str, Any]) -> Iterator[str]:
    if "upsample" in model and stride_of(model) >= map_stride_of(model):
        yield (
            f"{where}.upsample.stride: expected less than the stride of the model, {map_stride_of(model)}, found "
            f"{stride_of(model)}; reduce it, or remove `upsample`"
        )
    if model["name"] == "backbone":
        if model["backbone"]["name"] == "onnx" and model.get("train", "none") != "none":
            yield f"{where}.train: a backbone of the kind `onnx` cannot be trained; remove `train`, and add a `head`"
    elif model["name"] == "concat":
        for number, member in enumerate(model["models"]):
            if not has_maps(member):
                yield f"{where}.models.{number}: `{member['name']}` has no feature maps to concatenate; remove it"
                continue
            if member["name"] == COMPUTED:
                yield f"{where}.models.{number}: features that another program computed cannot be joined; remove it"
            yield from _model_problems(f"{where}.models.{number}", member)
            if stride_of(member) != model["stride"]:
                yield (
                    f"{where}.models.{number}: expected the stride of `concat`, {model['stride']}, found "
                    f"{stride_of(member)}; set both to the same value"
                )


def _is_frozen_backbone(model: dict[str, Any]) -> bool:
    return model["name"] == "backbone" and model.get("train", "none") == "none"


def _has_weights_to_train(model: dict[str, Any]) -> bool:
    match model["name"]:
        case "dense_sift" | "features" | "pretrained" | "published" | "python" | "sift_keypoints":
            return False
        case "backbone":
            return not _is_frozen_backbone(model) or model.get("head") is not None
        case "concat":
            return any(map(_has_weights_to_train, model["models"]))
    return True


def _how_to_train(model: dict[str, Any]) -> str:
    """Return how a frozen backbone can be trained, as the end of a message."""
    if model["name"] != "backbone":
        return ""
    whole = "" if model["backbone"]["name"] in ALWAYS_FROZEN else ", or train the backbone (`model.train`)"
    return f", or add a head (`model.head`){whole}"


def _run_problems(config: dict[str, Any]) -> Iterator[str]:
    run = config["run"]
    compared = dict.fromkeys(name for pair in run.get("comparisons", []) for name in pair)
    defined = [name for name in run["experiments"] if name in config["experiments"]]  # others are reported above
    for name in (name for name in compared if name not in run["experiments"]):
        remedy = "; add it there" if name in config["experiments"] else hint(name, defined)
        yield f"run.comparisons: `{name}` is not in run.experiments{remedy}"
    yield from _title_problems(config)
    if not all(split in config["splits"] for split in run["splits"]):
        return
    trained = set(product(run["splits"], run["experiments"]))
    trained |= {pair for name in config.get("ablations", {}) for pair in ablation_rows(config, name)}
    for split, name in sorted(trained):
        yield from _split_for_training_problems(config, split, name, config["experiments"].get(name, {}))
    known = [name for name in run["benchmarks"] if name in BENCHMARKS]  # others are reported above
    for benchmark in (name for name in known if not benchmark_splits(config, run["splits"], name)):
        needs = " or ".join(" and ".join(sorted(need)) for need in BENCHMARKS[benchmark].requires)
        yield f"run.benchmarks: `{benchmark}` requires test scenes that provide {needs}; no split of the run has one"
    for name in (name for name in run["experiments"] if name in config["experiments"]):
        if has_maps(config["experiments"][name]["model"]):
            continue
        without = [benchmark for benchmark in known if not BENCHMARKS[benchmark].keypoints]
        if without == known:
            possible = ", ".join(entry.name for entry in BENCHMARKS.values() if entry.keypoints)
            yield f"run.experiments: `{name}` has no feature maps; run a benchmark that matches keypoints ({possible})"
        elif without and name in compared:
            yield f"run.comparisons: `{name}` has no feature maps and no row in {without[0]}; remove its comparisons"
    for benchmark in known:
        if config["benchmarks"].get(benchmark, {}).get("seen_by_training") == "report" and not any(
            seen_scenes(config, split, benchmark) for split in run["splits"]
        ):
            yield (
                f"benchmarks.{benchmark}.seen_by_training: no split of the run has training scenes in the world "
                "frame of its test scenes; set `datasets.<name>.world_frame` if they share one, or remove "
                "`seen_by_training`"
            )
    wanted, found = config["figures"]["scene"], figure_scene(config)
    if wanted is not None and found is None:
        tested = [scene for split in run["splits"] for _, scene in scenes(config, split, "test")]
        yield f"figures.scene: `{wanted}` is not a test scene of run.splits{hint(wanted, tested)}"
    elif found and "places" not in provided_by(config["datasets"][found[1]]):
        yield f"figures.scene: the images of `{wanted}` have no 3D points; name another scene, or null"


def _title_problems(config: dict[str, Any]) -> Iterator[str]:
    """Yield experiments whose table rows have the same title."""
    names: dict[str, list[str]] = {}
    for name in config["run"]["experiments"]:
        if name in config["experiments"]:
            title = " ".join(config["experiments"][name]["title"].split())
            names.setdefault(title, []).append(f"`{name}`")
    for title, holders in names.items():
        if len(holders) > 1:
            yield f"run.experiments: {' and '.join(holders)} have the same title, {title!r}; change one `title`"


def _split_for_training_problems(
    config: dict[str, Any], split: str, name: str, experiment: dict[str, Any]
) -> Iterator[str]:
    """Yield the reasons why an experiment with `train` or `pca` cannot be trained on a split."""
    train = experiment.get("train", {})
    if experiment.keys() & {"train", "pca"} and not scenes(config, split, "train"):
        yield f"splits.{split} has no training scene, which experiments.{name} requires"
    if (train.get("keep") == "best" or "early_stop" in train) and not scenes(config, split, "val"):
        yield f"splits.{split} has no validation scene, which experiments.{name}.train requires (`keep`, `early_stop`)"


def _repeated(names: Iterable[Any]) -> list[Any]:
    return [name for name, count in Counter(names).items() if count > 1]


def _parts(split: Mapping[str, Any]) -> list[str]:
    return [part for part in PARTS if part in split]
