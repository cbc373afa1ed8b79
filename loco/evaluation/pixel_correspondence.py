"""Pixel correspondences between posed images: Probe3D's protocol (El Banani et al. 2024, section 3.2 and appendix).

Every pixel of image A with known depth is matched to the pixel of image B with the most similar feature. Matches are
scored by the ratio test on cosine distances D = 1 - cosine similarity, 1 - D1 / D2 for the two nearest pixels of B,
and the best 1000 are kept. The error of a match is the distance in B, in pixels, to where A's 3D point projects;
recall is the share of matches with an error below a threshold. One direction; nothing is filtered by occlusion or by
the borders of B: a point that B does not see counts as whatever its match makes of it.

Features are of the whole frames; pixels are those of frames made smaller by ``step``, of which every step-th row and
column is a pixel. Probe3D has frames of 480 x 640 and a step of 4: it matches, and measures, at 120 x 160.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise, product, zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from loco.errors import DataError
from loco.evaluation.result import EvaluatedScene, Evaluation, Sample
from loco.geometry.cameras import backproject, pixel_centres, project, relative_rotation_angle, scale_intrinsics
from loco.geometry.image_pairs import mutual_overlap, overlapping_pairs
from loco.geometry.sampling import sample_features, sampling_grid
from loco.storage import Frames

OBSERVED = [Frames.SOURCES.index("sensor"), Frames.SOURCES.index("mesh")]  # an inpainted depth is a guess
RESOLUTION = 1e-6  # of cosines in float32: distances below it are equal
Extent = tuple[float, float]
BLOCK = 64  # pixels matched at a time: their similarities stay in the cache (5 MB at 128 x 160)


@dataclass(frozen=True)
class Pair:
    """Two images of a scene, A before B.

    Attributes:
        scene: number of the scene.
        a: number of image A.
        b: number of image B.
        angle: rotation between them, degrees.
        overlap: share that each sees of the other, the mean of the two.
        bin: number of the rotation bin.
    """

    scene: int
    a: int
    b: int
    angle: float
    overlap: float
    bin: int


def evaluate(scenes: Iterable[EvaluatedScene], settings: Mapping[str, Any], seed: int = 0) -> Evaluation:
    """Recall of pixel correspondences, by how far the camera turned.

    Args:
        scenes: test scenes, all open at once (the pairs are spread over them), frames of one size.
        settings: ``pairs_per_bin`` over all scenes, ``min_overlap``, ``rotation_bins`` (edges, degrees), ``step`` (1 if
            not given), ``thresholds`` (pixels), ``matches`` to keep a pair, ``bootstrap``.
        seed: of all draws.

    Returns:
        A row "recall@10px" for every threshold and bin ("30-60 deg"), and for "all" pairs: mean over pairs of the
        recall in a pair, interval over pairs; value None where there is no pair. Items: the pairs. One without a
        pixel of observed depth in A has ``n_matches`` 0, None as recall and error, and is in no row; a median error
        is None where half the matches or more are of points behind B.

    Raises:
        DataError: frames differ in size, so that pixel thresholds would mean different things.
    """
    scenes = list(scenes)
    _require_one_size(scenes)
    pairs = draw_pairs(scenes, settings, seed)
    names = [scene.frames.names for scene in scenes]
    items: dict[str, list[Any]] = {name: [] for name in ("scene", "a", "b", "angle", "overlap", "n_matches")}
    items |= {_recall(threshold): [] for threshold in settings["thresholds"]} | {"median_error": []}
    for pair in tqdm(pairs, desc="pixel correspondence", unit="pair"):
        scene = scenes[pair.scene]
        rng = scene.rng(seed, pair.a, pair.b)
        errors = _pair_errors(scene, pair, settings.get("step", 1), settings["matches"], rng)
        named = (scene.frames.scene, names[pair.scene][pair.a], names[pair.scene][pair.b])
        row = (*named, pair.angle, pair.overlap, len(errors), *_summary(errors, settings["thresholds"]))
        for column, entry in zip(items.values(), row):
            column.append(entry)
    return Evaluation([sample.row(settings["bootstrap"], seed) for sample in samples(items, settings)], items)


def draw_pairs(scenes: Sequence[EvaluatedScene], settings: Mapping[str, Any], seed: int) -> list[Pair]:
    """Draw at most ``pairs_per_bin`` pairs a rotation bin, as evenly from all scenes as they allow.

    Images of a pair overlap by ``min_overlap`` and were taken ``min_baseline`` apart. Bins hold their lower edge; the
    last one its upper edge too.
    """
    edges = np.asarray(settings["rotation_bins"], dtype=np.float64)
    candidates = [_candidates(scene, settings) for scene in scenes]
    pairs = []
    for number in range(len(edges) - 1):
        decks = []
        for s, (scene, (a, b, angle, overlap)) in enumerate(zip(scenes, candidates)):
            in_bin = np.flatnonzero(rotation_bin(angle, edges) == number)
            deck = scene.rng(seed, number).permutation(in_bin)
            decks.append([Pair(s, int(a[i]), int(b[i]), float(angle[i]), float(overlap[i]), number) for i in deck])
        pairs += islice(_deal(decks), settings["pairs_per_bin"])
    return sorted(pairs, key=lambda pair: (pair.bin, pair.scene, pair.a, pair.b))


def _candidates(scene: EvaluatedScene, settings: Mapping[str, Any]) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Pairs a < b (m,) each, the angles between them (m,) in degrees, and their mutual overlaps (m,)."""
    poses, overlap = scene.frames["pose"][:], scene.correspondences["overlap"][:]
    a, b = np.nonzero(np.triu(overlapping_pairs(poses, overlap, settings["min_overlap"], settings["min_baseline"])))
    return a, b, relative_rotation_angle(poses[a], poses[b]), mutual_overlap(overlap)[a, b]


