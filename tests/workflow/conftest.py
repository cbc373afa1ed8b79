"""The real workflow on a tiny world: run once, then copied for every test that changes something."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "rules", "workflow_scripts", "loco", "config", "profiles", "report", "environment.yml")


class World:
    """A copy of the workflow (``workflow/``) and a working directory (``run/``), driven by the command line."""

    def __init__(self, root: Path) -> None:
        self.workflow, self.directory = root / "workflow", root / "run"
        self.configs = [ROOT / "tests/workflow/tiny.yaml"]

    @classmethod
    def new(cls, root: Path) -> World:
        world = cls(root)
        world.workflow.mkdir(parents=True)
        world.directory.mkdir()
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
            copy(ROOT / part, world.workflow / part)
        return world

    def clone(self, root: Path) -> World:
        shutil.copytree(self.workflow.parent, root, dirs_exist_ok=True)
        return World(root)

    def overlay(self, config: dict[str, Any]) -> None:
        """Lay another configuration over those so far."""
        path = self.directory / f"overlay{len(self.configs)}.yaml"
        path.write_text(yaml.safe_dump(config))
        self.configs.append(path)

    def snakemake(self, *arguments: str, file_size: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run Snakemake; ``file_size`` limits every file that it writes, bytes (a full disk)."""
        limit = ["prlimit", f"--fsize={file_size}"] if file_size else []
        place = [
            "--configfile",
            *self.configs,
            "--snakefile",
            self.workflow / "Snakefile",
            "--directory",
            self.directory,
        ]
        return subprocess.run(
            [*limit, sys.executable, "-m", "snakemake", *place, *arguments],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(self.workflow)},
            capture_output=True,
            text=True,
        )

    def run(self, *arguments: str) -> str:
        """Run Snakemake on two cores; it must succeed. Returns what it says."""
        done = self.snakemake("--cores", "2", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def plan(self, *arguments: str) -> Counter[str]:
        """How many jobs of each rule would run."""
        said = self.run("--dry-run", *arguments)
        _, _, stats = said.partition("Job stats:")
        jobs = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", stats, re.MULTILINE)}
        return Counter({name: count for name, count in jobs.items() if name not in ("all", "total")})

    def read(self, path: str) -> str:
        return (self.directory / path).read_text()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The tiny world after a whole run. Tests only read it."""
    world = World.new(tmp_path_factory.mktemp("finished"))
    world.run("all")
    return world


@pytest.fixture
def world(finished: World, tmp_path: Path) -> World:
    """A copy of the finished world, to be changed."""
    return finished.clone(tmp_path)
