"""Training phases: closed forms of all schedules and their sums, and the settings at each step."""

import math

import numpy as np
import pytest
import torch

from loco.training.phases import (
    SCHEDULES,
    constant,
    cosine,
    describe_phases,
    linear,
    merged_phases,
    one_cycle,
    phase_at,
    phase_facts,
    phases_of,
)

NCE = {"name": "info_nce", "rho": 0.1, "kappa": 5.0, "tau": 0.07, "queries": 8}
EXACT = {"name": "exact", "rho": 0.2, "kappa": 5.0, "tau": 0.05}
OPTIMISER = {"lr": 2e-3, "weight_decay": 0.05, "warmup_steps": 4, "clip": 1.0}
TWO = {"phases": [{"loss": NCE, "steps": 30}, {"steps": 10}], "loss": EXACT, "optimiser": OPTIMISER}


def test_the_learning_rate_rises_linearly_and_falls_as_its_schedule_says():
    for schedule in (cosine, constant, linear):
        np.testing.assert_allclose([schedule(4, 20, step) for step in range(5)], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert [cosine(4, 20, step) for step in (12, 20)] == pytest.approx([0.5, 0])
    assert [cosine(4, 20, step) for step in (8, 16)] == pytest.approx([0.5 + math.sqrt(0.125), 0.5 - math.sqrt(0.125)])
    assert [constant(4, 20, step) for step in (4, 12, 19)] == [1, 1, 1]
    assert [linear(4, 20, step) for step in (8, 12, 19, 20)] == pytest.approx([0.75, 0.5, 1 / 16, 0])


@pytest.mark.parametrize(("warmup", "steps"), [(6, 20), (29, 100), (1, 2)])
def test_one_cycle_is_that_of_pytorch(warmup, steps):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    options = {"max_lr": 1.0, "total_steps": steps, "pct_start": (warmup + 1) / steps, "cycle_momentum": False}
    reference = torch.optim.lr_scheduler.OneCycleLR(optimiser, **options)
    for step in range(steps):
        assert one_cycle(warmup, steps, step) == pytest.approx(reference.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        if step < steps - 1:
            reference.step()


# Of w steps of warm-up and m others; the sums of cosines over whole or half periods are 0, except for their ends.
SUMS = {
    "cosine": lambda w, m: w / 2 + (m + 1) / 2,
    "linear": lambda w, m: w / 2 + (m + 1) / 2,
    "constant": lambda w, m: w / 2 + m,
    "one_cycle": lambda w, m: w / 25 + 24 / 25 * (w - 1) / 2 + m * 4e-6 + (1 - 4e-6) * m / 2,
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("warmup", "steps"), [(3, 17), (20, 200), (1, 2000)])
def test_the_sum_of_a_schedule(name, warmup, steps):
    train = {"loss": EXACT, "steps": steps, "optimiser": OPTIMISER | {"warmup_steps": warmup, "schedule": name}}
    (phase,) = phases_of(train)
    total = sum(phase.lr(step) for step in range(steps))
    assert total == pytest.approx(2e-3 * SUMS[name](warmup, steps - warmup), rel=1e-12)


def test_a_training_without_phases_is_one_phase():
    (phase,) = phases_of({"loss": EXACT, "steps": 40, "optimiser": OPTIMISER})
    assert (phase.number, phase.start, phase.end, phase.loss, phase.optimiser) == (1, 0, 40, EXACT, OPTIMISER)
    assert phases_of({"loss": EXACT, "steps": 40, "optimiser": OPTIMISER, "phases": None}) == [phase]
    assert phases_of({"phases": [{"loss": EXACT, "steps": 40, "optimiser": OPTIMISER}]}) == [phase]
    assert phase_facts([phase])[0]["fraction_of_learning_rate"] == 1


def test_a_phase_takes_what_it_does_not_set_from_the_training():
    optimiser = OPTIMISER | {"lr_factors": {"head": 2.0, "lora": 0.5}}
    entries = [{"steps": 5, "loss": NCE}, {"steps": 6, "optimiser": {"lr": 1.0, "lr_factors": {"lora": 0.0}}}]
    first, second = phases_of({"phases": entries, "loss": EXACT, "optimiser": optimiser})
    assert (first.loss, first.optimiser) == (NCE, optimiser)
    assert (second.loss, second.start, second.end) == (EXACT, 5, 11)
    assert second.optimiser == OPTIMISER | {"lr": 1.0, "lr_factors": {"head": 2.0, "lora": 0.0}}
    assert optimiser["lr_factors"] == {"head": 2.0, "lora": 0.5}  # the configuration is not changed
    assert merged_phases({"phases": [{"steps": 3}]}) == [{"steps": 3, "optimiser": {}}]


def test_a_phase_is_in_force_from_its_first_to_its_last_step():
    phases = phases_of(TWO)
    assert [phase_at(phases, step).number for step in (0, 29, 30, 39, 40)] == [1, 1, 2, 2, 2]
    # Its schedule begins with the phase: the warm-up, and then the peak.
    assert [phases[1].lr(step) for step in (30, 33, 34)] == pytest.approx([4e-4, 1.6e-3, 2e-3])
    assert phases[0].lr(29) == pytest.approx(2e-3 * cosine(4, 30, 29))


@pytest.mark.parametrize(
    ("schedule", "middle"), [("geometric", 0.1 * 0.2**0.5), ("linear", 0.06), ("cosine", 0.06), (None, 0.1 * 0.2**0.5)]
)
def test_the_temperature_goes_from_the_first_to_the_last_step_of_its_phase(schedule, middle):
    tau = {"from": 0.1, "to": 0.02} | ({"schedule": schedule} if schedule else {})
    phases = phases_of(
        {"phases": [{"loss": NCE, "steps": 7}, {"loss": EXACT | {"tau": tau}, "steps": 9}]} | {"optimiser": OPTIMISER}
    )
    assert [phases[0].tau(step) for step in range(7)] == [0.07] * 7
    assert [phases[1].tau(step) for step in (7, 11, 15)] == pytest.approx([0.1, middle, 0.02])
    quarter = {"linear": 0.08, "cosine": 0.02 + 0.08 * (2 + math.sqrt(2)) / 4}.get(schedule, 0.1 * 0.2**0.25)
    assert phases[1].tau(9) == pytest.approx(quarter)


def test_fractions_are_those_of_the_closed_forms():
    first, second = phase_facts(phases_of(TWO))
    sums = [(30 + 1) / 2, (10 + 1) / 2]  # cosine, warm-up included
    assert [fact["fraction_of_learning_rate"] for fact in (first, second)] == pytest.approx(
        np.divide(sums, 21), rel=1e-5
    )
    assert [fact["fraction_of_steps"] for fact in (first, second)] == [0.75, 0.25]
    assert (first["loss"], second["loss"], first["steps"], second["steps"]) == (NCE, EXACT, 30, 10)
    lines = describe_phases(phases_of(TWO))
    assert lines[1].startswith("phase 2 of 2: loss exact, steps 31 to 40 (25 % of the steps, 26.2 % of the summed")


def test_a_training_that_ended_early_states_the_steps_it_took():
    first, second = phase_facts(phases_of(TWO), done=20)
    assert (first["steps"], first["fraction_of_learning_rate"]) == (20, 1)
    assert (second["steps"], second["fraction_of_steps"], second["fraction_of_learning_rate"]) == (0, 0, 0)
    assert phase_facts(phases_of(TWO), done=0)[0]["fraction_of_steps"] == 0
