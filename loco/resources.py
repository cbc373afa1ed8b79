"""Estimate the memory, time and GPUs that each job of the workflow requests, before the run starts.

Memory and time are estimated from the sizes of images, patches and channels and from the numbers of images. For
simulated scenes, these are configured. For downloads, the number of images of a scene is unknown before its check, and
:data:`IMAGES` is assumed. Every job requests at least :data:`MIN_MB` and :data:`MIN_MINUTES`, and the n-th attempt of a
job requests n times as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from loco.config import scenes
from loco.devices import visible_gpus
from loco.evaluation.catalogue import BENCHMARKS
from loco.models.catalogue import has_maps, map_stride_of, parts_of, stride_of
from loco.plan import Plan

IMAGES = 2500  # assumed number of images of a downloaded scene, about that of the largest scenes of Matterport3D
CHANNELS = 1024  # assumed number of channels of a backbone, that of ViT-L; its configuration is not read
PANORAMA = 18  # number of images of a panorama
WITHOUT_NETWORK = ("dense_sift", "features")  # models that run no network
MIN_MB = {  # minimum of the steps whose memory depends on their settings
    "correspondence": 3000,
    "encode": 4000,
    "evaluate": 3000,
    "evaluate_scene": 3000,
    "extract": 3000,
    "fit_pca": 4000,
    "frames": 3000,
    "pairs": 3000,
    "train": 6000,
}
MIN_MINUTES = 5  # the start of Snakemake and of the step from a slow disk, and the checks of the inputs
# Seconds per image of a scene, with frames of 128 x 160; per pair of images, for overlaps; and per training step of a
# probe. They are about five times those of docs/clusters.md, for slow disks and large images.
SECONDS = {
    "check_scene": 0.15,
    "check_labels": 0.05,
    "fuse": 0.3,
    "frames": 0.25,
    "label": 0.25,
    "correspondence": 0.05,
    "pairs": 0.1,
    "encode": 0.5,
    "extract": 1.0,
    "fit_pca": 0.1,
    "evaluate": 0.1,
    "pair of images": 1.5e-5,
    "probe": 0.018,
}
FRAME = 128 * 160  # pixels
ALL_WITH_ALL = ("homography", "place_recognition", "relative_pose")  # they compare all features of two images
# Terms of the estimates, MB: Python with PyTorch takes about 500 MB, and about 2,400 MB more with CUDA.
LIBRARIES, CUDA, WORKER, NETWORK = 500, 2400, 500, 1500
HELD = 1100  # features that location consistency and linear probes hold in memory (HELD of their modules)
SAMPLES = 600  # samples of location consistency and their ranks
INDEXED = 120  # bytes per patch whose pairs are indexed, including its point and image
WINDOW = 25  # cells in the default window of joint bilateral upsampling
PATCH = 120  # bytes per patch without its features: point, image, order, distance


class JobResources:
    """Resources of the jobs as functions of the wildcards of their rules: memory (MB), time (minutes), nodes, GPUs."""

    def __init__(self, plan: Plan, gpus: Callable[[], int] = lambda: len(visible_gpus())) -> None:
        """
        Args:
            plan: the plan of the run.
            gpus: returns the number of GPUs of this machine.
        """
        self.plan, self.config, self.gpus = plan, plan.config, gpus

    # Memory, MB

    def frames_mb(self, dataset: str) -> int:
        """Return the memory of preparing frames: one at a time, with up to ten times the pixels in the raw image."""
        return self._at_least("frames", LIBRARIES + 1000 + 10 * 60 * self._pixels(dataset) / 1e6)

    def correspondence_mb(self, dataset: str, stride: str) -> int:
        """Return the memory of the overlaps of all image pairs (three float32 arrays) and the points of all patches."""
        images = self._images(dataset)
        patches = images * self._patches(dataset, int(stride))
        return self._at_least("correspondence", LIBRARIES + 500 + (12 * images**2 + 16 * patches) / 1e6)

    def pairs_mb(self, dataset: str, stride: str) -> int:
        """Return the memory of the points of all patches and of their sorting (:mod:`loco.geometry.near_pairs`)."""
        patches = self._images(dataset) * self._patches(dataset, int(stride))
        return self._at_least("pairs", LIBRARIES + 500 + INDEXED * patches / 1e6)

    def encode_mb(self, encoder: str, dataset: str) -> int:
        return self._at_least("encode", self._network_mb(self.plan.encoders[encoder], dataset))

    def extract_mb(self, experiment: str, dataset: str) -> int:
        return self._at_least("extract", self._network_mb(self._model(experiment), dataset))

    def fit_pca_mb(self, experiment: str, split: str) -> int:
        """Return the memory of an extraction and of the products of all channels in float64."""
        model = self._model(experiment)
        network = max((self._network_mb(model, name) for name, _ in scenes(self.config, split, "train")), default=0)
        return self._at_least("fit_pca", network + 4 * 8 * CHANNELS**2 / 1e6)

    def train_mb(self, experiment: str, split: str) -> int:
        """Return the memory of all ranks of a node: libraries, network, upsampled features and workers.

        Each worker holds its batches.
        """
        train = self.config["experiments"][experiment]["train"]
        batch = train["batch"]
        images = batch["images"] if "radius" in batch else batch["scenes"] * batch["images_per_scene"]
        model, names = self._model(experiment), dict(scenes(self.config, split, "train"))
        stored = 2 * CHANNELS * ("cache" in self.config["experiments"][experiment])  # on the grid before upsampling
        sizes = [
            3 * self._pixels(name)
            + PATCH * self._patches(name, stride_of(model))
            + stored * self._patches(name, map_stride_of(model))
            for name in names
        ]
        workers, per_rank = train.get("workers", 0), images / train.get("processes", 1)
        loaded = per_rank * max(sizes, default=0) / 1e6
        upsampled = per_rank * max((self._upsampled_mb(model, name) for name in names), default=0)
        worker = WORKER + train.get("prefetch", 2) * loaded
        ranks = self.ranks_per_node(experiment)
        return self._at_least("train", ranks * (LIBRARIES + CUDA + NETWORK + upsampled + loaded + workers * worker))

    def evaluate_mb(self, benchmark: str, split: str, experiment: str) -> int:
        """Return the memory for the largest test scene; benchmarks without a case below request the minimum."""
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
                case "place_recognition":  # descriptors of all images, of which VLAD is the largest, and similarities
                    kinds = settings["descriptors"]
                    clusters = max((kind.get("clusters", 1) for kind in kinds), default=1)
                    samples = max((kind.get("samples", 0) for kind in kinds), default=0)
                    descriptors = 4 * channels * (2 * clusters * images + 2 * samples)
                    found.append(3000 + (descriptors + 16 * images**2) / 1e6)
        floor = 6000 if benchmark == "place_recognition" else MIN_MB["evaluate"]
        cuda = CUDA if BENCHMARKS[benchmark].gpus else 0
        return math.ceil(max(floor, LIBRARIES + cuda + max(found)))

    def evaluate_scene_mb(self, experiment: str, dataset: str) -> int:
        """Return the memory of the probes of a scene: libraries, features in memory, and the classes of all patches."""
        patches = self._images(dataset) * self._patches(dataset, self.config["datasets"][dataset]["patches"]["stride"])
        held = min(HELD, 2 * patches * self._channels(self._model(experiment)) / 1e6)
        return self._at_least("evaluate_scene", LIBRARIES + CUDA + held + PATCH * patches / 1e6)

    # Time, minutes

    def check_scene_minutes(self, dataset: str) -> int:
        """Return the time to check a scene: every raw image is read, including those that are not selected."""
        return self._minutes("check_scene", self._raw_images(dataset))

    def check_labels_minutes(self, dataset: str) -> int:
        """Return the time to check label files."""
        return self._minutes("check_labels", self._raw_images(dataset))

    def fuse_minutes(self, dataset: str) -> int:
        """Return the time to fuse all depth images."""
        return self._minutes("fuse", self._raw_images(dataset))

    def frames_minutes(self, dataset: str) -> int:
        """Return the time to prepare frames: videos are decoded in full, even if few of their frames are selected."""
        return self._minutes("frames", self._raw_images(dataset) * self._enlarged(dataset))

    def correspondence_minutes(self, dataset: str) -> int:
        """Return the time to compute the overlap of every two images, and the points of each image."""
        overlap = SECONDS["pair of images"] * self._images(dataset) ** 2
        return self._minutes("correspondence", self._images(dataset) * self._enlarged(dataset), overlap)

    def pairs_minutes(self, dataset: str) -> int:
        """Return the time to index positive pairs."""
        return self._minutes("pairs", self._images(dataset) * self._enlarged(dataset))

    def label_minutes(self, dataset: str) -> int:
        """Return the time to label all images."""
        return self._minutes("label", self._images(dataset) * self._enlarged(dataset))

    def encode_minutes(self, dataset: str) -> int:
        """Return the time to encode all images on a GPU."""
        return self._minutes("encode", self._images(dataset) * self._enlarged(dataset))

    def extract_minutes(self, dataset: str) -> int:
        """Return the time to extract the features of all images, also by OpenCV."""
        return self._minutes("extract", self._images(dataset) * self._enlarged(dataset))

    def fit_pca_minutes(self, split: str) -> int:
        """Return the time to compute the features of all training images."""
        keys = scenes(self.config, split, "train")
        return self._minutes("fit_pca", sum(self._images(name) * self._enlarged(name) for name, _ in keys))

    def evaluate_minutes(self, benchmark: str, split: str, experiment: str) -> int:
        """Return the time to evaluate all test scenes one after another.

        The time is proportional to the number of features of an image, or to its square in benchmarks that compare all
        features of two images.
        """
        keys, model = self.plan.test_scenes(benchmark, split), self._model(experiment)
        power = 2 if benchmark in ALL_WITH_ALL else 1
        images = sum(self._images(name) * self._enlarged(name) * self._finer(model, name) ** power for name, _ in keys)
        pairs = SECONDS["pair of images"] * sum(self._images(name) ** 2 for name, _ in keys)
        return self._minutes("evaluate", images, pairs)

    def evaluate_scene_minutes(self, benchmark: str, experiment: str, dataset: str) -> int:
        """Return the time to train and score the two probes of a scene: one on a part of the images, one on all."""
        settings, images = self.config["benchmarks"][benchmark], self._images(dataset)
        features = images * self._finer(self._model(experiment), dataset)
        steps = settings["epochs"] * (1 + settings["train_fraction"]) * features / settings["batch"]
        return self._minutes("evaluate", features * self._enlarged(dataset), SECONDS["probe"] * steps)

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
        """Return the number of GPUs of an extraction: 0 if no network is run, else 1."""
        return int(any(part["name"] not in WITHOUT_NETWORK for part in parts_of(self._model(experiment))))

    def train_tasks(self, experiment: str, gpus: int) -> int | None:
        """Return the number of SLURM tasks of a training job: one per node on several nodes without GPUs, else None.

        If GPUs are requested, SLURM starts one task per node by default, and would interpret the number per GPU.
        """
        nodes = self.train_nodes(experiment)
        return nodes if nodes > 1 and not gpus else None

    def available(self, count: int, granted: bool | None) -> int:
        """Return the number of GPUs that a job requests, which can use ``count``.

        Args:
            count: number of GPUs that the job can use.
            granted: whether the scheduler of a cluster allocates GPUs to jobs; None if jobs run on this machine. If it
                has no GPU, jobs run on the CPU and request none, so that they do not wait for each other.
        """
        return count if (self.gpus() if granted is None else granted) else 0

    # Sizes of models and datasets

    def _model(self, experiment: str) -> Mapping[str, Any]:
        return self.config["experiments"][experiment]["model"]

    def _at_least(self, step: str, megabytes: float) -> int:
        return math.ceil(max(MIN_MB[step], megabytes))

    def _minutes(self, step: str, images: float, more: float = 0.0) -> int:
        """Return the time of a step on a number of images, plus ``more`` seconds."""
        return MIN_MINUTES + math.ceil((SECONDS[step] * images + more) / 60)

    def _network_mb(self, model: Mapping[str, Any], dataset: str) -> float:
        """Return the memory of a network in evaluation: libraries, eight images, and several copies of their maps."""
        maps = self._channels(model) * self._patches(dataset, stride_of(model))
        cuda = CUDA if any(part["name"] not in WITHOUT_NETWORK for part in parts_of(model)) else 0
        return LIBRARIES + cuda + 4 * 8 * (3 * self._pixels(dataset) + 4 * maps) / 1e6

    def _upsampled_mb(self, model: Mapping[str, Any], dataset: str) -> float:
        """Return the memory of the upsampled features of an image in training, with what their gradient requires."""
        if "upsample" not in model:
            return 0.0
        copies = 4.0
        if model["upsample"]["name"] == "joint_bilateral":  # holds the window of each column and row of the maps
            copies += WINDOW * stride_of(model) / map_stride_of(model)
        return 4 * copies * self._channels(model) * self._patches(dataset, stride_of(model)) / 1e6

    def _finer(self, model: Mapping[str, Any], dataset: str) -> float:
        """Return the ratio of the number of features of an image to that of evaluated locations, at least 1."""
        if not has_maps(model):
            return 1.0
        locations = self._patches(dataset, self.config["datasets"][dataset]["patches"]["stride"])
        return max(1.0, self._patches(dataset, stride_of(model)) / locations)

    def _pixels(self, dataset: str) -> int:
        frames = self.config["datasets"][dataset]["frames"]
        return frames["height"] * frames["width"]

    def _patches(self, dataset: str, stride: int) -> int:
        frames = self.config["datasets"][dataset]["frames"]
        return math.ceil(frames["height"] / stride) * math.ceil(frames["width"] / stride)

    def _enlarged(self, dataset: str) -> float:
        """Return the number of pixels of a frame in units of :data:`FRAME`, at least 1."""
        return max(1.0, self._pixels(dataset) / FRAME)

    def _raw_images(self, dataset: str) -> int:
        """Return the number of raw images of the largest scene of a dataset."""
        simulated = self.config["datasets"][dataset].get("simulate", {})
        return PANORAMA * simulated["panoramas"] if "panoramas" in simulated else simulated.get("images", IMAGES)

    def _images(self, dataset: str) -> int:
        """Return the number of images of the largest scene of a dataset."""
        return math.ceil(self._raw_images(dataset) / self.config["datasets"][dataset]["frames"].get("every", 1))

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
