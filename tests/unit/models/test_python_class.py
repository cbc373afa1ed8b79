"""Extractors that are classes of the user's own code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from loco.errors import ConfigError
from loco.models import build_extractor
from loco.models.catalogue import STORABLE
from loco.own_code import class_problem, source_files

CODE = """
import torch

class Pool(torch.nn.Module):
    def __init__(self, stride=8, dim=3):
        super().__init__()
        self.stride, self.dim = stride, dim
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.scale * torch.nn.functional.avg_pool2d(images, self.stride)

class WithToken(Pool):
    token_dim = 3

    def forward(self, images):
        return super().forward(images), images.mean(dim=(2, 3))

class NoNetwork:
    pass

class NoSizes(torch.nn.Module):
    pass

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A working directory with a module ``own_pool`` and a package ``own_package``."""
    (tmp_path / "own_pool.py").write_text(CODE)
    (tmp_path / "own_package/inner").mkdir(parents=True)
    (tmp_path / "own_package/__init__.py").write_text("raise SystemExit('the package was run')")
    (tmp_path / "own_package/inner/__init__.py").write_text("")
    (tmp_path / "own_package/inner/pool.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def build(name: str = "own_pool.Pool", stride: int = 8, **more):
    return build_extractor({"name": "python", "class": name, "stride": stride, **more})


def test_features_are_those_of_the_class_and_it_is_frozen(own):
    images = torch.rand(2, 3, 16, 24)
    extractor = build()
    torch.testing.assert_close(extractor.raw(images), F.avg_pool2d(images, 8))
    assert (extractor.dim, extractor.stride, extractor.trainable_parameters) == (3, 8, 0)
    torch.testing.assert_close(build(options={"stride": 4}, stride=4).raw(images), F.avg_pool2d(images, 4))
    odd = torch.rand(1, 3, 13, 20)
    padded = F.pad(odd, (0, 4, 0, 3), mode="replicate")
    torch.testing.assert_close(extractor.raw(odd), F.avg_pool2d(padded, 8))


def test_another_stride_resizes_the_image(own):
    images = torch.rand(1, 3, 16, 24)
    resized = F.interpolate(images, (32, 48), mode="bilinear")
    torch.testing.assert_close(build(stride=4).raw(images), F.avg_pool2d(resized, 8))


def test_a_class_token_may_be_returned(own):
    images = torch.rand(2, 3, 16, 24)
    _, token = build("own_pool.WithToken").with_class_token(images)
    torch.testing.assert_close(token, images.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("own_pool.Other", {}, r"own_pool\.py\) has no class 'Other'"),
        ("own_pool.number", {}, "has no class 'number'"),
        ("own_pools.Pool", {}, "the module 'own_pools' does not exist"),
        ("Pool", {}, "has no module; write module.Class"),
        ("own_pool.NoNetwork", {}, r"must be a subclass of torch\.nn\.Module"),
        ("own_pool.NoSizes", {}, "`dim` must be an integer"),
        ("own_pool.Pool", {"dim": 0}, "`dim` must be an integer from 1"),
    ],
)
def test_what_cannot_be_an_extractor_is_refused(own, name, options, says):
    with pytest.raises(ConfigError, match=says):
        build(name, options=options)


def test_maps_that_do_not_fit_are_refused(own):
    extractor = build(options={"dim": 4})
    with pytest.raises(ConfigError, match=r"returned maps of shape \(1, 3, 2, 2\) .* expected \(1, 4, 2, 2\)"):
        extractor.raw(torch.rand(1, 3, 16, 16))


def test_a_name_that_is_taken_is_refused(own):
    build()
    sys.modules["own_pool"].__file__ = "/elsewhere/own_pool.py"
    with pytest.raises(ConfigError, match="rename it: another module"):
        build()


def test_files_of_a_class_are_found_without_running_them(own):
    model = {"name": "python", "class": "own_package.inner.pool.Pool", "stride": 8}
    files = ["own_package/__init__.py", "own_package/inner/__init__.py", "own_package/inner/pool.py"]
    assert source_files(model) == [own / file for file in files]
    single = {"name": "python", "class": "own_pool.Pool", "stride": 8}
    assert source_files(single) == [own / "own_pool.py"]
    joined = {"name": "concat", "models": [single, {"name": "compact_cnn"}], "stride": 8}
    assert source_files(joined) == [own / "own_pool.py"]
    assert class_problem("own_package.inner.pool.Pool") is None
    assert "does not exist" in (class_problem("own_package.outer.Pool") or "")
    assert "does not exist" in (class_problem("sys.Pool") or "")  # compiled: there is no source file


def test_model_files_never_name_code(own):
    assert "python" not in STORABLE
    assert Path("own_pool.py").exists()
