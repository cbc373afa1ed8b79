"""The real workflow on a tiny world, which is run once, then copied for every test that changes something."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow import preloaded_snakemake

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests/workflow/tiny.yaml"
PARTS = ("Snakefile", "rules", "workflow_scripts", "loco", "config", "profiles", "report", "environment.yml")
MODEL = "results/train/tiny/quick/seed0/model.safetensors"


class World:
    """A copy of the workflow (``workflow/``) and a working directory (``run/``), controlled by the command line."""

    def __init__(self, root: Path) -> None:
        self.workflow, self.directory = root / "workflow", root / "run"
        self.configs = [TINY]
        self.overlays = self.directory

    @classmethod
    def new(cls, root: Path) -> World:
        world = cls(root)
        world.workflow.mkdir(parents=True)
        world.directory.mkdir()
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, world.workflow / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / part, world.workflow / part)
        return world

    def clone(self, root: Path) -> World:
        """Copy this world as it is, its configuration included."""
        unfinished = shutil.ignore_patterns("*.pyc.*")  # bytecode that a dry run of another worker may be writing
        shutil.copytree(self.workflow.parent, root, dirs_exist_ok=True, ignore=unfinished)
        world = World(root)
        own = self.directory
        world.configs = [root / "run" / path.name if path.is_relative_to(own) else path for path in self.configs]
        return world

    def view(self, folder: Path) -> World:
        """Return this world with another configuration, which is written to ``folder``, for dry runs."""
        world = World(self.workflow.parent)
        world.configs, world.overlays = list(self.configs), folder
        return world

    def overlay(self, config: dict[str, Any]) -> None:
        """Merge another configuration over the present ones."""
        path = self.overlays / f"overlay{len(self.configs)}.yaml"
        path.write_text(yaml.safe_dump(config))
        self.configs.append(path)

    def arguments(self, *arguments: str) -> list[str]:
        """Return the arguments of Snakemake for this world, followed by these."""
        configs = [str(path) for path in self.configs]
        snakefile, directory = str(self.workflow / "Snakefile"), str(self.directory)
        return ["--configfile", *configs, "--snakefile", snakefile, "--directory", directory, *arguments]

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of Snakemake for this world."""
        return [sys.executable, "-m", "snakemake", *self.arguments(*arguments)]

    def environment(self, *modules: Path) -> dict[str, str]:
        """Return the environment of Snakemake; ``modules`` are folders in which Python looks for modules first."""
        return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*modules, self.workflow]))}

    def snakemake(
        self, *arguments: str, file_size: int | None = None, modules: Sequence[Path] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake; ``file_size`` limits every file that it writes, bytes (like a full disk)."""
        if not file_size and not modules:
            return preloaded_snakemake.run(self.arguments(*arguments), self.directory, self.environment())
        limit = ["prlimit", f"--fsize={file_size}"] if file_size else []
        return subprocess.run(
            [*limit, *self.command(*arguments)],
            cwd=self.directory,
            env=self.environment(*modules),
            capture_output=True,
            text=True,
        )

    def run(self, *arguments: str, cores: int = 1) -> str:
        """Run Snakemake, which must succeed, and return its output."""
        done = self.snakemake("--cores", str(cores), *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def refuse(self, *arguments: str, file_size: int | None = None) -> str:
        """Run Snakemake on one core; it must fail, without a traceback. Return its output."""
        done = self.snakemake("--cores", "1", *arguments, file_size=file_size)
        said = done.stdout + done.stderr
        assert done.returncode != 0, said
        assert "Traceback" not in said
        return said

    def plan(self, *arguments: str) -> Counter[str]:
        """Return the number of jobs of each rule that would run."""
        said = self.run("--dry-run", *arguments)
        _, _, stats = said.partition("Job stats:")
        jobs = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", stats, re.MULTILINE)}
        return Counter({name: count for name, count in jobs.items() if name not in ("all", "tables", "total")})

    def read(self, path: str) -> str:
        return (self.directory / path).read_text()

    def results(self) -> dict[str, bytes]:
        """Return the contents of model and tables, which a refused run must not change."""
        files = [*self.directory.glob("results/tables/*"), self.directory / MODEL]
        return {str(file): file.read_bytes() for file in files}


def download(raw: str, names: Iterable[str] = ("real",), **changes: Any) -> dict[str, Any]:
    """Return the configuration of datasets like the tiny one whose scenes are not simulated, but given in ``raw``."""
    tiny = yaml.safe_load(TINY.read_text())["datasets"]["tiny"]
    dataset = {key: value for key, value in tiny.items() if key != "simulate"} | changes
    return {"datasets": {name: {**dataset, "raw": raw.format(name)} for name in names}}


def edit(path: Path, old: str, new: str) -> None:
    """Replace the first occurrence of a text in a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Run the tiny world once for all workers of pytest-xdist. Tests only read it."""
    folder = tmp_path_factory.getbasetemp()
    root = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "finished"
    with root.with_name("finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first worker runs it, with the cores of the waiting workers
        if not (done := root.with_name("finished.done")).exists():
            shutil.rmtree(root, ignore_errors=True)
            World.new(root).run("all", cores=2)
            done.touch()
    return World(root)


@pytest.fixture
def world(finished: World, tmp_path: Path) -> World:
    """Return a copy of the finished world that a test may change."""
    return finished.clone(tmp_path)


@pytest.fixture
def view(finished: World, tmp_path: Path) -> World:
    """Return the finished world with another configuration, for dry runs only."""
    return finished.view(tmp_path)
