"""Encoders in ONNX form, compared with the PyTorch networks from which they were exported."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from loco.errors import ConfigError, DataError
from loco.models.backbones import build_backbone

SIZE, STRIDE = (24, 40), 8
MEAN, STD = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)


class Net(nn.Module):
    """Two outputs: a map at 1/8 that depends on neighbouring patches, and the same as tokens after a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.mix = nn.Conv2d(3, 6, 8, stride=8), nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, image):
        grid = self.mix(self.patches(image).relu())
        patches = grid.flatten(2).transpose(1, 2)
        return grid, torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1), patches


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


def export(net, path, size, free=False):
    torch.onnx.export(
        net.eval(),
        (torch.zeros(1, 3, *size),),
        path,
        output_names=["grid", "tokens", "patches"][: 3 if isinstance(net, Net) else 1],
        dynamic_shapes=({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},) if free else None,
        external_data=False,
        verbose=False,
    )


@pytest.fixture(scope="module")
def folder(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    export(net, folder / "fixed.onnx", SIZE)
    export(net, folder / "free.onnx", SIZE, free=True)
    return folder


def build(path, **options):
    colours = {"mean": MEAN.flatten().tolist(), "std": STD.flatten().tolist()}
    return build_backbone({"name": "onnx", "path": str(path), "native_stride": STRIDE, **colours, **options})


def images(height=24, width=40):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def reference(net, x):
    with torch.no_grad():
        return net((x - MEAN) / STD)[0]


@pytest.mark.parametrize("options", [{}, {"output": "tokens"}, {"output": 2}, {"size": SIZE}])
def test_features_are_those_of_the_network(net, folder, options):
    backbone = build(folder / "fixed.onnx", **options)
    assert (backbone.dim, backbone.stride, backbone.size) == (5, 8, SIZE)
    torch.testing.assert_close(backbone(images()).maps, reference(net, images()), atol=1e-5, rtol=1e-5)
    assert not list(backbone.parameters())
    assert not list(backbone.blocks)


@pytest.mark.parametrize("output", ["grid", "tokens"])
@pytest.mark.parametrize("shape", [(24, 16), (8, 40), (16, 24)])
def test_a_small_image_lies_at_the_top_left_of_the_mean_colour(net, folder, output, shape):
    x = images(*shape)
    canvas = MEAN.expand(2, 3, *SIZE).clone()
    canvas[:, :, : shape[0], : shape[1]] = x
    expected = reference(net, canvas)[:, :, : shape[0] // 8, : shape[1] // 8]
    found = build(folder / "fixed.onnx", output=output)(x).maps
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, reference(net, x), atol=1e-3)  # the neighbourhood has an effect


@pytest.mark.parametrize("shape", [(24, 40), (48, 8)])
def test_a_model_of_any_size_takes_the_image_alone(net, folder, shape):
    x = images(*shape)
    backbone = build(folder / "free.onnx")
    assert backbone.size is None
    torch.testing.assert_close(backbone(x).maps, reference(net, x), atol=1e-5, rtol=1e-5)
    padded = build(folder / "free.onnx", size=(48, 40))
    canvas = (x - MEAN) / STD
    canvas = F.pad(canvas, (0, 40 - shape[1], 0, 48 - shape[0])) * STD + MEAN
    expected = reference(net, canvas)[:, :, : shape[0] // 8, : shape[1] // 8]
    torch.testing.assert_close(padded(x).maps, expected, atol=1e-5, rtol=1e-5)


def test_copies_work(folder):
    backbone = build(folder / "fixed.onnx")
    expected = backbone(images()).maps
    for other in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        torch.testing.assert_close(other(images()).maps, expected, atol=0, rtol=0)


# Mistakes of users.


def test_an_image_larger_than_the_input(folder):
    with pytest.raises(DataError, match=r"larger(.|\n)*at most 24 x 40(.|\n)*32 x 40"):
        build(folder / "fixed.onnx")(images(32, 40))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "features"}, "no output 'features'; expected one of: grid, tokens, patches"),
        ({"output": 3}, "no output 3"),
        ({"size": (24, 24)}, "remove `size`"),
        ({"native_stride": 4}, r"shape \(1, 5, 3, 5\) for \(24, 40\) pixels"),
        ({"native_stride": 16}, "not a multiple of `native_stride` 16"),
        ({"stride": 8}, "has unknown or missing options"),
    ],
)
def test_wrong_options(folder, options, message):
    with pytest.raises(ConfigError, match=message):
        build(folder / "fixed.onnx", **options)


def test_missing_and_broken_files(folder, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        build(tmp_path / "no.onnx")
    whole = (folder / "fixed.onnx").read_bytes()
    for name, content in [("half", whole[: len(whole) // 2]), ("empty", b""), ("pickle", pickle.dumps({"a": 1}))]:
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(DataError):
            build(tmp_path / f"{name}.onnx")


def test_a_model_of_something_else(tmp_path):
    net = nn.Linear(4, 2).eval()
    torch.onnx.export(net, (torch.zeros(1, 4),), tmp_path / "linear.onnx", external_data=False, verbose=False)
    with pytest.raises(DataError, match=r"is not an image(.|\n)*\(1, 3, height, width\)(.|\n)*\[1, 4\]"):
        build(tmp_path / "linear.onnx")


def test_a_size_that_the_model_refuses(tmp_path):
    """A network that requires more than the four patches with which it is tried."""
    export(nn.Conv2d(3, 4, 40, stride=8), tmp_path / "wide.onnx", (64, 64), free=True)
    with pytest.raises(DataError, match="failed on an image of 32 x 32 pixels"):
        build(tmp_path / "wide.onnx")
