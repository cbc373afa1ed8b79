"""The exact ranking loss for embeddings with class labels, with the interface of pytorch-metric-learning.

Each label is mapped to a separate point, so that :class:`loco.losses.exact.ExactSmoothAP` can rank the pairs:
embeddings of one class have a distance of 0, all others of at least 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from loco.losses.distributed import Group
from loco.losses.exact import ExactSmoothAP
from loco.losses.pairs import Ranking
from loco.losses.tiles import Tiling

_QUERIES, _REFERENCES = 0, 1  # scene ids of the two sets of embeddings
_LARGEST_LABEL = 2**52  # larger integers are not exact in float64


class LabelSmoothAP(torch.nn.Module):
    """Smooth AP of embeddings with labels (Brown et al., ECCV 2020), over all pairs, in memory linear in the number of
    embeddings.

    Pairs of one class are positive, all others negative; classes may have any sizes. Embeddings are L2-normalised, so
    similarities are cosines. The signature of :meth:`forward` is that of the losses of pytorch-metric-learning.
    """

    def __init__(
        self, tau: float = 0.01, ranking: Ranking = "query", self_match: bool = False, group: Group = None
    ) -> None:
        """
        Args:
            tau: temperature of the sigmoid, in units of the cosine.
            ranking: ``query``: each embedding ranks all others, and the loss is 1 minus the mean AP of the embeddings
                with a positive. ``batch``: all pairs of the batch are ranked in one list.
            self_match: whether an embedding also ranks itself, as a positive, as in the code of the paper and in
                pytorch-metric-learning. Ignored if references are passed.
            group: process group whose embeddings form one batch; None for this process only.

        Raises:
            ValueError: an option is out of its range.
        """
        super().__init__()
        self.within = ExactSmoothAP(rho=0.5, kappa=None, tau=tau, ranking=ranking, group=group)
        self.across = _CrossSmoothAP(rho=0.5, kappa=None, tau=tau, ranking=ranking, group=group)
        self.self_match = self_match

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """Return the loss, a scalar; it is 0, with zero gradient, if there are no positive pairs.

        Args:
            embeddings: (n, d), floating-point numbers; rows may have any norm.
            labels: class of each embedding, (n,), integers.
            indices_tuple: must be None, because all pairs are ranked.
            ref_emb: references (m, d), which the embeddings rank instead of each other, such as a memory of earlier
                batches; None for the embeddings.
            ref_labels: classes of the references, (m,), integers.

        Raises:
            ValueError: labels are missing, have another shape or dtype, or are 2**52 or more in absolute value;
                references are passed without labels or labels without references; or the pairs of a miner are passed.
        """
        if indices_tuple is not None:
            raise ValueError("indices_tuple must be None: the loss ranks all pairs; remove the miner")
        if (ref_emb is None) != (ref_labels is None):
            raise ValueError("ref_emb and ref_labels belong together: pass both, or none of them")
        labels = _checked_labels("labels", labels, "embeddings", embeddings)
        if ref_emb is None and self.self_match:
            ref_emb, ref_labels = embeddings, labels
        if ref_emb is None:
            loss, _ = self.within(embeddings, _points(labels))
            return loss
        ref_labels = _checked_labels("ref_labels", ref_labels, "ref_emb", ref_emb)
        sides = torch.tensor([_QUERIES, _REFERENCES]).repeat_interleave(torch.tensor([len(embeddings), len(ref_emb)]))
        loss, _ = self.across(
            torch.cat([embeddings, ref_emb.to(embeddings)]),
            _points(torch.cat([labels, ref_labels.to(labels)])),
            scene_ids=sides.to(embeddings.device),
        )
        return loss


class _CrossTiling(Tiling):
    """The blocks whose pairs consist of a query (row) and a reference (column)."""

    def _forms_pairs(self, scene: int, others: np.ndarray) -> np.ndarray:
        return (others == _REFERENCES) & (scene == _QUERIES)


class _CrossSmoothAP(ExactSmoothAP):
    """The exact loss over the pairs of a query and a reference."""

    tiling_type = _CrossTiling


def _points(labels: Tensor) -> Tensor:
    """Return a point for each label (n, 3) float64, 1 apart for consecutive labels."""
    return torch.nn.functional.pad(labels[:, None].double(), (0, 2))


def _checked_labels(name: str, labels: Tensor | None, of: str, rows: Tensor) -> Tensor:
    if rows.ndim != 2:
        raise ValueError(f"{of} must be of shape (n, d), found {tuple(rows.shape)}")
    if labels is None or labels.shape != rows.shape[:1] or labels.is_floating_point() or labels.is_complex():
        found = "none" if labels is None else f"{tuple(labels.shape)} {labels.dtype}"
        raise ValueError(f"{name} must be integers of shape ({len(rows)},), one for each row of {of}; found {found}")
    if labels.numel() and int(labels.abs().max()) >= _LARGEST_LABEL:
        raise ValueError(
            f"{name} must be below 2**52 in absolute value, found {int(labels.abs().max())}; number the classes from 0"
        )
    return labels
