from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchmetrics.functional.classification import binary_average_precision

from loco.errors import DataError
from loco.evaluation import linear_probe, semantic_segmentation
from loco.evaluation.linear_probe import (
    BINS,
    HELD_OUT,
    IN_SAMPLE,
    VOID,
    Classes,
    Contents,
    average_precision,
    bins_of,
    blocks_of,
    score_probe,
    split_images,
    train_probe,
)

SETTINGS = {"epochs": 60, "batch": 2, "train_fraction": 0.5, "block": 2}
STRIDE = 4


def exact_average_precision(scores, positive):
    """The definition: the precision at each distinct score, in descending order, times the recall that it adds."""
    ap, before = 0.0, 0
    for threshold in sorted(set(scores), reverse=True):
        passed = scores >= threshold
        found = int(positive[passed].sum())
        ap += (found - before) * found / int(passed.sum())
        before = found
    return ap / before


def histograms(numbers, positive, bins):
    return np.bincount(numbers[positive], minlength=bins), np.bincount(numbers, minlength=bins)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 80), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_average_precision_equals_its_definition(n, levels, seed):
    rng = np.random.default_rng(seed)
    numbers, positive = rng.integers(0, levels, n), rng.random(n) < 0.4
    positive[0] = True
    ap, error = average_precision(*histograms(numbers, positive, levels))
    assert ap == pytest.approx(exact_average_precision(numbers, positive), rel=1e-12)
    reference = binary_average_precision(torch.from_numpy(numbers / levels), torch.from_numpy(positive).long())
    assert ap == pytest.approx(float(reference), abs=1e-5)
    assert error >= 0


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 60), st.integers(1, 6), st.floats(0.5, 4), st.integers(0, 2**32 - 1))
def test_binned_average_precision_is_as_near_as_it_says(n, bins, skill, seed):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.5
    positive[0] = True
    scores = rng.random(n).round(2) ** np.where(positive, 1, skill)  # some scores are equal
    ap, error = average_precision(*histograms(np.minimum(scores * bins, bins - 1).astype(int), positive, bins))
    assert abs(ap - exact_average_precision(scores, positive)) <= error + 1e-12


def test_the_stated_error_by_hand():
    # One positive and one negative in one bin: AP is 1/2 by bins; exactly, it is 1 or 1/2.
    assert average_precision(np.array([1]), np.array([2])) == pytest.approx((0.5, 0.5))
    assert average_precision(np.array([0, 1]), np.array([3, 1])) == pytest.approx((1.0, 0.0))
    # Two positives and one negative in a bin behind ten negatives: 2/13; at worst 1/12 and 2/13, at best 2/12.
    assert average_precision(np.array([2, 0]), np.array([3, 10])) == pytest.approx((2 / 13, (2 / 13 - 1 / 12) / 2))


def test_bins_keep_the_order_and_tell_apart_small_and_sure_probabilities():
    p = torch.sort(torch.rand(10_000, generator=torch.Generator().manual_seed(0))).values
    bins = bins_of(p)
    assert torch.all(bins.diff() >= 0)
    ends = bins_of(torch.tensor([0.0, 1e-6, 1.1e-6, 0.99999, 0.999995, 1.0]))
    assert ends[0] == 0
    assert ends[-1] == BINS - 1
    assert torch.all(ends.diff() > 0)


def noisy_images(n=6, patches=40, k=5, area=9, seed=0, skill=2.0):
    """Logits (n, patches, k) that correlate with the classes (n, patches, area) of pixels, some of which are void."""
    rng = np.random.default_rng(seed)
    classes = np.repeat(rng.choice(k, (n, patches, 1), p=np.arange(1, k + 1) / (k * (k + 1) / 2)), area, axis=2)
    other = rng.random(classes.shape) < 0.3
    classes[other] = rng.integers(VOID, k, other.sum())
    logits = rng.normal(0, 1, (n, patches, k)) + skill * np.eye(k)[np.maximum(classes[:, :, 0], 0)]
    return logits.astype(np.float32), classes


