"""The transformer block of the networks implemented here, with the names of DINO's code."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Rotation: TypeAlias = tuple[Tensor, Tensor]  # cosines and sines, (cells, channels of a head) each


class Block(nn.Module):
    """Residual attention and MLP with pre-normalisation (Dosovitskiy et al., ICLR 2021)."""

    def __init__(self, dim: int, heads: int, hidden: int, eps: float = 1e-5, scale: float | None = None) -> None:
        """
        Args:
            dim: channels of a token.
            heads: number of attention heads, a divisor of ``dim``.
            hidden: hidden channels of the MLP.
            eps: epsilon of the normalisations.
            scale: scale of the products of queries and keys; None for 1 / sqrt(channels per head).
        """
        super().__init__()
        self.heads, self.scale = heads, scale
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, tokens: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Map tokens (b, n, dim) to tokens (b, n, dim); queries and keys are rotated by ``rotation``, if any."""
        tokens = tokens + self.attn["proj"](self._attend(self.norm1(tokens), rotation))
        return tokens + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(tokens))))

    def _attend(self, tokens: Tensor, rotation: Rotation | None) -> Tensor:
        query, key, value = self.attn["qkv"](tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        return F.scaled_dot_product_attention(query, key, value, scale=self.scale).transpose(1, 2).flatten(2)


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate pairs of channels of ``x`` (..., cells, dim); in each half, channel i is paired with i + dim / 4."""
    a, b, c, d = x.chunk(4, dim=-1)
    return (x * cosines + torch.cat([-b, a, -d, c], dim=-1) * sines).to(x.dtype)
