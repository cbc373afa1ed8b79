import torch

from loco.geometry.cameras import pixel_centres
from loco.geometry.patches import patch_centres
from loco.geometry.sampling import sample_features


def test_cell_centres_give_the_cells_themselves():
    features = torch.nn.functional.normalize(torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(0)), dim=2)
    sampled = sample_features(features, torch.from_numpy(patch_centres((4, 5), (32, 40))).reshape(-1, 2), (32, 40))
    torch.testing.assert_close(sampled, features.reshape(-1, 7), atol=1e-5, rtol=0)


def test_a_map_linear_in_position_is_read_exactly_between_centres():
    size, grid = (32, 40), (8, 10)
    cells = torch.from_numpy(patch_centres(grid, size)).float()
    features = torch.cat([cells, torch.full((*grid, 1), 100.0)], dim=2)
    uv = torch.from_numpy(pixel_centres(*size)).float()[2:-2, 2:-2].reshape(-1, 2)
    sampled = sample_features(features, uv, size)
    expected = torch.nn.functional.normalize(torch.cat([uv, torch.full((len(uv), 1), 100.0)], dim=1), dim=1)
    torch.testing.assert_close(sampled, expected, atol=1e-5, rtol=0)


def test_the_border_value_is_held_outside_the_outermost_centres():
    features = torch.eye(2).reshape(1, 2, 2)
    sampled = sample_features(features, torch.tensor([[0.0, 0.0], [40.0, 32.0]]), (32, 40))
    torch.testing.assert_close(sampled, torch.eye(2))
