"""Principal components of a backbone's features: the plain way to fewer channels, which a training has to beat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loco.errors import ConfigError
from loco.models import build_extractor, save_extractor
from loco.models.adapted import AdaptedBackbone
from loco.models.extractor import FeatureExtractor
from loco.models.heads import Linear
from loco.storage import Encoded, Frames
from loco.training.encode import encoded_batches

RELATIVE = 1e-7  # a variance below this share of the largest is rounding: features are stored in half precision


@torch.inference_mode()
def fit_pca(
    model: Mapping[str, Any],
    scenes: Sequence[Sequence[Path]],
    out: Path,
    seed: int = 0,
    whiten: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Give a model's linear head the principal components of its backbone's features, and write the model.

    Args:
        model: a ``backbone`` that is not trained, with the head ``linear`` of at most its channels.
        scenes: (frames,) files of the scenes whose features are analysed, or (frames, encoded) files.
        out: ``model.safetensors`` to write.
        seed: of a backbone's weights, where they are random.
        whiten: divide each component by its standard deviation.
        facts: to be written into the model file.

    Raises:
        ConfigError: the model has no linear head, more components than channels, or more than the features vary in.
        DataError: files that do not belong together.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    extractor = build_extractor(model, seed).to(device).eval()
    if not (isinstance(extractor, AdaptedBackbone) and extractor.frozen_encoder and isinstance(extractor.head, Linear)):
        raise ConfigError("principal components are of a `backbone` that is not trained, with the head `linear`")
    layer = extractor.head.layer
    if layer.out_features > layer.in_features:
        raise ConfigError(f"{layer.in_features} channels have no {layer.out_features} principal components")
    weight, bias, share = components(_maps(extractor, scenes, device), layer.out_features, whiten)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    save_extractor(
        extractor, model, out, {**(facts or {}), "seed": seed, "whiten": whiten, "explained_variance": round(share, 6)}
    )


def components(maps: Iterable[Tensor], count: int, whiten: bool) -> tuple[Tensor, Tensor, float]:
    """Principal components of the cells of maps, as a linear layer, from sums in double precision.

    Args:
        maps: (b, c, h, w) each.
        count: how many, those of the largest variance first.
        whiten: divide each by its standard deviation.

    Returns:
        Weight (count, c) and bias (count,): ``weight @ x + bias`` has mean zero over all cells x. Each component's
        largest weight is positive. And the share of the variance that the components hold.

    Raises:
        ConfigError: more components are asked for than the cells vary in, beyond rounding in half precision.
    """
    number, total, products = 0, torch.zeros(()), torch.zeros(())
    for part in maps:
        cells = part.double().permute(1, 0, 2, 3).flatten(1)
        number += cells.shape[1]
        total, products = total + cells.sum(dim=1), products + cells @ cells.T
    mean = total / number
    variance, vectors = torch.linalg.eigh(products / number - torch.outer(mean, mean))
    variance, vectors = variance.flip(0).clamp(min=0), vectors.flip(1).T
    rank = int((variance > RELATIVE * variance[0]).sum())
    if count > rank:
        raise ConfigError(f"the features vary in {rank} directions, which have no {count} principal components")
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    weight = (vectors * largest.sign())[:count]
    if whiten:
        weight = weight / variance[:count, None].sqrt()
    return weight, -weight @ mean, float(variance[:count].sum() / variance.sum())


def _maps(extractor: FeatureExtractor, scenes: Sequence[Sequence[Path]], device: str) -> Iterator[Tensor]:
    for frames_path, *stored in scenes:
        with ExitStack() as files:
            frames = files.enter_context(Frames(frames_path))
            encoded = files.enter_context(Encoded(*stored)) if stored else None
            if encoded:
                encoded.require_frames(frames)
            yield from encoded_batches(extractor, frames, device, encoded)
