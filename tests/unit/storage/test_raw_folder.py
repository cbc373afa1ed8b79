import pytest

from loco.errors import DataError
from loco.records import Recipe, new_record
from loco.storage import read_folder_record, write_folder_record
from loco.storage.raw_folder import verify_folder

RECIPE = Recipe("simulate", "c0de", {"seed": 1})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ash/color").mkdir(parents=True)
    (tmp_path / "ash/color/0.png").write_bytes(b"pixels")
    (tmp_path / "ash/K.txt").write_text("1 0 0")
    (tmp_path / "ash/.snakemake_timestamp").touch()
    write_folder_record(tmp_path / "ash", new_record(RECIPE, {"dataset": "d", "scene": "ash"}, {}))
    return tmp_path / "ash"


def test_a_record_lists_all_files(folder):
    document = read_folder_record(folder, RECIPE)
    assert sorted(document.content["files"]) == ["K.txt", "color/0.png"]
    verify_folder(folder)


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (lambda folder: (folder / "color/0.png").write_bytes(b"pixelt"), "color/0.png"),
        (lambda folder: (folder / "K.txt").unlink(), "K.txt"),
        (lambda folder: (folder / "new.txt").touch(), "new.txt"),
    ],
)
def test_changed_files_are_named(folder, damage, name):
    damage(folder)
    with pytest.raises(DataError, match=rf"1 file\(s\)[\s\S]*{name}"):
        verify_folder(folder)


def test_a_scene_of_other_settings_is_refused(folder):
    with pytest.raises(DataError, match="seed = 1, expected 2"):
        read_folder_record(folder, Recipe("simulate", "c0de", {"seed": 2}))
    (folder / ".record.json").unlink()
    with pytest.raises(DataError, match=r"record\.json"):
        read_folder_record(folder, RECIPE)
