"""Segmentation by a linear probe: one layer on frozen features predicts what a patch shows (LoCo, LoCUS).

Each scene has its own probe, a 1 x 1 convolution from features to classes, trained with cross-entropy on the classes at
the patch centres. Each pixel then gets the class probabilities of the patch in which it lies: logits are upsampled by
nearest neighbour, as in LoCo. Counting per patch is therefore exact for pixels.

Published numbers are computed on the training images of the probe, where meaningless features also score well. The main
number here is computed on held-out images of the scene; the published one is reported beside it.

A class is scored if it occurs in the scored images; pixels that are predicted as another class are false negatives of
their true class. A class without any pixel in the training images cannot be learnt: its pixels are left out, like those
without a label. A class with training pixels, but none at the centre of a patch, is scored like all others, because a
grid that is too coarse for it is a weakness of the features. Every extractor is therefore evaluated on the same classes
and the same pixels.
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

VOID = -1  # value of class maps for "no class"
LEARNING_RATE = 0.01  # as published, in LoCo and LoCUS
CHANNELS = 768  # of the features for which the learning rate was published
PLACE = 0.1  # metres; consecutive cameras within this distance count as one position
HELD_OUT, IN_SAMPLE = PARTS = "held-out images", "training images (as published)"
KINDS = {"": ["thing", "stuff"], ", things": ["thing"], ", stuff": ["stuff"]}
MACRO = {"mAP": "ap", "mIoU": "iou"}  # metric -> column
CENTRES = {"mAP of patch centres": "ap_centres"}  # the published mAP, if the settings request it
METRICS = *MACRO, "Jaccard", "accuracy"
COLUMNS = (
    "scene", "part", "class", "name", "kind", "trained", "pixels", "ap", "ap_error", "iou", "tp", "fp", "fn"
)  # fmt: skip

HELD = 2**30  # bytes of a scene's features held in memory; features of further images are read on each use
BLOCK = 2**13  # patches per forward pass in training
# Bins of log-odds, for ranking pixels: from e^-16 to e^16; odds that differ by less than 0.8 % may share a bin.
BINS, LARGEST = 2**12, 16.0


@dataclass(frozen=True)
class Classes:
    """The classes of a scene.

    Attributes:
        names: name of each class.
        stuff: whether each class is stuff; the others are things.
        read: returns the class map (h, w) of image i: indices of ``names``, :data:`VOID` for none.
    """

    names: Sequence[str]
    stuff: Sequence[bool]
    read: Callable[[int], NDArray[np.integer]]


@dataclass(frozen=True)
class Contents:
    """Classes in the patches of an image: ``pixels`` (m,) pixels of ``patch`` (m,) are of class ``shown`` (m,)."""

    patch: NDArray[np.int64]
    shown: NDArray[np.int64]
    pixels: NDArray[np.int64]


@dataclass(frozen=True)
class Tally:
    """Pixel counts of the predictions of a probe of k classes.

    Attributes:
        actual: (k,), pixels of each class.
        predicted: (k,), pixels predicted as each class.
        right: (k,), pixels of each class that are predicted as this class.
        positive: (k, BINS), pixels of each class, by their probability of this class (:func:`bins_of`).
        total: (k, BINS), all pixels, by their probability of each class.
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
    """Train and score one probe per scene.

    Memory grows with the number of images, by 8 bytes per patch and 1 byte per class. In addition, at most :data:`HELD`
    bytes of half-precision features and two histograms of k x :data:`BINS` counts for k classes (40 MB for 600) are
    held.

    Args:
        scenes: test scenes with labels, read one at a time.
        settings: ``epochs``, ``batch`` (images), ``train_fraction``, the fraction of images on which the probe for the
            held-out images is trained, in blocks of about ``block`` consecutive images (:func:`split_images`),
            ``patch_centres`` (default False).
        seed: seed of all draws.
        classes_of: returns the classes of the labels of a scene.

    Returns:
        Rows "mAP", "mIoU", "Jaccard" and "accuracy" for held-out images and for training images (a separate probe,
        trained on all images), for all classes, for things and for stuff (:func:`samples`). With ``patch_centres``
        also "mAP of patch centres", which ranks patches by the class at their centre, as published, whereas "mAP" ranks
        pixels. Items: the classes of each scene that occur in the training or the scored images. ``trained`` states
        whether the training images show the class, possibly between the patch centres; ``pixels`` is the number of its
        pixels in the scored images. If a class is not trained, its pixels are left out, and scores and counts are None;
        ``ap`` and ``iou`` are also None if ``pixels`` is 0. A scene of at most one block (a single image) has no
        held-out images: its only items are of training images. If no patch centre of the training images has a label,
        no probe is trained and there are no items.

    Raises:
        DataError: a scene has no labels, or features that are not finite.
    """
    columns = (*COLUMNS, *CENTRES.values()) if settings.get("patch_centres") else COLUMNS
    items: dict[str, list[Any]] = {name: [] for name in columns}
    for scene in scenes:
        patches = _Patches(scene, classes_of)
        every, centres = np.arange(len(scene.frames)), scene.frames["pose"][:, :3, 3]
        parts = {HELD_OUT: split_images(centres, settings, scene.rng(seed, 0)), IN_SAMPLE: (every, every)}
        for key, (part, (trained_on, scored)) in enumerate(parts.items(), start=1):
            if len(scored):
                name = f"{scene.frames.scene}, {part}"
                for row in _class_scores(patches, trained_on, scored, settings, scene.rng(seed, key), name):
                    append(items, (scene.frames.scene, part, *row))
    return Evaluation([sample.row() for sample in samples(items, settings)], items)


