import json
import math
import subprocess
import sys

from loco.training.lock import training_lock
from loco.training.log import LiveLog
from loco.training.states import (
    is_extensible,
    is_final,
    keeps_final_state,
    progress,
    saved_states,
    setting_changes,
    size_of,
    state_folder,
    state_settings,
    states_of,
)

FINGERPRINT = "0123456789abcdef" * 4


def test_states_are_found_below_a_folder_but_for_those_of_running_trainings(tmp_path):
    runs = [tmp_path / "train" / "split" / "experiment" / f"seed{k}" for k in range(3)]
    own, other = state_folder(runs[0], FINGERPRINT), state_folder(runs[0], "f" * 64)
    running = state_folder(runs[1], FINGERPRINT)
    for state in (own, other, running, runs[2] / "state-of-the-art"):
        state.mkdir(parents=True)
    (runs[2] / "state-0123").write_text("not a folder")
    assert own.name == "state-0123456789abcdef"
    assert states_of(runs[0]) == [own, other]
    assert states_of(runs[2]) == []
    with training_lock(runs[1]):
        assert saved_states(tmp_path) == [own, other]
        assert states_of(runs[1]) == [running]
    assert saved_states(tmp_path) == [own, other, running]


def test_the_size_counts_all_files(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "last.ckpt").write_bytes(bytes(1000))
    (tmp_path / "deep" / "job.json").write_bytes(bytes(24))
    assert size_of(tmp_path) == 1024


def test_states_are_listed_without_pytorch():
    code = "import sys, loco.training.states; print({'torch', 'cv2', 'lightning'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_a_state_depends_on_the_number_of_steps_only_where_steps_do(experiment):
    train = experiment["train"]
    for schedule, extensible in ((None, False), ("cosine", False), ("constant", True)):
        if schedule:
            train["optimiser"]["schedule"] = schedule
        assert is_extensible(train) == keeps_final_state(train) == extensible
        longer = {**train, "steps": 99, "processes": 4, "nodes": 2, "workers": 3, "save_every": 7}
        assert (state_settings(longer) == state_settings(train)) == extensible
        elsewhere = {**train, "processes": 4, "nodes": 2, "workers": 3, "save_every": 7}
        assert state_settings(elsewhere) == state_settings(train)
        assert state_settings({**train, "validate_every": 1}) != state_settings(train)
    assert not keeps_final_state({**train, "keep_state": False})


def test_changed_settings_are_listed(experiment, tmp_path):
    (tmp_path / "job.json").write_text(json.dumps({"experiment": experiment, "seed": 0}))
    assert setting_changes(tmp_path, experiment, 0) == []
    experiment["train"] |= {"steps": 12, "processes": 3}
    experiment["train"]["loss"]["tau"] = 0.1
    assert setting_changes(tmp_path, experiment, 1) == [
        "seed 0 (now 1)",
        "train.loss.tau 0.05 (now 0.1)",
        "train.steps 6 (now 12)",
    ]
    assert setting_changes(tmp_path / "nothing", experiment, 0) == []


def test_progress_is_read_from_the_live_log(tmp_path):
    assert progress(tmp_path)[:2] == (0, 0)
    (tmp_path / "job.json").write_text(json.dumps({"experiment": {"train": {"steps": 100}}, "seed": 0}))
    log = LiveLog(tmp_path / "log.csv")
    for step in range(1, 11):
        entry = {"step": step, "loss": 1 / step, "seconds": 2.0, "images_per_second": 40.0}
        log.append(entry | ({"val_map": 0.3} if step == 4 else {}))
    now = progress(tmp_path)
    assert now == (10, 100, 0.1, 0.3, 40.0, 180.0)
    (tmp_path / "job.json").unlink()
    assert math.isnan(progress(tmp_path).seconds_left)


def test_a_final_state_is_one_without_a_later_one(tmp_path):
    assert not is_final(tmp_path)
    (tmp_path / "final.ckpt").touch()
    assert is_final(tmp_path)
    (tmp_path / "last.ckpt").touch()  # the training is being continued
    assert not is_final(tmp_path)
