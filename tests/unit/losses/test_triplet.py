"""The triplet loss against its definition, as loops over triplets."""

import math

import pytest
import torch

from loco.losses import TripletLoss, build_loss
from tests.unit.losses.batches import KAPPA, RHO, patches, value_and_gradient


def of_query(s: list[float], positive: list[int], negative: list[int], margin: float, mining: str) -> float:
    """Return the mean over the positives of a query with the similarities ``s``."""
    total = 0.0
    for j in positive:
        eligible = [s[k] for k in negative if mining == "hardest" or s[k] < s[j]]
        total += max(0.0, margin + max(eligible) - s[j]) if eligible else 0.0
    return total / len(positive)


@pytest.mark.parametrize("margin", [0.1, 0.5, 1.5])
@pytest.mark.parametrize("mining", ["hardest", "semi_hard"])
def test_it_is_its_definition(mining, margin):
    features, points, scenes, valid, images = patches(100, scenes=2)
    losses, pairs = [], [0, 0]
    for i in range(100):
        others = [j for j in range(100) if j != i and valid[i] and valid[j] and scenes[i] == scenes[j]]
        distance = {j: math.dist(points[i], points[j]) for j in others}
        positive = [j for j in others if distance[j] <= RHO and images[i] != images[j]]
        negative = [j for j in others if RHO < distance[j] <= KAPPA]
        pairs = [pairs[0] + len(positive), pairs[1] + len(negative)]
        if positive:
            losses.append(of_query((features @ features[i]).tolist(), positive, negative, margin, mining))
    assert len(losses) > 20
    loss, log = TripletLoss(RHO, KAPPA, margin, mining)(features, points, scenes, valid, images)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), abs=1e-12)
    # Negatives of queries without a positive are counted, too, as for the contrastive losses.
    assert [log["positives"], log["negatives"]] == pairs


@pytest.mark.parametrize("mining", ["hardest", "semi_hard"])
def test_gradient_by_finite_differences(mining):
    features, *rest = patches(30, seed=1)
    criterion = TripletLoss(RHO, KAPPA, 0.5, mining, normalise=True)
    assert criterion(features, *rest)[0] > 0.05
    assert torch.autograd.gradcheck(lambda x: criterion(x, *rest)[0], features.requires_grad_())


@pytest.mark.parametrize("mining", ["hardest", "semi_hard"])
def test_without_negatives_it_is_zero(mining):
    features, points, *rest = patches(20)
    loss, gradient, log = value_and_gradient(TripletLoss(50, 60, mining=mining), features, points, *rest)
    assert log["positives"] > 20
    assert loss == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0.0}, "margin"),
        ({"margin": 2.1}, "margin"),
        ({"mining": "easy"}, "mining must be one of hardest, s"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TripletLoss(RHO, KAPPA, **options)


def test_it_has_no_temperature():
    criterion = build_loss("triplet", rho=RHO, kappa=KAPPA, seed=3)
    with pytest.raises(AttributeError, match="TripletLoss has no temperature"):
        criterion.tau = 0.1
