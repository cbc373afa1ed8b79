"""Trained models for others: found by name or path, and given away with a card that says what they are."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from loco.errors import ConfigError, DataError
from loco.fingerprints import file_fingerprint
from loco.models import stored
from loco.models.backbones import KNOWN, build_backbone
from loco.models.build import build_extractor
from loco.models.extractor import Extractor
from loco.storage import atomic_path, write_text
from loco.weights import WEIGHTS, adapter_problem, hub_name

CARD = "README.md"


class Origin(NamedTuple):
    """Where a model comes from: its file, if it has one, its configuration, and the facts of its making."""

    file: Path | None
    model: Mapping[str, Any]
    facts: Mapping[str, Any]


def load(model: str | Path, device: str | torch.device = "cpu", backbone: str | Path | None = None) -> Extractor:
    """A feature extractor by its path or name, in evaluation mode.

    Args:
        model: a model file; a folder with a ``model.safetensors``, of a training or of :func:`save_pretrained`; a
            short name of :data:`loco.models.backbones.KNOWN`, a name on the hub (``hub:owner/name``), or a folder as
            transformers writes them, for the features of that backbone as they are.
        device: where to put it.
        backbone: where the backbone that a trained model stands on lies now: a folder, a file, or ``hub:owner/name``.
            Not needed where it lies as it did in the training, or beside the model. Its weights must be those of then.

    Raises:
        DataError: there is no such model, its file is broken, or its backbone is not there.
        ConfigError: it is of a kind that is not known here, or stands on no backbone and one is given.
    """
    origin = find(model)
    if origin.file:
        return stored.load(origin.file, device, backbone)
    if backbone:
        raise ConfigError(f"{model} is a backbone itself, and stands on no other: leave out {backbone}")
    return build_extractor(origin.model).to(device).eval()


def find(model: str | Path) -> Origin:
    """Where the model of a path or name comes from; arguments and errors as for :func:`load`."""
    path = Path(model).expanduser()
    if path.is_dir() and (origin := read_origin(path / WEIGHTS)):
        return origin
    if path.is_file():
        if origin := read_origin(path):
            return origin
        raise DataError(
            "is not a model of this project",
            file=path,
            expected="a `model.safetensors` that the training step wrote",
            remedy="published weights of other projects are read by `loco.models.published.load_published`",
        )
    if str(model) in KNOWN or hub_name(str(model)):
        return Origin(None, _frozen(str(model)), {})
    if (path / "config.json").is_file():
        return Origin(None, _frozen(str(path)), {})
    if problem := adapter_problem(path):
        raise DataError(problem)
    raise DataError(
        f"there is no model {str(model)!r}",
        expected=f"a model file, a folder with one, a name on the hub (hub:owner/name), or one of {', '.join(KNOWN)}",
        remedy="`loco models FOLDER` lists the model files of a folder",
    )


def read_origin(file: Path) -> Origin | None:
    """What a model file says of itself; None where it is no file, or safetensors of something else.

    Raises:
        DataError: it is broken, or no safetensors.
    """
    content = stored.read_content(file) if file.is_file() else None
    return Origin(file, content["model"], content["facts"]) if content else None


def save_pretrained(
    extractor: Extractor,
    folder: str | Path,
    metrics: Iterable[str | Path] = (),
    facts: Mapping[str, Any] | None = None,
    with_backbone: bool = False,
) -> None:
    """Write a model for others: ``model.safetensors``, and a ``README.md`` that says what it is.

    A backbone that the model stands on is not in its file. One of the hub is fetched by its name; one that lies here is
    put beside the file, or must be given to those who are to use the model, as the card says.

    Args:
        extractor: of :func:`load` or of :func:`loco.models.build_extractor`.
        folder: where; its name is the title of the card.
        metrics: metric files of this model, whose numbers the card gives.
        facts: of its making (data, split, seed, loss); those of its file unless given.
        with_backbone: put the files of backbones that lie here into ``folder``, too. Their terms go with them.

    Raises:
        DataError: a metric file is broken, or of another run than the model; the folder has a README.md of its own.
    """
    # The results come after the models in the flow of data: they are asked for here alone, where a card is written.
    from loco.results.cards import is_card, model_card
    from loco.results.metrics import read_metrics

    folder = Path(folder).resolve()
    if (folder / CARD).is_file() and not is_card((folder / CARD).read_text(encoding="utf-8", errors="replace")):
        raise DataError("is no card of a model, and would be lost", file=folder / CARD, remedy="name another folder")
    config, facts = extractor.config, extractor.facts if facts is None else facts
    scores = [read_metrics(path) for path in metrics]
    sizes = {"dim": extractor.dim, "stride": extractor.stride, **stored.describe(extractor)}
    licence = ", ".join(sorted(set(_licences(config)))) or None
    if with_backbone:
        config = _with_backbones(config, folder)
    card = model_card(folder.name, config, sizes, facts, scores, licence, stored.backbones_of(extractor, config))
    stored.save_extractor(extractor, config, folder / WEIGHTS, facts)
    write_text(folder / CARD, f"{card}\nSHA-256 of `{WEIGHTS}`: `{file_fingerprint(folder / WEIGHTS)}`\n")


from_pretrained = load  # under the name known elsewhere


def _with_backbones(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Copy the backbones that lie here into ``folder``; the configuration, with their places in it."""
    if "models" in config:
        return {**config, "models": [_with_backbones(member, folder) for member in config["models"]]}
    source = Path(config["backbone"]["path"]).expanduser() if "backbone" in config else None
    if source is None or not source.exists():
        return dict(config)
    name = f"backbone-{source.name}"
    files = [file for file in source.iterdir() if file.suffix in (".json", ".safetensors")] if source.is_dir() else []
    for file in files or [source]:
        with atomic_path(folder / name / file.name if files else folder / name) as temporary:
            shutil.copyfile(file, temporary)
    return {**config, "backbone": {**config["backbone"], "path": name}}


def _frozen(path: str) -> dict[str, Any]:
    """Configuration of the features of a backbone of transformers, as they are."""
    backbone = {"name": "transformers", "path": path}
    stride = KNOWN[path].stride if path in KNOWN else build_backbone({**backbone, "pretrained": False}).stride
    return {"name": "backbone", "backbone": backbone, "stride": stride}


def _licences(config: Any) -> Iterator[str]:
    """Of the known backbones that a configuration names, at any depth."""
    if isinstance(config, Mapping):
        if isinstance(path := config.get("path"), str) and path in KNOWN:
            yield f"{KNOWN[path].licence} of {path}"
        config = config.values()
    if isinstance(config, Iterable) and not isinstance(config, str):
        for part in config:
            yield from _licences(part)