def contents_of(classes):
    """Count the pixels of each class in each patch of an image, from classes (patches, area)."""
    patch, shown = np.nonzero(classes != VOID)[0], classes[classes != VOID]
    pairs, pixels = np.unique(np.stack([patch, shown]), axis=1, return_counts=True)
    return Contents(*pairs, pixels)


def identity_probe(k):
    probe = nn.Linear(k, k)
    with torch.no_grad():
        probe.weight.copy_(torch.eye(k)), probe.bias.zero_()
    return probe


def tally_of(logits, classes):
    images = ((torch.from_numpy(x), contents_of(c)) for x, c in zip(logits, classes))
    return score_probe(identity_probe(logits.shape[-1]), images)


def test_counts_and_average_precisions_equal_those_of_all_pixels():
    logits, classes = noisy_images()
    k = logits.shape[-1]
    tally = tally_of(logits, classes)
    pixels = logits.astype(np.float64).repeat(classes.shape[2], axis=1).reshape(-1, k)  # nearest neighbour
    truth = classes.reshape(-1)
    pixels, truth = pixels[truth != VOID], truth[truth != VOID]
    probability = np.exp(pixels) / np.exp(pixels).sum(axis=1, keepdims=True)
    guess = pixels.argmax(axis=1)
    for c in range(k):
        assert tally.actual[c] == np.sum(truth == c)
        assert tally.predicted[c] == np.sum(guess == c)
        assert tally.right[c] == np.sum((guess == c) & (truth == c))
        ap, error = average_precision(tally.positive[c], tally.total[c])
        exact = exact_average_precision(probability[:, c], truth == c)
        assert abs(ap - exact) <= error + 1e-6
        assert error < 0.03  # 240 different probabilities


def test_average_precision_is_of_probabilities_that_can_be_compared_across_pixels():
    # Scaling the logits of each pixel to [0, 1], as the published code does, makes confident and uncertain pixels
    # equal.
    rng = np.random.default_rng(0)
    n, k = 20_000, 4
    sure = rng.normal(0, 2, (n, 1))
    logits = np.concatenate([sure, -sure, np.zeros((n, k - 2))], axis=1).astype(np.float32)
    probability = torch.from_numpy(logits).softmax(dim=1).numpy()
    truth = np.array([rng.choice(k, p=p / p.sum()) for p in probability.astype(np.float64)])  # calibrated
    tally = tally_of(logits[None], truth[None, :, None])
    ap, error = average_precision(tally.positive[0], tally.total[0])
    target = torch.from_numpy(truth == 0).long()
    assert abs(ap - float(binary_average_precision(torch.from_numpy(probability[:, 0]), target))) <= error + 1e-5
    assert error < 1e-3
    low, high = logits.min(axis=1), logits.max(axis=1)
    scaled = torch.from_numpy((logits[:, 0] - low) / (high - low))
    assert ap > float(binary_average_precision(scaled, target)) + 0.1


def test_average_precision_does_not_depend_on_calibration():
    logits = np.random.default_rng(0).normal(0, 1, (1, 3000, 1)).astype(np.float32)
    truth = (np.random.default_rng(1).random((1, 3000, 1)) < 1 / (1 + np.exp(-logits))).astype(int)
    found = []
    # Two classes: the probability is monotone in the first logit.
    for scale, shift in ((1, 0), (3, 0), (1, -6), (0.3, 2)):
        both = np.concatenate([np.zeros_like(logits), scale * logits + np.float32(shift)], axis=2)
        tally = tally_of(both, truth)
        found.append(average_precision(tally.positive[1], tally.total[1])[0])
    np.testing.assert_allclose(found, found[0], atol=3e-3)


