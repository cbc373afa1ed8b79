"""The triplet loss with in-batch hard negatives, over the pairs of a ranking loss."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from loco.losses.query_loss import QueryLoss, mask_scores, mean_of_rows

Mining: TypeAlias = Literal["hardest", "semi_hard"]


class TripletLoss(QueryLoss):
    """Triplet loss on cosine similarities, a baseline.

    The loss of query i with positives P_i and negatives N_i is the mean over its positives j of

        max(0, margin + s_ik - s_ij),

    where k is a negative of the query. With ``mining="hardest"``, it is the negative with the largest similarity
    (HardNet, Mishchuk et al., NeurIPS 2017, there on distances and with one positive). With ``mining="semi_hard"``, it
    is the negative with the largest similarity below s_ij (FaceNet, Schroff et al., CVPR 2015, sec. 3.2); a positive
    that ranks below all negatives has no such negative, and its loss is 0. A query without negatives has a loss of 0.
    """

    takes_tau = False

    def __init__(
        self,
        rho: float,
        kappa: float | None,
        margin: float = 0.5,
        mining: Mining = "hardest",
        **options: Any,
    ) -> None:
        """
        Args:
            rho, kappa, options: as in :class:`loco.losses.query_loss.QueryLoss`.
            margin: margin by which the similarity of a positive should exceed that of the negative, in (0, 2].
            mining: selection of the negative, ``hardest`` or ``semi_hard``.

        Raises:
            ValueError: as in the base class; a margin out of its range, or an unknown mining.
        """
        super().__init__(rho, kappa, None, **options)
        if not 0 < margin <= 2:
            raise ValueError(f"the margin must lie in (0, 2], found {margin}")
        if mining not in get_args(Mining):
            raise ValueError(f"the mining must be one of {', '.join(get_args(Mining))}, found {mining!r}")
        self.margin, self.mining = margin, mining

    def of_rows(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        row, column = positive.nonzero(as_tuple=True)
        positive_scores = scores[row, column]
        if self.mining == "hardest":
            negative_scores = mask_scores(scores, negative).amax(dim=1)[row]
        else:
            ranked = scores.masked_fill(~negative, -math.inf).sort(dim=1).values
            # At least 0: the query itself is no negative, so each row of `ranked` begins with -inf.
            below = torch.searchsorted(ranked.detach(), scores.detach()) - 1
            negative_scores = ranked[row, below[row, column]]
        return mean_of_rows((self.margin + negative_scores - positive_scores).relu(), row, len(scores))

    def extra_repr(self) -> str:
        return f"rho={self.rho}, kappa={self.kappa}, margin={self.margin}, mining={self.mining}"