def rotation_bin(angles: NDArray[np.floating], edges: NDArray[np.floating]) -> NDArray[np.integer]:
    """Number of the bin that holds each angle: lower edges belong to it, as does the last one's upper edge.

    Angles outside all bins get -1 or len(edges) - 1.
    """
    number = np.searchsorted(edges, angles, side="right") - 1
    return np.where(angles == edges[-1], len(edges) - 2, number)


def match(
    map_a: Tensor,
    map_b: Tensor,
    uv: NDArray[np.floating],
    size: tuple[int, int],
    count: int,
    rng: np.random.Generator,
    extent: Extent | None = None,
) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    """Most distinctive matches of pixels of A among all pixels of B.

    Args:
        map_a: feature map (h, w, c) of A.
        map_b: feature map of B.
        uv: (m, 2), pixels of A; at least one.
        size: (height, width) of both images.
        count: how many matches to keep.
        rng: chooses among equal scores.
        extent: (height, width), pixels, of what the maps cover; that of the images if None.

    Returns:
        Which of ``uv`` (k,), and where in B they are matched (k, 2), best first; k = min(count, m).
    """
    shuffled = rng.permutation(len(uv))
    queries = sample_features(map_a, torch.from_numpy(uv[shuffled]), extent or size)
    similarity, nearest = two_nearest(queries, map_b, size, extent)
    distance = (1 - similarity).clamp(min=RESOLUTION)
    best = torch.argsort(1 - distance[:, 0] / distance[:, 1], descending=True, stable=True)[:count]
    return shuffled[best.numpy()], pixel_centres(*size).reshape(-1, 2)[nearest[best].numpy()]


