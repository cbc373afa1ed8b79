"""The train step: fit one experiment on one split, resume where a killed training stopped, write the model."""

from __future__ import annotations

import fcntl
import shutil
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from loco.errors import DataError
from loco.models import save_extractor
from loco.storage import atomic_path
from loco.training.data import OverlappingImages, open_scenes
from loco.training.module import RankingModule
from loco.training.validation import ValidationScene

ScenePaths = tuple[Path, Path]  # frames, correspondences
LOG_COLUMNS = ["step", "warmup_loss", "loss", "mean_ap", "pairs_per_second", "val_map"]


def train(
    experiment: Mapping[str, Any],
    train: Sequence[ScenePaths],
    val: Sequence[ScenePaths],
    out_dir: Path,
    seed: int,
    state_fingerprint: str,
    threads: int,
) -> None:
    """Train an experiment; write ``model.safetensors`` and ``log.csv`` to ``out_dir``, TensorBoard files beside them.

    The state of the training lies in ``out_dir/state-<fingerprint>`` and is saved every ``save_every`` steps and on
    SIGTERM. A training that finds the state of its own fingerprint goes on from there, with the same result as one
    that was never stopped; states of other fingerprints belong to other settings or data and are removed.

    Args:
        experiment: an entry of ``experiments`` in the configuration, with a ``train`` block.
        train: (frames, correspondences) files of the scenes to train on.
        val: likewise, to validate on; may be empty.
        out_dir: where to write.
        seed: of the initial weights and all draws.
        state_fingerprint: of all that decides the result: settings, data, code, seed.
        threads: for the computation on the CPU.

    Raises:
        DataError: files that do not belong together, a second training at work on the same state, a loss that is
            not finite.
        SystemExit: the training was asked to stop (SIGTERM); its state is saved.
    """
    settings = experiment["train"]
    torch.set_num_threads(threads)
    with _state_folder(out_dir, state_fingerprint) as state:
        last = state / "last.ckpt"
        start = _steps_done(last)
        module = RankingModule(experiment, seed, [ValidationScene(scene) for scene in open_scenes(val)])
        batches = OverlappingImages(open_scenes(train), settings["batch"], settings.get("augment"), seed, start)
        trainer = pl.Trainer(
            max_steps=settings["steps"],
            accelerator="auto",
            devices=1,
            gradient_clip_val=settings["optimiser"]["clip"],
            logger=TensorBoardLogger(out_dir, name="tensorboard", version=state_fingerprint[:12]),
            callbacks=[SaveState(last, settings["save_every"]), TQDMProgressBar(refresh_rate=1)],
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_model_summary=False,
            deterministic="warn",
        )
        _fit(trainer, module, DataLoader(batches, batch_size=None), last if start else None)
        with atomic_path(out_dir / "log.csv") as temporary:
            pd.DataFrame(module.history).reindex(columns=LOG_COLUMNS).to_csv(temporary, index=False)
        facts = {"seed": seed, "steps": settings["steps"], "loss": settings["loss"]}
        save_extractor(module.extractor, experiment["model"], out_dir / "model.safetensors", facts)
    shutil.rmtree(state)


class SaveState(Callback):
    """Save the whole training every few steps, and when it is asked to stop."""

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step % self.every == 0:
            self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, _: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException):  # raised between two steps
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        with atomic_path(self.path) as temporary:
            trainer.save_checkpoint(temporary)


def _fit(trainer: pl.Trainer, module: RankingModule, loader: DataLoader, checkpoint: Path | None) -> None:
    with warnings.catch_warnings():
        # Batches are drawn in this process on purpose: a draw costs little beside a step.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        try:
            trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
        except SIGTERMException:
            # Lightning leaves with exit status 0, which would pass for success.
            raise SystemExit(128 + signal.SIGTERM) from None


@contextmanager
def _state_folder(out_dir: Path, fingerprint: str) -> Iterator[Path]:
    """The folder of this training's state, locked; those of other fingerprints are removed."""
    state = out_dir / f"state-{fingerprint[:16]}"
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                "another training is at work on this state",
                file=state,
                remedy="wait for it, or stop it (a killed Snakemake leaves its training running)",
            ) from None
        for other in out_dir.glob("state-*"):
            if other != state:
                shutil.rmtree(other)
        yield state


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
