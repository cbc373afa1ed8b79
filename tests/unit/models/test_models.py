import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from loco.errors import ConfigError, DataError
from loco.models import build_extractor, load, save_extractor
from loco.models.catalogue import FIXED_STRIDES

COMPACT = {"name": "compact_cnn", "dim": 16}
SIFT = {"name": "dense_sift", "stride": 4, "keypoint_size": 3}


def images(n: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([cv2.GaussianBlur(rng.integers(0, 255, (48, 64, 3), np.uint8), (0, 0), 2) for _ in range(n)])


@pytest.mark.parametrize("config", [COMPACT, SIFT])
def test_features_are_unit_maps_of_the_stride(config):
    extractor = build_extractor(config)
    features = extractor.extract(images())
    assert features.shape == (2, extractor.dim, 48 // extractor.stride, 64 // extractor.stride)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2, 12, 16), atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [COMPACT, SIFT])
def test_an_image_has_the_same_features_in_any_batch(config):
    extractor = build_extractor(config)
    torch.testing.assert_close(extractor.extract(images(2))[1:], extractor.extract(images(2)[1:]), atol=1e-5, rtol=0)


def test_weights_depend_on_the_seed_alone():
    state = torch.random.get_rng_state()
    first = build_extractor(COMPACT, 3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    for key, value in build_extractor(COMPACT, 3).state_dict().items():
        assert torch.equal(value, first[key])
    key = "encoder.head.weight"
    assert not torch.equal(build_extractor(COMPACT, 4).state_dict()[key], first[key])


@pytest.mark.parametrize("shape", [(1, 1, 48, 64), (3, 48, 64)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"must have the shape \(b, 3, H, W\)"):
        build_extractor(COMPACT)(torch.zeros(shape))


@pytest.mark.parametrize("config", [COMPACT, SIFT])
def test_images_of_any_size_are_continued_by_their_last_pixels(config):
    extractor = build_extractor(config)
    image = images(1)[:, :46, :57]
    features = extractor.extract(image)
    assert features.shape[2:] == (12, 15)
    multiple = extractor.stride * extractor.encoder.cells
    continued = np.pad(image, ((0, 0), (0, -46 % multiple), (0, -57 % multiple), (0, 0)), mode="edge")
    torch.testing.assert_close(features, extractor.extract(continued)[:, :, :, :15])


def test_the_configuration_knows_the_strides_that_are_no_setting():
    assert {name: build_extractor({"name": name}).stride for name in FIXED_STRIDES} == FIXED_STRIDES


def test_every_feature_is_centred_on_its_cell():
    """Shifting the image by one stride shifts the map by one cell, away from the border."""
    image = images(1)
    moved = np.roll(image, 4, axis=2)
    extractor = build_extractor(SIFT)
    still, shifted = extractor.extract(image)[0], extractor.extract(moved)[0]
    torch.testing.assert_close(shifted[:, 5:-5, 6:-5], still[:, 5:-5, 5:-6], atol=2e-2, rtol=0)


def test_sift_describes_the_cell_centre():
    """Mirroring the image mirrors the cells, which holds only if they are centred."""
    extractor = build_extractor(SIFT)
    image = images(1)
    plain, mirrored = extractor.extract(image)[0], extractor.extract(image[:, ::-1, ::-1].copy())[0]
    # A rotation by 180 degrees rotates the 4 x 4 spatial bins and the 8 directions by half a turn.
    turned = plain.reshape(4, 4, 8, 12, 16).flip(0, 1).roll(4, dims=2).reshape(128, 12, 16).flip(1, 2)
    inner = (slice(None), slice(5, -5), slice(5, -5))
    similarity = (mirrored[inner] * turned[inner]).sum(dim=0)
    assert similarity.min() > 0.98  # 0.97 if half a pixel off


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ConfigError, match="unknown model 'resnet'; expected one of: backbone, compact_cnn, concat"):
        build_extractor({"name": "resnet"})
    with pytest.raises(ConfigError, match="stride"):
        build_extractor({"name": "compact_cnn", "stride": 3})


def test_a_saved_model_gives_the_same_features(tmp_path):
    extractor = build_extractor(COMPACT, 5)
    save_extractor(extractor, COMPACT, tmp_path / "model.safetensors")
    save_extractor(extractor, COMPACT, tmp_path / "twin.safetensors")
    assert (tmp_path / "twin.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    again = load(tmp_path / "model.safetensors")
    assert torch.equal(again.extract(images()), extractor.extract(images()))


def test_files_that_are_no_models_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_extractor(build_extractor(COMPACT), COMPACT, path)
    whole = path.read_bytes()
    cases = {
        "truncated": lambda: path.write_bytes(whole[:1000]),
        "empty": lambda: path.write_bytes(b""),
        "pickle": lambda: torch.save({"a": torch.zeros(1)}, path),
        "foreign": lambda: save_file({"a": torch.zeros(1)}, path),
    }
    for damage in cases.values():
        damage()
        with pytest.raises(DataError, match=r"model\.safetensors"):
            load(path)
    save_extractor(build_extractor(COMPACT), {**COMPACT, "dim": 32}, path)
    with pytest.raises(DataError, match="weights of another model"):
        load(path)
