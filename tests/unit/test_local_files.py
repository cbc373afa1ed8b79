"""Paths of a job's files, with and without a storage provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from loco.local_files import by_local_path, planned_name, raw_folder

COPIES = ".snakemake/storage/s3/bucket/results of us"


def test_values_follow_their_files() -> None:
    names = ["results/a.json", "results/b.json"]
    assert by_local_path(dict(zip(names, (1, 2))), names, names) == {names[0]: 1, names[1]: 2}
    copies = [f"{COPIES}/{name}" for name in names]
    assert by_local_path({names[1]: 2, names[0]: 1, "results/other.json": 3}, names, copies) == dict(
        zip(copies, (1, 2))
    )
    with pytest.raises(ValueError, match="longer"):
        by_local_path({names[0]: 1}, names[:1], copies)


def test_raw_scenes_are_where_their_files_are() -> None:
    assert raw_folder("/data/scans", ["/data/scans/ash/a.zip", "/data/scans/ash/b.zip"]) == Path("/data/scans")
    assert raw_folder("results/raw/tiny", [f"{COPIES}/results/raw/tiny/ash"]) == Path(f"{COPIES}/results/raw/tiny")
    assert raw_folder("results/raw/tiny/", ["results/raw/tiny/ash"]) == Path("results/raw/tiny")
    other = "/shared/labels.tsv"  # not in the folder
    assert raw_folder("results/raw/tiny", [other, f"{COPIES}/results/raw/tiny/ash"]) == Path(
        f"{COPIES}/results/raw/tiny"
    )
    assert raw_folder("data/scans", []) == Path("data/scans")  # all files are missing, as the check reports


def test_records_do_not_name_copies() -> None:
    assert planned_name(Path(COPIES) / "results/frames/tiny/ash.h5") == "results/frames/tiny/ash.h5"
    assert planned_name("results/frames/tiny/ash.h5") == "results/frames/tiny/ash.h5"
    assert planned_name("/home/me/results/weights.safetensors") == "/home/me/results/weights.safetensors"
