"""The catalogue of benchmarks: the requirements of each, the captions and the figures of its results.

The configuration, the planner, the tables and the report read it, so it imports neither torch nor numpy. A new
benchmark requires a module ``loco/evaluation/<name>.py``, an entry here, its settings schema in
``config/schemas/benchmarks.yaml`` and its settings in ``config/defaults.yaml``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """An entry of the catalogue.

    Attributes:
        name: module of ``loco.evaluation``, key of the configuration, and name in all paths.
        requires: alternative sets of ground truth. A test scene can be evaluated if its dataset provides all of one set
            (``places``, ``depth``, ``pairs``, ``labels``, ``homographies``, ``positives``;
            :func:`loco.datasets.provides`).
        title: heading of tables, plots and captions.
        measures: definition of the scores, in full sentences, for the captions of tables.
        items: the units over which scores are averaged (or the median is taken), in the plural.
        drawn: the narrowest population that a confidence interval of the scores can concern: new items among the same
            images or scenes.
        figures: keys of :data:`loco.results.plots.scores.FIGURES`.
        gpus: number of GPUs that an evaluation can use.
        keypoints: whether the benchmark also evaluates keypoint extractors, not only feature maps.
        per_scene: whether each scene is evaluated by a separate job, and one more job merges the items of all scenes.
            This is for benchmarks that take minutes or more per scene and whose items do not depend on other scenes.
            Such a benchmark cannot have the setting ``seen_by_training``.
    """

    name: str
    requires: tuple[frozenset[str], ...]
    title: str
    measures: str
    items: str
    drawn: str
    figures: tuple[str, ...] = ("dots", "per_scene_spread")
    gpus: int = 0
    keypoints: bool = False
    per_scene: bool = False

    @property
    def caption(self) -> dict[str, str]:
        """Return the values that ``report/benchmark.rst`` prints, as a rule passes them in its params."""
        return {"name": self.name, "title": self.title, "measures": self.measures, "items": self.items}

    def population(self, level: str) -> str:
        """Return, for captions, the population that an interval of a level (``intervals.LEVELS``) concerns."""
        return {"items": self.drawn, "images": "new images of these scenes", "scenes": "new scenes"}[level]


def _require(*alternatives: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(alternative.split()) for alternative in alternatives)


_PROBE = (
    "Scores are reported separately for things and stuff, and for held-out images and the images on which the probe "
    "was trained. Pixels without a category and classes that the scored images do not show are left out; scores are "
    "averaged over scenes"
)

_ENTRIES = (
    Benchmark(
        name="location_consistency",
        requires=_require("places"),
        title="Location consistency",
        measures="Mean average precision (mAP) at ranking the patches of a scene by feature similarity to a query "
        "patch. The patches within a radius of the query's 3D point are ranked; those nearer to it should come first. "
        "The average precision is averaged over the distance below which a patch counts as positive, then over the "
        "queries. A condition states the radius and whether patches were drawn uniformly or with weight 1 / distance². "
        "Chance level is above zero and the same for all extractors under one condition",
        items="query images",
        drawn="new images of these scenes",
    ),
    Benchmark(
        name="pixel_correspondence",
        requires=_require("places depth", "pairs depth"),
        title="Pixel correspondence",
        measures="Recall of nearest-neighbour matches between two images of a scene (protocol of Probe3D), by the "
        "rotation between the cameras. The best matches of each pair are evaluated, selected by the ratio test unless "
        "the metric names another filter. A match is correct if it lies within the stated number of pixels of the true "
        "correspondence, or within the stated number of centimetres of the true 3D point. Pixels are those of the "
        "frames, subsampled by the setting step (Probe3D: 120 x 160 of 480 x 640)",
        items="image pairs",
        drawn="new pairs of these images",
        figures=("recall_against_angle", "error_curves", "per_scene_spread"),
    ),
    Benchmark(
        name="panoptic_segmentation",
        requires=_require("labels"),
        title="Panoptic segmentation",
        gpus=1,
        per_scene=True,
        measures="A linear probe per scene predicts which object a patch shows from its feature: things (a chair, a "
        "lamp) by instance, so that an instance must be recognised from every viewpoint, and stuff (walls, floors) by "
        f"category. {_PROBE}",
        items="classes of all scenes (Jaccard, accuracy: scenes)",
        drawn="new classes of these scenes",
    ),
    Benchmark(
        name="semantic_segmentation",
        requires=_require("labels"),
        title="Semantic segmentation",
        gpus=1,
        per_scene=True,
        measures=f"A linear probe per scene predicts the category of a patch from its feature. {_PROBE}",
        items="classes of all scenes (Jaccard, accuracy: scenes)",
        drawn="new classes of these scenes",
    ),
    Benchmark(
        name="place_recognition",
        requires=_require("places", "positives"),
        title="Place recognition",
        measures="Recall@k: the fraction of queries for which the k best matches in the database contain an image of "
        "the same place. Images are retrieved by one global descriptor per image. A condition states the descriptor "
        "and, if the first images are reranked by matching their patches, the method of reranking",
        items="queries with an image of their place in the database",
        drawn="new images of these scenes",
        figures=("recall_at_k", "per_scene_spread"),
    ),
    Benchmark(
        name="homography",
        requires=_require("homographies"),
        title="Matching on planes",
        measures="Mutual nearest neighbours between the cells of two images that a known homography relates. Mean "
        "matching accuracy (MMA) is the fraction of matches within the stated number of pixels of the true position; "
        "AUC is the area under the cumulative curve of the corner error of the homography that is estimated from the "
        "matches, and the corner error itself is a median. Pixels are those of the raw images",
        items="image pairs",
        drawn="new pairs of these images",
        figures=("matching_accuracy", "dots", "per_scene_spread"),
    ),
    Benchmark(
        name="landmark_retrieval",
        requires=_require("places"),
        title="Landmark retrieval",
        measures="A landmark is a patch of one image; the patches of all other images are ranked by feature similarity "
        "to it. Average precision at retrieving the patches that show the landmark (views) and the images that do "
        "(images). Reported for all landmarks, for those that both halves of the images show, and for the best of "
        "these, which are selected on one half and scored on the other",
        items="landmarks",
        drawn="new landmarks of these images",
    ),
    Benchmark(
        name="relative_pose",
        requires=_require("places", "pairs"),
        title="Relative pose",
        measures="Median errors of the relative pose of two images, estimated from their matches: by aligning the 3D "
        "points of the matches where depth is known (rigid), or by an essential matrix, which leaves the length of the "
        "translation undetermined (essential). A pair without an estimate has an infinite error. AUC is the area "
        "under the cumulative curve of the larger of the angular errors of rotation and translation direction",
        items="image pairs",
        drawn="new pairs of these images",
        figures=("error_curves", "dots", "per_scene_spread"),
        keypoints=True,
    ),
)

BENCHMARKS = {entry.name: entry for entry in _ENTRIES}
