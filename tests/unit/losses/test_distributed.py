"""The loss of a batch that is distributed over several ranks, compared with the same batch on one rank."""

from functools import cache

import pytest
import torch
from torch import distributed
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from loco.losses import ExactSmoothAP, RankingLoss, build_loss, tiles
from loco.losses.inputs import select
from tests.unit.losses.batches import KAPPA, RHO, patches, temperature, value_and_gradient
from tests.unit.processes import run_together

EXACT = {"rho": [0.2, 0.5], "kappa": [0.5, 1.5], "same_image": 0.4, "tile": 16}
CRITERIA = {
    "exact": EXACT,
    "ring": {"name": "exact", **EXACT, "exchange": "ring"},
    "dense": {"rho": RHO, "kappa": KAPPA},
    "sampled": {"rho": RHO, "kappa": KAPPA, "anchors": 8, "max_positives": 10, "max_negatives": 20},
    "info_nce": {"rho": RHO, "kappa": KAPPA, "queries": 40},
    "sup_con": {"rho": RHO, "kappa": KAPPA},
    "triplet": {"rho": RHO, "kappa": KAPPA},
    "all queries": {"name": "info_nce", "rho": RHO, "kappa": KAPPA, "queries": None},
    "per query": {"name": "exact", "rho": [0.2, 0.5], "kappa": [0.5, 1.5], "ranking": "query", "tile": 16},
    "drawn queries": {"name": "exact", "rho": RHO, "kappa": KAPPA, "ranking": "query", "queries": 70, "tile": 16},
}
EXCHANGES = ["exact", "ring"]  # the forms of the exact loss that exchange features in different ways
SHARES = {2: [90, 30], 3: [50, 0, 70]}  # patches per rank


def criterion(name: str, group: distributed.ProcessGroup | None = None) -> RankingLoss:
    options = {"name": name} | CRITERIA[name]
    return build_loss(**options, **temperature(options["name"], 0.05), group=group)


def work(process: int, shares: list[int]) -> dict:
    """Compute each loss on one rank."""
    group = distributed.group.WORLD
    batch = [part.split(shares)[process] for part in patches(sum(shares), scenes=2)]
    found = {name: value_and_gradient(criterion(name, group), *batch) for name in CRITERIA}
    found["anonymous"] = value_and_gradient(ExactSmoothAP(RHO, KAPPA, 0.05, group=group), *batch[:4])
    found["lost"] = {name: value_and_gradient(criterion(name, group), *lose(batch, process == 0)) for name in CRITERIA}
    return found | {(part, name): result for name in EXCHANGES for part, result in more(name, process, batch).items()}


def more(name: str, process: int, batch: list[torch.Tensor]) -> dict:
    """Return the results of more calls of one form of the exact loss on one rank."""
    group = distributed.group.WORLD
    found = {"precision": criterion(name, group).patch_precision(*batch)}
    nowhere = ExactSmoothAP(1e-9, 1e-8, 0.05, group=group, exchange=criterion(name).exchange)
    found["nothing"] = value_and_gradient(nowhere, *batch)
    found["broken"] = value_and_gradient(criterion(name, group), *lose(batch, process == 0, of_features=True))
    found["network"] = network_gradient(DistributedDataParallel(network()), criterion(name, group), batch)
    # One rank scales its loss: its features receive the gradient of the sum.
    features = batch[0].clone().requires_grad_()
    (criterion(name, group)(features, *batch[1:])[0] * (process + 1)).backward()
    found["scaled"] = features.grad
    unnormalised = criterion(name, group)
    unnormalised.normalise = False
    try:
        unnormalised(batch[0] * (3 if process == 0 else 1), *batch[1:])
    except ValueError as error:
        found["error"] = str(error)
    return found


def lose(batch: tuple, here: bool, of_features: bool = False) -> list[torch.Tensor]:
    """Return the batch; if ``here``, the points, or the features, of its first patches are not finite."""
    batch = [part.clone() for part in batch]
    batch[0 if of_features else 1][: 12 * here] = float("nan")
    return batch


def network() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(19, 8).double()


