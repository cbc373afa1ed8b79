"""`loco verify` and `loco clean` on a small folder of results, written as in the steps."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from loco.cli import main
from loco.cli_results import _plan
from loco.evaluation.result import Evaluation, Row
from loco.models.build import build_extractor
from loco.models.stored import save_extractor
from loco.plan import Plan
from loco.records import new_record
from loco.results.metrics import write_metrics
from loco.storage import (
    Correspondences,
    Features,
    Frames,
    read_folder_record,
    write_folder_record,
    write_manifest,
)
from loco.storage.content_id import read_content_id
from loco.storage.training_log import curve_digest
from loco.training.lock import training_lock
from loco.training.log import LiveLog
from loco.training.states import state_folder

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests/workflow/tiny.yaml"
RAW = "results/raw/tiny/ash"
MANIFEST = "results/manifests/tiny/ash.json"
FRAMES = "results/frames/tiny/ash.h5"
CORRESPONDENCES = "results/correspondences/tiny/stride4/ash.h5"
MODEL = "results/train/tiny/quick/seed0/model.safetensors"
FEATURES = "results/features/quick/tiny-seed0/tiny/ash.h5"
METRICS = "results/metrics/pixel_correspondence/tiny/quick/tiny-seed0.json"
FILES = (MANIFEST, FRAMES, CORRESPONDENCES, MODEL, FEATURES, METRICS)
PLACE = {"dataset": "tiny", "scene": "ash"}


def record(plan: Plan, path: str, subject: dict[str, str], *inputs: str) -> Any:
    recipe = plan.recipe_of(path)
    assert recipe is not None
    return new_record(recipe, subject, {path: read_content_id(path) for path in inputs})


def write_raw(plan: Plan) -> None:
    Path(RAW, "color").mkdir(parents=True)
    Path(RAW, "color/0.png").write_bytes(b"pixels")
    write_folder_record(Path(RAW), record(plan, RAW, PLACE))


def write_check(plan: Plan, digest: str = "d") -> None:
    content = {**PLACE, "ok": True, "problems": [], "files": [], "digest": digest}
    made = new_record(plan.recipe_of(MANIFEST), PLACE, {RAW: read_folder_record(Path(RAW)).content_id})
    write_manifest(MANIFEST, content, made)


def write_scene_files(plan: Plan) -> None:
    with Frames.create(
        FRAMES, "tiny", "ash", {"n": 1, "h": 4, "w": 4}, {"names": ["a"]}, record=record(plan, FRAMES, PLACE, MANIFEST)
    ) as file:
        file["intrinsics"][:], file["pose"][:] = np.eye(3), np.eye(4)
        file["rgb"][:], file["depth"][:], file["source"][:] = 7, 1, 1
    names, made = read_content_id(FRAMES), record(plan, CORRESPONDENCES, PLACE, FRAMES)
    sizes = {"n": 1, "h": 1, "w": 1}
    with Correspondences.create(CORRESPONDENCES, "tiny", "ash", sizes, frames_id=names, record=made) as file:
        file["points"][:], file["valid"][:], file["overlap"][:] = 0, True, 1


def write_model(plan: Plan) -> None:
    log = Path(MODEL).with_name("log.csv")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(
        "step,phase,lr,tau,loss,mean_ap,pairs_per_second,data_fraction,peak_gb,val_map\n1,1,0.1,0.05,0.5,0.5,9,0.1,0.2,0.3\n"
    )
    config = plan.config["experiments"]["quick"]["model"]
    made = record(plan, MODEL, {"split": "tiny", "experiment": "quick"}, FRAMES, CORRESPONDENCES)
    save_extractor(build_extractor(config), config, Path(MODEL), {"log": curve_digest(log)}, made)


def write_scores(plan: Plan) -> None:
    names, made = read_content_id(FRAMES), record(plan, FEATURES, PLACE, FRAMES, MODEL)
    sizes = {"n": 1, "h": 1, "w": 1, "c": 16}
    with Features.create(FEATURES, "tiny", "ash", sizes, {"extent": [4, 4]}, frames_id=names, record=made) as file:
        file["features"][:], file["norm"][:] = 0.25, 1
    run = {"benchmark": "pixel_correspondence", "split": "tiny", "experiment": "quick", "seed": 0}
    evaluation = Evaluation([Row("recall@5px", "all", 0.5, None, None, 1)], {"recall@5px": [0.5]})
    made = record(plan, METRICS, {"split": "tiny", "experiment": "quick"}, FRAMES, FEATURES)
    write_metrics(METRICS, **run, settings={}, evaluation=evaluation, record=made)


@pytest.fixture(scope="session")
def plan() -> Plan:
    return _plan([TINY])


@pytest.fixture(scope="session")
def pristine_results(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for write in (write_raw, write_check, write_scene_files, write_model, write_scores):
            write(plan)
    return folder / "results"


@pytest.fixture
def results(pristine_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the folder that a test may damage; its parent is the working directory."""
    shutil.copytree(pristine_results, tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


def verify(capsys: pytest.CaptureFixture, *options: object) -> tuple[int, str]:
    """Return the exit status of `loco verify`, and its output, with lines joined by semicolons."""
    status = main(["verify", "--jobs", "1", *map(str, options)])
    printed = capsys.readouterr()
    return status, "; ".join(line.strip() for line in (printed.out + (printed.err if status else "")).splitlines())


def configured(folder: Path, **changes: Any) -> list[object]:
    (folder / "changes.yaml").write_text(yaml.safe_dump(changes))
    return ["--configfile", TINY, folder / "changes.yaml"]


def test_a_finished_folder_is_whole(results: Path, capsys: pytest.CaptureFixture) -> None:
    status, said = verify(capsys, "--configfile", TINY)
    assert status == 0
    assert said == f"compared with {TINY}; 7 files verified: all are intact and belong to this configuration"
    status, said = verify(capsys, results, "--files-only")
    assert (status, said) == (0, "7 files verified: all are intact")


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_damage(results: Path, capsys: pytest.CaptureFixture, name: str) -> None:
    path = results.parent / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    status, said = verify(capsys, "--files-only")
    assert status == 1
    assert f"damaged: 1; {path}: " in said
    assert "1 of 7 files failed the verification" in said
    assert "delete the damaged, misplaced and outdated files" in said


@pytest.mark.parametrize("name", [f"{RAW}/color/0.png", f"{RAW}/.record.json"])
def test_a_raw_scene_of_the_workflow_is_read_whole(results: Path, capsys: pytest.CaptureFixture, name: str) -> None:
    path = results.parent / name
    path.write_bytes(path.read_bytes().replace(b"pixels", b"pixelt").replace(b'"files"', b'"file5"'))
    status, said = verify(capsys, "--files-only")
    assert status == 1
    assert f"damaged: 1; {results.parent / RAW}: " in said


def test_a_log_of_another_training_is_damage(results: Path, capsys: pytest.CaptureFixture) -> None:
    log = (results.parent / MODEL).with_name("log.csv")
    log.write_text(log.read_text().replace("0.1,0.2", "0.3,0.4"))  # the part of it that is about the machine may differ
    assert verify(capsys, "--files-only")[0] == 0
    log.write_text(log.read_text().replace("0.5,0.5", "0.5,0.6"))
    status, said = verify(capsys, "--files-only")
    assert status == 1
    assert f"{results.parent / MODEL}: the log.csv in the same folder belongs to another training run" in said


def test_what_was_made_from_older_inputs_is_outdated(results: Path, plan: Plan, capsys: pytest.CaptureFixture) -> None:
    write_check(plan, digest="e")  # the raw files changed, and only their check ran again
    status, said = verify(capsys, "--configfile", TINY)
    assert status == 1
    assert (
        f"outdated: 1; {results.parent / FRAMES}: was made from another version of {MANIFEST} than the current one"
        in said
    )
    assert "damaged: " not in said
    assert "other configuration" not in said


def test_files_of_another_configuration_are_named_with_what_differs(
    results: Path, capsys: pytest.CaptureFixture
) -> None:
    changes = configured(results.parent, datasets={"tiny": {"frames": {"height": 32}}})
    status, said = verify(capsys, *changes)
    assert status == 1
    assert "other configuration: 5; " in said  # all but the raw scene and its check
    for name in (FRAMES, CORRESPONDENCES, MODEL, FEATURES, METRICS):
        assert f"{results.parent / name}: step `frames`: made with height = 48, expected 32" in said
    assert verify(capsys, "--files-only", *changes)[0] == 0


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"run": {"benchmarks": ["location_consistency"]}}, []),  # selected or not, the file is as configured
        ({"experiments": {"quick": {"train": {"steps": 4}}}}, [MODEL, FEATURES, METRICS]),
        ({"benchmarks": {"pixel_correspondence": {"matches": 60}}}, [METRICS]),
    ],
)
def test_only_files_that_a_change_reaches_are_named(
    results: Path, capsys: pytest.CaptureFixture, changes: dict, names: list[str]
) -> None:
    status, said = verify(capsys, *configured(results.parent, **changes))
    assert status == bool(names)
    assert [name for name in FILES if name in said] == names


