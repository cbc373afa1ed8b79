"""The encoder of CroCo v2, from its published files.

CroCo: Weinzaepfel et al. (NeurIPS 2022); CroCo v2: Weinzaepfel et al. (ICCV 2023), code and weights at
https://github.com/naver/croco, CC BY-NC-SA 4.0. A published file contains ``croco_kwargs``, the settings of the
network, and ``model``, its weights; those of the decoder are ignored. Positions are encoded by rotating queries and
keys (RoPE, Su et al., 2021): the first half of the channels of a head by the row, the second half by the column.
Earlier models add sines and cosines of the position to the patch embeddings instead.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loco.errors import DataError
from loco.models.backbones import Backbone, check_layer, to_grid
from loco.models.finite import require_dense, require_finite
from loco.models.parts import Encoding
from loco.models.pickled import REFETCH, require_checkpoint
from loco.models.transformer import Block, Rotation

# Prefix of published names -> name of the part in this module.
_PARTS = {"patch_embed.proj.": "patches.", "enc_blocks.": "blocks.", "enc_norm.": "norm."}
_POSITIONS = "enc_pos_embed"
_HEADS, _SINES = 12, "cosine"  # defaults, if the settings in the file do not state them


def load_croco(path: str | Path, layer: int | None = None, norm: bool | None = None) -> CroCo:
    """Load the encoder of a published file, without executing any code in it.

    Args:
        path: a ``.pth`` file of CroCo v2.
        layer: 1 to the number of blocks; None for the last.
        norm: whether to apply the last normalisation; None to apply it to the last layer only.

    Raises:
        ConfigError: no such layer.
        DataError: the file is missing, damaged, of another network, or contains objects whose loading could execute
            code.
    """
    content = _read(Path(path))
    try:
        settings, weights = content["croco_kwargs"], content["model"]
        require_dense(dict(weights), path)
        encoder = CroCo(
            weights, settings.get("enc_num_heads", _HEADS), settings.get("pos_embed", _SINES), layer=layer, norm=norm
        )
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(
            f"the file does not contain an encoder of CroCo: {type(error).__name__}: {error}",
            file=path,
            expected="`croco_kwargs` and `model`, as in the published files of CroCo v2",
            found=", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__,
            remedy="use a file published at https://github.com/naver/croco",
        ) from error
    require_finite(encoder.state_dict(), path)
    return encoder


class CroCo(Backbone):
    """Patch tokens of a layer of CroCo's encoder, for images of any size; there is no class token."""

    positions: Tensor

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        heads: int,
        positions: str = _SINES,
        layer: int | None = None,
        norm: bool | None = None,
    ) -> None:
        """
        Args:
            weights: weights by their published names; their shapes determine all sizes.
            heads: number of attention heads.
            positions: ``cosine``, or ``RoPE`` and the base of its frequencies, such as ``RoPE100``.
            layer, norm: see :func:`load_croco`.

        Raises:
            ConfigError: no such layer.
            KeyError, RuntimeError, ValueError: weights or settings do not fit this network.
        """
        super().__init__()
        patches = weights["patch_embed.proj.weight"]
        self.dim, self.stride = patches.shape[0], patches.shape[3]
        count = len({key.split(".")[1] for key in weights if key.startswith("enc_blocks.")})
        layer = check_layer(layer, count, "this CroCo encoder")
        rotation = re.fullmatch(r"RoPE([1-9]\d*)", positions)
        if not (rotation or positions == _SINES) or heads < 1 or self.dim % (4 * heads):
            raise ValueError(
                f"positions {positions!r} are not supported, or {self.dim} channels are not a multiple of 4 x {heads} "
                "heads"
            )
        self._base, self._head_dim = int(rotation[1]) if rotation else None, self.dim // heads
        if not rotation:
            cells = round(len(weights[_POSITIONS]) ** 0.5) ** 2  # the published table has a square grid
            self.register_buffer("positions", weights[_POSITIONS].float().view(cells, self.dim))
        hidden = weights["enc_blocks.0.mlp.fc1.weight"].shape[0]
        with torch.device("meta"):  # allocate no memory before the sizes are checked
            self.patches = nn.Conv2d(3, self.dim, self.stride, stride=self.stride)
            self.blocks = nn.ModuleList(Block(self.dim, heads, hidden, eps=1e-6) for _ in range(layer))
            self.norm: nn.Module = nn.LayerNorm(self.dim, eps=1e-6)
        self._load(weights)
        if not (norm if norm is not None else layer == count):
            self.norm = nn.Identity()

    @property
    def embedding(self) -> list[nn.Module]:
        return [self.patches]

    def forward(self, images: Tensor) -> Encoding:
        x = self.patches(self.normalised(images))
        height, width = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2)
        rotation = None
        if self._base is None:
            tokens = tokens + self._resized_positions(height, width)
        else:
            rotation = rotations(height, width, self._head_dim, self._base, tokens.device)
        for block in self.blocks:
            tokens = block(tokens, rotation)
        return Encoding(to_grid(self.norm(tokens), height, width))

    def _resized_positions(self, height: int, width: int) -> Tensor:
        """Return the sines and cosines of a grid (height * width, dim), interpolated as in CroCo's fine-tuning code."""
        side = round(len(self.positions) ** 0.5)
        if (height, width) == (side, side):
            return self.positions
        grid = self.positions.view(1, side, side, self.dim).permute(0, 3, 1, 2)
        resized = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
        return resized[0].flatten(1).T

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        renamed = {
            new + key.removeprefix(old): value.float()
            for key, value in weights.items()
            for old, new in _PARTS.items()
            if key.startswith(old)
        }
        beyond = tuple(f"blocks.{k}." for k in range(len(self.blocks), len(renamed)))
        used = {key: value for key, value in renamed.items() if not key.startswith(beyond)}
        if self._base is None:
            used["positions"] = self.positions
        self.load_state_dict(used, assign=True)


