"""The catalogue of models: their modules, and the properties implied by a configuration. Imports no PyTorch.

The modules of models and backbones are imported on use, so that planning a workflow is quick, and so that a module that
builds members by name (``concat``) or reads model files (``from_file``) causes no circular import.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from loco.errors import ConfigError
from loco.extras import named_extras

Config = Mapping[str, Any]


class Entry(NamedTuple):
    """A constructor, identified by its module in :mod:`loco.models` and its name."""

    module: str
    constructor: str

    def load(self) -> Any:
        """Import the module and return the constructor.

        Raises:
            ConfigError: the module needs a package of an extra that is not installed.
        """
        with named_extras():
            return getattr(import_module(f"loco.models.{self.module}"), self.constructor)


# Constructors take the options of the configuration and return an encoder or an extractor.
MODELS = {
    "backbone": Entry("adapted", "adapted_backbone"),
    "compact_cnn": Entry("compact_cnn", "compact_cnn"),
    "concat": Entry("concat", "concat"),
    "dense_sift": Entry("dense_sift", "DenseSIFT"),
    "features": Entry("computed", "no_network"),
    "pretrained": Entry("from_file", "pretrained"),
    "published": Entry("from_file", "published"),
    "python": Entry("python_class", "python_class"),
}
BACKBONES = {
    "croco": Entry("croco", "load_croco"),
    "onnx": Entry("onnx_backbone", "OnnxBackbone"),
    "timm": Entry("timm_backbone", "load_timm"),
    "transformers": Entry("transformers_backbone", "load_transformers"),
}
STORABLE = ("backbone", "compact_cnn", "concat", "dense_sift")  # models allowed in the configuration of a model file
COMPUTED = "features"  # no network: another program computed the features
KEYPOINTS = ("sift_keypoints",)  # no feature maps: benchmarks that match keypoints detect them in the images
FIXED_STRIDES = {"compact_cnn": 4}  # pixels; other models have the option `stride`


def find(table: Mapping[str, Entry], name: object, kind: str) -> Entry:
    """Return the entry of a name.

    Args:
        table: :data:`MODELS` or :data:`BACKBONES`.
        name: as in the configuration.
        kind: kind of the entries, for the error message.

    Raises:
        ConfigError: unknown name.
    """
    if not isinstance(name, str) or name not in table:
        raise ConfigError(f"unknown {kind} {name!r}; expected one of: {', '.join(sorted(table))}")
    return table[name]


def parts_of(model: Config) -> Iterator[Config]:
    """Yield the configurations of the members of ``concat``, at any depth; of any other model, its configuration."""
    if model["name"] == "concat":
        for member in model["models"]:
            yield from parts_of(member)
    else:
        yield model


def has_maps(model: Config) -> bool:
    """Return whether a model has feature maps, which are extracted once and stored."""
    return model["name"] not in KEYPOINTS


def stride_of(model: Config) -> int:
    """Return the output stride of a model, in pixels."""
    return model["upsample"]["stride"] if "upsample" in model else map_stride_of(model)


def map_stride_of(model: Config) -> int:
    """Return the stride of the maps of a model before its upsampling, in pixels."""
    return model["stride"] if "stride" in model else FIXED_STRIDES[model["name"]]


def is_deterministic(model: Config) -> bool:
    """Return whether the features of a model before training are the same for all seeds.

    Low-rank adapters and residual heads have random weights but do not change the features until they are trained; a
    head with a random projection depends on the seed.
    """
    match model["name"]:
        case "dense_sift" | "features" | "pretrained" | "published" | "python" | "sift_keypoints":
            return True
        case "concat":
            return all(map(is_deterministic, model["models"]))
        case "backbone":
            return model["backbone"].get("pretrained", True) and _starts_as_identity(model.get("head"))
    return False


def _starts_as_identity(head: Config | None) -> bool:
    """Return whether a head is the identity before training."""
    match head:
        case None | {"name": "residual_cnn"}:
            return True
        case {"name": "residual_mlp"}:
            return head.get("dim") is None
    return False


def modules_of(model: Config) -> list[str]:
    """Return the modules of :mod:`loco.models` that building a model imports by name, sorted.

    Modules that these import in turn are not listed. For ``pretrained``, whose file determines the model, these are all
    modules that a file can require.

    Raises:
        ConfigError: unknown model or backbone.
    """
    modules = {find(MODELS, model["name"], "model").module}
    match model["name"]:
        case "concat":
            modules.update(module for member in model["models"] for module in modules_of(member))
        case "backbone":
            modules.add(find(BACKBONES, model["backbone"]["name"], "kind of backbone").module)
        case "published":
            backbone = model.get("backbone") or {"name": "transformers"}
            modules.update(modules_of({"name": "backbone", "backbone": backbone}))
        case "pretrained":
            modules.update(MODELS[name].module for name in STORABLE)
            modules.update(entry.module for entry in BACKBONES.values())
    return sorted(modules)
