"""Export of feature extractors to ONNX files, which run without this project."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loco.errors import ConfigError
from loco.models.extractor import Extractor, evaluating
from loco.storage import atomic_path

TOLERANCE = 1e-4  # maximum difference between the L2-normalised features of both runtimes
BATCHES = (1, 3)  # sizes of the compared batches; both differ from that of the export example


def export_onnx(extractor: Extractor, path: str | Path, size: tuple[int, int]) -> float:
    """Export an extractor to an ONNX file, and compare it with PyTorch.

    The input of the model is ``images`` (b, 3, height, width), float32 RGB in [0, 1], for any b; its output is
    ``features`` (b, dim, h, w), float32, L2-normalised, as those of the extractor. The metadata contain ``stride``,
    ``dim`` and ``colours``. The weights are in the same file, so its size is limited to 2 GB, the limit of ONNX.

    Args:
        extractor: extractor on the CPU; exported in evaluation mode.
        path: file to write; it is written only if the comparison succeeds.
        size: (height, width) of the images, pixels.

    Returns:
        The largest absolute difference between the features of ONNX Runtime and PyTorch, for random images.

    Raises:
        ConfigError: a part of the extractor is not implemented in PyTorch (but in OpenCV, for example); the features
            differ in shape or by more than :data:`TOLERANCE`; packages that the export requires are not installed.
    """
    if lacking := [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]:
        raise ConfigError(f"missing packages: {', '.join(lacking)}; run `pip install 'loco[export]'`")
    with evaluating(extractor), atomic_path(path) as temporary:
        _export(extractor, temporary, size)
        difference = max(_difference(extractor, temporary, images) for images in _examples(size, BATCHES))
        if not difference <= TOLERANCE:  # also fails for NaN
            raise ConfigError(
                f"the features of ONNX Runtime differ by {difference:.1e} from those of PyTorch, more than the "
                "tolerance of "
                f"{TOLERANCE:g}, so no file was written; try another version of PyTorch or ONNX Runtime"
            )
    return difference


def _export(extractor: Extractor, path: Path, size: tuple[int, int]) -> None:
    (example,) = _examples(size, (2,))
    try:
        with _quiet():
            program = torch.onnx.export(
                extractor,
                (example,),
                input_names=["images"],
                output_names=["features"],
                dynamo=True,
                dynamic_shapes={"images": {0: "batch"}},
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause = str(error.__cause__ or error).strip().split("\n")[0]
        raise ConfigError(
            f"an extractor with a {type(extractor.encoder).__name__} cannot be exported to ONNX: a part of it is not "
            f"PyTorch, or has no ONNX operator ({cause}); choose another model"
        ) from error
    facts = {"stride": extractor.stride, "dim": extractor.dim, "colours": "RGB in [0, 1]"}
    program.model.metadata_props.update({name: str(fact) for name, fact in facts.items()})
    program.save(path, external_data=False)


def _difference(extractor: Extractor, path: Path, images: Tensor) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (features,) = session.run(["features"], {"images": images.numpy()})
    with torch.inference_mode():
        expected = extractor(images).numpy()
    if features.shape != expected.shape:
        raise ConfigError(
            f"the features of ONNX Runtime have the shape {features.shape}, those of PyTorch {expected.shape}, so no "
            "file was written; try another version of PyTorch or ONNX Runtime"
        )
    return float(np.abs(features - expected).max())


def _examples(size: tuple[int, int], batches: tuple[int, ...]) -> list[Tensor]:
    rng = np.random.default_rng([0])
    return [torch.from_numpy(rng.random((batch, 3, *size), np.float32)) for batch in batches]


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress PyTorch's messages about the export (optional packages, deprecations)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)