def split_images(
    centres: NDArray[np.floating], settings: Mapping[str, Any], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the training images and the held-out images, both in order.

    Consecutive images look alike: frames of a video, views of one panorama. Images are therefore drawn in blocks of
    consecutive images (:func:`blocks_of`), so that most held-out images have no neighbour among the training images.

    Args:
        centres: (n, 3), of the cameras, world frame, metres, in the order of the images.
        settings: ``train_fraction`` and ``block``.
        rng: random number generator that draws the blocks.

    Returns:
        The images of about ``train_fraction`` of the blocks, and the others, at least one block each. If there is only
        one block, nothing is held out.
    """
    block = blocks_of(centres, settings["block"])
    blocks = block[-1] + 1
    if blocks < 2:
        return np.arange(len(block)), np.empty(0, np.int64)
    chosen = rng.permutation(blocks)[: min(max(round(settings["train_fraction"] * blocks), 1), blocks - 1)]
    return np.flatnonzero(np.isin(block, chosen)), np.flatnonzero(~np.isin(block, chosen))


def blocks_of(centres: NDArray[np.floating], block: int) -> NDArray[np.int64]:
    """Return the block index (n,) of each image, from the camera centres (n, 3).

    A block ends when it has ``block`` images or more, but never between images of one position: consecutive images
    whose centres lie within :data:`PLACE` of the first of them. A panorama is thus never divided, even if some of its
    images, or of those before it, were dropped. (Its three cameras in Matterport3D are centimetres apart, and move by
    some 3 cm as they turn.) The video of a moving camera is cut every ``block`` images; the images of a static camera
    form one block, however long.
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
    name: str,
) -> list[tuple]:
    """Return the items of a part of a scene, from their third column on; ``name`` is shown in the progress bars."""
    targets, known = patches.targets, np.flatnonzero(patches.shown[trained_on].any(axis=0))
    if np.all(targets[trained_on] == VOID):
        return []
    # The probe has an output per trained class: map class indices to outputs, and all other classes to VOID (the last).
    output = np.full(len(patches.classes.names) + 1, VOID, np.int32)
    output[known] = np.arange(len(known))
    probe = train_probe(patches.features, output[targets], trained_on, len(known), settings, rng, name)
    pixels = np.zeros(len(output), np.int64)
    progress = tqdm(scored, desc=f"score {name}", unit="image", delay=2, mininterval=1)
    images = (_renumbered(*patches.image(i), output, pixels) for i in progress)
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
    """Return an image with the probe's outputs as classes, without other classes; ``pixels`` counts all of them."""
    np.add.at(pixels, contents.shown, contents.pixels)
    shown = output[contents.shown]
    not_void = shown != VOID
    return features, Contents(contents.patch[not_void], shown[not_void], contents.pixels[not_void])


