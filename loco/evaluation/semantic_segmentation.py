"""Semantic segmentation: a linear probe per scene predicts the category (MPCAT40) of a patch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from loco.datasets.labels import MPCAT40, STUFF
from loco.evaluation import linear_probe
from loco.evaluation.linear_probe import VOID, Classes
from loco.evaluation.result import EvaluatedScene, Evaluation
from loco.storage import Labels

# Pixels of these categories are unlabelled and have nothing in common.
NO_CLASS = [MPCAT40.index("void"), MPCAT40.index("unlabeled")]

samples = linear_probe.samples


def evaluate(scenes: Iterable[EvaluatedScene], settings: Mapping[str, Any], seed: int = 0) -> Evaluation:
    """Evaluate a linear probe for the categories of each scene; see :func:`loco.evaluation.linear_probe.evaluate`."""
    return linear_probe.evaluate(scenes, settings, seed, categories)


def categories(labels: Labels) -> Classes:
    """Return the classes of :data:`loco.datasets.labels.MPCAT40`."""

    def read(i: int) -> np.ndarray:
        semantic = labels["semantic"][i].astype(np.int64)
        return np.where(np.isin(semantic, NO_CLASS), VOID, semantic)

    return Classes(MPCAT40, [category in STUFF for category in MPCAT40], read)
