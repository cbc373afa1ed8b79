"""Benchmarks: features in, numbers out. One module each, of the benchmark's name, with two functions.

``evaluate(scenes, settings, seed=0)`` asks the features of all test scenes, and gives an
:class:`~loco.evaluation.result.Evaluation`. ``samples(items, settings)`` says which items each number of it is made of,
so that experiments can be compared item by item.
"""

from __future__ import annotations

# benchmark -> what a test scene must give (:data:`loco.datasets.GIVES`): all of one of these sets.
NEEDS: dict[str, list[set[str]]] = {
    "location_consistency": [{"places"}],
    "pixel_correspondence": [{"places", "depth"}, {"pairs", "depth"}],
    "panoptic_segmentation": [{"labels"}],
    "semantic_segmentation": [{"labels"}],
    "place_recognition": [{"places"}, {"positives"}],
    "landmark_retrieval": [{"places"}],
    "relative_pose": [{"places"}, {"pairs"}],
    "homography": [{"homographies"}],
}
