"""The loss of embeddings with labels, against its definition as loops."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from loco.losses import DenseSmoothAP, LabelSmoothAP

TAU = 0.05


def draw(rows: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return embeddings (rows, 8) float64 and labels (rows,), some of them negative; class sizes differ."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(rows, 8, dtype=torch.float64, generator=generator)
    return embeddings.requires_grad_(), torch.randint(-2, classes - 2, (rows,), generator=generator)


def of_queries(embeddings: Tensor, labels: Tensor, references: Tensor, ref_labels: Tensor, itself: bool) -> Tensor:
    """Return 1 - mean AP of the queries by the definition; with ``itself``, reference i counts for query i."""
    scores, ap = normalize(embeddings, dim=1) @ normalize(references, dim=1).T, []
    for i, label in enumerate(labels.tolist()):
        used = [j for j in range(len(references)) if itself or j != i]
        positive = [j for j in used if ref_labels[j] == label]
        negative = [j for j in used if ref_labels[j] != label]
        terms = []
        for a in positive:
            r_p = sum(torch.sigmoid((scores[i, b] - scores[i, a]) / TAU) for b in positive if b != a)
            r_n = sum(torch.sigmoid((scores[i, g] - scores[i, a]) / TAU) for g in negative)
            terms.append((1 + r_p) / (1 + r_p + r_n))
        if terms:
            ap.append(sum(terms) / len(terms))
    return 1 - sum(ap) / len(ap)


def assert_same(loss: Tensor, truth: Tensor, *of: Tensor) -> None:
    assert loss.item() == pytest.approx(truth.item(), abs=3e-5)
    for gradient, true in zip(torch.autograd.grad(loss, of), torch.autograd.grad(truth, of), strict=True):
        assert (gradient - true).norm() <= 1e-4 * true.norm()


def test_each_embedding_ranks_all_others():
    embeddings, labels = draw(40, classes=9)
    assert len((labels + 2).bincount().unique()) > 2  # classes of several sizes
    loss = LabelSmoothAP(TAU)(embeddings, labels)
    assert_same(loss, of_queries(embeddings, labels, embeddings, labels, itself=False), embeddings)


def test_an_embedding_may_also_rank_itself():
    embeddings, labels = draw(30, classes=6)
    loss = LabelSmoothAP(TAU, self_match=True)(embeddings, labels)
    assert_same(loss, of_queries(embeddings, labels, embeddings, labels, itself=True), embeddings)


@pytest.mark.parametrize("ref_classes", [5, 12])  # some classes occur on one side only
def test_references_are_ranked_instead(ref_classes):
    (embeddings, labels), (references, ref_labels) = draw(20, classes=8), draw(50, ref_classes, seed=1)
    loss = LabelSmoothAP(TAU, self_match=True)(embeddings, labels, ref_emb=references, ref_labels=ref_labels)
    truth = of_queries(embeddings, labels, references, ref_labels, itself=True)
    assert_same(loss, truth, embeddings, references)


def test_one_list_of_all_pairs():
    embeddings, labels = draw(30, classes=5)
    dense = DenseSmoothAP(rho=0.5, kappa=math.inf, tau=TAU)
    truth, _ = dense(embeddings, torch.nn.functional.pad(labels[:, None].double(), (0, 2)))
    assert_same(LabelSmoothAP(TAU, ranking="batch")(embeddings, labels), truth, embeddings)


def test_one_list_of_all_pairs_with_references():
    (embeddings, labels), (references, ref_labels) = draw(15, classes=4), draw(25, classes=5, seed=1)
    scores = (normalize(embeddings, dim=1) @ normalize(references, dim=1).T).flatten()
    positive = (labels[:, None] == ref_labels).flatten()
    dense = DenseSmoothAP(rho=0.5, kappa=math.inf, tau=TAU)
    truth = 1 - dense.smooth_ap(scores[positive], scores[~positive], torch.ones(int(positive.sum()))).mean()
    loss = LabelSmoothAP(TAU, ranking="batch")(embeddings, labels, ref_emb=references, ref_labels=ref_labels)
    assert_same(loss, truth, embeddings, references)


def test_many_embeddings_are_processed_in_tiles():
    """More than one tile of 512: classes within a tile, and across two."""
    embeddings, labels = draw(1500, classes=700)
    scores = normalize(embeddings, dim=1) @ normalize(embeddings, dim=1).T
    scores = scores - 4 * torch.eye(len(scores), dtype=scores.dtype)  # an embedding itself ranks last, and counts as 0
    positive = (labels[:, None] == labels) & ~torch.eye(len(labels), dtype=torch.bool)
    ap = []
    for row, is_positive in zip(scores, positive):
        own = row[is_positive]
        rank = torch.sigmoid((row - own[:, None]) / TAU)
        r_p, total = rank[:, is_positive].sum(dim=1) - 0.5, rank.sum(dim=1) - 0.5
        ap += [((1 + r_p) / (1 + total)).mean()] if len(own) else []
    assert_same(LabelSmoothAP(TAU)(embeddings, labels), 1 - torch.stack(ap).mean(), embeddings)


def test_agrees_with_pytorch_metric_learning():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    # Version 2.9.0 is right for as many classes as members of each: it divides a batch into parts of the wrong size.
    embeddings, labels = draw(25, classes=1)[0], torch.arange(5).repeat_interleave(5)
    loss = LabelSmoothAP(TAU, self_match=True)(embeddings, labels)
    assert_same(loss, losses.SmoothAPLoss(TAU)(embeddings, labels), embeddings)


@pytest.mark.parametrize("labels", [torch.arange(6), torch.zeros(0, dtype=torch.int64)])
def test_without_positive_pairs_the_loss_is_zero(labels):
    embeddings = torch.randn(len(labels), 4, requires_grad=True)
    loss = LabelSmoothAP()(embeddings, labels)
    loss.backward()
    assert loss.item() == 0
    assert not embeddings.grad.any()


def test_half_precision_and_labels_of_any_integer_type():
    embeddings, labels = draw(30, classes=4)
    truth = LabelSmoothAP(TAU)(embeddings.bfloat16(), labels)
    assert LabelSmoothAP(TAU)(embeddings.bfloat16(), labels.to(torch.int8)).item() == truth.item()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"labels must be integers of shape \(6,\).*found none"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, r"found \(5,\) torch.int64"),
        ({"labels": torch.zeros(6)}, r"found \(6,\) torch.float32"),
        ({"labels": torch.full((6,), 2**60)}, r"below 2\*\*52"),
        ({"labels": torch.arange(6), "indices_tuple": (1, 2, 3)}, "remove the miner"),
        ({"labels": torch.arange(6), "ref_emb": torch.randn(3, 4)}, "belong together"),
        ({"labels": torch.arange(6), "ref_emb": torch.randn(3), "ref_labels": torch.arange(3)}, r"ref_emb must be of"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        LabelSmoothAP()(torch.randn(6, 4), **arguments)
