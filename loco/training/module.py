"""The training step: features of a batch, the ranking loss over their pairs, the optimiser, and the tracked weights."""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from loco.training.checkpointing import checkpoint_blocks
from loco.training.data import Batch
from loco.training.deferred import Deferred, all_finite
from loco.training.grad_cache import cached_features, require_independent_images
from loco.training.jitter import colours
from loco.training.log import LiveLog
from loco.training.optimiser import build_optimiser, set_rates
from loco.training.phases import phase_at, phases_of
from loco.training.precision import HALF
from loco.training.tracked_weights import TrackedWeights, set_weights, without_frozen
from loco.training.validation import LOWER, ValidationScene
from loco.weights import model_file

LOGGED = {  # columns of the log that are sent to loggers -> their names there
    "loss": "loss",
    "phase": "phase",
    "lr": "lr",
    "tau": "tau",
    "mean_ap": "mean_ap",
    "pairs_per_second": "pairs/s",
    "images_per_second": "images/s",
    "peak_gb": "GB",
}
MAX_WITHOUT_POSITIVES = 50  # number of first steps after which a training is stopped if none has a positive pair


@dataclass
class _Step:
    """A step whose numbers have been requested from the device, but not read yet."""

    number: int  # number of the step, counted from 1
    batches: list[tuple[Batch, Deferred]]  # its batches, each with the numbers of its loss
    gradients: Deferred | None  # whether its gradients are finite; None if that is not checked
    seconds: float
    data_fraction: float  # fraction of the time spent waiting for the last batch
    peak_gb: float


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
            seed: seed of the initial weights, and of the draws of the network and the losses.
            validation: scenes whose mAP is measured every ``validate_every`` steps; None for scenes that another rank
                evaluates.
            out_dir: folder to which a batch is written if the training diverges on it.
            curve: the log of the training, written by rank 0; None for no log.

        Attributes:
            entry: line of the log for the latest step whose numbers were read.
            last_score: score of the last validation; None before the first.

        Raises:
            ConfigError: the model has no trainable parameters, or does not support ``grad_cache`` or
                ``checkpoint_activations``.
            DataError: the initial weights cannot be read or are those of another model.
        """
        super().__init__()
        self.settings, self.seed, self.out_dir = experiment["train"], seed, out_dir
        self.extractor = build_extractor(experiment["model"], seed)
        if "init" in self.settings:
            load_weights(self.extractor, model_file(self.settings["init"]))
        if not self.extractor.trainable_parameters:
            raise ConfigError(
                f"model {experiment['model']['name']!r} has no trainable parameters; remove the `train` block "
                "of the experiment"
            )
        self.phases = phases_of(self.settings)
        # The features of the extractor are L2-normalised.
        self.losses = [build_loss(**phase.first_loss(), seed=seed, normalise=False) for phase in self.phases]
        self.criteria = nn.ModuleList(self.losses)  # part of the state: losses count their draws
        self.validation = validation
        self.tracked_weights = TrackedWeights(
            self.extractor, self.settings.get("ema"), self.settings.get("keep") == "best"
        )
        self.curve = curve
        self.entry: dict[str, float] = {}
        self.last_score: float | None = None
        self._parts: list[tuple[Batch, Deferred]] = []  # batches since the last step of the optimiser, their numbers
        self._gradients: Deferred | None = None  # whether the gradients of the current step are finite
        self._unread: deque[_Step] = deque()
        self._unwritten: list[dict[str, float]] = []  # lines of steps that were read, but are not in the log yet
        self._batch: Batch | None = None  # the last batch
        self._without_positives: int | None = 0  # number of steps so far; None once a step had a positive pair
        self.half = HALF.get(self.settings.get("precision"))
        if self.settings.get("grad_cache"):
            require_independent_images(self.extractor)
        if self.settings.get("checkpoint_activations"):
            checkpoint_blocks(self.extractor)
        self._compiled = torch.compile(self.extractor.forward) if self.settings.get("compile") else None
        self._ended = time.perf_counter()

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:  # the batches of all ranks form one
            for criterion in self.losses:
                criterion.group = distributed.group.WORLD
            share_batch_norms(self.extractor)

    @property
    def criterion(self) -> RankingLoss:
        """The loss of the current phase."""
        return self.losses[phase_at(self.phases, self.global_step).number - 1]

    def on_train_start(self) -> None:
        self._end_early()  # a training that was killed after its last step does not continue

    def on_train_batch_start(self, batch: Batch, _: int) -> None:
        self._began = time.perf_counter()
        self._batch = batch
        self._begin_step()
        # Random draws of a backbone (dropout, stochastic depth) also depend only on the seed and the batch.
        number = self.global_step * self.trainer.accumulate_grad_batches + len(self._parts)
        torch.manual_seed(np.random.SeedSequence([self.seed, number, self.global_rank]).generate_state(1)[0].item())

    def _begin_step(self) -> None:
        """Apply the settings of the phase of this step: temperature, learning rates, weight decay."""
        phase, optimiser = phase_at(self.phases, self.global_step), self.trainer.optimizers[0]
        if self.global_step == phase.start and not self._parts:
            optimiser.state.clear()  # the moments of Adam belong to the gradients of another loss
        set_rates(optimiser, phase, self.global_step)
        if self.criterion.takes_tau:
            self.criterion.tau = phase.tau(self.global_step)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        maps = self._features(batch)
        grid = batch.use.shape[1:3]
        if maps.shape[2:] != grid:
            raise DataError(
                "the grids of features and patches differ",
                expected=f"{tuple(grid)} patches",
                found=f"{tuple(maps.shape[2:])} features",
                remedy=f"compute the correspondences at the stride of the model, {self.extractor.stride}",
            )
        features = maps.permute(0, 2, 3, 1).flatten(0, 2)[batch.rows]
        if self.half and self.criterion.takes_half:  # features were normalised in float32
            features = features.to(self.half)
        image = batch.rows // grid.numel()
        points = batch.points.flatten(0, 2)[batch.rows]
        loss, log = self.criterion(features, points, batch.scene[image], image_ids=batch.image[image])
        numbers = {"loss": loss, "finite": all_finite([maps]), **getattr(log, "numbers", log)}
        self._parts.append((batch, Deferred(numbers)))
        return loss

    def _features(self, batch: Batch) -> Tensor:
        """Return L2-normalised feature maps (b, dim, h, w) float32 of the images of a batch."""

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
        if self.trainer.precision != "16-mixed":  # in float16, gradients overflow occasionally; such steps are skipped
            gradients = [p.grad for p in self.extractor.parameters() if p.grad is not None]
            self._gradients = Deferred({"finite": all_finite(gradients)})
        clip = phase_at(self.phases, self.global_step).optimiser["clip"]
        self.clip_gradients(optimizer, clip, gradient_clip_algorithm)

    def _diverged(self, what: str, step: int, batch: Batch) -> DataError:
        """Save the batch on which the training diverged, and return the error, which states the path of the batch."""
        suffix = f"-process{self.global_rank}" if self.trainer.world_size > 1 else ""
        path = self.out_dir / f"diverged-step{step}{suffix}.safetensors"
        with atomic_path(path) as temporary:
            save_file({k: v.contiguous() for k, v in batch._asdict().items() if v is not None}, temporary)
        return DataError(
            f"the {what} are not finite at step {step}: the training diverged; the file contains its last batch",
            file=path,
            remedy=LOWER,
        )

    def end_batch(self) -> bool:
        """Record, validate and update the tracked weights if a batch ends a step; return whether it does."""
        if len(self._parts) < self.trainer.accumulate_grad_batches:
            return False
        self.tracked_weights.update_average(self.extractor)
        self._record()
        every = self.settings["validate_every"]
        if self.validation and self.global_step % every == 0:
            self.read_steps()
            self._validate()
        self._write()
        self._ended = time.perf_counter()
        return True

    @property
    def phase(self) -> str:
        """The loss and the phase of the latest step that was read, for the progress bar."""
        phase = self.phases[int(self.entry["phase"]) - 1]
        return f"{phase.loss['name']} (phase {phase.number} of {len(self.phases)})"

    def _record(self) -> None:
        """Record this step, and read the numbers of the earlier steps; on the CPU, also those of this step."""
        seconds = time.perf_counter() - self._ended
        # With several batches per step, only the wait for the last one is measured.
        timing = seconds, (self._began - self._ended) / seconds, peak_memory() / 1e9
        self._unread.append(_Step(self.global_step, self._parts, self._gradients, *timing))
        self._parts, self._gradients = [], None
        if self.read_steps(late=self.extractor.device.type != "cpu"):
            self.log_dict({title: float(self.entry[key]) for key, title in LOGGED.items()})

    def read_steps(self, late: bool = False) -> bool:
        """Read the numbers of the recorded steps; with ``late``, not of the last step, which a GPU is still computing.

        Returns:
            Whether the numbers of any step were read.

        Raises:
            DataError: the features or gradients of a step are not finite, in which case its batch is saved; or no step
                so far has a positive pair.
        """
        read = [self._read(self._unread.popleft()) for _ in range(len(self._unread) - late)]
        if read:
            self._unwritten += read
            self.entry = read[-1]
        return bool(read)

    def _read(self, step: _Step) -> dict[str, float]:
        parts = [numbers.read() for _, numbers in step.batches]
        for (batch, _), part in zip(step.batches, parts):
            if not part["finite"]:
                raise self._diverged("features", step.number - 1, batch)
        if step.gradients and not step.gradients.read()["finite"]:
            raise self._diverged("gradients", step.number - 1, step.batches[-1][0])
        mean = {key: sum(part[key] for part in parts) / len(parts) for key in ("loss", "mean_ap")}
        positives, negatives = (sum(part[key] for part in parts) for key in ("positives", "negatives"))
        self._require_positives(step.number, positives)
        # The parts of all ranks are equal, up to one image.
        images = sum(len(batch.use) for batch, _ in step.batches) * self.trainer.world_size
        taken = step.number - 1  # counted from 0
        phase = phase_at(self.phases, taken)
        return {
            "step": step.number,
            "phase": phase.number,
            "lr": phase.lr(taken),
            "tau": phase.tau(taken),
            **mean,
            "seconds": step.seconds,
            "images_per_second": images / step.seconds,
            "pairs_per_second": (positives + negatives) / step.seconds,
            "data_fraction": step.data_fraction,
            "peak_gb": step.peak_gb,
        }

    def _require_positives(self, number: int, positives: float) -> None:
        """Stop the training if no step up to step ``number`` has a positive pair, because nothing is learnt then.

        Raises:
            DataError: there is no such step among the first :data:`MAX_WITHOUT_POSITIVES` or among all steps.
        """
        if self._without_positives is None or positives:
            self._without_positives = None
            return
        self._without_positives += 1
        if self._without_positives == MAX_WITHOUT_POSITIVES or number == self.phases[-1].end:
            rho = max(scale.rho for scale in self.criterion.scales)
            raise DataError(
                f"none of the first {self._without_positives} training steps has a positive pair, so nothing is learnt",
                expected=f"pairs of patches of different images, at most `rho` = {rho:g} m apart",
                found="no such pair",
                remedy="raise `train.loss.rho`, or draw more patches or images that overlap more (`train.batch`)",
            )

    def _write(self) -> None:
        """Append to the log the steps whose numbers have been read from the device."""
        if self.curve is not None and self.trainer.is_global_zero:
            for entry in self._unwritten:
                self.curve.append(entry)
        self._unwritten.clear()

    def on_train_end(self) -> None:
        self.read_steps()
        self._write()

    def _validate(self) -> None:
        """Evaluate the validation scenes of this rank, and all-reduce the scores.

        Each scene has its score on one rank and 0 on the others, and the scores are summed in the order of the scenes,
        so the mean is the same for every number of ranks, bit for bit.
        """
        with self.tracked_weights.averaged(self.extractor):
            scores = [scene.mean_ap(self.extractor) if scene else 0.0 for scene in self.validation]
            if self.trainer.world_size > 1:
                shared = torch.tensor(scores, dtype=torch.float64, device=self.extractor.device)
                distributed.all_reduce(shared)
                scores = shared.tolist()
            value = sum(scores) / len(scores)
            self.tracked_weights.update_best(self.extractor, value, self.global_step)
        self.entry["val_map"] = self.last_score = value
        self.log("val_map", value, rank_zero_only=True)
        self._end_early()

    def _end_early(self) -> None:
        patience = self.settings.get("early_stop")
        if patience and self.global_step - self.tracked_weights.best_step >= patience * self.settings["validate_every"]:
            self.trainer.should_stop = True

    def finish(self) -> None:
        """Set the final weights of the extractor (the best or averaged ones, if configured), and check its features.

        Raises:
            DataError: the features of the last batch are not finite.
        """
        if self.tracked_weights.best:
            set_weights(self.extractor, self.tracked_weights.best)
        elif self.tracked_weights.average:
            set_weights(self.extractor, self.tracked_weights.average)
        if self._batch is not None:  # None if the training was killed after its last step
            batch = Batch(*(None if part is None else part.to(self.extractor.device) for part in self._batch))
            images = None if batch.images is None else colours(batch.images, batch.jitter)
            with torch.no_grad(), evaluating(self.extractor):
                features = self.extractor(images, batch.encoded)
            if not all_finite([features]):
                raise self._diverged("features", self.global_step, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimiser(self.extractor, self.phases)

    def state_dict(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Return the state without the frozen weights, which are most of its size and are built again on resumption."""
        return without_frozen(self, super().state_dict(*arguments, **options))

    @property
    def strict_loading(self) -> bool:
        return False

    # The tracked weights and the position in the log are part of the state, so a resumed training run has the same
    # result as an uninterrupted one.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.read_steps()
        self._write()
        checkpoint["tracked_weights"], checkpoint["last_score"] = vars(self.tracked_weights), self.last_score
        checkpoint["without_positives"] = self._without_positives
        checkpoint["log"] = self.curve.mark() if self.curve is not None else 0

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        vars(self.tracked_weights).update(checkpoint["tracked_weights"])
        self.last_score, self._without_positives = checkpoint["last_score"], checkpoint["without_positives"]
        if self.curve is not None and self.trainer.is_global_zero:
            self.curve.cut(checkpoint["log"], checkpoint["global_step"])


def peak_memory() -> int:
    """Return the peak memory of this process, bytes: allocated on the GPU if there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
