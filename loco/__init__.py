"""Location-consistent image features: train them, judge them.

The library behind the workflow. It does not import Snakemake, so every step can be called and tested by itself. Data
flow one way: ``datasets`` -> ``geometry`` -> ``storage`` -> ``losses`` / ``models`` / ``training`` -> ``evaluation``
-> ``results``.

Conventions, stated once and used everywhere:

- Cameras follow OpenCV: x right, y down, z forward. ``pose`` is camera-to-world, 4 x 4, metres.
- Depth is z-depth in metres; 0 means "none".
- Pixel coordinates are continuous: (0, 0) is the top-left corner of the top-left pixel, so pixel ``i`` has
  its centre at ``i + 0.5``. A pixel is looked up by ``floor``; resizing an image scales its intrinsics.
- Arrays are (n, h, w, channels) in files and NumPy, (n, channels, h, w) in PyTorch.

For users of trained models there are ``loco.load`` (or ``loco.from_pretrained``) and ``loco.save_pretrained``; see
:mod:`loco.models.pretrained`.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_API = dict.fromkeys(("load", "from_pretrained", "save_pretrained"), "loco.models.pretrained")


def __getattr__(name: str) -> Any:
    # By a computed name: `import loco` stays light, and what the workflow's steps reach by `import`, which decides what
    # is run again, does not grow to all models by way of this file.
    if name in _API:
        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
