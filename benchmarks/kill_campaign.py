"""Test of the workflow against SIGKILL: kill it at random moments, change settings, run it again, compare results.

``python -m benchmarks.kill_campaign --kills 50 --seed 0`` (Linux) runs the workflow on ``tests/workflow/tiny.yaml``
with a longer training. Each kill hits all processes, Snakemake alone, or one job alone; a third of the kills are
followed by other settings. Every chain of kills ends with a complete run, whose files must equal those of an
undisturbed run of the same settings, byte for byte (except for :data:`LEFT_OUT` and the columns of times in
``log.csv``), and no temporary file may be left. The only intervention is ``snakemake --unlock``. The exit status is 1
if anything differs or fails.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
# Files that differ between equal runs: times, saved states, and locks, which a killed process does not remove.
LEFT_OUT = ("results/logs/", "results/benchmarks/", "tensorboard", "events.out.", "/state-", "/.lock")
TIMES = re.compile("second|time|share|fraction|gb")  # columns of `log.csv` that hold times and memory
KINDS = ("all processes", "Snakemake alone", "one job alone")
TRAINING = {"steps": 12, "validate_every": 4, "save_every": 3}  # long enough that a kill can happen during training
PATIENCE = 1800  # longest duration of a run, seconds
VARIANTS: tuple[dict[str, Any], ...] = (  # changes of: nothing, the training, the frames and all later steps, scores
    {},
    {"experiments": {"quick": {"train": {"steps": 9}}}},
    {"datasets": {"tiny": {"frames": {"max_hole_fraction": 0.5}}}},
    {"benchmarks": {"location_consistency": {"queries_per_scene": 21}}},
)


@dataclass
class Chain:
    """A folder in which the workflow is run, killed and run again until it is complete."""

    folder: Path
    cores: int
    variant: int = 0
    changed: bool = False
    kills: list[tuple[str, str]] = field(default_factory=list)  # (kind, rules of the jobs that ran)
    unlocks: Counter[str] = field(default_factory=Counter)  # number of unlocks by the kind of the previous kill
    faults: list[str] = field(default_factory=list)
    starts: int = 0
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)  # in the environment of all processes, also of orphans

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start Snakemake in a separate session."""
        self.starts += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        configs = [ROOT / "tests/workflow/tiny.yaml", self.folder / "training.yaml", self.folder / "variant.yaml"]
        configs[1].write_text(yaml.safe_dump({"experiments": {"quick": {"train": TRAINING}}}))
        configs[2].write_text(yaml.safe_dump(VARIANTS[self.variant]))
        options = ("--snakefile", ROOT / "Snakefile", "--directory", self.folder, "--cores", self.cores, *options)
        command = [sys.executable, "-m", "snakemake", "--configfile", *configs, *options, "--", "all"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "KILL_CAMPAIGN": self.mark}
        with open(self.output(), "wb") as output:
            return subprocess.Popen(
                [str(word) for word in command],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> Path:
        """Return the file that contains the output of the last run."""
        return self.folder / f"output{self.starts}.txt"

    def processes(self) -> dict[int, str]:
        """Return the process ids of this chain's living processes, with their command lines."""
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                try:
                    if f"KILL_CAMPAIGN={self.mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                        found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:  # the process has ended or belongs to another user
                    continue
        return {pid: command for pid, command in found.items() if command}  # a zombie has no command line

    def jobs(self) -> dict[int, str]:
        """Return the process ids of running jobs, with the names of their rules."""
        script = re.compile(r"\.snakemake/scripts/[^ ]*\.(\w+)\.py")
        scripts = {pid: script.search(command) for pid, command in self.processes().items()}
        return {pid: found[1] for pid, found in scripts.items() if found}

    def kill_all(self) -> None:
        """Kill all of this chain's processes."""
        while processes := self.processes():
            for pid in processes:
                _kill(pid)
            time.sleep(0.1)

    def disturb(self, run: subprocess.Popen[bytes], kind: str, delay: float, rng: random.Random) -> bool:
        """Kill a run after ``delay`` seconds; return whether it was still running."""
        try:
            run.wait(delay)
        except subprocess.TimeoutExpired:
            while kind == "one job alone" and not self.jobs() and run.poll() is None:
                time.sleep(0.05)
        jobs = self.jobs()
        if run.poll() is not None or (kind == "one job alone" and not jobs):
            return False
        if kind == "one job alone":
            pid = rng.choice(sorted(jobs))
            _kill(pid)
            jobs = {pid: jobs[pid]}
        else:
            _kill(run.pid)
            if kind == "all processes":
                self.kill_all()
        run.wait(PATIENCE)  # after the death of a job, Snakemake ends by itself
        self.kills.append((kind, "+".join(sorted(jobs.values())) or "no job"))
        return True

    def recover(self) -> None:
        """Unlock the folder if the last run reported a lock; record any other failure."""
        output = self.output().read_text(errors="replace")
        if "--unlock" in output:
            self.unlocks[self.kills[-1][0] if self.kills else "no kill"] += 1
            self.start("--unlock").wait(PATIENCE)
        else:
            self.faults.append(f"a run that was not killed failed, see {self.output()}")
            self.wait_for_orphans()

    def wait_for_orphans(self) -> None:
        """Wait for jobs that outlived their Snakemake process, because they may still write."""
        end = time.monotonic() + PATIENCE
        while self.processes() and time.monotonic() < end:
            time.sleep(0.2)

    def run(self, rng: random.Random, kills: int, longest: float) -> None:
        """Run the workflow until it is complete, with at most this number of kills, each within ``longest`` seconds."""
        while len(self.faults) < 5:
            process, kind, delay = self.start(), rng.choice(KINDS), rng.uniform(0, longest)
            if len(self.kills) < kills and self.disturb(process, kind, delay, rng):
                print(f"{self.folder.name}: {kind}, after {delay:.1f} s, in {self.kills[-1][1]}", flush=True)
                if rng.random() < 1 / 3:
                    self.variant, self.changed = rng.choice([*{*range(len(VARIANTS))} - {self.variant}]), True
            elif process.wait(PATIENCE) == 0:
                break
            else:
                self.recover()
        self.wait_for_orphans()

    def results(self) -> dict[str, bytes]:
        """Return the files whose contents must not depend on kills."""
        paths = sorted(path for path in (self.folder / "results").rglob("*") if path.is_file())
        names = {path.relative_to(self.folder).as_posix(): path for path in paths}
        return {
            name: _without_times(path) if path.name == "log.csv" else path.read_bytes()
            for name, path in names.items()
            if not any(part in name for part in LEFT_OUT)
        }

    def compare(self, undisturbed: Chain) -> int:
        """Compare the files with an undisturbed run, and record differences; return the number of compared files."""
        found, expected = self.results(), undisturbed.results()
        extra = set() if self.changed else found.keys() - expected.keys()  # files of other settings may stay
        self.faults += [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
        self.faults += [f"{name} differs" for name in sorted(expected) if found.get(name, b"") != expected[name]]
        self.faults += [f"{name} does not exist in any undisturbed run" for name in sorted(extra)]
        self.faults += [f"{path} was left over" for path in sorted(self.folder.rglob("*.part*"))]
        return len(expected)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _without_times(path: Path) -> bytes:
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    kept = [k for k, name in enumerate(header) if not TIMES.search(name)]
    return "\n".join(",".join(row[k] for k in kept) for row in [header, *rows]).encode()


def campaign(folder: Path, kills: int, seed: int, cores: int) -> bool:
    """Run chains until the number of kills is reached, and print the results; return True if there was no fault."""
    rng, chains, undisturbed = random.Random(seed), [], {}

    def reference(variant: int) -> Chain:
        if variant not in undisturbed:
            undisturbed[variant] = Chain(folder / f"undisturbed{variant}", cores, variant)
            undisturbed[variant].run(random.Random(), kills=0, longest=0)
            if undisturbed[variant].faults:
                sys.exit(f"error: the workflow fails without a kill: {undisturbed[variant].faults}")
        return undisturbed[variant]

    began = time.monotonic()
    reference(0)
    duration = time.monotonic() - began
    print(f"an undisturbed run takes {duration:.0f} s", flush=True)
    done = Counter()
    while (left := kills - done.total()) > 0:
        chain = Chain(folder / f"chain{len(chains)}", cores)
        chains.append(chain)
        try:
            chain.run(rng, min(left, 12), longest=duration / 3)
        finally:
            chain.kill_all()
        compared = chain.compare(reference(chain.variant))
        done.update(kind for kind, _ in chain.kills)
        facts = f"{len(chain.kills)} kills, {compared} files compared, {len(chain.faults)} faults"
        print("\n  ".join([f"{chain.folder.name}: {facts}", *chain.faults]), flush=True)
    print(f"\n{'killed':<16}{'kills':>6}{'unlocks':>9}  in")
    for kind in KINDS:
        where = Counter(jobs for chain in chains for killed, jobs in chain.kills if killed == kind)
        unlocks = sum(chain.unlocks[kind] for chain in chains)
        print(f"{kind:<16}{done[kind]:>6}{unlocks:>9}  {', '.join(f'{name} {n}' for name, n in where.most_common())}")
    faults = sum(len(chain.faults) for chain in chains)
    changed = sum(chain.changed for chain in chains)
    print(f"{len(chains)} chains, {changed} of them with changed settings; faults: {faults}")
    return not faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="number of kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times and kinds of kills and of the settings")
    parser.add_argument("--cores", type=int, default=2, help="cores of each Snakemake process (default: %(default)s)")
    parser.add_argument("--directory", type=Path, help="working directory, which is kept (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = (arguments.directory or Path(temporary)).absolute()
        if arguments.directory and folder.is_dir() and any(folder.iterdir()):
            parser.error(f"{folder} is not empty")
        sys.exit(not campaign(folder, arguments.kills, arguments.seed, arguments.cores))


if __name__ == "__main__":
    main()
