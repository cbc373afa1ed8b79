"""Place recognition: retrieve the database images that show the place of a query image (AnyLoc; LoCo, appendix F).

Each image is described by one vector, and images are ranked by cosine similarity to the query; the first images may be
reranked by matching their patches. Recall at k is the fraction of queries with an image of the same place, a positive,
among the first k.

If a dataset lists the images of the same place (photographs, as in AnyLoc), each scene is a database with its own
queries. Otherwise all test scenes of a dataset form one database, and positives are defined by overlap, as in LoCo:
some images of each scene become queries; a database image is a positive if it sees enough of the query, and images that
are too similar to any query are removed from the database. Queries are drawn, or chosen greedily as in LoCo's release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor
from tqdm import tqdm

from loco.errors import ConfigError, DataError
from loco.evaluation.global_descriptors import Image, describe, descriptor, descriptor_name, learn_centres
from loco.evaluation.intervals import Item
from loco.evaluation.reranking import match_scores, rerank_name
from loco.evaluation.result import EvaluatedScene, Evaluation, Sample, append
from loco.evaluation.training_surfaces import SURFACES, Fractions, image_fractions, mostly, training_surfaces
from loco.geometry.image_pairs import mutual_overlap

Numbers = NDArray[np.integer]
Places = tuple[Numbers, Numbers, list[Numbers]]  # database, queries, and the positives (indices) of each query
Settings = Mapping[str, Any]

COLUMNS = ("database", "scene", "query", "condition", "n_positives", "rank")
QUERIES, PART = 512, 128  # queries and database images in single precision at a time: 250 MB for VLAD 128 x 768


class Answer(NamedTuple):
    """Result of a query: the ``rank`` of the first positive, and ``hits``, the number of positives within each k of
    ``ks``.
    """

    rank: int | None = None
    hits: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class Database:
    """Database images and queries.

    Attributes:
        name: the dataset, or dataset/scene if each scene is a separate database.
        dataset: name of the dataset.
        images: database images, in random order; ties in similarity keep this order.
        queries: query images.
        names: names of the queries.
        positives: indices of the positives in ``images``, for each query.
    """

    name: str
    dataset: str
    images: list[Image]
    queries: list[Image]
    names: list[str]
    positives: list[Numbers]


def evaluate(scenes: Iterable[EvaluatedScene], settings: Settings, seed: int = 0) -> Evaluation:
    """Compute the recall at k of place recognition.

    Args:
        scenes: test scenes, all open at once.
        settings: if overlap defines the positives, ``queries`` per scene (a fraction below 1, a number, or ``greedy``:
            :func:`greedy_queries`), and ``min_overlap``, ``max_overlap`` and ``max_distance`` (metres) of
            :func:`overlapping_places`; ``descriptors`` (see :mod:`~loco.evaluation.global_descriptors`); ``domains``
            (dataset -> domain), the datasets whose database images share a vocabulary if ``vocabulary`` is ``domain``,
            two or more per domain; ``rerank``, a list of ``none`` or settings by which the first ``top`` images are
            reranked (:mod:`~loco.evaluation.reranking`; default ``[none]``); ``ks``; ``accuracy`` (default false);
            ``seen_by_training`` and its keys (:mod:`loco.evaluation.training_surfaces`).
        seed: seed of all draws.

    Returns:
        A row "recall@5" for every k and ranking method ("GeM 3, mutual + RANSAC"), and for every database if there are
        several ("VLAD 128, houses"): the mean over queries; the value is None if the method requires a class token and
        the extractor has none. With ``accuracy`` also rows "accuracy@5", the mean fraction of positives among the first
        k images, over queries with k or more positives (LoCo's release). With ``seen_by_training: report``, the rows
        "..., mostly seen" and "..., mostly unseen" are computed from the queries of which more than half of the patches
        are seen or unseen (columns ``seen`` and ``unseen`` of the items). A database without queries has no rows. k may
        exceed the number of images. Items: an entry for each ranking method and query, with the ``rank`` of its first
        positive, from 1, and with ``accuracy`` the number of positives among the ``first_<k>``. The entry of a query
        without positives has ``n_positives`` 0 and rank None, and no row is computed from it.

    Raises:
        ConfigError: two ranking methods have the same name; a domain has one dataset only.
        DataError: the ground truth of a scene does not match its frames; too few patches for a vocabulary.
    """
    conditions = _conditions(settings)
    databases = gather(list(scenes), settings, seed)
    vocabularies = _vocabularies(databases, settings, seed)
    counted, reported = _counted(settings), SURFACES if settings.get("seen_by_training") == "report" else ()
    items: dict[str, list[Any]] = {name: [] for name in (*COLUMNS, *counted, *reported)}
    for database in databases:
        ranks = _first_ranks(database, settings, vocabularies)
        fractions = _training_fractions(database.queries, settings) if reported else [()] * len(database.queries)
        for condition, (q, query) in product(conditions, enumerate(database.queries)):
            named = (database.name, query.scene.frames.scene, database.names[q])
            answer = ranks.get(condition, {}).get(q, Answer(None, (None,) * len(settings["ks"])))
            row = (*named, condition, len(database.positives[q]), answer.rank)
            append(items, (*row, *(answer.hits if counted else ()), *fractions[q]))
    return Evaluation([sample.row() for sample in samples(items, settings)], items)


def _training_fractions(queries: Sequence[Image], settings: Settings) -> list[Fractions]:
    """Return the fractions of each query's patches that are seen and unseen in training."""
    scenes = {query.scene.frames_path: query.scene for query in queries}
    surfaces = {path: training_surfaces(scene, settings) for path, scene in scenes.items()}
    return [image_fractions(query.scene, surfaces[query.scene.frames_path], query.number) for query in queries]


def gather(scenes: Sequence[EvaluatedScene], settings: Settings, seed: int) -> list[Database]:
    """Return the databases of the test scenes, in the order of the scenes."""
    groups: dict[str, list[EvaluatedScene]] = {}
    for scene in scenes:
        dataset = scene.frames.dataset
        name = f"{dataset}/{scene.frames.scene}" if _is_listed(scene) else dataset
        groups.setdefault(name, []).append(scene)
    return [_database(name, group, settings, seed) for name, group in groups.items()]


def _database(name: str, scenes: Sequence[EvaluatedScene], settings: Settings, seed: int) -> Database:
    images, queries, names, positives = [], [], [], []
    for scene in scenes:
        in_database, query_images, found = _places(scene, settings, seed)
        positives += [len(images) + numbers for numbers in found]
        images += [Image(scene, int(i)) for i in in_database]
        queries += [Image(scene, int(i)) for i in query_images]
        of_scene = scene.frames.names
        names += [of_scene[i] for i in query_images]
    order = scenes[0].rng(seed, 1).permutation(len(images))
    place = np.argsort(order)
    shuffled: list[Numbers] = [np.sort(place[numbers]) for numbers in positives]
    return Database(name, scenes[0].frames.dataset, [images[i] for i in order], queries, names, shuffled)


def _is_listed(scene: EvaluatedScene) -> bool:
    return "positives" in (scene.ground_truth or {})


def _places(scene: EvaluatedScene, settings: Settings, seed: int) -> Places:
    if _is_listed(scene):
        return listed_places(scene)
    poses, overlap = scene.frames["pose"][:], scene.correspondences["overlap"][:]
    return overlapping_places(poses, overlap, settings, scene.rng(seed))


def listed_places(scene: EvaluatedScene) -> Places:
    """Return the database images and queries (frame numbers) and the positives that the dataset lists.

    Raises:
        DataError: an image is not among the frames, or the positives do not match the queries and images.
    """
    truth, number = scene.ground_truth, {name: i for i, name in enumerate(scene.frames.names)}
    facts: dict[str, Any] = {"file": scene.frames.path, "scene": scene.frames.scene}
    missing = [name for name in (*truth["database"], *truth["queries"]) if name not in number]
    if missing:
        raise DataError(
            "the ground truth lists an image that is not among the frames",
            **facts,
            found=missing[0],
            remedy="prepare the scene with `frames.images: all`, and check the log for images that could not be read",
        )
    database, queries = (np.array([number[name] for name in truth[key]], dtype=int) for key in ("database", "queries"))
    positives = [np.unique(np.array(numbers, dtype=int)) for numbers in truth["positives"]]
    wrong = any(numbers.size and not 0 <= numbers[0] <= numbers[-1] < len(database) for numbers in positives)
    if wrong or len(positives) != len(queries):
        raise DataError(
            "the positives of the ground truth do not match its queries and database",
            **facts,
            expected=f"for each of {len(queries)} queries, numbers from 0 to {len(database) - 1}",
            found=f"for {len(positives)} queries, numbers from "
            f"{min((numbers[0] for numbers in positives if numbers.size), default=0)} to "
            f"{max((numbers[-1] for numbers in positives if numbers.size), default=0)}",
            remedy="check that the ground truth belongs to these images",
        )
    return database, queries, positives


def overlapping_places(
    poses: NDArray[np.floating], overlap: NDArray[np.floating], settings: Settings, rng: np.random.Generator
) -> Places:
    """Draw queries from the images of a scene, and return the positives of each by LoCo's definition.

    The other images form the database, except those that are too similar to any query: with a mutual overlap of
    ``max_overlap`` or more, and nearer than ``max_distance``. A positive is a database image that sees ``min_overlap``
    of the query or more and is nearer than ``max_distance``.

    Args:
        poses: (n, 4, 4), camera-to-world, metres.
        overlap: (n, n); (i, j) is the fraction of image i that image j sees.
        settings: as for :func:`evaluate`.
        rng: random number generator that draws the queries.

    Returns:
        Numbers (d,) of the database images and (q,) of the queries, and the indices into the d positives of each query.
    """
    n, choice, centres = len(poses), settings["queries"], poses[:, :3, 3]
    near = cdist(centres, centres) < settings["max_distance"]
    similar = near & (mutual_overlap(overlap) >= settings["max_overlap"])
    positive = near & ~similar & (overlap >= settings["min_overlap"])
    if choice == "greedy":
        queries = greedy_queries(positive, similar)
    else:
        queries = np.sort(rng.permutation(n)[: round(choice * n) if choice < 1 else int(choice)])
    in_database = ~similar[queries].any(axis=0)
    in_database[queries] = False
    return np.flatnonzero(in_database), queries, [np.flatnonzero(row) for row in positive[queries][:, in_database]]


def greedy_queries(positive: NDArray[np.bool_], similar: NDArray[np.bool_]) -> Numbers:
    """Select queries such that each has a positive and none removes a positive of another, as in LoCo's release.

    Images are considered in their order. An image becomes a query unless it is a positive of an earlier query or too
    similar to one, has no positive left in the database, or is too similar to a positive of an earlier query. A query
    and all images that are too similar to it are removed from the database.

    Args:
        positive: (n, n); (i, j): image j shows the place of image i.
        similar: (n, n); (i, j): image j is too similar to image i.

    Returns:
        Numbers (q,) of the queries, in order.
    """
    similar = similar & ~np.eye(len(similar), dtype=bool)
    positive = positive & ~np.eye(len(positive), dtype=bool)
    left = np.ones(len(positive), dtype=bool)  # still in the database
    taken, needed = np.zeros_like(left), np.zeros_like(left)
    queries = []
    for i in range(len(positive)):
        found = positive[i] & left
        if taken[i] or not found.any() or (similar[i] & needed).any():
            continue
        left &= ~similar[i]
        left[i] = False
        taken |= found | similar[i]
        needed |= found
        queries.append(i)
    return np.array(queries, dtype=np.int64)


def _vocabularies(databases: Sequence[Database], settings: Settings, seed: int) -> dict[tuple[str, str], Tensor]:
    """Learn the centres of each VLAD from database images only; keys are (name of the descriptor, dataset)."""
    centres = {}
    for wanted in (entry for entry in settings["descriptors"] if entry["name"] == "vlad"):
        domains = settings.get("domains", {}) if wanted["vocabulary"] == "domain" else {}
        members: dict[tuple[bool, str], list[Database]] = {}
        for database in databases:
            dataset = database.dataset
            members.setdefault((dataset in domains, domains.get(dataset, dataset)), []).append(database)
        for group in members.values():
            if wanted["vocabulary"] == "domain":
                _require_shared({database.dataset for database in group}, domains)
            if not any(len(positives) for database in group for positives in database.positives):
                continue  # there are no searches
            images = [image for database in group for image in database.images]
            learned = learn_centres(images, wanted["clusters"], wanted["samples"], seed)
            centres |= {(descriptor_name(wanted), database.dataset): learned for database in group}
    return centres


def _require_shared(datasets: set[str], domains: Mapping[str, str]) -> None:
    """Reject a domain of one dataset: its vocabulary would be that of the dataset under another name."""
    if len(datasets) == 1:
        (dataset,) = datasets
        domain = f"its domain, `{domains[dataset]}`, is" if dataset in domains else "it is not in `domains`, so it is"
        raise ConfigError(
            f"benchmarks.place_recognition: {dataset} does not share its vocabulary with another dataset: {domain} a "
            "domain "
            "of one dataset in this split; use `vocabulary: dataset`, or add another dataset of the domain to the "
            "split"
        )


def _first_ranks(
    database: Database, settings: Settings, vocabularies: Mapping[tuple[str, str], Tensor]
) -> dict[str, dict[int, Answer]]:
    """Return the answers to the queries with positives, for each condition whose descriptor exists."""
    scored = [q for q, positives in enumerate(database.positives) if len(positives)]
    if not scored:
        return {}
    queries, positives = [database.queries[q] for q in scored], [database.positives[q] for q in scored]
    reranks = _reranks(settings)
    top, ks = max(entry["top"] if entry else 1 for entry in reranks.values()), settings["ks"]
    ranks: dict[str, list[Answer]] = {}
    shortlists: dict[str, list[Numbers]] = {}
    for wanted in settings["descriptors"]:
        name = descriptor_name(wanted)
        describe_one = descriptor(wanted, vocabularies.get((name, database.dataset)))
        if len(describe_one(queries[0])) == 0:
            continue  # no class token
        firsts, shortlists[name] = _search(database.images, queries, positives, describe_one, top, ks)
        ranks |= {_condition(name, rerank): list(firsts) for rerank in reranks}
    for condition, q, order in _reranked(queries, database.images, shortlists, reranks):
        # If the reranked images contain no positive, the first positive keeps its rank, like all images behind the
        # shortlist.
        new, old = _answer(order, positives[q], ks), ranks[condition][q]
        hits = tuple(new.hits[i] if k <= len(order) else old.hits[i] for i, k in enumerate(ks))
        ranks[condition][q] = Answer(new.rank or old.rank, hits)
    return {condition: dict(zip(scored, found)) for condition, found in ranks.items()}


def _search(
    images: Sequence[Image],
    queries: Sequence[Image],
    positives: Sequence[Numbers],
    describe_one: Callable[[Image], Tensor],
    top: int,
    ks: Sequence[int],
) -> tuple[list[Answer], list[Numbers]]:
    """Return the answer to each query, and its ``top`` most similar images."""
    firsts, shortlist = [], []
    for order, right in zip(rank(describe(images, describe_one), describe(queries, describe_one)), positives):
        firsts.append(_answer(order, right, ks))
        shortlist.append(order[:top].copy())
    return firsts, shortlist


def rank(database: Tensor, queries: Tensor) -> Iterator[Numbers]:
    """Yield for each query the numbers (n,) of all database images, most similar first; ties keep their order.

    Args:
        database: descriptors (n, d), L2-normalised rows.
        queries: descriptors (q, d).
    """
    for block in queries.split(QUERIES):
        similarities = block.new_empty(len(block), len(database), dtype=torch.float32)
        descriptors = block.float()
        for into, part in zip(similarities.split(PART, dim=1), database.split(PART)):
            torch.matmul(descriptors, part.float().T, out=into)
        # Equal descriptors must tie exactly, for any order in which the products were summed.
        yield from similarities.round(decimals=6).argsort(dim=1, descending=True, stable=True).numpy()


def _answer(order: Numbers, positives: Numbers, ks: Sequence[int]) -> Answer:
    """Return the rank, from 1, of the first positive (None without one), and the number of positives in the first k."""
    ranks = np.flatnonzero(np.isin(order, positives)) + 1
    return Answer(int(ranks[0]) if len(ranks) else None, tuple(int((ranks <= k).sum()) for k in ks))


def _counted(settings: Settings) -> list[str]:
    """Return the names of the item columns for ``accuracy``."""
    return [f"first_{k}" for k in settings["ks"]] if settings.get("accuracy") else []


def _reranked(
    queries: Sequence[Image],
    images: Sequence[Image],
    shortlists: Mapping[str, Sequence[Numbers]],
    reranks: Mapping[str, Settings | None],
) -> Iterator[tuple[str, int, Numbers]]:
    """Yield (condition, index of the query, its reranked shortlist); equal scores keep their order.

    The score of two images does not depend on the descriptor, so each pair is matched once.
    """
    matched = {name: entry for name, entry in reranks.items() if entry}
    if not matched or not shortlists:
        return
    for q, query in enumerate(tqdm(queries, desc="re-ranking", unit="query")):
        query_map = query.feature_map()
        candidates = np.unique([shortlist[q] for shortlist in shortlists.values()])
        scores = np.array(
            [match_scores(query_map, images[i].feature_map(), list(matched.values())) for i in candidates]
        )
        for (name, shortlist), (column, (rerank, entry)) in product(shortlists.items(), enumerate(matched.items())):
            order = shortlist[q][: entry["top"]]
            found = scores[np.searchsorted(candidates, order), column]
            yield _condition(name, rerank), q, order[np.argsort(-found, kind="stable")]


def samples(items: Mapping[str, list[Any]], settings: Settings) -> list[Sample]:
    """Return the values that each row of :func:`evaluate` averages, one per query.

    The values are 1 (hit) or 0 (miss) for "recall@k", over the queries with a positive, and the fraction of positives
    among the first k images for "accuracy@k", over the queries with k positives or more. If a descriptor requires a
    class token and the extractor has none, all values are NaN, so that all extractors have the same queries.

    Args:
        items: items of :func:`evaluate`: column name -> one value per ranking method and query.
        settings: as for :func:`evaluate`.
    """
    databases = list(dict.fromkeys(items["database"])) or [""]  # without any query, the rows are empty
    every = range(len(items["rank"]))
    groups = {"": every} | {f", {name}": chosen for name, chosen in mostly(items, every).items()}
    cells = list(product(settings["ks"], _conditions(settings), databases, groups))
    made = [_recall(items, k, condition, database, groups[group]) for k, condition, database, group in cells]
    if settings.get("accuracy"):
        made += [_accuracy(items, k, condition, database, groups[group]) for k, condition, database, group in cells]
    names = [c + (f", {database}" if len(databases) > 1 else "") + group for _, c, database, group in cells]
    return [replace(sample, condition=name) for sample, name in zip(made, names * 2)]


def _recall(items: Mapping[str, list[Any]], k: int, condition: str, database: str, chosen: Iterable[int]) -> Sample:
    """Return whether a positive is among the first k images, for the ``chosen`` rows with positives."""
    rows = _rows(items, condition, database, chosen, 1)
    hits = [np.nan if items["rank"][n] is None else float(items["rank"][n] <= k) for n in rows]
    return Sample(f"recall@{k}", condition, _keys(items, rows), hits)


def _accuracy(items: Mapping[str, list[Any]], k: int, condition: str, database: str, chosen: Iterable[int]) -> Sample:
    """Return the fractions of positives among the first k images, for the ``chosen`` rows with k positives or more."""
    rows, found = _rows(items, condition, database, chosen, k), items[f"first_{k}"]
    return Sample(
        f"accuracy@{k}", condition, _keys(items, rows), [np.nan if found[n] is None else found[n] / k for n in rows]
    )


def _rows(
    items: Mapping[str, list[Any]], condition: str, database: str, chosen: Iterable[int], positives: int
) -> list[int]:
    """Return the ``chosen`` rows of a condition and a database with at least this number of positives."""
    wanted = condition, database
    found = items["condition"], items["database"], items["n_positives"]
    return [n for n in chosen if (found[0][n], found[1][n]) == wanted and found[2][n] >= positives]


def _keys(items: Mapping[str, list[Any]], rows: Iterable[int]) -> list[Item]:
    return [Item(items["scene"][n], (items["query"][n],), (items["database"][n],)) for n in rows]


def _conditions(settings: Settings) -> list[str]:
    """Return the names of all ranking methods."""
    names = [descriptor_name(entry) for entry in settings["descriptors"]]
    found = [_condition(name, rerank) for name, rerank in product(names, _reranks(settings))]
    reranks = settings.get("rerank", ["none"])
    if len(set(found)) < len(names) * len(reranks):
        raise ConfigError(
            "benchmarks.place_recognition: entries of `descriptors`, or of `rerank`, differ in `samples` or `top` "
            "only, so they would have the same name in tables; remove one"
        )
    return found


def _reranks(settings: Settings) -> dict[str, Settings | None]:
    """Return the entries of ``rerank`` by name; None for ``none``."""
    entries = settings.get("rerank", ["none"])
    return {"none" if entry == "none" else rerank_name(entry): None if entry == "none" else entry for entry in entries}


def _condition(name: str, rerank: str) -> str:
    return name if rerank == "none" else f"{name}, {rerank}"
