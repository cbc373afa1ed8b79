from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from loco.errors import DataError
from loco.training.data import Batches
from loco.training.deferred import Deferred, StopVote, all_finite
from loco.training.module import RankingModule
from loco.training.scene_files import open_scenes
from tests.unit.training.test_run import run

# What waits for a GPU: a number that is read, and a tensor whose size depends on the values of another.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero")


class Waits(TorchDispatchMode):
    """Record the operations that would wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function._schema.name.removeprefix("aten::")
        masked = name.startswith("index") and any(
            index is not None and index.dtype == torch.bool
            for index in (arguments[1] if isinstance(arguments[1], list | tuple) else ())
        )
        if name.startswith(WAITS) or masked:
            self.found.append(name)
        return function(*arguments, **(options or {}))


def test_numbers_are_those_that_were_requested():
    number = torch.tensor(2.5)
    deferred = Deferred({"a": number, "b": 3, "count": torch.tensor(2**40 + 1), "flag": torch.tensor(True)})
    number.fill_(0)
    assert deferred.read() == {"a": 2.5, "b": 3, "count": 2**40 + 1, "flag": 1}
    assert Deferred({"known": 1.0}).read() == {"known": 1.0}


def test_finite_is_every_number():
    assert all_finite([torch.ones(3), torch.zeros(2, 2)])
    for broken in (math.nan, math.inf):
        assert not all_finite([torch.ones(3), torch.tensor([1.0, broken])])


def test_one_process_stops_when_it_is_asked():
    vote = StopVote()
    assert [vote(asked, torch.device("cpu")) for asked in (False, True)] == [False, True]


def test_a_step_waits_for_what_the_documentation_lists(experiment, walls, tmp_path, monkeypatch):
    module = RankingModule(experiment, 0, [], tmp_path)
    drawn = Batches(open_scenes(walls[:2]), experiment["train"]["batch"], experiment["train"]["augment"], 0).draw(0)
    with Waits() as waits:
        for name in ("cpu", "tolist"):  # no operations of PyTorch's dispatcher
            method = getattr(torch.Tensor, name)
            monkeypatch.setattr(
                torch.Tensor, name, lambda x, *a, m=method, n=name: (waits.found.append(n), m(x, *a))[1]
            )
        loss = module.training_step(drawn, 0)
        loss.backward()
        numbers = Deferred({"finite": all_finite([p.grad for p in module.extractor.parameters()])})
    # Whether all points are finite and all rows have norm 1; then the points and scenes, which are sorted into tiles.
    assert waits.found == ["_local_scalar_dense", "tolist", "cpu", "cpu"]
    monkeypatch.undo()
    assert numbers.read() == {"finite": 1}
    assert module._parts[0][1].read()["loss"] == pytest.approx(loss.item())


def test_reading_a_step_late_changes_nothing(experiment, walls, tmp_path, monkeypatch):
    _, now = run(experiment, walls, tmp_path / "now")
    read = RankingModule.read_steps
    lates = []

    def always_late(module, late=None):
        lates.append(late)
        return read(module, late is not None)

    monkeypatch.setattr(RankingModule, "read_steps", always_late)
    _, later = run(experiment, walls, tmp_path / "later")
    columns = ["step", "loss", "mean_ap", "val_map"]
    assert now[columns].equals(later[columns])
    assert False in lates
    assert None in lates
    spoil, step = torch.tensor(math.nan), RankingModule.training_step
    monkeypatch.setattr(
        RankingModule, "training_step", lambda self, *a: step(self, *a) * (spoil if self.global_step == 1 else 1)
    )
    experiment["train"]["save_every"] = 100
    with pytest.raises(DataError, match="gradients are not finite at step 1"):
        run(experiment, walls[:2], tmp_path / "broken")
    assert (tmp_path / "broken" / "diverged-step1.safetensors").is_file()
