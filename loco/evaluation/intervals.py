"""Confidence intervals of means and medians of clustered items, and the populations that they concern.

Items are not independent: image pairs share images, images share scenes, and all seeds of an experiment are evaluated
on the same items. The variance of a score is therefore estimated over the units that would be sampled again, which are
of one of three kinds (:data:`LEVELS`), and over the seeds.

The standard error is that of a hierarchical cluster bootstrap in closed form: instead of resampling the units of a
level many times with replacement, each is left out once (delete-one-cluster jackknife). Unlike resampling, it is
unbiased for few clusters (MacKinnon, Nielsen and Webb 2023, J. Econometrics) and for pairs that share images, and needs
no random draws. Quantiles are those of Student's t distribution. ``docs/benchmarks.md`` compares the coverage measured
by ``python -m benchmarks.coverage`` with that of percentile bootstraps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import ceil, floor
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.special import expit, logit, stdtr, stdtrit

Level = Literal["items", "images", "scenes"]
Statistic = Literal["mean", "median"]
LEVELS: tuple[Level, ...] = ("items", "images", "scenes")  # from the narrowest population to the widest
FEWEST_SCENES = 6  # from this number of scenes on, an interval concerns new scenes by default
UNBOUNDED = (-np.inf, np.inf)
FRACTION = (0.0, 1.0)
ROUNDING = 1e-12  # relative size of rounding errors in a difference that is exactly 0


class Item(NamedTuple):
    """The item that a score belongs to. Equal for all extractors that are evaluated on the same item.

    Attributes:
        scene: the scene.
        images: the one or two images that are sampled together with the item; empty if it does not belong to particular
            images.
        part: further identification of the item (a patch, a class).
    """

    scene: str
    images: tuple[str, ...] = ()
    part: tuple = ()


class Interval(NamedTuple):
    """A 95 % confidence interval.

    Attributes:
        low: lower bound.
        high: upper bound.
        p: two-sided p-value of the hypothesis that the mean (median) of the population is 0.
    """

    low: float
    high: float
    p: float


class Clusters:
    """The clusters of a level, each of which is left out in turn.

    Clusters are sampled within strata (scenes) whose weights are fixed. If a stratum would be empty without one of its
    clusters (a scene of a single image), clusters are sampled from all strata together, which gives wider intervals.
    """

    def __init__(self, units: Sequence[Sequence[tuple]], strata: Sequence[str] | None, weights: NDArray) -> None:
        """
        Args:
            units: for each item, the units that it belongs to: one unit, or the two images of a pair.
            strata: stratum of each item; None for a single stratum.
            weights: (m,), weights of the items, positive.
        """
        number = {unit: n for n, unit in enumerate(dict.fromkeys(unit for several in units for unit in several))}
        item = np.repeat(np.arange(len(units)), [len(several) for several in units])
        unit = np.array([number[one] for several in units for one in several], dtype=np.intp)
        self._member = csr_array((np.ones(len(unit)), (item, unit)), (len(units), len(number)))
        self._weights, self.count = weights, len(number)
        _, of_item = np.unique(strata or [""] * len(units), return_inverse=True)
        self._stratify(of_item, of_item[item[np.unique(unit, return_index=True)[1]]])
        if not self.exist and strata:
            self._stratify(np.zeros_like(of_item), np.zeros(self.count, dtype=np.intp))

    def _stratify(self, of_item: NDArray[np.intp], of_cluster: NDArray[np.intp]) -> None:
        strata = int(of_item.max()) + 1
        self._of_cluster = of_cluster
        self._in_stratum = csr_array(
            (np.ones(len(of_item)), (np.arange(len(of_item)), of_item)), (len(of_item), strata)
        )
        self._whole = self._weights @ self._in_stratum
        self._without = self._whole[of_cluster] - self._weights @ self._member
        count = np.bincount(of_cluster, minlength=strata)[of_cluster]
        self._scale = (self._whole / self._weights.sum())[of_cluster] * np.sqrt((count - 1) / count)
        self.freedom = self.count - strata

    @property
    def exist(self) -> bool:
        """Whether no stratum becomes empty if any single unit is left out."""
        return self.freedom > 0 and bool((self._without > ROUNDING * self._whole[self._of_cluster]).all())

    def influences(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the change of the weighted mean when each unit is left out.

        Args:
            values: (s, m), scores of m items for s seeds.

        Returns:
            (s, n) for n units, scaled such that the sum of squares is the jackknife variance of the mean.
        """
        values = values * self._weights
        total = values @ self._in_stratum
        without = (total[:, self._of_cluster] - values @ self._member) / self._without
        return (without - (total / self._whole)[:, self._of_cluster]) * self._scale


