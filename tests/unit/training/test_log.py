"""The live log: complete lines or none, and truncated to the step of a saved state."""

import math
import os

import pandas as pd
import pytest

from loco.errors import DataError
from loco.storage.training_log import LOG_COLUMNS
from loco.training.log import LiveLog, read_log


def rows(count):
    return [{"step": k, "loss": 0.1 * k, "mean_ap": math.nan, "seconds": 1e-5 / k} for k in range(1, count + 1)]


def written(path, count):
    log = LiveLog(path)
    for row in rows(count):
        log.append(row)
    return log


def test_lines_are_those_that_pandas_writes(tmp_path):
    log = written(tmp_path / "log.csv", 5)
    expected = pd.DataFrame(rows(5)).reindex(columns=LOG_COLUMNS).to_csv(index=False)
    assert log.content().decode() == expected
    assert log.position == len(expected)


def test_a_reader_counts_whole_lines_only(tmp_path):
    path = tmp_path / "log.csv"
    assert read_log(path) == []
    text = written(path, 3).content()
    whole = [{k: v for k, v in row.items() if not math.isnan(v)} for row in rows(3)]
    for length in range(len(text) + 1):  # killed at any byte
        path.write_bytes(text[:length])
        count = max(0, text[:length].count(b"\n") - 1)
        assert read_log(path) == whole[:count]


def test_a_log_is_cut_at_the_position_of_a_state(tmp_path):
    path = tmp_path / "log.csv"
    position = written(path, 3).mark()
    path.unlink()
    text = written(path, 6).content()
    with path.open("ab") as file:
        file.write(b"7,,0.")  # an incomplete line
    log = LiveLog(path)
    log.cut(position, 3)
    assert path.read_bytes() == text[:position]
    for row in rows(6)[3:]:
        log.append(row)
    assert path.read_bytes() == log.content() == text


def test_a_log_that_does_not_belong_to_the_state_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    position = written(path, 3).position
    with pytest.raises(DataError, match=r"not belong to the saved state[\s\S]*step 2"):
        LiveLog(path).cut(position, 2)
    with pytest.raises(DataError, match="not belong to the saved state"):
        LiveLog(path).cut(position + 1, 3)
    with pytest.raises(DataError):
        LiveLog(tmp_path / "nothing").cut(position, 3)


def test_a_new_training_begins_its_log_anew(tmp_path):
    written(tmp_path / "log.csv", 5)
    assert len(read_log(written(tmp_path / "log.csv", 2).path)) == 2


def test_a_full_disk_is_reported(tmp_path, monkeypatch):
    log = written(tmp_path / "log.csv", 2)
    monkeypatch.setattr(os, "write", lambda descriptor, data: len(data) // 2)
    with pytest.raises(DataError, match="cannot be written"):
        log.append(rows(3)[2])


def test_values_are_not_lost(tmp_path):
    log = LiveLog(tmp_path / "log.csv")
    log.append({"step": 1, "loss": 1 / 3})
    assert read_log(log.path) == [{"step": 1, "loss": 1 / 3}]


def test_a_file_that_is_no_log_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss\n1,high\n")
    with pytest.raises(DataError, match="not the log"):
        read_log(tmp_path / "log.csv")
