"""The progress bar of a training."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

if TYPE_CHECKING:
    from loco.training.module import RankingModule


class StepBar(Callback):
    """Show steps, remaining time, the phase and its loss, images and pairs per second, memory, last validation."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def on_train_start(self, trainer: pl.Trainer, module: RankingModule) -> None:
        if not trainer.is_global_zero:
            return
        seconds = 0.5 if sys.stdout.isatty() else 10  # between updates; in a file, every update stays
        steps = {"total": trainer.max_steps, "initial": trainer.global_step, "unit": "step"}
        self.bar = tqdm(**steps, file=sys.stdout, mininterval=seconds, smoothing=0.1)

    def on_train_batch_end(self, trainer: pl.Trainer, module: RankingModule, *_: Any) -> None:
        # No step ended with this batch, or none has been read yet.
        if self.bar is None or trainer.global_step == self.bar.n or not module.entry:
            return
        entry = module.entry
        shown = {
            "loss": f"{entry['loss']:.4f}",
            "images/s": f"{entry['images_per_second']:.0f}",
            "pairs/s": f"{entry['pairs_per_second']:.2g}",
            "GB": f"{entry['peak_gb']:.2f}",
        }
        if module.last_score is not None:
            shown["val_map"] = f"{module.last_score:.4f}"
        self.bar.set_description(module.phase, refresh=False)
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(trainer.global_step - self.bar.n)

    def on_train_end(self, *_: Any) -> None:
        self._close()

    def on_exception(self, *_: Any) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
