"""The raw layouts that the simulator can write. Imports nothing, so that planning can load it."""

from __future__ import annotations

# Format -> module of `loco.simulate` whose dict `SIMULATE` contains the function that writes it. The module is imported
# on use, so that a change of one writer reruns only the simulations in its formats.
WRITERS = {
    "matterport3d": "raw_matterport3d",
    "scannet": "raw_scannet",
    "seven_scenes": "raw_posed_rgbd",
    "tum_rgbd": "raw_posed_rgbd",
    "posed_rgbd": "raw_posed_rgbd",
    "nerfstudio": "raw_posed_rgbd",
    "colmap": "raw_colmap",
    "hpatches": "raw_hpatches",
}
