"""Raw datasets: read their layouts, check their files, and convert their frames and units.

A new dataset is one module with a subclass of :class:`loco.datasets.raw.RawScene`, one function in
:mod:`loco.datasets.layouts` and one entry of :data:`loco.datasets.catalogue.FORMATS`.

This package imports a reader and its dependencies only when a scene is checked or opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from loco.datasets import identity
from loco.datasets.catalogue import FORMATS
from loco.datasets.files import system_error
from loco.extras import named_extras
from loco.files import is_plain_path

if TYPE_CHECKING:
    from loco.datasets.local import LocalScene
    from loco.datasets.raw import RawScene

__all__ = [
    "FORMATS",
    "check_labels",
    "check_scene",
    "conventions_of",
    "is_photographs",
    "label_files",
    "label_state",
    "open_scene",
    "provides",
    "raw_files",
    "raw_state",
    "reader",
]


def provides(format: str) -> frozenset[str]:
    """Return the kinds of ground truth that scenes of a format provide (:class:`loco.datasets.catalogue.Format`)."""
    return FORMATS[format].provides


def is_photographs(format: str) -> bool:
    """Return whether images of a format have neither depth nor poses: their ground truth is in files of the dataset."""
    return not provides(format) & {"places", "depth"}


def raw_files(format: str, raw: Path, scene: str) -> list[Path]:
    """Return the input files and folders of a scene's frames, whether or not they exist, without duplicates.

    A path that Snakemake would interpret as a pattern (:func:`loco.files.is_plain_path`) is replaced by the nearest
    parent folder whose path is plain.

    Args:
        format: a key of :data:`FORMATS`.
        raw: folder of the scenes.
        scene: name of the scene.
    """
    found = (source.path for source in FORMATS[format].sources(raw / scene, scene))
    # Folders inside the scene may have any name; the digest of `raw_state` covers them anyway.
    plain = (next(filter(is_plain_path, (path, *path.parents))) for path in found)
    return list(dict.fromkeys(plain))


def raw_state(format: str, raw: Path, scene: str) -> str:
    """Return a digest of the names, sizes and modification times of all input files of a scene's frames.

    Unlike the modification time of the folder, the digest changes when a file is rewritten in place. Computing it takes
    one stat per file and raises nothing: missing files are part of the digest. Label files are not. See
    :func:`raw_files` for the arguments.
    """
    return identity.raw_state(FORMATS[format].sources(raw / scene, scene), raw / scene)


def label_files(format: str, raw: Path, scene: str) -> list[Path]:
    """Return the label files and folders of a scene, whether or not they exist; empty if the format has no labels."""
    return [source.path for source in _label_sources(format, raw, scene)]


def label_state(format: str, raw: Path, scene: str) -> str:
    """Return the digest of the label files alone; labels also depend on the files of :func:`raw_state`."""
    return identity.raw_state(_label_sources(format, raw, scene), raw / scene)


def conventions_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conventions of the raw files that a dataset's configuration states, such as ``depth_scale``.

    Args:
        settings: configuration of the dataset: ``format``, and optionally the keys in ``conventions`` of the format.
            Other keys are ignored.
    """
    return {key: settings[key] for key in FORMATS[settings["format"]].conventions if key in settings}


def check_scene(
    format: str,
    raw: Path,
    scene: str,
    decode: Literal["sample", "all"],
    conventions: Mapping[str, Any] = MappingProxyType({}),
    accept_geometry: bool = False,
) -> dict[str, Any]:
    """Check the input files of a scene's frames, and return a manifest that describes them.

    Args:
        format: a key of :data:`FORMATS`.
        raw: folder of the scenes.
        scene: name of the scene.
        decode: decode a sample of the images, or all of them. Folders of images are identified by sizes and
            modification times with "sample", by the bytes of every file with "all".
        conventions: result of :func:`conventions_of`.
        accept_geometry: report inconsistent frames (:mod:`loco.datasets.geometry`) as a note instead of a problem.

    Returns:
        The manifest: ``format``, ``scene``, ``ok``, ``problems`` (one text per problem, with its remedy), ``notes`` (if
        there are any), ``files`` (one entry per file or folder of files: :func:`loco.datasets.identity.describe`),
        ``digest`` (of all entries), ``images`` (number of usable images), ``decoded``, ``origin`` and ``geometry`` (if
        images share a world frame), and further counts. Broken data are listed as problems; no error is raised.
    """
    from loco.datasets.geometry import check_geometry

    opened = partial(check_geometry, accept=accept_geometry)
    return reader(format).check(raw, scene, decode, opened, **conventions)


def check_labels(format: str, raw: Path, scene: str, decode: Literal["sample", "all"]) -> dict[str, Any]:
    """Check the label files of a scene against its mesh, and describe them.

    The manifest is that of :func:`check_scene`, without ``images``. The mesh is read but not described, because the
    manifest of :func:`check_scene` describes it.
    """
    return reader(format).check_labels(raw, scene, decode)


def open_scene(
    format: str, raw: Path, scene: str, conventions: Mapping[str, Any] = MappingProxyType({})
) -> RawScene | LocalScene:
    """Open a scene for reading, in local coordinates (:mod:`loco.datasets.local`).

    See :func:`check_scene` for the arguments.

    Raises:
        DataError: its files are missing, unreadable or broken.
    """
    from loco.datasets.local import in_local_coordinates

    try:
        return in_local_coordinates(reader(format)(raw, scene, **conventions))
    except OSError as error:
        raise system_error(error, scene=scene) from error


def reader(format: str) -> type[RawScene]:
    """Import the reader of a format and return it."""
    entry = FORMATS[format]
    with named_extras():
        return getattr(import_module(f"loco.datasets.{entry.module}"), entry.class_name)


def _label_sources(format: str, raw: Path, scene: str) -> list[identity.Source]:
    layout = FORMATS[format].labels
    return layout(raw / scene, scene) if layout else []
