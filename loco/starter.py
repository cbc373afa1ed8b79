"""Write a commented starter configuration for a folder of recordings, scans or photographs (``loco init``)."""

from __future__ import annotations

import json
import os
import re
import shlex
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from loco.config_files import room_of
from loco.config_layers import workflow_folder
from loco.config_schema import SCHEMA, name_pattern
from loco.datasets.catalogue import FORMATS
from loco.datasets.layouts import PHOTOGRAPHS as SUPPORTED
from loco.datasets.recognise import (
    EXAMPLES,
    MIN_PHOTOGRAPHS,
    PHOTOGRAPHS,
    VIDEO_SUFFIXES,
    Recognised,
    find_videos,
    image_size,
    images_by_suffix,
    nearest_problem,
    recognise,
)
from loco.errors import ConfigError, counted
from loco.files import is_plain_path

LONGER_SIDE = 320  # pixels of the prepared images, as in the experiments of the demo
FRAMES_PER_SECOND = 3.0  # of a video; neighbouring frames must overlap for COLMAP, and keyframes are selected later
MULTIPLE = 16  # the sides are multiples of this number of pixels, and thereby of the usual strides
DEFAULT_SIZE = (240, 320)
LINE = 120  # maximum number of characters
WITH_FUSED_MESH = ("seven_scenes", "tum_rgbd", "posed_rgbd", "nerfstudio")
VIDEOS = ("scannet", *WITH_FUSED_MESH)
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}  # text that YAML reads as something else


def write_starter(given: Path, out: Path, per_second: float | None = None) -> None:
    """Write a configuration for a folder or a video, and print the next command.

    The frames of videos are written to ``data/<name>_frames/<video>/`` in the working directory.

    Args:
        given: a folder that contains one folder per scene, is a scene, or contains videos; or a video.
        out: file to write.
        per_second: frames per second that are extracted from a video; None: :data:`FRAMES_PER_SECOND`.

    Raises:
        ConfigError: the file exists, the folder or video does not, nothing in it is recognised, or ``per_second`` is
            set although ``given`` neither is nor contains a video.
        DataError: a video cannot be decoded or is too short.
    """
    if os.path.lexists(out):
        raise ConfigError(f"{out} exists and is not overwritten; name another file with --out, or remove it")
    videos = find_videos(given)
    if per_second is not None and not videos:
        raise ConfigError(f"--fps applies to videos only, and {given} neither is nor contains one; remove --fps")
    folder = _extract(given, videos, per_second or FRAMES_PER_SECOND) if videos else given
    found, unnamed = _find(folder)
    command = f"snakemake{_snakefile()} --configfile {shlex.quote(str(out))} --cores {os.cpu_count() or 1}"
    text = configuration(found, image_size(found), command, of_video=bool(videos))
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out, "x", encoding="utf-8") as file:
        file.write(text)
    print(f"{out}: {counted(len(found.scenes), 'scene')} of the format {found.format} in {found.raw}")
    if (name := _dataset_name(found.raw)) != (folder_name := found.raw.resolve().name):
        print(f"the dataset is named {name}, because {folder_name!r} is not a valid name")
    if unnamed:
        names = ", ".join(map(repr, unnamed))
        print(f"left out, because these are not valid names of scenes (rename the folders with ASCII letters): {names}")
    if found.others:
        print(f"left out, because they are not of this format: {', '.join(found.others)}")
    if "train" not in split(found.scenes, found.format):
        print(f"nothing is trained, because all scenes show one place: see `splits` in {out}")
    print(f"next: {command} check_all")


