"""Check the files that a configuration consists of and refers to: YAML, scene lists, weights, tables, raw scenes."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.cyaml import CParser
from yaml.resolver import Resolver

from loco.config_queries import PARTS
from loco.config_schema import MAX_LEVELS, MAX_VALUES, name_problem
from loco.errors import ConfigError
from loco.weights import is_product, weights_problem

LARGEST_FILE = 4 << 20  # bytes of a YAML file or a scene list; the list of all 1,513 scans of ScanNet has 20 kB
MAX_SHOWN = 5  # largest number of reported problems per scene list
SCANNET_FORMATS = ("scannet", "scannet_pairs")
_SCAN = re.compile(r"(scene\d{4})_\d{2}")  # ScanNet's name of a scan: number of the room, number of the scan


def resolve(path: str | Path, base: str | Path) -> Path:
    """Return the path of a scene list or a table of labels: in the working directory or, failing that, below ``base``.

    Args:
        path: as in the configuration.
        base: folder of the workflow, with the files that it includes.

    Returns:
        The first of the two that exists; ``path`` unchanged if neither does.
    """
    here = Path(os.path.expanduser(path))
    there = Path(base) / here
    return there if os.path.exists(there) and not os.path.exists(here) else here


def read_text(path: Path) -> str:
    """Return the text of a small UTF-8 file.

    Raises:
        ConfigError: states the reason, without the path: missing, not a regular file, too large, or not UTF-8.
    """
    try:
        found = os.stat(path)  # before opening: a pipe would block, and /dev/zero never ends
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError("is not a regular file; write its content to a file")
        if found.st_size > LARGEST_FILE:
            raise ConfigError(f"has {found.st_size:,} bytes, expected {LARGEST_FILE:,} at most; correct the path")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"line {line} is not UTF-8 text; save the file in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # a null byte in the path
        raise ConfigError(f"cannot be read: {error}") from None


# YAML files ----------------------------------------------------------------------------------------------------------


def check_files(paths: Iterable[str | Path]) -> None:
    """Check YAML files for problems that are lost when they are read into dicts: repeated keys, and aliases.

    Raises:
        ConfigError: lists all problems of all files: repeated keys, text that is not UTF-8 or not YAML, aliases that
            contain themselves or expand to too much, nesting that is too deep.
    """
    problems = []
    for path in paths:
        try:
            problems += [f"{path}: {problem}" for problem in _yaml_problems(read_text(Path(path)))]
        except ConfigError as error:
            problems.append(f"{path} {error}")
    if problems:
        raise ConfigError("\n".join(["these configuration files cannot be used:", *(f"  - {p}" for p in problems)]))


class _Loader(Composer, CParser, SafeConstructor, Resolver):
    """A safe loader that refuses deep nesting before Python's recursion limit is reached. It uses the events of
    libyaml, because the scanner of PyYAML takes seconds for long lists of scenes."""

    levels = 0

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        for part in (Composer, SafeConstructor, Resolver):
            part.__init__(self)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.levels += 1
        if self.levels > MAX_LEVELS:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_LEVELS} levels deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.levels -= 1
        return node


def _yaml_problems(text: str) -> list[str]:
    try:
        json.loads(text)
        text = text.replace("\t", " ")  # JSON may be indented by tabs, YAML may not; neither has tabs inside strings
    except (ValueError, RecursionError):
        pass
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            return ["expected a map of keys at the top level"]
        sizes: dict[yaml.Node, int | None] = {}
        problems = list(_node_problems(loader, root, "", sizes))
        if (size := sizes[root]) and size > MAX_VALUES:
            problems.append(f"its aliases (`*`) expand to more than {MAX_VALUES:,} values; remove some of them")
        if not problems:
            loader.construct_document(root)
        return problems
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        return [f"{where}{error.problem or error.context}"]
    except (yaml.YAMLError, ValueError) as error:
        return [str(error).replace("\n", " ")]


def _node_problems(loader: _Loader, node: yaml.Node, where: str, sizes: dict[yaml.Node, int | None]) -> Iterator[str]:
    """Yield problems of a node and all its descendants; nodes shared by aliases are visited once.

    Args:
        where: dotted path of the node.
        sizes: receives the number of values to which each node expands; None while the node is being visited.
    """
    if node in sizes:
        if sizes[node] is None:
            yield f"`{where}` is an alias of a value that contains it (line {node.start_mark.line + 1}); remove it"
        return
    sizes[node] = None
    children: list[tuple[str, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        children = [(f"{where}.{key.value}".lstrip("."), value) for key, value in node.value]
        yield from _key_problems(loader, node, where)
    elif isinstance(node, yaml.SequenceNode):
        children = [(f"{where}.{number}", value) for number, value in enumerate(node.value)]
    for path, child in children:
        yield from _node_problems(loader, child, path, sizes)
    sizes[node] = 1 + sum(sizes[child] or 0 for _, child in children)


def _key_problems(loader: _Loader, node: yaml.MappingNode, where: str) -> Iterator[str]:
    """Yield keys that are set twice. Keys of a merge (``<<``) are not counted, because other keys override them."""
    lines: dict[Any, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        path = f"{where}.{key.value}".lstrip(".")
        if not isinstance(key, yaml.ScalarNode):
            yield f"line {line}: a key of `{where or 'the top level'}` is not text; write a name"
            continue
        merge = key.tag == "tag:yaml.org,2002:merge"
        value = ("<<",) if merge else loader.construct_object(key)
        if value not in lines:
            lines[value] = line
        elif merge:
            yield f"`{path}` is set twice, in lines {lines[value]} and {line}; write one, `<<: [*a, *b]`"
        else:
            yield f"`{path}` is set twice, in lines {lines[value]} and {line}; YAML would drop the first: remove one"


# Scene lists ---------------------------------------------------------------------------------------------------------


def read_scene_lists(config: dict[str, Any], base: Path, pattern: str) -> list[str]:
    """Replace every path of a scene list with the names that the list contains.

    Args:
        config: changed in place.
        base: folder of the workflow (:func:`resolve`).
        pattern: regular expression that every name must match completely.

    Returns:
        Problems: lists that cannot be read or are empty, and lines that are not names. The paths of these lists are not
        replaced.
    """
    lists = [(f"datasets.{name}", dataset, "scenes") for name, dataset in config["datasets"].items()]
    lists += [
        (f"splits.{split}.{part}", parts[part], dataset)
        for split, parts in config["splits"].items()
        for part in PARTS
        for dataset in parts.get(part, {})
    ]
    problems = []
    for where, holder, key in lists:
        if isinstance(holder[key], str):
            path = resolve(holder[key], base)
            try:
                holder[key] = _scene_names(read_text(path), pattern)
            except ConfigError as error:
                if os.path.exists(path):
                    problems += [f"{where}.{key}: scene list {path}: {problem}" for problem in str(error).split("\n")]
                else:
                    remedy = _list_of_names(holder[key], pattern) or "correct the path"
                    searched = f"looked for in {_searched(base)}"
                    problems.append(f"{where}.{key}: there is no scene list {path} ({searched}); {remedy}")
    return problems


def _list_of_names(text: str, pattern: str) -> str:
    """Return how to write names that stand in place of the path of a scene list; nothing for other texts."""
    names = [name.strip() for name in text.split(",")]
    is_path = Path(names[-1]).suffix or not all(_is_name(name, pattern) for name in names)
    return "" if is_path else f"for names of scenes write a list, [{', '.join(names)}]"


def _searched(base: Path) -> str:
    """Return the folders in which :func:`resolve` searches, as in a message."""
    return " and ".join(dict.fromkeys((os.getcwd(), os.path.abspath(base))))


def _scene_names(text: str, pattern: str) -> list[str]:
    """Return the names of a list: one per line, ``#`` starts a comment."""
    lines = [(number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1)]
    names = [(number, name) for number, name in lines if name]
    wrong = [f"line {number}: {name_problem(name[:100])}" for number, name in names if not _is_name(name, pattern)]
    if wrong:
        more = [f"has {len(wrong) - MAX_SHOWN} more invalid lines"] if len(wrong) > MAX_SHOWN else []
        raise ConfigError("\n".join([*wrong[:MAX_SHOWN], *more]))
    if not names:
        raise ConfigError("contains no scene; write one name per line")
    return [name for _, name in names]


