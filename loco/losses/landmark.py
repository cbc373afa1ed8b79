"""The training loss of LoCUS (ICCV 2023), whose queries are a few patches, the landmarks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from loco.losses.dense import DenseSmoothAP
from loco.losses.distributed import Group
from loco.losses.pairs import nothing_to_rank
from loco.losses.patches import Patches
from loco.losses.stochastic import StochasticLoss


class LandmarkSmoothAP(StochasticLoss, DenseSmoothAP):
    """Smooth AP over all pairs of a landmark and a patch, in one ranking.

    As in the release of LoCUS (github.com/dakloepfer/locus), landmarks are drawn from the first image of each scene,
    and those that no other image shows are dropped. An image shows a landmark if it has a patch within ``rho`` of it. A
    fraction of the patches is drawn, and all positives of any landmark are added. Positives within the image of the
    landmark count, except for the landmark itself. (The release also drops positives that are landmarks themselves,
    which is an error.)

    The time is proportional to the number of positive pairs times that of all pairs, the memory to the number of pairs.
    """

    takes_several_scales = False

    def __init__(
        self,
        rho: float,
        kappa: float | None,
        tau: float,
        landmarks: int = 64,
        patches: float = 0.1,
        self_term: bool = True,
        seed: int = 0,
        ratio: float = 1.0,
        group: Group = None,
        normalise: bool = True,
    ) -> None:
        """
        Args:
            rho, kappa, tau, self_term, ratio, group, normalise: as in :class:`loco.losses.dense.DenseSmoothAP`.
            landmarks: maximum number of patches drawn as landmarks, over all scenes of the batch.
            patches: fraction of the patches with which landmarks are compared, in addition to their positives.
            seed: seed of the draws.

        Raises:
            ValueError: as :class:`loco.losses.pairs.RankingLoss`, or an option out of its range.
        """
        super().__init__(rho, kappa, tau, self_term, 1.0, ratio, group, normalise, seed=seed)
        if landmarks < 1 or not 0 < patches <= 1:
            raise ValueError(
                f"landmarks must be at least 1 and patches in (0, 1], found landmarks={landmarks} and patches={patches}"
            )
        self.landmarks, self.patches = landmarks, patches

    def loss(self, patches: Patches) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([self.seed, self.call_number(patches)])
        rows, positive, negative = self.draw(patches, rng)
        count = int(negative.sum())
        if not positive.any():
            return nothing_to_rank(patches.features, count)
        similarity = patches.features[rows] @ patches.features.T
        s_p, s_n = similarity[positive], similarity[negative]
        mean_ap = self.smooth_ap(s_p, s_n, torch.ones_like(s_p)).mean()
        return 1 - mean_ap, {"positives": len(s_p), "negatives": count, "mean_ap": mean_ap.item()}

    def draw(self, patches: Patches, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw landmarks and patches.

        Returns:
            The rows of the landmarks, (l,) int64, and the masks of their positive and of their negative pairs with all
            patches, (l, n) bool each.
        """
        candidates = torch.nonzero(_of_first_images(patches))[:, 0]
        order = torch.from_numpy(rng.permutation(len(candidates))[: self.landmarks]).to(candidates.device)
        rows = candidates[order]
        distance = (patches.points[rows, None] - patches.points).norm(dim=2)
        pair = patches.scene_ids[rows, None] == patches.scene_ids
        pair[torch.arange(len(rows), device=rows.device), rows] = False
        positive = pair & (distance <= self.rho)
        elsewhere = patches.image_ids[rows, None] != patches.image_ids
        shown = (positive & elsewhere).any(dim=1)
        rows, pair, positive, distance = rows[shown], pair[shown], positive[shown], distance[shown]
        drawn = torch.from_numpy(rng.random(len(patches.points)) < self.patches).to(rows.device)
        pair &= drawn | positive.any(dim=0)
        return rows, positive, pair & (distance > self.rho) & (distance <= self.kappa)


def _of_first_images(patches: Patches) -> Tensor:
    """Return the mask (n,) of the patches that belong to the first image, the one with the lowest id, of a scene."""
    _, scene = torch.unique(patches.scene_ids, return_inverse=True)
    first = patches.image_ids.new_full((int(scene.max()) + 1 if len(scene) else 0,), torch.iinfo(torch.int64).max)
    first.scatter_reduce_(0, scene, patches.image_ids, "amin")
    return patches.image_ids == first[scene]
