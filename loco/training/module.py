"""The training step: features of a batch, the ranking loss over their pairs, the optimiser, and what is kept."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

from loco.errors import ConfigError, DataError
from loco.losses import RankingLoss, build_loss
from loco.models.build import build_extractor
from loco.models.extractor import evaluating
from loco.models.shared_norm import share_batch_norms
from loco.models.stored import load_weights
from loco.storage import atomic_path
from loco.training.data import Batch
from loco.training.kept import Kept, set_weights, without_frozen
from loco.training.optimiser import build_optimiser, set_rates
from loco.training.phases import phase_at, phases_of
from loco.training.validation import LOWER, ValidationScene
from loco.weights import model_file

History = list[dict[str, float]]


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
        self.phases = phases_of(self.settings)
        losses = [{**phase.loss, "tau": phase.tau(phase.start)} for phase in self.phases]
        # The extractor's features have unit length.
        self.criteria = nn.ModuleList(build_loss(**loss, seed=seed, normalise=False) for loss in losses)
        self.validation = validation
        self.kept = Kept(self.extractor, self.settings.get("ema"), self.settings.get("keep") == "best")
        self.history: History = []
        self._parts: History = []  # of the batches since the last step of the optimiser
        self._batch: Batch | None = None  # the last
        self._ended = time.perf_counter()

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:  # the batches of all processes are one
            for criterion in self.criteria:
                criterion.group = distributed.group.WORLD
            share_batch_norms(self.extractor)

    @property
    def criterion(self) -> RankingLoss:
        """The loss of the phase in force."""
        return self.criteria[phase_at(self.phases, self.global_step).number - 1]

    def on_train_start(self) -> None:
        self._end_early()  # killed after it had ended, it does not go on

    def on_train_batch_start(self, batch: Batch, _: int) -> None:
        self._began = time.perf_counter()
        self._batch = batch
        self._begin_step()
        # What a backbone may draw for itself (dropout, stochastic depth) depends on the seed and the batch alone, too.
        number = self.global_step * self.trainer.accumulate_grad_batches + len(self._parts)
        torch.manual_seed(np.random.SeedSequence([self.seed, number, self.global_rank]).generate_state(1)[0].item())

    def _begin_step(self) -> None:
        """Put into force what the phase of this step determines: temperature, learning rates, weight decay."""
        phase, optimiser = phase_at(self.phases, self.global_step), self.trainer.optimizers[0]
        if self.global_step == phase.start and not self._parts:
            optimiser.state.clear()  # the moments of Adam are those of the gradients of another loss
        set_rates(optimiser, phase, self.global_step)
        self.criterion.tau = phase.tau(self.global_step)

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
        loss, log = self.criterion(features[batch.use], batch.points[batch.use], scene_ids, image_ids=image_ids)
        self._parts.append({"loss": loss.item(), **log})
        return loss

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any, gradient_clip_algorithm: Any) -> None:
        if self.trainer.precision != "16-mixed":  # whose gradient overflows now and then; such steps are left out
            self._require_finite("gradients", [p.grad for p in self.extractor.parameters() if p.grad is not None])
        clip = phase_at(self.phases, self.global_step).optimiser["clip"]
        self.clip_gradients(optimizer, clip, gradient_clip_algorithm)

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
        self._ended = time.perf_counter()
        return True

    def _record(self) -> None:
        parts, self._parts = self._parts, []
        now = time.perf_counter()
        seconds = now - self._ended
        mean = {key: sum(part[key] for part in parts) / len(parts) for key in ("loss", "mean_ap")}
        pairs = sum(part["positives"] + part["negatives"] for part in parts)
        taken = self.global_step - 1  # the step that ends here, counted from 0
        phase = phase_at(self.phases, taken)
        entry = {
            "step": self.global_step,
            "phase": phase.number,
            "lr": phase.lr(taken),
            "tau": phase.tau(taken),
            **mean,
        }
        # Of several batches to a step, the wait for the last is seen alone.
        timing = {"pairs_per_second": pairs / seconds, "data_share": (self._began - self._ended) / seconds}
        self.history.append(entry | timing | {"peak_gb": peak_memory() / 1e9})
        self.log("loss", mean["loss"], prog_bar=True)
        for key in ("phase", "lr", "tau", "mean_ap"):
            self.log(key, float(entry[key]))
        self.log("pairs/s", timing["pairs_per_second"], prog_bar=True)
        self.log("GB", self.history[-1]["peak_gb"], prog_bar=True)

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
            images, encoded = (
                None if part is None else part.to(self.extractor.device)
                for part in (self._batch.images, self._batch.encoded)
            )
            with torch.no_grad(), evaluating(self.extractor):
                self._require_finite("features", [self.extractor(images, encoded)])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimiser(self.extractor, self.phases)

    def state_dict(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Without the frozen weights, which are built anew: those of a large backbone are most of a checkpoint."""
        return without_frozen(self, super().state_dict(*arguments, **options))

    @property
    def strict_loading(self) -> bool:
        return False

    # History and kept weights are part of the training's state: a resumed training ends as an unbroken one.
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"], checkpoint["kept"] = self.history, vars(self.kept)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]
        vars(self.kept).update(checkpoint["kept"])


def peak_memory() -> int:
    """Most memory that this process has held so far, bytes: on the GPU if there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