class Design:
    """The items that scores are computed from, their clusters and weights.

    Attributes:
        scenes: number of scenes.
        level: the widest level that the items support: ``scenes`` for :data:`FEWEST_SCENES` or more
            scenes, or if each scene is one item; otherwise ``images`` if the items name their images and there are
            enough of them; otherwise ``items``.
    """

    def __init__(self, items: Sequence[Item], weights: ArrayLike | None = None) -> None:
        self._items = items
        self._weights = np.ones(len(items)) if weights is None else np.asarray(weights, dtype=np.float64)
        self.scenes = len({item.scene for item in items})

    @cached_property
    def level(self) -> Level:
        if self.scenes >= FEWEST_SCENES or (self.scenes > 1 and self.scenes == len(self._items)):
            return "scenes"
        return "images" if "images" in self._clusters else "items"

    @cached_property
    def _clusters(self) -> dict[Level, Clusters]:
        """Clusters of each level, except levels that the items do not state or that have too few units."""
        if len(self._items) < 2:
            return {}
        scenes = [item.scene for item in self._items]
        units: dict[Level, Clusters] = {
            "items": Clusters([[(n,)] for n in range(len(scenes))], scenes, self._weights),
            "scenes": Clusters([[(scene,)] for scene in scenes], None, self._weights),
        }
        if all(item.images for item in self._items):
            images = [[(item.scene, image) for image in dict.fromkeys(item.images)] for item in self._items]
            units["images"] = Clusters(images, scenes, self._weights)
        return {level: found for level, found in units.items() if found.exist}

    def variance(self, values: NDArray[np.float64], level: Level) -> tuple[float, float] | None:
        """Return the variance of the mean of values (s, m) over units of a level and seeds, and its degrees of freedom.

        If images are left out, a pair is left out with either of its images, so the noise of the pair is counted twice.
        The variance over items is therefore subtracted (two-way clustering, Cameron, Gelbach and Miller 2011; for
        pairs, Fafchamps and Gubert 2007). Clusters and seeds are crossed. With the variances V_u over units, V_s over
        seeds and V_us of their interaction, V_s includes V_us, as V_u does, so that the sum is V_u + max(V_s - V_us, 0)
        (analysis of variance). The degrees of freedom are Satterthwaite's.

        Returns:
            None if the level has too few units.
        """
        units = self._clusters.get(level)
        if units is None:
            return None
        pairs = level == "images" and any(len(item.images) > 1 for item in self._items)
        seeds, freedom = len(values), units.freedom
        influences = [units.influences(values), *([self._clusters["items"].influences(values)] if pairs else [])]
        over_units = _without_items([np.sum(part.mean(axis=0) ** 2) for part in influences])
        if seeds < 2:
            return over_units, freedom
        over_seeds = np.average(values, axis=1, weights=self._weights).var(ddof=1) / seeds
        both = _without_items([part.var(axis=0, ddof=1).sum() / seeds for part in influences])
        if over_seeds <= both:
            return over_units, freedom
        total = over_units + over_seeds - both
        parts = ((over_units, freedom), (over_seeds, seeds - 1), (both, freedom * (seeds - 1)))
        return total, total**2 / sum(part**2 / own for part, own in parts)

    def value(self, values: NDArray[np.float64], statistic: Statistic = "mean") -> float | None:
        """Return the statistic of values (s, m), pooled over the seeds; None without items. Values may be infinite."""
        if values.size == 0:
            return None
        if statistic == "median":
            return _median(np.sort(values, axis=None))
        return float(values.mean(axis=0) @ self._weights / self._weights.sum())

    def interval(
        self,
        values: ArrayLike,
        level: Level | None = None,
        statistic: Statistic = "mean",
        bounds: tuple[float, float] = UNBOUNDED,
        confidence: float = 0.95,
    ) -> Interval | None:
        """Return the confidence interval of a mean or median over new units of a level (and new seeds, if several).

        The interval of a median is that of Woodruff (1952): the quantiles at the bounds of the interval of the
        fraction of items below it. It is therefore valid for infinite values and for any scale of the errors. The
        interval of a mean of fractions is symmetric in the log-odds: near 0 and 1 scores are skewed, and the interval
        stays within [0, 1].

        Args:
            values: scores of the m items, (m,), or (s, m) for s seeds.
            level: level of the units; None for :attr:`level`.
            statistic: statistic of the values of all seeds together.
            bounds: least and largest possible value, :data:`FRACTION` for fractions. The interval is clipped to them,
                which cannot exclude the true value.
            confidence: confidence level.

        Returns:
            None if there are too few units, no values, or NaN among the values.
        """
        values = np.atleast_2d(np.asarray(values, dtype=np.float64))
        if values.size == 0 or np.isnan(values).any():
            return None
        estimate = self.value(values, statistic)
        if statistic == "median":
            centre, tested = 0.5, 0.5 - _below(values, 0.0).mean()
            found = self.variance(_below(values, estimate) - centre, level or self.level)
        else:
            centre = tested = estimate
            found = self.variance(values - centre, level or self.level)
        if found is None:
            return None
        error, freedom = float(np.sqrt(found[0])), found[1]
        margin = stdtrit(freedom, (1 + confidence) / 2) * error
        ends = centre - margin, centre + margin
        if statistic == "median":
            low, high = _quantiles(values, *ends)
        elif bounds == FRACTION and 0 < estimate < 1:
            low, high = expit(logit(estimate) + np.array([-margin, margin]) / (estimate * (1 - estimate)))
        else:
            low, high = ends
        low, high = (float(np.clip(end, *bounds)) for end in (low, high))
        return Interval(low, high, _p_value(tested, error, freedom))


def _without_items(variances: Sequence[float]) -> float:
    """Return the variance over images minus the variance over items, but at least the latter; or the only variance."""
    return float(max(variances[0] - variances[-1], variances[-1]) if len(variances) > 1 else variances[0])


def _below(values: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Return 1 for values below the threshold, 1/2 for equal ones, 0 for others."""
    return 0.5 * (values < threshold) + 0.5 * (values <= threshold)


def _median(ordered: NDArray[np.float64]) -> float:
    """Return the median of sorted values: the middle value, or the mean of the two middle values."""
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def _quantiles(values: NDArray[np.float64], low: float, high: float) -> tuple[float, float]:
    """Return the quantiles ``low`` and ``high`` of the values; infinite beyond the extreme values."""
    ordered = np.sort(values, axis=None)
    return (
        ordered[ceil(low * len(ordered)) - 1] if low > 0 else -np.inf,
        ordered[floor(high * len(ordered))] if high < 1 else np.inf,
    )


def _p_value(tested: float, error: float, freedom: float) -> float:
    if abs(tested) < ROUNDING:
        return 1.0
    return float(2 * stdtr(freedom, -abs(tested) / error)) if error > ROUNDING else 0.0
