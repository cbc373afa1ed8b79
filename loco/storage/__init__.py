"""Files between the steps: atomic writes and the per-scene HDF5 format."""

from loco.storage.atomic import atomic_path, write_json, write_text
from loco.storage.scene_file import Correspondences, Features, Frames, SceneFile, frames_identity

__all__ = [
    "Correspondences",
    "Features",
    "Frames",
    "SceneFile",
    "atomic_path",
    "frames_identity",
    "write_json",
    "write_text",
]
