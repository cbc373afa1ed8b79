"""Segmentation by a linear probe: can one layer on frozen features tell what a patch shows? (LoCo, LoCUS.)

A scene has a probe of its own, a 1 x 1 convolution from features to classes, trained with cross-entropy on what its
patch centres show. Each pixel then gets the classes' probabilities of the patch that it lies in: logits are brought to
the image by nearest neighbour, as in LoCo, so nothing is smoothed, and counting patch by patch is exact for pixels.

Published numbers are of the images that the probe was trained on, where features without any meaning score well too.
The main number here is of other images of the scene; the published one stands beside it.

A class counts where it occurs in the images that are scored; what is taken for another is a miss of the class that it
is. A class that no pixel of the training images shows cannot be told: its pixels are left out, as those without a label
are. One with pixels there, but none at the centre of a patch, is scored as all others: that a grid is too coarse for
it is a fault of the features. So every extractor answers for the same classes and the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import digamma
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from loco.errors import DataError
from loco.evaluation.intervals import Item
from loco.evaluation.result import EvaluatedScene, Evaluation, Sample, append
from loco.storage import Labels

VOID = -1  # of class maps: no class
LEARNING_RATE = 0.01  # as published, in LoCo and LoCUS
CHANNELS = 768  # of the features that it was published for
PLACE = 0.1  # metres; consecutive cameras so near to each other stand in one place
HELD_OUT, IN_SAMPLE = PARTS = "held-out images", "training images (as published)"
KINDS = {"": ["thing", "stuff"], ", things": ["thing"], ", stuff": ["stuff"]}
MACRO = {"mAP": "ap", "mIoU": "iou"}  # metric -> column
CENTRES = {"mAP of patch centres": "ap_centres"}  # the published mAP, where the settings ask for it
METRICS = *MACRO, "Jaccard", "accuracy"
COLUMNS = (
    "scene", "part", "class", "name", "kind", "trained", "pixels", "ap", "ap_error", "iou", "tp", "fp", "fn"
)  # fmt: skip

HELD = 2**30  # bytes of a scene's features that are held; those of further images are read whenever they are needed
BLOCK = 2**13  # patches that pass the probe at a time in training
# Of log-odds, for the ranking of pixels: from e^-16 to e^16, and odds that differ by less than 0.8 % may be one bin.
BINS, LARGEST = 2**12, 16.0


@dataclass(frozen=True)
class Classes:
    """The classes of a scene.

    Attributes:
        names: of each.
        stuff: whether each is stuff; if not, it is things.
        read: the map (h, w) of image i: indices of ``names``, :data:`VOID` for none.
    """

    names: Sequence[str]
    stuff: Sequence[bool]
    read: Callable[[int], NDArray[np.integer]]


@dataclass(frozen=True)
class Contents:
    """What the patches of an image show: ``pixels`` (m,) pixels of patch ``patch`` (m,) are of class ``shown`` (m,)."""

    patch: NDArray[np.int64]
    shown: NDArray[np.int64]
    pixels: NDArray[np.int64]


@dataclass(frozen=True)
class Tally:
    """How a probe of k classes did, in pixels.

    Attributes:
        actual: (k,), of each class.
        predicted: (k,), that were taken for each class.
        right: (k,), both.
        positive: (k, BINS), those of each class by their probability of it (:func:`bins_of`).
        total: (k, BINS), all by their probability of each class.
    """

    actual: NDArray[np.int64]
    predicted: NDArray[np.int64]
    right: NDArray[np.int64]
    positive: NDArray[np.int64]
    total: NDArray[np.int64]


def evaluate(
    scenes: Iterable[EvaluatedScene],
    settings: Mapping[str, Any],
    seed: int,
    classes_of: Callable[[Labels], Classes],
) -> Evaluation:
    """Train and score a probe a scene.

    Memory grows by 8 bytes a patch, and one a class, with the number of images. Besides, at most :data:`HELD` bytes of
    features, half precision, and two histograms of k x :data:`BINS` counts for k classes (40 MB for 600) are held.

    Args:
        scenes: test scenes with labels; each is read when its turn comes.
        settings: ``epochs``, ``batch`` (images), ``train_share`` of the images that the probe for the held-out ones is
            trained on, in blocks of about ``block`` consecutive images (:func:`split_images`), ``patch_centres``
            (False unless given).
        seed: of all draws.
        classes_of: the classes that the labels of a scene are read as.

    Returns:
        Rows "mAP", "mIoU", "Jaccard" and "accuracy" for held-out images and for training images (a probe of its own,
        trained on all images), of all classes, of things and of stuff: see :func:`samples`. With ``patch_centres``
        also "mAP of patch centres", which ranks patches by what their centres show, as published, where "mAP" ranks
        pixels. Items: the classes of
        each scene that occur in what is trained on or scored. ``trained`` says whether the training images show the
        class, be it between the centres of patches; ``pixels`` how many of it are in the scored images. Where it is
        not trained, those are left out, and scores and counts are None; ``ap`` and ``iou`` are None too where
        ``pixels`` is 0. A scene of no more than one block (a single image) has nothing to hold out: its only items
        are of training images. Where no patch centre of the training images has a label, there is nothing to train,
        and there are no items.

    Raises:
        DataError: a scene has no labels, or features that are not finite.
    """
    columns = (*COLUMNS, *CENTRES.values()) if settings.get("patch_centres") else COLUMNS
    items: dict[str, list[Any]] = {name: [] for name in columns}
    for scene in tqdm(scenes, desc="linear probe", unit="scene"):
        patches = _Patches(scene, classes_of)
        every, centres = np.arange(len(scene.frames)), scene.frames["pose"][:, :3, 3]
        parts = {HELD_OUT: split_images(centres, settings, scene.rng(seed, 0)), IN_SAMPLE: (every, every)}
        for key, (part, (trained_on, scored)) in enumerate(parts.items(), start=1):
            if len(scored):
                for row in _class_scores(patches, trained_on, scored, settings, scene.rng(seed, key)):
                    append(items, (scene.frames.scene, part, *row))
    return Evaluation([sample.row() for sample in samples(items, settings)], items)


def split_images(
    centres: NDArray[np.floating], settings: Mapping[str, Any], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The images to train on, and those that are held out; both in order.

    Neighbours in the order of the images look alike: frames of a film, views of one panorama. So images are drawn in
    blocks of consecutive ones (:func:`blocks_of`), and most held-out images have no neighbour that the probe has seen.

    Args:
        centres: (n, 3), of the cameras, world frame, metres, in the order of the images.
        settings: ``train_share`` and ``block``.
        rng: draws the blocks.

    Returns:
        About ``train_share`` of the blocks, and the others, at least one each. Of no more than one block, nothing is
        held out.
    """
    block = blocks_of(centres, settings["block"])
    blocks = block[-1] + 1
    if blocks < 2:
        return np.arange(len(block)), np.empty(0, np.int64)
    chosen = rng.permutation(blocks)[: min(max(round(settings["train_share"] * blocks), 1), blocks - 1)]
    return np.flatnonzero(np.isin(block, chosen)), np.flatnonzero(~np.isin(block, chosen))


