"""Upsampling of feature maps to a smaller stride, without trained weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loco.errors import ConfigError
from loco.geometry.patches import grid_size
from loco.models.options import MAX_STRIDE, construct, require_sizes

MAX_SIGMA = 4  # cells, or distance of colours; limits the size of the window that a model file can request


class Upsampler(nn.Module):
    """Base class of upsamplers: ``upsampler(maps, images)`` returns maps on the grid of a smaller stride.

    Maps are (b, c, h, w) float32; cell (r, q) is centred at pixel ((q + 0.5) ``map_stride``, (r + 0.5) ``map_stride``),
    and the cells cover the images. Images are (b, 3, H, W) float32 RGB colours in [0, 1]. The result is (b, c, ceil(H /
    ``stride``), ceil(W / ``stride``)), not L2-normalised, and differentiable with respect to the maps. A value that is
    not finite makes all cells computed from it not finite.

    Attributes:
        map_stride: stride of the maps, pixels.
        stride: stride of the result, pixels. It need not divide ``map_stride``.
    """

    def __init__(self, map_stride: int, stride: int) -> None:
        super().__init__()
        require_sizes("upsample", MAX_STRIDE, stride=stride)
        if stride >= map_stride:
            raise ConfigError(
                f"`upsample.stride` must be less than the stride of the model, {map_stride} pixels; found {stride}"
            )
        self.map_stride, self.stride = map_stride, stride

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        raise NotImplementedError

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Return (rows, columns) of the result for images (b, 3, H, W)."""
        return grid_size((images.shape[2], images.shape[3]), self.stride)


class Bilinear(Upsampler):
    """Bilinear interpolation. Positions beyond the outermost cell centres have the values of the outermost cells."""

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        return interpolate(maps, self.map_stride, self.grid(images), self.stride)


