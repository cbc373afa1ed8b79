"""Load trained models by name or path, and write them with a model card for publication."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from loco.errors import ConfigError, DataError, hint
from loco.extras import named_extras
from loco.fingerprints import file_fingerprint
from loco.models import stored
from loco.models.backbones import KNOWN, build_backbone
from loco.models.build import add_upsampler, build_extractor
from loco.models.extractor import Extractor
from loco.storage import atomic_path, write_text
from loco.weights import COPIED_BACKBONE, HUB, WEIGHTS, adapter_problem, hub_name

CARD = "README.md"
EXPLORER = "explorer.html"


class Origin(NamedTuple):
    """The origin of a model: its file, if it has one, its configuration, and facts about its training."""

    file: Path | None
    model: Mapping[str, Any]
    facts: Mapping[str, Any]


def load(
    model: str | Path,
    device: str | torch.device = "cpu",
    backbone: str | Path | None = None,
    upsample: Mapping[str, Any] | None = None,
) -> Extractor:
    """Load a feature extractor by its path or name, in evaluation mode.

    Args:
        model: a model file; a folder with a ``model.safetensors``, of a training or of :func:`save_pretrained`; such a
            folder on the Hugging Face hub (``hub:owner/name``, :func:`push_to_hub`); or, for the unmodified features
            of a backbone, a short name of :data:`loco.models.backbones.KNOWN`, a name on the hub, or a folder in the
            format of transformers.
        device: device of the extractor.
        backbone: path of the backbone of a trained model: a folder, a file, or ``hub:owner/name``. Not required if it
            is at the path used during training, or beside the model. Its weights must be those used in training.
        upsample: upsampling of the features, as ``model.upsample`` of an experiment: ``{"name": "bilinear", "stride":
            4}`` (:func:`loco.models.build.add_upsampler`). None for the stride of the model.

    Raises:
        DataError: the model does not exist, its file is damaged, or its backbone is missing.
        ConfigError: the kind of the model is unknown, a backbone is passed but the model has none, or the upsampling is
            invalid.
    """
    origin = find(model)
    if origin.file:
        extractor = stored.load(origin.file, device, backbone)
    elif backbone:
        raise ConfigError(f"{model} is itself a backbone and requires no other: remove the backbone {backbone}")
    else:
        extractor = build_extractor(origin.model).to(device).eval()
    return add_upsampler(extractor, upsample) if upsample else extractor


def find(model: str | Path) -> Origin:
    """Return the origin of a model by its path or name; arguments and errors as for :func:`load`."""
    path = Path(model).expanduser()
    if path.is_dir() and (origin := read_origin(path / WEIGHTS)):
        return origin
    if path.is_file():
        if origin := read_origin(path):
            return origin
        raise DataError(
            "the file is not a model of this project",
            file=path,
            expected="a `model.safetensors` written by the training step",
            remedy="load published weights of LoCo and LoCUS with `loco.models.published.load_published`",
        )
    if hub_name(str(model)):
        with named_extras():
            from loco.models.hub import find_folder
        if origin := read_origin(find_folder(str(model)) / WEIGHTS):
            return origin
    if str(model) in KNOWN or hub_name(str(model)):
        return Origin(None, _frozen(str(model)), {})
    if (path / "config.json").is_file():
        return Origin(None, _frozen(str(path)), {})
    if problem := adapter_problem(path):
        raise DataError(problem)
    if path.is_dir():
        raise DataError(
            "the folder contains no model file",
            file=path,
            expected=f"`{WEIGHTS}` written by the training step, or `config.json` and `{WEIGHTS}` of a backbone",
            remedy="run `loco models FOLDER` to list the model files in a folder and those below it",
        )
    raise DataError(
        f"the model {str(model)!r} does not exist",
        expected=(
            "a model file, a folder that contains one, a name on the hub (hub:owner/name), or a known backbone"
            f"{hint(model, KNOWN)}"
        ),
        remedy="run `loco models FOLDER` to list the known backbones and the model files in a folder",
    )


def read_origin(file: Path) -> Origin | None:
    """Return the origin of a model from its file; None if there is no file, or if it is another safetensors file.

    Raises:
        DataError: the file is damaged, or not a safetensors file.
    """
    content = stored.read_content(file) if file.is_file() else None
    return Origin(file, content["model"], content["facts"]) if content else None


def save_pretrained(
    extractor: Extractor,
    folder: str | Path,
    metrics: Iterable[str | Path] = (),
    facts: Mapping[str, Any] | None = None,
    with_backbone: bool = False,
    explorer: str | Path | None = None,
    repository: str | None = None,
) -> None:
    """Write a model for publication: ``model.safetensors`` and a model card, ``README.md``.

    The backbone of a model is not in its file. A backbone on the hub is downloaded by its name; a local one is copied
    beside the file, or must be provided to the users of the model, as the card states.

    Args:
        extractor: result of :func:`load` or :func:`loco.models.build_extractor`.
        folder: output folder; its name is the title of the card.
        metrics: metric files of this model, whose numbers the card lists.
        facts: facts about its training (data, split, seed, loss); None for those of its file.
        with_backbone: whether to copy local backbones into ``folder``. Their licences apply.
        explorer: a page of the command ``loco explore`` to copy into ``folder``, to which the card links.
        repository: name on the Hugging Face hub (owner/name), which is the title of the card and the name that its
            example loads; None if the model is loaded from the folder.

    Raises:
        DataError: the explorer page does not exist; a metric file is damaged, or belongs to another run than the model;
            the folder contains a README.md that is not a model card.
    """
    # loco.results depends on loco.models: import it only here, where a card is written.
    from loco.results.metrics import read_metrics
    from loco.results.model_cards import is_card, model_card

    folder = Path(folder).resolve()
    if (folder / CARD).is_file() and not is_card((folder / CARD).read_text(encoding="utf-8", errors="replace")):
        raise DataError(
            "the file is not a model card and would be overwritten",
            file=folder / CARD,
            remedy="choose another output folder",
        )
    config, facts = extractor.config, extractor.facts if facts is None else facts
    if explorer is not None and not Path(explorer).is_file():
        raise DataError("the explorer page does not exist", file=explorer, remedy="write it with `loco explore`")
    scores = [read_metrics(path) for path in metrics]
    sizes = {"dim": extractor.dim, "stride": extractor.stride, **stored.describe(extractor)}
    licence = ", ".join(sorted(set(_licences(config)))) or None
    if with_backbone:
        config = _with_backbones(config, folder)
    backbones, page = stored.backbones_of(extractor, config), EXPLORER if explorer is not None else None
    title, place = (repository, f"{HUB}{repository}") if repository else (folder.name, None)
    card = model_card(title, config, sizes, facts, scores, licence, backbones, page, place)
    stored.save_extractor(extractor, config, folder / WEIGHTS, facts)
    if explorer is not None:
        with atomic_path(folder / EXPLORER) as temporary:
            shutil.copyfile(explorer, temporary)
    write_text(folder / CARD, f"{card}\nSHA-256 of `{WEIGHTS}`: `{file_fingerprint(folder / WEIGHTS)}`\n")


from_pretrained = load  # the usual name


def push_to_hub(
    extractor: Extractor,
    repository: str,
    metrics: Iterable[str | Path] = (),
    facts: Mapping[str, Any] | None = None,
    with_backbone: bool = False,
    explorer: str | Path | None = None,
    private: bool = False,
) -> str:
    """Publish a model on the Hugging Face hub: the files of :func:`save_pretrained`, without any code.

    ``loco.load("hub:owner/name")`` loads it again.

    Args:
        extractor, metrics, facts, with_backbone, explorer: as in :func:`save_pretrained`.
        repository: ``owner/name``; it is created if it does not exist.
        private: whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        ConfigError: the name is not of the form owner/name.
        DataError: as in :func:`save_pretrained`; or the hub refuses the upload or cannot be reached.
    """
    with named_extras():
        from loco.models.hub import upload_folder

    repository = repository.removeprefix(HUB)
    with TemporaryDirectory() as place:
        folder = Path(place, "model")
        save_pretrained(extractor, folder, metrics, facts, with_backbone, explorer, repository)
        return upload_folder(folder, repository, private)


def _with_backbones(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Copy local backbones into ``folder``; return the configuration with their new paths."""
    if "models" in config:
        return {**config, "models": [_with_backbones(member, folder) for member in config["models"]]}
    source = Path(config["backbone"]["path"]).expanduser() if "backbone" in config else None
    if source is None or not source.exists():
        return dict(config)
    name = f"{COPIED_BACKBONE}{source.name}"
    files = [file for file in source.iterdir() if file.suffix in (".json", ".safetensors")] if source.is_dir() else []
    for file in files or [source]:
        with atomic_path(folder / name / file.name if files else folder / name) as temporary:
            shutil.copyfile(file, temporary)
    return {**config, "backbone": {**config["backbone"], "path": name}}


def _frozen(path: str) -> dict[str, Any]:
    """Return the configuration of the unmodified features of a transformers backbone."""
    backbone = {"name": "transformers", "path": path}
    stride = KNOWN[path].stride if path in KNOWN else build_backbone({**backbone, "pretrained": False}).stride
    return {"name": "backbone", "backbone": backbone, "stride": stride}


def _licences(config: Any) -> Iterator[str]:
    """Yield the licences of the known backbones in a configuration, at any depth."""
    if isinstance(config, Mapping):
        if isinstance(path := config.get("path"), str) and path in KNOWN:
            yield f"{KNOWN[path].licence} of {path}"
        config = config.values()
    if isinstance(config, Iterable) and not isinstance(config, str):
        for part in config:
            yield from _licences(part)
