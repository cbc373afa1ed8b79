"""Small training runs: what is learnt and written; an interrupted training ends like an uninterrupted one."""

import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import avg_pool2d, dropout, normalize

from loco.errors import ConfigError, DataError, LocoError
from loco.models import build_extractor, load
from loco.models.compact_cnn import CompactCNN
from loco.models.parts import Encoding
from loco.steps.correspondence import correspond_scene
from loco.training import train
from loco.training.data import Batches
from loco.training.jitter import colours
from loco.training.log import read_log
from loco.training.module import RankingModule
from loco.training.scene_files import open_scenes
from loco.training.states import is_final, progress, state_folder
from loco.training.tracked_weights import TrackedWeights, clone, trained_weights
from loco.training.validation import ValidationScene

FINGERPRINT = "0123456789abcdef" * 4


def run(experiment, walls, out, **changes):
    options = {"seed": 0, "state_fingerprint": FINGERPRINT, "threads": 1} | changes
    train(experiment, walls[:2], walls[2:], out, **options)
    return load(out / "model.safetensors"), pd.read_csv(out / "log.csv")


def assert_equal(a, b):
    for (name, one), (_, other) in zip(a.state_dict().items(), b.state_dict().items()):
        assert torch.equal(one, other), name


def largest_difference(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values())
    return max((one - other).abs().max().item() for one, other in pairs if one.is_floating_point())


def test_training_learns_and_says_how(experiment, walls, tmp_path):
    experiment["train"] |= {"steps": 60, "validate_every": 30}
    model, log = run(experiment, walls, tmp_path)
    assert log["step"].tolist() == list(range(1, 61))
    assert log["loss"].tail(5).mean() < log["loss"].head(5).mean() - 0.05
    assert log["val_map"].notna().tolist() == [step in (30, 60) for step in range(1, 61)]
    validation = ValidationScene(open_scenes(walls[2:])[0])
    untrained = build_extractor(experiment["model"], 0)
    assert validation.mean_ap(model) > validation.mean_ap(untrained) + 0.03
    assert validation.mean_ap(model) == pytest.approx(log["val_map"].iloc[-1])
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "log.csv", "model.safetensors", "tensorboard"]


@pytest.mark.parametrize(("every", "warned"), [(6, False), (7, True)])
def test_validation_scenes_that_are_never_used_are_stated(experiment, walls, tmp_path, caplog, every, warned):
    experiment["train"] |= {"steps": 6, "validate_every": every}
    _, log = run(experiment, walls, tmp_path)
    assert ("`validate_every: 7` exceeds the 6 steps" in caplog.text) == warned
    assert log["val_map"].notna().sum() == (0 if warned else 1)


def batch_settings(experiment):
    return experiment["train"]["batch"], experiment["train"]["augment"]


def test_several_batches_make_one_step(experiment, walls, tmp_path):
    _, alone = run(experiment, walls[:2], tmp_path / "alone")
    experiment["train"]["accumulate"] = 2
    _, log = run(experiment, walls[:2], tmp_path / "two")
    assert log["step"].tolist() == list(range(1, 7))
    # Before the first step, the weights are those of the other run: the first entry is the mean of two batches.
    module = RankingModule(experiment, 0, [], tmp_path)
    batches = Batches(open_scenes(walls[:2]), *batch_settings(experiment), 0)
    losses = [first_loss(module, batches.draw(step)) for step in range(2)]
    assert alone["loss"][0] == pytest.approx(losses[0], abs=1e-5)
    assert log["loss"][0] == pytest.approx(np.mean(losses), abs=1e-5)


def test_upsampled_features_are_trained_at_their_own_stride(experiment, walls, tmp_path):
    experiment["model"]["upsample"] = {"name": "joint_bilateral", "stride": 2}
    with pytest.raises(DataError, match="at the stride of the model, 2"):
        run(experiment, walls[:2], tmp_path / "coarse")
    finer = [(frames, tmp_path / f"{number}.h5") for number, (frames, _) in enumerate(walls[:2])]
    for frames, out in finer:
        correspond_scene(frames, out, {"stride": 2, "overlap_tolerance": 0.05})
    model, log = run(experiment, finer, tmp_path / "fine")
    module = RankingModule(experiment, 0, [], tmp_path)
    batch = Batches(open_scenes(finer), *batch_settings(experiment), 0).draw(0)
    assert batch.use.shape[1:] == (16, 24)
    assert log["loss"][0] == pytest.approx(first_loss(module, batch), abs=1e-5)
    assert (model.stride, model.config) == (2, experiment["model"])
    assert largest_difference(model, module.extractor) > 1e-4