def test_a_file_that_the_configuration_does_not_have_is_named(results: Path, capsys: pytest.CaptureFixture) -> None:
    other = results.parent / FRAMES.replace("/tiny/", "/large/")
    other.parent.mkdir()
    shutil.copy(results.parent / FRAMES, other)
    untrained = results.parent / MODEL.replace("/quick/", "/untrained/")
    shutil.copytree((results.parent / MODEL).parent, untrained.parent)
    status, said = verify(capsys, "--configfile", TINY)
    assert status == 1
    assert "other configuration: 2; " in said
    for path in (other, untrained):
        assert f"{path}: the configuration does not contain this file" in said


def test_files_of_another_configuration_are_not_counted_as_damaged(
    results: Path, capsys: pytest.CaptureFixture
) -> None:
    status, said = verify(capsys)  # the results of another configuration than the default one
    assert status == 1
    assert f"compared with {ROOT}/config/config.yaml, the default; name another with --configfile" in said
    assert "loco verify: all files are intact, but 7 of 7 do not belong to this configuration" in said
    assert "what to do: pass the configuration files of that run with --configfile" in said
    assert "failed the verification" not in said
    assert "delete" not in said
    (results.parent / FEATURES).write_bytes(b"")
    status, said = verify(capsys)
    assert status == 1
    assert "1 of 7 files failed the verification; 6 others are intact, but do not belong to this configuration" in said


