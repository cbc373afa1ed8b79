"""Time of planning a full-size run: ``python -m benchmarks.planning [matterport3d|scannet ...]``.

No data are required, because planning reads only names. Matterport3D has the published split; ScanNet has its 1,513
scans. Each dataset is planned by ``snakemake -n`` with six experiments, three seeds and all benchmarks that apply. A
second run samples the stack of the process 100 times per second of CPU time, and counts the samples within functions of
this project and the functions that they call.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from loco.evaluation import catalogue

ROOT = Path(__file__).parents[1]
BENCHMARKS = [
    *("location_consistency", "pixel_correspondence", "panoptic_segmentation", "semantic_segmentation"),
    *("place_recognition", "landmark_retrieval", "relative_pose"),
]
EXPERIMENTS = ["exact", "sampled", "untrained", "untrained_wide", "dense_sift_fine", "dense_sift_coarse"]
SEEDS = [0, 1, 2]
PROFILER = """
import collections, json, signal, sys
from pathlib import Path
root, out, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
samples = collections.Counter()
def sample(number, frame):
    samples["all"] += 1
    while frame is not None:
        name = frame.f_code.co_filename
        # Functions of the project; the module level of the rules runs once, while they are parsed.
        ours = name.startswith(root) and "site-packages" not in name
        if ours and (frame.f_code.co_name != "<module>" or "/loco/" in name):
            samples["ours"] += 1
            return
        frame = frame.f_back
signal.signal(signal.SIGPROF, sample)
signal.setitimer(signal.ITIMER_PROF, 0.01, 0.01)
from snakemake.cli import main
try:
    main(arguments)
except SystemExit as end:
    signal.setitimer(signal.ITIMER_PROF, 0)
    Path(out).write_text(json.dumps({**samples, "status": end.code}))
"""


def overlay(name: str) -> dict[str, Any]:
    """Return the settings that are merged over the configuration of a dataset."""
    changes: dict[str, Any] = {
        "run": {"experiments": EXPERIMENTS, "benchmarks": BENCHMARKS, "seeds": SEEDS},
        "experiments": {
            "untrained_wide": {"title": "compact CNN, untrained, 256", "model": {"name": "compact_cnn", "dim": 256}}
        },
        "figures": {"scene": None},
    }
    if name == "scannet":
        scans = [f"scene{room:04}_{scan:02}" for room in range(707) for scan in range(3)][:1513]
        changes["datasets"] = {"scannet": {"scenes": scans}}
        changes["splits"] = {
            "scannet": {
                "train": {"scannet": scans[:1200]},
                "val": {"scannet": scans[1200:1203]},
                "test": {"scannet": scans[1203:]},
            }
        }
    return changes


def plan(name: str) -> dict[str, Any]:
    """Plan a run twice, to measure the time and to sample the stack.

    Returns:
        The number of jobs of each rule, wall time and CPU time in seconds, the fraction of samples within functions of
        this project, and the number of samples.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for table in ("matterport3d/category_mapping.tsv", "scannet/scannetv2-labels.combined.tsv"):
            mapping = place / "data" / table
            mapping.parent.mkdir(parents=True)
            mapping.write_text("raw_category\tmpcat40\nwall\twall\n")
        (place / "overlay.yaml").write_text(yaml.safe_dump(overlay(name)))
        configs = [str(ROOT / f"config/{name}.yaml"), str(place / "overlay.yaml")]
        arguments = ["-n", "--quiet", "rules", "--cores", "2", "--snakefile", str(ROOT / "Snakefile")]
        arguments += ["--directory", folder, "--configfile", *configs, "--", "all"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "snakemake", *arguments], capture_output=True, text=True)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.M)}
        command = [sys.executable, "-c", PROFILER, str(ROOT), str(place / "samples.json"), *arguments]
        subprocess.run(command, capture_output=True, check=False)
        samples = json.loads((place / "samples.json").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"jobs": jobs, "wall": wall, "cpu": cpu, "ours": samples["ours"] / samples["all"], "samples": samples["all"]}


def main() -> None:
    for name in sys.argv[1:] or ["matterport3d", "scannet"]:
        found = plan(name)
        jobs = found["jobs"]
        scenes = jobs["extract"] // 14  # four experiments with three seeds each, two deterministic ones
        divided = sum(catalogue.BENCHMARKS[benchmark].per_scene for benchmark in BENCHMARKS)
        runs = len(EXPERIMENTS) * len(SEEDS)
        evaluations = jobs["evaluate"] + jobs["merge_items"]
        shared = jobs["extract"] + jobs["evaluate_scene"] + evaluations
        redundant = runs * ((1 + divided) * scenes + len(BENCHMARKS)) - shared
        print(
            f"{name}: {jobs['total']} jobs ({jobs['extract']} extractions, {jobs['evaluate_scene']} evaluations of "
            f"scenes, {evaluations} metric files; with one of each per experiment and seed: "
            f"{jobs['total'] + redundant})\n"
            f"  {found['wall']:.1f} s, {found['cpu']:.1f} s of CPU time\n"
            f"  functions of this project: {100 * found['ours']:.1f} % of {found['samples']} samples"
        )


if __name__ == "__main__":
    main()
