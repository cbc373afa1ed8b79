"""Global image descriptors for retrieval: VLAD, the generalised mean of patches, or the class token.

All are L2-normalised, so the similarity is the inner product. Patches are the cells of an image's feature map, at
the extractor's own stride.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from loco.errors import DataError
from loco.evaluation.result import EvaluatedScene

ITERATIONS = 100  # maximum, of k-means
BLOCK = 8192  # patches assigned to centres at a time


class Image(NamedTuple):
    """An image of a scene, identified by its number."""

    scene: EvaluatedScene
    number: int

    def feature_map(self) -> Tensor:
        """Read the L2-normalised feature map (h, w, c), float32, from the file."""
        return F.normalize(torch.from_numpy(self.scene.features.map(self.number)).float(), dim=2)

    def patches(self) -> Tensor:
        """Return the cells of the feature map, (h w, c), in row-major order."""
        return self.feature_map().flatten(0, 1)

    def token(self) -> Tensor:
        """Return the L2-normalised class token (t,), float32; t = 0 if the extractor has none."""
        return F.normalize(torch.from_numpy(self.scene.features["token"][self.number]).float(), dim=0)


def descriptor_name(settings: Mapping[str, Any]) -> str:
    """Return the name of a descriptor in tables: "VLAD 128", "soft VLAD 128 (temperature 10, domain)", "GeM 3"."""
    match settings["name"]:
        case "vlad":
            soft, domain = settings["assignment"] == "soft", settings["vocabulary"] == "domain"
            notes = [f"temperature {settings['temperature']:g}"] if soft else []
            notes += ["domain"] if domain else []
            name = f"{'soft ' * soft}VLAD {settings['clusters']}"
            return f"{name} ({', '.join(notes)})" if notes else name
        case "gem":
            return f"GeM {settings['exponent']:g}"
        case name:
            return name.replace("_", " ")


def descriptor(settings: Mapping[str, Any], centres: Tensor | None = None) -> Callable[[Image], Tensor]:
    """Return the function from an image to its descriptor (d,), for an entry of ``descriptors``.

    VLAD requires ``centres`` (k, c), the vocabulary (:func:`learn_centres`).
    """
    if settings["name"] == "class_token":
        return Image.token
    temperature = settings["temperature"] if settings.get("assignment") == "soft" else None
    pool = {
        "vlad": partial(vlad, centres=centres, temperature=temperature),
        "gem": partial(gem, exponent=settings.get("exponent")),
        "mean": partial(gem, exponent=1),
    }[settings["name"]]
    return lambda image: pool(image.patches())


def describe(images: Sequence[Image], describe_one: Callable[[Image], Tensor]) -> Tensor:
    """Return the descriptors (n, d) of n >= 1 images, half precision. The images are read one at a time."""
    found = torch.empty(len(images), len(describe_one(images[0])), dtype=torch.float16)
    for row, image in zip(found, tqdm(images, desc="descriptors", unit="image")):
        row.copy_(describe_one(image))
    return found


def vlad(patches: Tensor, centres: Tensor, temperature: float | None = None) -> Tensor:
    """Return the vector of locally aggregated descriptors (Jégou et al. 2010), as in AnyLoc (Keetha et al. 2024).

    For each centre c_k, the sum over patches x of w_k (x - c_k) is L2-normalised (intra-normalisation, Arandjelović &
    Zisserman 2013). The sums of all centres are then concatenated, and the result is L2-normalised. The weights w of a
    patch are 1 for the centre of the largest cosine and 0 for the others, or a softmax over the centres.

    Args:
        patches: (m, c), L2-normalised rows.
        centres: (k, c).
        temperature: factor of the cosines in the softmax: the larger, the harder the assignment; None for hard
            assignment.

    Returns:
        (k c,), L2-normalised.
    """
    cosines = patches @ F.normalize(centres, dim=1).T
    if temperature is None:
        weights = F.one_hot(cosines.argmax(dim=1), len(centres)).to(patches.dtype)
    else:
        weights = (temperature * cosines).softmax(dim=1)
    residuals = weights.T @ patches - weights.sum(dim=0)[:, None] * centres
    return F.normalize(F.normalize(residuals, dim=1).flatten(), dim=0)


def gem(patches: Tensor, exponent: float) -> Tensor:
    """Return the generalised mean (Radenović et al. 2019) of signed features per channel, (c,), L2-normalised.

    Powers and roots are taken of the absolute values and keep the sign. For odd exponents this is AnyLoc's form; for
    exponent 1 it is the mean. ``patches`` is (m, c).
    """
    mean = (patches.sign() * patches.abs() ** exponent).mean(dim=0)
    return F.normalize(mean.sign() * mean.abs() ** (1 / exponent), dim=0)


def learn_centres(images: Sequence[Image], clusters: int, samples: int, seed: int) -> Tensor:
    """Learn the vocabulary (clusters, c) of n >= 1 images by k-means on about ``samples`` of their patches.

    The same number of patches is drawn at random from each image, independently of the features.

    Raises:
        DataError: there are fewer patches than clusters.
    """
    ends = np.linspace(0, samples, len(images) + 1).round().astype(int)
    parts = []
    for image, count in zip(tqdm(images, desc="vocabulary", unit="image"), np.diff(ends)):
        if count:
            patches = image.patches()
            order = image.scene.rng(seed, 2, image.number).permutation(len(patches))
            parts.append(patches[torch.from_numpy(order[:count])])
    found = sum(map(len, parts))
    if found < clusters:
        raise DataError(
            "fewer patches were drawn for the vocabulary of VLAD than it has clusters",
            file=images[0].scene.features.path,
            scene=images[0].scene.frames.scene,
            expected=f"at least {clusters} patches",
            found=found,
            remedy="lower `clusters` or raise `samples` in benchmarks.place_recognition.descriptors",
        )
    return cosine_kmeans(torch.cat(parts), clusters, images[0].scene.rng(seed, 3))


def cosine_kmeans(patches: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Cluster patches by k-means with cosine similarity and k-means++ initialisation (Arthur & Vassilvitskii 2007).

    A centre is the mean of its patches. Patches are assigned by the directions of the centres alone, but the norms of
    the centres are kept, so that the residuals of the patches of a centre sum to zero and uniformly distributed content
    cancels out in VLAD.

    Args:
        patches: (n, c), L2-normalised rows, n >= count.
        count: number of centres.
        rng: random number generator of the initialisation.

    Returns:
        (count, c). A centre that loses all its patches is not moved.
    """
    centres = patches[torch.from_numpy(_spread(patches, count, rng))]
    assigned = None
    for _ in range(ITERATIONS):
        directions = F.normalize(centres, dim=1).T
        nearest = torch.cat([(block @ directions).argmax(dim=1) for block in patches.split(BLOCK)])
        if assigned is not None and torch.equal(nearest, assigned):
            break
        assigned = nearest
        sums = torch.zeros_like(centres).index_add_(0, nearest, patches)
        sizes = nearest.bincount(minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    return centres


def _spread(patches: Tensor, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw patch indices (count,) by their squared distance, 2 - 2 cosine, to the nearest patch already drawn."""
    chosen = [int(rng.integers(len(patches)))]
    distance = torch.full((len(patches),), torch.inf)
    while len(chosen) < count:
        distance = torch.minimum(distance, (1 - patches @ patches[chosen[-1]]).clamp(min=0))
        mass = distance.double().cumsum(dim=0).numpy()
        # If all patches are equal, all distances are 0 and any patch will do: take the last one.
        chosen.append(min(int(np.searchsorted(mass, rng.random() * mass[-1], side="right")), len(patches) - 1))
    return np.array(chosen)
