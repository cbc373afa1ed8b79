"""Contrastive losses over the pairs of a ranking loss: InfoNCE, and the supervised contrastive loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import logsigmoid

from loco.losses.query_loss import QueryLoss, mask_scores, mean_of_rows


class _ContrastiveLoss(QueryLoss):
    """Base class of both losses, which differ in the pairs with which a positive is compared.

    Their gradient is largest where the ranking is worst; there, the gradient of an average precision vanishes. They are
    therefore suited to the first steps of untrained networks.
    """

    def __init__(
        self, rho: float, kappa: float | None, tau: float, *options: Any, beta: float = 0.0, **named_options: Any
    ) -> None:
        """
        Args:
            rho, kappa, options, named_options: as in :class:`loco.losses.query_loss.QueryLoss`.
            tau: temperature of the softmax.
            beta: concentration on hard negatives, 0 for uniform weights.

        Raises:
            ValueError: as in the base class, or beta < 0.
        """
        super().__init__(rho, kappa, tau, *options, **named_options)
        if beta < 0:
            raise ValueError(f"the concentration beta must not be negative, found {beta}")
        self.beta = beta

    def log_negatives(self, scores: Tensor, negative: Tensor) -> Tensor:
        """Return the logarithm of |N_i| sum over N_i of q_k e_k (:class:`InfoNCE`) for each query, (q,).

        Args:
            scores: similarities divided by tau, (q, m).
            negative: mask of the negative pairs, (q, m) bool.
        """
        if not self.beta:
            return mask_scores(scores, negative).logsumexp(dim=1)
        count = negative.sum(dim=1, keepdim=True)
        powers = (1 + self.beta, self.beta)
        weighted, total = (mask_scores(power * scores, negative).logsumexp(dim=1) for power in powers)
        return mask_scores((weighted - total)[:, None] + count.to(scores).clamp(min=1).log(), count > 0)[:, 0]


class InfoNCE(_ContrastiveLoss):
    """InfoNCE (van den Oord et al., 2018, eq. 4): each positive of a query is classified against the negatives.

    The loss of query i with positives P_i and negatives N_i is the mean over its positives j of

        -log (e_j / (e_j + |N_i| sum over N_i of q_k e_k)),   q_k = e_k^beta / sum over N_i of e_k^beta,

    where e_k = exp(s_ik / tau).

    ``beta`` is the concentration of hard negatives (Robinson et al., ICLR 2021, sec. 3, without the correction for
    false negatives: the points determine which pairs are negative). The negatives are weighted as if drawn with
    probability q, which favours negatives similar to the query; with ``beta=0``, all have equal weights. As in the code
    of that paper, beta multiplies s / tau, and the gradient passes through q.

    ``queries=256, positives=128, negatives=384, beta=0.1`` are the settings of the NCE baseline of LoCo
    (NeurIPS 2024). That paper states no formula; its beta is interpreted as this concentration.
    """

    def of_rows(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        scores = scores / self.tau
        row, column = positive.nonzero(as_tuple=True)
        margin = scores[row, column] - self.log_negatives(scores, negative)[row]
        return mean_of_rows(-logsigmoid(margin), row, len(scores))


class SupCon(_ContrastiveLoss):
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020, eq. 2, L_out).

    As :class:`InfoNCE`, but each positive is also compared with the other positives of its query. The loss of query i
    is the mean over its positives j of

        -log (e_j / (sum over P_i of e_k + |N_i| sum over N_i of q_k e_k)).
    """

    def of_rows(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        scores = scores / self.tau
        row, column = positive.nonzero(as_tuple=True)
        return self._log_denominator(scores, positive, negative) - mean_of_rows(scores[row, column], row, len(scores))

    def _log_denominator(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if not self.beta:
            return mask_scores(scores, positive | negative).logsumexp(dim=1)
        positives = mask_scores(scores, positive).logsumexp(dim=1)
        # Not logaddexp, whose second derivative is NaN in rows without negatives.
        return positives - logsigmoid(positives - self.log_negatives(scores, negative))
