"""Location-consistent image features: train and evaluate them.

The library behind the workflow. It does not import Snakemake, so every step can be called and tested by itself. Data
flow in one direction: ``datasets`` (or ``simulate``) -> ``geometry`` -> ``losses`` / ``models`` / ``training`` ->
``evaluation`` -> ``results``. ``steps`` has one module per rule of the workflow: it reads and writes the files between
the steps, in the formats of ``storage`` and with the records of ``records``. ``plan`` derives from the configuration
which files a run consists of.

Conventions of the whole package:

- Cameras follow OpenCV: x right, y down, z forward. ``pose`` is camera-to-world, 4 x 4, in metres.
- Depth is z-depth in metres; 0 denotes missing depth.
- Pixel coordinates are continuous: (0, 0) is the top-left corner of the top-left pixel, so the centre of pixel ``i`` is
  at ``i + 0.5``. A pixel is looked up by ``floor``; resizing an image scales its intrinsics.
- Arrays are (n, h, w, channels) in files and NumPy, (n, channels, h, w) in PyTorch.

For users of trained models: ``loco.load`` (or ``loco.from_pretrained``), ``loco.save_pretrained`` and
``loco.push_to_hub`` (:mod:`loco.models.pretrained`).
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_API = dict.fromkeys(("load", "from_pretrained", "save_pretrained", "push_to_hub"), "loco.models.pretrained")


def __getattr__(name: str) -> Any:
    # Imported by a computed name, so that `import loco` is fast, and so that the code fingerprints of the steps, which
    # follow imports, do not include all models through this file.
    if name in _API:
        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
