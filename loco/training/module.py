"""The training step: features of a batch, the ranking loss over their pairs, the optimiser."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from loco.errors import ConfigError, DataError
from loco.losses import build_loss
from loco.models import build_extractor
from loco.training.data import Batch
from loco.training.validation import ValidationScene

History = list[dict[str, float]]


class RankingModule(pl.LightningModule):
    """A feature extractor that learns to rank pairs of patches by their distance in space."""

    def __init__(self, experiment: Mapping[str, Any], seed: int, validation: list[ValidationScene]) -> None:
        """
        Args:
            experiment: an entry of ``experiments`` in the configuration, with a ``train`` block.
            seed: of the initial weights and the draws of the loss.
            validation: scenes whose mAP is measured every ``validate_every`` steps.
        """
        super().__init__()
        self.settings = experiment["train"]
        self.extractor = build_extractor(experiment["model"], seed)
        if not self.extractor.trainable_parameters:
            raise ConfigError(f"model {experiment['model']['name']!r} has nothing to train; remove its `train` block")
        self.criterion = build_loss(**self.settings["loss"])
        warmup = self.settings.get("warmup")
        self.warmup_steps = warmup["steps"] if warmup else 0
        self.warmup = build_loss(**warmup["loss"]) if warmup else None
        self.validation = validation
        self.history: History = []
        self._step_began = time.perf_counter()

    def training_step(self, batch: Batch, _: int) -> Tensor:
        features = self.extractor(batch.images).permute(0, 2, 3, 1)
        if features.shape[1:3] != batch.use.shape[1:3]:
            raise DataError(
                "the grid of the features is not the grid of the patches",
                expected=f"{tuple(batch.use.shape[1:3])} patches",
                found=f"{tuple(features.shape[1:3])} features",
                remedy=f"make correspondences at the stride of the model, {self.extractor.stride}",
            )
        if not torch.isfinite(features).all():
            raise DataError(
                f"the features are not finite at step {self.global_step}: the training diverged",
                remedy="lower the learning rate (`optimiser.lr`) or the gradient's length (`optimiser.clip`)",
            )
        scene_ids = batch.scene[:, None, None].expand(batch.use.shape)[batch.use]
        image_ids = torch.nonzero(batch.use)[:, 0]
        criterion = self.warmup if self.global_step < self.warmup_steps else self.criterion
        loss, log = criterion(features[batch.use], batch.points[batch.use], scene_ids, image_ids=image_ids)
        self._record(loss, log)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        every = self.settings["validate_every"]
        if self.validation and every and self.global_step % every == 0:
            self.extractor.eval()
            value = sum(scene.mean_ap(self.extractor) for scene in self.validation) / len(self.validation)
            self.extractor.train()
            self.history[-1]["val_map"] = value
            self.log("val_map", value, prog_bar=True)
            self._step_began = time.perf_counter()

    def _record(self, loss: Tensor, log: dict[str, float]) -> None:
        now = time.perf_counter()
        pairs = (log["positives"] + log["negatives"]) / (now - self._step_began)
        self._step_began = now
        name = "warmup_loss" if self.global_step < self.warmup_steps else "loss"
        entry = {"step": self.global_step + 1, name: loss.item(), "mean_ap": log["mean_ap"], "pairs_per_second": pairs}
        self.history.append(entry)
        self.log(name, entry[name], prog_bar=True)
        self.log("mean_ap", entry["mean_ap"])
        self.log("pairs/s", pairs, prog_bar=True)

    def configure_optimizers(self) -> dict[str, Any]:
        settings = self.settings["optimiser"]
        optimiser = torch.optim.AdamW(
            self.extractor.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"]
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: warmup_cosine(step, settings["warmup_steps"], self.settings["steps"])
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # The history is part of the training's state: a resumed training writes the same curve as an unbroken one.
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]


def warmup_cosine(step: int, warmup: int, steps: int) -> float:
    """Share of the learning rate: a linear rise over ``warmup`` steps, then half a cosine down to 0 at ``steps``."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))
