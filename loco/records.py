"""Provenance records: every file between two steps states how it was made, and every step checks its inputs.

A :class:`Recipe` describes how a file must be made: the step, the fingerprint of its code, its settings, and the
recipes of its inputs, down to the raw data. The plan (:mod:`loco.plan`) computes the recipe of every file of a run from
the configuration. A :class:`Record` describes how a file *was* made: its recipe, its subject (for example, dataset and
scene), the content ids of its inputs, and the versions of the libraries. A file whose record does not contain the
expected recipe is refused, so a result of other settings, code or runs cannot be mistaken for a result of this run.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from loco import __version__
from loco.errors import DataError
from loco.fingerprints import settings_fingerprint
from loco.local_files import planned_name

_COMPUTING = {"torch": "torch", "numpy": "numpy", "opencv": "opencv-python"}
_SHOWN = 8  # differences that an error message lists


@dataclass(frozen=True)
class Recipe:
    """Description of how a file must be made.

    Attributes:
        step: name of the rule.
        code: fingerprint of the step's code.
        settings: all settings that determine the result, in addition to the inputs; JSON-able.
        inputs: role -> recipe of the inputs in this role. Files that differ only in their scene have one recipe.
    """

    step: str
    code: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Recipe] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """Digest of the whole recipe."""
        inputs = {role: recipe.id for role, recipe in self.inputs.items()}
        return settings_fingerprint([self.step, self.code, self.settings, inputs])

    @property
    def own(self) -> dict[str, Any]:
        """Return the part that concerns this step; if it changes, Snakemake runs the step again."""
        return {"code": self.code, "settings": dict(self.settings)}

    def to_json(self) -> dict[str, Any]:
        inputs = {role: recipe.to_json() for role, recipe in self.inputs.items()}
        return {"step": self.step, "code": self.code, "settings": dict(self.settings), "inputs": inputs}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Recipe:
        """Parse the result of :meth:`to_json`.

        Raises:
            KeyError, TypeError, AttributeError: ``content`` is not a recipe.
        """
        inputs = {str(role): cls.from_json(recipe) for role, recipe in content["inputs"].items()}
        return cls(str(content["step"]), str(content["code"]), dict(content["settings"]), inputs)


@dataclass(frozen=True)
class Record:
    """Description of how a file was made.

    Attributes:
        recipe: recipe by which the file was made.
        subject: identity of the file: ``dataset`` and ``scene``, or ``split``, ``experiment`` and so on.
        inputs: path -> content id of every file that was read.
        versions: versions of Python and of the libraries that compute.
        device: name of the GPU, or ``cpu``.
    """

    recipe: Recipe
    subject: Mapping[str, str]
    inputs: Mapping[str, str]
    versions: Mapping[str, str]
    device: str

    def to_json(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.to_json(),
            "subject": dict(self.subject),
            "inputs": dict(self.inputs),
            "versions": dict(self.versions),
            "device": self.device,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Record:
        """Parse the result of :meth:`to_json`.

        Raises:
            KeyError, TypeError, AttributeError: ``content`` is not a record.
        """
        subject, inputs, versions = (dict(content[name]) for name in ("subject", "inputs", "versions"))
        return cls(Recipe.from_json(content["recipe"]), subject, inputs, versions, str(content["device"]))


def new_record(recipe: Recipe, subject: Mapping[str, str], inputs: Mapping[Path, str]) -> Record:
    """Return the record of a file that is being written.

    Args:
        recipe: recipe of the file.
        subject: identity of the file, as in :class:`Record`.
        inputs: path -> content id of every file that it is made from.
    """
    return Record(
        recipe, dict(subject), {planned_name(path): id for path, id in inputs.items()}, _versions(), _device()
    )


class SceneInput(Protocol):
    """The attributes of an open scene file that a record uses (:class:`loco.storage.SceneFile`)."""

    path: Path
    dataset: str
    scene: str
    content_id: str


def record_of_scene(recipe: Recipe, frames: SceneInput, others: Mapping[Path, str] | None = None) -> Record:
    """Return the record of a file that is made from the open frames of a scene.

    Args:
        recipe: recipe of the file.
        frames: frames of the scene.
        others: path -> content id of further files that it is made from.
    """
    subject = {"dataset": frames.dataset, "scene": frames.scene}
    return new_record(recipe, subject, {frames.path: frames.content_id, **(others or {})})


def require_recipe(
    record: Record | None, expected: Recipe, subject: Mapping[str, str] | None = None, *, file: str | Path
) -> None:
    """Check that the recipe and the subject of a file are as planned.

    Args:
        record: record of the file; None if it has none.
        expected: recipe of the file by the current code and configuration.
        subject: required subject; None accepts any.
        file: path of the file.

    Raises:
        DataError: the recipe or subject differs; the message lists the differing values, found and expected.
    """
    remedy = f"delete the file and run the workflow again, or add `--forcerun {expected.step}` to the command"
    if record is None:
        raise DataError("the file has no provenance record, so its origin is unknown", file=file, remedy=remedy)
    if subject is not None and dict(record.subject) != dict(subject):
        raise DataError(
            "the file is a copy of another file or was renamed",
            file=file,
            expected=_listed(subject),
            found=_listed(record.subject),
            remedy=remedy,
        )
    if record.recipe.id != expected.id:
        lines = list(dict.fromkeys(differences(record.recipe, expected)))
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise DataError(
            "the file was not made by the current code and configuration:\n    "
            + "\n    ".join([*lines[:_SHOWN], *more]),
            file=file,
            remedy=remedy,
        )


def differences(found: Recipe, expected: Recipe) -> Iterator[str]:
    """Yield the differences of a recipe from the expected one, one line each: first its settings, then its inputs."""
    if found.step != expected.step:
        yield f"it was made by the step `{found.step}`, expected `{expected.step}`"
        return
    step = f"step `{found.step}`"
    if found.code != expected.code:
        yield f"{step}: made by code {found.code[:12]}, expected {expected.code[:12]}"
    old, new = dict(_flat(found.settings)), dict(_flat(expected.settings))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key, _Absent) != new.get(key, _Absent):
            yield f"{step}: made with {key} = {old.get(key, 'nothing')!r}, expected {new.get(key, 'nothing')!r}"
    for role in sorted(found.inputs.keys() | expected.inputs.keys()):
        if role not in found.inputs or role not in expected.inputs:
            yield f"{step}: made {'without' if role in expected.inputs else 'from'} the input `{role}`"
        elif found.inputs[role].id != expected.inputs[role].id:
            yield from differences(found.inputs[role], expected.inputs[role])


class _Absent:
    """Marker of a missing setting, because a setting may be None."""


def _flat(settings: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested settings; lists of plain values are not divided."""
    if isinstance(settings, Mapping) and (settings or not where):
        for key, value in settings.items():
            yield from _flat(value, f"{where}.{key}" if where else str(key))
    else:
        yield where, settings


def _listed(subject: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in subject.items())


@cache
def _versions() -> dict[str, str]:
    installed = {name: metadata.version(distribution) for name, distribution in _COMPUTING.items()}
    return {"python": platform.python_version(), "loco": __version__, **installed}


def _device() -> str:
    torch = sys.modules.get("torch")  # a step that has not imported PyTorch has computed on the CPU
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "cpu"
