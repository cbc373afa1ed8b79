"""What goes into a benchmark and what comes out of it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loco.evaluation.bootstrap import mean_interval
from loco.storage import Correspondences, Features, Frames


@dataclass(frozen=True)
class EvaluatedScene:
    """One test scene: its open files, which must describe the same frames.

    Raises:
        DataError: they do not.
    """

    frames: Frames
    correspondences: Correspondences
    features: Features

    def __post_init__(self) -> None:
        self.correspondences.require_frames(self.frames)
        self.features.require_frames(self.frames)

    def rng(self, seed: int, *key: int) -> np.random.Generator:
        """Random draws that depend on the seed, the scene and ``key`` alone: every extractor is asked the same."""
        return np.random.default_rng([seed, zlib.crc32(self.frames.scene.encode()), *key])


@dataclass(frozen=True)
class Row:
    """One number of a table.

    Attributes:
        metric: its name.
        condition: under what it was measured.
        value: the mean; None where nothing could be measured.
        low: lower end of its confidence interval; None where there is none.
        high: upper end.
        n: how many items (query images, image pairs) value and interval rest on.
    """

    metric: str
    condition: str
    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Sample:
    """The scores that one number of a table is the mean of.

    Attributes:
        metric: its name.
        condition: under what they were measured.
        keys: which item each score is of: the same for every extractor that is asked the same.
        values: the scores.
        weights: of each; None for equal ones.
    """

    metric: str
    condition: str
    keys: Sequence[tuple]
    values: Sequence[float]
    weights: Sequence[float] | None = None

    def row(self, resamples: int, seed: int) -> Row:
        """Mean and bootstrap interval."""
        interval = mean_interval(self.values, self.weights, resamples=resamples, seed=seed)
        return Row(self.metric, self.condition, *interval, n=len(self.values))


@dataclass(frozen=True)
class Evaluation:
    """The rows of one benchmark run, and the items that they summarise.

    Attributes:
        rows: the numbers.
        items: a table, column by column; JSON-able, None where an item has no value.
    """

    rows: list[Row]
    items: dict[str, list[Any]]
