"""Find the folder of a pretrained model, local or in the cache of the Hugging Face hub, and publish one on the hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

from loco.errors import ConfigError, DataError, hint
from loco.models.backbones import KNOWN
from loco.weights import COPIED_BACKBONE, HUB, WEIGHTS, adapter_problem, hub_name

# Base class of the errors of the HTTP library, which depends on the release; also raised if there is no connection.
_HttpError = HfHubHTTPError.__mro__[1]

HERE = "for a trained model, pass `backbone=` to `loco.load`, or `--backbone` to the command"
_FILES = ["config.json", "preprocessor_config.json", "processor_config.json"]
# A model of this project may have the files of its backbone beside it.
_WEIGHT_FILES = ["model*.safetensors", "model.safetensors.index.json", f"{COPIED_BACKBONE}*"]


def find_folder(path: str, revision: str | None = None, weights: bool = True) -> Path:
    """Return the folder of a model: the path itself, or its folder in the hub's cache, downloaded if missing.

    Args:
        path: a short name of :data:`loco.models.backbones.KNOWN`, a name on the hub (``hub:owner/name``), or a folder.
        revision: branch, tag or commit of a model on the hub; None for its main branch.
        weights: whether the weights are needed, in addition to the configuration.

    Raises:
        ConfigError: a revision is specified for a local folder.
        DataError: the folder does not exist, or the model can be neither found in the cache nor downloaded.
    """
    name = KNOWN[path].hub if path in KNOWN else hub_name(path)
    if name is None:
        return _local_folder(path, revision)
    for offline in (True, False):
        try:
            folder = _snapshot(name, revision, weights, offline)
        except GatedRepoError as error:
            raise DataError(
                f"backbone {name!r} can be downloaded only after accepting its licence",
                remedy=f"accept the licence at https://huggingface.co/{name}, then run `hf auth login`",
            ) from error
        except (OSError, ValueError, HfHubHTTPError) as error:
            problem = error
            continue
        if not offline or _is_complete(folder, weights):
            return folder
    pinned = f" --revision {revision}" if revision else ""
    raise DataError(
        f"backbone {name!r} is not in the cache of the Hugging Face hub and cannot be downloaded",
        expected=f"a folder, a name on the hub ({HUB}owner/name), or one of {', '.join(KNOWN)}",
        found=str(problem).partition("\n")[0],
        remedy=f"on a machine with network access, run `hf download {name}{pinned} --include '*.json' "
        "'model*.safetensors'`; or set "
        f"the path to a folder with config.json and model.safetensors ({HERE})",
    ) from problem


def is_cached(name: str) -> bool:
    """Return whether the weights of a known backbone are in the cache of this machine; the hub is not contacted."""
    try:
        return _is_complete(_snapshot(KNOWN[name].hub, None, True, offline=True), weights=True)
    except (OSError, ValueError):  # not in the cache
        return False


def upload_folder(folder: Path, name: str, private: bool = False) -> str:
    """Upload the files of a folder to a repository on the hub, which is created if it does not exist.

    Args:
        folder: folder of the files. Other files in the repository are kept.
        name: ``owner/name``, with or without ``hub:``.
        private: whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        ConfigError: the name is not of the form owner/name.
        DataError: the hub refuses the upload or cannot be reached.
    """
    repository = hub_name(f"{HUB}{name.removeprefix(HUB)}")
    if repository is None:
        raise ConfigError(f"expected the name of a repository on the hub, owner/name, found {name!r}")
    api = HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload a model of loco")
    except (OSError, ValueError, _HttpError) as error:
        raise DataError(
            f"the model cannot be uploaded to {repository!r}",
            found=str(error).partition("\n")[0],
            remedy="run `hf auth login` with a token that may write to this repository, and check the network",
        ) from error
    return str(address)


def _snapshot(name: str, revision: str | None, weights: bool, offline: bool) -> Path:
    """Return the folder of a model on the hub in the cache, which is downloaded unless ``offline``."""
    files = [*_FILES, *(_WEIGHT_FILES if weights else [])]
    return Path(snapshot_download(name, revision=revision, allow_patterns=files, local_files_only=offline))


def _is_complete(folder: Path, weights: bool) -> bool:
    """Return whether a folder in the cache has all required files: a model of this project has no ``config.json``."""
    if weights and not any(folder.glob("*.safetensors")):
        return False
    return (folder / "config.json").is_file() or (weights and (folder / WEIGHTS).is_file())


def _local_folder(path: str, revision: str | None) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"backbone {path!r} is not a folder",
            expected=f"a folder, a name on the hub ({HUB}owner/name), or a known backbone{hint(path, KNOWN)}",
            remedy=f"correct its path ({HERE}); write a model on the hub as {HUB}owner/name",
        )
    if revision is not None:
        raise ConfigError(
            f"backbone {path!r} is a folder, but `revision` applies to models on the hub; remove `revision`"
        )
    if problem := adapter_problem(folder):
        raise DataError(problem)
    return folder
