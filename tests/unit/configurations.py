"""Configurations for tests: the demo as it is, and the demo trained in two phases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from loco.config_layers import read_files, with_defaults

ROOT = Path(__file__).parents[2]
TWO_PHASES = """
phases:
  - loss: { name: sup_con, rho: 0.1, kappa: 5.0, tau: 0.07, queries: 1024 }
    steps: 500
  - steps: 200
    optimiser: { lr: 1.0e-3 }
loss: { name: exact, rho: 0.2, kappa: 5.0, tau: 0.05 }
batch: { scenes: 2, images_per_scene: 8, min_overlap: 0.2, min_baseline: 0.1, patches_per_image: 320 }
optimiser: { lr: 3.0e-3, weight_decay: 0.05, warmup_steps: 20, clip: 1.0 }
augment: { brightness: 0.3, contrast: 0.3, colour: 0.1 }
validate_every: 100
save_every: 50
"""
SAMPLED = """
loss: { name: sampled, rho: 0.2, kappa: 5.0, tau: 0.05, anchors: 32, max_positives: 800, max_negatives: 3000 }
"""


def demo() -> dict[str, Any]:
    """Return the demo with the defaults; no two keys share an object, as YAML's aliases would."""
    return json.loads(json.dumps(with_defaults(read_files([], ROOT), ROOT)))


def two_phase_demo() -> dict[str, Any]:
    """Return the demo whose `exact` and `sampled` are trained in two phases, the first with a contrastive loss.

    Tests that use it do not depend on the loss or the schedule of the demo.
    """
    config = demo()
    training = yaml.safe_load(TWO_PHASES)
    config["experiments"]["exact"]["train"] = training
    config["experiments"]["sampled"]["train"] = training | yaml.safe_load(SAMPLED)
    return json.loads(json.dumps(config))  # copied, so that no two keys share an object
