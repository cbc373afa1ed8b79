"""The commands of ``loco`` for a results folder: verify files, show failed jobs and training progress, clean up."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Sequence
from datetime import timedelta
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loco.errors import ConfigError, DataError, printable_lines

if TYPE_CHECKING:
    from loco.verify import Finding

_DELETE = "delete the damaged, misplaced and outdated files and run the workflow again"
_OTHER = "other configuration"
_REMEDIES = {
    **dict.fromkeys(("damaged", "misplaced", "outdated"), _DELETE),
    "unreadable": "make the unreadable files readable",
    _OTHER: "pass the configuration files of that run with --configfile",
    "left behind": "run `loco clean --delete` to remove the files left behind",
}
_INTERRUPTED, _FINAL = "saved state of an interrupted training run", "final state of a finished training run"


def verify_options(add: Callable[..., Any]) -> None:
    _results_option(add)
    add(
        "--configfile",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="configuration files of the results, in the order in which they are passed to Snakemake "
        "(default: config/config.yaml)",
    )
    add("--jobs", type=int, default=None, metavar="N", help="number of processes (default: one per CPU core)")
    add("--files-only", action="store_true", help="verify only the files, without comparing them with a configuration")


def verify_results(arguments: argparse.Namespace) -> None:
    from loco.config_layers import DEMO
    from loco.verify import report, verify

    results = _results_folder(arguments.results)
    configs = [file.resolve() for file in arguments.configfile]
    os.chdir(results.parent)  # the paths in a configuration are relative to the working directory
    plan = None if arguments.files_only else _plan(configs)
    if plan:
        default = DEMO if plan.base == Path.cwd() else plan.base / DEMO
        given = ", ".join(map(str, arguments.configfile)) or f"{default}, the default; name another with --configfile"
        print(f"compared with {given}", flush=True)  # before the progress bar
    count, findings = verify(results, plan, arguments.jobs)
    if findings:
        print(report(findings))
        raise DataError(
            _verdict(findings, count), remedy="; ".join(dict.fromkeys(_REMEDIES[finding.kind] for finding in findings))
        )
    print(f"{count} files verified: all are intact" + ("" if plan is None else " and belong to this configuration"))


def _verdict(findings: Sequence[Finding], count: int) -> str:
    """Return the numbers of files that failed the verification, and of intact files of another configuration."""
    failed = {finding.file for finding in findings if finding.kind != _OTHER}
    other = {finding.file for finding in findings} - failed
    if not failed:
        return (
            f"all files are intact, but {len(other)} of {count} do not belong to this configuration; they were perhaps "
            "made with another --configfile"
        )
    verdict = f"{len(failed)} of {count} files failed the verification"
    return f"{verdict}; {len(other)} others are intact, but do not belong to this configuration" if other else verdict


def clean_options(add: Callable[..., Any]) -> None:
    _results_option(add)
    add("--delete", action="store_true", help="remove the listed files; without this option, they are only listed")
    add(
        "--final",
        action="store_true",
        help="include the final states of finished training runs, which are kept to continue them with more steps",
    )


def clean_results(arguments: argparse.Namespace) -> None:
    """List or remove the saved states of interrupted training runs, and temporary files."""
    from loco.storage import temporary_files
    from loco.training.states import is_final, saved_states

    results = _results_folder(arguments.results)
    kinds = dict.fromkeys(temporary_files(results), "temporary file of a killed job")
    kinds |= {state: _FINAL if is_final(state) else _INTERRUPTED for state in saved_states(results)}
    found = {path: kind for path, kind in sorted(kinds.items()) if arguments.final or kind != _FINAL}
    for path, kind in found.items():
        print(f"{_size(path):>9}  {path}  ({kind})")
        if arguments.delete:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if not found:
        print("nothing to remove")
    elif not arguments.delete:
        print(
            "nothing was removed; add --delete to remove these files. Interrupted training runs then start from the "
            "beginning"
        )


def progress_options(add: Callable[..., Any]) -> None:
    _results_option(add)


def show_progress(arguments: argparse.Namespace) -> None:
    """Print the progress of each training run with a saved state: running, interrupted, or finished."""
    from loco.training.lock import is_locked
    from loco.training.states import all_states, is_final, progress

    results = _results_folder(arguments.results)
    states = all_states(results)
    for state in states:
        now = progress(state)
        kind = "finished" if is_final(state) else "running" if is_locked(state.parent) else "interrupted"
        values = [f"step {now.step}" + (f" of {now.steps}" if now.steps else "")]
        values += [
            f"{name} {value:.4f}" for name, value in (("loss", now.loss), ("val_map", now.val_map)) if not isnan(value)
        ]
        if kind == "running" and not isnan(now.seconds_left):
            values += [f"{now.images_per_second:.0f} images/s", f"{timedelta(seconds=round(now.seconds_left))} left"]
        print(f"{state.parent.relative_to(results)}: {', '.join(values)} ({kind}; {state.name})")
    if not states:
        print("no training run has a saved state: none is running and none was interrupted")


def failed_options(add: Callable[..., Any]) -> None:
    _results_option(add)
    add("--lines", type=int, default=10, metavar="N", help="number of lines to print of each log (default: 10)")


def show_failed(arguments: argparse.Namespace) -> None:
    """Print the last lines of the logs of jobs that have not finished."""
    from loco.logs import unfinished_logs

    results = _results_folder(arguments.results)
    found = unfinished_logs(results.parent)
    for log, state in found.items():
        print(f"{log.relative_to(results.parent)}: {state}")
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-arguments.lines :]
        print("".join(f"    {printable_lines(line)}\n" for line in lines))
    if not found:
        print("no log of a failed or running job: all jobs of the last runs finished")


def _results_option(add: Callable[..., Any]) -> None:
    add(
        "results",
        nargs="?",
        type=Path,
        default=Path("results"),
        metavar="RESULTS",
        help="results folder (default: results)",
    )


def _results_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise ConfigError(f"the folder {folder} does not exist: pass the results folder of a run")
    return folder.resolve()


def _plan(configs: list[Path]) -> Any:
    """Return the plan of configuration files, merged as by ``snakemake --configfile``; of the demo without any."""
    from loco.config import load, read_files
    from loco.config_layers import workflow_folder
    from loco.plan import Plan

    if (base := workflow_folder()) is None:
        raise ConfigError(
            "the working directory contains no Snakefile: run this command in the folder of the workflow, or pass "
            "--files-only"
        )
    return Plan(load(read_files(configs, base), base), base)


def _size(path: Path) -> str:
    from loco.training.states import size_of

    return f"{(path.stat().st_size if path.is_file() else size_of(path)) / 1e6:.1f} MB"
