"""Check the phases of training runs (:mod:`loco.training.phases`), and state how to replace keys of old versions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loco.config_schema import yaml_text
from loco.errors import counted, hint
from loco.training.phases import merged_phases


def phase_problems(model: Mapping[str, Any], train: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of the phases of a training run whose configuration satisfies the schema.

    Args:
        model: ``model`` of the experiment, as in the configuration.
        train: ``train`` of the experiment.
    """
    phases = merged_phases(train)
    if missing := list(_missing_keys(train, phases)):
        yield from missing
        return
    stated = train.get("phases") or [{}]
    found = (_problems_of(*phase, _trained_parts(model)) for phase in zip(_names(train), stated, phases, strict=True))
    yield from dict.fromkeys(problem for problems in found for problem in problems)  # defaults are reported once
    total = sum(phase["steps"] for phase in phases)
    if train.get("steps", total) != total:
        yield f"train.steps ({train['steps']}) is not the sum of the steps of its phases ({total}); remove it"
    if train["validate_every"] > total and (train.get("keep") == "best" or "early_stop" in train):
        every = f"train.validate_every ({train['validate_every']}) exceeds the number of training steps ({total})"
        yield f"{every}: there is no validation by which the best weights could be selected; reduce it"


def _missing_keys(train: Mapping[str, Any], phases: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield keys that are missing both in a phase and in ``train``."""
    for where, phase in zip(_names(train), phases, strict=True):
        yield from (f"{where} lacks the key `{key}`" for key in ("loss", "steps") if key not in phase)


def _problems_of(where: str, stated: Mapping[str, Any], phase: Mapping[str, Any], parts: set[str]) -> Iterator[str]:
    """Yield problems of one phase.

    Args:
        where: name of the phase in messages.
        stated: the keys that the configuration states in this phase.
        phase: all settings of the phase, including those of ``train``.
        parts: the trained parts of the model.
    """
    yield from _radii_problems(f"{where if 'loss' in stated else 'train'}.loss", phase["loss"])
    steps, settings = phase["steps"], phase["optimiser"]
    holder = where if "warmup_steps" in stated.get("optimiser", {}) else "train"
    rise = f"{holder}.optimiser.warmup_steps ({settings['warmup_steps']})"
    if settings["warmup_steps"] >= steps:
        yield f"{rise} must be less than {where}.steps ({steps})"
    elif settings.get("schedule") == "one_cycle" and not settings["warmup_steps"]:
        reason = "with `one_cycle`, the learning rate rises during these steps, usually 30 % of the phase"
        yield f"{rise} must be at least 1: {reason}"
    for part in settings.get("lr_factors", {}):
        if part not in parts:
            holder = where if part in stated.get("optimiser", {}).get("lr_factors", {}) else "train"
            yield f"{holder}.optimiser.lr_factors: the part `{part}` is not trained{hint(part, sorted(parts))}"


def _radii_problems(name: str, loss: Mapping[str, Any]) -> Iterator[str]:
    rhos, kappas = (radius if isinstance(radius, list) else [radius] for radius in (loss["rho"], loss["kappa"]))
    if len(rhos) != len(kappas):
        remedy = f"; write `kappa: {yaml_text(kappas * len(rhos))}`" if len(kappas) == 1 else ""
        counts = f"{counted(len(rhos), 'value')} of rho and {len(kappas)} of kappa"
        yield f"{name}: expected one kappa per rho, found {counts}{remedy}"
    for rho, kappa in zip(rhos, kappas):
        if kappa is not None and rho >= kappa:
            yield f"{name}: rho ({rho} m) must be less than kappa ({kappa} m)"
    if loss.get("queries") is not None and loss["name"] == "exact" and loss.get("ranking") != "query":
        yield f"{name}.queries: the loss `exact` draws queries only with `ranking: query`; set it, or remove `queries`"
    if loss.get("exchange") == "ring" and loss.get("ranking") == "query":
        yield f"{name}.exchange: `ring` is implemented for `ranking: batch` only; set `exchange: gather`"
    if "queries" in loss and loss["queries"] is None and {"positives", "negatives"} & loss.keys():
        yield f"{name}: `queries: null` takes all pairs; remove `positives` and `negatives`, or set a number of queries"
    if len(weights := loss.get("weights", rhos)) != len(rhos):
        yield f"{name}.weights: expected one weight for each of the {len(rhos)} scales, found {len(weights)}"


def _names(train: Mapping[str, Any]) -> list[str]:
    """Return the name of each phase in messages: ``train.phases.<number>``, or ``train`` if there is one phase only."""
    return [f"train.phases.{number}" for number in range(len(train.get("phases") or []))] or ["train"]


def _trained_parts(model: Mapping[str, Any]) -> set[str]:
    """Return the parts of a model that ``optimiser.lr_factors`` may contain (:data:`loco.training.optimiser.PARTS`)."""
    match model["name"]:
        case "concat":
            return {part for member in model["models"] for part in _trained_parts(member)}
        case "backbone":
            trained = model.get("train", "none")
            encoder = set() if trained == "none" else {"lora"} if "lora" in trained else {"backbone"}
            return encoder | ({"head"} if model.get("head") else set())
        case "dense_sift" | "features" | "pretrained" | "published" | "python" | "sift_keypoints":
            return set()
    return {"backbone"}


def former_keys(config: dict[str, Any]) -> Iterator[str]:
    """Yield a message for each key of earlier versions, with its replacement; remove these keys from ``config``.

    Args:
        config: result of :func:`loco.config_schema.plain_copy`; may violate the schema.
    """
    blocks = [(f"experiments.{name}", entry) for name, entry in _entries(config, "experiments")]
    for name, ablation in _entries(config, "ablations"):
        variants = ablation.get("variants")
        for number, variant in enumerate(variants if isinstance(variants, list) else []):
            blocks.append((f"ablations.{name}.variants.{number}", variant))
    for where, block in blocks:
        train = block.get("train") if isinstance(block, dict) else None
        if isinstance(train, dict) and "warmup" in train:
            yield f"{where}.train.warmup: {_in_place_of_warmup(train.pop('warmup'), train)}"


def _entries(config: Mapping[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    entries = config.get(key)
    return [item for item in entries.items() if isinstance(item[1], dict)] if isinstance(entries, dict) else []


def _in_place_of_warmup(warmup: Any, train: Mapping[str, Any]) -> str:
    if warmup is None:
        return "is now a list of phases: to train in one phase, write `phases: null` and `steps`"
    steps, total = (found.get("steps") if isinstance(found, dict) else None for found in (warmup, train))
    if not (isinstance(steps, int) and isinstance(total, int) and 0 < steps < total):
        return "is now a list of phases, each with its own schedule: write `phases: [{loss: ..., steps: ...}, {...}]`"
    phases = [{"loss": warmup.get("loss"), "steps": steps}, {"steps": total - steps}]
    return (
        "is now a list of phases, each with its own schedule. Instead of `warmup` and `steps`, write "
        f"`phases: {json.dumps(phases)}`; the second phase takes `loss`, and both take `optimiser`, from `train`. The "
        "`warmup_steps` and the cosine schedule restart in each phase"
    )
