"""Synchronised batch normalisation across all ranks, on any device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


def share_batch_norms(network: nn.Module) -> None:
    """Convert all batch norms of a network to :class:`SharedBatchNorm2d`."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm2d  # keeps the weights, their names and their entries in the optimiser


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with statistics over all ranks of a training run.

    It replaces PyTorch's ``SyncBatchNorm``, which supports only GPUs. With a single rank, and in evaluation mode, it
    equals ``BatchNorm2d``. The names of its weights are those of ``BatchNorm2d``.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and distributed.is_initialized() and distributed.get_world_size() > 1):
            return super().forward(x)
        wide = x.float()
        count = _Sum.apply(torch.tensor(float(x.numel() // x.shape[1]), device=x.device))
        mean = _Sum.apply(wide.sum(dim=(0, 2, 3))) / count
        centred = wide - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        out = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            out = out * self.weight[:, None, None] + self.bias[:, None, None]
        return out.to(x.dtype)


class _Sum(torch.autograd.Function):
    """All-reduce (sum) over the ranks. All ranks use the result, so the gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        whole = part.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)
