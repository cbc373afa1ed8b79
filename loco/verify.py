"""Verify a folder of results: read every file completely, and compare records with inputs and the configuration."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from loco import paths
from loco.errors import DataError
from loco.plan import Plan
from loco.records import Record, differences
from loco.steps.scene_inputs import weights_ids
from loco.storage import (
    Correspondences,
    Encoded,
    Features,
    Frames,
    Labels,
    PairIndex,
    SceneFile,
    read_folder_record,
    read_manifest,
    temporary_files,
)
from loco.storage.content_id import verified_bytes, verify_content_id
from loco.storage.mesh_file import mesh_record
from loco.storage.raw_folder import RECORD, verify_folder
from loco.storage.reading import is_refused_by_system
from loco.storage.training_log import curve_digest

SCENE_FILES: dict[str, type[SceneFile]] = {
    paths.FRAMES: Frames,
    paths.CORRESPONDENCES: Correspondences,
    paths.PAIRS: PairIndex,
    paths.LABELS: Labels,
    paths.ENCODED: Encoded,
    paths.FEATURES: Features,
}
Kind = Literal["unreadable", "damaged", "misplaced", "outdated", "other configuration", "left behind"]


@dataclass(frozen=True)
class Finding:
    """A problem of a file, of one of these kinds.

    ``unreadable``: the system refuses to read it. ``damaged``: its content changed after it was written.
    ``misplaced``: it belongs to another path. ``outdated``: one of its inputs was regenerated afterwards. ``other
    configuration``: the current code or configuration would produce another file, or has no such scene, split or
    experiment. ``left behind``: a temporary file of a killed job.
    """

    kind: Kind
    file: Path
    problem: str


@dataclass(frozen=True)
class Verified:
    """A file whose content is as written."""

    file: Path
    content_id: str
    record: Record | None


def verify(results: Path, plan: Plan | None, jobs: int | None = None) -> tuple[int, list[Finding]]:
    """Verify all files of a results folder.

    Args:
        results: the folder ``results`` of a working directory.
        plan: plan of the configuration to which the files should belong; None leaves this unchecked.
        jobs: number of processes that read files; None for one per CPU core.

    Returns:
        The number of files that were read, and the findings, sorted by file.
    """
    files = list(_files(results))
    with ProcessPoolExecutor(jobs or os.cpu_count()) as pool:
        outcomes = list(tqdm(pool.map(_verify_file, files, [results] * len(files)), total=len(files), unit="file"))
    whole = [outcome for outcome in outcomes if isinstance(outcome, Verified)]
    found = [outcome for outcome in outcomes if isinstance(outcome, Finding)]
    ids = {_name(results, outcome.file): outcome.content_id for outcome in whole}
    bad = {_name(results, finding.file) for finding in found}
    for outcome in whole:
        found += _misplaced(outcome, _name(results, outcome.file))
        found += _outdated(outcome, ids, bad, results.parent)
        found += _of_other_configuration(outcome, _name(results, outcome.file), plan) if plan else []
    found += [Finding("left behind", file, "a temporary file of a killed job") for file in temporary_files(results)]
    return len(files), sorted(found, key=lambda finding: (str(finding.file), finding.kind))


def _files(results: Path) -> Iterator[Path]:
    """Yield the files, and the folders of raw scenes, that have a record."""
    for file in sorted(results.rglob("*")):
        name = _name(results, file)
        if file.name.startswith("."):  # temporary
            continue
        if any(paths.fields_of(pattern, name) for pattern in paths.PATTERNS if pattern != paths.CURVE):
            if name.startswith("results/raw/") and not (file / RECORD).is_file():
                continue
            yield file


def _name(results: Path, file: Path) -> str:
    """Return the path of a file in the notation of the plan."""
    return (Path("results") / file.relative_to(results)).as_posix()


def _verify_file(file: Path, results: Path) -> Verified | Finding:
    name = _name(results, file)
    try:
        return _read(file, name)
    except DataError as error:
        refused = error.__cause__ is not None and is_refused_by_system(error.__cause__)
        return Finding("unreadable" if refused else "damaged", file, error.problem)
    except OSError as error:
        return Finding("unreadable", file, error.strerror or str(error))


def _read(file: Path, name: str) -> Verified:
    """Verify the whole content of a file, or of a folder of raw files, and return its content id and record.

    Raises:
        DataError: it is damaged, or is a model file whose folder has the log of another training run.
        OSError: it cannot be read.
    """
    if paths.fields_of(paths.RAW, name):
        verify_folder(file)
        document = read_folder_record(file)
        return Verified(file, document.content_id, document.record)
    content_id = verify_content_id(file)
    for pattern, kind in SCENE_FILES.items():
        if paths.fields_of(pattern, name):
            with kind(file) as opened:
                return Verified(file, content_id, opened.record)
    if paths.fields_of(paths.MESH, name):
        return Verified(file, content_id, mesh_record(file, verified_bytes(file)))
    if paths.fields_of(paths.MODEL, name):
        from loco.models.stored import require_model  # torch takes seconds to import

        model = require_model(file)
        log = file.with_name("log.csv")
        if "log" in model.facts and curve_digest(log) != model.facts["log"]:
            raise DataError("the log.csv in the same folder belongs to another training run", file=log)
        return Verified(file, content_id, model.record)
    if paths.fields_of(paths.METRICS, name):
        from loco.results.metrics import read_metrics

        return Verified(file, content_id, read_metrics(file).record)
    if paths.fields_of(paths.ITEMS, name):
        from loco.results.metrics import read_items

        return Verified(file, content_id, read_items(file).record)
    return Verified(file, content_id, read_manifest(file).record)


def _misplaced(verified: Verified, name: str) -> Iterator[Finding]:
    fields = next(found for pattern in paths.PATTERNS if (found := paths.fields_of(pattern, name)))
    for key, value in verified.record.subject.items() if verified.record else ():
        if fields.get(key, value) != value:
            yield Finding("misplaced", verified.file, f"belongs to the {key} {value}, expected {fields[key]}")


def _outdated(verified: Verified, ids: dict[str, str], bad: set[str], working_directory: Path) -> Iterator[Finding]:
    for path, id in verified.record.inputs.items() if verified.record else ():
        if path in bad:  # the file itself has a finding; files that were made from it may be correct
            continue
        outside = working_directory / path  # weights, which may have been removed since
        if ids.get(path, id) != id or (path not in ids and outside.is_file() and weights_ids([outside])[outside] != id):
            yield Finding("outdated", verified.file, f"was made from another version of {path} than the current one")


def _of_other_configuration(verified: Verified, name: str, plan: Plan) -> Iterable[Finding]:
    recipe = plan.recipe_of(name)
    if recipe is None:
        problem = "the configuration does not contain this file"
    elif verified.record is None:
        problem = "has no provenance record"
    else:
        problem = "; ".join(list(dict.fromkeys(differences(verified.record.recipe, recipe)))[:3])
    return [Finding("other configuration", verified.file, problem)] if problem else []


def report(findings: Sequence[Finding]) -> str:
    """Return the findings as text, grouped by kind."""
    lines = []
    for kind in dict.fromkeys(finding.kind for finding in findings):
        own = [finding for finding in findings if finding.kind == kind]
        lines += [f"{kind}: {len(own)}", *(f"  {finding.file}: {finding.problem}" for finding in own)]
    return "\n".join(lines)