def configuration(found: Recognised, size: tuple[int, int] | None, command: str, of_video: bool = False) -> str:
    """Return the text of a configuration.

    Args:
        found: scenes, whose names are valid.
        size: (height, width) of the raw images, pixels; None if it is unknown.
        command: command line of Snakemake without targets.
        of_video: whether photographs are the frames of a video.
    """
    name = _dataset_name(found.raw)
    parts = split(found.scenes, found.format)
    trained = "train" in parts
    real = "colmap" if found.format == PHOTOGRAPHS else found.format
    benchmarks = ["location_consistency"] + (["pixel_correspondence"] if "depth" in FORMATS[real].provides else [])
    experiments = (["trained"] if trained else []) + ["untrained", "dense_sift"]
    number = counted(len(found.scenes), "scene")
    lines = [
        f"# A starter configuration for {found.raw}: {number} of the format {found.format}.",
        f"#   {command} check_all   # check the raw files first",
        f"#   {command} all         # then train, evaluate, and draw tables and figures",
        "# Keys that are not set here have the values of config/defaults.yaml. config/README.md describes every key.",
        "",
        "run: # the selection of what is run; each name is defined below",
        f"  splits: [{name}]",
        f"  experiments: [{', '.join(experiments)}]{'' if trained else ' # see `splits`: nothing is trained'}",
        f"  benchmarks: [{', '.join(benchmarks)}] # config/README.md lists the other benchmarks",
        "  seeds: [0] # with more seeds, tables show the variation between runs",
        "",
        "datasets:",
        f"  {name}:",
        *_dataset(found, name, size, of_video),
        "",
        "splits: # a scene can be in one part only",
        f"  {name}:",
        *_split(name, parts, found.scenes),
        "",
        *_EXPERIMENTS.splitlines(),
        "",
        "figures:",
        f"  scene: {_quoted(parts['test'][0])} # a test scene, whose similarity maps are drawn; null for none",
    ]
    return "\n".join(lines) + "\n"


