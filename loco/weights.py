"""Where weights lie, told by their paths alone. Nothing heavy is imported: the rules of the workflow ask, too."""

from __future__ import annotations

import re
from pathlib import Path

WEIGHTS = "model.safetensors"  # the name of a model file in a folder of its own
_HUB_NAME = re.compile(r"[^./~][^/]*/[^/]+")


def model_file(path: str | Path) -> Path:
    """The model file that a path names: itself, or the one in a folder, there or yet to be made."""
    path = Path(path).expanduser()
    return path / WEIGHTS if path.is_dir() or not path.suffix else path


def is_hub_name(path: str) -> bool:
    """Whether a path that is no folder here can be a name on the Hugging Face hub, owner/name."""
    return bool(_HUB_NAME.fullmatch(path))
