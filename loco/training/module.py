"""The training step: features of a batch, the ranking loss over their pairs, the optimiser, and what is kept."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, distributed

from loco.errors import ConfigError, DataError
from loco.losses import build_loss
from loco.models.build import build_extractor
from loco.models.extractor import evaluating
from loco.models.shared_norm import share_batch_norms
from loco.models.stored import load_weights
from loco.storage import atomic_path
from loco.training.data import Batch
from loco.training.kept import Kept, set_weights, without_frozen
from loco.training.log import LiveLog
from loco.training.validation import LOWER, ValidationScene
from loco.weights import model_file


class RankingModule(pl.LightningModule):
    """A feature extractor that learns to rank pairs of patches by their distance in space."""

    def __init__(
        self,
        experiment: Mapping[str, Any],
        seed: int,
        validation: Sequence[ValidationScene | None],
        out_dir: Path,
        curve: LiveLog | None = None,
    ) -> None:
        """
        Args:
            experiment: an entry of ``experiments`` in the configuration, with a ``train`` block.
            seed: of the initial weights, and of what the network and the losses draw.
            validation: scenes whose mAP is measured every ``validate_every`` steps; None for those that another rank
                evaluates.
            out_dir: where a batch that breaks the training is written.
            curve: the log of the training, written by rank 0; None for no log.

        Attributes:
            entry: last line of the log.
            last_score: of the last validation; None before the first.
        """
        super().__init__()
        self.settings, self.seed, self.out_dir = experiment["train"], seed, out_dir
        self.extractor = build_extractor(experiment["model"], seed)
        if "init" in self.settings:
            load_weights(self.extractor, model_file(self.settings["init"]))
        if not self.extractor.trainable_parameters:
            raise ConfigError(f"model {experiment['model']['name']!r} has nothing to train; remove its `train` block")
        self.criterion = build_loss(**self.settings["loss"], seed=seed, normalise=False)  # the extractor's are unit
        warmup = self.settings.get("warmup")
        self.warmup_steps = warmup["steps"] if warmup else 0
        self.warmup = build_loss(**warmup["loss"], seed=seed, normalise=False) if warmup else None
        self.validation = validation
        self.kept = Kept(self.extractor, self.settings.get("ema"), self.settings.get("keep") == "best")
        self.curve = curve
        self.entry: dict[str, float] = {}
        self._entries: list[dict[str, float]] = []  # lines that the log does not have yet
        self.last_score: float | None = None
        self._parts: list[dict[str, float]] = []  # of the batches since the last step of the optimiser
        self._batch: Batch | None = None  # the last
        self._ended = time.perf_counter()

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:  # the batches of all processes are one
            for criterion in filter(None, (self.criterion, self.warmup)):
                criterion.group = distributed.group.WORLD
            share_batch_norms(self.extractor)

    def on_train_start(self) -> None:
        self._end_early()  # killed after it had ended, it does not go on

    def on_train_batch_start(self, batch: Batch, _: int) -> None:
        self._began = time.perf_counter()
        self._batch = batch
        # What a backbone may draw for itself (dropout, stochastic depth) depends on the seed and the batch alone, too.
        number = self.global_step * self.trainer.accumulate_grad_batches + len(self._parts)
        torch.manual_seed(np.random.SeedSequence([self.seed, number, self.global_rank]).generate_state(1)[0].item())

    def training_step(self, batch: Batch, _: int) -> Tensor:
        features = self.extractor(batch.images, batch.encoded).permute(0, 2, 3, 1)
        if features.shape[1:3] != batch.use.shape[1:3]:
            raise DataError(
                "the grid of the features is not the grid of the patches",
                expected=f"{tuple(batch.use.shape[1:3])} patches",
                found=f"{tuple(features.shape[1:3])} features",
                remedy=f"make correspondences at the stride of the model, {self.extractor.stride}",
            )
        self._require_finite("features", [features])
        scene_ids = batch.scene[:, None, None].expand(batch.use.shape)[batch.use]
        image_ids = batch.image[:, None, None].expand(batch.use.shape)[batch.use]
        criterion = self.warmup if self.global_step < self.warmup_steps else self.criterion
        loss, log = criterion(features[batch.use], batch.points[batch.use], scene_ids, image_ids=image_ids)
        self._parts.append({"loss": loss.item(), "images": len(batch.use), **log})
        return loss

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any, gradient_clip_algorithm: Any) -> None:
        if self.trainer.precision != "16-mixed":  # whose gradient overflows now and then; such steps are left out
            self._require_finite("gradients", [p.grad for p in self.extractor.parameters() if p.grad is not None])
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def _require_finite(self, what: str, tensors: Sequence[Tensor]) -> None:
        if torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all():  # a GPU is waited for once
            return
        share = f"-process{self.global_rank}" if self.trainer.world_size > 1 else ""
        path = self.out_dir / f"diverged-step{self.global_step}{share}.safetensors"
        with atomic_path(path) as temporary:
            save_file({k: v.contiguous() for k, v in self._batch._asdict().items() if v is not None}, temporary)
        raise DataError(
            f"the {what} are not finite at step {self.global_step}: the training diverged; this is its last batch",
            file=path,
            remedy=LOWER,
        )

    def end_batch(self) -> bool:
        """Record, validate and keep what is to be kept, where a batch ends a step; and whether it does."""
        if len(self._parts) < self.trainer.accumulate_grad_batches:
            return False
        self.kept.follow(self.extractor)
        self._record()
        every = self.settings["validate_every"]
        if self.validation and self.global_step % every == 0:
            self._validate()
        self._write_log()
        self._ended = time.perf_counter()
        return True

    @property
    def phase(self) -> str:
        """Name of the phase that the last step belongs to."""
        return "warm-up" if self.global_step <= self.warmup_steps else "training"

    def _record(self) -> None:
        parts, self._parts = self._parts, []
        seconds = time.perf_counter() - self._ended
        mean = {key: sum(part[key] for part in parts) / len(parts) for key in ("loss", "mean_ap")}
        pairs = sum(part["positives"] + part["negatives"] for part in parts)
        images = sum(part["images"] for part in parts) * self.trainer.world_size  # ranks have equal parts, up to one
        name = "warmup_loss" if self.global_step <= self.warmup_steps else "loss"
        entry = {
            "step": self.global_step,
            name: mean["loss"],
            "mean_ap": mean["mean_ap"],
            "seconds": seconds,
            "images_per_second": images / seconds,
            "pairs_per_second": pairs / seconds,
            "data_share": (self._began - self._ended) / seconds,  # of several batches, the wait for the last alone
            "peak_gb": peak_memory() / 1e9,
        }
        shown = {name: name, "mean_ap": "mean_ap", "pairs_per_second": "pairs/s", "images_per_second": "images/s"}
        shown["peak_gb"] = "GB"
        self.log_dict({title: entry[key] for key, title in shown.items()})
        self._entries.append(entry)

    def _write_log(self) -> None:
        """Write the lines of the steps whose numbers are complete."""
        entries, self._entries = self._entries, []
        if entries:
            self.entry = entries[-1]
        if self.curve is not None and self.trainer.is_global_zero:
            for entry in entries:
                self.curve.append(entry)

    def _validate(self) -> None:
        """Evaluate the scenes of this rank, and share the scores.

        Each scene has a score on one rank and 0 on the others, and the mean is over the scenes in their order, so the
        value is the same for every number of ranks, bit for bit.
        """
        with self.kept.averaged(self.extractor):
            scores = [scene.mean_ap(self.extractor) if scene else 0.0 for scene in self.validation]
            if self.trainer.world_size > 1:
                shared = torch.tensor(scores, dtype=torch.float64, device=self.extractor.device)
                distributed.all_reduce(shared)
                scores = shared.tolist()
            value = sum(scores) / len(scores)
            self.kept.judge(self.extractor, value, self.global_step)
        self._entries[-1]["val_map"] = self.last_score = value
        self.log("val_map", value, rank_zero_only=True)
        self._end_early()

    def _end_early(self) -> None:
        patience = self.settings.get("early_stop")
        if patience and self.global_step - self.kept.best_step >= patience * self.settings["validate_every"]:
            self.trainer.should_stop = True

    def finish(self) -> None:
        """Give the extractor the weights that are to be kept, and see that its features are finite."""
        if self.kept.best:
            set_weights(self.extractor, self.kept.best)
        elif self.kept.average:
            set_weights(self.extractor, self.kept.average)
        if self._batch is not None:  # as it is where the training was killed after its last step
            images, encoded = (
                None if part is None else part.to(self.extractor.device)
                for part in (self._batch.images, self._batch.encoded)
            )
            with torch.no_grad(), evaluating(self.extractor):
                self._require_finite("features", [self.extractor(images, encoded)])

    def configure_optimizers(self) -> dict[str, Any]:
        settings = self.settings["optimiser"]
        trained = [parameter for parameter in self.extractor.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=settings["lr"], weight_decay=settings["weight_decay"])
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser,
            partial(SCHEDULES[settings.get("schedule", "cosine")], settings["warmup_steps"], self.settings["steps"]),
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def state_dict(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Without the frozen weights, which are built anew: those of a large backbone are most of a checkpoint."""
        return without_frozen(self, super().state_dict(*arguments, **options))

    @property
    def strict_loading(self) -> bool:
        return False

    # Kept weights and the position in the log are part of the state: a resumed training ends as an uninterrupted one.
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._write_log()
        checkpoint["kept"], checkpoint["last_score"] = vars(self.kept), self.last_score
        checkpoint["log"] = self.curve.mark() if self.curve is not None else 0

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        vars(self.kept).update(checkpoint["kept"])
        self.last_score = checkpoint["last_score"]
        if self.curve is not None and self.trainer.is_global_zero:
            self.curve.cut(checkpoint["log"], checkpoint["global_step"])


def peak_memory() -> int:
    """Most memory that this process has held so far, bytes: on the GPU if there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cosine(warmup: int, steps: int, step: int) -> float:
    """Return the factor of the learning rate: a linear rise over ``warmup`` steps, then a cosine to 0 at ``steps``."""
    if step < warmup:
        return constant(warmup, steps, step)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def constant(warmup: int, steps: int, step: int) -> float:
    """Return the factor of the learning rate: a linear rise over ``warmup`` steps, then 1."""
    return min(1.0, (step + 1) / (warmup + 1))


SCHEDULES = {"cosine": cosine, "constant": constant}
