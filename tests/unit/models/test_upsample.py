"""Upsampling against its definitions in float64, and in everything that builds, stores and loads extractors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F

import loco
from loco.errors import ConfigError
from loco.models import build_extractor, save_extractor
from loco.models.catalogue import stride_of
from loco.models.export import export_onnx
from loco.models.extractor import to_colours
from loco.models.heads import ResidualMLP
from loco.models.upsample import Bilinear, JointBilateral, Upsampler, build_upsampler, interpolate

COMPACT = {"name": "compact_cnn", "dim": 8}
BILINEAR, JOINT = ({"name": name, "stride": 2} for name in ("bilinear", "joint_bilateral"))
BOTH = pytest.mark.parametrize("upsample", [BILINEAR, JOINT], ids=lambda upsample: upsample["name"])
RATIOS = pytest.mark.parametrize(("map_stride", "stride"), [(4, 2), (6, 4), (7, 3), (5, 1), (16, 14), (3, 2)])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def maps_and_images(map_stride: int, size: tuple[int, int], batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Return maps of 5 channels that cover images of a size, and the images."""
    rows, columns = (math.ceil(side / map_stride) for side in size)
    return random(batch, 5, rows, columns, seed=1) - 0.5, random(batch, 3, *size, seed=2)


def read(values: np.ndarray, row: float, column: float) -> np.ndarray:
    """Interpolate values (h, w, c) at a position in cells; (0, 0) is the centre of the first cell."""
    found = 0.0
    row, column = (min(max(at, 0), side - 1) for at, side in zip((row, column), values.shape[:2]))
    for r in {math.floor(row), math.ceil(row)}:
        for q in {math.floor(column), math.ceil(column)}:
            found = found + (1 - abs(r - row)) * (1 - abs(q - column)) * values[r, q]
    return found