def blocks_of(centres: NDArray[np.floating], block: int) -> NDArray[np.int64]:
    """Number of the block (n,) of each image, by the centres (n, 3) of the cameras.

    A block ends when it holds ``block`` images or more, but not between images from one place: consecutive ones whose
    centres lie within :data:`PLACE` of the first of them. So a panorama stays whole even where some of its images, or
    of those before it, were dropped. (Its three cameras in Matterport3D are a few centimetres apart, and move by some
    3 cm as they turn.)
    A film of a moving camera is cut every ``block`` images; what a camera at rest sees is one block, however long.
    """
    numbers = np.zeros(len(centres), np.int64)
    number = held = 0
    first = centres[0]
    for i, centre in enumerate(centres):
        if np.linalg.norm(centre - first) > PLACE:
            first = centre
            if held >= block:
                number, held = number + 1, 0
        numbers[i], held = number, held + 1
    return numbers


def _class_scores(
    patches: _Patches,
    trained_on: NDArray[np.integer],
    scored: NDArray[np.integer],
    settings: Mapping[str, Any],
    rng: np.random.Generator,
) -> list[tuple]:
    """The items of a part of a scene, from their third column on."""
    targets, known = patches.targets, np.flatnonzero(patches.shown[trained_on].any(axis=0))
    if np.all(targets[trained_on] == VOID):
        return []
    # The probe has an output for each known class: their numbers, and those of all others as VOID (VOID is the last).
    output = np.full(len(patches.classes.names) + 1, VOID, np.int32)
    output[known] = np.arange(len(known))
    probe = train_probe(patches.features, output[targets], trained_on, len(known), settings, rng)
    pixels = np.zeros(len(output), np.int64)
    images = (_renumbered(*patches.image(i), output, pixels) for i in scored)
    scores = dict(zip(known.tolist(), _class_numbers(score_probe(probe, images))))
    if settings.get("patch_centres"):
        centres = score_probe(probe, (_centres(patches.features(i), output[targets[i]]) for i in scored))
        for number, (ap, *_) in zip(known.tolist(), _class_numbers(centres)):
            scores[number] = (*scores[number], ap)
    nothing = [None] * (7 if settings.get("patch_centres") else 6)
    return [
        (
            number,
            patches.classes.names[number],
            "stuff" if patches.classes.stuff[number] else "thing",
            number in scores,
            int(pixels[number]),
            *scores.get(number, nothing),
        )
        for number in np.union1d(known, np.flatnonzero(pixels)).tolist()
    ]


