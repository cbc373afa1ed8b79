"""Which names are data, which files are opened, how text is decoded."""

from __future__ import annotations

import os
import socket
from pathlib import PurePosixPath

import pytest

from loco.errors import DataError, LocoError
from loco.files import decode_text, is_data, is_plain_path, open_regular


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._0.jpg", "Thumbs.db", "THUMBS.DB", "desktop.ini", "__MACOSX/a/0.jpg", "a/@eaDir/0.jpg", ".git/x",
     "a/._b/0.jpg", "0.jpg:Zone.Identifier", "poses.txt~", "Icon\r", "$RECYCLE.BIN/0.jpg"],
)  # fmt: skip
def test_what_systems_leave_behind_is_no_data(name):
    assert not is_data(name)
    assert not is_data(PurePosixPath(name))


@pytest.mark.parametrize(
    "name", ["0.jpg", "a/b.png", "../x", "./x", "thumbs.dbx", "MACOSX/0.jpg", "a.b/0.jpg", "1..jpg"]
)
def test_other_names_are_data(name):
    assert is_data(name)


def test_text_is_decoded_with_and_without_a_mark():
    text = "größe 1.0\r\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert decode_text(text.encode(encoding)) == text
    assert decode_text(b"\xff1") == "\ufffd1"
    with pytest.raises(UnicodeDecodeError):
        decode_text(b"a\xff", errors="strict")


def test_only_regular_files_are_opened(tmp_path):
    """Opening other kinds of files does not block, and none is read without limit."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        for name in ("pipe", "zero", "socket", "."):
            with pytest.raises(DataError, match="not a regular file"), open_regular(tmp_path / name):
                pass
    (tmp_path / "file").write_bytes(b"abc")
    with open_regular(tmp_path / "file") as opened:
        assert opened.read() == b"abc"


def test_paths_that_snakemake_takes_for_patterns_are_not_plain():
    assert is_plain_path("data/a [1] (x) ü")
    assert not any(map(is_plain_path, ("data/{x}", "a}b", "a\x1b[2J", "a\nb")))


def test_errors_have_no_control_characters():
    assert str(LocoError("a\x1b[31m\nb\r")) == "a\\x1b[31m\nb\\r"
    error = DataError("holds \x1b[2J", file="x\ny")
    assert str(error) == "holds \\x1b[2J\n  file: x\\ny"
    assert error.problem == "holds \\x1b[2J"