class JointBilateral(Upsampler):
    """Joint bilateral upsampling (Kopf, Cohen, Lischinski and Uyttendaele, SIGGRAPH 2007).

    The feature of cell p of the result is sum_q S_q f(|p - q|) g(|I_p - I_q|) / sum_q f(|p - q|) g(|I_p - I_q|) over
    the cells q of the maps S in a window around p. Positions are measured in cells of the maps; f and g are Gaussians.
    I is the image, averaged over the cells of the result: I_p is the colour of cell p, and I_q is interpolated
    bilinearly at the centre of q. Thus features are not mixed across an edge between colours.
    """

    def __init__(self, map_stride: int, stride: int, sigma_space: float = 0.5, sigma_colour: float = 0.1) -> None:
        """
        Args:
            map_stride, stride: as of :class:`Upsampler`.
            sigma_space: standard deviation of f, cells of the maps. The window has a radius of ceil(3 ``sigma_space``)
                cells around the cell that contains p: 5 x 5 cells by default.
            sigma_colour: standard deviation of g, for Euclidean distances of RGB colours in [0, 1].

        Raises:
            ConfigError: a standard deviation is not in (0, 4], or ``stride`` is not smaller than ``map_stride``.
        """
        super().__init__(map_stride, stride)
        for name, sigma in {"sigma_space": sigma_space, "sigma_colour": sigma_colour}.items():
            if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 < sigma <= MAX_SIGMA:
                raise ConfigError(f"`upsample.{name}` must be greater than 0 and at most {MAX_SIGMA}, found {sigma!r}")
        self.sigma_space, self.sigma_colour = sigma_space, sigma_colour
        self.radius = math.ceil(3 * sigma_space)

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        rows, columns = self.grid(images)
        padding = 0, columns * self.stride - images.shape[3], 0, rows * self.stride - images.shape[2]
        colours = F.avg_pool2d(F.pad(images, padding, mode="replicate"), self.stride)
        colours_of_maps = interpolate(colours, self.stride, (maps.shape[2], maps.shape[3]), self.map_stride)
        across, log_f_across, _ = self._windows(columns, maps.shape[3], maps.device)
        down, log_f_down, counts = self._windows(rows, maps.shape[2], maps.device)
        strips, start = [], 0
        # All rows of the result whose centres lie in one row of the maps read the same cells, so their weighted sums
        # are one matrix product per column. Only the window of one row of the maps is in memory at a time.
        for count in filter(None, counts):
            own = slice(start, start + count)
            near = colours_of_maps[:, :, down[start]][..., across]  # (b, 3, window, columns, window)
            distance = (colours[:, :, own, None, :, None] - near[:, :, None]).square().sum(dim=1)
            log_g = -distance / (2 * self.sigma_colour**2)
            logits = log_f_down[own, :, None, None] + log_f_across + log_g  # (b, count, window, columns, window)
            weights = logits.transpose(2, 3).flatten(3).softmax(dim=3).unflatten(3, (logits.shape[2], -1))
            cells = maps[:, :, down[start]][..., across]
            strips.append(torch.einsum("brxij,bcixj->bcrx", weights, cells))
            start += count
        return torch.cat(strips, dim=2)

    def _windows(self, count: int, cells: int, device: torch.device) -> tuple[Tensor, Tensor, list[int]]:
        """Return the windows of the cells of the result along one axis.

        Args:
            count: cells of the result along the axis.
            cells: cells of the maps along the axis.
            device: device of the results.

        Returns:
            The indices (count, window) of the cells of the maps in the window of each cell; log f (count, window),
            -inf for cells beyond the maps; and the number of cells of the result whose centre lies in each cell of the
            maps.
        """
        ratio = self.stride / self.map_stride
        own = [min((2 * number + 1) * self.stride // (2 * self.map_stride), cells - 1) for number in range(count)]
        window = torch.tensor(own, device=device)[:, None] + torch.arange(-self.radius, self.radius + 1, device=device)
        centres = (torch.arange(count, device=device) + 0.5) * ratio - 0.5
        log_f = -(centres[:, None] - window).square() / (2 * self.sigma_space**2)
        beyond = (window < 0) | (window >= cells)
        counts = [own.count(cell) for cell in range(cells)]
        return window.clamp(0, cells - 1), log_f.masked_fill(beyond, -torch.inf), counts


def interpolate(maps: Tensor, stride: int, grid: Sequence[int], grid_stride: int) -> Tensor:
    """Interpolate maps of one stride bilinearly at the cell centres of a grid of another stride.

    For an integer ratio of the strides, this equals ``torch.nn.functional.interpolate`` with ``align_corners=False``,
    for which cell k of a stride s is also centred at (k + 0.5) s. That function cannot produce the grid of other
    ratios, whose cells may end beyond those of the maps.

    Args:
        maps: (b, c, h, w) float32.
        stride: stride of the maps, pixels.
        grid: (rows, columns) of the result.
        grid_stride: stride of the result, pixels.

    Returns:
        (b, c, rows, columns) float32. Positions beyond the outermost cell centres have the values of these cells.
    """
    v, u = (
        (2 * torch.arange(count, device=maps.device) + 1) * (grid_stride / (cells * stride)) - 1
        for count, cells in zip(grid, maps.shape[2:], strict=True)
    )
    places = torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1).expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps, places, mode="bilinear", padding_mode="border", align_corners=False)


UPSAMPLERS: dict[str, type[Upsampler]] = {"bilinear": Bilinear, "joint_bilateral": JointBilateral}


def build_upsampler(config: Mapping[str, Any], map_stride: int) -> Upsampler:
    """Build the upsampler of a configuration: ``name``, a key of :data:`UPSAMPLERS`, ``stride``, and its options.

    Args:
        config: as in an experiment's ``model.upsample``.
        map_stride: stride of the maps, pixels.

    Raises:
        ConfigError: unknown name or options, or a stride that is not smaller than that of the maps.
    """
    name, options = config.get("name"), {key: value for key, value in config.items() if key != "name"}
    if name not in UPSAMPLERS:
        raise ConfigError(f"unknown upsampling {name!r}; expected one of: {', '.join(sorted(UPSAMPLERS))}")
    return construct(f"`upsample` {name!r}", UPSAMPLERS[name], options, map_stride=map_stride)
