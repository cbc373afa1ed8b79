"""The training step: features of a batch, the ranking loss over their pairs, the optimiser, and what is kept."""

from __future__ import annotations

import math
import resource
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
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
from loco.training.checkpointing import checkpoint_blocks
from loco.training.data import Batch
from loco.training.deferred import Deferred, all_finite
from loco.training.grad_cache import cached_features, require_independent_images
from loco.training.jitter import colours
from loco.training.kept import Kept, set_weights, without_frozen
from loco.training.precision import HALF
from loco.training.validation import LOWER, ValidationScene
from loco.weights import model_file

History = list[dict[str, float]]


@dataclass
class _Step:
    """A step whose numbers have been requested from the device: those of its batches, and the rest of its record."""

    number: int
    batches: list[tuple[Batch, Deferred]]
    gradients: Deferred | None
    seconds: float
    data_share: float
    peak_gb: float


class RankingModule(pl.LightningModule):
    """A feature extractor that learns to rank pairs of patches by their distance in space."""

    def __init__(
        self, experiment: Mapping[str, Any], seed: int, validation: list[ValidationScene], out_dir: Path
    ) -> None:
        """
        Args:
            experiment: an entry of ``experiments`` in the configuration, with a ``train`` block.
            seed: of the initial weights, and of what the network and the losses draw.
            validation: scenes whose mAP is measured every ``validate_every`` steps.
            out_dir: where a batch that breaks the training is written.
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
        self.history: History = []
        self._parts: list[tuple[Batch, Deferred]] = []  # batches since the last step of the optimiser, their numbers
        self._gradients: Deferred | None = None  # whether those of the present step are finite
        self._unread: deque[_Step] = deque()
        self._batch: Batch | None = None  # the last
        self.half = HALF.get(self.settings.get("precision"))
        if self.settings.get("grad_cache"):
            require_independent_images(self.extractor)
        if self.settings.get("checkpoint_activations"):
            checkpoint_blocks(self.extractor)
        self._compiled = torch.compile(self.extractor.forward) if self.settings.get("compile") else None
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
        maps = self._features(batch)
        grid = batch.use.shape[1:3]
        if maps.shape[2:] != grid:
            raise DataError(
                "the grid of the features is not the grid of the patches",
                expected=f"{tuple(grid)} patches",
                found=f"{tuple(maps.shape[2:])} features",
                remedy=f"make correspondences at the stride of the model, {self.extractor.stride}",
            )
        criterion = self.warmup if self.global_step < self.warmup_steps else self.criterion
        features = maps.permute(0, 2, 3, 1).flatten(0, 2)[batch.rows]
        if self.half and criterion.takes_half:  # they were normalised in float32
            features = features.to(self.half)
        image = batch.rows // grid.numel()
        points = batch.points.flatten(0, 2)[batch.rows]
        loss, log = criterion(features, points, batch.scene[image], image_ids=batch.image[image])
        numbers = {"loss": loss, "finite": all_finite([maps]), **getattr(log, "numbers", log)}
        self._parts.append((batch, Deferred(numbers)))
        return loss

    def _features(self, batch: Batch) -> Tensor:
        """L2-normalised feature maps (b, dim, h, w) float32 of the images of a batch."""

        def encode(part: slice) -> Tensor:
            images, factors, encoded = (
                None if tensor is None else tensor[part] for tensor in (batch.images, batch.jitter, batch.encoded)
            )
            network = self._compiled or self.extractor
            return network(None if images is None else colours(images, factors), encoded)

        if chunk := self.settings.get("grad_cache"):
            trained = [parameter for parameter in self.extractor.parameters() if parameter.requires_grad]
            return cached_features(encode, len(batch.scene), chunk, trained, self.extractor.device)
        return encode(slice(None))

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any, gradient_clip_algorithm: Any) -> None:
        if self.trainer.precision != "16-mixed":  # whose gradient overflows now and then; such steps are left out
            gradients = [p.grad for p in self.extractor.parameters() if p.grad is not None]
            self._gradients = Deferred({"finite": all_finite(gradients)})
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def _diverged(self, what: str, step: int, batch: Batch) -> DataError:
        """Save the batch that broke the training; return the error that names it."""
        share = f"-process{self.global_rank}" if self.trainer.world_size > 1 else ""
        path = self.out_dir / f"diverged-step{step}{share}.safetensors"
        with atomic_path(path) as temporary:
            save_file({k: v.contiguous() for k, v in batch._asdict().items() if v is not None}, temporary)
        return DataError(
            f"the {what} are not finite at step {step}: the training diverged; this is its last batch",
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
            self.read_steps()
            self._validate()
        self._ended = time.perf_counter()
        return True

    def _record(self) -> None:
        """Take note of a step; and read the numbers of those before, on the CPU of this one, too."""
        seconds = time.perf_counter() - self._ended
        # Of several batches to a step, the wait for the last is seen alone.
        timing = seconds, (self._began - self._ended) / seconds, peak_memory() / 1e9
        self._unread.append(_Step(self.global_step, self._parts, self._gradients, *timing))
        self._parts, self._gradients = [], None
        if self.read_steps(late=self.extractor.device.type != "cpu"):
            newest = self.history[-1]
            name = "warmup_loss" if "warmup_loss" in newest else "loss"
            self.log(name, newest[name], prog_bar=True)
            self.log("mean_ap", newest["mean_ap"])
            self.log("pairs/s", newest["pairs_per_second"], prog_bar=True)
            self.log("GB", newest["peak_gb"], prog_bar=True)

    def read_steps(self, late: bool = False) -> bool:
        """Read the numbers of steps into the history; if ``late``, not of the last, which a GPU is still computing.

        Returns:
            Whether any were read.

        Raises:
            DataError: the features or gradients of one are not finite; its batch is saved.
        """
        before = len(self.history)
        while len(self._unread) > late:
            self.history.append(self._read(self._unread.popleft()))
        return len(self.history) > before

    def _read(self, step: _Step) -> dict[str, float]:
        parts = [numbers.read() for _, numbers in step.batches]
        for (batch, _), part in zip(step.batches, parts):
            if not part["finite"]:
                raise self._diverged("features", step.number - 1, batch)
        if step.gradients and not step.gradients.read()["finite"]:
            raise self._diverged("gradients", step.number - 1, step.batches[-1][0])
        mean = {key: sum(part[key] for part in parts) / len(parts) for key in ("loss", "mean_ap")}
        pairs = sum(part["positives"] + part["negatives"] for part in parts)
        name = "warmup_loss" if step.number <= self.warmup_steps else "loss"
        entry = {"step": step.number, name: mean["loss"], "mean_ap": mean["mean_ap"]}
        timing = {"pairs_per_second": pairs / step.seconds, "data_share": step.data_share, "peak_gb": step.peak_gb}
        return entry | timing

    def on_train_end(self) -> None:
        self.read_steps()

    def _validate(self) -> None:
        with self.kept.averaged(self.extractor):
            value = 0.0
            if self.trainer.is_global_zero:
                value = sum(scene.mean_ap(self.extractor) for scene in self.validation) / len(self.validation)
            value = self.trainer.strategy.broadcast(value)
            self.kept.judge(self.extractor, value, self.global_step)
        self.history[-1]["val_map"] = value
        self.log("val_map", value, prog_bar=True, rank_zero_only=True)
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
            batch = Batch(*(None if part is None else part.to(self.extractor.device) for part in self._batch))
            images = None if batch.images is None else colours(batch.images, batch.jitter)
            with torch.no_grad(), evaluating(self.extractor):
                features = self.extractor(images, batch.encoded)
            if not all_finite([features]):
                raise self._diverged("features", self.global_step, batch)

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

    # History and kept weights are part of the training's state: a resumed training ends as an unbroken one.
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.read_steps()
        checkpoint["history"], checkpoint["kept"] = self.history, vars(self.kept)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]
        vars(self.kept).update(checkpoint["kept"])


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
