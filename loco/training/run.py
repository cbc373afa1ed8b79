"""Train one experiment on one split, or resume an interrupted training, and write the model."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from loco.errors import ConfigError, DataError
from loco.models.stored import save_extractor
from loco.records import Record
from loco.storage import atomic_path, write_text
from loco.storage.training_log import curve_digest
from loco.training.data import Batches
from loco.training.deferred import StopVote
from loco.training.launch import STOP, Ranks, launch
from loco.training.lock import training_lock
from loco.training.log import LiveLog
from loco.training.module import RankingModule
from loco.training.phases import describe_phases, phase_facts
from loco.training.precision import HALF, LIGHTNING, matmul_precision
from loco.training.progress_bar import StepBar
from loco.training.scene_files import SceneFiles, open_scenes
from loco.training.states import (
    FINAL,
    JOB,
    LAST,
    LOG,
    checkpoint_of,
    keeps_final_state,
    setting_changes,
    size_of,
    state_folder,
    states_of,
    total_steps,
)
from loco.training.validation import ValidationScene

ScenePaths = Sequence[Path | None]  # frames, correspondences, encoded frames, pairs; missing files are None or omitted

logger = logging.getLogger(__name__)
# Remove Lightning's advertisement of another package from the log.
logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda entry: "litlogger" not in str(entry.msg))


def train(
    experiment: Mapping[str, Any],
    train: Sequence[ScenePaths],
    val: Sequence[ScenePaths],
    out_dir: Path,
    seed: int,
    state_fingerprint: str,
    threads: int,
    facts: Mapping[str, Any] | None = None,
    record: Record | None = None,
) -> None:
    """Train an experiment; write ``model.safetensors`` and ``log.csv`` to ``out_dir``, TensorBoard files beside them.

    The state of the training is in ``out_dir/state-<fingerprint>`` and is saved every ``save_every`` steps and on
    SIGTERM; the log grows there by one line per step. A training that finds a state with its fingerprint continues from
    it, with the same result as an uninterrupted one. States of other fingerprints, which belong to other settings, data
    or code, are kept and logged with a warning. If the learning rate does not depend on the number of steps, the state
    of a finished training is kept as well, and a training with more steps continues from it
    (:func:`loco.training.states.keeps_final_state`).

    Args:
        experiment: an entry of ``experiments`` in the configuration, with a ``train`` block.
        train: files of each training scene: frames, correspondences, encoded frames (to train on stored features) and
            the index of positive pairs (for batches of pairs). Missing files are None or omitted.
        val: files of each validation scene: frames, correspondences and, optionally, encoded frames; may be empty.
        out_dir: output folder.
        seed: seed of the initial weights and all draws.
        state_fingerprint: fingerprint of everything that determines the state after a number of steps: code, data,
            seed, and settings (:func:`loco.training.states.state_settings`).
        threads: CPU threads of all ranks of one node.
        facts: facts to write to the model file, in addition to seed, steps and phases.
        record: provenance record of the model.

    Raises:
        DataError: files do not belong together, another training runs in ``out_dir``, or the training diverged.
        ConfigError: the model, the settings and this machine do not fit together.
        LocoError: one of several ranks failed; the message is that of the rank.
        SystemExit: the training was requested to stop (SIGTERM) and its state is saved; or one of several ranks ended
            without a message.
    """
    processes, nodes = (experiment["train"].get(key, 1) for key in ("processes", "nodes"))
    per_rank = max(1, threads * nodes // processes)
    with training_lock(out_dir) as lock:
        state = _state_folder(out_dir, state_fingerprint, experiment, seed)
        job = {"experiment": experiment, "out_dir": out_dir, "seed": seed, "state": state, "facts": facts}
        job |= {"train": train, "val": val, "threads": per_rank}
        job |= {"record": record.to_json() if record else None}
        write_text(state / JOB, json.dumps(job, default=str))
        if processes == 1:
            fit(experiment, train, val, out_dir, seed, state, per_rank, facts, record)
        else:
            launch(state / JOB, processes, nodes, per_rank, lock)
        _finish(state, keeps_final_state(experiment["train"]))


def _finish(state: Path, keep: bool) -> None:
    """Keep the state of a finished training, to continue it later, or remove it."""
    if not keep:
        shutil.rmtree(state)
        return
    if (state / LAST).is_file():
        (state / LAST).replace(state / FINAL)
    logger.info(
        "%s (%.1f MB) is the final state, from which a training with more `steps` continues. To remove such states, "
        "run `loco clean --final --delete`; to keep none, set `keep_state: false`",
        state,
        size_of(state) / 1e6,
    )


def fit(
    experiment: Mapping[str, Any],
    train: Sequence[ScenePaths],
    val: Sequence[ScenePaths],
    out_dir: Path,
    seed: int,
    state: Path,
    threads: int,
    facts: Mapping[str, Any] | None = None,
    record: Record | None = None,
) -> None:
    """Run one rank of a training; rank 0 writes the outputs.

    The arguments are those of :func:`train`, except for two: ``state`` is the folder of the state, and ``threads`` is
    the number of CPU threads of this rank.
    """
    settings = experiment["train"]
    torch.set_num_threads(threads)
    saved, ranks, curve = checkpoint_of(state), Ranks.of_environment(), LiveLog(state / LOG)
    start, accumulate = _steps_done(saved), settings.get("accumulate", 1)
    precision = settings.get("precision", "float32")
    dtype = HALF.get(precision, torch.float32)
    module = RankingModule(experiment, seed, _own_part(open_scenes(val), ranks, dtype), out_dir, curve)
    trainer = pl.Trainer(
        max_steps=module.phases[-1].end,
        accelerator="auto",
        devices=ranks.per_node,
        num_nodes=ranks.nodes,
        strategy="auto" if ranks.world_size == 1 else "ddp",
        plugins=[ranks.environment],
        use_distributed_sampler=False,
        precision=LIGHTNING[precision],
        accumulate_grad_batches=accumulate,
        logger=list(_loggers(settings, out_dir, state)),
        callbacks=[Steps(state / LAST, settings["save_every"], keeps_final_state(settings)), StepBar()],
        profiler=SimpleProfiler(out_dir, "profile") if settings.get("profile") else None,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic="warn",
    )
    if precision == "float16" and trainer.strategy.root_device.type == "cpu":
        raise ConfigError("`train.precision: float16` requires a GPU; set bfloat16 or float32 on this machine")
    if trainer.is_global_zero:
        for line in describe_phases(module.phases):
            logger.info(line)
        if val and settings["validate_every"] > module.phases[-1].end:
            logger.warning(
                "no validation will run, because `validate_every: %d` exceeds the %d steps of the training",
                *(settings["validate_every"], module.phases[-1].end),
            )
    scenes, extractor = open_scenes(train), module.extractor
    batches = Batches(
        scenes,
        settings["batch"],
        settings.get("augment"),
        seed,
        start * accumulate,
        ranks.rank,
        ranks.world_size,
        with_images=extractor.needs_images or not all(scene.encoded_path for scene in scenes),
    )
    with matmul_precision(settings.get("matmul", "highest")):
        _fit(trainer, module, _loader(batches, settings, trainer.strategy.root_device), saved if start else None)
    if trainer.is_global_zero:
        with atomic_path(out_dir / LOG) as temporary:
            temporary.write_bytes(curve.content())
        curve.close()
        module.finish()
        own = {"seed": seed, "steps": module.global_step, "log": curve_digest(out_dir / LOG)}
        own |= {"phases": phase_facts(module.phases, module.global_step)}
        own |= {"init": settings["init"]} if "init" in settings else {}
        extractor = module.extractor
        save_extractor(extractor, extractor.config, out_dir / "model.safetensors", {**(facts or {}), **own}, record)


def _own_part(scenes: Sequence[SceneFiles], ranks: Ranks, dtype: torch.dtype) -> list[ValidationScene | None]:
    """Return the validation scenes of this rank, loaded, and None in place of those of the other ranks."""
    return [ValidationScene(s, dtype) if k % ranks.world_size == ranks.rank else None for k, s in enumerate(scenes)]


class Steps(Callback):
    """End each step, save the training every few steps, and stop all ranks when one is requested to stop."""

    def __init__(self, path: Path, every: int, at_end: bool) -> None:
        """
        Args:
            path: path of the saved state.
            every: number of steps between two saves.
            at_end: whether to save the last step as well.
        """
        self.path, self.every, self.at_end = path, every, at_end
        self.stop_requested, self.vote = False, StopVote()

    def on_train_start(self, *_: Any) -> None:
        # These replace Lightning's handlers, which would communicate with other ranks in the middle of a step.
        for number in (signal.SIGTERM, STOP):
            signal.signal(number, self._request_stop)

    def _request_stop(self, *_: Any) -> None:
        self.stop_requested = True

    def on_train_batch_end(self, trainer: pl.Trainer, module: RankingModule, *_: Any) -> None:
        if not module.end_batch():
            return
        stop = self.vote(self.stop_requested, module.device)
        ends = trainer.should_stop or trainer.global_step >= trainer.max_steps
        if stop or trainer.global_step % self.every == 0 or (self.at_end and ends):
            self._save(trainer)
        if stop:
            trainer.strategy.barrier("saved")  # the first node that exits terminates the others
            raise SystemExit(128 + signal.SIGTERM)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            with atomic_path(self.path) as temporary:
                trainer.save_checkpoint(temporary, weights_only=False)
        else:
            trainer.save_checkpoint(self.path, weights_only=False)  # on other ranks, waits for rank 0 to write


def _loggers(settings: Mapping[str, Any], out_dir: Path, state: Path) -> Iterator[Logger]:
    version = state.name.removeprefix("state-")[:12]
    yield TensorBoardLogger(out_dir, name="tensorboard", version=version)
    if project := settings.get("wandb"):
        yield WandbLogger(name=out_dir.parent.name, version=version, project=project, save_dir=out_dir)


def _loader(batches: Batches, settings: Mapping[str, Any], device: torch.device) -> DataLoader:
    """Return a loader whose workers prefetch batches, into pinned memory if there is a GPU."""
    workers = settings.get("workers", 0)
    ahead = {"prefetch_factor": settings.get("prefetch", 2), "persistent_workers": True} if workers else {}
    return DataLoader(batches, None, num_workers=workers, pin_memory=device.type == "cuda", **ahead)


def _fit(trainer: pl.Trainer, module: RankingModule, loader: DataLoader, checkpoint: Path | None) -> None:
    with warnings.catch_warnings():
        # By default, batches are drawn in this process: a draw is cheap compared to a step. Ranks on several nodes are
        # started by `launch`, and a single rank needs no `srun`. LeafSpec is deprecated within Lightning itself.
        for message in ("does not have many workers", "`srun` command is available", "LeafSpec"):
            warnings.filterwarnings("ignore", message=f".*{message}")
        try:
            trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
        except SIGTERMException:
            # Requested before the first step: Lightning would exit with status 0, which would count as success.
            raise SystemExit(128 + signal.SIGTERM) from None


def _state_folder(out_dir: Path, fingerprint: str, experiment: Mapping[str, Any], seed: int) -> Path:
    """Return the folder of this training's state, created if missing; log the states of other settings, data or code.

    A state with more steps than the training cannot be used. It is kept, and the training gets another folder.
    """
    state, steps = state_folder(out_dir, fingerprint), total_steps(experiment["train"])
    if (done := _steps_done(checkpoint_of(state))) > steps:
        logger.warning(
            "the saved state %s has taken %d steps, more than the %d steps of this training. It is kept but not used: "
            "raise `train.steps` to continue it, or remove it by `loco clean --final --delete`",
            *(state, done, steps),
        )
        state = state_folder(out_dir, hashlib.sha256(f"{fingerprint} {steps}".encode()).hexdigest())
    state.mkdir(exist_ok=True)
    for other in states_of(out_dir):
        if other == state:
            continue
        changes = setting_changes(other, experiment, seed)
        logger.warning(
            "%s (%.1f MB) is the state of another training%s. It is kept but not used: restore its settings, data "
            "and code to continue it, or remove it by `loco clean --delete`",
            other,
            size_of(other) / 1e6,
            f", with {', '.join(changes)}" if changes else "",
        )
    return state


def _steps_done(checkpoint: Path) -> int:
    """Return the number of optimiser steps of a saved state; 0 if there is none."""
    if not checkpoint.is_file():
        return 0
    try:
        return int(torch.load(checkpoint, weights_only=True, map_location="cpu")["global_step"])
    except Exception as error:  # torch raises many types of errors for damaged files
        raise DataError(
            f"the saved state cannot be read: {error}",
            file=checkpoint,
            remedy="delete its folder to train from the beginning",
        ) from error
