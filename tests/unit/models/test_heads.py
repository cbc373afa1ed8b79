from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from loco.errors import ConfigError, DataError
from loco.models.heads import LocusHead, ResidualCNN, ResidualMLP, build_head

SMALL = {"widths": (2, 2, 2, 2, 2)}


def seeing(network: ResidualCNN) -> ResidualCNN:
    """Return the network with convolutions that pass on their first channel, and norms without effect."""
    with torch.no_grad():
        for layer in network.layers:
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.zero_()
                layer.weight[0, 0, 2, 2] = 1
                layer.bias.zero_()
            elif isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.fill_(1)
    return network.eval()


@pytest.mark.parametrize("stride", [8, 14, 16])
@pytest.mark.parametrize(("aligned", "beside"), [(True, 0.0), (False, 3.5)])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_residual_network_is_read_at_the_centres_of_the_patches(stride, aligned, beside, axis):
    """If the colour is the position, the output is the position that was read: 3.5 pixels off in the published form."""
    network = seeing(ResidualCNN(2, stride, **SMALL, aligned=aligned))
    grid = (12, 15)
    height, width = (side * stride for side in grid)
    place = torch.arange((height, width)[axis]) + 0.5
    image = place.view((-1, 1) if axis == 0 else (1, -1)).expand(3, 1, height, width).transpose(0, 1) + 100
    with torch.no_grad():
        seen = network(torch.zeros(1, 2, *grid), image)[0, 0] * network.std[0, 0, 0] + network.mean[0, 0, 0] - 100
    middle = slice(4, -4)  # beyond, the mirrored border changes the ramp
    wanted = (torch.arange(grid[axis]) + 0.5) * stride + beside
    wanted = wanted.view((-1, 1) if axis == 0 else (1, -1)).expand(grid)
    torch.testing.assert_close(seen[middle, middle], wanted[middle, middle], atol=0.05, rtol=0)


def test_places_are_exact_in_half_precision():
    maps = torch.arange(100.0).bfloat16().expand(1, 1, 100, 100)  # all of them exact
    read = ResidualCNN(2, 14, **SMALL)._at_patches(maps, (57, 57))[0, 0, 0]
    torch.testing.assert_close(read, (torch.arange(57) + 0.5) * 14 / 8 - 0.5, atol=1e-3, rtol=0)


def test_the_residual_network_has_the_published_size():
    channels = (3, 64, 128, 256, 512, 768, 768)
    wanted = sum(25 * a * b + 3 * b for a, b in pairwise(channels))
    with torch.device("meta"):
        network = ResidualCNN(768, 8)
    assert sum(p.numel() for p in network.parameters()) == wanted == 28_889_088


@pytest.mark.parametrize(("aligned", "low", "high"), [(True, 0.0, 0.002), (False, 0.03, 0.06)])
def test_the_residual_starts_at_zero_and_the_aligned_one_grows_slowly(aligned, low, high):
    """In the published form, the first step of Adam already gives the residual the full scale of the batch norm."""
    torch.manual_seed(0)
    network = ResidualCNN(4, 8, widths=(4, 4, 4, 4, 4), aligned=aligned).train()
    features, images = torch.randn(2, 4, 6, 6), torch.rand(2, 3, 48, 48)
    assert torch.equal(network(features, images), features)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    (network(features, images) * torch.randn(2, 4, 6, 6)).sum().backward()
    optimiser.step()
    residual = (network(features, images) - features).square().mean().sqrt()
    assert low < residual < high


def test_images_too_small_to_mirror_are_refused():
    network = ResidualCNN(2, 8, **SMALL)
    assert network(torch.zeros(1, 2, 5, 5), torch.rand(1, 3, 33, 40)).shape == (1, 2, 5, 5)
    with pytest.raises(DataError, match="too small"):
        network(torch.zeros(1, 2, 4, 5), torch.rand(1, 3, 32, 40))


