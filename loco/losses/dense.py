"""The ranking loss written out: every positive pair against every pair. The reference value for the other two."""

from __future__ import annotations

import torch
from torch import Tensor

from loco.losses.pairs import Patches, RankingLoss, nothing_to_rank


class DenseSmoothAP(RankingLoss):
    """Smooth AP over all pairs in memory O(|P| (|P| + |N|)): for small batches, and for tests.

    With ``own_term`` a pair also competes with itself, which adds sigma(0) = 0.5 to R_P, as in the LoCUS release.
    """

    def __init__(self, rho: float, kappa: float, tau: float, own_term: bool = False) -> None:
        super().__init__(rho, kappa, tau)
        self.own_term = own_term

    def loss(self, patches: Patches) -> tuple[Tensor, dict[str, float]]:
        n = len(patches.features)
        i, j = torch.triu_indices(n, n, 1, device=patches.features.device)
        distance = (patches.points[i] - patches.points[j]).norm(dim=1)
        together = patches.scene_ids[i] == patches.scene_ids[j]
        across = patches.image_ids[i] != patches.image_ids[j]
        positive = together & across & (distance <= self.rho)
        negative = together & (distance > self.rho) & (distance <= self.kappa)
        if not positive.any():
            return nothing_to_rank(patches.features, int(negative.sum()))
        similarity = (patches.features[i] * patches.features[j]).sum(dim=1)
        s_p, s_n = similarity[positive], similarity[negative]
        r_p = torch.sigmoid((s_p[None] - s_p[:, None]) / self.tau).sum(dim=1) - (0.0 if self.own_term else 0.5)
        r_n = torch.sigmoid((s_n[None] - s_p[:, None]) / self.tau).sum(dim=1)
        mean_ap = ((1 + r_p) / (1 + r_p + r_n)).mean()
        return 1 - mean_ap, {"positives": len(s_p), "negatives": len(s_n), "mean_ap": mean_ap.item()}
