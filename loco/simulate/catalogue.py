"""The raw layouts that the simulator can write. Imports nothing, so that planning can load it."""

from __future__ import annotations

# Format -> module of `loco.simulate` whose dict `SIMULATE` has the function for it. The module is imported when it is
# used, so that a change of one writer reruns only the simulations that it wrote.
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