def split(scenes: Sequence[str], format: str) -> dict[str, list[str]]:
    """Divide scenes into parts.

    The last fifth is for testing. Of five or more scenes, one is for validation. A single scene is for testing.
    ScanNet scans of one room count as one scene, so that no room is in two parts.

    Returns:
        A map from ``train``, ``val`` and ``test`` to scenes, without empty parts.
    """
    groups: dict[str, list[str]] = {}
    for scene in scenes:
        groups.setdefault(room_of(scene) if format == "scannet" else scene, []).append(scene)
    rooms = list(groups.values())
    if len(rooms) == 1:
        return {"test": rooms[0]}
    tested = max(1, len(rooms) // 5)
    validated = 1 if len(rooms) >= 5 else 0
    bounds = {
        "train": rooms[: len(rooms) - tested - validated],
        "val": rooms[len(rooms) - tested - validated : len(rooms) - tested],
        "test": rooms[len(rooms) - tested :],
    }
    return {part: [scene for room in chosen for scene in room] for part, chosen in bounds.items() if chosen}


def frame_size(size: tuple[int, int] | None) -> tuple[int, int]:
    """Return (height, width) of the prepared images: about the aspect ratio of the raw images, and not larger."""
    if size is None:
        return DEFAULT_SIZE
    factor = min(1.0, LONGER_SIDE / max(size))
    height, width = (max(MULTIPLE, MULTIPLE * round(side * factor / MULTIPLE)) for side in size)
    return height, width


def _extract(given: Path, videos: Sequence[Path], per_second: float) -> Path:
    """Extract the frames of videos, one scene per video, and return their folder."""
    from loco.datasets.video import extract_frames  # imports OpenCV

    folder = Path("data", f"{_word(given.stem if given.is_file() else given.resolve().name)}_frames")
    scenes = {video: folder / _word(video.stem) for video in videos}
    if taken := [str(scene) for scene in scenes.values() if os.path.lexists(scene)]:
        raise ConfigError(f"existing paths are not overwritten: {', '.join(taken)}; remove them, or rename the videos")
    if len(set(scenes.values())) < len(scenes):
        raise ConfigError(f"several videos of {given} have the same name; rename them")
    for video, scene in scenes.items():
        count = extract_frames(video, scene, per_second)
        print(f"{scene}: {count} frames of {video}")
    return folder


def _find(given: Path) -> tuple[Recognised, list[str]]:
    """Return the scenes of a folder whose names are valid, and the other names."""
    if not given.is_dir():
        problem = f"{given} is a file and not a video" if given.exists() else f"there is no folder or video {given}"
        raise ConfigError(
            f"{problem}; name the folder that contains your scenes, or a video ({', '.join(VIDEO_SUFFIXES)})"
        )
    folder = Path(os.path.normpath(given))
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    found = recognise(folder)
    if found is None:
        raise ConfigError(_not_recognised(folder))
    if not is_plain_path(found.raw):
        raise ConfigError(f"{str(found.raw)!r} contains braces or control characters; rename the folder")
    pattern = re.compile(name_pattern(_workflow() / SCHEMA))
    valid = [scene for scene in found.scenes if pattern.fullmatch(scene) and len(scene) <= 100]
    unnamed = [scene for scene in found.scenes if scene not in valid]
    if not valid:
        old = found.raw / unnamed[0]
        command = shlex.join(["mv", str(old), str(old.with_name(_word(old.name).strip("_") or "scene"))])
        raise ConfigError(
            f"the scenes of {found.raw} have names that cannot be used ({', '.join(map(repr, unnamed[:5]))}), because "
            "scenes have the names of their folders; rename the folders with ASCII letters, digits, `_`, `-` and `.`, "
            f"for example: {command}"
        )
    return found._replace(scenes=valid), unnamed


def _not_recognised(folder: Path) -> str:
    """Return the message about a folder without scenes: the nearest layout, if there is one, and all layouts."""
    listed = sorted(os.listdir(folder))
    inside = ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")
    problem = f"no scenes are recognised in {folder} (found: {inside or 'nothing'})."
    if (nearest := nearest_problem(folder)) is not None:
        problem += f" There are depth images in {nearest}. Photographs without depth belong in a folder of their own."
    elif images := images_by_suffix(folder):
        found = "; ".join(f"{path}: {_counts(images[path])}" for path in list(images)[:5])
        found += "; ..." if len(images) > 5 else ""
        problem += (
            f" The images ({found}) are not a scene: it requires at least {MIN_PHOTOGRAPHS} photographs in one folder, "
            f"of the types {' '.join(SUPPORTED)}."
        )
    layouts = "\n".join(f"- {format}: {example}" for format, example in EXAMPLES.items())
    return (
        f"{problem} Bring the files into one of these layouts (docs/datasets.md), or start from another file of "
        f"config/:\n{layouts}"
    )


def _counts(images: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {suffix}" for suffix, count in images.items())


def _dataset(found: Recognised, name: str, size: tuple[int, int] | None, of_video: bool) -> list[str]:
    """Return the lines of the configuration of a dataset, below its name."""
    height, width = frame_size(size)
    raw_size = f"the raw images have {size[0]} x {size[1]} pixels" if size else "the size of the raw images is unknown"
    lines = [f"format: {'colmap' if found.format == PHOTOGRAPHS else found.format}"]
    where = "relative to the folder in which Snakemake runs, or absolute"
    if found.format == PHOTOGRAPHS:
        lines += [
            f"raw: results/raw/{name} # the models of COLMAP are written here",
            *_listed("scenes: ", found.scenes),
            "reconstruct: # poses and points are reconstructed from the photographs",
            f"  images: {_quoted(str(found.raw))} # {where}",
            "  matcher: sequential # each frame with those that follow it"
            if of_video
            else "  matcher: exhaustive # `sequential` for the frames of a video",
        ]
    else:
        lines += [f"raw: {_quoted(str(found.raw))} # {where}", *_listed("scenes: ", found.scenes)]
    if found.format in WITH_FUSED_MESH:
        units = 5000 if found.format == "tum_rgbd" else 1000
        lines.append(f"# depth_scale: {units} # units of the depth images per metre, if not the default of {units}")
    if found.format in WITH_FUSED_MESH and not all(
        (found.raw / scene / "mesh.ply").is_file() for scene in found.scenes
    ):
        lines.append(
            "fuse: { voxel: 0.03, max_depth: 5.0 } # in metres; fuses a mesh, from which missing depth is filled"
        )
    lines.append("check: { decode: all } # read every image; `sample` is faster, and decodes some of them")
    lines += ["frames: # preparation of the images", f"  height: {height} # in pixels; {raw_size}", f"  width: {width}"]
    if found.format in VIDEOS or of_video:
        limit = 0.6 if of_video else 0.8  # overlaps are smaller if they are those of the points of a sparse model
        lines.append(
            f"  max_overlap: {limit} # keyframe selection: leave out a frame that overlaps more with an earlier one"
        )
    if found.format in (PHOTOGRAPHS, "colmap"):
        lines += [
            "  # Metres per unit of the model. Radii of losses and benchmarks are in metres, so scores mean nothing",
            "  # until it is set: measure a distance in the scene, and the same distance in the model with COLMAP.",
            "  scale: 1.0",
        ]
    lines.append("patches: { stride: 4 } # pixels between the locations at which features are evaluated")
    if found.format in ("matterport3d", "scannet"):
        lines.append(
            "# labels: { mapping: PATH } # the table of categories of the dataset, for segmentation benchmarks"
        )
    return [f"    {line}" for line in lines]


def _split(name: str, parts: dict[str, list[str]], scenes: Sequence[str]) -> list[str]:
    lines = []
    if "train" not in parts:
        reason = "all scans show one room" if len(scenes) > 1 else "there is only one scene"
        lines = [
            f"# Nothing is trained yet: {reason}, and a model cannot be tested on the scene that it was trained on.",
            "# To train, record another scene (or cut a long recording into two folders, which then share surfaces),",
            "# add its name to `scenes` above and to a part `train` here, and add `trained` to",
            f"# `run.experiments`: train: {{ {name}: [...] }}",
        ]
    for part, members in parts.items():
        lines += _listed(f"{part}: {{ {name}: ", members, " }")
    return [f"    {line}" for line in lines]


_EXPERIMENTS = """\
experiments:
  trained: # a small network from scratch, as in the demo; config/README.md describes pretrained backbones
    title: compact CNN, exact per query
    model: { name: compact_cnn, dim: 128 }
    train:
      # Each patch ranks its pairs. Patches within rho (metres) are positives, patches between rho and kappa are
      # negatives, others are ignored. The smallest radius determines matching; the others order distant patches.
      loss:
        name: exact
        ranking: query
        queries: 1024 # number of patches that are drawn per batch
        rho: [0.1, 0.4, 1.2]
        kappa: [5.0, 5.0, 5.0]
        weights: [1.0, 0.3, 0.2]
        tau: 0.05
      steps: 400 # several minutes on two cores; for a first test 30, which must exceed `warmup_steps`
      batch: { scenes: 1, images_per_scene: 8, patches_per_image: 320 }
      optimiser: { lr: 3.0e-3, weight_decay: 0.05, warmup_steps: 20 }
      augment: { brightness: 0.3, contrast: 0.3, colour: 0.1 }
      validate_every: 100
  untrained: # without `train`: a baseline, the same network with its random initial weights
    title: compact CNN, untrained
    model: { name: compact_cnn, dim: 128 }
  dense_sift: # a baseline without learning
    title: dense SIFT, 4 px
    model: { name: dense_sift, stride: 4, keypoint_size: 4 }"""


def _listed(key: str, names: Sequence[str], end: str = "") -> list[str]:
    """Return the lines of a list in brackets, broken between names."""
    text = f"{key}[{', '.join(map(_quoted, names))}]{end}"
    return textwrap.wrap(text, LINE - 4, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _quoted(text: str) -> str:
    """Return text in the notation of YAML: in quotes unless it is an ordinary word or path."""
    plain = re.fullmatch(r"[A-Za-z/][\w./-]*", text, re.ASCII) and text.lower() not in _WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)


def _dataset_name(raw: Path) -> str:
    """Return a valid name of a dataset, derived from the name of its folder."""
    name = _word(raw.resolve().name)
    return name if name and _quoted(name) == name and name[0] != "/" else f"data_{name}".rstrip("_")[:100]


def _word(text: str) -> str:
    """Replace characters other than ASCII letters, digits, ``_``, ``-`` and ``.`` by ``_``, and remove accents."""
    unaccented = re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFKD", text))
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", unaccented).lstrip("-.")[:100]


def _workflow() -> Path:
    """Return the folder of the workflow, whose schema states which names are valid."""
    if (here := workflow_folder()) is None:
        raise ConfigError("the working directory contains no Snakefile: run this command in the folder of the workflow")
    return here


def _snakefile() -> str:
    """Return the option that names the Snakefile, unless it is in the working directory."""
    base = _workflow()
    return "" if base == Path.cwd() else f" --snakefile {shlex.quote(str(base / 'Snakefile'))}"
