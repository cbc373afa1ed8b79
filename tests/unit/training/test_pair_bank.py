from collections import Counter
from dataclasses import replace

import h5py
import numpy as np
import pytest
from scipy.stats import chisquare

from loco.errors import DataError
from loco.steps.pairs import index_scene
from loco.storage import Correspondences, Frames
from loco.training.pair_bank import PairBank, draw_pair
from loco.training.scene_files import SceneFiles

RADIUS = 0.2


def write_scene(folder, scene, points, valid=None):
    """Write files of a scene of which only the points of the patches (n, h, w, 3) matter."""
    n, h, w = points.shape[:3]
    paths = [folder / f"{scene}.{kind}.h5" for kind in ("frames", "correspondences", "pairs")]
    files = SceneFiles(paths[0], paths[1], pairs_path=paths[2])
    with Frames.create(files.frames_path, "points", scene, {"n": n, "h": 1, "w": 1}) as file:
        file.frames_id = scene
        file.facts["names"] = [str(i) for i in range(n)]
    with Correspondences.create(files.correspondences_path, "points", scene, {"n": n, "h": h, "w": w}) as file:
        file["points"][:], file["valid"][:] = points, True if valid is None else valid
        file.frames_id = scene
    index_scene(files.correspondences_path, files.pairs_path, RADIUS)
    return files


def positive_pairs(points, valid=None, radius=RADIUS):
    """By brute force: return the number of positive pairs of each two images, {(a, b): count}, a < b."""
    images = np.broadcast_to(np.arange(len(points))[:, None, None], points.shape[:3])
    valid = np.ones(points.shape[:3], bool) if valid is None else valid
    places, images = points[valid].astype(np.float32).astype(np.float64), images[valid]
    near = np.linalg.norm(places[:, None] - places[None], axis=-1) <= radius
    first, second = np.nonzero(near & (images[:, None] < images[None]))
    return Counter(zip(images[first].tolist(), images[second].tolist()))


