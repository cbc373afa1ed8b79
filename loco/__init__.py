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
"""

__version__ = "0.1.0"
