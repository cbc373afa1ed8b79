from itertools import zip_longest
from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.train import run

    files = snakemake.input
    kinds = ("frames", "correspondences", "encoded", "pairs")
    train_scenes, val_scenes = (
        [
            [path and Path(path) for path in scene]
            for scene in zip_longest(*(files.get(f"{part}_{kind}", []) for kind in kinds))
        ]
        for part in ("train", "val")
    )
    subject = dict(snakemake.wildcards.items())
    weights = [Path(path) for path in files.weights]
    run(
        snakemake.params.recipe,
        train_scenes,
        val_scenes,
        Path(snakemake.output.model),
        subject,
        snakemake.threads,
        weights,
    )
