import subprocess
import sys

from loco.training.lock import training_lock
from loco.training.states import saved_states, size_of, state_folder, states_of

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
