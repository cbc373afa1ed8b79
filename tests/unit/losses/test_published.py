"""The losses with the settings of LoCo and LoCUS, against the formulae of the papers and releases in float64."""

import math

import numpy as np
import pytest
import torch

from loco.losses import build_loss
from loco.losses.sampled import draw_pools
from tests.unit.losses.batches import patches, value_and_gradient

RHO, KAPPA, TAU = 0.3, 1.0, 0.01
UNCAPPED = {"max_positives": 10**6, "max_negatives": 10**6, "pool": 10**7, "saturation": 0.0}


def batch(n=200, scenes=2, seed=0):
    features, points, scene_ids, _, image_ids = patches(n, scenes=scenes, seed=seed)
    return features, points, scene_ids, None, 4 * scene_ids + image_ids


def sigma(x):
    return 1 / (1 + np.exp(-np.clip(x / TAU, -700, 700)))


def scores(batch, low, high):
    """Return scores of unordered pairs of one scene with low < distance <= high, and whether they share an image."""
    features, points, scenes, _, images = (None if each is None else each.numpy() for each in batch)
    i, j = np.triu_indices(len(points), 1)
    distance = np.linalg.norm(points[i] - points[j], axis=1)
    chosen = (scenes[i] == scenes[j]) & (low < distance) & (distance <= high)
    i, j = i[chosen], j[chosen]
    return (features[i] * features[j]).sum(axis=1), images[i] == images[j]


def pooled_smooth_ap(s_p, s_n):
    """LoCUS: every positive, ranked among all positives (including itself) and all negatives."""
    r_p = np.array([1 + sigma(s_p - s).sum() for s in s_p])
    return (r_p / (r_p + [sigma(s_n - s).sum() for s in s_p])).mean()


@pytest.mark.parametrize("n", [64, 200])
def test_dense_with_the_self_term_is_the_loss_of_locus(n):
    inputs = batch(n)
    s_p, _ = scores(inputs, -1, RHO)
    s_n, _ = scores(inputs, RHO, KAPPA)
    options = {"rho": RHO, "kappa": KAPPA, "tau": TAU, "self_term": True, "same_image": 1.0}
    loss, log = build_loss("dense", **options)(*inputs)
    assert log["positives"] == len(s_p) > 10
    assert loss.item() == pytest.approx(1 - pooled_smooth_ap(s_p, s_n), rel=2e-7)
    single, _ = build_loss("dense", **options)(inputs[0].float(), inputs[1].float(), *inputs[2:])
    assert single.item() == pytest.approx(loss.item(), rel=2e-6)


def release_step(s_a, s_p, s_n, totals, delta):
    """One anchor of LoCo's training step without limits on the drawn pairs; ``s_p`` are the other positives.

    Numerator and denominator are divided by the total number of other positives, as in the release.
    """
    positives, negatives = totals
    ratio = negatives / (positives - 1)
    near_p, near_n = s_p[abs(s_p - s_a) <= delta], s_n[abs(s_n - s_a) <= delta]
    above_p, above_n = (s_p - s_a > delta).sum(), (s_n - s_a > delta).sum()
    factor_p = max(len(near_p) - 1, 0) / max((len(s_p) - 1) * len(near_p), 1)
    factor_n = ratio * len(near_n) / max(len(s_n) * len(near_n), 1)
    numerator = 1 / (positives - 1) + factor_p * sigma(near_p - s_a).sum() + above_p / max(len(s_p) - 1, 1)
    return numerator / (numerator + factor_n * sigma(near_n - s_a).sum() + ratio * above_n / len(s_n))


@pytest.mark.parametrize("totals", [None, (40_000.0, 900_000.0)])
@pytest.mark.parametrize("saturation", [0.0, 0.002])
def test_published_corrections_are_the_step_of_the_release(saturation, totals):
    inputs = batch()
    s_p, _ = scores(inputs, -1, RHO)
    s_n, _ = scores(inputs, RHO, KAPPA)
    options = UNCAPPED | {"anchors": len(s_p), "saturation": saturation, "same_image": 1.0, "corrections": "published"}
    criterion = build_loss("sampled", rho=RHO, kappa=KAPPA, tau=TAU, population=totals, **options)
    delta = -TAU * math.log(2 / (1 + math.sqrt(1 - saturation)) - 1) if saturation else math.inf
    of_batch = len(s_p), len(s_n)
    steps = [release_step(s, np.delete(s_p, a), s_n, totals or of_batch, delta) for a, s in enumerate(s_p)]
    loss, log = criterion(*inputs)
    assert (log["positives"], log["negatives"]) == of_batch
    assert loss.item() == pytest.approx(1 - np.mean(steps), rel=2e-7)


def test_population_scales_both_ranks_as_in_equation_3():
    inputs = batch()
    s_p, _ = scores(inputs, -1, RHO)
    s_n, _ = scores(inputs, RHO, KAPPA)
    totals = (10.0 * len(s_p), 25.0 * len(s_n))
    f_p, f_n = (totals[0] - 1) / (len(s_p) - 1), 25.0  # of the other positives
    r_p = np.array([f_p * (sigma(s_p - s).sum() - 0.5) for s in s_p])
    r_n = np.array([f_n * sigma(s_n - s).sum() for s in s_p])
    options = UNCAPPED | {"anchors": len(s_p), "same_image": 1.0}
    loss, _ = build_loss("sampled", rho=RHO, kappa=KAPPA, tau=TAU, population=totals, **options)(*inputs)
    assert loss.item() == pytest.approx(1 - ((1 + r_p) / (1 + r_p + r_n)).mean(), rel=2e-7)