def test_the_default_configuration_of_the_working_directory_is_named_by_its_relative_path(
    results: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("Snakefile", "config", "workflow_scripts", "loco"):
        Path(name).symlink_to(ROOT / name)
    _, said = verify(capsys)
    assert said.startswith("compared with config/config.yaml, the default; name another with --configfile; ")


def test_a_file_without_a_record_belongs_to_no_configuration(results: Path, capsys: pytest.CaptureFixture) -> None:
    write_manifest(MANIFEST, {**PLACE, "ok": True, "problems": [], "files": [], "digest": "d"})
    Path(FRAMES).unlink()
    status, said = verify(capsys, "--configfile", TINY)
    assert status == 1
    assert f"other configuration: 1; {results.parent / MANIFEST}: has no provenance record" in said
    assert verify(capsys, "--files-only")[0] == 0


KILLED = """
import os, sys
from loco.storage import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half a file")
    os._exit(9)
"""


def leave_temporary_file(path: Path) -> Path:
    """Write what a job leaves that is killed while it writes a file."""
    subprocess.run([sys.executable, "-c", KILLED, path], cwd=ROOT, check=False)
    (left,) = path.parent.glob(f".{path.name}.*")
    return left


def test_what_a_killed_job_left_is_listed(results: Path, capsys: pytest.CaptureFixture) -> None:
    left = leave_temporary_file(results.parent / FRAMES)
    status, said = verify(capsys, "--files-only")
    assert status == 1
    assert f"left behind: 1; {left}: a temporary file of a killed job" in said
    assert "loco clean" in said


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for command in ("verify", "clean"):
        assert main([command, str(tmp_path / "nothing")]) == 2
        assert f"the folder {tmp_path / 'nothing'} does not exist" in capsys.readouterr().err


def test_clean_lists_without_deleting_and_deletes_on_request(results: Path, capsys: pytest.CaptureFixture) -> None:
    left = leave_temporary_file(results.parent / METRICS)
    out_dir = (results.parent / MODEL).parent
    state = state_folder(out_dir, "f" * 64)
    state.mkdir()
    (state / "last.ckpt").write_bytes(b"x" * 1_500_000)
    running = results / "train/tiny/other/seed0"
    before = {path for path in results.rglob("*") if path not in (left, state, state / "last.ckpt")}
    with training_lock(running):
        state_of_running = state_folder(running, "e" * 64)
        state_of_running.mkdir()
        assert main(["clean"]) == 0
        said = capsys.readouterr().out
        assert f"1.5 MB  {state}  (saved state of an interrupted training run)" in said
        assert f"0.0 MB  {left}  (temporary file of a killed job)" in said
        assert "nothing was removed; add --delete" in said
        assert str(running) not in said
        assert left.exists()
        assert state.exists()
        assert main(["clean", "--delete"]) == 0
        assert state_of_running.exists()
    assert not left.exists()
    assert not state.exists()
    assert {path for path in results.rglob("*") if running not in (path, *path.parents)} >= before
    capsys.readouterr()
    shutil.rmtree(running)
    assert main(["clean"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


def test_clean_keeps_final_states_unless_they_are_named(results: Path, capsys: pytest.CaptureFixture) -> None:
    state = state_folder((results.parent / MODEL).parent, "f" * 64)
    state.mkdir()
    (state / "final.ckpt").write_bytes(b"x" * 500_000)
    assert main(["clean", "--delete"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"
    assert main(["clean", "--final", "--delete"]) == 0
    assert f"0.5 MB  {state}  (final state of a finished training run)" in capsys.readouterr().out
    assert not state.exists()


def test_progress_of_trainings(results: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["progress"]) == 0
    assert "no training run has a saved state" in capsys.readouterr().out
    folder = (results.parent / MODEL).parent
    state = state_folder(folder, "f" * 64)
    state.mkdir()
    (state / "job.json").write_text('{"experiment": {"train": {"steps": 4000}}}')
    log = LiveLog(state / "log.csv")
    for step in (1, 2, 3):
        log.append({"step": step, "loss": 0.5, "val_map": 0.25, "seconds": 1.0, "images_per_second": 16.0})
    with (state / "log.csv").open("a") as file:
        file.write("4,,0.")  # being written
    begin = f"{folder.relative_to(results)}: step 3 of 4000, loss 0.5000, val_map 0.2500"
    assert main(["progress"]) == 0
    assert capsys.readouterr().out == f"{begin} (interrupted; {state.name})\n"
    with training_lock(folder):
        assert main(["progress"]) == 0
        assert capsys.readouterr().out == f"{begin}, 16 images/s, 1:06:37 left (running; {state.name})\n"
    (state / "final.ckpt").touch()
    assert main(["progress"]) == 0
    assert capsys.readouterr().out == f"{begin} (finished; {state.name})\n"


def test_clean_needs_no_pytorch(results: Path) -> None:
    code = "import sys; from loco.cli import main; main(['clean']); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "nothing to remove\nFalse\n"


def test_failed_jobs_are_printed_with_the_end_of_their_logs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    results = tmp_path / "results"
    for name, lines in (("good", ["INFO started", "INFO finished"]), ("bad", [f"INFO {k}" for k in range(20)])):
        (results / "logs/train").mkdir(parents=True, exist_ok=True)
        text = "".join(f"2026-11-29 12:00:00,000 {line}\n" for line in lines)
        (results / f"logs/train/{name}.log").write_text(text)
    with (results / "logs/train/bad.log").open("a") as log:
        log.write("2026-11-29 12:00:01,000 ERROR is missing\n  file: a\x1bb.zip\n")
    assert main(["failed", str(results), "--lines", "3"]) == 0
    assert capsys.readouterr().out == (
        "results/logs/train/bad.log: failed\n"
        "    2026-11-29 12:00:00,000 INFO 19\n"
        "    2026-11-29 12:00:01,000 ERROR is missing\n"
        "      file: a\\x1bb.zip\n\n"
    )
    (results / "logs/train/bad.log").unlink()
    assert main(["failed", str(results)]) == 0
    assert capsys.readouterr().out == "no log of a failed or running job: all jobs of the last runs finished\n"
