"""Steps in a container: a program that replaces apptainer records its arguments and runs the command outside."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.workflow.conftest import World

APPTAINER = """#!/bin/sh
if [ "$1" = --version ]; then echo 'apptainer version 1.3.4'; exit; fi
echo "$@" >> "$STARTED"
for last; do :; done
exec bash -c "$last"
"""


def test_steps_run_in_the_image_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs, started = tmp_path / "bin", tmp_path / "started"
    programs.mkdir()
    (programs / "apptainer").write_text(APPTAINER)
    (programs / "apptainer").chmod(0o755)
    # In an image, `python` is that of the project.
    monkeypatch.setenv("PATH", os.pathsep.join([str(programs), str(Path(sys.executable).parent)]), prepend=os.pathsep)
    monkeypatch.setenv("STARTED", str(started))
    world = World.new(tmp_path / "world")
    (world.directory / "loco.sif").touch()
    world.overlay({"run": {"container": "loco.sif"}})
    raw = "results/raw/tiny/ash"
    world.run("--", raw)
    assert not started.exists()  # only on request
    world.run("--software-deployment-method", "apptainer", "--forcerun", "simulate", "--", raw)
    (command,) = started.read_text().splitlines()
    assert "exec --home " in command
    assert f" {world.directory / 'loco.sif'} " in command or " loco.sif " in command
    assert "simulate.py" in command
