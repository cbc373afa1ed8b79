"""Inputs and results of a benchmark."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from loco.evaluation.intervals import FRACTION, Design, Item, Level, Statistic
from loco.storage import Correspondences, Features, Labels
from loco.storage.open_files import LazyFiles


@dataclass(frozen=True)
class EvaluatedScene(LazyFiles):
    """A test scene. Its files are opened on access; access the attribute again for each use (:class:`LazyFiles`).

    Attributes:
        frames_path: images, depth and cameras.
        correspondences_path: patches and overlaps; None for images without a common world frame.
        features_path: feature maps of one extractor; None for a keypoint extractor.
        labels_path: labels; None if the benchmark needs none.
        training_paths: correspondences of the training scenes in the world frame of this scene; empty unless the
            benchmark reports surfaces seen in training (:mod:`loco.evaluation.training_surfaces`).
        keypoints: settings of keypoints that are matched instead of feature maps
            (:mod:`loco.evaluation.sift_keypoints`); None for feature maps.

    Raises:
        DataError: a file is missing or invalid, or the files do not describe the same frames.
    """

    correspondences_path: Path | None
    features_path: Path | None
    labels_path: Path | None = None
    training_paths: tuple[Path, ...] = ()
    keypoints: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.correspondences, self.features, self.labels  # opened once, to validate them  # noqa: B018

    @property
    def features(self) -> Features | None:
        return None if self.features_path is None else self.opened(Features, self.features_path)

    @property
    def correspondences(self) -> Correspondences | None:
        path = self.correspondences_path
        return None if path is None else self.opened(Correspondences, path)

    @property
    def labels(self) -> Labels | None:
        return None if self.labels_path is None else self.opened(Labels, self.labels_path)

    @property
    def ground_truth(self) -> dict[str, Any] | None:
        """The ground truth in the dataset's files (image pairs, places, homographies); None if there is none."""
        return self.frames.facts.get("ground_truth")

    def rng(self, seed: int, *key: int) -> np.random.Generator:
        """Return a generator that depends only on the seed, the scene and ``key``: all extractors get equal draws."""
        return np.random.default_rng([seed, zlib.crc32(self.frames.scene.encode()), *key])


@dataclass(frozen=True)
class Row:
    """One number of a table.

    Attributes:
        metric: name of the metric.
        condition: condition of the measurement.
        value: the number; None if it is undefined or not finite.
        low: lower bound of its confidence interval; None if there is none.
        high: upper bound.
        n: number of items (query images, image pairs) behind value and interval.
        unit: ``%`` for a fraction between 0 and 1, which tables print in percent and of which more is better; of any
            other unit (``m``, ``deg``), lower is better.
        population: population that the interval concerns: new ``items``, ``images`` or ``scenes``
            (:attr:`loco.evaluation.intervals.Design.level`); None if there is no interval.
        scenes: number of scenes that the items belong to.
    """

    metric: str
    condition: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: str = "%"
    population: Level | None = None
    scenes: int = 0


@dataclass(frozen=True)
class Sample:
    """The scores that one number of a table summarises by their mean or median.

    Attributes:
        metric: name of the metric.
        condition: condition of the measurement.
        keys: item of each score, with its scene and images; equal for all extractors that are evaluated on the same
            item.
        values: the scores; infinite scores are allowed for medians.
        weights: weight of each score; None for equal weights. Only for means.
        statistic: ``mean`` or ``median``.
        unit: as in :class:`Row`.
    """

    metric: str
    condition: str
    keys: Sequence[Item]
    values: Sequence[float]
    weights: Sequence[float] | None = None
    statistic: Statistic = "mean"
    unit: str = "%"

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the least and largest possible score: fractions are at most 1, errors are not negative."""
        return FRACTION if self.unit == "%" else (0.0, inf)

    @property
    def value(self) -> float | None:
        """Return the statistic; None without items."""
        return Design(self.keys, self.weights).value(np.array([self.values], dtype=np.float64), self.statistic)

    def row(self) -> Row:
        """Return the statistic and its confidence interval, for the widest population that the items support."""
        design = Design(self.keys, self.weights)
        interval = design.interval(self.values, None, self.statistic, self.bounds)
        numbers = (self.value, *(interval[:2] if interval else (None, None)))
        value, low, high = (number if number is not None and isfinite(number) else None for number in numbers)
        population = design.level if interval else None
        return Row(self.metric, self.condition, value, low, high, len(self.keys), self.unit, population, design.scenes)


@dataclass(frozen=True)
class Evaluation:
    """The rows of one benchmark run, and the items that they summarise.

    Attributes:
        rows: the numbers.
        items: column name -> one JSON-serialisable value per item, None if an item has no value.
    """

    rows: list[Row]
    items: dict[str, list[Any]]


def append(items: Mapping[str, list[Any]], entries: Iterable[Any]) -> None:
    """Append an item to a table: one entry to each column, in order."""
    for column, entry in zip(items.values(), entries, strict=True):
        column.append(entry)
