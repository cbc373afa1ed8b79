"""The tutorials of ``docs/tutorials/``: their blocks are run as printed, in a copy of the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow.conftest import ROOT, TINY, World

TUTORIALS = ROOT / "docs/tutorials"
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.long


def run_tutorial(name: str, folder: Path) -> str:
    """Run the blocks of a tutorial in their order in ``folder``, and compare what they print with the tutorial.

    A block with a ``title`` is a file, ``bash`` is run, and every line of ``text`` occurs in the output of the commands
    before it, with any numbers. Returns all output.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    output, everything = "", ""
    for info, body in BLOCK.findall((TUTORIALS / f"{name}.md").read_text()):
        if title := re.search(r'title="(.+?)"', info):
            (folder / title[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / title[1]).write_text(body)
        elif info == "bash":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", body],
                cwd=folder,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            assert done.returncode == 0, f"{body}\n{done.stdout}"
            output = done.stdout
            everything += output
        elif info == "text":
            missing = [line for line in body.splitlines() if not _any_numbers(line).search(output)]
            assert missing == [], output
    return everything


def _any_numbers(line: str) -> re.Pattern[str]:
    """Return a pattern of a printed line that accepts other numbers, white space and rules of tables."""
    words = re.split(r"(\d[\d.,]*|\*\*|-{2,}|\s+)", line.strip())
    patterns = (
        r"[\d.,*\s]*" if k % 2 and word[0] in "0123456789*" else r"[-\s]*" if k % 2 else re.escape(word)
        for k, word in enumerate(words)
    )
    return re.compile("".join(patterns))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository in which the tutorials are run one after the other, like a reader does."""
    return World.new(tmp_path_factory.mktemp("tutorials")).workflow


def test_train_on_your_own_recording_and_then_add_a_backbone(repository: Path) -> None:
    said = run_tutorial("recording", repository)
    assert "compact CNN, untrained" in said
    assert (repository / "matches.png").read_bytes().startswith(b"\x89PNG")
    said = run_tutorial("backbone", repository)
    assert "my network, with a head" in said
    model = json.loads(_loco(repository, "info", "results/train/recordings/head/seed0", "--all"))
    assert "my_net" in json.dumps(model)  # of the last part
    said = run_tutorial("colmap", repository)
    assert re.search(r"(?:[3-9]|1[0-2]) of 12 photographs", said)
    run_tutorial("explorer", repository)
    assert '"title":"recordings / second"' in (repository / "explorer.html").read_text()
    assert "[explorer.html](explorer.html)" in (repository / "release/README.md").read_text()


def test_use_the_loss_in_your_own_loop(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "loco", tmp_path / "loco", ignore=shutil.ignore_patterns("__pycache__"))
    said = run_tutorial("loss", tmp_path)
    precision = [float(number) for number in re.findall(r"mean AP ([\d.]+)", said)]
    unseen = [float(number) for number in re.findall(r"another room ([\d.]+)", said)]
    assert precision[-1] > 3 * precision[0]
    assert unseen[-1] > 1.5 * unseen[0]


def test_use_the_loss_with_class_labels(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "loco", tmp_path / "loco", ignore=shutil.ignore_patterns("__pycache__"))
    said = run_tutorial("labels", tmp_path)
    loss = [float(number) for number in re.findall(r"loss ([\d.]+)", said)]
    assert loss[-1] < 0.5 * loss[0]
    theirs, ours = re.findall(r"SmoothAP(?:Loss)? +([\d.]+)", said)
    assert float(ours) == pytest.approx(float(theirs), abs=1e-3)


def test_reproduce_a_table(tmp_path: Path) -> None:
    folder = World.new(tmp_path).workflow
    shutil.copy(ROOT / "README.md", folder)
    demo = folder / "config/config.yaml"  # replaced by a tiny world: the commands name no configuration
    tiny = yaml.safe_load(TINY.read_text())
    assert tiny.pop("extends") == demo.name
    demo.write_text(yaml.safe_dump(_merged(yaml.safe_load(demo.read_text()), tiny)))
    said = run_tutorial("table", folder)
    assert "compact CNN, three steps" in said
    assert "files verified: all are intact and belong to this configuration" in said
    assert "results/metrics/location_consistency/tiny/quick/tiny-seed0.json" in said


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return two configurations merged like in Snakemake: maps are merged, lists are replaced."""
    both = {key: _merged(below[key], above[key]) for key in below.keys() & above.keys() if isinstance(above[key], dict)}
    return {**below, **above, **both}


def _loco(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-c", "from loco.cli import main; raise SystemExit(main())", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout
