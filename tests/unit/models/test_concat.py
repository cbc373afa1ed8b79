import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from loco.errors import ConfigError
from loco.models import build_extractor, describe, load, save_extractor

COMPACT = {"name": "compact_cnn", "dim": 8}
SIFT = {"name": "dense_sift", "stride": 4, "keypoint_size": 3}


def images(height=43, width=38):
    return np.random.default_rng(0).integers(0, 255, (2, height, width, 3), np.uint8)


def test_cosines_are_the_mean_of_the_cosines():
    both = build_extractor({"name": "concat", "models": [COMPACT, SIFT], "stride": 4}, seed=2)
    parts = [part.extract(images()).flatten(2) for part in both.encoder.models]
    features = both.extract(images()).flatten(2)
    assert (both.dim, both.stride, features.shape) == (136, 4, (2, 136, 11 * 10))
    lengths = both.raw(torch.rand(1, 3, 16, 20)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(1, 4, 5))
    wanted = sum(torch.einsum("bcn,bcm->bnm", part, part) for part in parts) / 2
    torch.testing.assert_close(torch.einsum("bcn,bcm->bnm", features, features), wanted, atol=1e-5, rtol=0)


def test_the_members_start_differently_and_by_the_seed():
    config = {"name": "concat", "models": [COMPACT, COMPACT], "stride": 4}
    one, same, other = (build_extractor(config, seed).state_dict() for seed in (1, 1, 2))
    key = "encoder.models.{}.encoder.head.weight"
    assert torch.equal(one[key.format(0)], same[key.format(0)])
    assert not torch.equal(one[key.format(0)], one[key.format(1)])
    assert not torch.equal(one[key.format(0)], other[key.format(0)])


def test_files_hold_the_members_without_their_backbones(tiny, tmp_path):
    member = {"name": "backbone", "backbone": tiny["vit"], "stride": 8}
    head = {"name": "residual_mlp", "hidden": 4}
    config = {"name": "concat", "models": [member, {**member, "head": head}], "stride": 8}
    extractor = build_extractor(config, seed=1)
    path = tmp_path / "model.safetensors"
    save_extractor(extractor, config, path)
    assert all(key.startswith("encoder.models.1.head.") for key in load_file(path))
    assert torch.equal(load(path).extract(images()), extractor.extract(images()))
    assert describe(extractor)["stored"] == extractor.trainable_parameters


def test_other_strides_are_refused():
    with pytest.raises(ConfigError, match=r"strides \[4, 8\]; all must be 4"):
        build_extractor({"name": "concat", "models": [COMPACT, {**SIFT, "stride": 8}], "stride": 4})
    with pytest.raises(ConfigError, match=r"strides \[\]"):
        build_extractor({"name": "concat", "models": [], "stride": 4})