def _renumbered(
    features: Tensor, contents: Contents, output: NDArray[np.integer], pixels: NDArray[np.int64]
) -> tuple[Tensor, Contents]:
    """An image with the probe's outputs as classes, without those that it lacks; all are counted in ``pixels``."""
    np.add.at(pixels, contents.shown, contents.pixels)
    shown = output[contents.shown]
    kept = shown != VOID
    return features, Contents(contents.patch[kept], shown[kept], contents.pixels[kept])


def _centres(features: Tensor, shown: NDArray[np.integer]) -> tuple[Tensor, Contents]:
    """An image whose patches each count once, by the class (p,) at their centre; :data:`VOID` does not count."""
    labelled = np.flatnonzero(shown != VOID)
    return features, Contents(labelled, shown[labelled].astype(np.int64), np.ones(len(labelled), np.int64))


def train_probe(
    features: Callable[[int], Tensor],
    targets: NDArray[np.integer],
    images: NDArray[np.integer],
    outputs: int,
    settings: Mapping[str, Any],
    rng: np.random.Generator,
) -> nn.Linear:
    """A linear layer from features to ``outputs`` classes, by Adam on the cross-entropy of the labelled patches.

    It starts at zero: the loss is convex, and nothing needs to be drawn but the order of the images. Steps are taken on
    a GPU, if there is one.

    A step of Adam moves each weight by about the learning rate, whatever the gradient, and so a logit by the learning
    rate times the sum of the feature's absolute values. Of a unit vector of c channels, that grows with sqrt(c), and of
    two features that tell the same, the wider would be trained faster. So in training features are scaled by
    sqrt(:data:`CHANNELS` / c): any move as far as those of the published width do. The layer that is returned is for
    features as they are.

    Args:
        features: those (p, c) of the patches of image i, half precision.
        targets: (n, p), classes of the patches of all images, :data:`VOID` for none.
        images: which to train on; those without a labelled patch are passed over, and one at least has some.
        outputs: number of classes; one without a target is only learnt not to be any of the patches.
        settings: ``epochs``, ``batch`` (images a step).
        rng: shuffles the images, epoch by epoch.
    """
    images = images[(targets[images] != VOID).any(axis=1)]
    classes = torch.from_numpy(targets)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    channels = features(images[0]).shape[1]
    scale = (CHANNELS / channels) ** 0.5
    probe = nn.Linear(channels, outputs, device=device)
    nn.init.zeros_(probe.weight), nn.init.zeros_(probe.bias)
    optimiser = torch.optim.Adam(probe.parameters(), lr=LEARNING_RATE)
    for _ in range(settings["epochs"]):
        order = rng.permutation(images)
        for start in range(0, len(order), settings["batch"]):
            batch = order[start : start + settings["batch"]]
            labelled = [classes[i] != VOID for i in batch]
            x = torch.cat([features(i)[there] for i, there in zip(batch, labelled)])
            y = torch.cat([classes[i][there] for i, there in zip(batch, labelled)]).long()
            optimiser.zero_grad()
            for some, wanted in zip(x.to(device).split(BLOCK), y.to(device).split(BLOCK)):
                (F.cross_entropy(probe(scale * some.float()), wanted, reduction="sum") / len(x)).backward()
            optimiser.step()
    with torch.no_grad():
        probe.weight *= scale
    return probe.cpu()


