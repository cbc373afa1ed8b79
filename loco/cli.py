"""The command line: start a configuration, extract features, match photographs, list, describe and export models."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loco import __version__
from loco.cli_explore import explore, explore_options
from loco.cli_images import (
    load_model,
    model_option,
    positive,
    read_photo,
    refuse_options,
    require_files,
    require_folder,
    require_other_files,
    size_option,
)
from loco.cli_matching import keypoint_options, match, match_options, refuse_keypoint_options, write_hloc
from loco.cli_results import (
    clean_options,
    clean_results,
    failed_options,
    progress_options,
    show_failed,
    show_progress,
    verify_options,
    verify_results,
)
from loco.errors import ConfigError, DataError, LocoError, counted, hint, printable, printable_lines
from loco.extras import named_extras


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    It is 0 on success, 1 for an error in a file, 2 for an error in the command or the configuration, 130 if the command
    was interrupted, and 141 if the reader of its output has ended (as ``head`` does): 128 + SIGPIPE.
    """
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            print(end="", flush=True)
    except BrokenPipeError:
        # Python flushes both streams when it exits, which would report the error again (note on SIGPIPE in the
        # documentation of the module `signal`).
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 141


def _run(argv: Sequence[str]) -> int:
    arguments = _parse(argv)
    try:
        with named_extras():
            arguments.run(arguments)
    except BrokenPipeError:  # an OSError
        raise
    except (LocoError, OSError) as error:
        print(f"loco {arguments.command}: {_message(error)}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def _message(error: Exception) -> str:
    """Return the text of an error on one line, except for the items of lists (``- ...``), each on a separate line."""
    text = ""
    for line in filter(None, map(str.strip, printable_lines(str(error)).splitlines())):
        separator = "\n  " if line.startswith("- ") else " " if text.endswith(":") else "; "
        text += (separator if text else "") + line
    return text


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loco", description="Location-consistent image features.")
    parser.add_argument("--version", action="version", version=f"loco {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parts = {
        "init": (_init, _init_options, "write a starter configuration for recordings, scans or photographs"),
        "extract": (_extract, _extract_options, "extract the features of images"),
        "match": (match, match_options, "match images: a picture of two, or files for hloc and COLMAP"),
        "explore": (explore, explore_options, "write a page that compares the features of any patch with all others"),
        "models": (_models, _models_options, "list the known backbones and the model files in a folder"),
        "info": (_info, _info_options, "print the architecture, size and training of a model"),
        "export": (_export, _export_options, "export a model to ONNX or to a folder for distribution"),
        "verify": (
            verify_results,
            verify_options,
            "verify the content and provenance of all files in a results folder",
        ),
        "failed": (show_failed, failed_options, "print the last lines of the logs of jobs that failed or still run"),
        "progress": (show_progress, progress_options, "print the progress of the training runs in a results folder"),
        "clean": (
            clean_results,
            clean_options,
            "list or remove files left by interrupted training runs and killed jobs",
        ),
    }
    for name, (run, options, words) in parts.items():
        command = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        options(command.add_argument)
        command.set_defaults(run=run, default_of=command.get_default)
    if argv and not argv[0].startswith("-") and argv[0] not in parts:
        parser.error(f"unknown command {argv[0]!r}{hint(argv[0], parts)}")
    return parser.parse_args(argv)


def _init_options(add: Callable[..., Any]) -> None:
    add(
        "given",
        type=Path,
        metavar="DIR",
        help="folder that contains one folder per scene, is a scene, or contains videos; or a video",
    )
    add("--out", type=Path, default=Path("my.yaml"), metavar="FILE", help="file to write (default: my.yaml)")
    add("--fps", type=positive, metavar="N", help="number of frames to extract per second of a video (default: 3)")


def _extract_options(add: Callable[..., Any]) -> None:
    add("images", nargs="+", type=Path, metavar="IMAGE", help="images; with --format hloc also a single folder")
    model_option(add)
    add(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="output folder: one file per image with L2-normalised features (h, w, c), float16; or features.h5 (hloc)",
    )
    add(
        "--format",
        choices=("npy", "safetensors", "hloc"),
        default="npy",
        help=(
            "file format (default: npy); safetensors files also contain `extent`, the (height, width) in pixels that "
            "the grid covers; hloc: keypoints and descriptors of all images in one HDF5 file"
        ),
    )
    add(
        "--pca",
        action="store_true",
        help="also write the features as colours, by one PCA over all images, whose features are held in memory",
    )
    keypoint_options(add, "hloc")
    size_option(add, None)


def _models_options(add: Callable[..., Any]) -> None:
    add(
        "folder",
        nargs="?",
        type=Path,
        default=Path("results"),
        metavar="FOLDER",
        help="folder to search (default: results)",
    )


def _info_options(add: Callable[..., Any]) -> None:
    model_option(add, "model")
    add(
        "--all",
        action="store_true",
        help="print the complete configuration, the data and the training settings as JSON",
    )


def _export_options(add: Callable[..., Any]) -> None:
    model_option(add, "model")
    add(
        "--onnx",
        type=Path,
        metavar="FILE",
        help="write an ONNX file and compare its output with PyTorch (requires --size)",
    )
    add(
        "--size",
        nargs=2,
        type=positive,
        metavar=("H", "W"),
        help="height and width of the input images of the ONNX file",
    )
    add("--pretrained", type=Path, metavar="DIR", help="write model.safetensors with a model card")
    add(
        "--metrics",
        nargs="+",
        type=Path,
        default=[],
        metavar="JSON",
        help="metric files of the workflow (results/metrics/**/*.json) whose scores the model card shows",
    )
    add(
        "--with-backbone",
        action="store_true",
        help="copy the files of the backbone to DIR, unless it is on the Hugging Face hub",
    )
    add(
        "--explorer",
        type=Path,
        metavar="HTML",
        help="copy a page of `loco explore` to DIR, and link to it from the model card",
    )
    add(
        "--push",
        metavar="OWNER/NAME",
        help="upload the files of --pretrained to this repository on the Hugging Face hub",
    )
    add("--private", action="store_true", help="make a new repository private (with --push)")


def _init(arguments: argparse.Namespace) -> None:
    from loco.starter import write_starter  # requires the packages of the workflow

    write_starter(arguments.given, arguments.out, arguments.fps)


def _extract(arguments: argparse.Namespace) -> None:
    require_folder(arguments.out, "--out")
    if arguments.format == "hloc":
        refuse_options(arguments, ["pca"], "--format hloc")
        write_hloc(arguments)
        return
    refuse_keypoint_options(arguments)
    from tqdm import tqdm

    from loco.geometry.patches import extent_of
    from loco.models.finite import finite_features

    stems = _stems(arguments.images)
    outputs = [arguments.out / f"{stem}.{arguments.format}" for stem in stems]
    pictures = [arguments.out / f"{stem}_pca.png" for stem in stems]
    require_files(arguments.images)
    require_other_files([*outputs, *pictures], arguments.images)
    model = load_model(arguments.model, arguments.backbone, arguments.upsample)
    drawn, broken = [], []
    for path, output, picture in zip(tqdm(arguments.images, unit="image"), outputs, pictures):
        try:
            photo = read_photo(path, arguments.max_size)
        except DataError as error:  # the other images may be intact
            broken.append(f"{path}: {error.problem}")
            continue
        features = finite_features(model, photo.rgb, path).permute(1, 2, 0).half().cpu().numpy()
        extent = np.array(extent_of(features.shape[:2], model.stride)) * photo.scale
        _write_features(features, extent.tolist(), output)
        if arguments.pca:
            drawn.append((features, photo.rgb.shape[:2], picture))
    if drawn:
        maps, sizes, paths = zip(*drawn)
        _write_pca(maps, sizes, paths, model.stride)
    if written := len(stems) - len(broken):
        print(f"features of {counted(written, 'image')} written to {arguments.out}")
    if broken:
        raise DataError("\n".join([f"{len(broken)} of {len(stems)} images could not be processed:", *broken]))


def _models(arguments: argparse.Namespace) -> None:
    from loco.models.backbones import KNOWN
    from loco.models.hub import is_cached
    from loco.models.model_types import supported
    from loco.models.pretrained import read_origin

    _print_table(
        ("name", "stride", "dim", "licence", "on the hub", "cached"),
        [
            (name, known.stride, known.dim, known.licence, known.hub, "yes" if is_cached(name) else "no")
            for name, known in KNOWN.items()
        ],
    )
    print()
    _print_table(
        ("model type", "image encoder of", "layer", "LoRA, last", "facets", "class token", "size"), supported()
    )
    print("other types that AutoBackbone of transformers supports can be used, but not trained")
    origins = []
    for path in sorted(arguments.folder.rglob("*.safetensors")):
        try:
            origins.append(read_origin(path))
        except DataError as error:
            print(f"{path}: {error.problem}", file=sys.stderr)
    lines = [(o.file, o.model["name"], f"{o.file.stat().st_size / 1e6:.1f} MB") for o in origins if o]
    print()
    if lines:
        _print_table(("file", "model", "size"), lines)
    elif arguments.folder.is_dir():
        print(f"{arguments.folder}/ contains no model files")
    else:
        print(f"the folder {arguments.folder} does not exist, so no model files are listed")


def _info(arguments: argparse.Namespace) -> None:
    from loco.models.catalogue import parts_of
    from loco.models.stored import describe

    model = load_model(arguments.model, arguments.backbone, arguments.upsample)
    sizes = {"dim": model.dim, "stride": model.stride, **describe(model)}
    if arguments.all:
        print(json.dumps({"model": model.config, "sizes": sizes, "facts": dict(model.facts)}, indent=1))
        return
    lines = {
        "model": ", ".join(part.get("backbone", {}).get("path", part["name"]) for part in parts_of(model.config)),
        "features": f"{model.dim} channels, one vector per {model.stride} x {model.stride} pixels",
        "parameters": f"{sizes['parameters']:,}, of which {sizes['trainable']:,} are trainable",
        **{key: model.facts[key] for key in ("experiment", "split", "seed", "steps") if key in model.facts},
        **dict(_training(model.facts)),
    }
    for name, value in lines.items():
        print(f"{name:<12}{printable(str(value))}")
    print("--all prints the complete configuration, the data and the training settings as JSON")


def _training(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the loss of each phase of a training, and its datasets; nothing for facts of another form."""
    with suppress(AttributeError, KeyError, TypeError):
        phases = [(phase["loss"]["name"], phase["steps"]) for phase in facts["phases"]]
        yield "loss", ", then ".join(f"{loss} ({steps} steps)" if phases[1:] else loss for loss, steps in phases)
    with suppress(AttributeError, KeyError, TypeError):
        datasets = [f"{name} ({counted(len(scenes), 'scene')})" for name, scenes in facts["data"]["train"].items()]
        yield "trained on", ", ".join(datasets)


def _export(arguments: argparse.Namespace) -> None:
    from loco.models.pretrained import load, push_to_hub, save_pretrained

    for option in ("with_backbone", "explorer"):
        if getattr(arguments, option) and not (arguments.pretrained or arguments.push):
            raise ConfigError(f"--{option.replace('_', '-')} requires --pretrained DIR or --push OWNER/NAME")
    if arguments.private and not arguments.push:
        raise ConfigError("--private requires --push OWNER/NAME")
    if not (arguments.onnx or arguments.pretrained or arguments.push):
        raise ConfigError("nothing to write: pass --onnx FILE, --pretrained DIR, --push OWNER/NAME, or several of them")
    if arguments.onnx and not arguments.size:
        raise ConfigError("an ONNX file has a fixed input size: pass --size H W")
    if arguments.pretrained:
        require_folder(arguments.pretrained, "--pretrained")
    model = load(arguments.model, backbone=arguments.backbone, upsample=arguments.upsample)
    card = {
        "metrics": arguments.metrics,
        "with_backbone": arguments.with_backbone,
        "explorer": arguments.explorer,
    }
    if arguments.pretrained:
        save_pretrained(model, arguments.pretrained, **card, repository=arguments.push)
        print(f"wrote {arguments.pretrained}")
    if arguments.push:
        print(f"published {push_to_hub(model, arguments.push, **card, private=arguments.private)}")
    if arguments.onnx:
        from loco.models.export import export_onnx

        difference = export_onnx(model, arguments.onnx, tuple(arguments.size))
        print(f"wrote {arguments.onnx}; maximum difference from the features of PyTorch: {difference:.1e}")


def _stems(paths: Sequence[Path]) -> list[str]:
    """Return the names of the images without suffix, which become those of the outputs; refuse equal names."""
    first: dict[str, Path] = {}
    for path in paths:
        if path.stem in first:
            raise ConfigError(
                f"{first[path.stem]} and {path} would be written to the same file: extract them to different folders"
            )
        first[path.stem] = path
    return list(first)


def _write_features(features: NDArray[np.float16], extent: list[float], path: Path) -> None:
    from safetensors.numpy import save_file

    from loco.storage import atomic_path

    with atomic_path(path) as temporary:
        if path.suffix == ".npy":
            np.save(temporary, features)
        else:
            save_file({"features": np.ascontiguousarray(features)}, temporary, {"extent": json.dumps(extent)})


def _write_pca(
    maps: Sequence[NDArray[np.float16]], sizes: Sequence[tuple[int, int]], paths: Sequence[Path], stride: int
) -> None:
    import cv2

    from loco.results.pictures.features import joint_pca
    from loco.storage import atomic_path

    for colours, (height, width), path in zip(joint_pca(maps), sizes, paths):
        rows, columns = colours.shape[:2]
        picture = cv2.resize(colours, (columns * stride, rows * stride), interpolation=cv2.INTER_LINEAR)
        picture = (255 * picture[:height, :width]).round().astype(np.uint8)
        with atomic_path(path) as temporary:
            temporary.write_bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1])


def _print_table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    rows = [[str(cell) for cell in line] for line in [head, *lines]]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
