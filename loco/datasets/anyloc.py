"""The place-recognition sets of AnyLoc (Keetha et al., RA-L 2023), in the layouts of its public archives.

github.com/AnyLoc/AnyLoc, "Dataset Setup", lists them. A set is one scene, in a folder with the name of its archive. For
each *query* image, a rule defines the *database* images that show the same place, its *positives*. Rules and
thresholds are those of AnyLoc's loaders, which published results use. An image at exactly the stated distance is a
positive.

============================ ============================== ============= ==================== ========================
set                          scene                          database      queries              positives
============================ ============================== ============= ==================== ========================
Baidu Mall                   baidu_datasets                 689           2292                 10 m
Gardens Point                gardens                        200 (day)     200 (night)          file (2 frames)
17 Places                    17places                       406           406                  file (5 frames)
Pitts30k, St Lucia           pitts30k, st_lucia             10000, 1549   6816, 1464           25 m
Oxford RobotCar              Oxford_Robotcar                as in its list                     25 m
Hawkins                      hawkins_long_corridor          127           118                  8 m
Laurel Caverns               laurel_caverns                 141           112                  8 m
Mid-Atlantic Ridge           eiffel                         65            101                  file (0.3 m)
Nardo-Air, Nardo-Air R       test_40_midref_rot0, ..._rot90 102           71                   file (the nearest five)
VP-Air                       VPAir                          2706 + 10000  2706                 file (3 frames)
============================ ============================== ============= ==================== ========================
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path, PurePosixPath
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from loco.datasets.checklist import few
from loco.datasets.files import read_bytes
from loco.datasets.matlab import read_cells
from loco.datasets.photographs import LARGEST_FILE, Listing, Photographs, images_of, other_files, read_array
from loco.datasets.pose_files import read_number, read_text
from loco.errors import DataError

MAX_POSITIVES = 10_000_000  # for all queries together; a small file can refer to one long list many times
FARTHEST = 1e9  # largest coordinate, metres

Images = Mapping[str, Path]  # name -> file, in order


class Found(NamedTuple):
    """The positives of each query (indices of database images, ascending), and notes on how they were found."""

    positives: list[list[int]]
    notes: Sequence[str] = ()


class PlaceRecognitionScene(Photographs):
    """A set of database and query images.

    Its ground truth consists of the names ``database`` and ``queries``, and the ``positives`` of each query, indices of
    database images. A query may have none.
    """

    database: ClassVar[tuple[str, ...]] = ()  # folders, in order
    queries: ClassVar[tuple[str, ...]] = ()
    remedy = "check the images and the ground truth of the dataset (docs/datasets.md lists the required files)"
    published = (
        "baidu_datasets|gardens|17places|pitts30k|st_lucia|Oxford_Robotcar|hawkins_long_corridor|laurel_caverns|eiffel"
        "|test_40_midref_rot(0|90)|VPAir"
    )
    download = (
        "download the archive of the dataset from AnyLoc's public release (github.com/AnyLoc/AnyLoc, Datasets-All) "
        "and unpack it"
    )

    @classmethod
    def positives(cls, folder: Path, scene: str, database: Images, queries: Images) -> Found:
        """Return the positives of each query; raise DataError if a file of the ground truth is missing or broken."""
        raise NotImplementedError

    @classmethod
    def images(cls, folder: Path, scene: str) -> tuple[Images, Images]:
        """Return the database images and the query images."""
        return _in_folders(folder, cls.database, scene), _in_folders(folder, cls.queries, scene)

    @classmethod
    def listing(cls, folder: Path, scene: str) -> Listing:
        database, queries = cls.images(folder, scene)
        positives, notes = cls.positives(folder, scene, database, queries)
        if alone := sum(not found for found in positives):
            notes = [*notes, f"queries without a positive: {alone} of {len(queries)}"]
        if others := [name for part in (*cls.database, *cls.queries) for name in other_files(folder / part)]:
            notes = [*notes, f"files next to the images are ignored ({len(others)}): {few(others)}"]
        truth = {"database": list(database), "queries": list(queries), "positives": positives}
        counts = {"database": len(database), "queries": len(queries)}
        return Listing({**database, **queries}, truth, counts, notes)


# --- by positions ----------------------------------------------------------------------------------------------------


def within(database: NDArray[np.floating], queries: NDArray[np.floating], radius: float) -> Found:
    """Return the indices of the database positions (n, d) at most ``radius`` from each query position (m, d)."""
    found = cKDTree(database).query_ball_point(queries, radius, return_sorted=True)
    return Found([list(map(int, numbers)) for numbers in found])


class BaiduScene(PlaceRecognitionScene):
    """Baidu Mall: each image has a ``.camera`` file, whose second-to-last line is the camera centre, metres."""

    format = "baidu"
    database, queries = ("training_images_undistort",), ("query_images_undistort",)
    radius = 10.0

    @classmethod
    def positives(cls, folder: Path, scene: str, database: Images, queries: Images) -> Found:
        of_database, of_queries = (
            np.array([_camera_centre(folder / cameras / f"{file.stem}.camera", scene) for file in images.values()])
            for cameras, images in (("training_gt", database), ("query_gt", queries))
        )
        return within(of_database, of_queries, cls.radius)


class GeotaggedScene(PlaceRecognitionScene):
    """Pitts30k, St Lucia and other sets with names ``@easting@northing@...`` (UTM, metres) of gmberton/datasets_vg."""

    format = "geotagged"
    database, queries = ("images/test/database",), ("images/test/queries",)
    radius = 25.0

    @classmethod
    def positives(cls, folder: Path, scene: str, database: Images, queries: Images) -> Found:
        of_database, of_queries = (
            np.array([_utm(file, scene) for file in images.values()]) for images in (database, queries)
        )
        return within(of_database, of_queries, cls.radius)


class OxfordRobotCarScene(PlaceRecognitionScene):
    """Oxford RobotCar: ``oxdatapart.mat`` lists images of ``oxDataPart/`` and their positions, metres.

    Its cells, in this order: database images (padded with spaces), their positions (n, 2), and the same for queries.
    """

    format = "oxford_robotcar"
    radius = 25.0

    @classmethod
    def images(cls, folder: Path, scene: str) -> tuple[Images, Images]:
        names, _, query_names, _ = _read_oxford(folder / "oxdatapart.mat", scene)
        return _listed(folder, names, scene), _listed(folder, query_names, scene)

    @classmethod
    def positives(cls, folder: Path, scene: str, database: Images, queries: Images) -> Found:
        _, places, _, query_places = _read_oxford(folder / "oxdatapart.mat", scene)
        return within(places, query_places, cls.radius)


class PoseListScene(PlaceRecognitionScene):
    """Sets with ``pose_topic_list.npy``: rows that begin with x and y in metres, for database and query images."""

    database, queries = ("db_images",), ("q_images",)
    database_rows: ClassVar[slice]
    query_rows: ClassVar[slice]
    radius = 8.0

    @classmethod
    def positives(cls, folder: Path, scene: str, database: Images, queries: Images) -> Found:
        file = folder / "pose_topic_list.npy"
        places = _positions(read_array(file, scene), file, scene)
        parts = places[cls.database_rows], places[cls.query_rows]
        for part, images, what in zip(parts, (database, queries), ("database", "query")):
            _require_count(len(part), len(images), f"{what} image", file, scene)
        return within(*parts, cls.radius)


class HawkinsScene(PoseListScene):
    """Hawkins, long corridor."""

    format = "hawkins"
    database_rows, query_rows = slice(127), slice(127, 245)


class LaurelCavernsScene(PoseListScene):
    """Laurel Caverns."""

    format = "laurel_caverns"
    database_rows, query_rows = slice(141), slice(229, 341)


# --- by files of positives -------------------------------------------------------------------------------------------


class MatchListScene(PlaceRecognitionScene):
    """Sets with a ``.npy`` file of rows (index of a query, indices of the database images that show its place)."""

    matches: ClassVar[tuple[str, ...]]  # file names; the first one that exists is read
    first_row = 0  # index of the first query's row

    @classmethod
    def positives(cls, folder: Path, scene: str, database: Images, queries: Images) -> Found:
        file = next((folder / name for name in cls.matches if (folder / name).is_file()), None)
        if file is None:
            raise cls.is_missing(folder / cls.matches[0], scene)
        rows = read_array(file, scene)
        if rows.ndim != 2 or rows.shape[1] != 2:
            expected = "shape (n, 2): index of a query, indices of its positives"
            raise _truth_error("the array has an unexpected shape", file, scene, expected, f"shape {rows.shape}")
        rows = rows[cls.first_row :, 1]
        _require_count(len(rows), len(queries), "query", file, scene)
        note = [f"positives are those of {file.name}"] if len(cls.matches) > 1 else []
        if (total := sum(_length(row) for row in rows)) > MAX_POSITIVES:
            raise _truth_error("the file lists too many positives", file, scene, f"at most {MAX_POSITIVES}", total)
        found = [_numbers(row, file, scene) for row in rows]
        return _of_database(found, len(database), file, scene, note)


class GardensScene(MatchListScene):
    """Gardens Point: the right side of the path by day (database) and by night (queries)."""

    format = "gardens"
    database, queries = ("day_right",), ("night_right",)
    matches = ("gardens_gt.npy",)


class SeventeenPlacesScene(MatchListScene):
    """17 Places. AnyLoc reads ``ground_truth_new.npy``, LoCo ``better_ground_truth.npy``; the first found is read."""

    format = "seventeen_places"
    database, queries = ("ref",), ("query",)
    matches = ("ground_truth_new.npy", "better_ground_truth.npy")


class MidAtlanticRidgeScene(MatchListScene):
    """Mid-Atlantic Ridge, also called Eiffel: the rows of its queries follow 101 other rows."""

    format = "mid_atlantic_ridge"
    database, queries = ("db_images",), ("q_images",)
    matches = ("eiffel_gt.npy",)
    first_row = 101


class VPAirScene(MatchListScene):
    """VP-Air: the distractors are database images that are positives of no query, after the others."""

    format = "vp_air"
    database, queries = ("reference_views", "distractors"), ("queries",)
    matches = ("vpair_gt.npy",)


class NardoAirScene(PlaceRecognitionScene):
    """Nardo-Air: ``gt_matches.csv`` lists the five nearest database images of each query (``top_1_ref_ind``, ...)."""

    format = "nardo_air"
    database, queries = ("reference_images",), ("query_images",)
    columns = tuple(f"top_{k}_ref_ind" for k in range(1, 6))

    @classmethod
    def positives(cls, folder: Path, scene: str, database: Images, queries: Images) -> Found:
        file = folder / "gt_matches.csv"
        rows = list(csv.DictReader(read_text(file, scene).splitlines()))
        _require_count(len(rows), len(queries), "query", file, scene)
        try:
            order = [int(row["query_ind"]) for row in rows]
            found = [sorted({int(row[column]) for column in cls.columns}) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            expected = f"integer columns: query_ind, {', '.join(cls.columns)}"
            raise _truth_error(f"the file cannot be parsed: {error}", file, scene, expected) from error
        if sorted(order) != list(range(len(queries))):
            raise _truth_error(
                "the file does not list each query exactly once", file, scene, f"query_ind from 0 to {len(queries) - 1}"
            )
        return _of_database([found[k] for k in np.argsort(order)], len(database), file, scene, [])


# --- files -----------------------------------------------------------------------------------------------------------


def _in_folders(folder: Path, parts: Sequence[str], scene: str) -> Images:
    images: dict[str, Path] = {}
    for part in parts:
        images |= images_of(folder / part, folder, scene)
    return images


def _camera_centre(file: Path, scene: str) -> list[float]:
    """Return a camera centre, metres: the second-to-last line of a file with intrinsics, rotation, centre and size."""
    lines = [line for line in read_text(file, scene).splitlines() if line.strip()]
    try:
        centre = [read_number(word) for word in lines[-2].split()]
    except (IndexError, ValueError):
        centre = []
    if len(centre) != 3 or not _are_places(centre):
        found = lines[-2][:80] if len(lines) > 1 else f"number of lines: {len(lines)}"
        raise _truth_error(
            "the second to last line does not contain a camera centre", file, scene, "three numbers, metres", found
        )
    return centre


def _utm(file: Path, scene: str) -> list[float]:
    try:
        place = [float(word) for word in file.name.split("@")[1:3]]
    except ValueError:
        place = []
    if len(place) != 2 or not _are_places(place):
        raise _truth_error(
            "the name of the image does not contain its position",
            file,
            scene,
            "@easting@northing@..., metres",
            file.name,
        )
    return place


def _read_oxford(file: Path, scene: str) -> tuple[list[str], NDArray, list[str], NDArray]:
    """Return database images, their positions (n, 2), query images, and their positions."""
    content = read_bytes(file, scene, limit=LARGEST_FILE)
    try:
        names, places, query_names, query_places = read_cells(content, "dbStruct", 4, LARGEST_FILE)
    except ValueError as error:
        expected = "`dbStruct`: database images with positions, and query images with positions"
        raise _truth_error(f"the file cannot be read: {error}", file, scene, expected) from error
    return *_placed(names, places, file, scene), *_placed(query_names, query_places, file, scene)


def _placed(
    images: list[str] | NDArray, positions: list[str] | NDArray, file: Path, scene: str
) -> tuple[list[str], NDArray]:
    """Return the names of images and their positions (n, 2), after a check of the cells of a file."""
    if not isinstance(images, list) or isinstance(positions, list):
        expected = "image names (texts) and a matrix of their positions, for the database and for the queries"
        found = " and ".join("texts" if isinstance(cell, list) else "numbers" for cell in (images, positions))
        raise _truth_error("`dbStruct` does not contain images with positions", file, scene, expected, found)
    if positions.shape != (len(images), 2) or not _are_places(positions):
        expected = f"shape ({len(images)}, 2), one row per image, of numbers below {FARTHEST:g} (metres)"
        found = f"shape {positions.shape}, largest number {np.abs(positions).max(initial=0):g}"
        raise _truth_error("the positions in the file do not match its images", file, scene, expected, found)
    return images, positions


def _listed(folder: Path, names: Sequence[str], scene: str) -> Images:
    """Return the images in the list of Oxford RobotCar; images outside its folder are refused."""
    images: dict[str, Path] = {}
    for name in (text.replace(" ", "") for text in names):
        path = PurePosixPath("oxDataPart", name)
        if not name or ".." in path.parts or path.parts[0] != "oxDataPart":
            raise _truth_error(
                f"the file lists an image outside oxDataPart/: {name!r}", folder / "oxdatapart.mat", scene
            )
        if str(path) in images:
            raise _truth_error(f"the file lists an image twice: {name!r}", folder / "oxdatapart.mat", scene)
        images[str(path)] = folder / path
    return images


def _are_places(numbers: Sequence[float] | NDArray) -> bool:
    """Return whether numbers are plausible coordinates, whose sum of squares does not overflow."""
    return bool((np.abs(numbers) < FARTHEST).all())


def _positions(rows: NDArray, file: Path, scene: str) -> NDArray[np.float64]:
    """Return the first two numbers of each row, (n, 2)."""
    try:
        places = rows[:, :2].astype(np.float64)
    except (IndexError, TypeError, ValueError, OverflowError):
        places = np.empty((0, 0))
    if places.shape[1] != 2 or not _are_places(places):
        raise _truth_error(
            "the file contains no valid positions",
            file,
            scene,
            f"rows that begin with x and y in metres, numbers below {FARTHEST:g}",
            f"an array of shape {rows.shape}",
        )
    return places


def _numbers(row: object, file: Path, scene: str) -> list[int]:
    """Return the distinct numbers of a list or an array, or a single number, ascending."""
    # NumPy would expand nested lists; a few bytes can describe billions of numbers.
    plain = isinstance(row, int | np.ndarray) or (
        isinstance(row, list | tuple) and all(type(k) is int and abs(k) < 1 << 63 for k in row)
    )
    try:
        numbers = np.atleast_1d(np.asarray(row)) if plain else np.empty((0, 0))
    except OverflowError:
        numbers = np.empty((0, 0))
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise _truth_error(
            "the file contains an object that is not a list of integers",
            file,
            scene,
            "a number or a list of numbers of images",
            _described(row),
        )
    return np.unique(numbers).astype(np.int64).tolist()


def _length(row: object) -> int:
    return len(row) if isinstance(row, Sized) and not (isinstance(row, np.ndarray) and row.ndim == 0) else 1


def _described(value: object) -> str:
    """Return type and size of a value, whose content may be nested too deeply to be printed."""
    if isinstance(value, np.ndarray):
        return f"array {value.shape} of {value.dtype}"
    return type(value).__name__ + (f" of length {len(value)}" if isinstance(value, Sized) else "")


def _of_database(found: list[list[int]], count: int, file: Path, scene: str, notes: Sequence[str]) -> Found:
    """Remove indices of images that do not exist, as in a list of frames before and after the first or last position.

    Raises:
        DataError: all indices of a query would be removed.
    """
    valid = [[number for number in numbers if 0 <= number < count] for numbers in found]
    for query, (numbers, some) in enumerate(zip(found, valid)):
        if numbers and not some:
            what = f"query {query} has no positive among the database images"
            raise _truth_error(what, file, scene, f"numbers from 0 to {count - 1}", numbers[:10])
    left_out = sum(map(len, found)) - sum(map(len, valid))
    more = [f"positives in {file.name} that are the index of no image are ignored: {left_out}"] if left_out else []
    return Found(valid, [*notes, *more])


def _require_count(found: int, expected: int, what: str, file: Path, scene: str) -> None:
    if found != expected:
        problem = f"the file does not have one row per {what}"
        raise _truth_error(problem, file, scene, f"{expected} rows, one per image", f"{found} rows")


def _truth_error(problem: str, file: Path, scene: str, expected: object = None, found: object = None) -> DataError:
    remedy = PlaceRecognitionScene.remedy_of(scene)
    return DataError(problem, file=file, scene=scene, expected=expected, found=found, remedy=remedy)
