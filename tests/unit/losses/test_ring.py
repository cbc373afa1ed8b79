"""The exchange of features in a ring over four ranks; test_distributed.py has two and three ranks."""

import pytest
import torch
from torch import distributed

from loco.losses import ExactSmoothAP, ring
from loco.losses.inputs import select
from tests.unit.losses.batches import KAPPA, RHO, patches, value_and_gradient
from tests.unit.processes import run_together

SCALES = {"rho": [0.2, 0.5], "kappa": [0.5, 1.5], "tau": 0.05, "same_image": 0.4, "tile": 16}
SHARES = [40, 0, 70, 10]  # patches per rank
DIM = 19  # of the features


def work(process: int) -> dict:
    """Return loss and gradient on one rank, in float32 with both exchanges, and what it received in the ring."""
    group = distributed.group.WORLD
    batch = [part.split(SHARES)[process] for part in patches(sum(SHARES), scenes=2)]
    batch[0] = batch[0].float()
    gathered = value_and_gradient(ExactSmoothAP(**SCALES, group=group), *batch)
    widths, shifts = set(), []
    gather_rows, shift = ring.gather_rows, ring.Shift

    def recorded_gather(rows, *rest):
        widths.add(rows.shape[1:].numel())
        return gather_rows(rows, *rest)

    def recorded_shift(sent, by, group):
        shifts.append((by, *sent.shape))
        return shift(sent, by, group)

    ring.gather_rows, ring.Shift = recorded_gather, recorded_shift
    visited = value_and_gradient(ExactSmoothAP(**SCALES, group=group, exchange="ring"), *batch)
    return {"gather": gathered, "ring": visited, "widths": widths, "shifts": shifts}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run_together(work, len(SHARES), tmp_path_factory.mktemp("processes"))


def test_a_rank_receives_the_features_of_one_rank_at_a_time(found):
    rows = max(int(valid.sum()) for valid in patches(sum(SHARES), scenes=2)[3].split(SHARES))
    for process in found:
        assert process["widths"] == {1, 3}  # of ids and points; features are not gathered
        # Two shards visit a rank in each pass; their gradients follow them, and the last returns to its own rank.
        assert process["shifts"] == [(by, rows, DIM) for by in (1, 1, 1, 1, 1, -2)]


def test_both_exchanges_have_the_loss_and_the_gradient_of_one_rank(found):
    loss, gradient, log = value_and_gradient(ExactSmoothAP(**SCALES), *patches(sum(SHARES), scenes=2))
    for exchange in ("gather", "ring"):
        for process in found:
            assert process[exchange][0].item() == pytest.approx(loss.item(), rel=1e-6)
            assert process[exchange][2] == pytest.approx(log, rel=1e-6)
        together = torch.cat([process[exchange][1] for process in found]) / len(SHARES)
        assert (together - gradient).norm() < 1e-5 * gradient.norm()


def test_every_pair_of_shards_has_its_blocks_once():
    batch = select(*patches(sum(SHARES), scenes=2)).patches
    counts = [len(part) for part in batch.points.split([40, 30, 0, len(batch.points) - 70])]
    classes = ExactSmoothAP(RHO, KAPPA, 0.05).classes
    tiling = ring._ShardedTiling(batch, counts, classes, 16)
    visited = torch.zeros(len(batch.points), len(batch.points), dtype=torch.bool)
    for a, rows in enumerate(tiling.shards):
        for columns in tiling.shards[a:]:
            for block in tiling.blocks_between(rows, columns, KAPPA):
                assert not visited[block.i, block.j].any()
                visited[block.i, block.j] = True
    points, scenes = batch.points[tiling.order], batch.scene_ids[tiling.order]
    pairs = (torch.cdist(points, points) <= KAPPA) & (scenes[:, None] == scenes)
    assert (visited | visited.T)[pairs].all()
    # The patches of a rank are consecutive, so that their features can stay in the order of the tiles.
    ends = torch.tensor(counts).cumsum(0).tolist()
    for start, end in zip([0, *ends], ends):
        assert sorted(tiling.order[start:end].tolist()) == list(range(start, end))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exchange": "star"}, "one of gather, ring, found 'star'"),
        (
            {"exchange": "ring", "ranking": "query"},
            "ranking='batch' only, found ranking='query': set exchange='gather'",
        ),
    ],
)
def test_what_is_not_implemented_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        ExactSmoothAP(RHO, KAPPA, 0.05, **options)


def test_one_process_ranks_its_patches_alone():
    batch = patches(60)
    found = [value_and_gradient(ExactSmoothAP(RHO, KAPPA, 0.05, exchange=kind), *batch) for kind in ("gather", "ring")]
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
