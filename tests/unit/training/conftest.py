"""An experiment that trains in seconds."""

import pytest


@pytest.fixture
def experiment():
    return {
        "model": {"name": "compact_cnn", "dim": 16, "widths": [8, 16, 16, 16], "blocks": 1},
        "train": {
            "loss": {"name": "exact", "rho": 0.05, "kappa": 1.0, "tau": 0.05},
            "steps": 6,
            "batch": {
                "scenes": 2,
                "images_per_scene": 3,
                "min_overlap": 0.3,
                "min_baseline": 0.0,
                "patches_per_image": 40,
            },
            "optimiser": {"lr": 2e-3, "weight_decay": 0.01, "warmup_steps": 1, "clip": 1.0},
            "augment": {"brightness": 0.2, "contrast": 0.2, "colour": 0.1},
            "validate_every": 3,
            "save_every": 2,
        },
    }