def rotations(height: int, width: int, dim: int, base: float, device: torch.device | None = None) -> Rotation:
    """Return the cosines and sines, (height * width, dim) each, of the rotary position angles of a head's channels.

    The angle of pair i of channels, in radians, is ``base ** (-4 i / dim)`` times the row in the first half of the
    channels, and times the column in the second half.

    Args:
        height, width: size of the grid, in patches.
        dim: channels of a head, a multiple of 4.
        base: base of the frequencies.
        device: device of the result.
    """
    frequencies = base ** (-torch.arange(dim // 4, device=device) * 4.0 / dim)
    row, column = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    row, column = row.reshape(-1, 1) * frequencies, column.reshape(-1, 1) * frequencies
    angles = torch.cat([row, row, column, column], dim=1)
    return angles.cos(), angles.sin()


def _read(path: Path) -> Any:
    """Read a file of ``torch.save`` that contains only numbers, text, containers and the settings of a run."""
    if not path.is_file():
        raise DataError(
            "the file does not exist",
            file=path,
            remedy="download an encoder of CroCo v2 as described at https://github.com/naver/croco, and set its path",
        )
    try:
        require_checkpoint(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except pickle.UnpicklingError as error:
        found = re.findall(r"GLOBAL ([\w.]+)", str(error))
        raise DataError(
            "the file contains objects that are not numbers, text or containers, which are not loaded because they "
            "could execute code",
            file=path,
            found=", ".join(found) or str(error).partition("\n")[0],
            remedy="use the file published by the authors; if the model is your own, save only its weights and "
            "settings in the training code: torch.save({'croco_kwargs': settings, 'model': model.state_dict()}, "
            "'out.pth')",
        ) from error
    except Exception as error:  # damaged files raise many types of errors
        raise DataError(
            f"the file cannot be read as a file of weights: {str(error).partition(chr(10))[0]}",
            file=path,
            remedy=REFETCH,
        ) from error