def test_the_probe_reaches_the_minimum_of_the_cross_entropy():
    # With one constant feature, the best probabilities are the fractions of the classes among the labelled patches.
    targets = np.array([[0, 0, 0, 1, 2, 2, VOID, VOID]])
    settings = {"epochs": 600, "batch": 1}
    ones = torch.ones(8, 1, dtype=torch.float16)
    probe = train_probe(lambda i: ones, targets, np.array([0]), 3, settings, np.random.default_rng(0))
    found = probe(torch.ones(1, 1)).softmax(dim=1)[0]
    torch.testing.assert_close(found, torch.tensor([3, 1, 2]) / 6, atol=2e-3, rtol=0)


def test_blocks_of_patches_do_not_change_a_step(monkeypatch):
    rng = np.random.default_rng(0)
    maps, targets = torch.from_numpy(rng.normal(0, 1, (4, 50, 6))).half(), rng.integers(VOID, 3, (4, 50))

    def trained():
        order = np.random.default_rng(1)
        return train_probe(lambda i: maps[i], targets, np.arange(4), 3, {"epochs": 5, "batch": 3}, order).weight

    whole = trained()
    monkeypatch.setattr(linear_probe, "BLOCK", 17)
    torch.testing.assert_close(trained(), whole, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("channels", [3, 768, 1536])
def test_a_step_moves_logits_alike_at_any_number_of_channels(channels):
    # The first step of Adam changes every weight by the learning rate. For unit features of equal entries, |x|_1 =
    # sqrt(c).
    features = torch.full((2, channels), channels**-0.5).half()
    settings = {"epochs": 1, "batch": 1}
    probe = train_probe(lambda i: features, np.array([[0, 0]]), np.array([0]), 2, settings, np.random.default_rng(0))
    moved = (probe(features[:1].float()) - probe.bias)[0]
    torch.testing.assert_close(moved, 0.01 * 768**0.5 * torch.tensor([1.0, -1]), rtol=1e-3, atol=0)
    torch.testing.assert_close(probe.bias, 0.01 * torch.tensor([1.0, -1]))


def trajectory(count, step=0.5):
    return step * np.arange(count)[:, None] * np.eye(3)[0]


def panoramas(count, dropped=()):
    """Return camera centres and the panorama of each image, as in Matterport3D, without the images ``dropped``.

    Three cameras at heights 3.3 cm apart are rotated to six directions, on circles of 3 cm; panoramas are 1.5 m apart.
    """
    turn = np.radians(60 * np.arange(6))
    circle = 0.015 * np.stack([np.cos(turn), np.sin(turn), np.zeros(6)], axis=1)
    rig = np.concatenate([circle + 0.033 * camera * np.eye(3)[2] for camera in range(3)])
    centres = np.concatenate([rig + 1.5 * k * np.eye(3)[0] for k in range(count)])
    kept = np.setdiff1d(np.arange(len(centres)), dropped)
    return centres[kept], kept // 18


@pytest.mark.parametrize(("count", "block", "share", "trained"), [(90, 18, 0.5, 36), (10, 4, 0.9, 8), (7, 1, 0.01, 1)])
def test_blocks_of_images_are_held_out(count, block, share, trained):
    wanted = SETTINGS | {"block": block, "train_fraction": share}
    splits = [split_images(trajectory(count), wanted, np.random.default_rng(seed)) for seed in range(20)]
    for train, test in splits:
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(count))
        assert not set(train // block) & set(test // block)
        assert np.all(np.diff(train) > 0)
        assert min(len(train), len(test)) > 0
    assert trained in {len(train) for train, _ in splits}
    assert len({tuple(train) for train, _ in splits}) > 1


def test_nothing_is_held_out_of_one_block():
    for centres in (trajectory(1), trajectory(5), np.zeros((7, 3))):  # the last panorama is a camera at rest
        train, test = split_images(centres, SETTINGS | {"block": 5}, np.random.default_rng(0))
        assert (len(train), len(test)) == (len(centres), 0)


def test_a_film_is_cut_every_so_many_images_and_panoramas_as_they_are():
    np.testing.assert_array_equal(blocks_of(trajectory(90), 18), np.arange(90) // 18)
    np.testing.assert_array_equal(blocks_of(trajectory(10, step=0.11), 4), np.arange(10) // 4)
    # The camera is so slow that three images are within 10 cm: blocks of 12, the first multiple of 3 that is at least
    # 10.
    np.testing.assert_array_equal(blocks_of(trajectory(60, step=0.04), 10), np.arange(60) // 12)
    centres, panorama = panoramas(5)
    np.testing.assert_array_equal(blocks_of(centres, 18), panorama)
    np.testing.assert_array_equal(blocks_of(centres, 36), panorama // 2)
    # At rest in the middle of a trajectory: 2 and 9 images, for any block size.
    stopped = np.concatenate([trajectory(2), trajectory(9, step=0) + 1, trajectory(4) + 9])
    np.testing.assert_array_equal(blocks_of(stopped, 2), [0] * 2 + [1] * 9 + [2] * 2 + [3] * 2)


@pytest.mark.parametrize("dropped", [[0], [20], [17, 18, 40], [*range(36, 53)], [*range(0, 90, 4)]])
def test_no_panorama_is_divided_whatever_images_were_dropped(dropped):
    centres, panorama = panoramas(5, dropped)
    for block in (6, 12, 18):
        number = blocks_of(centres, block)
        assert [len(set(number[panorama == k])) for k in range(5)] == [1] * 5
        held = np.bincount(number)
        assert np.all(held[:-1] >= block)
        wanted = SETTINGS | {"block": block}
        for seed in range(10):
            train, test = split_images(centres, wanted, np.random.default_rng(seed))
            assert min(len(train), len(test)) > 0
            assert not set(panorama[train]) & set(panorama[test])


def test_pixels_and_patches_find_each_other_as_in_exact_fractions():
    for cells, extent, size in ((8, 32, 32), (5, 35, 32), (7, 23, 23), (9, 4, 4), (3, 8, 10)):
        of_pixels = linear_probe._cells_of_pixels(cells, extent, size)
        of_cells = linear_probe._pixels_of_cells(cells, extent, size)
        half = Fraction(1, 2)
        assert of_pixels.tolist() == [min(floor((x + half) * cells / extent), cells - 1) for x in range(size)]
        assert of_cells.tolist() == [min(floor((q + half) * extent / cells), size) for q in range(cells)]


# Complete scenes of categories; what `classes_of` makes of labels is tested with the benchmarks that use it.


def columns_of(result, part=HELD_OUT):
    chosen = np.array(result.items["part"]) == part
    return {name: np.array(column, dtype=object)[chosen] for name, column in result.items.items()}


def value(result, metric, condition=HELD_OUT):
    (row,) = [row for row in result.rows if (row.metric, row.condition) == (metric, condition)]
    return row.value


@pytest.fixture
def labelled_scene(make_scene):
    """Return a scene of a moving camera with categories (n, rows, columns) of patches, and features (n, h, w, c)."""

    def make(patches, features, **given):
        semantic = np.repeat(np.repeat(patches, STRIDE, axis=1), STRIDE, axis=2).astype(np.uint8)
        poses = np.tile(np.eye(4), (len(patches), 1, 1))
        poses[:, :3, 3] = trajectory(len(patches))
        labels = np.where(semantic == 0, -1, 0), semantic, []
        return make_scene(poses, features, size=semantic.shape[1:], labels=labels, separate=True, **given)

    return make


def evaluate(*scenes, seed=0, **changes):
    return semantic_segmentation.evaluate(scenes, SETTINGS | changes, seed)


def unit(features):
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def test_a_perfect_prediction_scores_one_whatever_classes_are_absent(labelled_scene):
    patches = np.random.default_rng(0).integers(1, 9, (8, 5, 6))  # 8 of the 40 categories
    result = evaluate(labelled_scene(patches, np.eye(9)[patches]))
    assert len(result.rows) == 4 * 2 * 3
    for row in result.rows:
        assert row.value == pytest.approx(1.0), row
    assert sum(row.n == 8 for row in result.rows) == 4  # mAP and mIoU of both parts: absent classes give no items


def test_random_features_fit_what_they_are_trained_on_and_no_more(labelled_scene):
    rng = np.random.default_rng(0)
    k, patches = 10, rng.integers(1, 11, (16, 5, 6))
    scene = labelled_scene(patches, unit(rng.normal(0, 1, (16, 5, 6, 512))))
    result = evaluate(scene, epochs=100)
    assert value(result, "accuracy", IN_SAMPLE) > 0.95
    # The accuracy on held-out images is 1/k; if true negatives counted, it would be 0.8 or more.
    assert value(result, "accuracy") == pytest.approx(1 / k, abs=0.06)
    assert value(result, "mAP") == pytest.approx(1 / k, abs=0.06)
    assert value(result, "Jaccard") == pytest.approx(1 / (2 * k - 1), abs=0.04)
    assert value(result, "mIoU") == pytest.approx(1 / (2 * k - 1), abs=0.04)


def test_constant_features_score_the_shares_of_the_classes(labelled_scene):
    rng = np.random.default_rng(0)
    patches = rng.choice([1, 3, 4], (12, 5, 6), p=[0.6, 0.3, 0.1])
    result = evaluate(labelled_scene(patches, np.ones((12, 5, 6, 1))))
    for part in (HELD_OUT, IN_SAMPLE):
        columns = columns_of(result, part)
        share = columns["pixels"] / columns["pixels"].sum()
        np.testing.assert_allclose(columns["ap"].astype(float), share.astype(float), rtol=1e-12)
        assert value(result, "accuracy", part) == pytest.approx(share.max())
        assert value(result, "mIoU", part) == pytest.approx(share.max() / 3)


def test_pixels_without_class_are_neither_trained_nor_scored(labelled_scene):
    rng = np.random.default_rng(0)
    patches = rng.integers(1, 5, (8, 5, 6))
    features = unit(np.eye(5)[patches] + rng.normal(0, 0.4, (8, 5, 6, 5)))
    without = rng.random(patches.shape) < 0.4
    patches[without] = rng.choice([0, 41], without.sum())  # void, unlabelled
    result = evaluate(labelled_scene(patches, features))
    features[without] = unit(rng.normal(0, 1, (without.sum(), 5)))
    other = evaluate(labelled_scene(patches, features))
    assert result == other
    assert not {"void", "unlabeled"} & set(result.items["name"])
    assert sum(columns_of(result, IN_SAMPLE)["pixels"]) == STRIDE**2 * np.sum(~without)


def test_a_class_that_only_held_out_images_show_is_left_out(labelled_scene):
    rng = np.random.default_rng(0)
    patches, wanted = rng.integers(3, 7, (8, 5, 6)), np.arange(41)
    scene = labelled_scene(patches, np.eye(41)[patches])
    train, test = split_images(trajectory(8), SETTINGS, scene.rng(0, 0))
    patches[train[0], 0, 0], patches[test[0], 1, 1] = 7, 11  # only in training images; only in held-out images
    result = evaluate(labelled_scene(patches, np.eye(41)[patches]))
    columns = columns_of(result)
    assert columns["class"].tolist() == [3, 4, 5, 6, 7, 11]
    assert columns["trained"].tolist() == [True] * 5 + [False]
    assert columns["pixels"].tolist() == [
        STRIDE**2 * np.sum(patches[test] == c) for c in wanted[columns["class"].astype(int)]
    ]
    numbers = ("ap", "ap_error", "iou")
    assert [[columns[name][i] for name in numbers] for i in (4, 5)] == [[None] * 3] * 2
    assert [columns[name][5] for name in ("tp", "fp", "fn")] == [None] * 3
    for metric in linear_probe.METRICS:
        assert value(result, metric) == pytest.approx(1.0)
        assert value(result, metric, IN_SAMPLE) == pytest.approx(1.0)


def test_extractors_of_any_stride_answer_for_the_same_classes_and_pixels(labelled_scene):
    # Each image has a sofa (10) of 4 x 4 pixels in a corner, which contains no centre of a patch of 8 x 8 pixels.
    patches = np.random.default_rng(0).integers(1, 5, (8, 6, 8)).repeat(2, axis=1).repeat(2, axis=2)
    patches[:, 0, 0] = 10
    fine = evaluate(labelled_scene(patches, np.eye(11)[patches], scene="room"))
    coarse = evaluate(labelled_scene(patches, np.eye(11)[patches[:, 1::2, 1::2]], scene="room"))
    for name in ("scene", "part", "class", "trained", "pixels"):
        assert coarse.items[name] == fine.items[name]
    asked = [[(s.keys, s.weights) for s in linear_probe.samples(r.items, SETTINGS)] for r in (fine, coarse)]
    assert asked[0] == asked[1]
    for part in (HELD_OUT, IN_SAMPLE):
        columns = columns_of(coarse, part)
        assert columns["class"].tolist() == [1, 2, 3, 4, 10]
        assert [columns[name][4] for name in ("trained", "iou", "tp", "fp")] == [True, 0, 0, 0]
        assert columns["pixels"][4] == columns["fn"][4] == STRIDE**2 * (8 if part == IN_SAMPLE else 4)
        assert 0 < columns["ap"][4] < 0.2
        assert value(fine, "mIoU", part) == pytest.approx(1)
        assert value(coarse, "mIoU", part) < 0.8
    assert sum(columns["fp"]) == sum(columns["fn"])


def test_width_alone_is_no_merit(labelled_scene):
    # The same features in 64 channels, and turned into 768. They have much in common, some classes are rare, and so
    # few steps do not teach all. Without scaling, the narrow ones get half as far.
    rng = np.random.default_rng(0)
    share = np.arange(1, 31) ** -0.5
    patches = rng.choice(np.arange(1, 31), (24, 10, 12), p=share / share.sum())
    means = rng.normal(0, 1, 64) + rng.normal(0, 1, (31, 64))
    narrow = unit(means[patches] + rng.normal(0, 0.2, (*patches.shape, 64)))
    turn = np.linalg.qr(rng.normal(0, 1, (768, 64)))[0]
    results = [evaluate(labelled_scene(patches, features), epochs=2) for features in (narrow, narrow @ turn.T)]
    scores = [value(result, "mIoU") for result in results]
    assert scores[0] == pytest.approx(scores[1], abs=0.05)
    assert 0.5 < scores[1] < 0.9


def test_the_number_that_is_held_out_is_of_other_images(labelled_scene):
    # Features encode the image in addition to the class, by different channels per image: training images are
    # recognised, held-out images are not.
    rng = np.random.default_rng(0)
    patches = rng.integers(1, 5, (8, 5, 6))
    features = np.eye(40)[5 * np.arange(8)[:, None, None] + patches]
    result = evaluate(labelled_scene(patches, features))
    assert value(result, "accuracy", IN_SAMPLE) == 1
    assert value(result, "accuracy") < 0.5


def test_features_of_another_grid_that_reach_beyond_the_image(make_scene):
    # Cells of 5 x 5 pixels over 15 x 25 pixels, for images of 13 x 22; each cell has one class.
    rng = np.random.default_rng(0)
    patches = rng.integers(1, 5, (6, 3, 5))
    semantic = patches.repeat(5, axis=1).repeat(5, axis=2)[:, :13, :22].astype(np.uint8)
    # The centres of the last rows lie on the last pixel, those of the last columns beyond the image: never trained on.
    patches[:, :, 4] = 0
    features = np.eye(5)[patches]
    labels = np.zeros(semantic.shape, int), semantic, []
    poses = np.tile(np.eye(4), (6, 1, 1))
    scene = make_scene(poses, features, size=(13, 22), extent=(15, 25), labels=labels, separate=True)
    result = evaluate(scene)
    columns = columns_of(result, IN_SAMPLE)
    assert sum(columns["pixels"]) == 6 * 13 * 22
    assert sum(columns["tp"]) >= np.sum(semantic[:, :, :20] > 0)  # every pixel of a cell that was trained on
    targets = linear_probe._Patches(scene, semantic_segmentation.categories).targets.reshape(6, 3, 5)
    np.testing.assert_array_equal(targets[:, :, :4], patches[:, :, :4])
    assert np.all(targets[:, :, 4] == VOID)


def test_held_and_read_features_are_the_same(labelled_scene, monkeypatch):
    rng = np.random.default_rng(0)
    patches = rng.integers(1, 5, (6, 5, 6))
    scene = labelled_scene(patches, unit(rng.normal(0, 1, (6, 5, 6, 8))))
    held = evaluate(scene, epochs=3)
    monkeypatch.setattr(linear_probe, "HELD", 2 * 5 * 6 * 8 * 2)  # two images
    assert evaluate(scene, epochs=3) == held


def test_rows_summarise_the_items(labelled_scene):
    rng = np.random.default_rng(0)
    scenes = []
    for name, k in (("large", 12), ("small", 5)):
        patches = rng.integers(1, k, (8, 5, 6))
        features = unit(np.eye(12)[patches] + rng.normal(0, 0.5, (8, 5, 6, 12)))
        scenes.append(labelled_scene(patches, features, scene=name))
    result = evaluate(*scenes)
    columns = columns_of(result)
    for kinds, suffix in ((["thing", "stuff"], ""), (["thing"], ", things"), (["stuff"], ", stuff")):
        means = []
        for name in ("large", "small"):
            own = (columns["scene"] == name) & np.isin(columns["kind"].astype(str), kinds)
            tp, fp, fn, pixels = (columns[c][own].sum() for c in ("tp", "fp", "fn", "pixels"))
            means.append([columns["ap"][own].mean(), columns["iou"][own].mean(), tp / (tp + fp + fn), tp / pixels])
        for metric, expected in zip(linear_probe.METRICS, np.mean(means, axis=0)):
            (row,) = [r for r in result.rows if (r.metric, r.condition) == (metric, HELD_OUT + suffix)]
            assert row.value == pytest.approx(expected)
            assert row.low <= row.value <= row.high
            known = np.isin(columns["kind"].astype(str), kinds).sum()
            assert row.n == (known if metric in ("mAP", "mIoU") else 2)
    assert 0.2 < value(result, "mAP") < 1
    assert sum(columns["fp"]) == sum(columns["fn"])  # every missed pixel is predicted as another class


def test_draws_depend_on_the_seed_and_the_scene_alone(labelled_scene):
    rng = np.random.default_rng(0)
    patches = rng.integers(1, 6, (8, 5, 6))
    scene = labelled_scene(patches, unit(rng.normal(0, 1, (8, 5, 6, 16))))
    other = labelled_scene(patches, unit(rng.normal(0, 1, (8, 5, 6, 3))))
    result = evaluate(scene, epochs=4)
    assert evaluate(scene, epochs=4) == result
    assert evaluate(scene, epochs=4, seed=1) != result
    rival = evaluate(other, epochs=4)
    assert rival.items["ap"] != result.items["ap"]
    assert rival.items["pixels"] == result.items["pixels"]
    asked = [
        [(s.metric, s.condition, s.keys, s.weights) for s in linear_probe.samples(r.items, SETTINGS)]
        for r in (result, rival)
    ]
    assert asked[0] == asked[1]


def test_the_progress_of_each_probe_is_shown(labelled_scene, capsys):
    patches = np.random.default_rng(0).choice([3, 5], (6, 3, 4))
    evaluate(labelled_scene(patches, np.eye(8)[patches], scene="hall"), epochs=7)
    bars = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "7/7" in line]
    assert [bar.split(":")[0] for bar in bars] == [f"train hall, {part}" for part in (HELD_OUT, IN_SAMPLE)]
    assert all("100%" in bar for bar in bars)


def test_a_scene_of_one_image_is_scored_as_published_only(labelled_scene):
    patches = np.random.default_rng(0).integers(1, 5, (1, 5, 6))
    result = evaluate(labelled_scene(patches, np.eye(5)[patches]))
    assert set(result.items["part"]) == {IN_SAMPLE}
    assert value(result, "mAP", IN_SAMPLE) == pytest.approx(1)
    assert value(result, "mAP") is None


def test_a_scene_without_a_labelled_patch_centre_has_no_items(labelled_scene):
    patches = np.zeros((4, 6, 6), int)
    patches[:, 0, 0] = 3  # visible, but at no centre of a patch of 8 x 8 pixels
    result = evaluate(labelled_scene(patches, np.ones((4, 3, 3, 2))))
    assert {len(column) for column in result.items.values()} == {0}


def test_a_scene_without_a_labelled_pixel_has_no_items(labelled_scene):
    result = evaluate(labelled_scene(np.zeros((4, 5, 6), int), np.ones((4, 5, 6, 2))))
    assert {len(column) for column in result.items.values()} == {0}
    assert {(row.value, row.n) for row in result.rows} == {(None, 0)}


def test_images_without_a_labelled_pixel_are_no_obstacle(labelled_scene):
    patches = np.random.default_rng(0).integers(1, 5, (6, 5, 6))
    patches[::2] = 0
    result = evaluate(labelled_scene(patches, np.eye(5)[patches]), batch=1)
    assert value(result, "mAP") == pytest.approx(1)


def test_a_scene_without_labels_is_refused(make_scene):
    scene = make_scene(np.eye(4)[None], np.ones((1, 2, 2, 3)))
    with pytest.raises(DataError, match="no labels"):
        linear_probe.evaluate([scene], SETTINGS, 0, lambda labels: Classes([], [], lambda i: np.zeros((6, 8))))


def test_the_published_average_precision_is_of_patch_centres(make_scene):
    rng = np.random.default_rng(0)
    centres = rng.integers(1, 6, (8, 5, 6))
    semantic = rng.integers(1, 6, (8, 5 * STRIDE, 6 * STRIDE)).astype(np.uint8)  # arbitrary classes around the centres
    semantic[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE] = centres
    poses = np.tile(np.eye(4), (8, 1, 1))
    poses[:, :3, 3] = trajectory(8)
    labels = np.zeros_like(semantic, np.int32), semantic, []
    scene = make_scene(poses, np.eye(6)[centres], size=semantic.shape[1:], labels=labels, separate=True)
    result = evaluate(scene, patch_centres=True)
    for part in (HELD_OUT, IN_SAMPLE):
        assert value(result, "mAP of patch centres", part) == pytest.approx(1.0)
        assert value(result, "mAP", part) < 0.5
    plain = evaluate(scene)
    assert {row.metric for row in result.rows} - {row.metric for row in plain.rows} == {"mAP of patch centres"}
    assert [row for row in result.rows if row.metric in linear_probe.METRICS] == plain.rows


def test_patch_centres_rank_patches_as_their_definition(labelled_scene):
    rng = np.random.default_rng(0)
    patches = rng.integers(1, 5, (6, 5, 6))
    features = unit(np.eye(5)[patches] + rng.normal(0, 0.6, (6, 5, 6, 5)))
    result = evaluate(labelled_scene(patches, features), patch_centres=True)
    # All pixels of a patch have one class here, so pixels and centres have the same ranking.
    for part in (HELD_OUT, IN_SAMPLE):
        assert value(result, "mAP of patch centres", part) == pytest.approx(value(result, "mAP", part))
    assert 0.3 < value(result, "mAP") < 0.99
