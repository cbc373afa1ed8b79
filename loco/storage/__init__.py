"""Files between the steps: atomic writes and the per-scene HDF5 format."""

from loco.storage.atomic import atomic_path, write_json, write_text
from loco.storage.scene_file import (
    Correspondences,
    Encoded,
    Features,
    Frames,
    Labels,
    SceneFile,
    frames_identity,
    prepared_bytes,
)

__all__ = [
    "Correspondences",
    "Encoded",
    "Features",
    "Frames",
    "Labels",
    "SceneFile",
    "atomic_path",
    "frames_identity",
    "prepared_bytes",
    "write_json",
    "write_text",
]
