"""The command ``loco explore``: write explorer pages of the scenes of a run, or of photographs."""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from loco import paths
from loco.cli_images import load_model, positive, read_photo, refuse_options, require_files
from loco.errors import ConfigError
from loco.results.explorer import VIEWS

if TYPE_CHECKING:
    from loco.results.explorer.content import Content
    from loco.storage import Correspondences, Features

MEGABYTE = 1e6


class SceneFiles(NamedTuple):
    """Files of a scene in a results folder: ``features`` maps the names of extractors to their feature files."""

    dataset: str
    scene: str
    frames: Path
    correspondences: Path
    features: dict[str, Path]


def explore_options(add: Callable[..., Any]) -> None:
    add(
        "results",
        nargs="*",
        type=Path,
        metavar="RESULTS_OR_FEATURES",
        help="a results folder, or feature files of one scene in it; the page opens with the first two extractors",
    )
    add("--out", required=True, type=Path, metavar="HTML_OR_DIR", help="page to write, or a folder for several scenes")
    add("--scene", metavar="SCENE", help="show this scene only (default: all scenes, one page per scene)")
    add("--experiments", nargs="+", metavar="NAME", help="experiments to show, in this order (default: all, by name)")
    add(
        "--views",
        type=positive,
        default=VIEWS,
        metavar="N",
        help=f"maximum number of views per page (default: {VIEWS})",
    )
    add(
        "--ply",
        type=Path,
        metavar="DIR",
        help="also write the points of the scene, coloured by their similarity to a patch, one PLY file per extractor",
    )
    add(
        "--at",
        nargs=2,
        type=int,
        metavar=("VIEW", "PATCH"),
        help="the patch for --ply, by the numbers of view and patch in the page (default: the patch at which the page "
        "opens)",
    )
    add(
        "--images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="photographs to show instead of results; poses are not needed; requires --model",
    )
    add(
        "--model",
        nargs="+",
        default=[],
        metavar="MODEL",
        help="models that extract the features of --images: model files, folders that contain one, or known backbones",
    )
    add(
        "--max-size",
        type=positive,
        default=640,
        metavar="N",
        help="downscale --images to N pixels along the longer side (default: 640)",
    )


def explore(arguments: argparse.Namespace) -> None:
    """Write the pages."""
    if bool(arguments.images) == bool(arguments.results):
        raise ConfigError("pass either a results folder or feature files, or --images with --model")
    without_effect = ("scene", "experiments", "ply", "at") if arguments.images else ("model", "max_size")
    refuse_options(arguments, without_effect, "--images" if arguments.images else "results")
    if arguments.at and not arguments.ply:
        raise ConfigError(
            "--at selects the patch of --ply: pass --ply, too, or open the page with #view=VIEW&patch=PATCH"
        )
    if arguments.images:
        _explore_photographs(arguments)
        return
    scenes = find_scenes(arguments.results, arguments.experiments, arguments.scene)
    if arguments.out.suffix == ".html":
        if len(scenes) > 1:
            names = ", ".join(files.scene for files in scenes)
            raise ConfigError(f"there are {len(scenes)} scenes ({names}): pass --scene, or a folder as --out")
        _explore_scene(scenes[0], arguments, arguments.out)
        return
    for files in scenes:
        _explore_scene(files, arguments, arguments.out / files.dataset / f"{files.scene}.html")


def find_scenes(
    given: Sequence[Path], experiments: Sequence[str] | None = None, scene: str | None = None
) -> list[SceneFiles]:
    """Return the files of each scene that has features, found by their paths in a results folder.

    Args:
        given: a results folder, or feature files in one, in the order in which they are to be shown.
        experiments: the experiments to show, in this order; None shows all, in the order of their names.
        scene: the scene; None for all.

    Raises:
        ConfigError: there are no features, they are not in a results folder, or an experiment has none.
    """
    found: dict[tuple[Path, str, str], list[dict[str, str]]] = defaultdict(list)
    for path in given:
        if not path.exists():
            raise ConfigError(f"{path} does not exist: pass a results folder, or feature files in it")
        for file in sorted(path.glob("features/*/*/*/*.h5")) if path.is_dir() else [path]:
            root = file.parents[4] if len(file.parents) > 4 else Path()
            fields = paths.fields_of(paths.FEATURES, f"results/{file.relative_to(root)}")
            if fields is None:
                raise ConfigError(f"{file} is not a feature file in a results folder: expected a path {paths.FEATURES}")
            found[root, fields["dataset"], fields["scene"]].append(fields)
    if not found:
        raise ConfigError(f"{given[0]} contains no features (features/<experiment>/<checkpoint>/<dataset>/<scene>.h5)")
    scenes = {key: files for key, files in found.items() if scene in (None, key[2])}
    if not scenes:
        names = ", ".join(sorted({name for _, _, name in found}))
        raise ConfigError(f"the results contain no features of scene {scene}: correct --scene; the scenes are {names}")
    return [_scene_files(*key, files, experiments) for key, files in scenes.items()]


