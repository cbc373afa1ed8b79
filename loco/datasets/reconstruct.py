"""Build a COLMAP model from photographs: structure from motion with pycolmap, on the CPU.

The steps are SIFT features, matches between pairs of photographs, and incremental mapping (Schoenberger & Frahm,
"Structure-from-Motion Revisited", CVPR 2016). The scale of the model is arbitrary, because structure from motion
recovers geometry only up to scale.

The result is reproducible: the seed determines every random draw, photographs are numbered by their names, and the
mapping runs in one thread, because with several threads the model varies between runs even for a fixed seed. Features
and matches, which take most of the time, do not depend on the number of threads. Other versions of pycolmap and other
processors may produce another model.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pycolmap

from loco.datasets.checklist import few
from loco.datasets.colmap import MIN_IMAGES, photographs, unread_photographs
from loco.datasets.frame_order import order_difference
from loco.datasets.images import CONVERT
from loco.errors import DataError

MAX_IMAGE_SIZE = 1600  # longer side of the images for feature extraction, pixels
REMEDY = (
    "take sharp photographs of textured surfaces from different positions, overlapping by more than half; "
    "`matcher: exhaustive` also matches images that are not neighbours in the order of names"
)

logger = logging.getLogger(__name__)


def reconstruct(images: Path, out: Path, settings: Mapping[str, Any], threads: int) -> None:
    """Build a scene of :class:`loco.datasets.colmap.ColmapScene` from photographs.

    Args:
        images: folder of the photographs. For ``sequential`` matching, the order of their names must be the
            recording order and unambiguous.
        out: the scene to write: ``images``, a copy of them, and ``sparse/0``, the largest model found, binary. It is
            written atomically and replaces an existing scene.
        settings: ``matcher``, "exhaustive" (every pair) or "sequential" (each photograph with the next ones in the
            order of names). Optional, with defaults: ``max_image_size`` in pixels (:data:`MAX_IMAGE_SIZE`),
            ``single_camera`` (True: one camera with one lens setting took all photographs), ``seed`` (0).
        threads: number of threads for features and matches.

    Raises:
        DataError: there are too few photographs, their order is ambiguous, one cannot be used, or they do not overlap
            enough for any model.
    """
    found, unread = photographs(images), unread_photographs(images)
    if unread:
        logger.warning("images with unsupported file formats are ignored (%d): %s", len(unread), few(unread))
    if len(found) < MIN_IMAGES:
        raise DataError(
            "the folder contains too few photographs for a reconstruction",
            file=images,
            scene=out.name,
            expected=f"at least {MIN_IMAGES}, preferably several dozen",
            found=f"{len(found)}, and {len(unread)} with unsupported formats: {few(unread)}" if unread else len(found),
            remedy=CONVERT if unread else "copy the photographs of the scene to this folder",
        )
    if settings["matcher"] == "sequential":
        _require_one_order(images, found, out.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    # pycolmap prints many messages outside the log; the important ones are logged here.
    pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        whole, database = Path(temporary, "scene"), Path(temporary, "database.db")
        names = [file.relative_to(images).as_posix() for file in found]
        _extract(database, images, names, settings, threads, out.name)
        _match(database, settings, threads)
        model = _map(database, images, Path(temporary, "models"), settings, out.name)
        for name in names:
            copy = whole / "images" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(images / name, copy)
        place = whole / "sparse" / "0"
        place.mkdir(parents=True)
        model.write_binary(place)
        shutil.rmtree(out, ignore_errors=True)
        whole.replace(out)


def _require_one_order(images: Path, found: Sequence[Path], scene: str) -> None:
    """Reject ambiguous orders: COLMAP matches neighbours in lexicographic order, which may differ from the recording.

    Raises:
        DataError: the order of the names is ambiguous.
    """
    if difference := order_difference(found):
        raise DataError(
            "the order of the photographs is ambiguous, but `matcher: sequential` matches neighbours",
            file=images,
            scene=scene,
            expected="names with an unambiguous order, such as zero-padded numbers",
            found=difference,
            remedy="rename the photographs, or set `matcher: exhaustive`",
        )


def _extract(
    database: Path, images: Path, names: Sequence[str], settings: Mapping[str, Any], threads: int, scene: str
) -> None:
    """Write the features of all photographs to the database.

    Raises:
        DataError: a file is not an image, or sizes differ although a single camera was configured.
    """
    options = pycolmap.FeatureExtractionOptions(use_gpu=False, num_threads=threads)
    options.max_image_size = settings.get("max_image_size", MAX_IMAGE_SIZE)
    single = settings.get("single_camera", True)
    camera = pycolmap.CameraMode.SINGLE if single else pycolmap.CameraMode.AUTO
    # Registered first, because extraction would number the photographs in the order in which threads finish.
    pycolmap.Database.open(database).close()
    pycolmap.import_images(database, images, camera, image_names=list(names))
    pycolmap.extract_features(
        database, images, list(names), camera, extraction_options=options, device=pycolmap.Device.cpu
    )
    with pycolmap.Database.open(database) as opened:
        read = {image.name for image in opened.read_all_images()}
    if unread := [name for name in names if name not in read]:
        raise DataError(
            f"photographs cannot be used ({len(unread)} of {len(names)}): {few(unread)}",
            file=images,
            scene=scene,
            expected="images of the same size" if single else "images",
            remedy="remove them"
            + (", or set `single_camera: false` if the others were taken by several cameras" if single else ""),
        )
    logger.info("extracted features of %d photographs", len(names))


def _match(database: Path, settings: Mapping[str, Any], threads: int) -> None:
    matching = pycolmap.FeatureMatchingOptions(use_gpu=False, num_threads=threads)
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = settings.get("seed", 0)
    match = {"exhaustive": pycolmap.match_exhaustive, "sequential": pycolmap.match_sequential}[settings["matcher"]]
    match(database, matching_options=matching, verification_options=verification, device=pycolmap.Device.cpu)
    with pycolmap.Database.open(database) as opened:
        logger.info("found %d geometrically verified matches between photographs", opened.num_inlier_matches())


def _map(
    database: Path, images: Path, models: Path, settings: Mapping[str, Any], scene: str
) -> pycolmap.Reconstruction:
    """Return the reconstructed model; if there are several that cannot be connected, the one with the most photographs.

    Raises:
        DataError: no model was found.
    """
    seed = settings.get("seed", 0)
    options = pycolmap.IncrementalPipelineOptions(
        num_threads=1, random_seed=seed, min_model_size=MIN_IMAGES, extract_colors=False
    )
    options.mapper.random_seed = options.triangulation.random_seed = seed
    placed = 0

    def log_progress() -> None:
        nonlocal placed
        placed += 1
        logger.info("registrations so far, without the initial pair of each attempted model: %d", placed)

    models.mkdir()
    found = pycolmap.incremental_mapping(database, images, models, options, next_image_callback=log_progress)
    sizes = sorted(model.num_reg_images() for model in found.values())
    logger.info(
        "photographs in each reconstructed model (the largest is used): %s", ", ".join(map(str, sizes)) or "none"
    )
    if not sizes or sizes[-1] < MIN_IMAGES:
        raise DataError(
            "no model could be reconstructed: too few of the photographs show the same surfaces",
            file=images,
            scene=scene,
            expected=f"at least {MIN_IMAGES} photographs with matches between them",
            found=f"{max(sizes, default=0)} in the largest model",
            remedy=REMEDY,
        )
    return max(found.values(), key=lambda model: (model.num_reg_images(), model.num_points3D()))
