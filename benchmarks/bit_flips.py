"""Detection of flipped bits: ``python -m benchmarks.bit_flips RESULTS [--flips 200] [--seed 0]``.

One file of each kind in a results folder is copied, and random single bits of the copy are flipped, one at a time. Two
readers read the copy: that of the next step (which may reject the file, read the same values, or read other values),
and ``loco verify``. It is a fault if a step reads other values without an error, or if ``loco verify`` does not detect
the flip. The exit status is 1 if there is a fault.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from loco import paths
from loco.errors import DataError
from loco.models.stored import load
from loco.results.metrics import read_metrics
from loco.storage import Correspondences, Encoded, Features, Frames, Labels, SceneFile, read_manifest, read_mesh
from loco.storage.content_id import verify_content_id

Reader = Callable[[Path], Any]


def contents_of(kind: type[SceneFile]) -> Reader:
    """Return a reader of the whole content of a scene file of this kind."""

    def read(path: Path) -> dict[str, Any]:
        with kind(path) as file:
            arrays = {name: file[name][:] for name in kind.arrays}
            return arrays | {"rest": [file.dataset, file.scene, file.frames_id, file.facts, file.record]}

    return read


def weights_of(path: Path) -> dict[str, Any]:
    model = load(path)
    return {name: value.numpy() for name, value in model.state_dict().items()} | {"rest": [model.config, model.facts]}


READERS: dict[str, tuple[str, Reader]] = {  # kind of file -> pattern of its paths, reader that the steps use
    "manifest": (paths.MANIFEST, lambda path: {"rest": read_manifest(path).content}),
    "mesh": (paths.MESH, lambda path: {"rest": read_mesh(path)[0]}),
    "frames": (paths.FRAMES, contents_of(Frames)),
    "correspondences": (paths.CORRESPONDENCES, contents_of(Correspondences)),
    "labels": (paths.LABELS, contents_of(Labels)),
    "encodings": (paths.ENCODED, contents_of(Encoded)),
    "features": (paths.FEATURES, contents_of(Features)),
    "model": (paths.MODEL, weights_of),
    "metrics": (paths.METRICS, lambda path: {"rest": read_metrics(path).rows}),
}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(
        np.array_equal(value, other[name]) if isinstance(value, np.ndarray) else value == other[name]
        for name, value in one.items()
    )


def flip(original: Path, read: Reader, flips: int, rng: random.Random) -> Counter[str]:
    """Flip ``flips`` different bits of a copy of a file, one at a time, and count the outcomes of both readers."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copyfile(original, Path(folder) / original.name))
        data, expected = bytearray(copy.read_bytes()), read(copy)
        for bit in rng.sample(range(8 * len(data)), flips):
            data[bit // 8] ^= 1 << bit % 8
            copy.write_bytes(data)
            data[bit // 8] ^= 1 << bit % 8
            try:
                outcomes["read as before" if same(read(copy), expected) else "OTHER VALUES READ"] += 1
            except DataError:
                outcomes["rejected by the step"] += 1
            try:
                verify_content_id(copy)
                outcomes["NOT DETECTED BY VERIFY"] += 1
            except DataError:
                outcomes["detected by verify"] += 1
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="folder of results")
    parser.add_argument("--flips", type=int, default=200, help="number of flips per kind of file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, faults = random.Random(arguments.seed), 0
    for kind, (pattern, read) in READERS.items():
        files = sorted(arguments.results.parent.glob("results/**/*"))
        names = [file for file in files if paths.fields_of(pattern, str(file.relative_to(arguments.results.parent)))]
        if not names:
            print(f"{kind:<16} not tested: no such file in {arguments.results}")
            continue
        outcomes = flip(names[0], read, arguments.flips, rng)
        faults += sum(count for outcome, count in outcomes.items() if outcome.isupper())
        print(
            f"{kind:<16} {', '.join(f'{outcome}: {count}' for outcome, count in sorted(outcomes.items()))}", flush=True
        )
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
