"""Identify the raw files of a scene by their content or, faster, by their names, sizes and modification times.

A scene is a list of :class:`Source`. :func:`raw_state` reads no file, so it is suitable for planning; :func:`describe`
is for the manifest of a check.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from loco.errors import printable
from loco.files import is_data, open_regular

IdentifiedBy = Literal["sha256", "size and modification time"]
DEEPEST = 32  # largest depth of nested folders; symbolic links can form a cycle


class Source(NamedTuple):
    """A file of a scene, or the files in a folder and its subfolders.

    Attributes:
        path: path of the file or folder.
        suffixes: suffixes of the folder's files to include, in lower case; all files if empty. Files that are not
            data (:func:`loco.files.is_data`) are never included.
        images: whether it is a folder of images, which may be too large to be read for every check.
        needed: whether the scene is broken without it.
    """

    path: Path
    suffixes: tuple[str, ...] = ()
    images: bool = False
    needed: bool = True


def raw_state(sources: Iterable[Source], root: Path) -> str:
    """Return a digest of the names, sizes and modification times of all files of ``sources``, by one stat per file.

    Missing and unreadable files are part of the digest; nothing is raised. Names are relative to ``root``, so a scene
    that is moved as a whole keeps its digest.
    """
    lines: list[list[Any]] = []
    for source in sources:
        unreadable: list[OSError] = []
        found = [[_name(path, root), *_state(status)] for path, status in _files(source, unreadable.append)]
        lines += found or [[_name(source.path, root), "missing"]]
        lines += [[_name(error.filename or source.path, root), error.errno] for error in unreadable]
    return _sha256(sorted(lines, key=str))


def describe(source: Source, root: Path, *, content: bool, scene: str | None = None) -> dict[str, Any] | None:
    """Describe a source for a manifest.

    Args:
        source: the file or folder.
        root: folder of the scene; names are relative to it.
        content: identify images by their bytes, too; all other files are always identified by their bytes.
        scene: name of the scene, for errors.

    Returns:
        ``name``; ``files``, the number of files of a folder; ``bytes``; ``identified_by``, "sha256" or "size and
        modification time"; ``digest``: the SHA-256 of the bytes of a file, or of the list of (name, identity) of
        the files of a folder. None if the source is missing.

    Raises:
        OSError: a file or a folder cannot be read.
        DataError: a source is not a regular file.
    """
    if not os.path.lexists(source.path):
        return None
    files = sorted(_files(source, _raise), key=lambda file: file[0])
    size = sum(status.st_size for _, status in files)
    by_content = content or not source.images
    identified: IdentifiedBy = "sha256" if by_content else "size and modification time"
    facts = {"bytes": size, "identified_by": identified}
    if not os.path.isdir(source.path):
        ((path, _),) = files
        return {"name": printable(_name(path, root)), **facts, "digest": _content(path, scene)}
    identities = [
        [_name(path, source.path), _content(path, scene) if by_content else _state(status)] for path, status in files
    ]
    of_kind = "".join(f"/*{suffix}" for suffix in source.suffixes[:1])
    name = printable(f"{_name(source.path, root)}{of_kind}")
    return {"name": name, "files": len(files), **facts, "digest": _sha256(identities)}


def digest_of(entries: Iterable[dict[str, Any]]) -> str:
    """Return the digest of a whole manifest: the SHA-256 of the sorted list of (name, identity) of its entries."""
    return _sha256(sorted([entry["name"], entry["identified_by"], entry["digest"]] for entry in entries))


def _files(source: Source, on_error: Callable[[OSError], None]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield path and status of every file of a source; call ``on_error`` if the system refuses access."""
    path = os.fspath(source.path)
    if os.path.isdir(path):
        yield from _in_folder(path, source.suffixes, on_error, DEEPEST)
        return
    try:
        yield path, os.stat(path)
    except FileNotFoundError as error:
        if os.path.lexists(path):  # a broken symbolic link
            on_error(error)
    except OSError as error:
        on_error(error)


def _in_folder(
    folder: str, suffixes: tuple[str, ...], on_error: Callable[[OSError], None], depth: int
) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if is_data(entry.name)]
    except OSError as error:
        on_error(error)
        return
    for entry in entries:
        try:
            if entry.is_dir():
                if depth:
                    yield from _in_folder(entry.path, suffixes, on_error, depth - 1)
            elif not suffixes or entry.name.lower().endswith(suffixes):
                yield entry.path, entry.stat()
        except OSError as error:
            on_error(error)


def _content(path: str, scene: str | None) -> str:
    with open_regular(path, scene) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns]


def _name(path: str | Path, root: str | Path) -> str:
    text, within = os.fspath(path), f"{os.fspath(root)}{os.sep}"
    name = text[len(within) :] if text.startswith(within) else os.path.relpath(path, root)  # relpath is slow
    return name.replace(os.sep, "/")


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _raise(error: OSError) -> None:
    raise error