def mixed(n, h, w, seed, spread=1.2):
    """Return patches of ``n`` images, dense around some locations and sparse around others."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 1, size=(n, 1, 1, 3)) * [1, 1, 0]
    return places + rng.lognormal(-2, spread, size=(n, 1, 1, 1)) * rng.normal(size=(n, h, w, 3))


def draws(bank, count):
    return [bank.draw(step) for step in range(count)]


def test_all_pairs_are_equally_likely_whatever_the_density(tmp_path):
    # One patch per image: the two images of a batch of two are a pair of patches.
    rng = np.random.default_rng(0)
    crowd, line = rng.normal(scale=0.06, size=(14, 3)), np.stack([1 + np.arange(20) * 0.15, *np.zeros((2, 20))], axis=1)
    points = np.concatenate([crowd, line])[rng.permutation(34), None, None]
    pairs = positive_pairs(points)
    degree = Counter(image for pair in pairs for image in pair)
    assert max(degree.values()) > 5 * min(degree.values())

    bank = PairBank([write_scene(tmp_path, "mixed", points)], RADIUS, images=2, scenes_by="equal", seed=0)
    found = Counter(tuple(sorted(image for _, image in batch)) for batch in draws(bank, 12000))
    assert found.keys() <= pairs.keys()
    counts = np.array([found[pair] for pair in pairs])
    assert chisquare(counts).pvalue > 1e-3
    # Drawing a random patch and then a random neighbour would prefer pairs in sparse regions; these draws would show
    # it.
    uneven = np.array([1 / degree[a] + 1 / degree[b] for a, b in pairs])
    assert chisquare(counts, uneven / uneven.sum() * counts.sum()).pvalue < 1e-9


def test_pairs_within_an_image_do_not_count(tmp_path):
    points = mixed(12, 3, 4, seed=1)
    valid = np.random.default_rng(1).random((12, 3, 4)) < 0.7
    pairs = positive_pairs(points, valid)
    assert len(pairs) > 10
    bank = PairBank([write_scene(tmp_path, "mixed", points, valid)], RADIUS, images=2, scenes_by="equal", seed=0)
    assert bank.pair_counts.tolist() == [sum(pairs.values())]
    found = Counter(tuple(sorted(image for _, image in batch)) for batch in draws(bank, 10000))
    assert found.keys() <= pairs.keys()
    weights = np.array(list(pairs.values()))
    assert weights.max() > 20 * weights.min()
    often = weights * 10000 / weights.sum() > 5  # the rarer pairs form one class
    counts = np.array([found[pair] for pair in pairs])
    classes = [np.append(x[often], x[~often].sum() + 1e-9) for x in (counts, weights * 10000 / weights.sum())]
    assert chisquare(*classes, sum_check=False).pvalue > 1e-3


def test_the_pairs_of_an_image_are_equally_likely(tmp_path):
    points = mixed(10, 2, 3, seed=7, spread=0.5)
    pairs = positive_pairs(points)
    index = write_scene(tmp_path, "mixed", points).pair_index
    degree = Counter(image for pair in pairs for image in pair)
    image = max(degree, key=degree.get)
    weights = {a + b - image: count for (a, b), count in pairs.items() if image in (a, b)}
    assert len(weights) > 3
    rng = np.random.default_rng(0)
    drawn = [draw_pair(index, rng, image) for _ in range(4000)]
    assert {first for first, _ in drawn} == {image}
    found = Counter(second for _, second in drawn)
    assert found.keys() <= weights.keys()
    share = np.array(list(weights.values())) / sum(weights.values())
    assert chisquare([found[other] for other in weights], 4000 * share).pvalue > 1e-3


@pytest.mark.parametrize("scenes_by", ["equal", "size"])
def test_shares_of_the_scenes(tmp_path, scenes_by):
    alone = np.zeros((3, 2, 2, 3)) + 10 * np.arange(3)[:, None, None, None]  # positives only within images
    scenes = [mixed(10, 2, 3, 1), alone, mixed(12, 2, 3, 2), mixed(16, 2, 3, 3)]
    counts = np.array([sum(positive_pairs(points).values()) for points in scenes])
    assert counts[1] == 0
    assert len(set(counts)) == 4
    files = [write_scene(tmp_path, f"scene{k}", points) for k, points in enumerate(scenes)]
    bank = PairBank(files, RADIUS, images=2, scenes_by=scenes_by, seed=0)
    assert bank.pair_counts.tolist() == counts.tolist()
    found = Counter(batch[0][0] for batch in draws(bank, 4000))
    assert found[1] == 0
    share = counts if scenes_by == "size" else np.array([1, 0, 1, 1])
    others = [0, 2, 3]
    assert chisquare([found[k] for k in others], 4000 * share[others] / share.sum()).pvalue > 1e-3


@pytest.mark.parametrize("images", [2, 3, 8, 9])
def test_a_batch_has_as_many_different_images_each_with_a_partner(tmp_path, images):
    scenes = [mixed(15, 2, 3, seed) for seed in range(3)]
    partners = [positive_pairs(points) for points in scenes]
    bank = PairBank([write_scene(tmp_path, f"s{k}", p) for k, p in enumerate(scenes)], RADIUS, images, "equal", seed=4)
    for batch in draws(bank, 200):
        assert len(batch) == len(set(batch)) == images
        for scene, image in batch:
            others = [other for number, other in batch if number == scene]
            assert any(partners[scene][tuple(sorted((image, other)))] for other in others)


def test_a_batch_is_full_where_pairs_do_not_add_up(tmp_path):
    couples = [np.full((2, 1, 1, 3), float(k)) for k in range(2)]
    bank = PairBank([write_scene(tmp_path, f"s{k}", p) for k, p in enumerate(couples)], RADIUS, 3, "size", seed=0)
    assert all(len(set(batch)) == 3 for batch in draws(bank, 5))

    crowd = np.random.default_rng(0).normal(scale=0.03, size=(4, 20, 20, 3))
    crowd[3] += 50
    crowd[3, 0, 0] = crowd[0, 0, 0] + [0, 0, 0.199]  # of about 480,000 pairs, the fourth image has few
    bank = PairBank([write_scene(tmp_path, "crowd", crowd)], RADIUS, 4, "equal", seed=0)
    assert all(sorted(batch) == [(0, k) for k in range(4)] for batch in draws(bank, 3))


def test_batches_depend_on_the_seed_and_their_number_alone(tmp_path):
    files = [write_scene(tmp_path, f"s{k}", mixed(15, 2, 3, k)) for k in range(2)]
    bank, again, other = (PairBank(files, RADIUS, 5, "size", seed) for seed in (1, 1, 2))
    batches = draws(bank, 20)
    assert [again.draw(step) for step in reversed(range(20))] == batches[::-1]
    assert draws(other, 20) != batches
    assert len({tuple(batch) for batch in batches}) > 15


def test_too_few_images_with_partners(tmp_path):
    apart = write_scene(tmp_path, "apart", 10.0 * np.arange(12).reshape(4, 1, 1, 3))
    together = write_scene(tmp_path, "together", np.zeros((3, 1, 1, 3)))
    unseen = write_scene(tmp_path, "unseen", np.zeros((3, 1, 1, 3)), valid=np.zeros((3, 1, 1), bool))
    with pytest.raises(DataError, match=r"too few images(.|\n)*found: 0 in 2 scenes(.|\n)*what to do"):
        PairBank([apart, unseen], RADIUS, 2, "equal", seed=0)
    with pytest.raises(DataError, match="found: 3 in 3 scenes"):
        PairBank([apart, unseen, together], RADIUS, 4, "size", seed=0)
    assert {number for number, _ in PairBank([apart, unseen, together], RADIUS, 3, "size", seed=0).draw(0)} == {2}


def test_indices_are_required_and_of_the_radius_of_the_batches(tmp_path):
    scene = write_scene(tmp_path, "scene", np.zeros((3, 1, 1, 3)))
    with pytest.raises(DataError, match=r"another radius(.|\n)*expected: 0.3 m(.|\n)*found: 0.2 m"):
        PairBank([scene], 0.3, 2, "equal", seed=0)
    with pytest.raises(DataError, match="no index of positive pairs"):
        PairBank([replace(scene, pairs_path=None)], RADIUS, 2, "equal", seed=0)


@pytest.mark.parametrize(
    ("array", "value"),
    [("count", 7), ("place", 10**6), ("place", 4), ("image", 500), ("points", np.nan), ("cell", 0), ("start", 1 << 40)],
)
def test_an_index_that_contradicts_itself_is_refused_when_drawn_from(tmp_path, array, value):
    # Mapped arrays, which no checksum covers: the file is changed by a program, so that it opens as before.
    scene = write_scene(tmp_path, "scene", mixed(6, 2, 3, 5, spread=0.1))
    with h5py.File(scene.pairs_path, "r+") as file:
        file[array][:] = value
    bank = PairBank([scene], RADIUS, 4, "equal", seed=0)
    with pytest.raises(DataError, match="are inconsistent"):
        draws(bank, 50)
