from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from loco.errors import DataError
from loco.evaluation.global_descriptors import (
    Image,
    cosine_kmeans,
    describe,
    descriptor,
    descriptor_name,
    gem,
    learn_centres,
    vlad,
)

VLAD = {"name": "vlad", "clusters": 4, "assignment": "hard", "vocabulary": "dataset", "samples": 100}


def unit(*shape, seed=0):
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def by_definition(patches, centres, temperature=None):
    """Compute VLAD by loops in float64."""
    patches, centres = patches.double().numpy(), centres.double().numpy()
    blocks = np.zeros_like(centres)
    for x in patches:
        cosines = np.array([x @ c / np.linalg.norm(c) for c in centres])
        if temperature is None:
            weights = np.arange(len(centres)) == np.argmax(cosines)
        else:
            weights = np.exp(temperature * (cosines - cosines.max()))
            weights /= weights.sum()
        for k, c in enumerate(centres):
            blocks[k] += weights[k] * (x - c)
    blocks = np.array([block / (np.linalg.norm(block) or 1) for block in blocks]).ravel()
    return blocks / np.linalg.norm(blocks)


@pytest.mark.parametrize("temperature", [None, 1.0, 10.0])
def test_vlad_equals_its_definition(temperature):
    patches, centres = unit(60, 24), 0.7 * unit(7, 24, seed=1)
    found = vlad(patches, centres, temperature)
    np.testing.assert_allclose(found, by_definition(patches, centres, temperature), atol=2e-5)
    assert found.norm() == pytest.approx(1, abs=1e-5)


def test_soft_vlad_becomes_hard_vlad():
    # The sum of each centre contains only its own residuals: with the residuals of all centres, the cosine stays near
    # 0.6.
    patches, centres = unit(1280, 48), 0.5 * unit(32, 48, seed=1)
    hard = vlad(patches, centres)
    cosines = [float(vlad(patches, centres, temperature) @ hard) for temperature in (1e1, 1e3, 1e6)]
    assert cosines[0] < cosines[1] < cosines[2]
    assert cosines[2] == pytest.approx(1, abs=1e-4)


def test_centres_without_patches_add_nothing():
    centres = torch.eye(3)
    found = vlad(normalize(torch.tensor([[1.0, 0.1, 0.0], [1.0, 0.0, 0.2]]), dim=1), centres).reshape(3, 3)
    assert found[0].norm() == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(found[1:], 0)


@pytest.mark.parametrize("exponent", [1, 2.5, 3, 4])
@pytest.mark.parametrize("channels", [24, 384])
def test_gem_of_features_of_either_sign(exponent, channels):
    patches = unit(80, channels)
    assert (patches < 0).any()
    x = patches.double().numpy()
    mean = np.mean(np.sign(x) * np.abs(x) ** exponent, axis=0)
    expected = np.sign(mean) * np.abs(mean) ** (1 / exponent)
    found = gem(patches, exponent)
    assert found.isfinite().all()
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)


def test_gem_of_odd_exponents_is_anyloc_s():
    patches = unit(80, 16)
    mean = (patches.double() ** 3).mean(dim=0)
    anyloc = (mean.to(torch.complex128) ** (1 / 3)).abs() * mean.sign()
    np.testing.assert_allclose(gem(patches, 3), anyloc / anyloc.norm(), atol=1e-5)


def test_gem_of_nothing_is_nothing():
    np.testing.assert_array_equal(gem(torch.zeros(5, 8), 3), 0)


def test_kmeans_finds_what_is_apart():
    directions = unit(6, 40)
    truth = torch.arange(300) % 6
    patches = normalize(directions[truth] + 0.05 * unit(300, 40, seed=1), dim=1)
    centres = cosine_kmeans(patches, 6, np.random.default_rng(0))
    assert sorted((centres @ directions.T).argmax(dim=1).tolist()) == list(range(6))
    nearest = (patches @ normalize(centres, dim=1).T).argmax(dim=1)
    for k in range(6):
        assert len(truth[nearest == k].unique()) == 1
        np.testing.assert_allclose(centres[k], patches[nearest == k].mean(dim=0), atol=1e-5)


def test_kmeans_in_blocks_and_of_equal_patches(monkeypatch):
    patches = unit(200, 8)
    whole = cosine_kmeans(patches, 12, np.random.default_rng(0))
    monkeypatch.setattr("loco.evaluation.global_descriptors.BLOCK", 7)
    np.testing.assert_allclose(cosine_kmeans(patches, 12, np.random.default_rng(0)), whole, atol=1e-6)
    assert not torch.equal(cosine_kmeans(patches, 12, np.random.default_rng(1)), whole)
    same = cosine_kmeans(patches[:1].expand(50, 8), 3, np.random.default_rng(0))
    np.testing.assert_allclose(same, patches[:1].expand(3, 8), atol=1e-6)


@pytest.fixture
def images(make_scene):
    maps = unit(5, 3, 4, 16).half().numpy()
    scene = make_scene(np.tile(np.eye(4), (5, 1, 1)), maps)
    return maps, [Image(scene, i) for i in range(5)]


@pytest.mark.parametrize("name", ["vlad", "gem", "mean"])
def test_streamed_descriptors_are_those_in_memory(images, name):
    maps, images = images
    settings = {"vlad": VLAD, "gem": {"name": "gem", "exponent": 3}, "mean": {"name": "mean"}}[name]
    centres = 0.6 * unit(4, 16, seed=3)
    pool = {
        "vlad": lambda x: by_definition(x, centres),
        "gem": lambda x: gem(x, 3),
        "mean": lambda x: x.mean(0) / x.mean(0).norm(),
    }[name]
    found = describe(images, descriptor(settings, centres))
    assert found.dtype == torch.float16
    expected = np.stack([pool(torch.from_numpy(m).float().reshape(12, 16)) for m in maps])
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_patches_to_learn_from_do_not_depend_on_features(images, make_scene):
    maps, images = images
    turned = np.ascontiguousarray(maps[..., ::-1])
    others = make_scene(np.tile(np.eye(4), (5, 1, 1)), turned)
    # With as many clusters as samples, the centres are the sampled patches.
    drawn = [learn_centres(i, 10, 10, seed=4) for i in (images, [Image(others, k) for k in range(5)])]
    drawn[1] = drawn[1].flip(1)
    found = [sorted(map(tuple, centres.round(decimals=3).tolist())) for centres in drawn]
    assert found[0] == found[1]
    assert len(set(found[0])) == 10


def test_as_many_patches_of_each_image(images):
    maps, images = images
    centres = learn_centres(images, 10, 10, seed=0)
    flat = torch.from_numpy(maps).float().reshape(-1, 16)
    image = (centres @ normalize(flat, dim=1).T).argmax(dim=1) // 12
    np.testing.assert_array_equal(image.bincount(), 2)


def test_too_few_patches_for_a_vocabulary(images):
    with pytest.raises(DataError, match="fewer patches"):
        learn_centres(images[1], 61, 1000, seed=0)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (VLAD, "VLAD 4"),
        (VLAD | {"vocabulary": "domain"}, "VLAD 4 (domain)"),
        (VLAD | {"assignment": "soft", "temperature": 10.0}, "soft VLAD 4 (temperature 10)"),
        ({"name": "gem", "exponent": 2.5}, "GeM 2.5"),
        ({"name": "class_token"}, "class token"),
    ],
)
def test_names(settings, name):
    assert descriptor_name(settings) == name
