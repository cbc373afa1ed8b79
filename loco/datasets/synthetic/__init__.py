"""Simulated scenes: furnished houses, photographed, and written in the raw layouts of real datasets.

The order of the modules: ``shapes`` and ``materials`` make ``furniture`` and ``structure``; a ``plan`` is built and
furnished (``furnish``) as a ``house``, lit (``lighting``), and looked at (``render``) from ``panoramas``; ``sensor``
spoils the views as a real scanner does; a writer (``raw_matterport3d``) puts them into a dataset's layout. Only the
writer knows the layout, so another one goes beside it.
"""

from loco.datasets.synthetic.raw_matterport3d import simulate_scene

__all__ = ["simulate_scene"]
