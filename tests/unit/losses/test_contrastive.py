"""The contrastive losses against their definitions, as loops over pairs."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from loco.losses import build_loss
from loco.losses.contrastive import _ContrastiveLoss

RHO, KAPPA, TAU = 0.3, 1.0, 0.1
NAMES = ["info_nce", "sup_con"]


def build(name: str, **options) -> _ContrastiveLoss:
    return build_loss(name, rho=RHO, kappa=KAPPA, tau=TAU, **options)


def scattered(n: int, seed: int = 0):
    """Return features, points in a box of 2 x 2 x 1 m, scenes, validity and images."""
    rng = torch.Generator().manual_seed(seed)
    points = torch.rand(n, 3, generator=rng, dtype=torch.float64) * torch.tensor([2, 2, 1], dtype=torch.float64)
    features = normalize(torch.randn(n, 8, generator=rng, dtype=torch.float64), dim=1)
    scenes, images = torch.randint(2, (n,), generator=rng), torch.randint(4, (n,), generator=rng)
    return features, points, scenes, torch.rand(n, generator=rng) > 0.1, images


def neighbours(points, scenes, valid, images) -> dict[int, tuple[list[int], list[int]]]:
    """Return the positives and negatives of each patch that has a positive."""
    n, found = len(points), {}
    for i in range(n):
        others = [j for j in range(n) if j != i and valid[i] and valid[j] and scenes[i] == scenes[j]]
        distance = {j: math.dist(points[i], points[j]) for j in others}
        positive = [j for j in others if distance[j] <= RHO and images[i] != images[j]]
        if positive:
            found[i] = positive, [j for j in others if RHO < distance[j] <= KAPPA]
    return found


def of_query(name: str, features, i: int, positive, negative, beta: float) -> float:
    """Return the mean over the positives; negatives are weighted by their probability times their number."""
    e = {j: math.exp(float(features[i] @ features[j]) / TAU) for j in [*positive, *negative]}
    tilt = sum(e[k] ** beta for k in negative)
    hard = len(negative) * sum(e[k] ** beta / tilt * e[k] for k in negative)
    others = sum(e[j] for j in positive)
    return float(np.mean([-math.log(e[j] / ((others if name == "sup_con" else e[j]) + hard)) for j in positive]))


@pytest.mark.parametrize("beta", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("name", NAMES)
def test_each_is_its_definition(name, beta):
    features, *rest = scattered(70)
    pairs = neighbours(*rest)
    expected = [of_query(name, features, i, *of_one, beta) for i, of_one in pairs.items()]
    assert len(expected) > 20
    assert max(len(positive) for positive, _ in pairs.values()) > 1  # with one positive, the two losses are equal
    loss, _ = build(name, beta=beta)(features, *rest)
    assert loss.item() == pytest.approx(np.mean(expected), abs=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_with_concentration(name):
    features, *rest = scattered(25)
    assert neighbours(*rest)
    loss = lambda x: build(name, beta=0.5)(x, *rest)[0]  # noqa: E731
    assert torch.autograd.gradcheck(loss, features.requires_grad_())


@pytest.mark.parametrize("name", NAMES)
def test_great_concentration_leaves_the_hardest_negative(name):
    features = normalize(torch.tensor([[1.0, 0], [1, 0.2], [1, 1], [0, 1]], dtype=torch.float64), dim=1)
    points = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0.5, 0, 0], [0.6, 0, 0]], dtype=torch.float64)
    images = torch.tensor([0, 1, 2, 2])  # the last two patches form no positive pair
    loss, _ = build(name, beta=1000)(features, points, image_ids=images)
    s = features @ features.T / TAU
    expected = [math.log1p(2 * math.exp(s[i, 2] - s[0, 1])) for i in (0, 1)]
    assert loss.item() == pytest.approx(np.mean(expected), abs=1e-9)


@pytest.mark.parametrize("beta", [0.0, 0.5])
@pytest.mark.parametrize("name", NAMES)
def test_draws_of_pairs_favour_none(name, beta):
    # Patch 0 has the positives 1 to 3, which are in one image, and each of these has the positive 0 only.
    features = scattered(8)[0]
    points = torch.zeros(8, 3, dtype=torch.float64)
    points[:, 0] = torch.tensor([0, 0.01, 0.02, 0.03, 0.6, 0.61, 0.62, 0.63])
    images = torch.tensor([0, 1, 1, 1, 2, 2, 2, 2])
    pairs = neighbours(points, torch.zeros(8), torch.ones(8), images)
    expected = []
    for i, (positive, negative) in pairs.items():
        positives = list(itertools.combinations(positive, min(2, len(positive))))
        negatives = list(itertools.combinations(negative, 3))
        each = [of_query(name, features, i, *drawn, beta) for drawn in itertools.product(positives, negatives)]
        expected.append(np.mean(each))
    assert len(expected) == 4
    criterion = build(name, positives=2, negatives=3, beta=beta)
    losses, logs = zip(*(criterion(features, points, image_ids=images) for _ in range(500)))
    draws = np.array([loss.item() for loss in losses])
    assert abs(draws.mean() - np.mean(expected)) < 4 * draws.std(ddof=1) / math.sqrt(len(draws))
    assert draws.std() > 0.01
    assert (logs[0]["positives"], logs[0]["negatives"]) == (6, 32)  # each pair counts for both of its patches


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_without_negatives_only_positives_compete(name, beta):
    features = normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1)
    loss, log = build(name, beta=beta)(features, torch.zeros(3, 3, dtype=torch.float64))
    expected = [of_query_without_negatives(features, i) if name == "sup_con" else 0.0 for i in range(3)]
    assert log["negatives"] == 0
    assert loss.item() == pytest.approx(np.mean(expected), abs=1e-10)


def of_query_without_negatives(features, i: int) -> float:
    e = [math.exp(float(features[i] @ features[j]) / TAU) for j in range(3) if j != i]
    return -float(np.mean([math.log(each / sum(e)) for each in e]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_derivatives_are_finite_where_a_query_has_no_negative(name, beta):
    features, points = scattered(4)[0].requires_grad_(), torch.zeros(4, 3, dtype=torch.float64)
    points[2:, 0] = 50  # two distant locations
    loss, _ = build(name, positives=1, negatives=1, beta=beta)(features, points)
    (gradient,) = torch.autograd.grad(loss, features, create_graph=True)
    gradient.square().sum().backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)  # one positive, no negative
    assert gradient.abs().max() < 1e-12
    assert features.grad.abs().max() < 1e-12


def test_pairs_at_the_radii_far_from_the_origin():
    side = torch.arange(6) * 0.1
    points = torch.cartesian_prod(side, side, side[:2]) + 50
    features = normalize(torch.randn(len(points), 8, generator=torch.Generator().manual_seed(0)), dim=1)
    _, log = build_loss("info_nce", rho=0.25, kappa=0.75, tau=TAU)(features, points)
    distance = torch.pdist(points.double())
    assert log["positives"] == 2 * int((distance <= 0.25).sum())
    assert log["negatives"] == 2 * int(((distance > 0.25) & (distance <= 0.75)).sum())


@pytest.mark.parametrize("name", NAMES)
def test_a_negative_concentration_is_refused(name):
    with pytest.raises(ValueError, match="beta must not be negative"):
        build(name, beta=-0.1)