@torch.inference_mode()
def score_probe(probe: nn.Linear, images: Iterable[tuple[Tensor, Contents]]) -> Tally:
    """Count what a probe makes of images, one at a time.

    Args:
        probe: of k classes.
        images: features (p, c) of the patches of each, and what they show; pixels that are not named do not count.
    """
    k = probe.out_features
    actual, predicted, right = (torch.zeros(k, dtype=torch.int64) for _ in range(3))
    positive, total = (torch.zeros(k * BINS, dtype=torch.int64) for _ in range(2))
    first_bin = BINS * torch.arange(k)
    for features, contents in images:
        patch, shown, pixels = map(torch.from_numpy, (contents.patch, contents.shown, contents.pixels))
        probability = probe(features.float()).softmax(dim=1)
        area = torch.zeros(len(features), dtype=torch.int64).index_add_(0, patch, pixels)
        best = probability.argmax(dim=1)
        actual.index_add_(0, shown, pixels)
        predicted.index_add_(0, best, area)
        right.index_add_(0, shown, pixels * (best[patch] == shown))
        bins = bins_of(probability) + first_bin
        positive.index_add_(0, bins[patch, shown], pixels)
        total.scatter_add_(0, bins.flatten(), area[:, None].expand(-1, k).flatten())
    return Tally(*(counts.numpy() for counts in (actual, predicted, right, positive.view(k, -1), total.view(k, -1))))


def bins_of(probability: Tensor) -> Tensor:
    """Number of the bin of each probability: equal steps of the log-odds, whose order is that of the probabilities.

    Rare classes have small probabilities everywhere and sure ones are close to 1; bins of equal log-odds tell apart
    both.
    """
    return ((torch.logit(probability) + LARGEST) * (BINS / (2 * LARGEST))).clamp(0, BINS - 1).long()


def _class_numbers(tally: Tally) -> list[tuple]:
    """(ap, ap_error, iou, tp, fp, fn) of each class; the first three None for one that does not occur."""
    numbers = []
    for actual, predicted, tp, positive, total in zip(
        tally.actual, tally.predicted, tally.right, tally.positive, tally.total
    ):
        shares: tuple[float | None, ...] = (None,) * 3
        if actual > 0:
            shares = (*average_precision(positive, total), float(tp / (actual + predicted - tp)))
        numbers.append((*shares, int(tp), int(predicted - tp), int(actual - tp)))
    return numbers


def average_precision(positive: NDArray[np.integer], total: NDArray[np.integer]) -> tuple[float, float]:
    """Average precision of a ranking, from histograms of its scores.

    AP is the sum over thresholds t of (R_t - R_(t-1)) P_t, of recall R and precision P (Manning et al. 2008, ch. 8, not
    interpolated). What has equal scores passes a threshold together: a constant score is worth the share of the
    positives, and doubling every pixel changes nothing. Here whole bins pass together.

    Args:
        positive: (bins,), how many of those to be found are in each bin; at least one in all. Scores rise with bins.
        total: (bins,), how many of all.

    Returns:
        AP, and by how much the AP of the exact scores can differ from it at most. Within a bin of p positives and n
        others, behind P positives and N others, the precision of the i-th positive is at least
        (P + i) / (P + i + N + n), and at most (P + p) / (P + p + N).
    """
    p, n = positive[::-1].astype(np.float64), (total - positive)[::-1].astype(np.float64)
    filled = p > 0
    through, others = np.cumsum(p)[filled], np.cumsum(n)[filled]
    p, before = p[filled], others - n[filled]
    ap = np.sum(p * through / (through + others))
    highest = np.sum(p * through / (through + before))
    # The sum over i of 1 - (N + n) / (P + i + N + n).
    lowest = np.sum(p - others * (digamma(through + others + 1) - digamma(through - p + others + 1)))
    return float(ap / p.sum()), float(max(highest - ap, ap - lowest, 0.0) / p.sum())


def samples(items: Mapping[str, list[Any]], settings: Mapping[str, Any]) -> list[Sample]:
    """What each row of :func:`evaluate` is the mean of, from its items.

    Rows are means over scenes. "mAP" and "mIoU" are the mean over a scene's classes of AP and of intersection over
    union TP / (TP + FP + FN); the items of their intervals are the classes of all scenes. In "Jaccard",
    TP / (TP + FP + FN) of sums over the classes, and "accuracy", the share of pixels that are right, a few large
    classes decide, so that classes are no sample of anything: the items of their intervals are the scenes.
    """
    table = pd.DataFrame(items)
    table = table[table["iou"].notna()]
    found = []
    for metric, part, (name, kinds) in product(_metrics(settings), PARTS, KINDS.items()):
        rows = table[(table["part"] == part) & table["kind"].isin(kinds)]
        if metric in CENTRES:
            rows = rows[rows[CENTRES[metric]].notna()]
        found.append(Sample(metric, part + name, *_scores(metric, rows)))
    return found


