"""What goes into a benchmark and what comes out of it."""

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
    """One test scene. Its files are opened on access; get a file anew for each use (:class:`LazyFiles`).

    Attributes:
        frames_path: images, depth and cameras.
        correspondences_path: patches and overlaps; None for images that share no world frame.
        features_path: feature maps of one extractor; None for one of keypoints.
        labels_path: None where a benchmark needs no labels.
        training_paths: correspondences of the training scenes in the world frame of this scene; empty unless a
            benchmark reports by what training images show (:mod:`loco.evaluation.training_surfaces`).
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
        self.correspondences, self.features, self.labels  # opened once, to check them  # noqa: B018

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
        """What the dataset's own files say (image pairs, places, homographies); None where they say nothing."""
        return self.frames.facts.get("ground_truth")

    def rng(self, seed: int, *key: int) -> np.random.Generator:
        """Random draws that depend on the seed, the scene and ``key`` alone: every extractor is asked the same."""
        return np.random.default_rng([seed, zlib.crc32(self.frames.scene.encode()), *key])


@dataclass(frozen=True)
class Row:
    """One number of a table.

    Attributes:
        metric: its name.
        condition: under what it was measured.
        value: the number; None where nothing could be measured, or where it is not finite.
        low: lower end of its confidence interval; None where there is none.
        high: upper end.
        n: how many items (query images, image pairs) value and interval rest on.
        unit: ``%`` for a share between 0 and 1, which tables print in percent, and of which more is better; of any
            other unit (``m``, ``deg``) less is.
        population: what the interval concerns, new ``items``, ``images`` or ``scenes``
            (:class:`loco.evaluation.intervals.Design`); None where there is no interval.
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
    """The scores that one number of a table is the mean, or the median, of.

    Attributes:
        metric: its name.
        condition: under what they were measured.
        keys: the item of each score, which names the scene and the images that it is drawn with: the same for every
            extractor that is asked the same.
        values: the scores; a median may be of infinite ones.
        weights: of each; None for equal ones. Only for means.
        statistic: ``mean`` or ``median``.
        unit: as of :class:`Row`.
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
        """Least and largest possible score: fractions are at most 1, errors are not negative."""
        return FRACTION if self.unit == "%" else (0.0, inf)

    @property
    def value(self) -> float | None:
        """The statistic; None without items."""
        return Design(self.keys, self.weights).value(np.array([self.values], dtype=np.float64), self.statistic)

    def row(self) -> Row:
        """The statistic and its confidence interval, for the widest population that the items support."""
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
        items: a table, column by column; JSON-able, None where an item has no value.
    """

    rows: list[Row]
    items: dict[str, list[Any]]


def append(items: Mapping[str, list[Any]], entries: Iterable[Any]) -> None:
    """Append an item to the columns of a table, in their order, one entry to each."""
    for column, entry in zip(items.values(), entries, strict=True):
        column.append(entry)
