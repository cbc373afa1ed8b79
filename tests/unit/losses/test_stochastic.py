"""Draws of a loss in a forward pass that activation checkpointing repeats, compared with the pass without it."""

import copy

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from loco.losses import build_loss
from tests.unit.losses.batches import temperature

OPTIONS = {
    "sampled": {"anchors": 8, "max_positives": 50, "max_negatives": 50},
    "info_nce": {"queries": 20},
    "landmarks": {"landmarks": 10},
    "triplet": {"queries": 20},
    "exact": {"ranking": "query", "queries": 20},
}
IMAGES = torch.arange(150) // 50
FORMS = {"non-reentrant": {"use_reentrant": False}, "reentrant": {"use_reentrant": True}}


def criterion(name, seed=0):
    return build_loss(name, rho=0.3, kappa=1.0, seed=seed, **temperature(name, 0.05), **OPTIONS[name])


def plain(function, *inputs, **_):
    return function(*inputs)


# Where the loss is called, of network f, points p and inputs x: once; several times in one region and in several, with
# weights, on other features of the same points or on other points; the same call twice; one region in another.
STEPS = {
    "once": lambda run, loss, f, p, x: run(lambda a: loss(f(a), p), x),
    "several in one region": lambda run, loss, f, p, x: run(
        lambda a: loss(f(a), p) + 2 * loss(f(a) ** 3, p) + 4 * loss(f(-a), 1.1 * p), x
    ),
    "several regions": lambda run, loss, f, p, x: sum(
        weight * run(lambda a, power=power: loss(f(a) ** power, p), x) for weight, power in ((1, 1), (2, 3), (4, 2))
    ),
    "twice the same": lambda run, loss, f, p, x: (
        run(lambda a: loss(f(a), p) + loss(f(a), p), x) + run(lambda a: loss(f(a), p), x)
    ),
    "nested": lambda run, loss, f, p, x: run(lambda a: 3 * run(lambda b: loss(f(b), p), 2 * a) + loss(f(a) + 1, p), x),
    "with a call outside": lambda run, loss, f, p, x: run(lambda a: loss(f(a), p), x) + 2 * loss(f(x), p),
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", STEPS)
def test_a_repeated_forward_pass_draws_the_same(name, form, step):
    torch.manual_seed(0)
    inputs, points, network = torch.randn(150, 8), torch.rand(150, 3) * 1.2, torch.nn.Linear(8, 16)

    def second_step(run):
        drawing, own = criterion(name), copy.deepcopy(network)

        def loss(features, points):
            return drawing(features, points, image_ids=IMAGES)[0]

        for _ in range(2):  # of the same batch
            own.zero_grad()
            value = STEPS[step](run, loss, own, points, inputs.clone().requires_grad_())
            value.backward()
        return value, own.weight.grad, int(drawing.calls)

    expected, found = second_step(plain), second_step(lambda function, *x: checkpoint(function, *x, **FORMS[form]))
    assert found[0] == expected[0]
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-6)
    assert found[2] == expected[2]


@pytest.mark.parametrize("name", OPTIONS)
def test_features_that_are_recomputed_otherwise_meet_the_same_draws(name):
    """For example dropout, whose generator state is not restored."""
    torch.manual_seed(0)
    features, points = torch.randn(150, 8), torch.rand(150, 3) * 1.2
    seen, loss = [], criterion(name)
    number = loss.call_number
    loss.call_number = lambda patches: seen.append(number(patches)) or seen[-1]

    def noisy(x):
        return loss(x + torch.randn_like(x), points, image_ids=IMAGES)[0]

    for _ in range(3):
        checkpoint(noisy, features.clone().requires_grad_(), use_reentrant=True, preserve_rng_state=False).backward()
    assert seen == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("name", OPTIONS)
def test_batches_of_accumulated_gradients_keep_their_draws(name):
    torch.manual_seed(0)
    features, points = torch.randn(2, 150, 8), torch.rand(2, 150, 3) * 1.2

    def gradient(run):
        loss, leaf = criterion(name), features.clone().requires_grad_()
        values = [run(lambda x, p: loss(x, p, image_ids=IMAGES)[0], leaf[k], points[k]) for k in (0, 1)]
        for value in values:  # both forward passes precede the first backward pass
            value.backward()
        return leaf.grad

    found = gradient(lambda function, *x: checkpoint(function, *x, use_reentrant=False))
    torch.testing.assert_close(found, gradient(plain), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
def test_draws_follow_the_seed(name):
    torch.manual_seed(0)
    features, points = torch.randn(150, 8), torch.rand(150, 3) * 1.2
    values = [criterion(name, seed)(features, points, image_ids=IMAGES)[0].item() for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_a_loss_that_does_not_draw_takes_any_seed():
    build_loss("dense", rho=0.3, kappa=1.0, tau=0.05, seed=7)
