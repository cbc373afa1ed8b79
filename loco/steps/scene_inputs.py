"""Check and identify the inputs of the steps that follow the frames step, before any input is used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from loco.errors import DataError
from loco.records import Recipe
from loco.storage import Correspondences, Encoded, Features, Frames, Labels, PairIndex, SceneFile
from loco.storage.content_id import read_content_id
from loco.storage.reading import REGENERATE, reading

STEPS: dict[type[SceneFile], str] = {
    Frames: "frames",
    Correspondences: "correspondence",
    PairIndex: "pairs",
    Labels: "label",
    Features: "extract",
    Encoded: "encode",
}  # the step that writes each kind, and the start of its role in a recipe


def check_scenes(
    scenes: Iterable[Sequence[Path | None]], kinds: Sequence[type[SceneFile]], recipe: Recipe
) -> dict[Path, str]:
    """Open the files of each scene once, and check that they were made as planned and from the same frames.

    Args:
        scenes: the files of each scene, in the order of ``kinds``; the first contains the frames. A file that a scene
            lacks is None, or left out at the end of the list.
        kinds: the class of each file.
        recipe: recipe of the output; its inputs have the roles ``<step>/<dataset>``.

    Returns:
        Path -> content id of every file.

    Raises:
        DataError: a file is missing or damaged, was not made as expected, or describes different frames than the other
            files of its scene.
    """
    found: dict[Path, str] = {}
    for paths in tqdm(list(scenes), desc="check inputs", unit="scene", delay=2):
        frames: SceneFile | None = None
        for kind, path in zip(kinds, paths):
            if path is None:
                continue
            with kind(path) as file:
                role = f"{STEPS[kind]}/{file.dataset}"
                if role not in recipe.inputs:
                    raise DataError(
                        "the file belongs to another dataset than planned",
                        file=path,
                        expected=f"the dataset of one of the inputs {', '.join(sorted(recipe.inputs))}",
                        found=file.dataset,
                        remedy=REGENERATE,
                    )
                file.require_recipe(recipe.inputs[role])
                if frames is not None:
                    file.require_frames(frames)
                frames = frames or file
                found[path] = file.content_id
    return found


def weights_ids(weights: Iterable[Path]) -> dict[Path, str]:
    """Identify the weight files of a model.

    A model file of this project has a content id. Other files are identified by size and modification time, because
    hashing large files in every job would be slow.

    Returns:
        Path -> content id, or ``<bytes> bytes, modified <nanoseconds>``.

    Raises:
        DataError: a file is missing.
    """
    return {path: _content_id(path) or stat_identity(path) for path in weights}


def stat_identity(path: Path) -> str:
    """Identify a file by its size and modification time, without reading it.

    Raises:
        DataError: it is missing.
    """
    with reading(path):
        status = path.stat()
    return f"{status.st_size} bytes, modified {status.st_mtime_ns}"


def _content_id(path: Path) -> str | None:
    try:
        return read_content_id(path)
    except DataError:  # not a file of this project
        return None
