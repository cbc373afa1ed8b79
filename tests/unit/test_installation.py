"""A wheel, installed with the packages of the base only, extracts features outside the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest
from packaging.requirements import Requirement

from loco.models import build_extractor, save_extractor

ROOT = Path(__file__).parents[2]
BASE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
MODEL = {"name": "compact_cnn", "dim": 16}
SOURCES = ("loco", "pyproject.toml", "README.md", "LICENSE")


def closure(lines: list[str]) -> dict[str, metadata.Distribution]:
    """Return the installed distributions that requirements need, directly or indirectly, on this platform."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [Requirement(line) for line in lines]
    for requirement in waiting:
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if needed and requirement.name not in found:
            found[requirement.name] = metadata.distribution(requirement.name)
            waiting += [Requirement(line) for line in found[requirement.name].requires or ()]
    return found


def link(distribution: metadata.Distribution, site_packages: Path) -> None:
    """Make an installed distribution visible in another environment, by links to its files."""
    for name in sorted({file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}):
        target = site_packages / name
        if not target.exists():
            target.symlink_to(Path(str(distribution.locate_file(name))))


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Create an environment with a wheel of the project and the packages of the base, without a download."""
    folder = tmp_path_factory.mktemp("installation")
    source = folder / "source"  # setuptools writes beside what it builds
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source], check=True)
    (wheel,) = folder.glob("loco-*.whl")
    venv.create(folder / "env", symlinks=True)
    (site_packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    for distribution in closure(BASE).values():
        link(distribution, site_packages)
    python = folder / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    return folder / "env" / "bin"


def run(command: list[object], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, without the paths of this environment."""
    settings = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run([str(part) for part in command], cwd=folder, env=settings, capture_output=True, text=True)


def test_features_are_extracted_with_the_base_alone(installed, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    model = build_extractor(MODEL).eval()
    save_extractor(model, MODEL, tmp_path / "model.safetensors")
    done = run([installed / "loco", "extract", "a.png", "--model", "model.safetensors", "--out", "."], tmp_path)
    assert done.returncode == 0, done.stderr
    expected = model.extract(image)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), expected, atol=1e-3)  # float16


def test_the_losses_run_with_the_base_alone(installed, tmp_path):
    code = """
import torch, loco.losses as losses
torch.manual_seed(0)
x, points = torch.randn(12, 4, requires_grad=True), torch.rand(12, 3)
for name in ("ExactSmoothAP", "SampledSmoothAP"):
    loss, _ = getattr(losses, name)(rho=0.4, kappa=1.0, tau=0.1)(x, points)
    loss.backward()
    print(torch.isfinite(x.grad).all().item())
"""
    done = run([installed / "python", "-c", code], tmp_path)
    assert (done.returncode, done.stdout) == (0, "True\nTrue\n"), done.stderr


def test_commands_of_the_extras_name_them(installed, tmp_path):
    done = run([installed / "loco", "match", "a", "b", "--model", "m", "--out", "c.png"], tmp_path)
    assert (done.returncode, "pip install 'loco[results]'" in done.stderr) == (2, True), done.stderr


def test_a_model_of_an_extra_names_it(installed, tmp_path):
    code = "import loco; loco.load('hub:owner/name')"
    done = run([installed / "python", "-c", code], tmp_path)
    assert "pip install 'loco[backbones]'" in done.stderr, done.stderr