def _is_name(name: str, pattern: str) -> bool:
    return re.fullmatch(pattern, name) is not None and len(name) <= 100


# Weights and tables of labels ----------------------------------------------------------------------------------------


def missing_files(config: Mapping[str, Any], experiment: str) -> list[str]:
    """Return a problem for every missing weight file of an experiment.

    Only the existence of local backbones, of models of the kinds ``pretrained``, ``published``, ``python`` and
    ``features`` and of ``train.init`` is checked, also inside ``concat``. Files below ``results/`` may be missing,
    because the workflow may write them, and names on the Hugging Face hub are not looked up. Raw scenes and photographs
    (``reconstruct.images``) are not checked here, because the check of each scene reports missing files.
    """
    setup = config["experiments"][experiment]
    named = list(_weights_of(f"experiments.{experiment}.model", setup["model"]))
    if "init" in setup.get("train", {}):
        named.append((f"experiments.{experiment}.train.init", "pretrained", setup["train"]["init"], True))
    found = ((key, weights_problem(kind, path, pretrained)) for key, kind, path, pretrained in named)
    return [f"{key}: {problem}" for key, problem in found if problem]


def _weights_of(where: str, model: Mapping[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """Yield (key, kind, path, whether weights are read or only the architecture) for all weights of a model."""
    for number, member in enumerate(model.get("models", [])):
        yield from _weights_of(f"{where}.models.{number}", member)
    if "path" in model:
        yield f"{where}.path", model["name"], model["path"], True
    if "class" in model:
        yield f"{where}.class", model["name"], model["class"], True
    if "backbone" in model:
        backbone = model["backbone"]
        yield f"{where}.backbone.path", backbone["name"], backbone["path"], backbone.get("pretrained", True)


def missing_tables(config: Mapping[str, Any], splits: Iterable[str], base: Path) -> list[str]:
    """Return a problem for every missing table of labels (``labels.mapping``) of test scenes."""
    parts = [config["splits"][split]["test"] for split in splits if split in config["splits"]]
    problems = []
    for name in dict.fromkeys(dataset for part in parts for dataset in part if dataset in config["datasets"]):
        mapping = config["datasets"][name].get("labels", {}).get("mapping")
        if mapping and not os.path.isfile(resolve(mapping, base)) and not is_product(mapping):
            where = f"looked for in {_searched(base)}"
            remedy = "correct the path, fetch the table, or remove `labels` from the dataset"
            problems.append(f"datasets.{name}.labels.mapping: there is no table {mapping} ({where}); {remedy}")
    return problems


# Scenes --------------------------------------------------------------------------------------------------------------


def scene_identity(config: Mapping[str, Any], dataset: str, scene: str) -> frozenset[str]:
    """Return identifiers of the data of a scene. Two scenes with a common identifier contain the same data.

    The identifiers are the path of its raw folder, with links resolved; for a simulated scene its seed and name, which
    determine its content; for a reconstructed scene the real path of its photographs; and for ScanNet the names of its
    scans, which are the same in every copy of the dataset.
    """
    return _identity(config["datasets"], _makers(config["datasets"]), dataset, scene)


def scene_identities(
    config: Mapping[str, Any], places: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], frozenset[str]]:
    """Return :func:`scene_identity` of each (dataset, scene) pair."""
    makers = _makers(config["datasets"])
    return {place: _identity(config["datasets"], makers, *place) for place in places}


def scans_of(dataset: Mapping[str, Any], scene: str) -> list[str]:
    """Return the names of the scans of ScanNet in a scene; none for other and for simulated datasets.

    A scene of ``scannet_pairs`` is a folder with many scans, whose names are listed.
    """
    if dataset["format"] not in SCANNET_FORMATS or "simulate" in dataset:
        return []
    names = [scene]
    if dataset["format"] == "scannet_pairs":
        with suppress(OSError, ValueError):  # the check of the scene reports it
            names += sorted(os.listdir(os.path.join(dataset["raw"], scene)))
    return [name for name in names if _SCAN.fullmatch(name)]


def room_of(scan: str) -> str:
    """Return the room of a scan of ScanNet: ``scene0000`` of ``scene0000_01``."""
    return scan.partition("_")[0]


def _makers(datasets: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return a map from the real path of a raw folder to the dataset that writes its scenes."""
    makers = (dataset for dataset in datasets.values() if "simulate" in dataset or "reconstruct" in dataset)
    return {os.path.realpath(dataset["raw"]): dataset for dataset in makers}


def _identity(
    datasets: Mapping[str, Any], makers: Mapping[str, Mapping[str, Any]], name: str, scene: str
) -> frozenset[str]:
    dataset = datasets[name]
    path = os.path.realpath(os.path.join(dataset["raw"], scene))
    # Another dataset may read what a simulated or reconstructed one writes.
    folder, original = os.path.split(path)
    maker = makers.get(folder, {})
    origins = set()
    if "simulate" in maker:
        origins.add(f"the simulated scene `{original}` of seed {maker['simulate']['seed']}")
    if "reconstruct" in maker:
        origins.add(os.path.realpath(os.path.join(maker["reconstruct"]["images"], original)))
    return frozenset({path, *origins, *(f"ScanNet's {scan}" for scan in scans_of(dataset, scene))})
