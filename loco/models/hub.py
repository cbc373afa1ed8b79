"""Find the folder of a pretrained model: a local folder, or a folder in the cache of the Hugging Face hub."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

from loco.errors import ConfigError, DataError
from loco.models.backbones import KNOWN
from loco.weights import HUB, adapter_problem, hub_name

HERE = "for a trained model, pass `backbone=` to `loco.load`, or `--backbone` to the command"
_FILES = ["config.json", "preprocessor_config.json", "processor_config.json"]


def find_folder(path: str, revision: str | None = None, weights: bool = True) -> Path:
    """Return the folder of a model: the path itself, or its folder in the hub's cache, downloaded if missing.

    Args:
        path: a short name of :data:`loco.models.backbones.KNOWN`, a name on the hub (``hub:owner/name``), or a folder.
        revision: branch, tag or commit of a model on the hub; None for its main branch.
        weights: whether the weights are needed, in addition to the configuration.

    Raises:
        ConfigError: a revision of a local folder.
        DataError: the folder does not exist, or the model can be neither found in the cache nor downloaded.
    """
    name = KNOWN[path].hub if path in KNOWN else hub_name(path)
    if name is None:
        return _local_folder(path, revision)
    files = [*_FILES, *(["model*.safetensors", "model.safetensors.index.json"] if weights else [])]
    for offline in (True, False):
        try:
            place = snapshot_download(name, revision=revision, allow_patterns=files, local_files_only=offline)
            folder = Path(place)
        except GatedRepoError as error:
            raise DataError(
                f"backbone {name!r} can be downloaded only after accepting its licence",
                remedy=f"accept the licence at https://huggingface.co/{name}, then run `hf auth login`",
            ) from error
        except (OSError, ValueError, HfHubHTTPError) as error:
            problem = error
            continue
        if not offline or ((folder / "config.json").is_file() and (any(folder.glob("*.safetensors")) or not weights)):
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


def _local_folder(path: str, revision: str | None) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"backbone {path!r} is not a folder",
            expected=f"a folder, a name on the hub ({HUB}owner/name), or one of {', '.join(KNOWN)}",
            remedy=f"{_nearest(path)}correct its path ({HERE}); write a model on the hub as {HUB}owner/name",
        )
    if revision is not None:
        raise ConfigError(
            f"backbone {path!r} is a folder, but `revision` applies to models on the hub; remove `revision`"
        )
    if problem := adapter_problem(folder):
        raise DataError(problem)
    return folder


def _nearest(name: str) -> str:
    near = get_close_matches(name, KNOWN, n=1)
    return f"did you mean {near[0]}? Otherwise " if near else ""