def _scene_files(
    root: Path, dataset: str, scene: str, features: list[dict[str, str]], experiments: Sequence[str] | None
) -> SceneFiles:
    if experiments is not None:
        present = {fields["experiment"] for fields in features}
        if missing := [name for name in experiments if name not in present]:
            found = ", ".join(sorted(present))
            raise ConfigError(
                f"scene {scene} has no features of {', '.join(missing)}: correct --experiments; the experiments with "
                f"features of this scene are {found}"
            )
        features = [fields for name in experiments for fields in features if fields["experiment"] == name]
    times = Counter(fields["experiment"] for fields in features)

    def located(pattern: str, **fields: str) -> Path:
        return root / Path(pattern.format(**fields)).relative_to("results")

    names = {"dataset": dataset, "scene": scene}
    strides = [
        int(path.parent.name.removeprefix("stride"))
        for path in root.glob(f"correspondences/{dataset}/stride*/{scene}.h5")
    ]
    if not strides:
        raise ConfigError(f"{root} has no correspondences of scene {scene}: run the workflow to make them")
    return SceneFiles(
        dataset,
        scene,
        located(paths.FRAMES, **names),
        located(paths.CORRESPONDENCES, **names, stride=str(min(strides))),
        {
            f["experiment"] if times[f["experiment"]] == 1 else f"{f['experiment']}/{f['checkpoint']}": located(
                paths.FEATURES, **f
            )
            for f in features
        },
    )


def _explore_scene(files: SceneFiles, arguments: argparse.Namespace, out: Path) -> None:
    from loco.results.explorer.page import write_page
    from loco.results.explorer.scene import scene_content
    from loco.storage import Correspondences, Features, Frames

    with ExitStack() as opened:
        frames = opened.enter_context(Frames(files.frames))
        correspondences = opened.enter_context(Correspondences(files.correspondences))
        features = {name: opened.enter_context(Features(path)) for name, path in files.features.items()}
        content = scene_content(frames, correspondences, features, {name: name for name in features}, arguments.views)
        _report(out, write_page(content, out), content)
        if arguments.ply:
            _write_points(content, correspondences, features, arguments)


def _write_points(
    content: Content, correspondences: Correspondences, features: Mapping[str, Features], arguments: argparse.Namespace
) -> None:
    from loco.results.explorer.points_file import write_similarity_points

    view, patch = arguments.at or content.start
    if not 0 <= view < len(content.views):
        raise ConfigError(f"--at: VIEW must be from 0 to {len(content.views) - 1}, found {view}")
    rows, columns = content.views[view].grid
    if not 0 <= patch < rows * columns:
        raise ConfigError(f"--at: PATCH must be from 0 to {rows * columns - 1} for view {view}, found {patch}")
    for name, file in features.items():
        out = arguments.ply / file.scene / f"{name.replace('/', '-')}.ply"
        count = write_similarity_points(correspondences, file, content.views[view], patch, name, out)
        print(f"{out}: {count} points in the colours of their similarity to patch {patch} of view {view}")


def _explore_photographs(arguments: argparse.Namespace) -> None:
    from loco.results.explorer.page import write_page
    from loco.results.explorer.photographs import photographs_content

    if not arguments.model:
        raise ConfigError("--images requires --model: pass model files, folders that contain one, or known backbones")
    if arguments.out.suffix != ".html":
        raise ConfigError(f"--out must end in .html, found {arguments.out}")
    require_files(arguments.images)
    titles = _titles(arguments.model)
    models = {title: load_model(name) for title, name in zip(titles, arguments.model)}
    count = len(arguments.images)
    chosen = sorted(set(np.linspace(0, count - 1, min(arguments.views, count)).round().astype(int).tolist()))
    photographs = {arguments.images[k].name: read_photo(arguments.images[k], arguments.max_size).rgb for k in chosen}
    content = photographs_content("photographs", photographs, models, count)
    _report(arguments.out, write_page(content, arguments.out), content)


def _titles(models: Sequence[str]) -> list[str]:
    """Return the titles of models: the last components of their paths, as few as are distinct.

    Complete paths would show the folders of this machine to the readers of the page.
    """
    for length in range(1, max(len(Path(model).parts) for model in models) + 1):
        titles = ["/".join(Path(model).parts[-length:]) for model in models]
        if len(set(titles)) == len(models):
            return titles
    twice = next(model for k, model in enumerate(models) if Path(model) in map(Path, models[:k]))
    raise ConfigError(f"--model: the model {twice} is passed twice; pass each model once")


def _report(out: Path, size: int, content: Content) -> None:
    views = f"{len(content.views)} of {content.available} views"
    titles = ", ".join(extractor.title for extractor in content.extractors)
    print(f"{out}: {size / MEGABYTE:.1f} MB, {views}, {titles}")
    if content.geometry is not None and content.landmarks is None:
        print("note: no patch is seen by two other views, so the page opens without scores; raise --views")
