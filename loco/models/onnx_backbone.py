"""Frozen backbones in the ONNX format, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from loco.errors import ConfigError, DataError
from loco.extras import named_extras
from loco.models.backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone, to_grid
from loco.models.parts import Encoding


class OnnxBackbone(Backbone):
    """A frozen ONNX model that maps one image (1, 3, H, W) to a map (1, c, h, w) or to tokens (1, n, c).

    Tokens are in row-major order, with or without a leading class token. Images are processed one by one.
    """

    def __init__(
        self,
        path: str | Path,
        native_stride: int,
        size: Sequence[int] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        output: str | int = 0,
    ) -> None:
        """
        Args:
            path: the model, ``.onnx`` or ONNX Runtime's ``.ort``.
            native_stride: pixels of the model's input per cell of its output.
            size: (height, width) of the model's input. Images are placed at its top left, the rest is filled with the
                mean colour, and the features of the rest are dropped. None for the size stated in the model, or for the
                size of each image if the model accepts any.
            mean, std: mean and standard deviation that normalise the three colours in [0, 1].
            output: name or index of the output that contains the features.

        Raises:
            ConfigError: ONNX Runtime is not installed, or output, size or stride do not match the model.
            DataError: the file is missing or damaged, or the model has other inputs.
        """
        super().__init__(mean, std)
        self.path, self.stride = Path(path), native_stride
        self._session = None
        session = self._open()
        self._output = _output_name([found.name for found in session.get_outputs()], output)
        self.size = self._input_size(session.get_inputs(), size)
        height, width = self.size or (4 * native_stride, 4 * native_stride)
        self.dim = self._map(np.zeros((1, 3, height, width), np.float32)).shape[1]

    def forward(self, images: Tensor) -> Encoding:
        height, width = images.shape[2:]
        images = self.normalised(images)
        if self.size is not None:
            below, right = self.size[0] - height, self.size[1] - width
            if below < 0 or right < 0:
                raise DataError(
                    "an image is larger than the input of the model",
                    file=self.path,
                    expected=f"at most {self.size[0]} x {self.size[1]} pixels",
                    found=f"{height} x {width}",
                    remedy="reduce the input size (raise `stride` of the model), or use a model with a larger input",
                )
            images = F.pad(images, (0, right, 0, below))
        arrays = images.detach().float().cpu().numpy()
        maps = np.concatenate([self._map(arrays[i : i + 1]) for i in range(len(arrays))])
        rows, columns = height // self.stride, width // self.stride
        return Encoding(torch.from_numpy(maps)[:, :, :rows, :columns].to(images.device))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}  # a session cannot be copied or pickled; it is opened again

    def _map(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the map (1, dim, h, w) of one normalised image (1, 3, H, W)."""
        session = self._open()
        try:
            (features,) = session.run([self._output], {session.get_inputs()[0].name: image})
        except Exception as error:
            raise DataError(
                f"the ONNX model failed on an image of {image.shape[2]} x {image.shape[3]} pixels: {_line(error)}",
                file=self.path,
                remedy="set `size` to an input size (height, width) that the model supports",
            ) from error
        rows, columns = image.shape[2] // self.stride, image.shape[3] // self.stride
        if features.ndim == 4 and features.shape[2:] == (rows, columns):
            return features.astype(np.float32, copy=False)
        if features.ndim == 3 and features.shape[1] in (rows * columns, rows * columns + 1):
            tokens = torch.from_numpy(features[:, -rows * columns :].astype(np.float32, copy=False))
            return to_grid(tokens, rows, columns).numpy()
        raise ConfigError(
            f"{self.path}: output {self._output!r} has the shape {features.shape} for {image.shape[2:]} pixels; "
            f"expected (1, c, {rows}, {columns}), or (1, n, c) with n = {rows * columns} (or one more, with a "
            "class token); correct `native_stride` or `output`"
        )

    def _input_size(self, inputs: Sequence[Any], size: Sequence[int] | None) -> tuple[int, ...] | None:
        shapes = [tuple(found.shape) for found in inputs]
        fits = len(shapes) == 1 and len(shapes[0]) == 4 and inputs[0].type == "tensor(float)"
        if not fits or any(isinstance(n, int) and n != wanted for n, wanted in zip(shapes[0], (1, 3))):
            raise DataError(
                "the input of the ONNX model is not an image",
                file=self.path,
                expected="one float32 input of shape (1, 3, height, width)",
                found=", ".join(f"{found.name}: {found.type} {found.shape}" for found in inputs),
                remedy="export the model with one image as its only input",
            )
        own = shapes[0][2:]
        named = all(isinstance(side, int) for side in own)
        size = tuple(size) if size is not None else (own if named else None)
        if named and size != own:
            raise ConfigError(f"{self.path}: the input size of the model is {own}, but `size` is {size}; remove `size`")
        if size is not None and any(side % self.stride for side in size):
            raise ConfigError(
                f"{self.path}: the input size {size} is not a multiple of `native_stride` {self.stride}; correct "
                "`size` or `native_stride`"
            )
        return size

    def _open(self) -> Any:
        """Return the session of ONNX Runtime, which is opened on first use."""
        if self._session is not None:
            return self._session
        with named_extras():
            import onnxruntime
        if not self.path.is_file():
            raise DataError("the file does not exist", file=self.path, remedy="set the path of an ONNX model")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the errors of ONNX Runtime have no common base class
            raise DataError(
                f"the file cannot be read as an ONNX model: {_line(error)}",
                file=self.path,
                remedy="download or export it again",
            ) from error
        return self._session


def _output_name(names: Sequence[str], output: str | int) -> str:
    if isinstance(output, int) and 0 <= output < len(names):
        return names[output]
    if output in names:
        return str(output)
    raise ConfigError(f"the ONNX model has no output {output!r}; expected one of: {', '.join(names)}")


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
