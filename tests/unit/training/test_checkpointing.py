from __future__ import annotations

import pytest
import torch

from loco.errors import ConfigError
from loco.models import build_extractor
from loco.models.adapted import set_trained
from loco.models.transformer import Block
from loco.training.checkpointing import checkpoint_blocks
from tests.unit.training.tiny_vit import tiny_vit


def gradient(network):
    network.zero_grad()
    torch.manual_seed(3)
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    features = network(images)
    features[:, 0].sum().backward()
    return features, [parameter.grad for parameter in network.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("last", [1, 3])
def test_features_and_gradients_are_the_same(last, monkeypatch):
    plain, network = tiny_vit(drop=0.4), tiny_vit(drop=0.4)
    for extractor in (plain, network):
        set_trained(extractor.encoder, {"last": last})
        extractor.train()
    names = list(network.state_dict())
    assert checkpoint_blocks(network) == last
    assert list(network.state_dict()) == names
    features, expected = gradient(plain)
    calls, attend = [], Block._attend
    monkeypatch.setattr(Block, "_attend", lambda self, *a: (calls.append(1), attend(self, *a))[1])
    found_features, found = gradient(network)
    assert len(calls) == 3 + last  # twice the checkpointed ones
    assert torch.equal(features, found_features)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_a_network_without_trained_blocks_is_refused():
    frozen = tiny_vit()
    set_trained(frozen.encoder, "none")
    for network in (frozen, build_extractor({"name": "compact_cnn", "dim": 8, "widths": [8], "blocks": 1})):
        with pytest.raises(ConfigError, match="no trained transformer block"):
            checkpoint_blocks(network)
