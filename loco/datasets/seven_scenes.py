"""7-Scenes (Shotton et al., CVPR 2013) in its raw download layout.

``<raw>/<scene>/seq-XX/frame-NNNNNN.{color.png,depth.png,pose.txt}``: depth is in millimetres, 65535 denotes missing
depth, and a pose is a 4 x 4 camera-to-world matrix. All sequences are read; the splits of the release divide sequences,
not scenes.

Colour and depth are *not* registered, and the release has no calibration. The images are from the raw cameras of a
Kinect, and KinectFusion, which computed the poses, tracked the depth camera with its default intrinsics: focal length
585 and principal point (320, 240) at 640 x 480. It identifies pixels by integers (Newcombe et al., ISMAR 2011), which
are therefore the pixel centres. Many papers treat both as one camera, which misaligns colour and depth by about 30
pixels at the border. Here they are two cameras, as in the calibrated version of the data that ACE uses (Brachmann et
al., CVPR 2023): colour has a focal length of 525, and its pose relative to the depth camera is that of another Kinect,
which was calibrated. These values are overridden by ``K.txt``, ``K_depth.txt`` and ``depth_to_color.txt`` in the
scene's folder; other files state the distortion of the lenses and the depth scale (:mod:`loco.datasets.posed_images`).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from loco.datasets.calibration import Lens
from loco.datasets.checklist import few
from loco.datasets.layouts import natural
from loco.datasets.pose_files import as_pose, centred, read_depth_to_color, read_matrix
from loco.datasets.posed_images import Listing, PosedImages, Rig, Shot, read_depth_scale, read_rig
from loco.errors import DataError

MILLIMETRES = 1000.0
SIZE = (480, 640)
COLOR_LENS = Lens(centred(np.array([[525.0, 0, 320], [0, 525.0, 240], [0, 0, 1]])), SIZE)
DEPTH_LENS = Lens(centred(np.array([[585.0, 0, 320], [0, 585.0, 240], [0, 0, 1]])), SIZE)
# Calibration of a Kinect at LIRIS, Lyon: projet.liris.cnrs.fr/voir/activities-dataset/kinect-calibration.html
KINECT = np.array(
    [
        [0.99996518, 0.00267651, -0.00790410, -0.02555894],
        [-0.00274093, 0.99996303, -0.00815045, 0.00010110],
        [0.00788199, 0.00817183, 0.99993554, 0.00203183],
        [0, 0, 0, 1],
    ]
)
PARTS = ("color.png", "depth.png", "pose.txt")
_FILE = re.compile(r"(frame-[0-9]+)\.(color\.png|depth\.png|pose\.txt)")


class SevenScenesScene(PosedImages):
    """A scene of 7-Scenes."""

    format = "seven_scenes"
    remedy = "add seq-NN/frame-NNNNNN.{color.png,depth.png,pose.txt} of each frame (unpack seq-NN.zip)"
    published = "chess|fire|heads|office|pumpkin|redkitchen|stairs"
    download = (
        "download the scene's zip from https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/ and "
        "unpack it, and each seq-XX.zip in it; set `raw` to the parent folder"
    )

    @classmethod
    def missing(cls, folder: Path, scene: str) -> list[Path]:
        """Return the folders of sequences that are still packed; if there are none, the missing files and folders."""
        packed = [file.stem for file in folder.glob("seq-*.zip") if not (folder / file.stem).is_dir()]
        unpacked = [folder / name for name in sorted(packed, key=natural)]
        return unpacked or list(dict.fromkeys(super().missing(folder, scene)))

    @staticmethod
    def cameras(folder: Path, scene: str, depth_scale: float | None = None) -> Rig:
        scale = read_depth_scale(folder, scene, depth_scale, MILLIMETRES)
        return read_rig(folder, scene, scale, COLOR_LENS, DEPTH_LENS)

    @staticmethod
    def listing(folder: Path, scene: str) -> Listing:
        color_to_depth = np.linalg.inv(read_depth_to_color(folder, scene, KINECT))
        found = Listing([], {})
        for sequence in sequences(folder):
            for stem in _frames(sequence, scene):
                name = f"{sequence.name}-{stem}"
                color, depth, pose_file = (sequence / f"{stem}.{part}" for part in PARTS)
                pose = as_pose(read_matrix(pose_file, (4, 4), scene), file=pose_file, scene=scene)
                if pose is None:
                    found.skipped[name] = "its pose was lost"
                else:
                    found.shots.append(Shot(name, color, depth, pose @ color_to_depth, pose))
        return found


def sequences(folder: Path) -> list[Path]:
    """Return the folders of sequences, in the order of their numbers."""
    return sorted((f for f in folder.glob("seq-*") if f.is_dir()), key=lambda file: natural(file.name))


def _frames(sequence: Path, scene: str) -> list[str]:
    """Return the frames of a sequence in order; each must have all its files."""
    parts: dict[str, set[str]] = {}
    for file in sequence.iterdir():
        if match := _FILE.fullmatch(file.name):
            parts.setdefault(match[1], set()).add(match[2])
    stems = sorted(parts, key=natural)
    lacking = [f"{stem}.{part}" for stem in stems for part in PARTS if part not in parts[stem]]
    if lacking or not stems:
        raise DataError(
            f"files are missing ({len(lacking)}): {few(lacking)}" if stems else "the folder contains no frames",
            file=sequence,
            scene=scene,
            expected="frame-NNNNNN.color.png, .depth.png and .pose.txt of each frame",
            found=", ".join(f"{sum(part in p for p in parts.values())} {part}" for part in PARTS),
            remedy=SevenScenesScene.remedy_of(scene),
        )
    return stems
