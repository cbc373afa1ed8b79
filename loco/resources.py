"""What the jobs of the workflow request: memory and GPUs, from what is known when a run is planned.

Memory is estimated from sizes of images, patches and channels, and numbers of images. For simulated scenes these are
configured. For downloads the number of images of a scene is not known before its check; :data:`IMAGES` is assumed. No
job requests less than :data:`LEAST`, and a job that is started again requests as many times as much as it was started.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from loco.config import scenes
from loco.devices import visible_gpus
from loco.evaluation.catalogue import BENCHMARKS
from loco.models.catalogue import parts_of, stride_of
from loco.plan import Plan

IMAGES = 2500  # of a scene whose number is not configured; the largest of Matterport3D have about as many
CHANNELS = 1024  # of a backbone, whose configuration is not read; of ViT-L
PANORAMA = 18  # images
WITHOUT_NETWORK = ("dense_sift", "features")  # models
LEAST = {  # MB, of the steps whose memory depends on their settings
    "correspondence": 3000,
    "encode": 4000,
    "evaluate": 3000,
    "extract": 3000,
    "fit_pca": 4000,
    "frames": 3000,
    "pairs": 3000,
    "train": 6000,
}
# Parts of the sums, MB. Python with PyTorch takes 500 MB, and about 2,400 more with CUDA (estimates).
LIBRARIES, CUDA, WORKER, NETWORK = 500, 2400, 500, 1500
HELD = 1100  # of features that location consistency holds at a time (loco.evaluation.location_consistency.HELD)
SAMPLES = 600  # of its samples and their ranks
INDEXED = 120  # bytes of a patch whose pairs are indexed, with those of its point and image
PATCH = 120  # bytes of a patch without its features: point, image, order, distance


class JobResources:
    """Functions of the wildcards of a rule, for its ``resources``."""

    def __init__(self, plan: Plan, gpus: Callable[[], int] = lambda: len(visible_gpus())) -> None:
        """
        Args:
            plan: of the run.
            gpus: returns the number of GPUs of this machine.
        """
        self.plan, self.config, self.gpus = plan, plan.config, gpus

    # Memory, MB

    def frames_mb(self, dataset: str) -> int:
        """Frames are prepared one by one; a raw image has up to ten times the pixels of a prepared one."""
        return self._at_least("frames", LIBRARIES + 1000 + 10 * 60 * self._pixels(dataset) / 1e6)

    def correspondence_mb(self, dataset: str, stride: str) -> int:
        """The overlap of all pairs of images (three arrays of float32), and the points of all patches."""
        images = self._images(dataset)
        patches = images * self._patches(dataset, int(stride))
        return self._at_least("correspondence", LIBRARIES + 500 + (12 * images**2 + 16 * patches) / 1e6)

    def pairs_mb(self, dataset: str, stride: str) -> int:
        """The points of all patches, and what sorting them takes (:func:`loco.geometry.near_pairs.index_pairs`)."""
        patches = self._images(dataset) * self._patches(dataset, int(stride))
        return self._at_least("pairs", LIBRARIES + 500 + INDEXED * patches / 1e6)

    def encode_mb(self, encoder: str, dataset: str) -> int:
        return self._at_least("encode", self._network_mb(self.plan.encoders[encoder], dataset))

    def extract_mb(self, experiment: str, dataset: str) -> int:
        return self._at_least("extract", self._network_mb(self._model(experiment), dataset))

    def fit_pca_mb(self, experiment: str, split: str) -> int:
        """As an extraction, and the products of all channels in float64."""
        model = self._model(experiment)
        most = max((self._network_mb(model, name) for name, _ in scenes(self.config, split, "train")), default=0)
        return self._at_least("fit_pca", most + 4 * 8 * CHANNELS**2 / 1e6)

    def train_mb(self, experiment: str, split: str) -> int:
        """Each rank of a node has its libraries, network and workers; each worker its libraries and batches."""
        train = self.config["experiments"][experiment]["train"]
        batch = train["batch"]
        images = batch["images"] if "radius" in batch else batch["scenes"] * batch["images_per_scene"]
        stride = stride_of(self._model(experiment))
        sizes = [
            3 * self._pixels(name)
            + (PATCH + 2 * CHANNELS * ("cache" in self.config["experiments"][experiment])) * self._patches(name, stride)
            for name in dict(scenes(self.config, split, "train"))
        ]
        workers = train.get("workers", 0)
        loaded = images / train.get("processes", 1) * max(sizes, default=0) / 1e6
        worker = WORKER + train.get("prefetch", 2) * loaded
        ranks = self.ranks_per_node(experiment)
        return self._at_least("train", ranks * (LIBRARIES + CUDA + NETWORK + loaded + workers * worker))

    def evaluate_mb(self, benchmark: str, split: str, experiment: str) -> int:
        """By the largest test scene. A benchmark that is not listed here takes the least."""
        channels, settings = self._channels(self._model(experiment)), self.config["benchmarks"][benchmark]
        found = [0.0]
        for name in dict(self.plan.test_scenes(benchmark, split)):
            images, patches = (
                self._images(name),
                self._patches(name, self.config["datasets"][name]["patches"]["stride"]),
            )
            match benchmark:
                case "location_consistency":
                    held = min(HELD, 2 * images * patches * channels / 1e6)
                    found.append(SAMPLES + 2 * held + images * patches * PATCH / 1e6)
                case "place_recognition":  # descriptors of all images, VLAD's the longest, and similarities
                    kinds = settings["descriptors"]
                    clusters = max((kind.get("clusters", 1) for kind in kinds), default=1)
                    samples = max((kind.get("samples", 0) for kind in kinds), default=0)
                    descriptors = 4 * channels * (2 * clusters * images + 2 * samples)
                    found.append(3000 + (descriptors + 16 * images**2) / 1e6)
        floor = 6000 if benchmark == "place_recognition" else LEAST["evaluate"]
        cuda = CUDA if BENCHMARKS[benchmark].gpus else 0
        return math.ceil(max(floor, LIBRARIES + cuda + max(found)))

    # Nodes and GPUs

    def train_nodes(self, experiment: str) -> int:
        return self.config["experiments"][experiment]["train"].get("nodes", 1)

    def ranks_per_node(self, experiment: str) -> int:
        return self.train_gpus(experiment) // self.train_nodes(experiment)

    def train_gpus(self, experiment: str) -> int:
        return self.config["experiments"][experiment]["train"].get("processes", 1)

    def evaluate_gpus(self, benchmark: str) -> int:
        return BENCHMARKS[benchmark].gpus

    def extract_gpus(self, experiment: str) -> int:
        """None for what is computed without a network."""
        return int(any(part["name"] not in WITHOUT_NETWORK for part in parts_of(self._model(experiment))))

    def available(self, count: int, elsewhere: bool) -> int:
        """GPUs that a job requests of ``count`` that it would use.

        Args:
            count: number of GPUs.
            elsewhere: whether jobs run on other machines than this one, whose GPUs are not known here. On this machine,
                if it has none, jobs run on the CPU, and must not wait for each other.
        """
        return count if elsewhere or self.gpus() else 0

    # What sizes depend on

    def _model(self, experiment: str) -> Mapping[str, Any]:
        return self.config["experiments"][experiment]["model"]

    def _at_least(self, step: str, megabytes: float) -> int:
        return math.ceil(max(LEAST[step], megabytes))

    def _network_mb(self, model: Mapping[str, Any], dataset: str) -> float:
        """Eight images and their maps, several times, beside the weights."""
        maps = self._channels(model) * self._patches(dataset, stride_of(model))
        cuda = CUDA if any(part["name"] not in WITHOUT_NETWORK for part in parts_of(model)) else 0
        return LIBRARIES + cuda + 4 * 8 * (3 * self._pixels(dataset) + 4 * maps) / 1e6

    def _pixels(self, dataset: str) -> int:
        frames = self.config["datasets"][dataset]["frames"]
        return frames["height"] * frames["width"]

    def _patches(self, dataset: str, stride: int) -> int:
        frames = self.config["datasets"][dataset]["frames"]
        return math.ceil(frames["height"] / stride) * math.ceil(frames["width"] / stride)

    def _images(self, dataset: str) -> int:
        """Images of the largest scene."""
        setup = self.config["datasets"][dataset]
        simulated = setup.get("simulate", {})
        count = PANORAMA * simulated["panoramas"] if "panoramas" in simulated else simulated.get("images", IMAGES)
        return math.ceil(count / setup["frames"].get("every", 1))

    def _channels(self, model: Mapping[str, Any]) -> int:
        return sum(_channels_of(part) for part in parts_of(model))


def _channels_of(model: Mapping[str, Any]) -> int:
    head = model.get("head") or {}
    if model["name"] == "dense_sift":
        return 128
    if "dim" in model or head.get("dim"):
        return model.get("dim") or head["dim"]
    if head.get("name") == "locus":
        return 64
    return CHANNELS * (2 if model.get("backbone", {}).get("concat_class_token") else 1)
