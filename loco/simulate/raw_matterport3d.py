"""Write a simulated scene as a raw Matterport3D scene: the four zips of a download, in Matterport's axes and units.

Layout and conventions: https://github.com/niessner/Matterport/blob/master/data_organization.md. The image origin is at
the bottom left, y is up, cameras look along -z, and depth is in units of 0.25 mm. No other module of this package
depends on these conventions.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray
from tqdm import tqdm

from loco.simulate.house import House, build_house, scene_seed
from loco.simulate.panoramas import Shot, camera_intrinsics, choose_panoramas, shots
from loco.simulate.render import Renderer
from loco.simulate.sensor import develop, expose, sense
from loco.simulate.shapes import Floats
from loco.storage import atomic_path

DEPTH_UNIT = 0.25e-3  # metres
JPEG_QUALITY = 92
SEGMENT = 0.7  # objects are over-segmented into pieces of about this size, metres
OPENCV_TO_MATTERPORT = np.diag([1.0, -1.0, -1.0, 1.0])


def simulate_matterport3d(directory: Path, scene: str, settings: Mapping[str, Any]) -> None:
    """Build a scene, render panoramas, and write it as a raw Matterport3D scene.

    Args:
        directory: folder of the four zips, created if missing. Files are written atomically.
        scene: its name; together with the seed it determines the content.
        settings: ``seed``; ``rooms``; ``panoramas``; ``image``, with ``height`` and ``width`` in pixels;
            ``repetition``.
    """
    entropy = scene_seed(settings["seed"], scene)
    house = build_house(entropy, settings)
    renderer = Renderer(house)
    rng = np.random.default_rng([*entropy, 2])
    size = (settings["image"]["height"], settings["image"]["width"])
    cameras = camera_intrinsics(size, rng)
    panoramas = [(rng.bytes(16).hex(), p) for p in choose_panoramas(house, renderer.scene, settings["panoramas"], rng)]
    images = [(name, shot) for name, panorama in panoramas for shot in shots(panorama)]
    exposures = {name: expose(renderer.brightness(panorama.position), rng) for name, panorama in panoramas}

    directory = Path(directory)
    with (
        _zip(directory, scene, "undistorted_color_images") as colours,
        _zip(directory, scene, "undistorted_depth_images") as depths,
    ):
        for name, shot in tqdm(images, desc=f"{scene}: images", unit="image", mininterval=1.0):
            view = renderer.render(cameras[shot.camera], shot.pose, size)
            colours.add(_image_name(name, shot, "i"), _jpeg(develop(view, exposures[name], rng)))
            depths.add(_image_name(name, shot, "d"), _png(sense(view, rng)))
    with _zip(directory, scene, "undistorted_camera_parameters") as parameters:
        parameters.add(f"{scene}.conf", camera_file(images, cameras, size).encode())
    with _zip(directory, scene, "region_segmentations") as regions:
        for name, content in region_files(house, renderer.vertex_colours(), scene, rng):
            regions.add(name, content)


def camera_file(images: list[tuple[str, Shot]], cameras: list[Floats], size: tuple[int, int]) -> str:
    """Return the text of a .conf file: each camera's intrinsics, followed by its images and their poses."""
    lines = [
        "dataset matterport",
        f"n_images {len(images)}",
        "depth_directory undistorted_depth_images",
        "color_directory undistorted_color_images",
        "",
    ]
    for number, k in enumerate(cameras):
        cy = size[0] - k[1, 2]
        lines.append(f"intrinsics_matrix {k[0, 0]:.6g} 0 {k[0, 2]:.6g}  0 {k[1, 1]:.6g} {cy:.6g}  0 0 1")
        for name, shot in images:
            if shot.camera == number:
                pose = " ".join(f"{value:.9g}" for value in (shot.pose @ OPENCV_TO_MATTERPORT).ravel())
                lines.append(f"scan {_image_name(name, shot, 'd')} {_image_name(name, shot, 'i')} {pose}")
    return "\n".join(lines) + "\n"


def region_files(
    house: House, colours: NDArray[np.uint8], scene: str, rng: np.random.Generator
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each room's labelled mesh: PLY, face segments, and the objects that they form."""
    room_of = np.array([instance.room for instance in house.instances])
    for region in range(len(house.rooms)):
        faces = np.flatnonzero(room_of[house.instance] == region)
        used, triangles = np.unique(house.triangles[faces], return_inverse=True)
        mesh = trimesh.Trimesh(
            house.vertices[used], triangles.reshape(-1, 3), vertex_colors=colours[used], process=False
        )
        segments = oversegment(house.instance[faces], house.vertices[house.triangles[faces]].mean(axis=1), rng)
        yield f"region{region}.ply", mesh.export(file_type="ply", vertex_normal=False)
        yield f"region{region}.fsegs.json", _json({"sceneId": f"matterport.{scene}", "segIndices": segments.tolist()})
        groups = [
            {
                "id": number,
                "objectId": number,
                "segments": np.unique(segments[house.instance[faces] == instance]).tolist(),
                "label": house.instances[instance].label,
            }
            for number, instance in enumerate(np.unique(house.instance[faces]).tolist())
        ]
        yield f"region{region}.semseg.json", _json({"sceneId": f"matterport.{scene}", "segGroups": groups})


def oversegment(instance: NDArray, points: Floats, rng: np.random.Generator) -> NDArray:
    """Divide objects into segments: return the segment (n,) of ``points`` (n, 3) on objects ``instance`` (n,).

    Segment numbers are unordered and have gaps, as in the real data.
    """
    keys = np.concatenate([instance[:, None], np.floor(points / SEGMENT).astype(int)], axis=1)
    _, segment = np.unique(keys, axis=0, return_inverse=True)
    segment = segment.ravel()
    numbers = rng.permutation(2 * (segment.max() + 1))[: segment.max() + 1]
    return numbers[segment]


class _Zip:
    """A zip file whose bytes are reproducible."""

    def __init__(self, file: zipfile.ZipFile, folder: str) -> None:
        self.file, self.folder = file, folder

    def add(self, name: str, content: bytes) -> None:
        member = zipfile.ZipInfo(f"{self.folder}/{name}", date_time=(2017, 1, 1, 0, 0, 0))
        packed = name.endswith((".jpg", ".png"))
        member.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
        member.external_attr = 0o644 << 16
        self.file.writestr(member, content)


@contextmanager
def _zip(directory: Path, scene: str, kind: str) -> Iterator[_Zip]:
    with atomic_path(directory / f"{kind}.zip") as path, zipfile.ZipFile(path, "w") as file:
        yield _Zip(file, f"{scene}/{kind}")


def _image_name(panorama: str, shot: Shot, kind: str) -> str:
    return f"{panorama}_{kind}{shot.camera}_{shot.yaw}.{'jpg' if kind == 'i' else 'png'}"


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _png(depth: Floats) -> bytes:
    units = np.round(depth / DEPTH_UNIT)
    return cv2.imencode(".png", np.where(units > 65535, 0, units).astype(np.uint16))[1].tobytes()


def _json(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


# Format -> the function that simulates a scene of it, for `loco.simulate.simulate_scene`.
SIMULATE = {"matterport3d": simulate_matterport3d}
