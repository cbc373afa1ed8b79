"""Files appear whole or not at all: write under a temporary name in the same folder, then rename."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loco.errors import DataError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block ends well.

    The temporary name keeps the suffix of ``path``, because libraries choose the format by it. If the block
    raises, nothing is left behind.

    Raises:
        DataError: the disk is full, or a file may not grow to this size.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".part{path.suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _set_default_mode(temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # HDF5 reports a failed flush as a RuntimeError
        temporary.unlink(missing_ok=True)
        if _ran_out_of_room(error):
            raise DataError(
                "the disk is full, or the file would pass the allowed size; nothing was written",
                file=path,
                remedy="free some space, or run on a larger disk (snakemake --directory), and run again",
            ) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` to ``path`` as JSON with sorted keys, atomically. NaN is refused: JSON has none."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def _set_default_mode(path: Path) -> None:
    """Give ``path`` the mode of an ordinary new file (``mkstemp`` makes it private)."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def _ran_out_of_room(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from (HDF5 fails again on closing), is for want of room."""
    if error is None:
        return False
    # HDF5 gives the number of the system's error in the text alone.
    in_text = re.search(r"errno = (\d+)", str(error))
    number = getattr(error, "errno", None) or (int(in_text[1]) if in_text else None)
    return number in _NO_ROOM or _ran_out_of_room(error.__context__)