def _centres(features: Tensor, shown: NDArray[np.integer]) -> tuple[Tensor, Contents]:
    """Return an image whose patches each count once, by the class (p,) at their centre; :data:`VOID` does not count."""
    labelled = np.flatnonzero(shown != VOID)
    return features, Contents(labelled, shown[labelled].astype(np.int64), np.ones(len(labelled), np.int64))


def train_probe(
    features: Callable[[int], Tensor],
    targets: NDArray[np.integer],
    images: NDArray[np.integer],
    outputs: int,
    settings: Mapping[str, Any],
    rng: np.random.Generator,
    name: str = "probe",
) -> nn.Linear:
    """Train a linear layer from features to ``outputs`` classes by Adam, on the cross-entropy of the labelled patches.

    The layer starts at zero: the loss is convex, so only the order of the images is random. Training runs on a GPU, if
    there is one.

    A step of Adam moves each weight by about the learning rate, for any gradient, and thus a logit by the learning
    rate times the L1 norm of the feature. For an L2-normalised feature of c channels, the L1 norm grows with sqrt(c),
    so that of two equally informative features the wider one would be trained faster. In training, features are
    therefore scaled by sqrt(:data:`CHANNELS` / c), so that the step size is that of the published width. The returned
    layer applies to unscaled features.

    Args:
        features: returns the features (p, c) of the patches of image i, half precision.
        targets: (n, p), classes of the patches of all images, :data:`VOID` for none.
        images: training images; those without a labelled patch are skipped, and at least one has labelled patches.
        outputs: number of classes; classes without a target have negative samples only.
        settings: ``epochs``, ``batch`` (images per step).
        rng: random number generator that shuffles the images in each epoch.
        name: text of the progress bar.

    Returns:
        The layer, on the CPU.
    """
    images = images[(targets[images] != VOID).any(axis=1)]
    classes = torch.from_numpy(targets)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    channels = features(images[0]).shape[1]
    scale = (CHANNELS / channels) ** 0.5
    probe = nn.Linear(channels, outputs, device=device)
    nn.init.zeros_(probe.weight), nn.init.zeros_(probe.bias)
    optimiser = torch.optim.Adam(probe.parameters(), lr=LEARNING_RATE)
    for _ in tqdm(range(settings["epochs"]), desc=f"train {name}", unit="epoch", mininterval=1):
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
    """Count the predictions of a probe on images, read one at a time.

    Args:
        probe: probe of k classes.
        images: features (p, c) of the patches of each image, and their classes; pixels that are not listed do not
            count.
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
    """Return the bin index of each probability. Bins have equal width in log-odds, which are monotonic in probability.

    Rare classes have small probabilities everywhere, and confident predictions are close to 1; bins of equal log-odds
    resolve both.
    """
    return ((torch.logit(probability) + LARGEST) * (BINS / (2 * LARGEST))).clamp(0, BINS - 1).long()


def _class_numbers(tally: Tally) -> list[tuple]:
    """Return (ap, ap_error, iou, tp, fp, fn) of each class; the first three are None for classes that do not occur."""
    numbers = []
    for actual, predicted, tp, positive, total in zip(
        tally.actual, tally.predicted, tally.right, tally.positive, tally.total
    ):
        scores: tuple[float | None, ...] = (None,) * 3
        if actual > 0:
            scores = (*average_precision(positive, total), float(tp / (actual + predicted - tp)))
        numbers.append((*scores, int(tp), int(predicted - tp), int(actual - tp)))
    return numbers


def average_precision(positive: NDArray[np.integer], total: NDArray[np.integer]) -> tuple[float, float]:
    """Return the average precision of a ranking, from histograms of its scores.

    AP is the sum over thresholds t of (R_t - R_(t-1)) P_t, of recall R and precision P (Manning et al. 2008, ch. 8, not
    interpolated). Equal scores pass a threshold together: a constant score has the fraction of positives as its AP, and
    duplicating every pixel changes nothing. Here, whole bins pass together.

    Args:
        positive: (bins,), number of positives in each bin; at least one in total. Scores increase with the bin index.
        total: (bins,), number of all samples in each bin.

    Returns:
        The AP, and an upper bound of its difference from the AP of the exact scores. Within a bin of p positives and n
        negatives, after P positives and N negatives, the precision of the i-th positive is at least (P + i) / (P + i +
        N + n), and at most (P + p) / (P + p + N).
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
    """Return the scores that each row of :func:`evaluate` averages, computed from the items of all classes.

    Rows are means over scenes. "mAP" and "mIoU" are the means over a scene's classes of AP and of intersection over
    union, TP / (TP + FP + FN); the items of their intervals are the classes of all scenes. "Jaccard", TP / (TP + FP +
    FN) of the sums of TP, FP and FN over the classes, and "accuracy", the fraction of correct pixels, are dominated by
    a few large classes, so the items of their intervals are the scenes, not the classes.
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
    """Return the keys, values and weights of a :class:`Sample`."""
    if metric in (columns := MACRO | CENTRES):
        weight = 1 / rows.groupby("scene")["class"].transform("size")
        keys = [Item(scene, part=(name,)) for scene, name in zip(rows["scene"], rows["class"])]
        return keys, rows[columns[metric]].tolist(), weight.tolist()
    of_scenes = rows.groupby("scene", sort=False)[["tp", "fp", "fn", "pixels"]].sum()
    whole = of_scenes[["tp", "fp", "fn"]].sum(axis=1) if metric == "Jaccard" else of_scenes["pixels"]
    return [Item(scene) for scene in of_scenes.index], (of_scenes["tp"] / whole).tolist(), None


class _Patches:
    """The patches of a scene: cells of the feature map, and the pixels that lie in them.

    Attributes:
        classes: classes of the scene.
        targets: (n, p) int32, classes at the patch centres of each image; :data:`VOID` for none, or beyond the image.
        shown: (n, classes) bool, whether the image has a pixel of the class.
    """

    def __init__(self, scene: EvaluatedScene, classes_of: Callable[[Labels], Classes]) -> None:
        if scene.labels is None:
            raise DataError(
                "the scene has no labels, which segmentation requires",
                file=scene.frames.path,
                scene=scene.frames.scene,
                remedy="add a `labels` block to its dataset in the configuration",
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
        """Return the features (p, c) of the patches of image i, half precision."""
        if i in self._held:
            return self._held[i]
        features = torch.from_numpy(self._features.map(i)).flatten(0, 1)
        if len(self._held) < self._most_held:
            self._held[i] = features
        return features

    def image(self, i: int) -> tuple[Tensor, Contents]:
        """Return the features of image i and the classes in its patches, without the pixels that have no class."""
        shown = self.classes.read(i)
        labelled = shown != VOID
        pairs, pixels = np.unique(self._patch[labelled] * len(self.classes.names) + shown[labelled], return_counts=True)
        return self.features(i), Contents(*np.divmod(pairs, len(self.classes.names)), pixels)


def _cells_of_pixels(cells: int, extent: int, size: int) -> NDArray[np.int64]:
    """Return the cell (size,) of each pixel centre along a side; the last cell for centres beyond the map."""
    return np.minimum((2 * np.arange(size) + 1) * cells // (2 * extent), cells - 1)


def _pixels_of_cells(cells: int, extent: int, size: int) -> NDArray[np.int64]:
    """Return the pixel (cells,) of each cell centre along a side; ``size`` for centres beyond the image."""
    return np.minimum((2 * np.arange(cells) + 1) * extent // (2 * cells), size)
