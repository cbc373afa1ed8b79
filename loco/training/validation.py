"""Location-consistency mAP of a network during training, on a validation scene."""

from __future__ import annotations

import numpy as np
import torch

from loco.errors import DataError
from loco.evaluation.location_consistency import query_precisions
from loco.models.extractor import Extractor, evaluating, to_colours
from loco.training.scene_files import SceneFiles

# For speed, fewer images and queries than in the benchmark, and the same at every validation.
IMAGES, QUERIES = 48, 200
LOWER = "lower the learning rate (`optimiser.lr`) or the maximum gradient norm (`optimiser.clip`)"
SETTINGS = {"radii": [2.0], "weights": ["uniform"], "queries_per_scene": QUERIES, "samples_per_query": 1000}


class ValidationScene:
    """A fixed part of a scene in memory: its images, or their stored encodings."""

    def __init__(self, scene: SceneFiles, precision: torch.dtype = torch.float32) -> None:
        """
        Args:
            scene: files of the scene.
            precision: dtype in which the network runs, as in the training; autocast is used if it is not float32.
        """
        self.precision = precision
        self.path, self.scene = scene.frames_path, scene.frames.scene
        count = len(scene.frames)
        chosen = np.unique(np.linspace(0, count - 1, min(IMAGES, count)).round().astype(int))
        self.rgb = scene.frames["rgb"][chosen]
        self.encoded = scene.encoded["encoded"][chosen] if scene.encoded else None
        self.valid = torch.from_numpy(scene.correspondences["valid"][chosen])
        self.points = scene.correspondences["points"][chosen][self.valid.numpy()]
        self.image = np.nonzero(self.valid.numpy())[0]

    def mean_ap(self, extractor: Extractor, batch: int = 16) -> float:
        """Return the location-consistency mAP of the scene within 2 m, with uniform samples.

        Args:
            extractor: the network.
            batch: number of images that pass through the network together.

        Raises:
            DataError: the features are not finite, or no patch has another within 2 m.
        """
        parts = [slice(start, start + batch) for start in range(0, len(self.rgb), batch)]
        maps = torch.cat([self._features(extractor, part) for part in parts])
        features = maps.permute(0, 2, 3, 1)[self.valid].cpu()
        if not torch.isfinite(features).all():
            raise self._unfit("the features of a validation scene are not finite: the training diverged", LOWER)
        _, found = query_precisions(features, self.points, self.image, SETTINGS, np.random.default_rng(0))
        (scores,) = found.values()
        if np.isnan(scores).all():
            raise self._unfit(
                "a validation scene has no two patches within 2 m of each other",
                "remove the scene from `val` of the split",
            )
        return float(np.nanmean(scores))

    def _unfit(self, problem: str, remedy: str) -> DataError:
        return DataError(problem, file=self.path, scene=self.scene, remedy=remedy)

    @torch.inference_mode()
    def _features(self, extractor: Extractor, part: slice) -> torch.Tensor:
        device, encoded = extractor.device, None
        if self.encoded is not None:
            encoded = torch.from_numpy(self.encoded[part]).to(device)
        images = to_colours(self.rgb[part], device) if encoded is None or extractor.needs_images else None
        half = self.precision != torch.float32
        with evaluating(extractor), torch.autocast(device.type, self.precision if half else None, enabled=half):
            return extractor(images, encoded)