def joint_bilateral(
    maps: np.ndarray, image: np.ndarray, map_stride: int, stride: int, sigma_space: float, sigma_colour: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (rows, columns, c) of maps (h, w, c) and an image (H, W, 3) in float64, by the definition.

    Also return the weight of each cell of the maps in each feature, (rows, columns, h, w).
    """
    (h, w), (height, width) = maps.shape[:2], image.shape[:2]
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    colours = np.zeros((rows, columns, 3))
    for r, q in np.ndindex(rows, columns):
        inside = [
            (min(r * stride + i, height - 1), min(q * stride + j, width - 1)) for i, j in np.ndindex(*2 * [stride])
        ]
        colours[r, q] = np.mean([image[pixel] for pixel in inside], axis=0)
    weights, radius = np.zeros((rows, columns, h, w)), math.ceil(3 * sigma_space)
    for r, q in np.ndindex(rows, columns):
        down, across = (r + 0.5) * stride / map_stride, (q + 0.5) * stride / map_stride  # cells from the edge
        own = min(math.floor(down), h - 1), min(math.floor(across), w - 1)
        for i, j in np.ndindex(h, w):
            if max(abs(i - own[0]), abs(j - own[1])) > radius:
                continue
            centre = ((i + 0.5) * map_stride / stride - 0.5, (j + 0.5) * map_stride / stride - 0.5)
            far = (down - i - 0.5) ** 2 + (across - j - 0.5) ** 2
            unlike = np.sum((colours[r, q] - read(colours, *centre)) ** 2)
            weights[r, q, i, j] = math.exp(-far / (2 * sigma_space**2) - unlike / (2 * sigma_colour**2))
    weights /= weights.sum(axis=(2, 3), keepdims=True)
    return np.einsum("rqij,ijc->rqc", weights, maps), weights


def as_array(maps: torch.Tensor) -> np.ndarray:
    return maps.double().permute(1, 2, 0).numpy()


@RATIOS
@pytest.mark.parametrize("sigmas", [(0.5, 0.1), (0.8, 0.4)])
def test_joint_bilateral_upsampling_is_its_definition(
    map_stride: int, stride: int, sigmas: tuple[float, float]
) -> None:
    maps, images = maps_and_images(map_stride, (17, 23))
    found = JointBilateral(map_stride, stride, *sigmas)(maps, images)
    for one, own, image in zip(found, maps, images):
        expected, _ = joint_bilateral(as_array(own), as_array(image), map_stride, stride, *sigmas)
        np.testing.assert_allclose(as_array(one), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 14), (6, 5)])
def test_images_smaller_than_a_window_are_upsampled_by_the_same_definition(size: tuple[int, int]) -> None:
    maps, images = maps_and_images(6, size)
    expected, _ = joint_bilateral(as_array(maps[0]), as_array(images[0]), 6, 4, 0.5, 0.1)
    np.testing.assert_allclose(as_array(JointBilateral(6, 4)(maps, images)[0]), expected, atol=1e-5)


def test_features_are_not_mixed_across_an_edge_of_the_image() -> None:
    """Also if all weights but those of one side are zero in single precision."""
    images = torch.zeros(1, 3, 16, 24)
    images[..., 12:] = 1  # an edge within a column of cells of the maps, whose centre is on its right
    maps = torch.zeros(1, 1, 2, 3)
    maps[..., 1:] = 1
    found = JointBilateral(8, 1, sigma_colour=0.01)(maps, images)
    assert found.isfinite().all()
    assert (found[..., :12] < 0.01).all()
    assert (found[..., 12:] > 0.99).all()
    smooth = Bilinear(8, 1)(maps, images)
    assert smooth[..., 4:12].max() > 0.9


@pytest.mark.parametrize("factor", [2, 3, 4, 7])
def test_bilinear_upsampling_by_an_integer_is_that_of_torch(factor: int) -> None:
    """PyTorch centres cell k at k + 0.5 if the corners are not aligned, as the features of an extractor are."""
    maps = random(2, 5, 6, 9)
    found = Bilinear(factor, 1)(maps, torch.zeros(2, 3, 6 * factor, 9 * factor))
    torch.testing.assert_close(found, F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False))


@RATIOS
def test_bilinear_upsampling_continues_a_ramp(map_stride: int, stride: int) -> None:
    """Features that are linear in the position in the image stay so, between the outermost centres of the maps."""

    def ramp(rows: int, columns: int, of: int) -> torch.Tensor:
        v, u = torch.meshgrid((torch.arange(rows) + 0.5) * of, (torch.arange(columns) + 0.5) * of, indexing="ij")
        return torch.stack([0.2 * u - 0.1 * v + 3, v])[None]

    size = (119, 150)
    rows, columns = (math.ceil(side / map_stride) for side in size)
    found = Bilinear(map_stride, stride)(ramp(rows, columns, map_stride), torch.zeros(1, 3, *size))
    expected = ramp(*found.shape[2:], stride)
    (last_v, last_u), first = ((count - 0.5) * map_stride for count in (rows, columns)), map_stride / 2
    u, v = (expected[0, 0] + 0.1 * expected[0, 1] - 3) / 0.2, expected[0, 1]
    inside = (u >= first) & (u <= last_u) & (v >= first) & (v <= last_v)
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(found[..., inside], expected[..., inside], atol=1e-4, rtol=1e-5)


def test_interpolation_also_reads_a_coarser_grid() -> None:
    maps = random(1, 3, 8, 10)
    torch.testing.assert_close(interpolate(maps, 1, (4, 5), 2), F.avg_pool2d(maps, 2))


@RATIOS
@pytest.mark.parametrize("kind", [Bilinear, JointBilateral])
@pytest.mark.parametrize("size", [(17, 23), (30, 8)])
def test_maps_that_are_constant_stay_so_on_the_grid_of_any_size(
    kind: type[Upsampler], map_stride: int, stride: int, size: tuple[int, int]
) -> None:
    maps, images = maps_and_images(map_stride, size)
    found = kind(map_stride, stride)(torch.full_like(maps, 0.3), images)
    assert found.shape == (2, 5, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
    torch.testing.assert_close(found, torch.full_like(found, 0.3))


@BOTH
def test_an_image_alone_is_upsampled_as_in_a_batch(upsample: dict[str, Any]) -> None:
    maps, images = maps_and_images(4, (13, 18), batch=3)
    upsampler = build_upsampler(upsample, 4)
    torch.testing.assert_close(upsampler(maps, images)[1:2], upsampler(maps[1:2], images[1:2]))


@BOTH
def test_half_precision_changes_features_by_its_rounding_only(upsample: dict[str, Any]) -> None:
    maps, images = maps_and_images(4, (13, 18))
    upsampler = build_upsampler(upsample, 4)
    with torch.autocast("cpu", torch.bfloat16):
        half = upsampler(maps, images)
    assert F.cosine_similarity(half.float(), upsampler(maps, images), dim=1).min() > 0.999


@BOTH
def test_gradients_are_the_weights_of_the_maps(upsample: dict[str, Any]) -> None:
    maps, images = maps_and_images(6, (17, 23), batch=1)
    maps.requires_grad_()
    build_upsampler({**upsample, "stride": 4}, 6)(maps, images)[0, 2, 3, 4].backward()
    expected = torch.zeros_like(maps)
    if upsample["name"] == "joint_bilateral":
        _, weights = joint_bilateral(as_array(maps[0].detach()), as_array(images[0]), 6, 4, 0.5, 0.1)
        expected[0, 2] = torch.from_numpy(weights[3, 4])
    else:  # the centre (18, 14), pixels, is at (2.5, 11 / 6) cells from the first centre, (3, 3)
        expected[0, 2, 1, 2] = expected[0, 2, 1, 3] = 0.5 * (1 / 6)
        expected[0, 2, 2, 2] = expected[0, 2, 2, 3] = 0.5 * (5 / 6)
    torch.testing.assert_close(maps.grad, expected, atol=1e-5, rtol=0)


@BOTH
def test_values_that_are_not_finite_are_not_hidden(upsample: dict[str, Any]) -> None:
    maps, images = maps_and_images(4, (32, 48), batch=1)
    maps[0, 3, 2, 5] = torch.nan
    found = build_upsampler(upsample, 4)(maps, images)
    assert found[0, 3, 4:6, 10:12].isnan().all()  # the cells in that cell
    assert found[0, :3].isfinite().all()
    assert found[0, 3, :, 18:].isfinite().all()  # beyond a window of two cells


@pytest.mark.parametrize(
    ("upsample", "problem"),
    [
        ({"name": "cubic", "stride": 2}, "unknown upsampling 'cubic'; expected one of: bilinear, joint_bilateral"),
        ({"name": "bilinear", "stride": 4}, "less than the stride of the model, 4 pixels; found 4"),
        ({"name": "bilinear", "stride": 0}, "`stride` must be an integer from 1"),
        ({"name": "bilinear", "stride": 2.0}, "`stride` must be an integer from 1"),
        ({"name": "bilinear"}, "has unknown or missing options"),
        ({"name": "bilinear", "stride": 2, "sigma_space": 1}, "has unknown or missing options"),
        ({**JOINT, "sigma_space": 1000}, "`upsample.sigma_space` must be greater than 0 and at most 4, found 1000"),
        ({**JOINT, "sigma_colour": 0}, "`upsample.sigma_colour` must be greater than 0"),
        ({**JOINT, "sigma_colour": float("nan")}, "`upsample.sigma_colour` must be greater than 0"),
    ],
)
def test_invalid_settings_are_refused(upsample: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        build_extractor({**COMPACT, "upsample": upsample})


def photos(height: int = 43, width: int = 38) -> np.ndarray:
    return np.random.default_rng([5]).integers(0, 255, (2, height, width, 3), np.uint8)


def models(tiny: dict[str, Any]) -> dict[str, dict[str, Any]]:
    backbone = {"name": "backbone", "backbone": tiny["dinov2"], "stride": 14}
    return {
        "compact_cnn": COMPACT,
        "dense_sift": {"name": "dense_sift", "stride": 4, "keypoint_size": 3},
        "frozen": backbone,
        "enlarged": {"name": "backbone", "backbone": tiny["vit"], "stride": 6},
        "head": {**backbone, "head": {"name": "residual_mlp", "hidden": 4, "dim": 6}},
        "head on images": {**backbone, "head": {"name": "residual_cnn", "widths": [4, 4, 4]}},
        "class token": {**backbone, "head": {"name": "locus", "dim": 4, "width": 8, "class_token": True}},
        "lora": {**backbone, "train": {"lora": {"rank": 2, "last": 1}}},
        "concat": {"name": "concat", "models": [COMPACT, COMPACT], "stride": 4},
    }


@BOTH
def test_the_features_of_every_model_are_upsampled_after_its_head(
    upsample: dict[str, Any], tiny: dict[str, Any], tmp_path: Path
) -> None:
    for name, config in models(tiny).items():
        plain, finer = build_extractor(config, 3).eval(), build_extractor({**config, "upsample": upsample}, 3).eval()
        images = to_colours(photos(), "cpu")
        expected = build_upsampler(upsample, plain.stride)(plain.raw(images), images)
        assert (finer.stride, stride_of(finer.config), expected.shape[2:]) == (2, 2, (22, 19)), name
        assert finer.grid((43, 38)) == (22, 19)
        with torch.no_grad():
            torch.testing.assert_close(finer.raw(images), expected)
        torch.testing.assert_close(finer.extract(photos()), F.normalize(expected, dim=1))
        torch.testing.assert_close(finer.encode(images).maps, plain.encode(images).maps)
        save_extractor(finer, finer.config, tmp_path / f"{name}.safetensors")
        again = loco.load(tmp_path / f"{name}.safetensors")
        assert again.config["upsample"] == upsample
        torch.testing.assert_close(again.extract(photos()), finer.extract(photos()))


@BOTH
def test_stored_encodings_are_upsampled_with_their_images(upsample: dict[str, Any], tiny: dict[str, Any]) -> None:
    extractor = build_extractor({**models(tiny)["head"], "upsample": upsample}).eval()
    images = to_colours(photos(), "cpu")
    stored = extractor.encode(images).maps
    assert extractor.needs_images
    assert extractor.frozen_encoder
    assert stored.shape[2:] == (4, 3)
    torch.testing.assert_close(extractor(images, stored), extractor(images))
    torch.testing.assert_close(extractor(images, stored.half()), extractor(images), atol=0.01, rtol=0)
    with pytest.raises(ValueError, match=r"\(22, 19\) cells do not fit images of \(43, 38\) pixels at a stride of 14"):
        extractor(images, torch.zeros(2, 16, 22, 19))


@BOTH
def test_a_head_learns_through_the_upsampling(upsample: dict[str, Any], tiny: dict[str, Any]) -> None:
    extractor = build_extractor({**models(tiny)["head"], "upsample": upsample}).train()
    extractor(to_colours(photos(), "cpu"))[:, 0].sum().backward()
    assert isinstance(extractor.head, ResidualMLP)
    gradient = extractor.head.reduce.weight.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_any_model_can_be_loaded_with_an_upsampling(tiny: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_extractor(build_extractor(COMPACT, 2), COMPACT, path)
    for model, config in ((path, COMPACT), (tiny["dinov2"]["path"], None)):
        loaded = loco.load(model, upsample=JOINT)
        plain = loco.load(model)
        images = to_colours(photos(), "cpu")
        expected = F.normalize(JointBilateral(plain.stride, 2)(plain.raw(images), images), dim=1)
        with torch.no_grad():
            torch.testing.assert_close(loaded(images), expected)
        assert loaded.config == {**(config or plain.config), "upsample": JOINT}
    loco.save_pretrained(loco.load(path, upsample=JOINT), tmp_path / "published")
    assert loco.load(tmp_path / "published").stride == 2
    assert "2 x 2 pixels" in (tmp_path / "published" / "README.md").read_text()
    with pytest.raises(ConfigError, match="already upsampled to a stride of 2; remove `upsample`"):
        loco.load(tmp_path / "published", upsample=BILINEAR)
    pretrained = {"name": "pretrained", "path": str(path), "stride": 4, "upsample": BILINEAR}
    assert build_extractor(pretrained).config == {**COMPACT, "upsample": BILINEAR}


def test_an_exported_model_upsamples(tmp_path: Path) -> None:
    """Joint bilateral upsampling also interpolates bilinearly."""
    small = {"name": "compact_cnn", "dim": 8, "widths": (8, 8, 8), "blocks": 1}
    extractor = build_extractor({**small, "upsample": {"name": "joint_bilateral", "stride": 3}})
    assert export_onnx(extractor, tmp_path / "model.onnx", (13, 18)) < 1e-5
    stated = {p.key: p.value for p in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert (stated["stride"], stated["dim"]) == ("3", "8")
