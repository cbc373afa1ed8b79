"""Scene-stable panoptic segmentation (LoCo, LoCUS): which of all objects of the scene does a patch show?

Things are told apart by instance, and an instance is one class in all images of the scene: it has to be known again
from wherever it is seen. All stuff of a category is one class. (LoCo gives each instance of stuff an output of its own
and takes the largest: walls then get a richer classifier the more pieces they were annotated in.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from loco.datasets.labels import STUFF, panoptic
from loco.evaluation import linear_probe
from loco.evaluation.linear_probe import VOID, Classes
from loco.evaluation.result import EvaluatedScene, Evaluation
from loco.storage import Labels

# Their pixels have no category, so there is nothing that they have in common.
NO_CLASS = [STUFF.index("void"), STUFF.index("unlabeled")]

samples = linear_probe.samples


def evaluate(scenes: Iterable[EvaluatedScene], settings: Mapping[str, Any], seed: int = 0) -> Evaluation:
    """A linear probe for the objects of each scene: :func:`loco.evaluation.linear_probe.evaluate`."""
    return linear_probe.evaluate(scenes, settings, seed, scene_objects)


def scene_objects(labels: Labels) -> Classes:
    """The classes of :func:`loco.datasets.labels.panoptic`; things are named by category and number of the object."""
    objects = labels.facts["objects"]
    things = [f"{o['category']} {k}" for k, o in enumerate(objects) if not o["stuff"] and o["triangles"]]

    def read(i: int) -> np.ndarray:
        classes = panoptic(labels["instance"][i], objects)
        return np.where(np.isin(classes, NO_CLASS), VOID, classes)

    return Classes([*STUFF, *things], [True] * len(STUFF) + [False] * len(things), read)