def first_loss(module, batch):
    features = module.extractor(colours(batch.images, batch.jitter)).permute(0, 2, 3, 1)[batch.use]
    scenes, images = (ids[:, None, None].expand(batch.use.shape)[batch.use] for ids in (batch.scene, batch.image))
    return module.criterion(features, batch.points[batch.use], scenes, image_ids=images)[0].item()


def test_half_precision_follows_single(experiment, walls, tmp_path):
    _, single = run(experiment, walls[:2], tmp_path / "single")
    experiment["train"]["precision"] = "bfloat16"
    model, half = run(experiment, walls[:2], tmp_path / "half")
    np.testing.assert_allclose(half["loss"], single["loss"], atol=0.03)
    assert (half["loss"] != single["loss"]).all()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_mean_of_the_weights_is_what_is_kept(experiment, walls, tmp_path, monkeypatch):
    experiment["train"]["ema"] = 0.7
    seen = []
    update_average = TrackedWeights.update_average
    monkeypatch.setattr(
        TrackedWeights,
        "update_average",
        lambda tracked, net: (seen.append(clone(trained_weights(net))), update_average(tracked, net)),
    )
    model, _ = run(experiment, walls[:2], tmp_path)
    mean = trained_weights(build_extractor(experiment["model"], 0))["encoder.head.weight"]
    for weights in seen:
        mean = 0.7 * mean + 0.3 * weights["encoder.head.weight"]
    torch.testing.assert_close(model.state_dict()["encoder.head.weight"], mean)
    counter = "encoder.centre.num_batches_tracked"
    assert torch.equal(model.state_dict()[counter], seen[-1][counter])


def test_the_best_weights_are_kept_and_a_training_that_gets_no_better_ends(experiment, walls, tmp_path, monkeypatch):
    values = iter([0.3, 0.5, 0.4, 0.45, 0.9])
    seen = {}

    def mean_ap(scene, extractor):
        value = next(values)
        seen[value] = clone(trained_weights(extractor))
        return value

    monkeypatch.setattr(ValidationScene, "mean_ap", mean_ap)
    experiment["train"] |= {"steps": 20, "validate_every": 2, "keep": "best", "early_stop": 2}
    model, log = run(experiment, walls, tmp_path)
    assert log["val_map"].dropna().tolist() == [0.3, 0.5, 0.4, 0.45]
    assert len(log) == 8
    for name, value in seen[0.5].items():
        assert torch.equal(model.state_dict()[name], value)


def killed(*_):
    raise KeyboardInterrupt


