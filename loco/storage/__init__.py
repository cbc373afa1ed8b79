"""Files between the steps: atomic writes, content ids, and the formats that all steps read and write."""

from loco.storage.atomic import atomic_path, temporary_files, write_text
from loco.storage.json_file import read_json, write_json
from loco.storage.manifest import Manifest, read_manifest, write_manifest
from loco.storage.mesh_file import read_mesh, write_mesh
from loco.storage.pair_index import PairIndex
from loco.storage.raw_folder import read_folder_record, write_folder_record
from loco.storage.scene_file import (
    Correspondences,
    Encoded,
    Features,
    Frames,
    Labels,
    SceneFile,
    prepared_bytes,
)

__all__ = [
    "Correspondences",
    "Encoded",
    "Features",
    "Frames",
    "Labels",
    "Manifest",
    "PairIndex",
    "SceneFile",
    "atomic_path",
    "prepared_bytes",
    "read_folder_record",
    "read_json",
    "read_manifest",
    "read_mesh",
    "temporary_files",
    "write_folder_record",
    "write_json",
    "write_manifest",
    "write_mesh",
    "write_text",
]
