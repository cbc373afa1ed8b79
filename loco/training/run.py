"""The train step: fit one experiment on one split, resume where a killed training stopped, write the model."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from loco.errors import ConfigError, DataError, LocoError
from loco.models.stored import save_extractor
from loco.records import Record
from loco.storage import atomic_path, write_text
from loco.storage.training_log import LOG_COLUMNS, curve_digest
from loco.training.data import Batches
from loco.training.deferred import StopVote
from loco.training.lock import Lock, training_lock
from loco.training.module import RankingModule
from loco.training.phases import describe_phases, phase_facts
from loco.training.precision import HALF, LIGHTNING, matmul_precision
from loco.training.scene_files import open_scenes
from loco.training.states import size_of, state_folder, states_of
from loco.training.validation import ValidationScene

ScenePaths = Sequence[Path | None]  # frames, correspondences, encoded frames, pairs; None, or fewer, where none is
ERROR = "error.txt"  # in the folder of the state: what went wrong in a process of a distributed training

logger = logging.getLogger(__name__)


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

    The state of the training lies in ``out_dir/state-<fingerprint>`` and is saved every ``save_every`` steps and on
    SIGTERM. A training that finds the state of its own fingerprint goes on from there, with the same result as one
    that was never stopped. States of other fingerprints, which belong to other settings, data or code, are kept and
    logged with a warning.

    Args:
        experiment: an entry of ``experiments`` in the configuration, with a ``train`` block.
        train: files of the scenes to train on; with their encoded frames, to train on those, and with the index of
            their positive pairs, for batches of these.
        val: (frames, correspondences) of those to validate on; may be empty.
        out_dir: where to write.
        seed: of the initial weights and all draws.
        state_fingerprint: of all that decides the result: settings, data, code, seed.
        threads: for the computation on the CPU, of all processes.
        facts: to be written into the model file, beside seed, steps and phases.
        record: how the model is made.

    Raises:
        DataError: files that do not belong together, a second training at work on the same state, a loss that is
            not finite.
        SystemExit: the training was asked to stop (SIGTERM) and its state is saved; or one of its processes failed.
    """
    processes = experiment["train"].get("processes", 1)
    with training_lock(out_dir) as lock:
        state = _state_folder(out_dir, state_fingerprint)
        if processes == 1:
            fit(experiment, train, val, out_dir, seed, state, threads, facts, record)
        else:
            job = {"experiment": experiment, "out_dir": out_dir, "seed": seed, "state": state, "facts": facts}
            job |= {"train": train, "val": val, "threads": max(1, threads // processes)}
            job |= {"record": record.to_json() if record else None}
            write_text(state / "job.json", json.dumps(job, default=str))
            _launch(state / "job.json", processes, lock)
        shutil.rmtree(state)


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
    """What one process of a training does. Arguments as of :func:`train`; ``state`` is the folder of its state."""
    settings = experiment["train"]
    torch.set_num_threads(threads)
    last, processes = state / "last.ckpt", settings.get("processes", 1)
    start, accumulate = _steps_done(last), settings.get("accumulate", 1)
    precision = settings.get("precision", "float32")
    validation = [ValidationScene(scene, HALF.get(precision, torch.float32)) for scene in open_scenes(val)]
    module = RankingModule(experiment, seed, validation, out_dir)
    trainer = pl.Trainer(
        max_steps=module.phases[-1].end,
        accelerator="auto",
        devices=processes,
        strategy="auto" if processes == 1 else "ddp",
        use_distributed_sampler=False,
        precision=LIGHTNING[precision],
        accumulate_grad_batches=accumulate,
        logger=list(_loggers(settings, out_dir, state)),
        callbacks=[Steps(last, settings["save_every"]), TQDMProgressBar(refresh_rate=1)],
        profiler=SimpleProfiler(out_dir, "profile") if settings.get("profile") else None,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_model_summary=False,
        deterministic="warn",
    )
    if precision == "float16" and trainer.strategy.root_device.type == "cpu":
        raise ConfigError("`precision: float16` needs a GPU; on this machine take bfloat16 or float32")
    if trainer.is_global_zero:
        for line in describe_phases(module.phases):
            logger.info(line)
    scenes, extractor = open_scenes(train), module.extractor
    batches = Batches(
        scenes,
        settings["batch"],
        settings.get("augment"),
        seed,
        start * accumulate,
        trainer.global_rank,
        processes,
        with_images=extractor.needs_images or not all(scene.encoded_path for scene in scenes),
    )
    with matmul_precision(settings.get("matmul", "highest")):
        _fit(trainer, module, _loader(batches, settings, trainer.strategy.root_device), last if start else None)
    if trainer.is_global_zero:
        with atomic_path(out_dir / "log.csv") as temporary:
            pd.DataFrame(module.history).reindex(columns=LOG_COLUMNS).to_csv(temporary, index=False)
        module.finish()
        own = {"seed": seed, "steps": module.global_step, "log": curve_digest(out_dir / "log.csv")}
        own |= {"phases": phase_facts(module.phases, module.global_step)}
        own |= {"init": settings["init"]} if "init" in settings else {}
        extractor = module.extractor
        save_extractor(extractor, extractor.config, out_dir / "model.safetensors", {**(facts or {}), **own}, record)


class Steps(Callback):
    """End each step, save the whole training every few steps, and stop all its processes when one is asked to."""

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every, self.asked_to_stop, self.vote = path, every, False, StopVote()

    def on_train_start(self, *_: Any) -> None:
        # In the place of Lightning's handler, which talks to the other processes from amidst the step of this one.
        signal.signal(signal.SIGTERM, self._ask_to_stop)

    def _ask_to_stop(self, *_: Any) -> None:
        self.asked_to_stop = True

    def on_train_batch_end(self, trainer: pl.Trainer, module: RankingModule, *_: Any) -> None:
        if not module.end_batch():
            return
        stop = self.vote(self.asked_to_stop, module.device)
        if stop or trainer.global_step % self.every == 0:
            self._save(trainer)
        if stop:
            raise SystemExit(128 + signal.SIGTERM)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            with atomic_path(self.path) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            trainer.save_checkpoint(self.path)  # writes nothing, and waits for the process that does


def _loggers(settings: Mapping[str, Any], out_dir: Path, state: Path) -> Iterator[Logger]:
    version = state.name.removeprefix("state-")[:12]
    yield TensorBoardLogger(out_dir, name="tensorboard", version=version)
    if project := settings.get("wandb"):
        yield WandbLogger(name=out_dir.parent.name, version=version, project=project, save_dir=out_dir)


def _loader(batches: Batches, settings: Mapping[str, Any], device: torch.device) -> DataLoader:
    """Batches are loaded ahead by the workers, into pinned memory where a GPU is to fetch them."""
    workers = settings.get("workers", 0)
    ahead = {"prefetch_factor": settings.get("prefetch", 2), "persistent_workers": True} if workers else {}
    return DataLoader(batches, None, num_workers=workers, pin_memory=device.type == "cuda", **ahead)


def _fit(trainer: pl.Trainer, module: RankingModule, loader: DataLoader, checkpoint: Path | None) -> None:
    with warnings.catch_warnings():
        # Batches are drawn in this process unless the configuration says otherwise: a draw costs little beside a step.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        try:
            trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
        except SIGTERMException:
            # Asked before the first step: Lightning would leave with exit status 0, which would pass for success.
            raise SystemExit(128 + signal.SIGTERM) from None


def _launch(job: Path, processes: int, lock: Lock) -> None:
    """Run the processes of a distributed training, each as ``python -m loco.training JOB``, and wait for them.

    Their launcher holds the ``lock`` of the training, too: it may outlive this process.
    """
    job.with_name(ERROR).unlink(missing_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with subprocess.Popen([*command, "-m", "loco.training", str(job)], pass_fds=lock.descriptors) as launched:
        lock.share(launched.pid)
        before = signal.signal(signal.SIGTERM, lambda number, _: launched.send_signal(number))
        try:
            code = launched.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    if code and (error := job.with_name(ERROR)).is_file():
        raise LocoError(error.read_text())
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def _state_folder(out_dir: Path, fingerprint: str) -> Path:
    """Create the folder of this training's state, and name the states of other settings, data or code in the log."""
    state = state_folder(out_dir, fingerprint)
    state.mkdir(exist_ok=True)
    for other in states_of(out_dir):
        if other != state:
            logger.warning(
                "%s (%.1f MB) is the state of an interrupted training with other settings, data or code. It is not "
                "used and is kept: restore those settings to resume it, or remove it by `loco clean --delete`",
                other,
                size_of(other) / 1e6,
            )
    return state


def _steps_done(checkpoint: Path) -> int:
    """Optimiser steps behind a saved state; 0 if there is none."""
    if not checkpoint.is_file():
        return 0
    try:
        return int(torch.load(checkpoint, weights_only=True, map_location="cpu")["global_step"])
    except Exception as error:  # torch raises many kinds for broken files
        raise DataError(
            f"the saved state cannot be read: {error}",
            file=checkpoint,
            remedy="delete its folder to train from the start",
        ) from error