def network_gradient(module: torch.nn.Module, loss: RankingLoss, batch: list[torch.Tensor]) -> torch.Tensor:
    loss(normalize(module(batch[0]), dim=1), *batch[1:])[0].backward()
    return torch.cat([parameter.grad.flatten() for parameter in module.parameters()])


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Return the result of each rank."""

    @cache
    def run(processes: int) -> list[dict]:
        return run_together(work, processes, tmp_path_factory.mktemp("processes"), SHARES[processes])

    return run


def assert_same(found: list, alone: tuple) -> None:
    loss, gradient, log = alone
    for process in found:
        assert process[0].item() == pytest.approx(loss.item(), abs=1e-12)
        assert process[2] == pytest.approx(log, nan_ok=True)
    # Each rank has the loss of the whole batch, and the gradient is that of the sum over the ranks.
    torch.testing.assert_close(torch.cat([process[1] for process in found]) / len(found), gradient)


@pytest.mark.parametrize("processes", SHARES)
class TestTogether:
    @pytest.fixture(autouse=True)
    def _found(self, together, processes):
        self.found = together(processes)
        self.batch = patches(sum(SHARES[processes]), scenes=2)

    @pytest.mark.parametrize("name", CRITERIA)
    def test_every_loss_is_that_of_the_whole_batch(self, name):
        alone = value_and_gradient(criterion(name), *self.batch)
        assert alone[2]["positives"] > 15
        assert_same([process[name] for process in self.found], alone)

    @pytest.mark.parametrize("name", CRITERIA)
    def test_points_that_are_not_finite_on_one_process(self, name):
        alone = value_and_gradient(criterion(name), *lose(self.batch, True))
        assert alone[2]["positives"] > 10
        assert_same([process["lost"][name] for process in self.found], alone)

    @pytest.mark.parametrize("name", EXCHANGES)
    def test_features_that_are_not_finite_on_one_process(self, name):
        shares = self.batch[3].split(SHARES[len(self.found)])
        for process, valid in zip(self.found, shares):
            loss, gradient, _ = process["broken", name]
            assert loss.isnan()
            assert gradient[valid].isnan().all()
            assert (gradient[~valid] == 0).all()

    @pytest.mark.parametrize("name", EXCHANGES)
    def test_rows_that_are_not_normalised_on_one_process_are_an_error_on_all(self, name):
        for process in self.found:
            assert "a row with norm 3:" in process["error", name]

    def test_images_without_a_number_are_different_ones(self):
        alone = value_and_gradient(ExactSmoothAP(RHO, KAPPA, 0.05), *self.batch[:4])
        assert_same([process["anonymous"] for process in self.found], alone)

    @pytest.mark.parametrize("name", EXCHANGES)
    def test_without_a_positive_pair_all_are_zero(self, name):
        for process in self.found:
            loss, gradient, log = process["nothing", name]
            assert loss == 0
            assert (gradient == 0).all()
            assert log["positives"] == 0

    @pytest.mark.parametrize("name", EXCHANGES)
    def test_patch_precision_is_told_to_the_process_of_the_patch(self, name):
        alone = criterion("exact").patch_precision(*self.batch)
        together = torch.cat([process["precision", name] for process in self.found])
        torch.testing.assert_close(together, alone, equal_nan=True)

    @pytest.mark.parametrize("name", EXCHANGES)
    def test_a_network_gets_the_gradient_of_the_loss(self, name):
        alone = network_gradient(network(), criterion("exact"), self.batch)
        for process in self.found:
            torch.testing.assert_close(process["network", name], alone)

    @pytest.mark.parametrize("name", EXCHANGES)
    def test_losses_scaled_apart_add_up(self, name):
        _, gradient, _ = value_and_gradient(criterion("exact"), *self.batch)
        together = torch.cat([process["scaled", name] for process in self.found])
        n = len(self.found)
        torch.testing.assert_close(together, gradient * n * (n + 1) / 2)


def test_shares_of_the_blocks_are_disjoint_and_complete(monkeypatch):
    batch = select(*patches(300, scenes=2)).patches
    exact = ExactSmoothAP(RHO, KAPPA, 0.05)

    def blocks(process: int, processes: int) -> list:
        monkeypatch.setattr(tiles, "rank_and_world_size", lambda _: (process, processes))
        return list(tiles.Tiling(batch, exact.classes, 32).blocks(KAPPA))

    everything = blocks(0, 1)
    shares = [blocks(process, 3) for process in range(3)]
    assert sorted(str(block) for share in shares for block in share) == sorted(map(str, everything))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
