"""Scene-stable panoptic segmentation (LoCo, LoCUS): predict which object of the scene a patch shows.

Each instance of a thing category is one class in all images of the scene, so it must be recognised from every
viewpoint. All stuff of a category is one class. (LoCo gives each stuff instance its own output and takes the largest,
so the classifier of walls has more parameters the more pieces they were annotated in.)
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

# Pixels of these categories are unlabelled and have nothing in common.
NO_CLASS = [STUFF.index("void"), STUFF.index("unlabeled")]

samples = linear_probe.samples


def evaluate(scenes: Iterable[EvaluatedScene], settings: Mapping[str, Any], seed: int = 0) -> Evaluation:
    """Evaluate a linear probe for the objects of each scene; see :func:`loco.evaluation.linear_probe.evaluate`."""
    return linear_probe.evaluate(scenes, settings, seed, scene_objects)


def scene_objects(labels: Labels) -> Classes:
    """Return the classes of :func:`loco.datasets.labels.panoptic`; things are named by category and object number."""
    objects = labels.facts["objects"]
    things = [f"{o['category']} {k}" for k, o in enumerate(objects) if not o["stuff"] and o["triangles"]]

    def read(i: int) -> np.ndarray:
        classes = panoptic(labels["instance"][i], objects)
        return np.where(np.isin(classes, NO_CLASS), VOID, classes)

    return Classes([*STUFF, *things], [True] * len(STUFF) + [False] * len(things), read)