def two_nearest(
    features: Tensor, feature_map: Tensor, size: tuple[int, int], extent: Extent | None = None
) -> tuple[Tensor, Tensor]:
    """Exact two most similar pixels of an image.

    A pixel's feature is sum_i w_i b_i / |sum_i w_i b_i| over its four neighbours b_i on the map (bilinear). Inner
    products pass through the sum, so features are multiplied with the map's few cells and the products interpolated
    to the pixels: the cost for each pixel does not grow with the number of channels.

    Args:
        features: (m, c), unit rows; at least one.
        feature_map: (h, w, c).
        size: (height, width) of the image.
        extent: (height, width), pixels, of what the map covers; the image if None.

    Returns:
        Cosine similarities (m, 2), larger first, and the index (m,) of the nearest pixel, row by row.
    """
    h, w, c = feature_map.shape
    height, width = size
    extent = extent or size
    cells = feature_map.float()
    norm = _to_pixels(cells, size, extent).norm(dim=2, keepdim=True).clamp(min=1e-12)
    similarity, nearest = [], []
    for block in features.split(BLOCK):
        similarities = _to_pixels((cells.reshape(-1, c) @ block.T).view(h, w, -1), size, extent)
        similarities /= norm  # (height, width, m)
        # The two best pixels lie in the two best rows.
        rows = similarities.amax(dim=1).topk(min(2, height), dim=0).indices
        pixels = similarities[rows, :, torch.arange(len(block))].permute(1, 0, 2).flatten(1)
        best = pixels.topk(2, dim=1)
        row = rows.T.gather(1, best.indices[:, :1] // width)[:, 0]
        similarity.append(best.values)
        nearest.append(row * width + best.indices[:, 0] % width)
    return torch.cat(similarity), torch.cat(nearest)


def _to_pixels(cells: Tensor, size: tuple[int, int], extent: Extent) -> Tensor:
    """Interpolate a map (h, w, k) at the pixel centres, (height, width, k), as :func:`sample_features` does."""
    channels_last = cells[None].permute(0, 3, 1, 2)  # in these strides, or PyTorch copies everything to others
    if all(float(side).is_integer() for side in extent):
        whole = [int(side) for side in extent]
        pixels = F.interpolate(channels_last, whole, mode="bilinear", align_corners=False)
    else:  # several times slower
        places = sampling_grid(torch.from_numpy(pixel_centres(*size)), extent)[None]
        pixels = F.grid_sample(channels_last, places, padding_mode="border", align_corners=False)
    return pixels[0, :, : size[0], : size[1]].permute(1, 2, 0)


def _pair_errors(
    scene: EvaluatedScene, pair: Pair, step: int, count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Errors (k,) in pixels of the kept matches of a pair; infinite for points behind B."""
    frames, maps = scene.frames, scene.features["features"]
    uv, z = observed_pixels(frames["depth"][pair.a], frames["source"][pair.a], step)
    if len(uv) == 0:
        return np.empty(0)
    map_a, map_b = (torch.from_numpy(maps[i]) for i in (pair.a, pair.b))
    height, width = (side // step for side in frames.size)
    extent = tuple(side / step for side in scene.features.extent)
    kept, matched = match(map_a, map_b, uv, (height, width), count, rng, extent)
    k_a, k_b = scale_intrinsics(frames["intrinsics"][[pair.a, pair.b]], (step * height, step * width), (height, width))
    points = backproject(uv[kept], z[kept], k_a, frames["pose"][pair.a])
    return reprojection_errors(points, matched, k_b, frames["pose"][pair.b])


def observed_pixels(
    depth: NDArray[np.floating], source: NDArray[np.integer], step: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (m, 2) and z-depths (m,) of the pixels whose depth was measured or read off the mesh.

    Of a frame made smaller by ``step``: the pixel nearest to the middle of each step x step block (the last of the four
    of an even step), its centre in pixels of the smaller frame.
    """
    middle = slice(step // 2, None, step)
    rows, columns = (side // step for side in depth.shape)
    depth, source = (values[middle, middle][:rows, :columns] for values in (depth, source))
    observed = (depth > 0) & np.isin(source, OBSERVED)
    centres = (np.argwhere(observed)[:, ::-1] * step + step // 2 + 0.5) / step
    return centres, depth[observed].astype(np.float64)


def reprojection_errors(
    points: NDArray[np.floating], uv: NDArray[np.floating], intrinsics: NDArray[np.floating], pose: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Distances (m,), pixels, from ``uv`` (m, 2) to the projections of ``points`` (m, 3); infinite behind the image."""
    projected, z = project(points, intrinsics, pose)
    with np.errstate(invalid="ignore"):
        return np.where(z > 0, np.linalg.norm(projected - uv, axis=1), np.inf)


def _summary(errors: NDArray[np.float64], thresholds: Sequence[float]) -> list[float | None]:
    """Recall at each threshold, and the median error; None where there is none."""
    if len(errors) == 0:
        return [None] * (len(thresholds) + 1)
    median = float(np.median(errors))
    return [*(float(np.mean(errors < threshold)) for threshold in thresholds), median if np.isfinite(median) else None]


def samples(items: Mapping[str, list[Any]], settings: Mapping[str, Any]) -> list[Sample]:
    """The recalls that each row of :func:`evaluate` is the mean of, from its items."""
    edges = settings["rotation_bins"]
    bins = rotation_bin(np.asarray(items["angle"]), np.asarray(edges)).tolist()
    conditions: dict[str, set[int]] = {f"{low:g}-{high:g} deg": {i} for i, (low, high) in enumerate(pairwise(edges))}
    conditions["all"] = set(bins)
    pairs = list(zip(items["scene"], items["a"], items["b"]))
    found = []
    for metric, (condition, chosen) in product(map(_recall, settings["thresholds"]), conditions.items()):
        rows = [(key, r) for key, r, b in zip(pairs, items[metric], bins) if b in chosen and r is not None]
        found.append(Sample(metric, condition, [key for key, _ in rows], [recall for _, recall in rows]))
    return found


def _recall(threshold: float) -> str:
    return f"recall@{threshold:g}px"


def _deal(decks: Sequence[Sequence[Pair]]) -> Iterator[Pair]:
    """One from each deck, then another from each, until all are dealt."""
    for hand in zip_longest(*decks):
        yield from (card for card in hand if card is not None)


def _require_one_size(scenes: Sequence[EvaluatedScene]) -> None:
    for scene in scenes[1:]:
        if scene.frames.size != scenes[0].frames.size:
            raise DataError(
                "has frames of another size than the other test scenes: pixel thresholds would not mean the same",
                file=scene.frames.path,
                scene=scene.frames.scene,
                expected=scenes[0].frames.size,
                found=scene.frames.size,
                remedy="give the datasets of the split equal `frames` sizes",
            )
