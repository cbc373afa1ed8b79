"""Optional packages, and the extra of the installation that provides each, for error messages.

The base (``pip install .``) extracts features, loads models and computes losses; ``pyproject.toml`` lists the extras.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from loco.errors import ConfigError

# Packages by the name under which they are imported -> the extra that installs them.
EXTRAS = {
    **dict.fromkeys(("huggingface_hub", "onnxruntime", "peft", "transformers"), "backbones"),
    **dict.fromkeys(("jsonschema", "open3d", "pycolmap", "trimesh"), "data"),
    **dict.fromkeys(("lightning", "tensorboard"), "train"),
    **dict.fromkeys(("matplotlib", "pandas"), "results"),
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    **dict.fromkeys(("timm", "torchvision"), "timm"),
    **dict.fromkeys(("pygments", "referencing", "snakemake", "yaml"), "workflow"),
}


@contextmanager
def named_extras() -> Iterator[None]:
    """Replace the error of a missing package by one that names the extra to install; for ``with``, or as a decorator.

    Raises:
        ConfigError: a package of :data:`EXTRAS` is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise ConfigError(
            f"the package {package} is not installed: run `pip install 'loco[{EXTRAS[package]}]'`"
        ) from error