@pytest.mark.parametrize("population", [[1.0], [0, 5], [3, -1]])
def test_a_population_is_two_positive_numbers(population):
    with pytest.raises(ValueError, match="population"):
        build_loss("sampled", rho=RHO, kappa=KAPPA, tau=TAU, population=population)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.4, 1.0])
def test_positives_within_one_image_are_limited_to_a_fraction(fraction):
    inputs = batch(300)
    _, same = scores(inputs, -1, RHO)
    features, points, scene_ids, _, image_ids = inputs
    pool = {"features": features, "points": points, "scene_ids": scene_ids, "image_ids": image_ids}
    pairs = draw_pools(type("Patches", (), pool), RHO, KAPPA, 10**7, np.random.default_rng(0), fraction)
    i, j = pairs.positive.T
    within = int((image_ids[i] == image_ids[j]).sum())
    assert len(pairs.positive) - within == (~same).sum()  # pairs of two images all remain
    assert within == min(same.sum(), same.sum() if fraction == 1 else int(fraction / (1 - fraction) * (~same).sum()))
    assert within / len(pairs.positive) <= fraction


def test_sampled_without_limits_ranks_what_exact_does():
    inputs = batch()
    for weight in (0.0, 1.0):
        exact, gradient, _ = value_and_gradient(
            build_loss("exact", rho=RHO, kappa=KAPPA, tau=TAU, same_image=weight), *inputs
        )
        options = UNCAPPED | {"anchors": 10**6, "same_image": weight}
        sampled, other, _ = value_and_gradient(build_loss("sampled", rho=RHO, kappa=KAPPA, tau=TAU, **options), *inputs)
        assert sampled.item() == pytest.approx(exact.item(), abs=1e-5)
        assert (gradient - other).norm() <= 1e-3 * other.norm()


def landmark_reference(inputs, rows, columns):
    """LoCUS: pairs of a landmark and another patch, all in one ranking."""
    features, points, scenes, _, _ = (None if each is None else each.numpy() for each in inputs)
    s_p, s_n = [], []
    for row in rows:
        for column in range(len(points)):
            distance = np.linalg.norm(points[row] - points[column])
            if column == row or scenes[column] != scenes[row]:
                continue
            if distance <= RHO:
                s_p.append(features[row] @ features[column])
            elif distance <= KAPPA and columns[column]:
                s_n.append(features[row] @ features[column])
    return np.array(s_p), np.array(s_n)


def test_landmarks_are_queries_of_the_first_images_that_other_images_show():
    inputs = batch(300)
    _, points, scenes, _, images = inputs
    criterion = build_loss("landmarks", rho=RHO, kappa=KAPPA, tau=TAU, landmarks=10**6, patches=1.0)
    loss, log = criterion(*inputs)
    near = (torch.cdist(points, points) <= RHO) & (scenes[:, None] == scenes)
    first = torch.tensor([image == min(images[scenes == scene]) for image, scene in zip(images, scenes)])
    shown = (near & (images[:, None] != images)).any(dim=1)
    s_p, s_n = landmark_reference(inputs, np.flatnonzero(first & shown), np.ones(300, bool))
    assert (first & ~shown).any()
    assert (log["positives"], log["negatives"]) == (len(s_p), len(s_n))
    assert loss.item() == pytest.approx(1 - pooled_smooth_ap(s_p, s_n), rel=2e-7)


def test_a_fraction_of_the_patches_is_compared_and_all_positives_are():
    inputs = batch(300)
    few = build_loss("landmarks", rho=RHO, kappa=KAPPA, tau=TAU, landmarks=5, patches=0.1)
    every = build_loss("landmarks", rho=RHO, kappa=KAPPA, tau=TAU, landmarks=5, patches=1.0)
    (_, some), (_, all_of_them) = few(*inputs), every(*inputs)
    assert some["positives"] == all_of_them["positives"] > 0
    assert 0 < some["negatives"] < 0.6 * all_of_them["negatives"]


def test_draws_of_landmarks_depend_on_the_seed_and_the_call():
    def losses(**options):
        criterion = build_loss("landmarks", rho=RHO, kappa=KAPPA, tau=TAU, landmarks=5, **options)
        return [criterion(*batch(300))[0].item() for _ in range(3)]

    assert losses() == losses()
    assert len({*losses(), *losses(seed=1)}) == 6


def test_a_batch_without_positives_has_no_landmarks():
    features, points, *rest = batch(30)
    loss, log = build_loss("landmarks", rho=1e-6, kappa=KAPPA, tau=TAU)(features.requires_grad_(), points, *rest)
    loss.backward()
    assert (loss.item(), log["positives"]) == (0, 0)
    assert not features.grad.any()


@pytest.mark.parametrize("options", [{"landmarks": 0}, {"patches": 0.0}, {"patches": 1.5}])
def test_landmark_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="landmarks must be"):
        build_loss("landmarks", rho=RHO, kappa=KAPPA, tau=TAU, **options)


def test_blocks_of_positives_change_neither_value_nor_gradient(monkeypatch):
    inputs = batch()
    criterion = build_loss("dense", rho=RHO, kappa=KAPPA, tau=TAU, self_term=False, same_image=0.5)
    whole, gradient, _ = value_and_gradient(criterion, *inputs)
    monkeypatch.setattr("loco.losses.dense.BLOCK", 7 * len(inputs[0]) ** 2 // 10)
    blocks, other, _ = value_and_gradient(criterion, *inputs)
    assert blocks.item() == pytest.approx(whole.item(), rel=1e-12)
    torch.testing.assert_close(other, gradient, rtol=1e-9, atol=1e-12)