def test_a_training_that_had_ended_early_does_not_go_on(experiment, walls, tmp_path, monkeypatch):
    values = iter([0.3, 0.5, 0.4, 0.45])
    monkeypatch.setattr(ValidationScene, "mean_ap", lambda *_: next(values))
    experiment["train"] |= {"steps": 20, "validate_every": 2, "save_every": 2, "early_stop": 2}
    with monkeypatch.context() as patched:
        patched.setattr(RankingModule, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            run(experiment, walls, tmp_path)
    _, log = run(experiment, walls, tmp_path)
    assert log["step"].tolist() == list(range(1, 9))


def test_the_log_and_the_progress_bar_tell_what_a_step_took(experiment, walls, tmp_path, capsys):
    experiment["train"]["profile"] = True
    _, log = run(experiment, walls, tmp_path)
    shown = capsys.readouterr().out
    last = log.iloc[-1]
    assert "exact (phase 1 of 1): 100%" in shown
    assert "6/6 [" in shown
    for name, value in (("loss", f"{last['loss']:.4f}"), ("images/s", f"{last['images_per_second']:.0f}")):
        assert f"{name}={value}" in shown
    assert f"val_map={last['val_map']:.4f}" in shown
    assert log["data_fraction"].between(0, 1, inclusive="neither").all()
    assert log["peak_gb"].between(0.1, 10).all()
    assert "training_step" in next(tmp_path.glob("*profile*.txt")).read_text()


CONTRASTIVE = {"name": "sup_con", "rho": 0.05, "kappa": 1.0, "tau": 0.1, "queries": 32}


@pytest.mark.parametrize(("phases", "nodes"), [(2, [2]), pytest.param(1, [1, 2], marks=pytest.mark.long)])
def test_two_processes_train_as_one_on_one_node_or_two(experiment, walls, tmp_path, slurm, phases, nodes):
    if phases == 2:
        in_ring = {"loss": {**experiment["train"]["loss"], "exchange": "ring"}, "steps": 3}  # 1 process has no ring
        experiment["train"]["phases"] = [{"loss": CONTRASTIVE, "steps": 3}, in_ring]
    walls = [*walls, walls[0]]  # two scenes for validation, one for each rank
    one, log = run(experiment, walls, tmp_path / "one")
    experiment["train"]["processes"] = 2
    found = []
    for count in nodes:
        experiment["train"]["nodes"] = count
        two, log_of_two = run(experiment, walls, tmp_path / f"on{count}", threads=2 // count)
        np.testing.assert_allclose(log_of_two["loss"], log["loss"], atol=2e-4)
        np.testing.assert_allclose(log_of_two["val_map"].dropna(), log["val_map"].dropna(), atol=0.02)
        assert log["val_map"].notna().tolist() == log_of_two["val_map"].notna().tolist()
        assert largest_difference(one, two) < 2e-4
        scores = [ValidationScene(scene).mean_ap(two) for scene in open_scenes(walls[2:])]
        assert log_of_two["val_map"].iloc[-1] == sum(scores) / 2  # as one process computes it, bit for bit
        found.append((two, log_of_two[["step", "loss", "mean_ap", "val_map"]]))
    for other, log_of_other in found[1:]:  # the same ranks, on separate machines
        assert_equal(other, found[0][0])
        pd.testing.assert_frame_equal(log_of_other, found[0][1])


@pytest.mark.long
def test_what_goes_wrong_in_one_of_several_processes_is_told(experiment, walls, tmp_path):
    experiment["train"]["processes"] = 2
    experiment["train"]["optimiser"]["lr"] = 1e30
    with pytest.raises(LocoError, match=r"not finite at step \d+[\s\S]*learning rate"):
        run(experiment, walls[:2], tmp_path)


def test_each_phase_has_its_loss_rate_and_temperature(experiment, walls, tmp_path, caplog):
    caplog.set_level("INFO")
    loss = experiment["train"].pop("loss") | {"tau": {"from": 0.1, "to": 0.05}}
    second = {"loss": loss, "steps": 3, "optimiser": {"lr": 1e-3, "schedule": "linear", "warmup_steps": 0}}
    experiment["train"] |= {"steps": 7, "phases": [{"loss": CONTRASTIVE, "steps": 4}, second], "accumulate": 2}
    model, log = run(experiment, walls[:2], tmp_path)
    assert log["phase"].tolist() == [1] * 4 + [2] * 3
    # A warm-up of one step, then a cosine over three steps; a linear schedule over three.
    np.testing.assert_allclose(log["lr"], [1e-3, 2e-3, 1.5e-3, 5e-4, 1e-3, 2e-3 / 3, 1e-3 / 3])
    np.testing.assert_allclose(log["tau"], [0.1] * 4 + [0.1, 0.05 * 2**0.5, 0.05])
    assert log["loss"][:4].min() > 1  # the loss is a cross entropy
    assert log["loss"][4:].max() < 1  # the loss of an average precision
    first, second = model.facts["phases"]
    assert (first["loss"], second["loss"], second["optimiser"]["clip"]) == (CONTRASTIVE, loss, 1.0)
    assert second["fraction_of_learning_rate"] == pytest.approx(2 / (2 + 5), rel=1e-5)
    assert "phase 2 of 2: loss exact, steps 5 to 7" in caplog.text
    for noise in ("litlogger", "weights_only", "LeafSpec", "srun"):
        assert noise not in caplog.text


def test_the_temperature_in_force_is_that_of_the_step(experiment, walls, tmp_path, monkeypatch):
    experiment["train"]["loss"]["tau"] = {"from": 0.2, "to": 0.1, "schedule": "linear"}
    seen = []
    step = RankingModule.training_step
    monkeypatch.setattr(
        RankingModule, "training_step", lambda self, *a: (seen.append(self.criterion.tau), step(self, *a))[1]
    )
    _, log = run(experiment, walls[:2], tmp_path)
    assert seen == pytest.approx([0.2, 0.18, 0.16, 0.14, 0.12, 0.1])
    assert log["tau"].tolist() == seen


@pytest.mark.parametrize("saved", [3, 4, 5])
def test_a_training_goes_on_over_the_boundary_of_phases(experiment, walls, tmp_path, monkeypatch, saved):
    ranking = {"name": "sampled", "rho": 0.05, "kappa": 1.0, "anchors": 8, "max_positives": 32, "max_negatives": 64}
    ranking["tau"] = {"from": 0.1, "to": 0.05}
    experiment["train"] |= {"loss": ranking, "save_every": 1}
    experiment["train"] |= {"phases": [{"loss": CONTRASTIVE, "steps": 4}, {"steps": 2}]}  # states before, at and after
    unbroken, unbroken_log = run(experiment, walls[:2], tmp_path / "unbroken")
    end = RankingModule.end_batch

    def stop(self):
        if self.global_step > saved:
            raise RuntimeError("killed")
        return end(self)

    with monkeypatch.context() as patched:
        patched.setattr(RankingModule, "end_batch", stop)
        with pytest.raises(RuntimeError, match="killed"):
            run(experiment, walls[:2], tmp_path / "stopped")
    state = tmp_path / "stopped" / f"state-{FINGERPRINT[:16]}" / "last.ckpt"
    assert torch.load(state, weights_only=True)["global_step"] == saved
    resumed, log = run(experiment, walls[:2], tmp_path / "stopped")
    assert_equal(resumed, unbroken)
    columns = ["step", "phase", "lr", "tau", "loss"]
    pd.testing.assert_frame_equal(log[columns], unbroken_log[columns])
    assert resumed.facts["phases"] == unbroken.facts["phases"]


def test_an_early_stop_ends_the_training_and_not_its_phase(experiment, walls, tmp_path, monkeypatch):
    monkeypatch.setattr(ValidationScene, "mean_ap", lambda *_: 0.5)  # the first is the best
    experiment["train"] |= {"validate_every": 1, "early_stop": 2}
    experiment["train"]["phases"] = [{"loss": CONTRASTIVE, "steps": 4}, {"steps": 2}]
    model, log = run(experiment, walls, tmp_path)
    assert log["phase"].tolist() == [1, 1, 1]
    assert [phase["steps"] for phase in model.facts["phases"]] == [3, 0]


def test_equal_seeds_give_equal_weights(experiment, walls, tmp_path):
    first, _ = run(experiment, walls, tmp_path / "a")
    second, _ = run(experiment, walls, tmp_path / "b")
    other, _ = run(experiment, walls, tmp_path / "c", seed=1)
    assert_equal(first, second)
    assert not torch.equal(first.encoder.head.weight, other.encoder.head.weight)


@pytest.mark.parametrize(("signal_number", "loss"), [(signal.SIGTERM, "exact"), (signal.SIGKILL, "sampled")])
def test_a_stopped_training_goes_on_bit_for_bit(experiment, walls, tmp_path, signal_number, loss):
    experiment["train"]["loss"]["name"] = loss
    unbroken, unbroken_log = run(experiment, walls, tmp_path / "unbroken")
    script = f"""
import os, signal
from pathlib import Path
import loco.training.module as module
from loco.training import train
end = module.RankingModule.end_batch
def end_batch(self):
    if self.global_step == 5:
        os.kill(os.getpid(), {int(signal_number)})
    return end(self)
module.RankingModule.end_batch = end_batch
walls = [(Path(a), Path(b)) for a, b in {[[str(p) for p in wall] for wall in walls]!r}]
train({experiment!r}, walls[:2], walls[2:], Path({str(tmp_path / "stopped")!r}), 0, {FINGERPRINT!r}, 1)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    stopped = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=False)
    assert stopped.returncode != 0
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    state = tmp_path / "stopped" / f"state-{FINGERPRINT[:16]}" / "last.ckpt"
    # When asked to stop, it saves at once; when killed, the last state of every second step remains.
    assert torch.load(state, weights_only=True)["global_step"] == (5 if signal_number == signal.SIGTERM else 4)
    resumed, resumed_log = run(experiment, walls, tmp_path / "stopped")
    assert_equal(resumed, unbroken)
    columns = ["step", "loss", "mean_ap", "val_map"]
    pd.testing.assert_frame_equal(resumed_log[columns], unbroken_log[columns])


@pytest.fixture
def constant_rate(experiment):
    experiment["train"]["optimiser"]["schedule"] = "constant"
    return experiment


def test_a_finished_training_continues_to_more_steps_bit_for_bit(constant_rate, walls, tmp_path, caplog):
    caplog.set_level(logging.INFO, "loco")
    constant_rate["train"] |= {"ema": 0.7, "keep": "best", "steps": 9}
    whole, whole_log = run(constant_rate, walls, tmp_path / "whole")
    constant_rate["train"]["steps"] = 5  # at this step, nothing is saved or validated
    run(constant_rate, walls, tmp_path / "continued")
    state = state_folder(tmp_path / "continued", FINGERPRINT)
    assert is_final(state)
    moved = (tmp_path / "continued").rename(tmp_path / "moved")  # for example to another machine
    state = state_folder(moved, FINGERPRINT)
    assert progress(state)[:2] == (5, 5)
    constant_rate["train"]["steps"] = 9
    steps_made = []
    with pytest.MonkeyPatch.context() as patched:
        end = RankingModule.end_batch
        patched.setattr(RankingModule, "end_batch", lambda self: (steps_made.append(self.global_step), end(self))[1])
        continued, log = run(constant_rate, walls, moved)
    assert steps_made == [6, 7, 8, 9]
    assert_equal(continued, whole)
    columns = ["step", "loss", "mean_ap", "val_map"]
    pd.testing.assert_frame_equal(log[columns], whole_log[columns])
    assert continued.facts["log"] == whole.facts["log"]
    assert any(f"{state} (" in record.getMessage() for record in caplog.records)


def test_a_state_beyond_the_last_step_is_kept_and_not_used(constant_rate, walls, tmp_path, caplog):
    run(constant_rate, walls[:2], tmp_path)
    state = state_folder(tmp_path, FINGERPRINT)
    before = (state / "final.ckpt").read_bytes()
    constant_rate["train"]["steps"] = 3
    _, log = run(constant_rate, walls[:2], tmp_path)
    assert log["step"].tolist() == [1, 2, 3]
    assert (state / "final.ckpt").read_bytes() == before
    assert any("6 steps, more than the 3 steps" in record.getMessage() for record in caplog.records)


def test_the_state_of_a_finished_training_is_kept_only_to_be_continued(constant_rate, walls, tmp_path):
    constant_rate["train"] |= {"keep_state": False, "steps": 2}
    run(constant_rate, walls[:2], tmp_path)
    assert not list(tmp_path.glob("state-*"))


def test_the_log_grows_and_checkpoints_do_not(experiment, walls, tmp_path, monkeypatch):
    sizes, lines, states = [], [], []
    save = RankingModule.on_save_checkpoint

    def on_save_checkpoint(module, checkpoint):
        save(module, checkpoint)
        states.append(checkpoint["log"])
        lines.append(len(read_log(state_folder(tmp_path, FINGERPRINT) / "log.csv")))
        sizes.append(len(pickle.dumps({key: checkpoint[key] for key in ("log", "last_score")})))

    monkeypatch.setattr(RankingModule, "on_save_checkpoint", on_save_checkpoint)
    _, log = run(experiment, walls, tmp_path)
    assert lines == [2, 4, 6]
    assert max(sizes) - min(sizes) < 20
    text = (tmp_path / "log.csv").read_bytes()
    assert states == [len(b"".join(text.splitlines(keepends=True)[: 1 + count])) for count in lines]
    assert log["images_per_second"].mul(log["seconds"]).round(6).eq(6).all()


def test_a_log_that_is_shorter_than_its_state_is_refused(experiment, walls, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(RankingModule, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            run(experiment, walls, tmp_path)
    live = state_folder(tmp_path, FINGERPRINT) / "log.csv"
    live.write_text("".join(live.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(DataError, match=r"not belong to the saved state[\s\S]*log.csv"):
        run(experiment, walls, tmp_path)


@pytest.mark.long
def test_two_nodes_stop_together_and_one_continues_bit_for_bit_or_with_one_process(experiment, walls, tmp_path, slurm):
    experiment["train"] |= {"processes": 2, "steps": 40, "validate_every": 20, "save_every": 1000}
    unbroken, log = run(experiment, walls, tmp_path / "unbroken", threads=2)
    stopped = tmp_path / "stopped"
    experiment["train"]["nodes"] = 2
    script = f"""
from pathlib import Path
from loco.training import train
walls = [(Path(a), Path(b)) for a, b in {[[str(p) for p in wall] for wall in walls]!r}]
train({experiment!r}, walls[:2], walls[2:], Path({str(stopped)!r}), 0, {FINGERPRINT!r}, 1)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as training:
        live = stopped / f"state-{FINGERPRINT[:16]}" / "log.csv"
        while len(read_log(live)) < 3:
            assert training.poll() is None, training.stdout.read().decode()
            time.sleep(0.02)
        training.send_signal(signal.SIGTERM)
        training.communicate()
    assert training.returncode != 0
    state = stopped / f"state-{FINGERPRINT[:16]}" / "last.ckpt"
    assert 3 <= torch.load(state, weights_only=True)["global_step"] < 40
    shutil.copytree(stopped, tmp_path / "alone")
    del experiment["train"]["nodes"]
    resumed, _ = run(experiment, walls, stopped, threads=2)
    assert_equal(resumed, unbroken)
    del experiment["train"]["processes"]
    alone, log_of_one = run(experiment, walls, tmp_path / "alone")
    np.testing.assert_allclose(log_of_one["loss"], log["loss"], atol=1e-4)  # sums are added in another order
    assert largest_difference(alone, unbroken) < 1e-3


def test_states_of_other_settings_are_not_used_but_kept_and_named(experiment, walls, tmp_path, caplog):
    foreign = tmp_path / "state-ffffffffffffffff"
    foreign.mkdir()
    (foreign / "last.ckpt").write_bytes(bytes(2_500_000))
    run(experiment, walls, tmp_path)
    assert (foreign / "last.ckpt").read_bytes() == bytes(2_500_000)
    (message,) = [record.getMessage() for record in caplog.records if record.name == "loco.training.run"]
    assert f"{foreign} (2.5 MB)" in message
    assert "loco clean" in message
    assert not (tmp_path / f"state-{FINGERPRINT[:16]}").exists()  # its own state is removed when it has ended


def test_a_broken_state_is_named(experiment, walls, tmp_path):
    state = tmp_path / f"state-{FINGERPRINT[:16]}"
    state.mkdir()
    (state / "last.ckpt").write_bytes(b"truncated")
    with pytest.raises(DataError, match=r"saved state cannot be read[\s\S]*last.ckpt"):
        run(experiment, walls, tmp_path)


@pytest.mark.parametrize("fingerprint", [FINGERPRINT, "f" * 64])
def test_two_trainings_do_not_share_a_folder(experiment, walls, tmp_path, fingerprint):
    seen = []

    def try_another(*_):
        with pytest.raises(DataError, match="another training is running"):
            run(experiment, walls, tmp_path, state_fingerprint=fingerprint)
        seen.append((tmp_path / f"state-{FINGERPRINT[:16]}").is_dir())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RankingModule, "on_train_end", try_another)
        run(experiment, walls, tmp_path)
    assert seen == [True]
    run(experiment, walls, tmp_path, state_fingerprint=fingerprint)  # when it is over


def test_what_the_network_draws_depends_on_the_seed_alone(experiment, walls, tmp_path, monkeypatch):
    forward = CompactCNN.forward

    def dropped(self, images):
        return Encoding(dropout(forward(self, images).maps, 0.3, self.training))

    monkeypatch.setattr(CompactCNN, "forward", dropped)
    models = []
    for state, seed in ((1, 0), (2, 0), (2, 3)):
        torch.manual_seed(state)
        models.append(run(experiment, walls[:2], tmp_path / f"{state}{seed}", seed=seed)[0])
    assert_equal(*models[:2])
    assert not torch.equal(models[1].encoder.head.weight, models[2].encoder.head.weight)


def test_what_is_frozen_stays_as_it_was_though_the_rest_is_validated(experiment, walls, tmp_path):
    frozen, _ = run(experiment, walls, tmp_path / "first")
    given = {"name": "pretrained", "path": str(tmp_path / "first"), "stride": 4}
    experiment["model"] = {"name": "concat", "models": [given, experiment["model"]], "stride": 4}
    model, _ = run(experiment, walls, tmp_path / "both")
    assert_equal(model.encoder.models[0], frozen)
    unseen, _ = run(experiment, walls[:2], tmp_path / "unseen")
    assert_equal(model, unseen)  # a validation changes nothing


def test_a_training_may_start_from_a_trained_model(experiment, walls, tmp_path):
    first, _ = run(experiment, walls, tmp_path / "first")
    experiment["train"]["init"] = str(tmp_path / "first")
    assert_equal(RankingModule(experiment, 9, [], tmp_path).extractor, first)
    model, log = run(experiment, walls, tmp_path / "second", seed=9)
    assert model.facts["init"] == str(tmp_path / "first")
    assert log["step"].tolist() == list(range(1, 7))
    experiment["model"]["dim"] = 8
    with pytest.raises(DataError, match=r"weights of another model[\s\S]*first/model.safetensors"):
        run(experiment, walls, tmp_path / "third")


def test_half_precision_of_float16_is_for_gpus(experiment, walls, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    experiment["train"]["precision"] = "float16"
    with pytest.raises(ConfigError, match="requires a GPU"):
        run(experiment, walls, tmp_path)


def test_grids_that_differ_are_refused(experiment, walls, tmp_path, monkeypatch):
    monkeypatch.setattr(CompactCNN, "stride", 2)
    monkeypatch.setattr(CompactCNN, "forward", lambda self, images: Encoding(avg_pool2d(images, 2)))
    with pytest.raises(DataError, match=r"\(8, 12\) patches[\s\S]*\(16, 24\) features"):
        run(experiment, walls[:2], tmp_path)


def test_a_training_that_diverges_is_stopped(experiment, walls, tmp_path):
    experiment["train"]["optimiser"]["lr"] = 1e30
    with pytest.raises(DataError, match=r"not finite at step \d+[\s\S]*learning rate"):
        run(experiment, walls[:2], tmp_path)
    (path,) = tmp_path.glob("diverged-step*.safetensors")
    step = int(path.stem.removeprefix("diverged-step"))
    saved, drawn = load_file(path), Batches(open_scenes(walls[:2]), *batch_settings(experiment), 0).draw(step)
    for name, value in saved.items():
        assert torch.equal(value, getattr(drawn, name))


def test_a_last_step_that_diverges_is_no_success(experiment, walls, tmp_path):
    experiment["train"]["optimiser"] |= {"lr": 1e30, "warmup_steps": 0}
    experiment["train"]["steps"] = 1
    with pytest.raises(DataError, match=r"features are not finite at step 1[\s\S]*learning rate"):
        run(experiment, walls[:2], tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    experiment["train"]["validate_every"] = 1
    with pytest.raises(DataError, match=r"validation scene are not finite[\s\S]*learning rate"):
        run(experiment, walls, tmp_path)


def test_the_batch_whose_gradient_is_not_finite_is_saved(experiment, walls, tmp_path, monkeypatch):
    step = RankingModule.training_step
    spoil = torch.tensor(float("nan"))
    monkeypatch.setattr(
        RankingModule, "training_step", lambda self, *a: step(self, *a) * (spoil if self.global_step == 2 else 1)
    )
    with pytest.raises(DataError, match="gradients are not finite at step 2"):
        run(experiment, walls[:2], tmp_path)
    saved = load_file(tmp_path / "diverged-step2.safetensors")
    drawn = Batches(open_scenes(walls[:2]), *batch_settings(experiment), 0).draw(2)
    assert torch.equal(saved["images"], drawn.images)


@pytest.mark.parametrize("steps", [1, 4, 60])
def test_a_training_without_positive_pairs_is_stopped(experiment, walls, tmp_path, monkeypatch, steps):
    """It is also stopped when it is repeated: none of its states passes for that of a finished training run."""
    monkeypatch.setattr("loco.training.module.MAX_WITHOUT_POSITIVES", 5)
    experiment["train"] |= {"steps": steps, "validate_every": 1, "save_every": 1}
    experiment["train"]["loss"]["rho"] = 1e-7
    for _ in range(2):
        with pytest.raises(DataError, match=r"has a positive pair(.|\n)*1e-07 m"):
            run(experiment, walls[:2], tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_model_without_parameters_is_refused(experiment, walls, tmp_path):
    experiment["model"] = {"name": "dense_sift"}
    with pytest.raises(ConfigError, match="no trainable parameters"):
        run(experiment, walls, tmp_path)


def test_the_seed_reaches_the_draws_of_the_losses(experiment, tmp_path):
    sampled = {"name": "sampled", "rho": 0.05, "kappa": 1.0, "tau": 0.05, "anchors": 4, "max_positives": 8}
    contrastive = {"name": "info_nce", "rho": 0.05, "kappa": 1.0, "tau": 0.05, "queries": 8}
    experiment["train"]["loss"] = sampled | {"max_negatives": 16}
    experiment["train"]["phases"] = [{"loss": contrastive, "steps": 2}, {"steps": 4}]
    zero, one, again = (RankingModule(experiment, seed, [], tmp_path) for seed in (0, 1, 1))
    rng = torch.Generator().manual_seed(0)
    features, points = normalize(torch.randn(80, 8, generator=rng), dim=1), torch.rand(80, 3, generator=rng) / 5
    for number in range(2):
        values = [module.criteria[number](features, points)[0] for module in (zero, one, again)]
        assert values[0] != values[1]
        assert values[1] == values[2]


def test_views_of_several_sizes_are_learnt_from(experiment, walls, tmp_path):
    experiment["train"]["augment"] = {"flip": 0.5, "scale": [0.8, 1.3], "sizes": [[32, 32], [40, 64]]}
    experiment["train"]["loss"]["rho"] = 0.15  # views of a location differ by parts of a patch
    experiment["train"] |= {"steps": 40, "validate_every": 50}
    model, log = run(experiment, walls[:2], tmp_path)
    assert log["loss"].tail(10).mean() < log["loss"].head(10).mean() - 0.02
    validation = ValidationScene(open_scenes(walls[2:])[0])
    assert validation.mean_ap(model) > validation.mean_ap(build_extractor(experiment["model"], 0)) + 0.02


def test_a_training_without_an_outer_radius(experiment, walls, tmp_path):
    experiment["train"] |= {"loss": {**experiment["train"]["loss"], "kappa": None}, "steps": 2}
    model, log = run(experiment, walls[:2], tmp_path)
    assert model.facts["phases"][0]["loss"]["kappa"] is None  # JSON has no infinity
    assert log["loss"].between(0, 1).all()


def test_a_loss_without_a_temperature_trains(experiment, walls, tmp_path):
    triplet = {"name": "triplet", "rho": 0.05, "kappa": 1.0, "queries": 32, "margin": 0.3}
    experiment["train"] |= {"phases": [{"loss": triplet, "steps": 2}, {"steps": 2}], "steps": 4}
    _, log = run(experiment, walls[:2], tmp_path)
    assert log["tau"].isna().tolist() == [True, True, False, False]
    assert log["loss"].notna().all()


def test_a_training_without_clipping_and_decay_is_plain_adam(experiment, walls, tmp_path):
    optimiser = {"lr": 1e-3, "weight_decay": 0.0, "warmup_steps": 0, "clip": None, "schedule": "constant"}
    phases = [{"steps": 3}, {"steps": 2, "optimiser": {"lr": 5e-4}}]
    experiment["train"] |= {"optimiser": optimiser, "steps": 5, "phases": phases, "validate_every": 10}
    module = RankingModule(experiment, 0, [], tmp_path)
    batches = Batches(open_scenes(walls[:2]), *batch_settings(experiment), 0)
    trained, _ = run(experiment, walls[:2], tmp_path / "run")
    module.extractor.train()
    for step in range(5):
        if step in (0, 3):  # each phase begins with new moments
            adam = torch.optim.Adam(module.extractor.parameters(), lr=5e-4 if step else 1e-3)
        batch = batches.draw(step)
        features = module.extractor(colours(batch.images, batch.jitter)).permute(0, 2, 3, 1)[batch.use]
        scenes, images = (ids[:, None, None].expand(batch.use.shape)[batch.use] for ids in (batch.scene, batch.image))
        adam.zero_grad()
        module.criterion(features, batch.points[batch.use], scenes, image_ids=images)[0].backward()
        adam.step()
    for (name, one), other in zip(trained.state_dict().items(), module.extractor.state_dict().values()):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4, msg=name)