def _metrics(settings: Mapping[str, Any]) -> tuple[str, ...]:
    return (*METRICS, *CENTRES) if settings.get("patch_centres") else METRICS


def _scores(metric: str, rows: pd.DataFrame) -> tuple[list[Item], list[float], list[float] | None]:
    """Keys, values and weights of a :class:`Sample`."""
    if metric in (columns := MACRO | CENTRES):
        share = 1 / rows.groupby("scene")["class"].transform("size")
        keys = [Item(scene, part=(name,)) for scene, name in zip(rows["scene"], rows["class"])]
        return keys, rows[columns[metric]].tolist(), share.tolist()
    of_scenes = rows.groupby("scene", sort=False)[["tp", "fp", "fn", "pixels"]].sum()
    whole = of_scenes[["tp", "fp", "fn"]].sum(axis=1) if metric == "Jaccard" else of_scenes["pixels"]
    return [Item(scene) for scene in of_scenes.index], (of_scenes["tp"] / whole).tolist(), None


class _Patches:
    """The patches of a scene: cells of the feature map, and the pixels that lie in them.

    Attributes:
        classes: of the scene.
        targets: (n, p) int32, classes at the patch centres of each image; :data:`VOID` for none, or beyond the image.
        shown: (n, classes) bool, whether any pixel of the image is of the class.
    """

    def __init__(self, scene: EvaluatedScene, classes_of: Callable[[Labels], Classes]) -> None:
        if scene.labels is None:
            raise DataError(
                "has no labels to judge segmentation by",
                file=scene.frames.path,
                scene=scene.frames.scene,
                remedy="give its dataset a `labels` block in the configuration",
            )
        self.classes = classes_of(scene.labels)
        self._features = scene.features
        self._held: dict[int, Tensor] = {}
        maps = scene.features["features"]
        self._most_held = HELD // maps[0].nbytes
        sides = list(zip(maps.shape[1:3], scene.features.extent, scene.frames.size))
        row, column = (_cells_of_pixels(*side) for side in sides)
        self._patch = row[:, None] * maps.shape[2] + column  # (height, width), of each pixel
        centres = np.ix_(*(_pixels_of_cells(*side) for side in sides))
        self.targets = np.empty((len(scene.frames), maps.shape[1] * maps.shape[2]), np.int32)
        self.shown = np.zeros((len(scene.frames), len(self.classes.names)), bool)
        for i, (targets, shown) in enumerate(zip(self.targets, self.shown)):
            edged = np.pad(self.classes.read(i), (0, 1), constant_values=VOID)
            targets[:] = edged[centres].ravel()
            shown[edged[edged != VOID]] = True

    def features(self, i: int) -> Tensor:
        """Those (p, c) of the patches of image i, half precision."""
        if i in self._held:
            return self._held[i]
        features = torch.from_numpy(self._features.map(i)).flatten(0, 1)
        if len(self._held) < self._most_held:
            self._held[i] = features
        return features

    def image(self, i: int) -> tuple[Tensor, Contents]:
        """Features of image i and what its patches show, pixels without class left out."""
        shown = self.classes.read(i)
        labelled = shown != VOID
        pairs, pixels = np.unique(self._patch[labelled] * len(self.classes.names) + shown[labelled], return_counts=True)
        return self.features(i), Contents(*np.divmod(pairs, len(self.classes.names)), pixels)


def _cells_of_pixels(cells: int, extent: int, size: int) -> NDArray[np.int64]:
    """Along a side: the cell (size,) that each pixel centre lies in, the last one if it lies beyond the map."""
    return np.minimum((2 * np.arange(size) + 1) * cells // (2 * extent), cells - 1)


def _pixels_of_cells(cells: int, extent: int, size: int) -> NDArray[np.int64]:
    """Along a side: the pixel (cells,) that holds each cell centre, ``size`` if it lies beyond the image."""
    return np.minimum((2 * np.arange(cells) + 1) * extent // (2 * cells), size)
