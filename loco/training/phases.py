"""Phases of a training: the loss, the learning rate and the temperature of each step, as functions of its number.

A training is a sequence of phases. Each has a loss, a number of steps, and an optimiser whose schedule begins at the
first step of the phase. All values are functions of the step alone, so a resumed training run has the same values as an
uninterrupted one. Steps are counted from 0. This module imports no PyTorch, because the configuration is checked with
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Phase:
    """One phase of a training.

    Attributes:
        number: counted from 1.
        start: number of steps before this phase.
        steps: number of optimiser steps.
        loss: arguments of :func:`loco.losses.build_loss`, except that ``tau`` may be ``{from, to, schedule}``.
        optimiser: settings of the optimiser as in the configuration, completed by the defaults of ``train.optimiser``.
    """

    number: int
    start: int
    steps: int
    loss: Mapping[str, Any]
    optimiser: Mapping[str, Any]

    @property
    def end(self) -> int:
        """Number of the first step after this phase."""
        return self.start + self.steps

    def lr(self, step: int) -> float:
        """Return the learning rate at a step of the training, before the factors of the parts of the network."""
        schedule = SCHEDULES[self.optimiser.get("schedule", "cosine")]
        return self.optimiser["lr"] * schedule(self.optimiser["warmup_steps"], self.steps, step - self.start)

    def tau(self, step: int) -> float:
        """Return the temperature of the loss at a step of the training; NaN for a loss without one."""
        tau = self.loss.get("tau", math.nan)
        if not isinstance(tau, Mapping):
            return tau
        progress = min(1.0, (step - self.start) / max(1, self.steps - 1))
        return TAU_SCHEDULES[tau.get("schedule", "geometric")](tau["from"], tau["to"], progress)

    def first_loss(self) -> dict[str, Any]:
        """Return the arguments of :func:`loco.losses.build_loss` for the first step of the phase."""
        return {**self.loss} | ({"tau": self.tau(self.start)} if "tau" in self.loss else {})


def merged_phases(train: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of ``phases`` in a ``train`` block, completed by ``loss`` and ``optimiser`` of the block.

    Without ``phases``, the block itself is the only phase. The ``loss`` of a phase replaces that of the block
    completely; ``optimiser`` is merged key by key. A key that is set in neither place is missing in the result.
    """
    defaults = {key: train[key] for key in ("loss", "optimiser") if key in train}
    entries = train.get("phases") or [{key: train[key] for key in ("steps",) if key in train}]
    return [
        defaults | entry | {"optimiser": _laid_over(defaults.get("optimiser", {}), entry.get("optimiser", {}))}
        for entry in entries
    ]


def _laid_over(defaults: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``defaults`` updated by ``changes``; nested maps are merged."""
    merged = {**defaults, **changes}
    for key in defaults.keys() & changes.keys():
        if isinstance(defaults[key], Mapping) and isinstance(changes[key], Mapping):
            merged[key] = {**defaults[key], **changes[key]}
    return merged


def phases_of(train: Mapping[str, Any]) -> list[Phase]:
    """Return the phases of a ``train`` block of a checked configuration, in their order.

    Raises:
        KeyError: a phase lacks a key (:func:`loco.config.load` reports it by name).
    """
    phases: list[Phase] = []
    for number, entry in enumerate(merged_phases(train), 1):
        start = phases[-1].end if phases else 0
        phases.append(Phase(number, start, entry["steps"], entry["loss"], entry["optimiser"]))
    return phases


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """Return the phase at a step; the last one after the end of the training."""
    return next((phase for phase in phases if step < phase.end), phases[-1])


def phase_facts(phases: Sequence[Phase], done: int | None = None) -> list[dict[str, Any]]:
    """Return the facts about the phases of the training that are stored in a model file.

    Args:
        phases: the phases of the training.
        done: number of steps that were taken, which is smaller than planned after an early stop; None for all.

    Returns:
        For each phase ``loss``, ``optimiser``, ``steps`` (number of steps taken), ``fraction_of_steps``, and
        ``fraction_of_learning_rate``: the sum of the learning rate over the steps of the phase, divided by the sum over
        all steps. A small value means that the loss of the phase hardly changed the model.
    """
    done = phases[-1].end if done is None else done
    steps = [max(0, min(done, phase.end) - phase.start) for phase in phases]
    rates = [math.fsum(map(phase.lr, range(phase.start, phase.start + taken))) for phase, taken in zip(phases, steps)]
    return [
        {
            "loss": dict(phase.loss),
            "optimiser": dict(phase.optimiser),
            "steps": taken,
            "fraction_of_steps": _fraction(taken, sum(steps)),
            "fraction_of_learning_rate": _fraction(rate, math.fsum(rates)),
        }
        for phase, taken, rate in zip(phases, steps, rates)
    ]


def describe_phases(phases: Sequence[Phase]) -> list[str]:
    """Return one line per phase for the log of a training."""
    facts = phase_facts(phases)
    return [
        f"phase {phase.number} of {len(phases)}: loss {phase.loss['name']}, steps {phase.start + 1} to {phase.end} "
        f"({100 * fact['fraction_of_steps']:.3g} % of the steps, {100 * fact['fraction_of_learning_rate']:.3g} % of "
        f"the summed learning rate), schedule {phase.optimiser.get('schedule', 'cosine')}, highest learning rate "
        f"{phase.optimiser['lr']:g}"
        for phase, fact in zip(phases, facts)
    ]


def _fraction(part: float, whole: float) -> float:
    return float(f"{part / whole:.6g}") if whole else 0.0


def cosine(warmup: int, steps: int, step: int) -> float:
    """Return the factor of the learning rate: a linear rise over ``warmup`` steps, then a cosine to 0 at ``steps``."""
    if step < warmup:
        return constant(warmup, steps, step)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def constant(warmup: int, steps: int, step: int) -> float:
    """Return the factor of the learning rate: a linear rise over ``warmup`` steps, then 1."""
    return min(1.0, (step + 1) / (warmup + 1))


def linear(warmup: int, steps: int, step: int) -> float:
    """Return the factor of the learning rate: a linear rise over ``warmup`` steps, then a line to 0 at ``steps``."""
    if step < warmup:
        return constant(warmup, steps, step)
    return 1 - min(1.0, (step - warmup) / max(1, steps - warmup))


def one_cycle(warmup: int, steps: int, step: int) -> float:
    """Return the factor of the learning rate of a single cycle (Smith and Topin, 2018).

    It rises along a cosine from 1/25 to 1 over ``warmup`` steps, of which there is at least one, and falls along a
    cosine to 4e-6 at the last step, as ``torch.optim.lr_scheduler.OneCycleLR`` with its defaults does. The momentum
    stays constant.
    """
    low, end = 1 / 25, 1 / 25 / 1e4
    if step < warmup:
        return low + (1 - low) * 0.5 * (1 - math.cos(math.pi * step / warmup))
    fallen = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * fallen))


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "cosine": cosine,
    "constant": constant,
    "linear": linear,
    "one_cycle": one_cycle,
}

# The temperature at a progress from 0 (first step of the phase) to 1 (last step), between the first and last value.
TAU_SCHEDULES: dict[str, Callable[[float, float, float], float]] = {
    "cosine": lambda first, last, progress: last + (first - last) * 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda first, last, progress: first + (last - first) * progress,
    "geometric": lambda first, last, progress: first * (last / first) ** progress,
}