def attention_by_hand(x, state, prefix, heads=4, scale=0.125):
    """Compute a transformer block by plain loops. ``x``: (n, c)."""

    def linear(name, y):
        return y @ state[f"{prefix}.{name}.weight"].T + state[f"{prefix}.{name}.bias"]

    def norm(name, y):
        y = (y - y.mean(1, keepdim=True)) / (y.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return y * state[f"{prefix}.{name}.weight"] + state[f"{prefix}.{name}.bias"]

    n, c = x.shape
    q, k, v = linear("attn.qkv", norm("norm1", x)).split(c, dim=1)
    mixed = torch.empty(n, c, dtype=x.dtype)
    for head in range(heads):
        part = slice(head * c // heads, (head + 1) * c // heads)
        mixed[:, part] = torch.exp(scale * q[:, part] @ k[:, part].T) @ v[:, part]
        mixed[:, part] /= torch.exp(scale * q[:, part] @ k[:, part].T).sum(1, keepdim=True)
    x = x + linear("attn.proj", mixed)
    y = linear("mlp.fc1", norm("norm2", x))
    return x + linear("mlp.fc2", 0.5 * y * (1 + torch.erf(y / 2**0.5)))


@pytest.mark.parametrize("class_token", [False, True])
def test_the_locus_head_is_two_transformer_blocks_between_linear_layers(class_token):
    torch.manual_seed(1)
    head = LocusHead(12, dim=5, width=16, class_token=class_token).double()
    state = head.layers.state_dict()
    patches, token = torch.randn(3, 12, 2, 3, dtype=torch.float64), torch.randn(3, 12, dtype=torch.float64)
    found = head(patches, None, token if class_token else None)
    for image in range(3):
        x = patches[image].reshape(12, 6).T
        x = torch.cat([token[image, None], x]) if class_token else x
        x = x @ state["0.weight"].T + state["0.bias"]
        for block in "12":
            x = attention_by_hand(x, state, block)
        x = (x @ state["3.weight"].T + state["3.bias"])[int(class_token) :]
        torch.testing.assert_close(found[image], x.T.reshape(5, 2, 3))


def test_the_light_head_starts_at_the_features():
    torch.manual_seed(0)
    features = torch.randn(2, 8, 4, 5)
    assert torch.equal(ResidualMLP(8, hidden=16, context=True)(features), features)
    fewer = ResidualMLP(8, hidden=16, dim=3)
    wanted = torch.einsum("bchw,dc->bdhw", features, fewer.shortcut.weight)
    torch.testing.assert_close(fewer(features), wanted)
    torch.testing.assert_close(fewer.shortcut.weight @ fewer.shortcut.weight.T, torch.eye(3))


@pytest.mark.parametrize(("context", "reach"), [(False, 0), (True, 1)])
def test_the_light_head_sees_a_patch_or_its_neighbours_too(context, reach):
    torch.manual_seed(0)
    head = ResidualMLP(4, hidden=8, context=context)
    torch.nn.init.normal_(head.reduce.weight)
    features = torch.randn(1, 4, 7, 7, requires_grad=True)
    head(features)[0, :, 3, 3].sum().backward()
    seen = features.grad[0].abs().sum(dim=0) > 0
    wanted = torch.zeros(7, 7)
    wanted[3 - reach : 4 + reach, 3 - reach : 4 + reach] = 1
    assert torch.equal(seen, wanted.bool())


def test_the_light_head_is_its_formula():
    torch.manual_seed(0)
    head = ResidualMLP(4, hidden=8)
    torch.nn.init.normal_(head.reduce.weight)
    x = torch.randn(1, 4, 2, 3)
    token = x[0, :, 1, 2]
    normed = (token - token.mean()) / (token.var(unbiased=False) + 1e-5).sqrt()
    inner = F.gelu(head.expand.weight @ normed + head.expand.bias)
    torch.testing.assert_close(head(x)[0, :, 1, 2], token + head.reduce.weight @ inner)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"name": "mlp"}, "unknown head 'mlp'; expected one of: linear, locus, residual_cnn, residual_mlp"),
        ({"name": "residual_mlp"}, "has unknown or missing options: .*hidden"),
        ({"name": "locus", "hidden": 3}, "has unknown or missing options: .*hidden"),
        ({"name": "locus", "width": 30}, "multiple of 4"),
        ({"name": "residual_cnn", "widths": [4, 4]}, "at least 3 entries"),
    ],
)
def test_unknown_heads_and_options_are_refused(config, problem):
    with pytest.raises(ConfigError, match=problem):
        build_head(config, inputs=8, stride=8)
