"""Compress features to one byte per channel, and measure how this changes their similarities.

Features are reduced by PCA. With f = m + z, where m is their mean, the similarity of two L2-normalised features is

    f_i f_j = z_i z_j + (m f_j) + (m f_i - m m).

The first term is computed from codes of the leading components of z. The number m f_j of each patch is stored in single
precision, because the norm of the mean is often much larger than that of z: as a further component, it would leave few
of the 256 quantisation steps to the others. All components have the same step size, so the inner product of the codes
is exact in integers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.floating]
CHANNELS = 128  # maximum number of stored channels
LARGEST = 127  # largest absolute value of a code
QUERIES = 100  # number of patches on which `rank_correlation` and `same_match` are measured


class Fidelity(NamedTuple):
    """How well the codes represent the features.

    Attributes:
        channels: number of channels of the features before compression.
        variance: fraction of the variance of the features that the codes retain.
        rank_correlation: Spearman's correlation between the similarities of a query patch to the patches of all other
            views, computed from the features and from the codes; mean over :data:`QUERIES` query patches.
        same_match: fraction of the pairs of a query patch and another view in which the features and the codes have the
            same most similar patch.
        rounding: upper bound of the change of a similarity by rounding to codes, after the reduction of channels.
    """

    channels: int
    variance: float
    rank_correlation: float
    same_match: float
    rounding: float


class Codes(NamedTuple):
    """Compressed features of p patches; :func:`similarities` computes with them.

    Attributes:
        codes: (p, c) int8, c <= :data:`CHANNELS`.
        step: the components are ``step * codes``.
        offset: (p,) float32, the inner product of each feature with the mean m.
        square: squared norm of the mean m.
    """

    codes: NDArray[np.int8]
    step: float
    offset: NDArray[np.float32]
    square: float


def compress(features: Floats, view: NDArray[np.integer], seed: int = 0) -> tuple[Codes, Fidelity]:
    """Compress the features of all patches of a page, and measure how well the codes represent them.

    Args:
        features: (p, c), L2-normalised.
        view: (p,), index of the view of each patch, in ascending order.
        seed: seed for drawing the :data:`QUERIES` patches on which ``rank_correlation`` and ``same_match`` are
            measured.

    Returns:
        The codes, and their fidelity to the features.
    """
    features = features.astype(np.float32)
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = features - mean
    reduced = centred @ _leading_axes(centred)
    step = float(np.abs(reduced).max() / LARGEST) or 1.0
    codes = np.round(reduced / step).astype(np.int8)
    decoded = codes * np.float32(step)
    variance = np.square(centred, dtype=np.float64).sum()
    residual = max(variance - np.square(reduced, dtype=np.float64).sum(), 0.0)  # of the components that are left out
    residual += np.square(reduced - decoded, dtype=np.float64).sum()
    compressed = Codes(codes, step, features @ mean, float(np.square(mean, dtype=np.float64).sum()))
    queries = np.sort(np.random.default_rng([seed]).permutation(len(features))[:QUERIES])
    exact, approximate = features[queries] @ features.T, similarities(compressed, queries)
    correlation, same = _agreement(exact, approximate, view[queries], view)
    retained = float(1 - residual / variance) if variance else 1.0
    return compressed, Fidelity(features.shape[1], retained, correlation, same, _bound(reduced, decoded))


def similarities(features: Codes, queries: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the similarities (q, p) of patches ``queries`` (q,) to all patches, bit for bit as the page does."""
    codes = features.codes.astype(np.float32)  # sums of 128 products of bytes are exact in single precision
    products = (codes[queries] @ codes.T).astype(np.float64)
    offset = features.offset.astype(np.float64)
    return (features.step * features.step * products + offset) + (offset[queries, None] - features.square)


def _leading_axes(centred: Floats) -> NDArray[np.float32]:
    """Return the leading principal axes (c, at most :data:`CHANNELS`), each with a deterministic sign."""
    blocks = np.array_split(centred, max(1, len(centred) // 4096))
    covariance = np.sum([block.T @ block for block in blocks], axis=0, dtype=np.float64)
    axes = np.linalg.eigh(covariance)[1][:, : -CHANNELS - 1 : -1]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    return (axes * np.sign(largest)).astype(np.float32)


def _bound(reduced: Floats, decoded: Floats) -> float:
    """Return the Cauchy-Schwarz bound of |x y - x' y'| = |(x - x') y + x' (y - y')|."""
    error, before, after = (np.linalg.norm(a, axis=1).max() for a in (reduced - decoded, reduced, decoded))
    return float(error * (before + after))


def _agreement(
    exact: Floats, approximate: Floats, own: NDArray[np.integer], view: NDArray[np.integer]
) -> tuple[float, float]:
    """Return the rank correlation and the fraction of equal best matches of exact and approximate similarities (q, p).

    ``own`` (q,) is the view of each query patch, ``view`` (p,) the view of each patch. Both results are 1 if there is
    nothing to compare.
    """
    correlations, same = [], []
    for similar, approximated, of_query in zip(exact, approximate, own):
        others = view != of_query
        if not others.any():
            continue
        similar, approximated = similar[others], approximated[others]
        if np.ptp(similar) and np.ptp(approximated):  # equal similarities have no order to agree on
            correlations.append(np.corrcoef(rankdata(similar), rankdata(approximated))[0, 1])
        starts = np.flatnonzero(np.diff(view[others], prepend=-1))[1:]
        parts = zip(np.split(similar, starts), np.split(approximated, starts))
        same.append(np.mean([part.argmax() == other.argmax() for part, other in parts]))
    return float(np.mean(correlations or [1.0])), float(np.mean(same or [1.0]))
